//! A start from beginning to end: what the user asked for, how it is carried out, and what is said about it.
//!
//! A [`Request`] is what was typed. `plan` prepares what it needs, `child` holds the steps of the new processes, which leave
//! a `report`. What is said about it, and how long detach stays, is in `outcome` and `watch`.

mod child;
mod command;
mod hints;
mod name;
mod notify;
mod outcome;
mod pidfile;
mod plan;
mod report;
mod streams;
pub mod tracker;
mod watch;

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::prctl::set_child_subreaper;
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::error::Error;
use crate::start::child::{Child, take_back};
use crate::start::outcome::{Started, note_steps};
use crate::start::plan::{Plan, Steps};
use crate::start::report::{Report, Role, Step, explain_fork};
use crate::sys::proc::time_since_boot;
use crate::sys::signals::{self, Disposition};
use crate::term::ui::Ui;

/// How long a start on a terminal is watched unless `--settle` says otherwise: long enough for a program that cannot find
/// its library or its configuration, short enough not to be noticed.
const SETTLE_ON_TERMINAL: Duration = Duration::from_millis(100);

/// What is to be started, and how: what the user typed, and no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The command and its arguments; never empty.
    pub command: Vec<OsString>,
    /// If the job is not to be named after the command.
    pub name: Option<OsString>,
    pub sequence: Sequence,
    pub input: Option<Target>,
    pub output: Option<Target>,
    pub error: Option<Target>,
    pub directory: Option<PathBuf>,
    pub umask: Option<Mode>,
    /// Descriptors to keep open.
    pub keep: Vec<RawFd>,
    pub sigchld: Option<Disposition>,
    pub pidfile: Option<PathBuf>,
    pub tracking: Tracking,
    pub watch: Watch,
    pub print_pid: bool,
    pub json: bool,
}

impl Request {
    /// The start of `command` with every default.
    pub fn new(command: Vec<OsString>) -> Self {
        Self {
            command,
            name: None,
            sequence: Sequence::Leader,
            input: None,
            output: None,
            error: None,
            directory: None,
            umask: None,
            keep: Vec::new(),
            sigchld: None,
            pidfile: None,
            tracking: Tracking::No,
            watch: Watch::Default,
            print_pid: false,
            json: false,
        }
    }
}

/// What an option says about a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `-`: leave it as it is.
    Keep,
    File(PathBuf),
}

/// How the process of the command comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    /// It leads a session of its own.
    Leader,
    /// The daemon sequence: it is in a session that no process leads.
    Daemon,
}

/// Whether a process stays to record how the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    No,
    Record,
    /// With a desktop notification.
    Notify,
}

/// How long detach stays to see whether the command fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// A moment on a terminal, else not at all.
    Default,
    For(Duration),
    ToTheEnd,
}

/// Starts the command. Returns the exit status of detach.
pub fn start(request: &Request, ui: &Ui) -> Result<u8, Error> {
    let limit = match request.watch {
        Watch::Default if ui.is_terminal() && !ui.is_quiet() => Some(SETTLE_ON_TERMINAL),
        Watch::Default => Some(Duration::ZERO),
        Watch::For(limit) => Some(limit),
        Watch::ToTheEnd => None,
    };
    let steps = if ui.shows_steps() || request.json { Steps::Reported } else { Steps::Hidden };
    let plan = Plan::make(request, steps)?;
    let stays = limit != Some(Duration::ZERO);
    let ignored = if stays { watch::ignored_signals() } else { Vec::new() };
    let report = Report::default();
    let begun = time_since_boot();
    let launched = launch(&plan, &report);
    let steps = if plan.reports_steps { report.steps(&plan) } else { Vec::new() };
    if ui.shows_steps() {
        note_steps(&steps, ui);
    }
    let pid = launched?;
    let started = Started { plan: &plan, report: &report, pid, begun };
    started.warn_of_faults(ui);
    started.print(request, &steps, ui);
    if !stays {
        started.note_start(ui);
        return Ok(0);
    }
    if limit.is_none() {
        started.note_start(ui);
    }
    Ok(started.watch(request, limit, &ignored, ui))
}

/// Makes the processes, and returns the PID of the command when it runs. After a failure, nothing is left of it.
fn launch(plan: &Plan, report: &Report) -> Result<Pid, Error> {
    let child = Child { plan, report };
    signals::prepare().map_err(|errno| Error::step("prepare signals", errno))?;
    if plan.reports_steps {
        report.note_step(Step::PrepareSignals, None);
    }
    let has_descendants = plan.tracking.is_some() || plan.sequence == Sequence::Daemon;
    if has_descendants {
        // If a process between this one and the command ends, its children come to this one, which can wait for them.
        set_child_subreaper(true).map_err(|errno| Error::step("become a subreaper", errno))?;
    }
    let made = if plan.tracking.is_some() { child.make_tracker() } else { child.make_command() };
    // This is the launcher again. The command runs, or will not; or a process before it was killed, and nobody knows yet.
    if report.abandon() {
        end_all(report);
        take_back(plan, report);
        let explained = report.given_up.get().map(|given_up| report.explain(plan, given_up));
        return Err(explained.unwrap_or_else(|| {
            let killed = || format!("cannot start {}: its process was killed before it ran", plan.command_name());
            Error::new(made.map_or_else(|errno| explain_fork(plan, errno), |_| killed()))
        }));
    }
    let command = report.borrower(Role::Command);
    command.wait_until_gone();
    if let Some(given_up) = report.given_up.get() {
        end_all(report);
        take_back(plan, report);
        return Err(report.explain(plan, given_up));
    }
    if has_descendants {
        if report.tracking_fault.get().is_some() {
            // Once it has ended, the command is a child of this process.
            report.borrower(Role::Tracker).end();
        }
        let _ = set_child_subreaper(false);
    }
    command.pid().ok_or_else(|| Error::new(format!("cannot start {}: it has no PID", plan.command_name())))
}

/// Kills and waits for whatever is left of a start that does not count.
fn end_all(report: &Report) {
    for role in [Role::Tracker, Role::Intermediate, Role::Command] {
        report.borrower(role).end();
    }
}
