//! Which processes are the job: the process group of a process, and all descendants of that.
//!
//! /proc is read, and nothing is touched. Whether it may be let go of is asked by `consent`.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::sys::stat::{major, minor};
use nix::unistd::Pid;

use crate::error::Error;
use crate::sys::proc::{self, Stat};
use crate::term::text::quote;

/// All processes, at one moment.
pub type Table = BTreeMap<Pid, Stat>;

/// A terminal, by its device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    major: u64,
    minor: u64,
}

/// What opens the controlling terminal of whoever opens it: tty(4).
const OWN_TERMINAL: Terminal = Terminal { major: 5, minor: 0 };
const CONSOLE: Terminal = Terminal { major: 5, minor: 1 };

/// A process of the job. Within this boot, PID and start time identify it.
#[derive(Clone, Debug)]
pub struct Member {
    pub pid: Pid,
    pub stat: Stat,
}

impl Member {
    /// `'make' (PID 4242)`
    pub fn describe(&self) -> String {
        format!("{} (PID {})", quote(std::ffi::OsStr::from_bytes(&self.stat.name)), self.pid)
    }

    /// Whether it leads its session.
    pub fn is_session_leader(&self) -> bool {
        self.stat.session == self.pid
    }
}

/// A job that runs and is to be let go of.
pub struct RunningJob {
    pub group: Pid,
    pub session: Pid,
    /// What is let go of: the controlling terminal, or else the one that a standard stream is on.
    pub terminal: Option<Terminal>,
    pub members: Vec<Member>,
    /// Every process that there was when it was looked at.
    seen: HashSet<Pid>,
}

impl Terminal {
    /// The controlling terminal of a process.
    fn controlling(stat: &Stat) -> Option<Self> {
        // proc_pid_stat(5): the minor number is in bits 31 to 20 and 7 to 0, the major number in bits 19 to 8.
        let number = u64::from(stat.terminal);
        (number != 0).then(|| Self { major: number >> 8 & 0xfff, minor: number & 0xff | number >> 12 & 0xfff00 })
    }

    /// The character device that a descriptor is on.
    fn of_descriptor(pid: Pid, fd: &str) -> Option<Self> {
        let metadata = fs::metadata(format!("/proc/{pid}/fd/{fd}")).ok()?;
        let device = metadata.rdev();
        metadata.file_type().is_char_device().then(|| Self { major: major(device), minor: minor(device) })
    }

    /// Whether a device of this kind is a terminal: devices.txt of the kernel.
    fn is_terminal(self) -> bool {
        self == CONSOLE || self.is_pseudo() || matches!(self.major, 4 | 166 | 188 | 204 | 229)
    }

    /// The side of a pseudo-terminal that programs have: pts(4).
    fn is_pseudo(self) -> bool {
        (136..=143).contains(&self.major)
    }
}

/// A descriptor that leads to the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalDescriptor {
    pub fd: i32,
    pub use_: Use,
    pub closes_on_exec: bool,
}

/// What a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// stdin, or open for reading alone, or a conversation with the user (/dev/tty).
    Read,
    Write,
}

/// The descriptors of a process that lead to `terminal`.
pub fn list_terminal_descriptors(pid: Pid, terminal: Terminal) -> nix::Result<Vec<TerminalDescriptor>> {
    let mut found = Vec::new();
    for fd in list_descriptors(pid)? {
        let Some(device) = Terminal::of_descriptor(pid, &fd.to_string()) else { continue };
        let is_own = device == OWN_TERMINAL;
        // /dev/console is another name of a terminal that is no pseudo-terminal.
        if device != terminal && !is_own && (device != CONSOLE || terminal.is_pseudo()) {
            continue;
        }
        let Some(flags) = descriptor_flags(pid, fd) else { continue };
        let is_read = fd == 0 || is_own || flags & nix::libc::O_ACCMODE == nix::libc::O_RDONLY;
        let closes_on_exec = flags & nix::libc::O_CLOEXEC != 0;
        found.push(TerminalDescriptor { fd, use_: if is_read { Use::Read } else { Use::Write }, closes_on_exec });
    }
    Ok(found)
}

fn list_descriptors(pid: Pid) -> nix::Result<Vec<i32>> {
    let failed = |error: std::io::Error| crate::sys::errno(&error);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).map_err(failed)? {
        numbers.extend(entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(numbers)
}

fn descriptor_flags(pid: Pid, fd: i32) -> Option<i32> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    i32::from_str_radix(flags.trim(), 8).ok()
}

/// The pairs of an epoll instance and a descriptor that it watches, for those of `watched`: epoll(7).
pub fn list_watches(pid: Pid, watched: &[TerminalDescriptor]) -> Vec<(i32, i32)> {
    let mut watches = Vec::new();
    for fd in list_descriptors(pid).unwrap_or_default() {
        let link = fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap_or_default();
        if link.as_os_str() != "anon_inode:[eventpoll]" {
            continue;
        }
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        let targets =
            info.lines().filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next()?.parse().ok());
        watches.extend(targets.filter(|target| watched.iter().any(|it| it.fd == *target)).map(|target| (fd, target)));
    }
    watches
}

/// All processes that can be seen.
pub fn read_table() -> Result<Table, Error> {
    proc::processes().and_then(Iterator::collect).map_err(Error::proc)
}

impl RunningJob {
    /// The job of the process `wanted`, or of the process group of this number.
    pub fn find(table: &Table, wanted: Pid) -> Result<Self, Error> {
        let living = || table.iter().filter(|(_, stat)| !stat.is_dead());
        let of_group = || living().find(|(_, stat)| stat.group == wanted).map(|(_, stat)| stat);
        let stat = table.get(&wanted).filter(|stat| !stat.is_dead()).or_else(of_group).ok_or_else(|| {
            Error::new(format!("cannot let go of process {wanted}: there is no such process or process group"))
        })?;
        let (group, session) = (stat.group, stat.session);
        let first = table.get(&group).filter(|leader| !leader.is_dead()).map_or(stat, |leader| leader);
        let first_pid = if std::ptr::eq(first, stat) { wanted } else { group };
        let mut job =
            Self { group, session, terminal: None, members: Vec::new(), seen: table.keys().copied().collect() };
        let streams = ["0", "1", "2"].into_iter().filter_map(|fd| Terminal::of_descriptor(first_pid, fd));
        job.terminal = Terminal::controlling(first).or_else(|| streams.into_iter().find(|it| it.is_terminal()));
        job.add(table);
        Ok(job)
    }

    /// Adds all processes of `table` that belong to the job. Returns whether there were any.
    fn add(&mut self, table: &Table) -> bool {
        let before = self.members.len();
        let mut known: HashSet<Pid> = self.members.iter().map(|member| member.pid).collect();
        loop {
            let belongs = |stat: &Stat| {
                (stat.group, stat.session) == (self.group, self.session)
                    || known.contains(&stat.parent)
                        && (stat.session == self.session
                            || stat.terminal == 0
                            || Terminal::controlling(stat) == self.terminal)
            };
            let new: Vec<Member> = table
                .iter()
                .filter(|(pid, stat)| !stat.is_dead() && !known.contains(pid) && belongs(stat))
                .map(|(pid, stat)| Member { pid: *pid, stat: stat.clone() })
                .collect();
            if new.is_empty() {
                break;
            }
            known.extend(new.iter().map(|member| member.pid));
            self.members.extend(new);
        }
        self.members.len() > before
    }

    /// Looks again, while its processes are stopped: adds what they have started since. Returns whether there was any.
    pub fn add_new(&mut self) -> nix::Result<bool> {
        let mut table = Table::new();
        for pid in proc::all_pids()?.into_iter().filter(|pid| !self.seen.contains(pid)) {
            if let Some(stat) = proc::stat(pid)? {
                table.insert(pid, stat);
            }
        }
        let has_new = self.add(&table);
        self.seen.extend(self.members.iter().map(|member| member.pid));
        Ok(has_new)
    }

    /// Takes over what belongs to another job, since both have processes in common.
    pub fn absorb(&mut self, other: &Self) -> bool {
        let missing = other.members.iter().filter(|member| !self.has(member.pid)).cloned();
        let missing: Vec<Member> = missing.collect();
        self.members.extend(missing);
        self.terminal = self.terminal.or(other.terminal);
        true
    }

    pub fn has(&self, pid: Pid) -> bool {
        self.members.iter().any(|member| member.pid == pid)
    }

    /// Its first process: the leader of its process group, or else the oldest process of that.
    pub fn first(&self) -> Option<&Member> {
        let of_group = || self.members.iter().filter(|member| member.stat.group == self.group);
        let leader = of_group().find(|member| member.pid == self.group);
        leader.or_else(|| of_group().min_by_key(|member| member.stat.start_time))
    }

    /// Its processes in the order in which they are let go of: the leader of the session last, since that sends signals to
    /// the process group in the foreground: tty_ioctl(4).
    pub fn in_order(&self) -> Vec<&Member> {
        let mut members: Vec<&Member> = self.members.iter().collect();
        members.sort_by_key(|member| (member.is_session_leader(), member.pid != member.stat.group, member.pid));
        members
    }
}

/// The command line of a process; its name where there is none.
pub fn read_argv(member: &Member) -> Vec<OsString> {
    let line = fs::read(format!("/proc/{}/cmdline", member.pid)).unwrap_or_default();
    let line = line.strip_suffix(b"\0").unwrap_or(&line);
    if line.is_empty() {
        return vec![OsString::from_vec(member.stat.name.clone())];
    }
    line.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.into())).collect()
}
