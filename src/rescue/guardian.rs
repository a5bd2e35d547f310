//! The guardian: a process that waits until detach has let go of a job, and puts everything back if detach is killed
//! before.
//!
//! Between the two is the `Ledger`, in memory that both share: which thread is traced, with which registers and mask it
//! was found, and which processes were stopped. However detach ends, the kernel closes its end of a pipe, which wakes
//! the guardian. Like the new process of a start, the guardian allocates nothing.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2, read, setsid};

use crate::rescue::ledger::Ledger;
use crate::rescue::processor::Registers;
use crate::rescue::tracee::{self, Fault};
use crate::sys::process::{fork_off, reap};
use crate::sys::shared::share;

/// By then, a dying process has released its tracees.
const TIME_TO_DIE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(1);

/// Puts back what the ledger holds. Allocates nothing.
fn put_back(ledger: &Ledger) {
    if let Some((thread, registers, mask)) = ledger.entered() {
        let repaired = repair(thread, &registers, mask);
        if !matches!(repaired, Ok(()) | Err(Fault::Gone)) {
            // It must not run with registers that are not its own: all of the job stays stopped.
            return;
        }
    }
    for pid in ledger.stopped() {
        let _ = kill(pid, Signal::SIGCONT);
    }
}

/// A dying detach still traces the thread for a moment: the kernel closes its pipe first. EPERM means: try again.
fn repair(thread: Pid, registers: &Registers, mask: u64) -> Result<(), Fault> {
    let end = Instant::now() + TIME_TO_DIE;
    loop {
        match tracee::repair(thread, registers, mask) {
            Err(Fault::Trace(Errno::EPERM)) if Instant::now() < end => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}

/// The guardian, as detach sees it.
pub struct Guardian {
    pid: Pid,
    pub ledger: &'static Ledger,
    /// Closed when detach has ended, in whatever way.
    pipe: Option<OwnedFd>,
}

impl Guardian {
    /// `take_back` undoes what was made for the job; the guardian calls it if the job itself has not been changed.
    pub fn start(take_back: impl Fn()) -> nix::Result<Self> {
        let ledger = share(Ledger::new())?;
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
        let mut pipe = Some(write_end);
        let pid = fork_off(|| {
            // This is the guardian. Its copy of the write end would keep the pipe open.
            drop(pipe.take());
            let _ = setsid();
            while read(&read_end, &mut [0]) == Err(Errno::EINTR) {}
            if !ledger.is_closed() {
                put_back(ledger);
                if !ledger.has_changed() {
                    take_back();
                }
            }
        })?;
        Ok(Self { pid, ledger, pipe })
    }

    /// Everything is as it should be: the guardian ends.
    pub fn dismiss(self) {
        self.ledger.close();
        drop(self.pipe);
        reap(self.pid);
    }
}
