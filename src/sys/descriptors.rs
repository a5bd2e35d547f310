//! Descriptors: the standard streams, and closing those that a command does not keep.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::stat::{FileStat, SFlag, makedev};

use crate::sys::proc::list_descriptors;

/// stdin, stdout and stderr, without the buffers of `std::io`.
pub fn standard_streams() -> [BorrowedFd<'static>; 3] {
    // SAFETY: `entry::prepare` has made sure that the three are open, and nothing closes them.
    [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) })
}

/// Makes descriptor `to` the same as `from`: dup2(2). Only for the standard streams.
pub fn redirect(from: RawFd, to: RawFd) -> nix::Result<()> {
    // SAFETY: dup2 takes no pointer, and no object of this program owns a standard stream.
    Errno::result(unsafe { libc::dup2(from, to) }).map(drop)
}

/// Whether descriptor `fd` is open.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD takes no pointer and fails with EBADF for a descriptor that is not open.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// Whether a file is the null device, character device 1:3: null(4).
pub fn is_null_device(status: &FileStat) -> bool {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR && status.st_rdev == makedev(1, 3)
}

/// Another descriptor of `file`, the lowest free one from `lowest` on, which stays open across an exec.
pub fn duplicate_from(file: impl AsFd, lowest: RawFd) -> nix::Result<OwnedFd> {
    let fd = fcntl(file, FcntlArg::F_DUPFD(lowest))?;
    // SAFETY: the call has just made this descriptor, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How to close all descriptors but a few. Made before there is a new process, which must not allocate.
pub enum Closer {
    /// close_range(2)
    Ranges,
    /// One by one, where the kernel is older than Linux 5.9 or a filter refuses that call.
    Each(Vec<RawFd>),
}

impl Closer {
    pub fn find() -> nix::Result<Self> {
        // A range in which no descriptor can be.
        match close_range(RawFd::MAX, RawFd::MAX) {
            Err(Errno::ENOSYS | Errno::EPERM) => list_descriptors("self").map(Self::Each),
            other => other.map(|()| Self::Ranges),
        }
    }

    /// Closes every descriptor from 3 on, except those of `keep`, which is sorted, and `also`.
    ///
    /// Now, not at the exec (close-on-exec): during an exec, the kernel resumes the parent before it closes anything.
    pub fn close(&self, keep: &[RawFd], also: Option<RawFd>) -> nix::Result<()> {
        match self {
            Self::Ranges => close_between(keep, also),
            Self::Each(open) => {
                for fd in open.iter().filter(|fd| **fd > 2 && !keep.contains(fd) && Some(**fd) != also) {
                    // SAFETY: in the new process, nothing uses a descriptor that is not to be kept. One that has been
                    // closed meanwhile is refused.
                    unsafe { libc::close(*fd) };
                }
                Ok(())
            }
        }
    }
}

fn close_between(keep: &[RawFd], also: Option<RawFd>) -> nix::Result<()> {
    let place = also.map_or(keep.len(), |also| keep.partition_point(|fd| *fd < also));
    let (lower, higher) = keep.split_at(place);
    let mut first = 3;
    for fd in lower.iter().copied().chain(also).chain(higher.iter().copied()) {
        if first < fd {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> nix::Result<()> {
    let no_flags = 0;
    // SAFETY: close_range takes no pointer. In the new process, nothing uses a descriptor that is not to be kept.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, no_flags) };
    Errno::result(result).map(drop)
}

/// How many descriptors from 3 on are open and not in `keep`; `None` where /proc is missing.
pub fn count_others(keep: &[RawFd]) -> Option<usize> {
    let open = list_descriptors("self").ok()?;
    Some(open.iter().filter(|fd| **fd > 2 && !keep.contains(fd) && is_open(**fd)).count())
}

/// The number of columns of the terminal `fd`; `None` where it is none, or has no size.
pub fn columns(fd: BorrowedFd) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes a winsize, which `size` is.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then_some(size.ws_col.into())
}
