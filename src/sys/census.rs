//! All processes, looked at so that none is missed.
//!
//! One pass over /proc can miss a process that is created at a place that was already read, by a parent that ends
//! before the pass reaches it. PIDs are assigned in ascending order, and /proc/loadavg holds the newest, so each pass
//! ends with those that were created since the previous pass began. A process that two such passes do not show has
//! ended. Where processes are created all the time, a pass never reaches the newest PID; then four passes must agree.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::vec;

use nix::unistd::Pid;

use crate::sys::proc;

/// How many PIDs may have been given since the pass before.
const MOST_NEW: i32 = 1000;
/// How often the newest PID may change at the end of a pass: where processes are made all the time, it never ends.
const MOST_ROUNDS: usize = 4;
/// How many passes must agree, if the last one is known to have missed none, and if it is not.
const PASSES_THAT_AGREE: (usize, usize) = (2, 4);

/// What one pass over all processes leaves for the next.
#[derive(Default)]
pub struct Census {
    passes: usize,
    /// The newest PID when the last pass began.
    begun_at: Option<Pid>,
    /// The newest PID when the last pass ended, if that went through all that had been made until then.
    ended_at: Option<Pid>,
}

impl Census {
    /// The PIDs of all visible processes. Whoever looks at a process must do so before asking for the next.
    pub fn pass(&mut self) -> nix::Result<Pass<'_>> {
        let begun_at = proc::newest_pid();
        let listed = proc::all_pids()?;
        let since = self.begun_at.or(begun_at);
        self.passes += 1;
        self.begun_at = begun_at;
        self.ended_at = None;
        let is_new = |pid: &&Pid| Some(**pid) > since;
        let known = listed.iter().filter(is_new).copied().collect();
        #[allow(clippy::reversed_empty_ranges)] // none yet
        Ok(Pass { census: self, listed: listed.into_iter(), known, new: 1..=0, seen: since, rounds: 0 })
    }

    /// How many passes in a row must not find a process that is taken to have ended.
    pub fn passes_that_agree(&self) -> usize {
        let (exact, other) = PASSES_THAT_AGREE;
        if self.ended_at.is_some() { exact } else { other }
    }

    /// Whether there have been so many passes.
    pub fn is_complete(&self) -> bool {
        self.passes >= self.passes_that_agree()
    }

    /// Whether there have been as many as are enough in any case.
    pub fn is_certain(&self) -> bool {
        self.passes >= PASSES_THAT_AGREE.1
    }

    /// Whether no process has been made since the last pass.
    pub fn is_current(&self) -> bool {
        self.ended_at == proc::newest_pid()
    }
}

/// A pass over all processes: those that /proc lists, then those that have been made meanwhile.
pub struct Pass<'a> {
    census: &'a mut Census,
    listed: vec::IntoIter<Pid>,
    /// Those of the listed that have been made since the pass before.
    known: HashSet<Pid>,
    new: RangeInclusive<i32>,
    /// The newest PID that `new` goes to.
    seen: Option<Pid>,
    rounds: usize,
}

impl Iterator for Pass<'_> {
    type Item = Pid;

    fn next(&mut self) -> Option<Pid> {
        if let Some(pid) = self.listed.next() {
            return Some(pid);
        }
        loop {
            let mut unknown = (&mut self.new).map(Pid::from_raw).filter(|pid| !self.known.contains(pid));
            // Threads have PIDs as well.
            if let Some(pid) = unknown.find(|pid| proc::is_process(*pid)) {
                return Some(pid);
            }
            let (seen, newest) = (self.seen?, proc::newest_pid()?);
            if newest == seen {
                self.census.ended_at = Some(newest);
                return None;
            }
            let count = newest.as_raw() - seen.as_raw();
            self.rounds += 1;
            // The PIDs have wrapped around, or there are too many.
            if !(0..MOST_NEW).contains(&count) || self.rounds > MOST_ROUNDS {
                return None;
            }
            self.new = seen.as_raw() + 1..=newest.as_raw();
            self.seen = Some(newest);
        }
    }
}
