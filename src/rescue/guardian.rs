//! The guardian: a process that waits until detach has let go of a job, and puts everything back if detach is killed
//! before.
//!
//! Between the two is the `Ledger`, in memory that both share: which thread is traced, with which registers and mask it
//! was found, and which processes were stopped. When detach ends in any way, the pipe that it holds alone is closed. The
//! guardian allocates nothing: it is a copy of a process that may stand anywhere.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2, read, setsid};

use crate::rescue::tracee::{self, Fault, Registers, WORDS};
use crate::sys::process::{fork_off, reap};
use crate::sys::shared::share;

/// More processes than a job may have that is let go of.
pub const MOST_PROCESSES: usize = 4096;
/// A process that is dying lets go of its tracees after this.
const TIME_TO_DIE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(1);

/// What must be put back, in memory that the guardian shares.
pub struct Ledger {
    /// The thread that is traced; 0 for none.
    thread: AtomicI32,
    registers: [AtomicU64; WORDS],
    mask: AtomicU64,
    /// The processes that we have stopped.
    stopped: [AtomicI32; MOST_PROCESSES],
    stopped_count: AtomicUsize,
    /// Whether anything of the job has been changed for good.
    has_changed: AtomicBool,
    is_done: AtomicBool,
}

impl Ledger {
    fn new() -> Self {
        Self {
            thread: AtomicI32::new(0),
            registers: [const { AtomicU64::new(0) }; WORDS],
            mask: AtomicU64::new(0),
            stopped: [const { AtomicI32::new(0) }; MOST_PROCESSES],
            stopped_count: AtomicUsize::new(0),
            has_changed: AtomicBool::new(false),
            is_done: AtomicBool::new(false),
        }
    }

    /// Notes a thread, before it is changed.
    pub fn enter(&self, thread: Pid, registers: &Registers, mask: u64) {
        for (place, word) in self.registers.iter().zip(registers.0) {
            place.store(word, Ordering::Relaxed);
        }
        self.mask.store(mask, Ordering::Relaxed);
        self.thread.store(thread.as_raw(), Ordering::Release);
    }

    /// The thread that was entered is as it was.
    pub fn strike_out(&self) {
        self.thread.store(0, Ordering::Release);
    }

    /// Notes a process, before it is stopped. False: there is no room.
    pub fn enter_stopped(&self, pid: Pid) -> bool {
        let count = self.stopped_count.load(Ordering::Relaxed);
        let Some(place) = self.stopped.get(count) else { return false };
        place.store(pid.as_raw(), Ordering::Relaxed);
        self.stopped_count.store(count + 1, Ordering::Release);
        true
    }

    /// Notes that something of the job is about to be changed for good.
    pub fn note_change(&self) {
        self.has_changed.store(true, Ordering::Release);
    }

    pub fn has_changed(&self) -> bool {
        self.has_changed.load(Ordering::Acquire)
    }

    fn put_back(&self) {
        let thread = self.thread.load(Ordering::Acquire);
        if thread != 0 {
            let registers = Registers(self.registers.each_ref().map(|word| word.load(Ordering::Relaxed)));
            let repaired = repair(Pid::from_raw(thread), &registers, self.mask.load(Ordering::Relaxed));
            if !matches!(repaired, Ok(()) | Err(Fault::Gone)) {
                // It must not run with registers that are not its own: all of the job stays stopped.
                return;
            }
        }
        let count = self.stopped_count.load(Ordering::Acquire);
        for pid in self.stopped.iter().take(count) {
            let _ = kill(Pid::from_raw(pid.load(Ordering::Relaxed)), Signal::SIGCONT);
        }
    }
}

/// As long as detach is dying, the thread is still traced by it: the kernel closes its pipe before.
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
    /// `take_back` removes what was made for the job; the guardian calls it if nothing of that has been changed.
    pub fn start(take_back: impl Fn()) -> nix::Result<Self> {
        let ledger = share(Ledger::new())?;
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
        let mut pipe = Some(write_end);
        let pid = fork_off(|| {
            // This is the guardian. Its copy of the end that is written to would keep the pipe open.
            drop(pipe.take());
            let _ = setsid();
            while read(&read_end, &mut [0]) == Err(Errno::EINTR) {}
            if !ledger.is_done.load(Ordering::Acquire) {
                ledger.put_back();
                if !ledger.has_changed() {
                    take_back();
                }
            }
        })?;
        Ok(Self { pid, ledger, pipe })
    }

    /// Everything is as it should be: the guardian ends.
    pub fn dismiss(self) {
        self.ledger.is_done.store(true, Ordering::Release);
        drop(self.pipe);
        let _ = reap(self.pid);
    }
}
