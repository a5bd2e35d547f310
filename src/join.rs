//! `--join`: waits until jobs have ended, and says how.
//!
//! How a command has ended is known to its parent alone: here it is read from the record, where the tracking process has
//! written it (`tracker`).

use std::ffi::OsString;

use crate::error::{Error, reason};
use crate::human::{describe_end, exit_status, show_duration};
use crate::job::{ELSEWHERE, Job, Jobs, State};
use crate::pidfd::Held;
use crate::record::End;
use crate::ui::Ui;

const VERB: &str = "wait for";

/// Waits for all of `wanted`. Returns the exit status of the last one, or 0 where that is not known.
pub fn join(wanted: &[OsString], ui: &Ui) -> Result<u8, Error> {
    let (jobs, chosen) = Jobs::choose_all(wanted, VERB, ui)?;
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
        } else if job.record.tracker.is_some() {
            return Err(job.error("tell the status of", "the process that tracked it has not recorded it"));
        } else {
            ui.warn(format!("{} has ended, nobody knows how: start it with --track next time", job.describe()));
            0
        };
    }
    Ok(status)
}

/// Waits for the command, and for the process that writes down how it has ended.
fn wait_for_end(jobs: &Jobs, job: &Job) -> Result<Option<End>, Error> {
    let failed = |errno| job.error(VERB, reason(errno));
    match (&job.record.end, job.state) {
        (Some(end), _) => return Ok(Some(end.clone())),
        (None, State::Elsewhere) => return Err(job.error(VERB, ELSEWHERE)),
        (None, _) => (),
    }
    for identity in [Some(&job.identity), job.record.tracker.as_ref()].into_iter().flatten() {
        if let Some(held) = Held::of(identity).map_err(failed)? {
            held.wait(None).map_err(failed)?;
        }
    }
    Ok(jobs.load(&job.identity, job.state).and_then(|job| job.record.end))
}
