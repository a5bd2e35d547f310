//! Terminals, and the descriptors of a process that lead to one.
//!
//! A descriptor is known by the device that it is on, which stat(2) tells without opening it.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::libc;
use nix::sys::stat::{major, minor};
use nix::unistd::Pid;

use crate::sys::proc::{Stat, descriptor_flags, list_descriptors, terminal_device};

/// A terminal, by its device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    major: u64,
    minor: u64,
}

/// /dev/tty, the controlling terminal of the process that opens it: tty(4).
const OWN_TERMINAL: Terminal = Terminal { major: 5, minor: 0 };
const CONSOLE: Terminal = Terminal { major: 5, minor: 1 };

impl Terminal {
    /// The controlling terminal of a process.
    pub fn controlling(stat: &Stat) -> Option<Self> {
        let (major, minor) = terminal_device(stat.terminal);
        (stat.terminal != 0).then_some(Self { major: major.into(), minor: minor.into() })
    }

    /// The terminal that a standard stream of a process is on.
    pub fn of_stream(pid: Pid) -> Option<Self> {
        (0..=2).filter_map(|fd| Self::of_descriptor(pid, fd)).find(|device| device.is_terminal())
    }

    /// The character device that a descriptor is on.
    pub fn of_descriptor(pid: Pid, fd: i32) -> Option<Self> {
        Self::of_device(&fs::metadata(format!("/proc/{pid}/fd/{fd}")).ok()?)
    }

    /// The character device that a file is.
    pub fn of_device(metadata: &Metadata) -> Option<Self> {
        let device = metadata.rdev();
        metadata.file_type().is_char_device().then(|| Self { major: major(device), minor: minor(device) })
    }

    /// Whether what is done through this device is done to `terminal`. /dev/console is another name of a terminal that
    /// is no pseudo-terminal.
    pub fn leads_to(self, terminal: Self) -> bool {
        self == terminal || self == OWN_TERMINAL || self == CONSOLE && !terminal.is_pseudo()
    }

    /// Whether a device of this kind is a terminal, and always the same one: devices.txt of the kernel.
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
    pub purpose: Purpose,
    pub closes_on_exec: bool,
}

/// What a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// stdin, or open only for reading, or for a conversation with the user: /dev/tty, unless it is stdout or stderr.
    Read,
    Write,
}

/// The descriptors that lead to `terminal`, of the process of the thread `pid`: a first thread that has ended shows
/// none.
pub fn list_terminal_descriptors(pid: Pid, terminal: Terminal) -> nix::Result<Vec<TerminalDescriptor>> {
    let mut found = Vec::new();
    for fd in list_descriptors(pid)? {
        let device = Terminal::of_descriptor(pid, fd).filter(|device| device.leads_to(terminal));
        let Some((device, flags)) = device.zip(descriptor_flags(pid, fd)) else { continue };
        let is_read = match flags & libc::O_ACCMODE {
            libc::O_RDONLY => true,
            libc::O_RDWR => fd == 0 || device == OWN_TERMINAL && fd > 2,
            _ => fd == 0,
        };
        let purpose = if is_read { Purpose::Read } else { Purpose::Write };
        let closes_on_exec = flags & libc::O_CLOEXEC != 0;
        found.push(TerminalDescriptor { fd, purpose, closes_on_exec });
    }
    Ok(found)
}

/// The pairs of an epoll instance and a descriptor that it watches, for those of `watched`: epoll(7).
pub fn list_watches(pid: Pid, watched: &[TerminalDescriptor]) -> Vec<(i32, i32)> {
    let mut pairs = Vec::new();
    for fd in list_descriptors(pid).unwrap_or_default() {
        let link = fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap_or_default();
        if link.as_os_str() != "anon_inode:[eventpoll]" {
            continue;
        }
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        let targets =
            info.lines().filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next()?.parse().ok());
        pairs.extend(targets.filter(|target| watched.iter().any(|it| it.fd == *target)).map(|target| (fd, target)));
    }
    pairs
}
