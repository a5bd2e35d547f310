//! What /proc says about processes. Parsers take bytes and open no file, so that any content can be tested.
//!
//! PIDs are reused. Within one boot, a PID together with a start time identifies a process.

use std::fmt::Display;
use std::fs;
use std::ops::RangeInclusive;
use std::os::fd::RawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{kill, killpg};
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, read};
use serde::Serialize;

use crate::sys::errno;

/// The unit of start times, in milliseconds: 1/USER_HZ of a second, see time(7). USER_HZ is 100 wherever Rust runs.
pub const TICK_MS: u64 = 10;
const TICK: Duration = Duration::from_millis(TICK_MS);
/// More than the kernel's and the C library's readings of one clock can differ.
const CLOCK_ERROR: Duration = Duration::from_micros(1);
/// No /proc/PID/stat is longer: about fifty numbers and a name.
const LONGEST_STAT: usize = 2048;
/// 36 characters and a newline.
const LONGEST_BOOT_ID: usize = 64;
/// Three loads, two numbers of threads, and a PID.
const LONGEST_LOADAVG: usize = 128;

/// The start time of the calling process, in clock ticks after boot (field 22 of /proc/PID/stat). It was made between
/// two times of [`time_since_boot`]. `None` where these leave a doubt and /proc is missing. Allocates nothing.
pub fn own_start_time(made: &RangeInclusive<Duration>) -> Option<u64> {
    let from_stat = || {
        let mut stat = [0; LONGEST_STAT];
        let length = read_into("/proc/self/stat", &mut stat).ok()?;
        fields_after_name(stat.get(..length)?)?.nth(22 - 3)?.parse().ok()
    };
    only_tick_of(made).or_else(from_stat)
}

/// The clock of start times, which also counts while the machine sleeps: clock_gettime(2). Zero where there is none.
pub fn time_since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// The tick that contains all of `time`, if one does. Making a process is so quick that this is almost always so.
fn only_tick_of(time: &RangeInclusive<Duration>) -> Option<u64> {
    let tick = |time: Duration| u64::try_from(time.as_nanos() / TICK.as_nanos()).ok();
    let first = tick(time.start().saturating_sub(CLOCK_ERROR))?;
    let last = tick(time.end().saturating_add(CLOCK_ERROR))?;
    (first == last && !time.is_empty() && !time.end().is_zero()).then_some(first)
}

/// The fields of /proc/PID/stat that matter here: proc_pid_stat(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The first 15 bytes of the name of its program, unless it has set another name with prctl(2).
    pub name: Vec<u8>,
    /// A letter, as in ps(1).
    pub state: u8,
    pub parent: Pid,
    pub group: Pid,
    pub session: Pid,
    /// The device number of its controlling terminal, 0 for none.
    pub terminal: u32,
    /// The process group in the foreground of that terminal, -1 for none.
    pub foreground: Pid,
    /// The number of its threads. A zombie with more than one has lost only its first thread.
    pub threads: u32,
    /// Clock ticks after boot.
    pub start_time: u64,
}

impl Stat {
    /// Whether it has ended. A zombie has: it stays one forever if neither its parent nor init waits for it.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'X' | b'x') || self.state == b'Z' && self.threads <= 1
    }

    /// Whether a signal or a tracer has stopped it.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }
}

/// Reads /proc/PID/stat; `None` when there is no such process, or none that is visible.
pub fn stat(pid: Pid) -> nix::Result<Option<Stat>> {
    match read_line::<LONGEST_STAT>(&format!("/proc/{pid}/stat")) {
        // It ended before the open(2), or between that and the read(2); or /proc is mounted with `hidepid`: proc(5).
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EPERM | Errno::EACCES) => Ok(None),
        other => Ok(parse_stat(&other?)),
    }
}

/// Whether a visible process has this PID and has not ended.
pub fn is_alive(pid: Pid) -> bool {
    stat(pid).is_ok_and(|stat| stat.is_some_and(|stat| !stat.is_dead()))
}

/// Whether a process has this PID, whether or not /proc shows it: only kill(2) says that a process is gone.
pub fn exists(pid: Pid) -> bool {
    kill(pid, None) != Err(Errno::ESRCH)
}

/// Whether a process is in the process group of this number, whether or not /proc shows it.
pub fn is_group(number: Pid) -> bool {
    killpg(number, None) != Err(Errno::ESRCH)
}

/// Whether /proc shows all processes of this PID namespace. Each has a process 1, and where /proc is mounted with
/// `hidepid`, only its user sees it.
pub fn shows_all() -> bool {
    visible_pid_namespace().is_ok() && stat(Pid::from_raw(1)).is_ok_and(|stat| stat.is_some())
}

/// The PIDs of all visible processes.
pub fn all_pids() -> nix::Result<Vec<Pid>> {
    Ok(list_numbers("/proc")?.into_iter().map(Pid::from_raw).collect())
}

/// The PID that was given last in the PID namespace of this process, to a process or a thread: proc_loadavg(5).
pub fn newest_pid() -> Option<Pid> {
    parse_newest_pid(&read_line::<LONGEST_LOADAVG>("/proc/loadavg").ok()?)
}

/// Whether a visible process has this PID, which is not only that of a thread.
pub fn is_process(pid: Pid) -> bool {
    let status = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    status_field(&status, "Tgid").is_some_and(|leader| leader.parse() == Ok(pid.as_raw()))
}

/// All visible processes, without those that end meanwhile.
pub fn processes() -> nix::Result<impl Iterator<Item = nix::Result<(Pid, Stat)>>> {
    Ok(all_pids()?.into_iter().filter_map(|pid| stat(pid).transpose().map(|stat| Ok((pid, stat?)))))
}

/// The threads of a process.
pub fn list_threads(process: Pid) -> Vec<(Pid, Stat)> {
    let directory = format!("/proc/{process}/task");
    let threads = list_numbers(&directory).unwrap_or_default().into_iter();
    let stat = |thread| parse_stat(&fs::read(format!("{directory}/{thread}/stat")).ok()?);
    threads.filter_map(|thread| Some((Pid::from_raw(thread), stat(thread)?))).collect()
}

/// The open descriptors of a process, by its number or as `self`. In the latter case, that of the list itself is among
/// them.
pub fn list_descriptors(process: impl Display) -> nix::Result<Vec<RawFd>> {
    list_numbers(&format!("/proc/{process}/fd"))
}

/// The flags of a descriptor, those of open(2): proc_pid_fdinfo(5).
pub fn descriptor_flags(process: impl Display, fd: RawFd) -> Option<i32> {
    let info = fs::read_to_string(format!("/proc/{process}/fdinfo/{fd}")).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    i32::from_str_radix(flags.trim(), 8).ok()
}

/// The names in a directory of /proc that are numbers.
fn list_numbers(directory: &str) -> nix::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| errno(&error))? {
        let name = entry.map_err(|error| errno(&error))?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(numbers)
}

/// Reads a file of /proc that holds one line of at most `LONGEST` bytes.
fn read_line<const LONGEST: usize>(path: &str) -> nix::Result<Vec<u8>> {
    let mut line = [0; LONGEST];
    let length = read_into(path, &mut line)?;
    Ok(line.get(..length).unwrap_or_default().to_owned())
}

/// One read(2) with enough room returns all of such a file. Returns the number of bytes.
fn read_into(path: &str, buffer: &mut [u8]) -> nix::Result<usize> {
    read(open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?, buffer)
}

/// The ID of the current boot: random(4).
pub fn boot_id() -> nix::Result<String> {
    parse_boot_id(&read_line::<LONGEST_BOOT_ID>("/proc/sys/kernel/random/boot_id")?).ok_or(Errno::EINVAL)
}

/// The number of the PID namespace of this process: pid_namespaces(7).
pub fn pid_namespace() -> nix::Result<u64> {
    namespace("pid")
}

/// The number of the time namespace of this process, in which its start times count: time_namespaces(7). Fails with
/// ENOENT where the kernel has none.
pub fn time_namespace() -> nix::Result<u64> {
    namespace("time")
}

fn namespace(kind: &str) -> nix::Result<u64> {
    let name = fs::read_link(format!("/proc/self/ns/{kind}")).map_err(|error| errno(&error))?;
    let number = |name: &str| name.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok();
    name.to_str().and_then(number).ok_or(Errno::EINVAL)
}

/// Like [`pid_namespace`], for callers that inspect other processes. Fails with ENOENT where /proc is not mounted, and
/// with ESRCH where it belongs to another namespace, where the same PID means another process.
pub fn visible_pid_namespace() -> nix::Result<u64> {
    let this = fs::read_link("/proc/self").map_err(|error| errno(&error))?;
    if this.as_os_str().to_str() == Some(&Pid::this().to_string()) { pid_namespace() } else { Err(Errno::ESRCH) }
}

/// The fields of /proc/PID/stat from the third on. The second, the name, may itself contain parentheses, spaces and
/// newlines, so they are counted from the last `)`. Allocates nothing.
fn fields_after_name(stat: &[u8]) -> Option<impl Iterator<Item = &str>> {
    let rest = stat.rsplit(|byte| *byte == b')').next()?;
    Some(str::from_utf8(rest).ok()?.split_ascii_whitespace())
}

/// Reads the contents of /proc/PID/stat, or of that of a thread.
pub fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let begin_of_name = stat.iter().position(|byte| *byte == b'(')? + 1;
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let fields: Vec<&str> = fields_after_name(stat)?.collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let pid = |number| Some(Pid::from_raw(field(number)?.parse().ok()?));
    Some(Stat {
        name: stat.get(begin_of_name..end_of_name)?.to_owned(),
        state: *field(3)?.as_bytes().first()?,
        parent: pid(4)?,
        group: pid(5)?,
        session: pid(6)?,
        terminal: field(7)?.parse::<i32>().ok()?.cast_unsigned(),
        foreground: pid(8)?,
        threads: field(20)?.parse().ok()?,
        start_time: field(22)?.parse().ok()?,
    })
}

/// A set of signals, as a mask in /proc/PID/status: bit 0 is signal 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet(pub u64);

impl SignalSet {
    pub fn contains(self, number: i32) -> bool {
        (1..=64).contains(&number) && self.0 >> (number - 1) & 1 == 1
    }

    pub fn numbers(self) -> impl Iterator<Item = i32> {
        (1..=64).filter(move |number| self.contains(*number))
    }
}

/// What a process does with a signal: signal(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Disposition {
    Default,
    Ignored,
    /// It has a handler, or the signal is blocked and may be accepted with sigwait(3) or signalfd(2).
    Caught,
}

/// The fields of /proc/PID/status that are not in [`Stat`]: proc_pid_status(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The effective user.
    pub user: u32,
    /// Absent before Linux 4.7.
    pub umask: Option<u32>,
    pub blocked: SignalSet,
    pub ignored: SignalSet,
    pub caught: SignalSet,
}

impl Status {
    /// What it does with signal `number`.
    pub fn disposition(&self, number: i32) -> Disposition {
        if self.ignored.contains(number) {
            Disposition::Ignored
        } else if self.caught.contains(number) || self.blocked.contains(number) {
            Disposition::Caught
        } else {
            Disposition::Default
        }
    }
}

/// Reads /proc/PID/status; `None` when there is no such process, or none that is visible.
pub fn status(pid: Pid) -> Option<Status> {
    parse_status(&fs::read(format!("/proc/{pid}/status")).ok()?)
}

/// The last field: the PID.
fn parse_newest_pid(loadavg: &[u8]) -> Option<Pid> {
    let field = loadavg.trim_ascii_end().rsplit(|byte| *byte == b' ').next()?;
    str::from_utf8(field).ok()?.parse().ok().map(Pid::from_raw)
}

/// A field of /proc/PID/status. The kernel escapes newlines in the name, so every line is a field.
pub fn status_field<'s>(status: &'s [u8], name: &str) -> Option<&'s str> {
    let mut lines = status.split(|byte| *byte == b'\n');
    let line = lines.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":"))?;
    Some(str::from_utf8(line).ok()?.trim())
}

fn parse_status(status: &[u8]) -> Option<Status> {
    let field = |name: &str| status_field(status, name);
    let set = |name| Some(SignalSet(u64::from_str_radix(field(name)?, 16).ok()?));
    Some(Status {
        // Real, effective, saved, file system.
        user: field("Uid")?.split_ascii_whitespace().nth(1)?.parse().ok()?,
        umask: field("Umask").and_then(|umask| u32::from_str_radix(umask, 8).ok()),
        blocked: set("SigBlk")?,
        ignored: set("SigIgn")?,
        caught: set("SigCgt")?,
    })
}

/// The control group of the process `pid` that systemd uses: cgroups(7). `None` where there is none, or where it cannot
/// be read.
pub fn control_group(pid: Pid) -> Option<Vec<u8>> {
    parse_control_group(&fs::read(format!("/proc/{pid}/cgroup")).ok()?)
}

/// systemd uses the unified hierarchy (`0::PATH`), or one of its own (`N:name=systemd:PATH`), or both. A container or a
/// leftover mount may show one that systemd does not use, and this file does not say which. So the unified one counts,
/// unless only the other one names a unit.
fn parse_control_group(cgroup: &[u8]) -> Option<Vec<u8>> {
    let lines = || cgroup.split(|byte| *byte == b'\n');
    let unified = lines().find_map(|line| line.strip_prefix(b"0::"));
    let mut without_number = lines().filter_map(|line| line.splitn(2, |byte| *byte == b':').nth(1));
    let of_systemd = without_number.find_map(|line| line.strip_prefix(b"name=systemd:"));
    let names_unit = |group: &&[u8]| has_unit(group);
    unified.filter(names_unit).or(of_systemd.filter(names_unit)).or(unified).or(of_systemd).map(<[u8]>::to_owned)
}

/// Whether a control group is that of a unit, or within one: systemd names it after the unit.
fn has_unit(control_group: &[u8]) -> bool {
    let endings = [&b".scope"[..], b".service", b".slice"];
    control_group.split(|byte| *byte == b'/').any(|part| endings.iter().any(|ending| part.ends_with(ending)))
}

/// The name that ps(1) shows for the terminal with this device number.
pub fn terminal_name(number: u32) -> String {
    match terminal_device(number) {
        (major @ 136..=143, minor) => format!("pts/{}", (major - 136) * 256 + minor),
        (4, minor @ 64..) => format!("ttyS{}", minor - 64),
        (4, minor) => format!("tty{minor}"),
        (major, minor) => format!("{major}:{minor}"),
    }
}

/// The major and the minor device number in [`Stat::terminal`].
pub fn terminal_device(number: u32) -> (u32, u32) {
    // proc_pid_stat(5): the minor number is in bits 31 to 20 and 7 to 0, the major number in bits 19 to 8.
    (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00)
}

/// The kernel writes hexadecimal digits in five groups, and a newline.
fn parse_boot_id(bytes: &[u8]) -> Option<String> {
    let id = str::from_utf8(bytes).ok()?.trim_end();
    let is_plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_plain.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_the_last_parenthesis() {
        let rest = "T 1 4242 4241 34817 4240 4194560 1 2 3 4 5 6 7 8 20 0 3 0 987654 1000 100\n";
        let [parent, group, session, foreground] = [1, 4242, 4241, 4240].map(Pid::from_raw);
        for name in [&b"sleep"[..], b"a) S 1 2 3", b"line\nbreak", b") ) )", b"", b"((", b"\xff\xfe)"] {
            let stat = [b"4242 (", name, b") ", rest.as_bytes()].concat();
            let name = name.to_owned();
            let (state, terminal, threads, start_time) = (b'T', 0x8801, 3, 987_654);
            let expected = Stat { name, state, parent, group, session, terminal, foreground, threads, start_time };
            assert_eq!(parse_stat(&stat), Some(expected));
        }
    }

    #[test]
    fn start_time_is_known_if_one_tick_contains_it() {
        let ms = |from: u64, to: u64| Duration::from_millis(from)..=Duration::from_millis(to);
        for (time, tick) in [
            (ms(12, 18), Some(1)),
            (ms(123_451, 123_452), Some(12_345)),
            (ms(12, 21), None),
            (ms(10, 11), None),
            (ms(19, 20), None),
            (ms(18, 12), None),
            (ms(0, 0), None),
        ] {
            assert_eq!(only_tick_of(&time), tick, "{time:?}");
        }
    }

    #[test]
    fn zombie_is_dead_once_no_thread_is_left() {
        let stat = |state: u8, threads: u32| {
            let line = format!("7 (x) {} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 5", char::from(state));
            parse_stat(line.as_bytes()).unwrap_or_else(|| unreachable!())
        };
        assert!(stat(b'Z', 1).is_dead() && stat(b'Z', 0).is_dead() && stat(b'X', 1).is_dead());
        assert!(!stat(b'Z', 2).is_dead() && !stat(b'S', 1).is_dead());
    }

    #[test]
    fn damaged_stat_is_rejected() {
        for stat in [&b""[..], b"4242", b"4242 (sleep)", b"4242 (sleep) S 1 2 3", b")\xff", b")("] {
            assert_eq!(parse_stat(stat), None, "{stat:?}");
        }
    }

    #[test]
    fn status_is_read_line_by_line() {
        let text = b"Name:\ta\\n)\nUmask:\t0027\nUid:\t1000\t1001\t1000\t1000\nSigBlk:\t0000000000000001\n\
            SigIgn:\t8000000000000006\nSigCgt:\t0000000180000002\n";
        let expected = Status {
            user: 1001,
            umask: Some(0o27),
            blocked: SignalSet(1),
            ignored: SignalSet(0x8000_0000_0000_0006),
            caught: SignalSet(0x1_8000_0002),
        };
        assert_eq!(parse_status(text), Some(expected));
        assert_eq!(parse_status(b"Name:\tkthreadd\n"), None);
        assert!(expected.ignored.contains(3) && expected.ignored.contains(64) && !expected.ignored.contains(1));
        assert_eq!(expected.ignored.numbers().collect::<Vec<_>>(), [2, 3, 64]);
        assert_eq!(expected.disposition(1), Disposition::Caught);
        assert_eq!(expected.disposition(9), Disposition::Default);
        assert_eq!(expected.disposition(2), Disposition::Ignored);
    }

    #[test]
    fn newest_pid_is_the_last_field() {
        for (line, pid) in [("0.00 0.01 0.05 2/114 4242\n", Some(4242)), ("lxc\n", None), ("", None)] {
            assert_eq!(parse_newest_pid(line.as_bytes()), pid.map(Pid::from_raw), "{line}");
        }
    }

    #[test]
    fn control_group_is_that_of_the_unit() {
        let session = "/user.slice/user-1000.slice/session-2.scope";
        for (what, text, group) in [
            ("unified", format!("0::{session}\n"), Some(session)),
            ("unified, a colon", "0::/user.slice/a:b.scope\n".into(), Some("/user.slice/a:b.scope")),
            ("hybrid", format!("9:name=systemd:{session}\n4:memory:/x.scope\n0::{session}\n"), Some(session)),
            (
                "hybrid, systemd has the unified one",
                format!("9:name=systemd:/\n8:pids:/\n0::{session}\n"),
                Some(session),
            ),
            ("hybrid, of an outer systemd", format!("1:name=systemd:/docker.service\n0::{session}\n"), Some(session)),
            ("legacy", format!("9:cpu,cpuacct:/\n1:name=systemd:{session}\n"), Some(session)),
            ("legacy, the unified one is unused", format!("1:name=systemd:{session}\n0::/\n"), Some(session)),
            ("legacy, another program uses it", format!("1:name=systemd:{session}\n0::/batch/7\n"), Some(session)),
            ("of no unit", "9:name=systemd:/a\n0::/b\n".into(), Some("/b")),
            ("of no unit, legacy", "9:name=systemd:/a\n".into(), Some("/a")),
            ("systemd does not run", "4:memory:/x.scope\n".into(), None),
            ("no control groups", String::new(), None),
        ] {
            let parsed = parse_control_group(text.as_bytes());
            assert_eq!(parsed, group.map(|group| group.as_bytes().to_owned()), "{what}");
        }
    }

    #[test]
    fn terminal_is_named_after_its_device() {
        for (number, name) in [
            (0x8800, "pts/0"),
            (0x8801, "pts/1"),
            (0x8900, "pts/256"),
            (0x0401, "tty1"),
            (0x0440, "ttyS0"),
            (0x0501, "5:1"),
        ] {
            assert_eq!(terminal_name(number), name);
        }
    }

    #[test]
    fn boot_id_with_slashes_is_rejected() {
        assert_eq!(parse_boot_id(b"0b1c-22\n").as_deref(), Some("0b1c-22"));
        assert_eq!(parse_boot_id(b"../../etc\n"), None);
        assert_eq!(parse_boot_id(b"\n"), None);
    }
}
