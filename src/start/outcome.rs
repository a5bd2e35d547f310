//! What is reported about a start that succeeded, and about a command that ends while it is watched.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{Pid, geteuid};
use serde::Serialize;

use crate::error::{FAILED, reason};
use crate::jobs::record::{End, JobId, Record, describe_output, to_line};
use crate::jobs::session::count_in_session;
use crate::start::failure::explain_record_fault;
use crate::start::hints;
use crate::start::plan::{Place, Plan};
use crate::start::report::{Report, Role};
use crate::start::request::{Request, Watch};
use crate::start::steps::TakenStep;
use crate::start::streams::Output;
use crate::start::watch::{self, Watched, Watcher};
use crate::sys::proc::time_since_boot;
use crate::sys::{errno, proc, signals};
use crate::systemd;
use crate::systemd::logind::{LogoutSettings, login_user};
use crate::systemd::logout::{self, AtLogout, Fate};
use crate::term::format::{describe_end, exit_status, show_duration};
use crate::term::ui::{Ui, write_data};

/// When process 1 ends, so do all others in its PID namespace: pid_namespaces(7).
const INIT: Pid = Pid::from_raw(1);

/// A start that has worked.
pub struct Started<'a> {
    pub plan: &'a Plan,
    pub report: &'a Report,
    pub pid: Pid,
    /// When it began ([`time_since_boot`]).
    pub begun: Duration,
}

/// A start in JSON: the record, and the steps, which are not stored.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    record: &'a Record,
    steps: &'a [TakenStep],
}

impl Started<'_> {
    /// Absent where the process of the command could not be identified.
    fn record(&self) -> Option<Record> {
        self.report.record(self.plan)
    }

    fn name(&self) -> String {
        self.plan.name()
    }

    pub fn warn_of_faults(&self, ui: &Ui) {
        let fault = match &self.plan.place {
            Err(error) => Some(error.to_string()),
            Ok(Place { journal: Err(errno), .. }) => Some(reason(*errno)),
            Ok(_) => self.report.record_fault.get().map(|errno| explain_record_fault(self.report, errno)),
        };
        if let Some(fault) = fault {
            ui.warn(format!("cannot record job {}: {fault}", self.name()));
        }
        if let Some(errno) = self.report.tracking_fault.get() {
            ui.warn(format!("cannot track {}, which is running: {}", self.plan.command_name(), reason(errno)));
        }
    }

    /// What was asked for on stdout. The command runs even if that cannot be written.
    pub fn print(&self, request: &Request, steps: &[TakenStep], ui: &Ui) {
        let warn = |result: io::Result<()>, what: &str| {
            if let Err(error) = result {
                ui.warn(format!("cannot write {what}: {}", reason(errno(&error))));
            }
        };
        if request.print_pid {
            warn(write_data(&format!("{}\n", self.pid)), "the PID");
        }
        if request.json
            && let Some(record) = &self.record()
        {
            warn(write_data(&to_line(&Printed { record, steps })), "the record");
        }
    }

    pub fn note_start(&self, ui: &Ui) {
        if ui.shows_notes() {
            let output = self.record().map_or(String::new(), |record| format!(", {}", describe_output(&record)));
            ui.note(format!("{} (PID {}){output}", self.name(), ui.strong(self.pid)));
        }
        if ui.is_terminal() && !ui.is_quiet() {
            self.warn_of_logout(ui);
        }
        if Pid::this() == INIT {
            ui.warn(format!(
                "{} will be killed when detach exits, because detach is PID 1 here; use --wait",
                self.name()
            ));
        }
    }

    /// Warns if the command, which is in the control group of this process, is ended at logout. Nothing is read where
    /// no systemd runs.
    fn warn_of_logout(&self, ui: &Ui) {
        let Some(group) = systemd::is_running().then(|| proc::control_group(Pid::this())).flatten() else { return };
        let user = Some(geteuid().as_raw());
        let settings = LogoutSettings::read(login_user(Some(&group), user));
        let Some(AtLogout { fate, fact, remedy }) = logout::judge(&group, user, settings) else { return };
        let verb = match fate {
            Fate::Ends => "will not",
            Fate::EndsWithTheLast => "might not",
            Fate::Survives | Fate::Unknown => return,
        };
        ui.warn(format!("{} {verb} survive logout: {fact}; {remedy}", self.name()));
    }

    /// Stays until the command ends or the limit passes. Returns the exit status.
    pub fn watch(&self, request: &Request, limit: Option<Duration>, ignored: &[Signal], ui: &Ui) -> u8 {
        let elapsed = || time_since_boot().saturating_sub(self.begun);
        let until = limit.and_then(|limit| Instant::now().checked_add(limit.saturating_sub(elapsed())));
        let is_tracked = self.plan.tracking.is_some() && self.report.tracking_fault.get().is_none();
        let tracker = self.report.borrower(Role::Tracker).pid().filter(|_| is_tracked);
        let watched = Watcher::new(until, ignored).and_then(|watcher| match self.report.job.get().zip(tracker) {
            Some((id, tracker)) => watcher.watch_tracked(id, tracker, || self.recorded_end(id)),
            None => watcher.watch_child(self.pid),
        });
        match watched {
            Ok(Watched::Running) => {
                self.note_start(ui);
                0
            }
            Ok(Watched::Ended(status, usage)) => {
                let end = End::now(status, elapsed(), usage);
                self.record_end(&end, ui);
                self.report_end(&end, ui);
                exit_status(status)
            }
            Ok(Watched::EndRecorded(Some(end))) => {
                self.report_end(&end, ui);
                exit_status(end.status())
            }
            Ok(Watched::EndRecorded(None)) => {
                let name = self.name();
                ui.warn(format!(
                    "{name} has ended; its exit status is unknown: the process that tracked it was killed"
                ));
                FAILED
            }
            Ok(Watched::Interrupted(signal)) => {
                ui.note(format!("stopped waiting; {} (PID {}) keeps running", self.name(), ui.strong(self.pid)));
                // Returns only if that has no effect.
                let _ = signals::die_of(signal);
                128 + signal as u8
            }
            Err(errno) => {
                ui.warn(format!("cannot watch {}: {}", self.name(), reason(errno)));
                // It has been started, which is all that is asked of a start.
                if request.watch == Watch::ToTheEnd { FAILED } else { 0 }
            }
        }
    }

    /// What the tracking process has recorded.
    fn recorded_end(&self, id: JobId) -> Option<End> {
        let place = self.plan.place.as_ref().ok()?;
        place.journal.as_ref().ok()?.find_end(&place.directory, &place.boot_id, id)
    }

    /// Records how the command ended, which only its parent can see.
    fn record_end(&self, end: &End, ui: &Ui) {
        let Ok(place) = &self.plan.place else { return };
        if let (Ok(journal), Some(id)) = (&place.journal, self.report.job.get())
            && self.report.record_fault.get().is_none()
            && let Err(errno) = journal.append_end(&place.directory, id, end)
        {
            ui.warn(format!("cannot record how {} ended: {}", self.name(), reason(errno)));
        }
    }

    /// How the command has ended while it was watched.
    fn report_end(&self, end: &End, ui: &Ui) {
        let left = match self.report.session.get().and_then(count_in_session).unwrap_or(0) {
            0 => String::new(),
            1 => "; one process that it started is still running".to_owned(),
            count => format!("; {count} processes that it started are still running"),
        };
        let (end_of, lifetime) = (describe_end(end.status()), show_duration(end.wall()));
        let sentence = format!("{} {end_of} after {lifetime}{left}", self.name());
        let record = self.record();
        let written = record.as_ref().and_then(|record| Some((record, self.file_with_output(record)?)));
        if end.status().success() {
            let output = written.map_or(String::new(), |(record, _)| format!(", {}", describe_output(record)));
            ui.note(format!("{sentence}{output}"));
            return;
        }
        match written {
            Some((record, (path, begin))) => {
                let lines = watch::last_lines(path, begin);
                ui.complain(format!("{sentence}{}", if lines.is_empty() { "" } else { ":" }));
                ui.quote_output(&lines);
                ui.complain(describe_output(record));
            }
            None => ui.complain(sentence),
        }
        if let Some(hint) = self.plan.start.argv.first().and_then(|name| hints::for_failed(name.as_os_str())) {
            ui.complain(format!("hint: {hint}"));
        }
    }

    /// The file that this job has written to (that of stderr if there are two), and the offset at which its output
    /// begins.
    fn file_with_output<'r>(&self, record: &'r Record) -> Option<(&'r Path, u64)> {
        let stdout_begin = self.plan.streams.output.length();
        let stderr_begin = match &self.plan.streams.error {
            Output::WithStdout => stdout_begin,
            other => other.length(),
        };
        let files = [(&record.stderr, stderr_begin), (&record.stdout, stdout_begin)].into_iter();
        let mut files = files.filter_map(|(destination, begin)| Some((destination.as_path()?, begin)));
        files.find(|(path, begin)| watch::has_grown(path, *begin))
    }
}

/// Every step, in columns.
pub fn note_steps(steps: &[TakenStep], ui: &Ui) {
    let width = |text: &dyn Fn(&TakenStep) -> usize| steps.iter().map(text).max().unwrap_or(0);
    let pid_width = width(&|step| step.pid.to_string().len());
    let name_width = width(&|step| step.name.len());
    let are_numbered = steps.iter().any(|step| step.number.is_some());
    for step in steps {
        let number = match step.number {
            Some(number) => format!("{number} "),
            None if are_numbered => "  ".to_owned(),
            None => String::new(),
        };
        let pid = ui.strong(format_args!("{:pid_width$}", step.pid));
        let name = ui.strong(format_args!("{:name_width$}", step.name));
        ui.note(format_args!("{pid} {number}{name} {}", step.result));
    }
}
