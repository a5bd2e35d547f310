//! `--prune`: removes the records and logs of jobs that have ended. Nothing else in this program deletes files, except
//! a failed start, which removes what it has created.
//!
//! A log that may still be in use is kept, whatever its name.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use nix::libc;

use crate::error::Error;
use crate::jobs::directory::{StateDirectory, pids_in_log_name};
use crate::jobs::journal::{PruneLock, compact};
use crate::jobs::record::{Destination, JobId};
use crate::jobs::session::{Processes, State};
use crate::jobs::{Job, Jobs, Known};
use crate::term::format::{now_in_ms, show_duration, show_size};
use crate::term::text::escape;
use crate::term::ui::{Ui, write_data};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What ended less than this long ago is kept.
    pub older_than: Duration,
    /// Only show what would be removed.
    pub dry_run: bool,
}

/// Removes what ended long enough ago.
pub fn prune(options: &Options, ui: &Ui) -> Result<u8, Error> {
    let Some(directory) = StateDirectory::find()? else {
        note_nothing(options, ui);
        return Ok(0);
    };
    let note_wait = || ui.note("waiting for another 'detach --prune'");
    let lock = if options.dry_run { None } else { Some(PruneLock::take(&directory, note_wait)?) };
    // Read after that: another prune may have removed what was there before.
    let jobs = Jobs::find_in(directory, ui)?;
    // The processes are listed after the journal has been read: a job that was started in between is not in it.
    let mut processes = Processes::default();
    processes.look().map_err(Error::proc)?;
    let pruning = Pruning { jobs: &jobs, processes, now: now_in_ms(), age: options.older_than };
    let removed: Vec<&Known> = jobs.known.iter().filter(|known| pruning.may_remove(known)).collect();
    let status = report_hidden(&pruning, ui);
    let logs = pruning.choose_logs(&removed.iter().map(|known| known.entry.id).collect());
    let bytes = logs.iter().filter_map(|log| jobs.directory.status(log)).map(|log| log.st_size.unsigned_abs()).sum();
    let jobs_removed = if removed.len() == 1 { "1 ended job" } else { &format!("{} ended jobs", removed.len()) };
    let damaged_lines = jobs.journals.iter().map(|journal| journal.damaged_lines).sum();
    let damaged = match damaged_lines {
        0 => String::new(),
        1 => ", and 1 damaged line".to_owned(),
        lines => format!(", and {lines} damaged lines"),
    };
    let what = format!("{jobs_removed}, {}{damaged}", show_size(bytes));
    let Some(lock) = lock else {
        show(&jobs, &removed, &what, ui)?;
        return Ok(status);
    };
    // The logs first: on a full disk, that makes room for the journal.
    for log in &logs {
        if let Err(errno) = jobs.directory.remove(log.as_os_str()) {
            ui.warn(Error::path("remove", jobs.directory.path().join(log), errno));
        }
    }
    compact_journals(&jobs, &removed, &lock)?;
    if removed.is_empty() && logs.is_empty() && damaged_lines == 0 {
        note_nothing(options, ui);
    } else {
        ui.note(format!("removed {what}"));
    }
    Ok(status)
}

/// Reports the jobs that would be removed if it could be seen that they have ended. Returns the exit status.
fn report_hidden(pruning: &Pruning, ui: &Ui) -> u8 {
    let is_it = |known: &&Known| known.state == State::Hidden && pruning.is_due(known);
    let mut status = 0;
    for job in pruning.jobs.known.iter().filter(is_it).filter_map(|known| pruning.jobs.load(known)) {
        if let Err(error) = job.check_visible("remove") {
            ui.failure(&error, error.hint());
            status = error.status();
        }
    }
    status
}

/// Removes these jobs from the journals, and what is no job: leftovers and damaged lines.
fn compact_journals(jobs: &Jobs, removed: &[&Known], lock: &PruneLock) -> Result<(), Error> {
    let mut ids: HashSet<JobId> = removed.iter().map(|known| known.entry.id).collect();
    // A line that cannot be read may be the start of a job whose end only seems to be a leftover.
    if jobs.is_complete {
        ids.extend(jobs.journals.iter().flat_map(|journal| &journal.leftovers));
    }
    for (number, journal) in jobs.journals.iter().enumerate() {
        if journal.is_untidy() || removed.iter().any(|known| known.journal == number) {
            compact(&jobs.directory, &journal.boot_id, &ids, lock)?;
        }
    }
    Ok(())
}

fn note_nothing(options: &Options, ui: &Ui) {
    let age = options.older_than;
    let old = if age.is_zero() { String::new() } else { format!(" more than {} ago", show_duration(age)) };
    ui.note(format!("nothing to remove: no job ended{old}"));
}

/// Prints what would be removed.
fn show(jobs: &Jobs, removed: &[&Known], what: &str, ui: &Ui) -> Result<(), Error> {
    let line = |job: Job| {
        let name = escape(job.name().as_encoded_bytes(), "");
        format!("{}\t{name}\t{}\n", job.pid(), job.command_line())
    };
    let lines: String = removed.iter().filter_map(|known| jobs.load(known)).map(line).collect();
    write_data(&lines).map_err(|error| Error::stdout(&error))?;
    ui.note(format!("would remove {what}"));
    Ok(())
}

/// What decides whether something may be removed.
struct Pruning<'a> {
    jobs: &'a Jobs<'a>,
    processes: Processes,
    /// Milliseconds since 1970-01-01 00:00 UTC.
    now: u64,
    age: Duration,
}

impl Pruning<'_> {
    fn may_remove(&self, known: &Known) -> bool {
        let has_ended = match known.state {
            State::Ended => !(known.is_visible && self.processes.is_tracked(&known.entry)),
            // Whether it has ended cannot be seen, so it is kept until it is as old as the user has said.
            State::Elsewhere => !self.age.is_zero(),
            State::Running | State::Stopped | State::Left(_) | State::Hidden => false,
        };
        has_ended && self.is_due(known)
    }

    /// Whether a job that has ended did so long enough ago.
    fn is_due(&self, known: &Known) -> bool {
        let entry = &known.entry;
        let ended_at_ms = entry.session_ended_at_ms.max(entry.end.as_ref().map(|end| end.ended_at_ms));
        let heard_of = ended_at_ms.or(entry.let_go_at_ms).unwrap_or(entry.id.started_at_ms);
        let is_old = |ms: u64| self.age.is_zero() || Duration::from_millis(self.now.saturating_sub(ms)) >= self.age;
        let log = entry.process.log.as_deref().map(OsStr::new);
        is_old(heard_of) && log.is_none_or(|log| self.is_old(log)) && files_named_here(self.jobs, known).is_empty()
    }

    /// The logs of the jobs that are removed, and those that no record names.
    fn choose_logs(&self, removed: &HashSet<JobId>) -> Vec<&OsString> {
        let (gone, kept): (Vec<&Known>, Vec<&Known>) =
            self.jobs.known.iter().partition(|known| removed.contains(&known.entry.id));
        let log_of = |known: &&Known| known.entry.process.log.clone().map(OsString::from);
        let of_gone: HashSet<OsString> = gone.iter().filter_map(log_of).collect();
        let mut in_use: HashSet<OsString> = kept.iter().filter_map(log_of).collect();
        in_use.extend(kept.iter().flat_map(|known| files_named_here(self.jobs, known)));
        let is_free = |log: &&OsString| !in_use.contains(*log) && (of_gone.contains(*log) || self.is_orphan(log));
        self.jobs.logs.iter().filter(is_free).collect()
    }

    /// Whether a log that no record names cannot be that of a running job. A file whose name contains no PID may be
    /// anything, and is kept.
    fn is_orphan(&self, log: &OsStr) -> bool {
        let pids = pids_in_log_name(log);
        let may_be_used = || pids.iter().any(|pid| self.processes.may_use_number(*pid));
        self.jobs.is_complete && self.is_old(log) && !pids.is_empty() && !may_be_used()
    }

    /// Whether a log was last written to long enough ago. One that is missing was; something that is not a file never
    /// was.
    fn is_old(&self, log: &OsStr) -> bool {
        let Some(status) = self.jobs.directory.status(log) else { return true };
        let written = Duration::from_secs(u64::try_from(status.st_mtime).unwrap_or(0));
        let is_file = status.st_mode & libc::S_IFMT == libc::S_IFREG;
        is_file && Duration::from_millis(self.now).saturating_sub(written) >= self.age
    }
}

/// The files in the state directory that the user has named for the output of a job: only its record tells them from
/// logs, so the record stays as well.
fn files_named_here(jobs: &Jobs, known: &Known) -> Vec<OsString> {
    let Some(job) = jobs.load(known) else { return Vec::new() };
    let name_here = |output: &Destination| match output {
        Destination::File(path) => jobs.directory.name_of(path.as_path()).map(OsStr::to_owned),
        _ => None,
    };
    job.record.output().into_iter().filter_map(name_here).collect()
}
