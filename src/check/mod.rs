//! `--check`: would a process survive if its terminal closed, its shell exited, or its user logged out?
//!
//! This file decides which processes are checked, in which order, and what the exit status is. `facts` reads what there
//! is to know, `table` takes what the calling shell says, `judge` draws the conclusions, `report` puts them into words.
//! Nothing here changes a process.

mod facts;
mod judge;
mod report;
mod table;

use std::ffi::OsString;

use nix::unistd::Pid;

use crate::error::{Error, FAILED};
use crate::jobs::find_for_check;
use crate::term::ui::{Ui, write_data};

use facts::Facts;
use judge::{Verdict, judge};
use table::JobTable;

/// The exit status when a process would not survive, or might not.
const WOULD_NOT_SURVIVE: u8 = 1;

/// Checks the processes or jobs `wanted`; without any, the newest running job. If one cannot be checked, the others
/// still are. `find_obstacle` tells why a process cannot be let go of. Returns the exit status.
pub fn check(
    wanted: &[OsString],
    json: bool,
    find_obstacle: impl Fn(Pid) -> Option<String>,
    ui: &Ui,
) -> Result<u8, Error> {
    let found: Vec<Result<Vec<Pid>, Error>> = if wanted.is_empty() {
        vec![find_for_check(None, ui)]
    } else {
        wanted.iter().map(|wanted| find_for_check(Some(wanted), ui)).collect()
    };
    let processes = found.into_iter().flat_map(|found| match found {
        Ok(pids) => pids.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    });
    let table = JobTable::read();
    let mut status = 0;
    let mut separator = "";
    for process in processes {
        match process.and_then(|pid| Facts::read(pid, table.as_ref(), &find_obstacle)) {
            Ok(facts) => {
                let judgement = judge(&facts);
                let text = if json {
                    report::to_json(&facts, &judgement)
                } else {
                    format!("{separator}{}", report::show(&facts, &judgement, ui))
                };
                write_data(&text).map_err(|error| Error::stdout(&error))?;
                separator = "\n";
                status = status.max(exit_status(judgement.verdict));
            }
            Err(error) => {
                ui.failure(&error, error.hint());
                status = FAILED;
            }
        }
    }
    Ok(status)
}

fn exit_status(verdict: Verdict) -> u8 {
    if verdict.is_safe() { 0 } else { WOULD_NOT_SURVIVE }
}
