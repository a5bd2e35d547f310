//! What the new processes leave behind: which steps they took, which one failed, and what must be taken back.
//!
//! All of it is atomics, and cells that are written once, so that it can be written without allocating, and read whatever
//! instruction its writer was killed at: a cell that is not complete is empty. The launcher makes the sentences afterwards.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::unistd::Pid;
use serde::Serialize;

use crate::error::{Error, reason};
use crate::jobs::record::{JobId, Process, Record, Tracker, describe_output};
use crate::start::Sequence;
use crate::start::command::Refusal;
use crate::start::pidfile::Fault;
use crate::start::plan::{Place, Plan};
use crate::start::streams::Input;
use crate::sys::once::Once;
use crate::sys::signals::Disposition;
use crate::sys::spawn::Borrower;
use crate::term::text::{escape, shorten_home, show_path};

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
/// whoever comes first has decided.
const RUNNING: u32 = 0;
const EXECUTING: u32 = 1;
const ABANDONED: u32 = 2;

/// What the new processes write, and the launcher reads when they have left the memory.
#[derive(Default)]
pub struct Report {
    phase: AtomicU32,
    borrowers: [Borrower; 3],
    /// Who the job is: the process that is to become the command.
    pub job: Once<JobId>,
    pub session: Once<Pid>,
    pub tracker: Once<Tracker>,
    /// The number in the name of the log that was made, or was about to be; 0 for none.
    pub log: AtomicU32,
    /// Whether a pidfile was made or taken, or was about to be.
    pub has_pidfile: AtomicBool,
    /// Whether it is certain that the start has made it.
    pub is_pidfile_new: AtomicBool,
    /// Whether the journal has the start, or may have it.
    pub is_recorded: AtomicBool,
    /// Why it has not.
    pub record_fault: Once<Errno>,
    /// Why the command, which runs, is not tracked.
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
struct Note {
    step: Step,
    pid: Pid,
    /// The session or process group that was made.
    made: Option<Pid>,
}

/// The steps of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
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
    /// Another process has given the start up.
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

    /// The process of the command, which may be short of its exec.
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

    /// From here on, the start counts. False: the launcher has given it up. Called by the new process.
    pub fn start_executing(&self) -> bool {
        self.phase.compare_exchange(RUNNING, EXECUTING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Gives the start up. False: it counts already. Called by the launcher.
    pub fn abandon(&self) -> bool {
        self.phase.compare_exchange(RUNNING, ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether the command runs, or is about to.
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

    /// The steps that were taken, for people and for `--json`.
    pub fn steps(&self, plan: &Plan) -> Vec<TakenStep> {
        let notes = self.steps.iter().filter_map(Once::get);
        let exec = self.command().filter(|_| self.counts()).map(|pid| Note { step: Step::Exec, pid, made: None });
        let take = |note: Note| TakenStep {
            pid: note.pid.as_raw(),
            number: plan.number_of(note.step),
            name: name_of(note.step),
            result: self.describe(note, plan),
        };
        notes.chain(exec).map(take).collect()
    }

    fn describe(&self, note: Note, plan: &Plan) -> String {
        let made = || note.made.map_or(String::new(), |pid| pid.to_string());
        match note.step {
            Step::PrepareSignals => "SIGHUP ignored, all others blocked".to_owned(),
            Step::Track => format!("session {}, stays as the parent of the command", made()),
            Step::Fork => format!("{}, the parent returns", self.child(Role::Intermediate)),
            Step::SecondFork => {
                format!("SIGHUP ignored, {}, the session leader exits", self.child(Role::Command))
            }
            Step::Session => format!("session {}, no controlling terminal", made()),
            Step::Group => format!("process group {}", made()),
            Step::Directory => plan.directory.as_ref().map_or(String::new(), |path| escape(path.to_bytes(), "\\")),
            Step::Umask => format!("{:03o}", plan.umask.bits()),
            Step::Close => {
                let count = plan.closed.map_or("unknown".to_owned(), |count| count.to_string());
                let kept = plan.kept.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let kept = if kept.is_empty() { kept } else { format!(", kept {kept}") };
                format!("descriptors from 3 on: {count}{kept}")
            }
            Step::Redirect => {
                let input = match &plan.streams.input {
                    Input::Opened(opened) => format!("stdin from {}, ", shorten_home(&opened.path)),
                    Input::Null(_, why) => format!("stdin from /dev/null ({why}), "),
                    Input::Keep => "stdin kept, ".to_owned(),
                };
                let output = self.record(plan).map_or(String::new(), |record| describe_output(&record));
                format!("{input}{output}")
            }
            Step::Dispositions if plan.sigchld == Disposition::Ignored => "ignored".to_owned(),
            Step::Dispositions => "default".to_owned(),
            Step::Pidfile => plan.pidfile.as_ref().map_or(String::new(), |pidfile| show_path(pidfile.path())),
            Step::Record => "written".to_owned(),
            Step::Unblock => "SIGHUP ignored, none blocked".to_owned(),
            Step::Exec => show_path(plan.command.file(self.file.load(Ordering::Relaxed))),
            Step::IgnoreHangup | Step::Subreaper | Step::Log => String::new(),
        }
    }

    fn explain_log(&self, plan: &Plan, errno: Errno) -> Error {
        let name = plan.log_stem.name(self.command().unwrap_or(Pid::from_raw(0)), 1);
        let directory = plan.place.as_ref().map_or(Path::new(""), |place| place.directory.path());
        let error = Error::path("create log", directory.join(OsStr::from_bytes(name.as_bytes())), errno);
        error.with_hint_if_any(hint_for_log(errno))
    }

    /// Why the start could not be recorded.
    pub fn explain_record_fault(&self, errno: Errno) -> String {
        if self.job.get().is_some() { reason(errno) } else { "/proc does not tell when it started".to_owned() }
    }

    fn child(&self, role: Role) -> String {
        self.borrower(role).pid().map_or("no child".to_owned(), |pid| format!("child {pid}"))
    }

    /// The sentence for a failure.
    pub fn explain(&self, plan: &Plan, given_up: GivenUp) -> Error {
        match given_up {
            GivenUp::Refused(refusal) => plan.command.explain(refusal),
            GivenUp::Pidfile(fault) => plan
                .pidfile
                .as_ref()
                .map_or_else(|| Error::step("use the pidfile", Errno::EINVAL), |pidfile| pidfile.explain(fault)),
            GivenUp::Abandoned => Error::new(format!("cannot start {}: it was given up", plan.command_name())),
            GivenUp::Errno(Step::Log, errno) => self.explain_log(plan, errno),
            GivenUp::Errno(Step::Record, errno) => {
                let fault = self.explain_record_fault(errno);
                let hint = hint_for_log(errno).filter(|_| plan.streams.need_log());
                Error::new(format!("cannot record job {}: {fault}", plan.name())).with_hint_if_any(hint)
            }
            GivenUp::Errno(step, errno) => explain_step(plan, step, errno),
        }
    }
}

/// What to do where there is no room for a log.
fn hint_for_log(errno: Errno) -> Option<String> {
    matches!(errno, Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS)
        .then(|| "name a file elsewhere with -o FILE, or discard the output with -o /dev/null".to_owned())
}

fn explain_step(plan: &Plan, step: Step, errno: Errno) -> Error {
    let what = match step {
        Step::Fork => return Error::new(explain_fork(plan, errno)),
        Step::Directory => {
            let path = plan.directory.as_ref().map(|path| OsStr::from_bytes(path.to_bytes()));
            return Error::path("change directory to", path.unwrap_or_default(), errno);
        }
        Step::PrepareSignals => "prepare signals",
        Step::Track | Step::Session => "make a new session",
        Step::SecondFork => "fork a second time",
        Step::IgnoreHangup => "ignore SIGHUP",
        Step::Subreaper => "become a subreaper",
        Step::Group => "make a new process group",
        Step::Umask => "set the umask",
        Step::Log => "create a log",
        Step::Close => "close descriptors",
        Step::Redirect => "redirect the standard streams",
        Step::Dispositions => "reset signals",
        Step::Pidfile => "use the pidfile",
        Step::Unblock => "unblock signals",
        Step::Record => "record the job",
        Step::Exec => "execute the command",
    };
    Error::step(what, errno)
}

/// fork(2) and clone(2).
pub fn explain_fork(plan: &Plan, errno: Errno) -> String {
    let reason = match errno {
        // The limit on processes, of the user or of the system.
        Errno::EAGAIN => "no more processes are allowed".to_owned(),
        Errno::ENOSYS => "this system does not let a new process share memory (an emulator?)".to_owned(),
        _ => reason(errno),
    };
    format!("cannot start {}: {reason}", plan.command_name())
}

/// A step of a start, as the process reported it that took it.
#[derive(Clone, Debug, Serialize)]
pub struct TakenStep {
    pub pid: i32,
    /// Its number in the daemon sequence.
    pub number: Option<u8>,
    /// The system call, or what stands for several.
    pub name: &'static str,
    pub result: String,
}

impl Plan {
    /// The number of a step in the daemon sequence.
    fn number_of(&self, step: Step) -> Option<u8> {
        let number = match step {
            Step::Fork => 1,
            Step::Session => 2,
            Step::SecondFork => 3,
            Step::Directory => 4,
            Step::Umask => 5,
            Step::Close => 6,
            Step::Redirect => 7,
            Step::Dispositions => 8,
            _ => return None,
        };
        (self.sequence == Sequence::Daemon).then_some(number)
    }
}

fn name_of(step: Step) -> &'static str {
    match step {
        Step::PrepareSignals | Step::Unblock | Step::IgnoreHangup => "signals",
        Step::Track => "track",
        Step::Fork | Step::SecondFork => "fork",
        Step::Session => "setsid",
        Step::Subreaper => "subreaper",
        Step::Group => "setpgid",
        Step::Log => "log",
        Step::Directory => "chdir",
        Step::Umask => "umask",
        Step::Close => "close",
        Step::Redirect => "redirect",
        Step::Dispositions => "sigchld",
        Step::Pidfile => "pidfile",
        Step::Record => "record",
        Step::Exec => "exec",
    }
}
