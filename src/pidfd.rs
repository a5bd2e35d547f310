//! A process that is held by a pidfd: whatever happens to its PID, waiting and signals reach this process or none.
//!
//! Which process is meant is said by its identity (`proc`), or by a look at it that comes after the pidfd was opened.
//! The system calls are in `session`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::proc::{self, Identity, Stat};
use crate::session;

/// A process, held.
pub struct Held {
    pub pid: Pid,
    pidfd: OwnedFd,
}

impl Held {
    /// The process `identity`; `None` when it has ended, or was there before a reboot.
    pub fn of(identity: &Identity) -> nix::Result<Option<Self>> {
        if proc::boot_id()? != identity.boot_id {
            return Ok(None);
        }
        Self::if_is(identity.pid, |stat| stat.start_time == identity.start_time)
    }

    /// The process that has `pid` now, if it lives and `is_wanted`: looked at when its PID cannot come to mean another
    /// one any more.
    pub fn if_is(pid: Pid, is_wanted: impl Fn(&Stat) -> bool) -> nix::Result<Option<Self>> {
        let pidfd = match session::open_pidfd(pid) {
            Err(Errno::ESRCH) => return Ok(None),
            other => other?,
        };
        let is_it = proc::stat(pid)?.is_some_and(|stat| !stat.is_dead() && is_wanted(&stat));
        let held = Self { pid, pidfd };
        // A process that ended between the open and the look may have left its PID to the one that was looked at.
        Ok((is_it && held.exists()).then_some(held))
    }

    /// Sends it the signal with this number. One that has ended already gets none, which is no error.
    pub fn signal(&self, signal: i32) -> nix::Result<()> {
        match session::send_signal(&self.pidfd, signal) {
            Err(Errno::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// Sends the signal to all of the process group that it leads, or led: at once, so that no fork slips through. Fails
    /// with EINVAL before Linux 6.9.
    pub fn signal_group(&self, signal: i32) -> nix::Result<()> {
        session::send_signal_to_group(&self.pidfd, signal)
    }

    /// Waits for its end, at most until `deadline`. Returns whether it has ended.
    pub fn wait(&self, deadline: Option<Instant>) -> nix::Result<bool> {
        loop {
            let timeout = time_left(deadline);
            match poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) if timeout == PollTimeout::MAX => (),
                Err(Errno::EINTR) => (),
                other => return other.map(|ready| ready > 0),
            }
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.wait(Some(Instant::now())).unwrap_or(true)
    }

    /// Whether it is there still, be it as a zombie: then nobody else has its PID.
    fn exists(&self) -> bool {
        session::send_signal(&self.pidfd, 0) != Err(Errno::ESRCH)
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// poll(2), for who looks again afterwards in any case: so it may also end early.
pub fn wait_for(descriptors: &mut [PollFd], timeout: PollTimeout) -> nix::Result<()> {
    match poll(descriptors, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The time until `deadline` for poll(2), which counts milliseconds in an int: rounded up, else the last part of a
/// millisecond would be a busy loop.
pub fn time_left(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => PollTimeout::ZERO,
        left => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
    }
}
