//! `--prune`: removes what is known of jobs that have ended, and their logs. Nothing else in this program deletes
//! anything, apart from what a failed start has made.
//!
//! A log that may still be in use stays, whatever its name is.

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
    /// What ended less than this long ago stays.
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
    // What runs is asked after the journal has been read: a job that was started since is not in it.
    let mut processes = Processes::default();
    processes.look().map_err(Error::proc)?;
    let pruning = Pruning { jobs: &jobs, processes, now: now_in_ms(), age: options.older_than };
    let removed: Vec<&Known> = jobs.known.iter().filter(|known| pruning.may_remove(known)).collect();
    let logs = pruning.choose_logs(&removed.iter().map(|known| known.entry.id).collect());
    let bytes = logs.iter().filter_map(|log| jobs.directory.status(log)).map(|log| log.st_size.unsigned_abs()).sum();
    let jobs_removed = if removed.len() == 1 { "1 ended job" } else { &format!("{} ended jobs", removed.len()) };
    let what = format!("{jobs_removed}, {}", show_size(bytes));
    let Some(lock) = lock else { return show(&jobs, &removed, &what, ui) };
    // The logs first: that makes room for the journal where there is none.
    for log in &logs {
        if let Err(errno) = jobs.directory.remove(log.as_os_str()) {
            ui.warn(Error::path("remove", jobs.directory.path().join(log), errno));
        }
    }
    compact_journals(&jobs, &removed, &lock)?;
    if removed.is_empty() && logs.is_empty() {
        note_nothing(options, ui);
    } else {
        ui.note(format!("removed {what}"));
    }
    Ok(0)
}

/// Removes these jobs from the journals, and what is no job.
fn compact_journals(jobs: &Jobs, removed: &[&Known], lock: &PruneLock) -> Result<(), Error> {
    let mut ids: HashSet<JobId> = removed.iter().map(|known| known.entry.id).collect();
    // A line that cannot be read may be the start of a job whose end seems to be a leftover.
    if jobs.is_complete {
        ids.extend(&jobs.leftovers);
    }
    for (number, boot) in jobs.boots().enumerate() {
        let is_untidy = jobs.untidy_boots.iter().any(|untidy| untidy == boot);
        if is_untidy || removed.iter().any(|known| known.journal == number) {
            compact(&jobs.directory, boot, &ids, lock)?;
        }
    }
    Ok(())
}

fn note_nothing(options: &Options, ui: &Ui) {
    let age = options.older_than;
    let old = if age.is_zero() { String::new() } else { format!(" more than {} ago", show_duration(age)) };
    ui.note(format!("nothing to remove: no job has ended{old}"));
}

/// Prints what would be removed.
fn show(jobs: &Jobs, removed: &[&Known], what: &str, ui: &Ui) -> Result<u8, Error> {
    let line = |job: Job| {
        let name = escape(job.name().as_encoded_bytes(), "");
        format!("{}\t{name}\t{}\n", job.pid(), job.command_line())
    };
    let lines: String = removed.iter().filter_map(|known| jobs.load(known)).map(line).collect();
    write_data(&lines).map_err(|error| Error::stdout(&error))?;
    ui.note(format!("would remove {what}"));
    Ok(0)
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
        let entry = &known.entry;
        let ended_at_ms = entry.session_ended_at_ms.max(entry.end.as_ref().map(|end| end.ended_at_ms));
        let heard_of = ended_at_ms.unwrap_or(entry.id.started_at_ms);
        let is_old = |ms: u64| self.age.is_zero() || Duration::from_millis(self.now.saturating_sub(ms)) >= self.age;
        let has_ended = match known.state {
            State::Ended => !(known.is_visible && self.processes.is_tracked(&known.entry)),
            // Whether it has ended cannot be seen, so it stays until it is as old as somebody has said.
            State::Elsewhere => !self.age.is_zero(),
            State::Running | State::Stopped | State::Left(_) => false,
        };
        let log = known.entry.process.log.as_deref().map(OsStr::new);
        has_ended
            && is_old(heard_of)
            && log.is_none_or(|log| self.is_old(log))
            && files_named_here(self.jobs, known).is_empty()
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

    /// Whether no job can have this log, although no record names it. One that does not say whose it is may be anything.
    fn is_orphan(&self, log: &OsStr) -> bool {
        let pids = pids_in_log_name(log);
        let is_used = || pids.iter().any(|pid| self.processes.use_number(*pid));
        self.jobs.is_complete && self.is_old(log) && !pids.is_empty() && !is_used()
    }

    /// Whether a log was last written to long enough ago. One that is gone was; what is no file never was.
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
