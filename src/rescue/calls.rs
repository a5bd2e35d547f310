//! What a tracee is made to do: each system call by its name, with the arguments that it needs.
//!
//! A path or a structure that a call needs is written to two pages that are mapped for that, and unmapped at the end.
//! `tracee` makes the calls; `procedure` decides their order.

use std::ffi::{CStr, c_long};

use nix::errno::Errno;
use nix::libc;

use crate::rescue::tracee::{Fault, Tracee};
use crate::sys::signals::SET_SIZE;

/// Two pages: one for what is passed, which a path may fill.
const SCRATCH_SIZE: u64 = 8192;

/// Why a tracee could not be made to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It could not be traced, or no longer.
    Fault(Fault),
    /// Its system call failed: which, as a verb and an object.
    Refused(&'static str, Errno),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A tracee with room for what its calls need.
pub struct Caller<'l> {
    tracee: Tracee<'l>,
    scratch: u64,
}

/// A descriptor of the tracee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteFd(u64);

impl From<i32> for RemoteFd {
    fn from(fd: i32) -> Self {
        Self(fd.unsigned_abs().into())
    }
}

impl<'l> Caller<'l> {
    /// mmap(2)
    pub fn prepare(mut tracee: Tracee<'l>) -> Result<Self, Failure> {
        let access = flag(libc::PROT_READ | libc::PROT_WRITE);
        let kind = flag(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let no_file = u64::MAX;
        let mapped = tracee.call(libc::SYS_mmap, [0, SCRATCH_SIZE, access, kind, no_file, 0])?;
        let scratch = mapped.map_err(|errno| Failure::Refused("map memory", errno))?;
        Ok(Self { tracee, scratch })
    }

    /// openat(2), by an absolute path.
    pub fn open(&mut self, path: &CStr, flags: i32, what: &'static str) -> Result<RemoteFd, Failure> {
        self.tracee.write(self.scratch, path.to_bytes_with_nul())?;
        let arguments = [flag(libc::AT_FDCWD), self.scratch, flag(flags | libc::O_CLOEXEC), 0, 0, 0];
        self.call(libc::SYS_openat, arguments, what).map(RemoteFd)
    }

    /// rt_sigaction(2) with SIG_IGN, which also discards a signal that is pending.
    pub fn ignore(&mut self, signal: i32) -> Result<(), Failure> {
        // The kernel's own struct sigaction: a handler, and no flags, no restorer and an empty mask.
        let mut action = [0; 32];
        action[..8].copy_from_slice(&(libc::SIG_IGN as u64).to_ne_bytes());
        self.tracee.write(self.scratch, &action)?;
        let arguments = [flag(signal), self.scratch, 0, SET_SIZE as u64, 0, 0];
        self.call(libc::SYS_rt_sigaction, arguments, "ignore SIGHUP").map(drop)
    }

    /// ioctl(2), TIOCNOTTY: it has no controlling terminal any more. ENOTTY: it had none. EIO: the terminal has hung
    /// up, and then nobody has it.
    pub fn leave_terminal(&mut self, terminal: RemoteFd) -> Result<(), Failure> {
        match self.call(libc::SYS_ioctl, [terminal.0, libc::TIOCNOTTY, 0, 0, 0, 0], "leave its terminal") {
            Err(Failure::Refused(_, Errno::ENOTTY | Errno::EIO)) => Ok(()),
            other => other.map(drop),
        }
    }

    /// epoll_ctl(2), EPOLL_CTL_DEL: an epoll instance keeps watching the terminal even if the descriptor is redirected.
    /// If it does not watch it, that is no error.
    pub fn stop_watching(&mut self, epoll: RemoteFd, watched: RemoteFd) -> Result<(), Failure> {
        let arguments = [epoll.0, flag(libc::EPOLL_CTL_DEL), watched.0, self.scratch, 0, 0];
        match self.call(libc::SYS_epoll_ctl, arguments, "") {
            Err(Failure::Refused(..)) => Ok(()),
            other => other.map(drop),
        }
    }

    /// dup3(2)
    pub fn redirect(&mut self, from: RemoteFd, to: RemoteFd, closes_on_exec: bool) -> Result<(), Failure> {
        let flags = if closes_on_exec { flag(libc::O_CLOEXEC) } else { 0 };
        self.call(libc::SYS_dup3, [from.0, to.0, flags, 0, 0, 0], "redirect a descriptor").map(drop)
    }

    /// close(2). An error of a file system comes after the descriptor is closed.
    pub fn close(&mut self, fd: RemoteFd) -> Result<(), Failure> {
        let _ = self.tracee.call(libc::SYS_close, [fd.0, 0, 0, 0, 0, 0])?;
        Ok(())
    }

    /// munmap(2). Dropping the tracee lets go of it.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.call(libc::SYS_munmap, [self.scratch, SCRATCH_SIZE, 0, 0, 0, 0], "unmap memory").map(drop)
    }

    fn call(&mut self, number: c_long, arguments: [u64; 6], what: &'static str) -> Result<u64, Failure> {
        self.tracee.call(number, arguments)?.map_err(|errno| Failure::Refused(what, errno))
    }
}

/// A number as a register has it.
fn flag(number: i32) -> u64 {
    i64::from(number).cast_unsigned()
}
