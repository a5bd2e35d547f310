//! What decides whether a process survives: collected from /proc, and for the logout by `logind`.
//!
//! Nothing is changed, and nothing is opened but files of the kernel and configuration. What may not be read is absent.
//! The parsers of single files are in `proc`; what the facts mean is in `check`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{major, minor};
use nix::unistd::Pid;

use crate::error::{Error, errno};
use crate::logind::{Manager, user_of};
use crate::proc::{self, Handling, Stat, Status};

/// All that is known of a process.
pub struct Facts {
    pub pid: Pid,
    pub stat: Stat,
    pub status: Option<Status>,
    pub argv: Vec<OsString>,
    pub directory: Option<PathBuf>,
    /// Absent where it is not to be seen from here.
    pub parent: Option<Relative>,
    /// The leader of its session; absent when that has ended.
    pub leader: Option<Relative>,
    /// The shell whose job it is: its nearest ancestor in the session of its terminal that is not in its process group.
    /// Absent where there is none: its group is orphaned, or leads the session.
    pub shell: Option<Relative>,
    /// Whether a signal has stopped a process of its group, itself included.
    pub is_group_stopped: bool,
    /// Whether it is in the PID namespace of the caller, as far as that may be read.
    pub is_in_this_namespace: bool,
    /// Absent where they may not be read.
    pub descriptors: Option<Vec<Descriptor>>,
    pub control_group: Option<Vec<u8>>,
    /// The terminals in the same control group: processes that hold the other side of a pseudo-terminal.
    pub terminals: Vec<Relative>,
    pub manager: Manager,
    pub children: Vec<Child>,
}

/// Another process, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relative {
    pub pid: Pid,
    /// The name of its program.
    pub name: Vec<u8>,
    pub group: Pid,
    pub hangup: Handling,
}

/// A child of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    pub pid: Pid,
    /// It has ended, and has not been waited for.
    pub is_zombie: bool,
}

/// An open descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub fd: RawFd,
    pub target: Target,
    /// As /proc shows it.
    pub path: PathBuf,
}

/// What a descriptor leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Terminal,
    Pipe {
        /// The controlling terminals of the processes that hold the other end, 0 for none.
        other_end: Vec<u32>,
        /// Whether all processes could be asked.
        is_complete: bool,
    },
    /// Nothing tells who holds the other end.
    Socket,
    Other,
}

impl Facts {
    /// Reads everything about the process `pid`.
    pub fn of(pid: Pid) -> Result<Self, Error> {
        let gone = || Error::NoSuchProcess { pid };
        let table = read_table()?;
        let stat = table.get(&pid).filter(|stat| !stat.is_dead()).cloned().ok_or_else(gone)?;
        let status = proc::status(pid);
        // A process whose first thread has ended shows none.
        let descriptors = if stat.state == b'Z' { None } else { list_descriptors(pid) };
        let control_group = proc::control_group(pid);
        let manager = Manager::of(user_of(control_group.as_deref(), status.as_ref()), &table);
        let holders = Holders::find(pid, &table, descriptors.as_deref().unwrap_or_default(), manager.has_oomd);
        let is_in_group = |other: &Pid| control_group.is_some() && proc::control_group(*other) == control_group;
        let facts = Self {
            pid,
            status,
            argv: read_argv(pid),
            directory: fs::read_link(format!("/proc/{pid}/cwd")).ok(),
            parent: relative(&table, stat.parent),
            leader: relative(&table, stat.session)
                .filter(|leader| table.get(&leader.pid).is_some_and(|l| !l.is_dead())),
            shell: find_shell(&table, &stat),
            is_in_this_namespace: is_in_this_namespace(pid),
            is_group_stopped: table.values().any(|other| other.group == stat.group && other.state == b'T'),
            descriptors: descriptors.map(|list| list.into_iter().map(|open| holders.describe(pid, open)).collect()),
            terminals: holders
                .masters
                .iter()
                .filter(|master| **master != pid && is_in_group(master))
                .filter_map(|master| relative(&table, *master))
                .collect(),
            control_group,
            manager,
            children: children_of(&table, pid),
            stat,
        };
        // If it has ended meanwhile, what was read may be of nobody, or of another process.
        let is_same = |now: Stat| !now.is_dead() && now.start_time == facts.stat.start_time;
        if proc::stat(pid).is_ok_and(|now| now.is_some_and(is_same)) { Ok(facts) } else { Err(gone()) }
    }

    /// The descriptors that lead to `wanted`, as a list for people.
    pub fn descriptors_on(&self, is_wanted: impl Fn(&Target) -> bool) -> Vec<&Descriptor> {
        self.descriptors.iter().flatten().filter(|descriptor| is_wanted(&descriptor.target)).collect()
    }
}

fn read_table() -> Result<BTreeMap<Pid, Stat>, Error> {
    proc::processes().and_then(Iterator::collect).map_err(Error::proc)
}

fn relative(table: &BTreeMap<Pid, Stat>, pid: Pid) -> Option<Relative> {
    let stat = table.get(&pid)?;
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok();
    let program = program.as_deref().and_then(Path::file_name).map(OsStrExt::as_bytes);
    // What has been replaced by an update is the same program still: proc_pid_exe(5).
    let program = program.map(|name| name.strip_suffix(b" (deleted)").unwrap_or(name).to_owned());
    let name = program.unwrap_or_else(|| stat.name.clone());
    let hangup = proc::status(pid).map_or(Handling::Caught, |status| status.disposition(libc::SIGHUP));
    Some(Relative { pid, name, group: stat.group, hangup })
}

/// Whether `pid` is in the PID namespace of this process. Of processes of others that may not be read.
fn is_in_this_namespace(pid: Pid) -> bool {
    let namespace = |name: &str| fs::read_link(format!("/proc/{name}/ns/pid")).ok();
    namespace(&pid.to_string()).is_none_or(|its| Some(its) == namespace("self"))
}

/// The shell that has started the job of a process: an ancestor of some process of its group. Job control gives each job
/// a process group of its own; a shell in the same group runs a script. Without a terminal there is no job control.
fn find_shell(table: &BTreeMap<Pid, Stat>, stat: &Stat) -> Option<Relative> {
    if stat.terminal == 0 {
        return None;
    }
    let group = table.values().filter(|member| (member.group, member.session) == (stat.group, stat.session));
    group.filter(|member| !member.is_dead()).find_map(|member| find_shell_of(table, member))
}

fn find_shell_of(table: &BTreeMap<Pid, Stat>, stat: &Stat) -> Option<Relative> {
    let mut ancestor = stat.parent;
    // The table is no snapshot: bounded, in case it has a circle.
    for _ in 0..table.len() {
        let parent = table.get(&ancestor).filter(|parent| parent.session == stat.session && !parent.is_dead())?;
        if parent.group != stat.group {
            return relative(table, ancestor);
        }
        ancestor = parent.parent;
    }
    None
}

fn children_of(table: &BTreeMap<Pid, Stat>, pid: Pid) -> Vec<Child> {
    let children = table.iter().filter(|(_, stat)| stat.parent == pid);
    children.map(|(pid, stat)| Child { pid: *pid, is_zombie: stat.is_dead() }).collect()
}

fn read_argv(pid: Pid) -> Vec<OsString> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = line.strip_suffix(b"\0").unwrap_or(&line);
    if line.is_empty() {
        Vec::new()
    } else {
        line.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.into())).collect()
    }
}

/// The open descriptors of `pid` and what they lead to; `None` where that may not be read.
fn list_descriptors(pid: Pid) -> Option<Vec<(RawFd, PathBuf)>> {
    let mut list = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()? {
        let entry = entry.ok()?;
        match fs::read_link(entry.path()) {
            Ok(path) => list.push((entry.file_name().to_str()?.parse().ok()?, path)),
            // It has been closed meanwhile.
            Err(error) if errno(&error) == Errno::ENOENT => (),
            Err(_) => return None,
        }
    }
    list.sort_unstable();
    Some(list)
}

/// Who holds the pipes of a process, and the other sides of pseudo-terminals.
struct Holders {
    /// By the name that /proc gives a pipe: process, its controlling terminal, and whether it can read and write.
    pipes: BTreeMap<PathBuf, Vec<(Pid, u32, Access)>>,
    masters: Vec<Pid>,
    /// Whether all processes could be asked.
    is_complete: bool,
}

/// What an end of a pipe is open for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Access {
    reads: bool,
    writes: bool,
}

impl Holders {
    /// Asks all processes about the pipes among `descriptors`, and, if that `matters`, about pseudo-terminals.
    fn find(pid: Pid, table: &BTreeMap<Pid, Stat>, descriptors: &[(RawFd, PathBuf)], masters_matter: bool) -> Self {
        let pipes = descriptors.iter().filter(|(fd, path)| is_pipe(pid, *fd, path));
        let pipes: BTreeMap<_, _> = pipes.map(|(_, path)| (path.clone(), Vec::new())).collect();
        let mut holders = Self { pipes, masters: Vec::new(), is_complete: true };
        if holders.pipes.is_empty() && !masters_matter {
            return holders;
        }
        for (pid, stat) in table {
            let descriptors = list_descriptors(*pid);
            holders.is_complete &= descriptors.is_some() || stat.is_dead();
            for (fd, path) in descriptors.unwrap_or_default() {
                if let Some(ends) = holders.pipes.get_mut(&path) {
                    ends.extend(read_access(*pid, fd).map(|access| (*pid, stat.terminal, access)));
                } else if matches!(path.to_str(), Some("/dev/ptmx" | "/dev/pts/ptmx")) && !holders.masters.contains(pid)
                {
                    holders.masters.push(*pid);
                }
            }
        }
        holders
    }

    fn describe(&self, pid: Pid, (fd, path): (RawFd, PathBuf)) -> Descriptor {
        let pipe = self.pipes.get(&path).and_then(|ends| Some((ends, read_access(pid, fd)?)));
        let target = match pipe {
            Some((ends, own)) => {
                let others = ends.iter().filter(|(other, _, access)| {
                    *other != pid && (own.writes && access.reads || own.reads && access.writes)
                });
                let other_end = others.map(|(_, terminal, _)| *terminal).collect();
                Target::Pipe { other_end, is_complete: self.is_complete }
            }
            None if is_terminal(pid, fd, &path) => Target::Terminal,
            None if path.as_os_str().as_bytes().starts_with(b"socket:[") => Target::Socket,
            None => Target::Other,
        };
        Descriptor { fd, target, path }
    }
}

/// Whether a descriptor leads to a pipe, be it one with a name.
fn is_pipe(pid: Pid, fd: RawFd, path: &Path) -> bool {
    let is_fifo = || fs::metadata(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|metadata| metadata.file_type().is_fifo());
    path.as_os_str().as_bytes().starts_with(b"pipe:[") || path.is_absolute() && is_fifo()
}

/// Whether a descriptor leads to a terminal, gone or not. That is asked of its device, without opening it.
fn is_terminal(pid: Pid, fd: RawFd, path: &Path) -> bool {
    match fs::metadata(format!("/proc/{pid}/fd/{fd}")) {
        Ok(metadata) => metadata.file_type().is_char_device() && is_terminal_device(metadata.rdev()),
        Err(_) => is_terminal_path(path),
    }
}

/// The character devices that are terminals: Documentation/admin-guide/devices.txt of the kernel.
fn is_terminal_device(device: u64) -> bool {
    match (major(device), minor(device)) {
        // ptmx, which is the other side.
        (5, 2) => false,
        // Virtual terminals and serial lines; tty and console; pseudo-terminals; USB modems and serial lines; small
        // computers' serial lines; hypervisor consoles.
        (4 | 5 | 136..=143 | 166 | 188 | 204 | 229, _) => true,
        _ => false,
    }
}

/// The access mode of a descriptor: /proc/PID/fdinfo/FD, see proc_pid_fdinfo(5).
fn read_access(pid: Pid, fd: RawFd) -> Option<Access> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let mode = i32::from_str_radix(flags.trim(), 8).ok()? & libc::O_ACCMODE;
    Some(Access { reads: mode != libc::O_WRONLY, writes: mode != libc::O_RDONLY })
}

/// Whether this is the name of a terminal, where its device may not be asked.
fn is_terminal_path(path: &Path) -> bool {
    let Some(name) = path.as_os_str().as_bytes().strip_prefix(b"/dev/") else { return false };
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    let is_number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    name == b"tty"
        || name == b"console"
        || [&b"pts/"[..], b"tty", b"ttyS", b"hvc"].iter().any(|kind| name.strip_prefix(*kind).is_some_and(is_number))
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::makedev;

    use super::*;

    #[test]
    fn terminals_are_known_by_name() {
        for name in ["/dev/pts/3", "/dev/tty", "/dev/tty2", "/dev/ttyS0", "/dev/console", "/dev/pts/3 (deleted)"] {
            assert!(is_terminal_path(Path::new(name)), "{name}");
        }
        for name in ["/dev/null", "/dev/ptmx", "/dev/pts/ptmx", "/dev/pts/", "/tmp/pts/3", "pipe:[3]"] {
            assert!(!is_terminal_path(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn terminals_are_known_by_device() {
        for (major, minor) in [(136, 3), (4, 1), (4, 64), (5, 0), (5, 1), (188, 0), (204, 64)] {
            assert!(is_terminal_device(makedev(major, minor)), "{major}:{minor}");
        }
        for (major, minor) in [(1, 3), (5, 2), (10, 200)] {
            assert!(!is_terminal_device(makedev(major, minor)), "{major}:{minor}");
        }
    }
}
