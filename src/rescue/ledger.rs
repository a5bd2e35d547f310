//! What must be put back if detach is killed while it lets go of a job, in memory that the guardian shares.
//!
//! detach enters each change here before it makes it. All of it is atomics, so that the guardian can read it whatever
//! instruction detach was killed at.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};

use nix::unistd::Pid;

use crate::rescue::processor::{Registers, WORDS};

/// How many stopped processes can be noted. A job that has more is not let go of.
pub const MOST_PROCESSES: usize = 4096;

/// The thread and the processes that have been changed.
pub struct Ledger {
    /// The thread that is traced; 0 for none.
    thread: AtomicI32,
    registers: [AtomicU64; WORDS],
    mask: AtomicU64,
    /// The processes that detach has stopped.
    stopped: [AtomicI32; MOST_PROCESSES],
    stopped_count: AtomicUsize,
    /// Whether anything of the job has been changed for good.
    has_changed: AtomicBool,
    is_closed: AtomicBool,
}

impl Ledger {
    pub fn new() -> Self {
        Self {
            thread: AtomicI32::new(0),
            registers: [const { AtomicU64::new(0) }; WORDS],
            mask: AtomicU64::new(0),
            stopped: [const { AtomicI32::new(0) }; MOST_PROCESSES],
            stopped_count: AtomicUsize::new(0),
            has_changed: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
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

    /// Notes that the thread is as it was.
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

    /// The thread that was entered, with its own registers and mask.
    pub fn entered(&self) -> Option<(Pid, Registers, u64)> {
        let thread = self.thread.load(Ordering::Acquire);
        let registers = Registers(self.registers.each_ref().map(|word| word.load(Ordering::Relaxed)));
        (thread != 0).then(|| (Pid::from_raw(thread), registers, self.mask.load(Ordering::Relaxed)))
    }

    /// The processes that were stopped, the last one first.
    pub fn stopped(&self) -> impl Iterator<Item = Pid> {
        let count = self.stopped_count.load(Ordering::Acquire);
        self.stopped.get(..count).unwrap_or_default().iter().rev().map(|pid| Pid::from_raw(pid.load(Ordering::Relaxed)))
    }

    /// Notes that everything is as it should be.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}
