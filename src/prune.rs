//! `--prune`: removes the records and the logs of jobs that have ended, and what starts that were killed have left.
//! Nothing else in this program deletes anything.
//!
//! Whose file it is, is asked before each removal: a log that a living job uses stays, whatever its name is, and a file
//! that the user has named is not in this directory.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use nix::unistd::Pid;

use crate::error::{Error, reason};
use crate::human::show_size;
use crate::job::{Job, Jobs};
use crate::proc;
use crate::record::{Destination, now_in_ms};
use crate::state::{StateDirectory, pids_in_log_name, record_name};
use crate::ui::Ui;

/// A record that is not finished is left alone that long: somebody may be writing it.
const TIME_TO_WRITE: Duration = Duration::from_secs(60);

/// Removes what has ended and has not been heard of for `age`.
pub fn prune(age: Duration, ui: &Ui) -> Result<(), Error> {
    let Some(jobs) = Jobs::find(ui)? else {
        ui.note("nothing to remove: no job has been started yet");
        return Ok(());
    };
    let mut removal = Removal { directory: &jobs.directory, now: now_in_ms(), bytes: 0 };
    let mut in_use: HashSet<OsString> = jobs.living().flat_map(|job| logs_of(&job, removal.directory)).collect();
    let mut count = 0;
    for job in jobs.ended() {
        let record: OsString = record_name(&job.identity).into();
        let logs = logs_of(&job, removal.directory);
        if jobs.is_tracked_still(&job) || !logs.iter().chain([&record]).all(|file| removal.is_older(file, age)) {
            in_use.extend(logs);
            continue;
        }
        // The record first: a log without one is found again, but a record would go on to name what is not its log.
        removal.remove(&record)?;
        for log in logs.iter().filter(|log| !in_use.contains(*log)) {
            removal.remove(log)?;
        }
        count += 1;
    }
    remove_leftovers(&mut removal, &jobs, &in_use, age)?;
    let jobs = if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") };
    ui.note(format!("removed {jobs} that had ended, {}", show_size(removal.bytes)));
    Ok(())
}

/// Removes what no record names, and what no process can finish any more.
fn remove_leftovers(
    removal: &mut Removal,
    jobs: &Jobs,
    in_use: &HashSet<OsString>,
    age: Duration,
) -> Result<(), Error> {
    // A job whose record could not be written or read may run.
    let unreadable = jobs.unreadable();
    let may_use = |pid: &Pid| unreadable.contains(pid) || proc::stat(*pid).is_some_and(|stat| !stat.is_dead());
    for log in jobs.files.logs.iter().filter(|log| !in_use.contains(*log)) {
        let pids = pids_in_log_name(log);
        if !pids.is_empty() && !pids.iter().any(may_use) && removal.is_older(log, age) {
            removal.remove(log)?;
        }
    }
    for draft in &jobs.files.drafts {
        if removal.is_older(draft, age.max(TIME_TO_WRITE)) {
            removal.remove(draft)?;
        }
    }
    Ok(())
}

/// The names of the logs that `job` has in `directory`.
fn logs_of(job: &Job, directory: &StateDirectory) -> Vec<OsString> {
    let logs = job.record.output().into_iter().filter_map(|output| match output {
        Destination::Log(path) => directory.name_of(path.as_path()),
        _ => None,
    });
    let mut logs: Vec<OsString> = logs.map(OsStr::to_owned).collect();
    logs.dedup();
    logs
}

struct Removal<'a> {
    directory: &'a StateDirectory,
    /// Milliseconds since 1970.
    now: u64,
    /// The size of what has been removed.
    bytes: u64,
}

impl Removal<'_> {
    /// Whether the file `name` was last written to at least `age` ago. One that is gone was.
    fn is_older(&self, name: &OsStr, age: Duration) -> bool {
        let Some(status) = self.directory.status(name) else { return true };
        let written = Duration::from_secs(u64::try_from(status.st_mtime).unwrap_or(0));
        Duration::from_millis(self.now).saturating_sub(written) >= age
    }

    fn remove(&mut self, name: &OsStr) -> Result<(), Error> {
        let size = self.directory.status(name).map_or(0, |status| status.st_size.unsigned_abs());
        let failed =
            |errno| Error::Path { verb: "remove", path: self.directory.path().join(name), reason: reason(errno) };
        self.directory.remove(name).map_err(failed)?;
        self.bytes += size;
        Ok(())
    }
}
