//! A start from beginning to end: what the user asked for, how it is carried out, and what is reported.
//!
//! A [`Request`] is what was typed. `plan` prepares what it needs. `child` holds the steps of the new processes, which
//! leave a `report`. `outcome`, `failure` and `steps` put that into words; `watch` says how long detach stays.

mod child;
mod command;
mod failure;
mod hints;
mod notify;
mod outcome;
mod pidfile;
mod plan;
mod report;
mod request;
mod steps;
mod streams;
pub mod tracker;
mod watch;

use std::time::Duration;

use nix::sys::prctl::set_child_subreaper;
use nix::unistd::Pid;

use crate::error::Error;
use crate::start::child::{Child, take_back};
use crate::start::failure::{explain, explain_fork};
use crate::start::outcome::{Started, note_steps};
use crate::start::plan::{Plan, Steps};
use crate::start::report::{Report, Role, Step};
use crate::start::steps::list_taken;
use crate::sys::proc::time_since_boot;
use crate::sys::signals;
use crate::systemd::scope;
use crate::term::ui::Ui;

pub use request::{Request, Scope, Sequence, Target, Tracking, Watch};

/// How long a start on a terminal is watched unless `--settle` says otherwise: long enough for a program that cannot
/// find its library or its configuration, short enough not to be noticed.
const SETTLE_ON_TERMINAL: Duration = Duration::from_millis(100);

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
    if let Some(unit) = &plan.start.unit {
        // This process and all that it starts from here on.
        scope::enter(unit, plan.start.name.as_os_str())?;
        if plan.reports_steps {
            report.note_step(Step::Scope, None);
        }
    }
    let begun = time_since_boot();
    let launched = launch(&plan, &report);
    let steps = if plan.reports_steps { list_taken(&report, &plan) } else { Vec::new() };
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
    // This is the launcher again. The command is running, or will not run; if a process between the two was killed, it
    // is not known yet which.
    let command = report.borrower(Role::Command);
    if !report.abandon() {
        command.wait_until_gone();
    }
    if !report.counts() {
        end_all(report);
        take_back(plan, report);
        return Err(match (report.given_up.get(), made) {
            (Some(given_up), _) => explain(report, plan, given_up),
            (None, Err(errno)) => explain_fork(plan, errno),
            (None, Ok(_)) => Error::new(format!(
                "cannot start {}: its process was killed before it ran the command",
                plan.command_name()
            )),
        });
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
