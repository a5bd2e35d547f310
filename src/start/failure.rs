//! Why a start failed, as an error message: made from what the new processes have left in the `report`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::error::{Error, reason};
use crate::start::plan::Plan;
use crate::start::report::{GivenUp, Report, Step};

/// Why a process has given up, in words.
pub fn explain(report: &Report, plan: &Plan, given_up: GivenUp) -> Error {
    match given_up {
        GivenUp::Refused(refusal) => plan.command.explain(refusal),
        GivenUp::Pidfile(fault) => match &plan.pidfile {
            Some(pidfile) => pidfile.explain(fault),
            None => Error::step(Step::Pidfile.words().purpose, Errno::EINVAL),
        },
        GivenUp::Abandoned => Error::new(format!("cannot start {}: the start was abandoned", plan.command_name())),
        GivenUp::Errno(Step::Fork, errno) => explain_fork(plan, errno),
        GivenUp::Errno(Step::Directory, errno) => {
            let path = plan.directory.as_ref().map(|path| OsStr::from_bytes(path.to_bytes()));
            Error::path("change directory to", path.unwrap_or_default(), errno)
        }
        GivenUp::Errno(Step::Log, errno) => explain_log(report, plan, errno),
        GivenUp::Errno(Step::Record, errno) => {
            let fault = explain_record_fault(report, errno);
            let hint = hint_for_log(errno).filter(|_| plan.streams.need_log());
            Error::new(format!("cannot record job {}: {fault}", plan.name())).with_hint_if_any(hint)
        }
        GivenUp::Errno(step, errno) => Error::step(step.words().purpose, errno),
    }
}

/// Why there is no new process: fork(2) and clone(2).
pub fn explain_fork(plan: &Plan, errno: Errno) -> Error {
    let reason = match errno {
        // The limit on processes, of the user or of the system.
        Errno::EAGAIN => "the limit on the number of processes is reached".to_owned(),
        Errno::ENOSYS => "a new process cannot share memory here, perhaps because of an emulator".to_owned(),
        _ => reason(errno),
    };
    Error::new(format!("cannot start {}: {reason}", plan.command_name()))
}

/// Why a start was not recorded.
pub fn explain_record_fault(report: &Report, errno: Errno) -> String {
    if report.job.get().is_some() { reason(errno) } else { "its start time cannot be read from /proc".to_owned() }
}

fn explain_log(report: &Report, plan: &Plan, errno: Errno) -> Error {
    let name = plan.log_stem.name(report.command().unwrap_or(Pid::from_raw(0)), 1);
    let directory = plan.place.as_ref().map_or(Path::new(""), |place| place.directory.path());
    let error = Error::path("create log", directory.join(OsStr::from_bytes(name.as_bytes())), errno);
    error.with_hint_if_any(hint_for_log(errno))
}

/// What to do where there is no room for a log.
fn hint_for_log(errno: Errno) -> Option<String> {
    matches!(errno, Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS)
        .then(|| "name a file elsewhere with -o FILE, or discard the output with -o /dev/null".to_owned())
}
