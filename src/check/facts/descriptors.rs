//! What the descriptors of a process refer to, and which processes hold the other ends of its pipes.
//!
//! For that, the descriptors of all processes are read, as far as they can be. None is opened: the names and device
//! numbers in /proc say enough.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::stat::{major, minor};
use nix::unistd::Pid;

use crate::sys::proc::Stat;

/// An open descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub fd: RawFd,
    pub endpoint: Endpoint,
    /// Its target as /proc shows it.
    pub path: PathBuf,
}

/// What a descriptor refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Terminal,
    Pipe {
        /// The controlling terminal of each process that holds the other end.
        other_end: Vec<Option<u32>>,
        /// Whether all processes could be inspected.
        is_complete: bool,
    },
    /// /proc does not show which process holds the other end.
    Socket,
    Other,
}

/// The open descriptors of `pid` with their targets; `None` where they cannot be read.
pub fn list_descriptors(pid: Pid) -> Option<Vec<(RawFd, PathBuf)>> {
    let mut list = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()? {
        let entry = entry.ok()?;
        match fs::read_link(entry.path()) {
            Ok(path) => list.push((entry.file_name().to_str()?.parse().ok()?, path)),
            // It has been closed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(_) => return None,
        }
    }
    list.sort_unstable();
    Some(list)
}

/// What to look for among the descriptors of all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    Pipes,
    /// Also the master sides of pseudo-terminals.
    PipesAndMasters,
}

/// The processes that hold the other ends of pipes, and the master sides of pseudo-terminals.
pub struct Holders {
    /// The open ends of each pipe, by the name that /proc shows for it.
    pipes: BTreeMap<PathBuf, Vec<PipeEnd>>,
    /// The processes with a master side open.
    pub masters: Vec<Pid>,
    /// Whether all processes could be inspected.
    is_complete: bool,
}

/// An open descriptor on a pipe.
struct PipeEnd {
    holder: Pid,
    /// The controlling terminal of the holder.
    terminal: Option<u32>,
    access: Access,
}

/// What a descriptor is open for: open(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    ReadWrite,
}

impl Access {
    /// Whether one of the two ends of a pipe reads what the other writes.
    fn is_opposite(self, other: Self) -> bool {
        self != other || self == Self::ReadWrite
    }
}

impl Holders {
    /// Inspects all processes for the pipes among the `descriptors` of `pid` and whatever else the `search` is for.
    pub fn find(pid: Pid, table: &BTreeMap<Pid, Stat>, descriptors: &[(RawFd, PathBuf)], search: Search) -> Self {
        let pipes = descriptors.iter().filter(|(fd, path)| is_pipe(pid, *fd, path));
        let pipes: BTreeMap<_, _> = pipes.map(|(_, path)| (path.clone(), Vec::new())).collect();
        let mut holders = Self { pipes, masters: Vec::new(), is_complete: true };
        if holders.pipes.is_empty() && search == Search::Pipes {
            return holders;
        }
        for (holder, stat) in table {
            let descriptors = list_descriptors(*holder);
            holders.is_complete &= descriptors.is_some() || stat.is_dead();
            let terminal = (stat.terminal != 0).then_some(stat.terminal);
            for (fd, path) in descriptors.unwrap_or_default() {
                if let Some(ends) = holders.pipes.get_mut(&path) {
                    let access = read_access(*holder, fd);
                    ends.extend(access.map(|access| PipeEnd { holder: *holder, terminal, access }));
                } else if is_master(&path) && !holders.masters.contains(holder) {
                    holders.masters.push(*holder);
                }
            }
        }
        holders
    }

    /// Adds to a descriptor of `pid` what it refers to.
    pub fn describe(&self, pid: Pid, (fd, path): (RawFd, PathBuf)) -> Descriptor {
        let pipe = self.pipes.get(&path).and_then(|ends| Some((ends, read_access(pid, fd)?)));
        let endpoint = match pipe {
            Some((ends, access)) => {
                let others = ends.iter().filter(|end| end.holder != pid && end.access.is_opposite(access));
                Endpoint::Pipe { other_end: others.map(|end| end.terminal).collect(), is_complete: self.is_complete }
            }
            None if is_terminal(pid, fd, &path) => Endpoint::Terminal,
            None if path.as_os_str().as_bytes().starts_with(b"socket:[") => Endpoint::Socket,
            None => Endpoint::Other,
        };
        Descriptor { fd, endpoint, path }
    }
}

/// Whether a descriptor is on a pipe, with a name (a FIFO) or without.
fn is_pipe(pid: Pid, fd: RawFd, path: &Path) -> bool {
    let is_fifo = || fs::metadata(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|metadata| metadata.file_type().is_fifo());
    path.as_os_str().as_bytes().starts_with(b"pipe:[") || path.is_absolute() && is_fifo()
}

/// The access mode of a descriptor: /proc/PID/fdinfo/FD, see proc_pid_fdinfo(5).
fn read_access(pid: Pid, fd: RawFd) -> Option<Access> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    Some(match i32::from_str_radix(flags.trim(), 8).ok()? & libc::O_ACCMODE {
        libc::O_RDONLY => Access::Read,
        libc::O_WRONLY => Access::Write,
        _ => Access::ReadWrite,
    })
}

/// Whether `path` is the master side of a pseudo-terminal: pts(4).
fn is_master(path: &Path) -> bool {
    matches!(path.to_str(), Some("/dev/ptmx" | "/dev/pts/ptmx"))
}

/// Whether a descriptor is on a terminal, even one that is gone. Its device number says so, without an open(2).
fn is_terminal(pid: Pid, fd: RawFd, path: &Path) -> bool {
    match fs::metadata(format!("/proc/{pid}/fd/{fd}")) {
        Ok(metadata) => metadata.file_type().is_char_device() && is_terminal_device(metadata.rdev()),
        Err(_) => is_terminal_path(path),
    }
}

/// The character devices that are terminals: Documentation/admin-guide/devices.txt of the kernel.
fn is_terminal_device(device: u64) -> bool {
    match (major(device), minor(device)) {
        // ptmx, the master side.
        (5, 2) => false,
        // Virtual terminals and serial lines (4); tty and console (5); pseudo-terminals (136 to 143); USB modems and
        // serial lines (166, 188); low-density serial ports (204); hypervisor consoles (229).
        (4 | 5 | 136..=143 | 166 | 188 | 204 | 229, _) => true,
        _ => false,
    }
}

/// Whether this is the name of a terminal, for descriptors whose device number cannot be read.
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
    fn terminals_are_recognised_by_name() {
        for name in ["/dev/pts/3", "/dev/tty", "/dev/tty2", "/dev/ttyS0", "/dev/console", "/dev/pts/3 (deleted)"] {
            assert!(is_terminal_path(Path::new(name)), "{name}");
        }
        for name in ["/dev/null", "/dev/ptmx", "/dev/pts/ptmx", "/dev/pts/", "/tmp/pts/3", "pipe:[3]"] {
            assert!(!is_terminal_path(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn terminals_are_recognised_by_device_number() {
        for (major, minor) in [(136, 3), (4, 1), (4, 64), (5, 0), (5, 1), (188, 0), (204, 64)] {
            assert!(is_terminal_device(makedev(major, minor)), "{major}:{minor}");
        }
        for (major, minor) in [(1, 3), (5, 2), (10, 200)] {
            assert!(!is_terminal_device(makedev(major, minor)), "{major}:{minor}");
        }
    }

    #[test]
    fn ends_of_a_pipe_are_opposite_when_one_reads_and_the_other_writes() {
        use Access::{Read, ReadWrite, Write};
        for (one, other, expected) in [
            (Read, Write, true),
            (Read, Read, false),
            (Write, Write, false),
            (Read, ReadWrite, true),
            (Write, ReadWrite, true),
            (ReadWrite, ReadWrite, true),
        ] {
            assert_eq!((one.is_opposite(other), other.is_opposite(one)), (expected, expected), "{one:?} {other:?}");
        }
    }
}
