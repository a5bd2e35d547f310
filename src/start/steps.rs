//! The steps of a start: the name of each, and what it did, for `-vv` and `--json`.
//!
//! A process notes each step that it has taken in the `report`. The launcher makes the words here, from the notes and
//! from the plan.

use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::jobs::record::describe_output;
use crate::start::plan::Plan;
use crate::start::report::{Note, Report, Role, Step};
use crate::start::request::Sequence;
use crate::start::streams::Input;
use crate::sys::signals::Disposition;
use crate::term::text::{escape, shorten_home, show_path};

/// The fixed words for a step.
pub struct Words {
    /// The system call, or what stands for several.
    pub name: &'static str,
    /// Its number in the daemon sequence.
    pub number: Option<u8>,
    /// What failed if it failed: `cannot PURPOSE: REASON`.
    pub purpose: &'static str,
}

impl Step {
    pub const fn words(self) -> Words {
        let (name, number, purpose) = match self {
            Self::Scope => ("scope", None, "create a scope"),
            Self::PrepareSignals => ("signals", None, "prepare signals"),
            Self::Track => ("track", None, "create a new session"),
            Self::Fork => ("fork", Some(1), "fork"),
            Self::Session => ("setsid", Some(2), "create a new session"),
            Self::SecondFork => ("fork", Some(3), "fork a second time"),
            Self::IgnoreHangup => ("signals", None, "ignore SIGHUP"),
            Self::Subreaper => ("subreaper", None, "become a subreaper"),
            Self::Group => ("setpgid", None, "create a new process group"),
            Self::Log => ("log", None, "create a log"),
            Self::Directory => ("chdir", Some(4), "change directory"),
            Self::Umask => ("umask", Some(5), "set the umask"),
            Self::Close => ("close", Some(6), "close descriptors"),
            Self::Redirect => ("redirect", Some(7), "redirect the standard streams"),
            Self::Dispositions => ("sigchld", Some(8), "reset signals"),
            Self::Pidfile => ("pidfile", None, "use the pidfile"),
            Self::Record => ("record", None, "record the job"),
            Self::Unblock => ("signals", None, "unblock signals"),
            Self::Exec => ("exec", None, "execute the command"),
        };
        Words { name, number, purpose }
    }
}

/// A step, as reported by the process that took it.
#[derive(Clone, Debug, Serialize)]
pub struct TakenStep {
    pub pid: i32,
    /// Its number in the daemon sequence; absent in any other.
    pub number: Option<u8>,
    pub name: &'static str,
    pub result: String,
}

/// The steps that were taken, in their order.
pub fn list_taken(report: &Report, plan: &Plan) -> Vec<TakenStep> {
    let exec = report.command().filter(|_| report.counts()).map(|pid| Note { step: Step::Exec, pid, made: None });
    let take = |note: Note| {
        let Words { name, number, .. } = note.step.words();
        let number = number.filter(|_| plan.sequence == Sequence::Daemon);
        TakenStep { pid: note.pid.as_raw(), number, name, result: describe(note, report, plan) }
    };
    report.notes().chain(exec).map(take).collect()
}

fn describe(note: Note, report: &Report, plan: &Plan) -> String {
    let made = || note.made.map_or(String::new(), |pid| pid.to_string());
    let child = |role| report.borrower(role).pid().map_or("no child".to_owned(), |pid| format!("child {pid}"));
    match note.step {
        Step::Scope => plan.start.unit.clone().unwrap_or_default(),
        Step::PrepareSignals => "SIGHUP ignored, all others blocked".to_owned(),
        Step::Track => format!("session {}, stays as the parent of the command", made()),
        Step::Fork => format!("{}, the parent returns", child(Role::Intermediate)),
        Step::SecondFork => format!("SIGHUP ignored, {}, the session leader exits", child(Role::Command)),
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
            let output = report.record(plan).map_or(String::new(), |record| describe_output(&record));
            format!("{input}{output}")
        }
        Step::Dispositions if plan.sigchld == Disposition::Ignored => "ignored".to_owned(),
        Step::Dispositions => "default".to_owned(),
        Step::Pidfile => plan.pidfile.as_ref().map_or(String::new(), |pidfile| show_path(pidfile.path())),
        Step::Record => "written".to_owned(),
        Step::Unblock => "SIGHUP ignored, none blocked".to_owned(),
        Step::Exec => show_path(plan.command.file(report.file.load(Ordering::Relaxed))),
        Step::IgnoreHangup | Step::Subreaper | Step::Log => String::new(),
    }
}
