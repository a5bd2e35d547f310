//! What the new processes leave behind: which steps they took, which one failed, and what must be undone.
//!
//! It consists of atomics and of cells that are written once. So it can be written without allocating, and read
//! whatever instruction its writer was killed at: a cell that is not complete is empty. The launcher puts it into words
//! afterwards: `steps` and `failure`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::jobs::record::{JobId, Process, ProcessId, Record};
use crate::start::command::Refusal;
use crate::start::pidfile::Fault;
use crate::start::plan::{Place, Plan};
use crate::sys::once::Once;
use crate::sys::spawn::Borrower;

/// More steps than any start has.
const MOST_STEPS: usize = 24;

/// The processes of a start, from the outermost to the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Tracker,
    Intermediate,
    Command,
}

/// Whether a start counts. The new process moves it from RUNNING to EXECUTING, the launcher from RUNNING to ABANDONED:
/// the first to do so decides.
const RUNNING: u32 = 0;
const EXECUTING: u32 = 1;
const ABANDONED: u32 = 2;

/// What the new processes write, and the launcher reads when they have left the memory.
#[derive(Default)]
pub struct Report {
    phase: AtomicU32,
    borrowers: [Borrower; 3],
    /// When the process of the command began, before it made anything, in milliseconds since 1970-01-01 00:00 UTC.
    pub started_at_ms: AtomicU64,
    /// The identity of the job: the process that is to become the command.
    pub job: Once<JobId>,
    pub session: Once<Pid>,
    pub tracker: Once<ProcessId>,
    /// The number in the name of the log that was made, or was about to be; 0 for none.
    pub log: AtomicU32,
    /// Whether a pidfile was made or taken, or was about to be.
    pub has_pidfile: AtomicBool,
    /// Whether it is certain that the start has made it.
    pub is_pidfile_new: AtomicBool,
    /// Whether the journal has the start, or may have it.
    pub is_recorded: AtomicBool,
    /// Why the start was not recorded.
    pub record_fault: Once<Errno>,
    /// Why the command, which is running, is not tracked.
    pub tracking_fault: Once<Errno>,
    /// Why a process has given up; empty if none has, or if it was killed before it could say so.
    pub given_up: Once<GivenUp>,
    /// The number of the file that was tried last.
    pub file: AtomicUsize,
    steps: [Once<Note>; MOST_STEPS],
    step_count: AtomicUsize,
}

/// A step that a process has taken.
#[derive(Clone, Copy, Debug)]
pub struct Note {
    pub step: Step,
    pub pid: Pid,
    /// The session or process group that was made.
    pub made: Option<Pid>,
}

/// A step of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Scope,
    PrepareSignals,
    Track,
    Fork,
    SecondFork,
    Session,
    IgnoreHangup,
    Subreaper,
    Group,
    Log,
    Directory,
    Umask,
    Close,
    Redirect,
    Dispositions,
    Pidfile,
    Record,
    Unblock,
    Exec,
}

/// Why a process gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// A system call failed.
    Errno(Step, Errno),
    Pidfile(Fault),
    Refused(Refusal),
    /// Another process has abandoned the start.
    Abandoned,
}

impl Report {
    pub fn borrower(&self, role: Role) -> &Borrower {
        let [tracker, intermediate, command] = &self.borrowers;
        match role {
            Role::Tracker => tracker,
            Role::Intermediate => intermediate,
            Role::Command => command,
        }
    }

    /// The process of the command, which may not have reached its exec.
    pub fn command(&self) -> Option<Pid> {
        self.borrower(Role::Command).pid()
    }

    /// Notes a step that this process has taken, or is about to take if it makes a process.
    pub fn note_step(&self, step: Step, made: Option<Pid>) {
        let place = self.step_count.fetch_add(1, Ordering::Relaxed);
        if let Some(note) = self.steps.get(place) {
            note.set(Note { step, pid: Pid::this(), made });
        }
    }

    /// The steps that were noted, in their order.
    pub fn notes(&self) -> impl Iterator<Item = Note> {
        self.steps.iter().filter_map(Once::get)
    }

    /// From here on, the start counts. Returns false if the launcher has abandoned it. Called by the new process.
    pub fn start_executing(&self) -> bool {
        self.phase.compare_exchange(RUNNING, EXECUTING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Abandons the start. Returns false if it already counts. Called by the launcher.
    pub fn abandon(&self) -> bool {
        self.phase.compare_exchange(RUNNING, ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether the command is running, or is about to.
    pub fn counts(&self) -> bool {
        self.phase.load(Ordering::Acquire) == EXECUTING && self.given_up.get().is_none()
    }

    /// The record of the job; `None` where its process could not be identified.
    pub fn record(&self, plan: &Plan) -> Option<Record> {
        let place = plan.place.as_ref().ok();
        let id = self.job.get()?;
        let log = match self.log.load(Ordering::Relaxed) {
            0 => None,
            number => Some(String::from_utf8_lossy(plan.log_stem.name(id.pid, number).as_bytes()).into_owned()),
        };
        let process = Process { session: self.session.get()?, log, tracker: self.tracker.get() };
        let boot_id = place.map_or("", |place| place.boot_id.as_str());
        let directory = place.map_or(Path::new(""), |place: &Place| place.directory.path());
        Some(Record::new(boot_id, id, process, plan.start.clone(), directory))
    }
}
