//! `--join`: waits until jobs have ended, and says how.

use std::ffi::OsString;

use crate::error::{Error, reason};
use crate::human::{describe_end, exit_status, show_duration};
use crate::job::{Choice, Job, Jobs, no_job};
use crate::pidfd::Held;
use crate::record::End;
use crate::ui::Ui;

const VERB: &str = "wait for";

/// Waits for all of `wanted`. Returns the exit status of the last one, or 0 where that is not known.
pub fn join(wanted: &[OsString], ui: &Ui) -> Result<u8, Error> {
    let Some(jobs) = Jobs::find(ui)? else { return Err(no_job(wanted.first().map_or("".as_ref(), |job| job))) };
    let chosen: Vec<Job> = wanted.iter().map(|job| jobs.choose(job, Choice::Only(VERB))).collect::<Result<_, _>>()?;
    let mut status = 0;
    for job in chosen {
        status = if let Some(end) = wait_for_end(&jobs, &job)? {
            let text = format!("{} {} after {}", job.describe(), describe_end(end.status), show_duration(end.wall));
            if end.status.success() {
                ui.note(text);
            } else {
                ui.complain(text);
            }
            exit_status(end.status)
        } else {
            ui.warn(format!("{} has ended, nobody knows how: start it with --track next time", job.describe()));
            0
        };
    }
    Ok(status)
}

/// Waits for the command, and for the process that writes down how it has ended.
fn wait_for_end(jobs: &Jobs, job: &Job) -> Result<Option<End>, Error> {
    let failed = |errno| Error::Job {
        verb: VERB,
        name: job.name().to_owned(),
        pid: job.pid(),
        reason: reason(errno),
        hint: None,
    };
    if job.record.end.is_some() {
        return Ok(job.record.end.clone());
    }
    for identity in [Some(&job.identity), job.record.tracker.as_ref()].into_iter().flatten() {
        if let Some(held) = Held::of(identity).map_err(failed)? {
            held.wait(None).map_err(failed)?;
        }
    }
    Ok(jobs.load(&job.identity, job.state).and_then(|job| job.record.end))
}
