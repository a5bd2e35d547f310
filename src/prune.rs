//! `--prune`: removes the records and the logs of jobs that have ended, and what starts that were killed have left.
//! Nothing else in this program deletes anything.
//!
//! Whose file it is, is asked before each removal: a log that a living job uses stays, whatever its name is, and so does
//! the record of a job whose output goes to a file in this directory that the user has named.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use nix::libc;
use nix::unistd::Pid;

use crate::error::Error;
use crate::human::show_size;
use crate::job::{Job, Jobs, State};
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
    let mut removal = Removal { directory: &jobs.directory, ui, now: now_in_ms(), bytes: 0 };
    let ended: Vec<Job> = jobs.ended().collect();
    let living: Vec<Job> = jobs.living().collect();
    let mut in_use: HashSet<OsString> = living.iter().flat_map(|job| jobs.files_of(job, |_| true)).collect();
    let numbers = Numbers::in_use()?;
    let mut count = 0;
    for job in ended {
        let record: OsString = record_name(&job.identity).into();
        let logs = jobs.files_of(&job, |output| matches!(output, Destination::Log(_)));
        // Only its record tells a file that the user has named here from a log, so the record stays.
        let has_file_here = !jobs.files_of(&job, |output| matches!(output, Destination::File(_))).is_empty();
        let is_used = if job.state == State::Elsewhere {
            // Nobody knows, so it is a matter of time.
            age.is_zero()
        } else {
            let has_left = jobs.is_of_this_boot(&job.identity) && numbers.are_left_by(job.pid());
            has_left || jobs.is_tracked_still(&job)
        };
        if is_used || has_file_here || !logs.iter().chain([&record]).all(|file| removal.is_older(file, age)) {
            in_use.extend(jobs.files_of(&job, |_| true));
            continue;
        }
        // The record first: a log without one is found again, but a record would go on to name what is not its log.
        if removal.remove(&record) {
            for log in logs.iter().filter(|log| !in_use.contains(*log)) {
                removal.remove(log);
            }
            count += 1;
        }
    }
    remove_leftovers(&mut removal, &jobs, &in_use, &numbers, age);
    let jobs = if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") };
    ui.note(format!("removed {jobs} that had ended, {}", show_size(removal.bytes)));
    Ok(())
}

/// Removes what no record names, and what no process can finish any more.
fn remove_leftovers(removal: &mut Removal, jobs: &Jobs, in_use: &HashSet<OsString>, numbers: &Numbers, age: Duration) {
    // A job whose record could not be written or read may run. All records have been asked for by now.
    let unreadable = jobs.unreadable();
    for log in jobs.files.logs.iter().filter(|log| !in_use.contains(*log)) {
        let pids = pids_in_log_name(log);
        let is_used = pids.is_empty() || pids.iter().any(|pid| numbers.have(*pid) || unreadable.contains(pid));
        if !is_used && removal.is_older(log, age) {
            removal.remove(log);
        }
    }
    for draft in &jobs.files.drafts {
        if removal.is_older(draft, age.max(TIME_TO_WRITE)) {
            removal.remove(draft);
        }
    }
}

/// The numbers of all processes that live, and of their groups and sessions: what a job has left behind may go on to
/// write when the job itself has ended.
struct Numbers {
    processes: HashSet<Pid>,
    groups_and_sessions: HashSet<Pid>,
}

impl Numbers {
    fn in_use() -> Result<Self, Error> {
        let mut numbers = Self { processes: HashSet::new(), groups_and_sessions: HashSet::new() };
        for process in proc::processes().map_err(Error::proc)? {
            let (pid, stat) = process.map_err(Error::proc)?;
            if !stat.is_dead() {
                numbers.processes.insert(pid);
                numbers.groups_and_sessions.extend([stat.group, stat.session]);
            }
        }
        Ok(numbers)
    }

    fn have(&self, number: Pid) -> bool {
        self.processes.contains(&number) || self.groups_and_sessions.contains(&number)
    }

    /// Whether there are processes that `pid`, which has ended, may have left behind. A process that has its PID now is
    /// another one, and so are those around it.
    fn are_left_by(&self, pid: Pid) -> bool {
        self.groups_and_sessions.contains(&pid) && !self.processes.contains(&pid)
    }
}

struct Removal<'a> {
    directory: &'a StateDirectory,
    ui: &'a Ui,
    /// Milliseconds since 1970.
    now: u64,
    /// The size of what has been removed.
    bytes: u64,
}

impl Removal<'_> {
    /// Whether the file `name` was last written to at least `age` ago. One that is gone was, and what is no file never.
    fn is_older(&self, name: &OsStr, age: Duration) -> bool {
        let Some(status) = self.directory.status(name) else { return true };
        let written = Duration::from_secs(u64::try_from(status.st_mtime).unwrap_or(0));
        status.st_mode & libc::S_IFMT == libc::S_IFREG && Duration::from_millis(self.now).saturating_sub(written) >= age
    }

    /// Removes the file `name`. Returns whether it is gone; warns if not.
    fn remove(&mut self, name: &OsStr) -> bool {
        let size = self.directory.status(name).map_or(0, |status| status.st_size.unsigned_abs());
        match self.directory.remove(name) {
            Ok(()) => self.bytes += size,
            Err(errno) => {
                self.ui.warn(Error::path("remove", self.directory.path().join(name), errno));
                return false;
            }
        }
        true
    }
}
