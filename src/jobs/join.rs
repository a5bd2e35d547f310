//! `--join`: waits until jobs have ended, and reports how.
//!
//! Only the parent of a process learns its exit status. It is read from the journal, where the tracking process, or
//! detach itself while it watched the command, has recorded it. A status that was not recorded is reported as unknown.

use std::collections::HashSet;
use std::ffi::OsString;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::{Error, FAILED, reason};
use crate::jobs::directory::StateDirectory;
use crate::jobs::journal::Contents;
use crate::jobs::record::End;
use crate::jobs::session::{State, wait_for_end};
use crate::jobs::{Choice, Job, Jobs};
use crate::sys::proc::Stat;
use crate::sys::process::Held;
use crate::term::format::{describe_end, exit_status, show_duration};
use crate::term::ui::Ui;

const VERB: &str = "wait for";
/// A detach that watches a job records its end within this time, unless the machine is very busy.
const TIME_TO_RECORD: Duration = Duration::from_millis(500);
/// Between two checks whether the end has been recorded.
const INTERVAL: Duration = Duration::from_millis(10);

/// Waits for all jobs of `wanted`, or for the newest job. Returns the exit status of the first that failed, in the
/// order given; 0 only if all are known to have succeeded.
pub fn join(wanted: &[OsString], ui: &Ui) -> Result<u8, Error> {
    let jobs = Jobs::find_for(wanted.first().map(OsString::as_os_str), ui)?;
    let chosen = if wanted.is_empty() {
        vec![jobs.choose(None, Choice::Newest(VERB))?]
    } else {
        let choose = |job: &OsString| jobs.choose(Some(job), Choice::Only(VERB));
        let mut chosen = wanted.iter().map(choose).collect::<Result<Vec<_>, _>>()?;
        let mut known = HashSet::new();
        chosen.retain(|job| known.insert(*job.id()));
        chosen
    };
    let mut status = 0;
    for job in chosen {
        let own = match wait(&job, &jobs.directory) {
            Ok(end) => report(&job, end.as_ref(), ui),
            Err(error) => {
                ui.failure(&error, error.hint());
                error.status()
            }
        };
        if status == 0 {
            status = own;
        }
    }
    Ok(status)
}

fn report(job: &Job, end: Option<&End>, ui: &Ui) -> u8 {
    let Some(end) = end else {
        let reason = if job.record.tracker.is_some() {
            "the process that tracked it was killed"
        } else if job.record.rescue.is_some() {
            "detach did not start it"
        } else {
            "start it with --track to record it"
        };
        ui.failure(format_args!("{} has ended; its exit status is unknown ({reason})", job.describe()), None);
        return FAILED;
    };
    let text = format!("{} {} after {}", job.describe(), describe_end(end.status()), show_duration(end.wall()));
    if end.status().success() {
        ui.note(text);
    } else {
        ui.complain(text);
    }
    exit_status(end.status())
}

/// Waits until nothing is left of the job, and for the process that records how it ended.
fn wait(job: &Job, directory: &StateDirectory) -> Result<Option<End>, Error> {
    let failed = |errno| job.error(VERB, &reason(errno));
    job.check_visible(VERB)?;
    if job.state != State::Ended {
        wait_for_end(&[job], None).map_err(failed)?;
        job.check_ended(VERB)?;
    }
    if let Some(tracker) = job.record.tracker.filter(|_| job.is_visible && job.record.end.is_none()) {
        let is_it = |stat: &Stat| stat.start_time == tracker.start_time;
        if let Some(tracker) = Held::if_is(tracker.pid, is_it).map_err(failed)? {
            tracker.wait(None).map_err(failed)?;
        }
    }
    if job.record.end.is_some() {
        return Ok(job.record.end.clone());
    }
    // If it was tracked, the journal has it by now. A detach that watched it in another terminal may be about to record
    // it.
    let until = Instant::now() + if job.state == State::Ended { Duration::ZERO } else { TIME_TO_RECORD };
    loop {
        let end = Contents::read(directory, &job.record.boot_id, drop)?.find_end(*job.id());
        if end.is_some() || job.record.tracker.is_some() || Instant::now() >= until {
            return Ok(end);
        }
        sleep(INTERVAL);
    }
}
