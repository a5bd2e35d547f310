//! Facts from /proc. Parsers take bytes and touch no file, so that every odd content can be tested.
//!
//! The identity of a process is its PID, its start time and the boot it belongs to: a PID alone is used again.

use std::fs;

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::error::errno;

/// Flags of a process, from include/linux/sched.h of the kernel.
const PF_EXITING: u32 = 0x4;
const PF_FORKNOEXEC: u32 = 0x40;

/// What tells one process from every other that ever had its PID.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The process.
    pub pid: Pid,
    /// Clock ticks after boot: field 22 of /proc/PID/stat, see proc_pid_stat(5).
    pub start_time: u64,
    /// /proc/sys/kernel/random/boot_id, see random(4).
    pub boot_id: String,
}

impl Identity {
    /// The identity of the calling process; `None` where /proc does not tell.
    pub fn of_this_process() -> Option<Self> {
        let start_time = parse_stat(&fs::read("/proc/self/stat").ok()?)?.start_time;
        Some(Self { pid: Pid::this(), start_time, boot_id: boot_id().ok()? })
    }
}

/// What /proc/PID/stat tells of a process: proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// A letter.
    pub state: u8,
    pub group: Pid,
    pub session: Pid,
    /// How many threads it has: more than one as a zombie when only its first thread has ended.
    pub threads: u32,
    /// Clock ticks after boot.
    pub start_time: u64,
    flags: u32,
}

impl Stat {
    /// Whether it has ended. A zombie has: where init does not wait for its children, it stays one for ever.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'X' | b'x') || self.state == b'Z' && self.threads <= 1
    }

    /// Whether it has ended, or is about to, without having executed a program since its fork.
    pub fn ends_without_exec(&self) -> bool {
        self.flags & PF_FORKNOEXEC != 0 && (self.flags & PF_EXITING != 0 || self.is_dead())
    }

    /// Whether a signal or a tracer has stopped it.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }
}

/// The process `pid`; `None` when there is none, or none that may be seen.
pub fn stat(pid: Pid) -> nix::Result<Option<Stat>> {
    match fs::read(format!("/proc/{pid}/stat")).map_err(|error| errno(&error)) {
        // It has ended before the open, or before the read.
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        other => Ok(parse_stat(&other?)),
    }
}

/// Whether a process lives that has `pid`, as far as can be seen.
pub fn is_alive(pid: Pid) -> bool {
    stat(pid).is_ok_and(|stat| stat.is_some_and(|stat| !stat.is_dead()))
}

/// The PIDs of all processes that may be seen.
pub fn all_pids() -> nix::Result<Vec<Pid>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").map_err(|error| errno(&error))? {
        let name = entry.map_err(|error| errno(&error))?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse().ok()).map(Pid::from_raw));
    }
    Ok(pids)
}

/// The boot that runs.
pub fn boot_id() -> nix::Result<String> {
    let bytes = fs::read("/proc/sys/kernel/random/boot_id").map_err(|error| errno(&error))?;
    parse_boot_id(&bytes).ok_or(Errno::EINVAL)
}

/// The PID namespace that PIDs are of here, by its number: pid_namespaces(7). Fails where /proc is not of it: what
/// runs could not be told from what has ended.
pub fn pid_namespace() -> nix::Result<u64> {
    let link = |name| fs::read_link(name).map_err(|error| errno(&error));
    if link("/proc/self")?.as_os_str().to_str() != Some(&Pid::this().to_string()) {
        return Err(Errno::ESRCH);
    }
    let name = link("/proc/self/ns/pid")?;
    let number = name.to_str().and_then(|name| name.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok());
    number.ok_or(Errno::EINVAL)
}

/// The command name, field 2, may itself hold parentheses, spaces and newlines: the fields are counted from the last
/// `)`.
fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let fields: Vec<&str> = str::from_utf8(stat.get(end_of_name + 1..)?).ok()?.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let pid = |number| Some(Pid::from_raw(field(number)?.parse().ok()?));
    Some(Stat {
        state: *field(3)?.as_bytes().first()?,
        group: pid(5)?,
        session: pid(6)?,
        flags: field(9)?.parse().ok()?,
        threads: field(20)?.parse().ok()?,
        start_time: field(22)?.parse().ok()?,
    })
}

/// The boot id, as the kernel writes it: hexadecimal digits in five groups, and a newline.
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
        let rest = "T 1 4242 4241 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 987654 1000 100";
        let [group, session] = [4242, 4241].map(Pid::from_raw);
        let (state, threads, start_time, flags) = (b'T', 3, 987_654, 4_194_560);
        let expected = Some(Stat { state, group, session, threads, start_time, flags });
        for name in ["sleep", "a) S 1 2 3", "line\nbreak", ") ) )", ""] {
            assert_eq!(parse_stat(format!("4242 ({name}) {rest}\n").as_bytes()), expected, "{name:?}");
        }
        let mut foreign = b"4242 (\xff\xfe) ".to_vec();
        foreign.extend_from_slice(rest.as_bytes());
        assert_eq!(parse_stat(&foreign), expected);
    }

    #[test]
    fn zombie_is_dead_when_no_thread_is_left() {
        let stat =
            |state, threads| Stat { state, threads, group: Pid::this(), session: Pid::this(), start_time: 0, flags: 0 };
        assert!(stat(b'Z', 1).is_dead() && stat(b'Z', 0).is_dead() && stat(b'X', 1).is_dead());
        assert!(!stat(b'Z', 2).is_dead() && !stat(b'S', 1).is_dead());
    }

    #[test]
    fn damaged_stat_tells_nothing() {
        for stat in [&b""[..], b"4242", b"4242 (sleep)", b"4242 (sleep) S 1 2 3", b")\xff"] {
            assert_eq!(parse_stat(stat), None, "{stat:?}");
        }
    }

    #[test]
    fn boot_id_cannot_leave_its_directory() {
        assert_eq!(parse_boot_id(b"0b1c-22\n").as_deref(), Some("0b1c-22"));
        assert_eq!(parse_boot_id(b"../../etc\n"), None);
        assert_eq!(parse_boot_id(b"\n"), None);
    }
}
