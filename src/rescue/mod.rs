//! `--pid`: lets go of jobs that are already running, from the request to the report.
//!
//! `job` finds the processes, `consent` asks whether each may be let go of, and only when all may, `procedure` does it:
//! through the `calls` of a `tracee`, while a `guardian` waits. `record` keeps what `--list` and the others need.

mod calls;
mod consent;
mod guardian;
mod job;
mod ledger;
mod procedure;
mod processor;
mod record;
mod terminal;
#[allow(unsafe_code)]
mod tracee;

use std::ffi::OsString;
use std::iter;
use std::path::PathBuf;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getppid};

use crate::error::{Error, FAILED, reason};
use crate::rescue::calls::Failure;
use crate::rescue::consent::Refusal;
use crate::rescue::job::{Member, RunningJob, Table};
use crate::rescue::procedure::Trouble;
use crate::rescue::record::{Draft, Keeper};
use crate::rescue::tracee::Fault;
use crate::sys::process::raise_descriptor_limit;
use crate::sys::signals;
use crate::term::ui::Ui;

pub use procedure::After;

/// Why a sudo that has a terminal of its own for its command is refused.
const RELAY: &str = "it would end its command, to which it passes the terminal on";

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Processes, or the numbers of process groups.
    pub wanted: Vec<Pid>,
    /// Where the output goes, if not to a log.
    pub output: Option<PathBuf>,
    /// If the jobs are not to be named after their commands.
    pub name: Option<OsString>,
    pub after: After,
}

/// Lets go of the jobs of these processes. Returns the exit status.
pub fn let_go(request: &Request, ui: &Ui) -> Result<u8, Error> {
    // A pidfd for each process.
    raise_descriptor_limit();
    let mut jobs = find_jobs(&request.wanted)?;
    ask(&jobs)?;
    signals::prepare().map_err(|errno| Error::step("prepare signals", errno))?;
    let keepers = jobs.iter().filter_map(RunningJob::first).map(|first| Keeper::open(first, request));
    let keepers = keepers.collect::<Result<Vec<_>, _>>()?;
    let mut drafts = Vec::new();
    for (job, keeper) in jobs.iter().zip(&keepers) {
        match prepare(job, keeper, request, ui) {
            Ok(draft) => drafts.push(draft),
            Err(error) => {
                drafts.iter().flatten().for_each(Draft::remove_log);
                return Err(error);
            }
        }
    }
    // Nothing was changed until here.
    let (mut status, mut stopped) = (0, Vec::new());
    for (job, draft) in jobs.iter_mut().zip(&drafts) {
        let Some(draft) = draft else { continue };
        match let_go_of(job, draft, request.after, ui) {
            Ok(()) => stopped.push(job.group),
            Err(error) => {
                ui.failure(&error, error.hint());
                status = FAILED;
            }
        }
    }
    if status == FAILED && request.after == After::StayStopped {
        // The shell, which would continue them, does nothing after a failure.
        for group in stopped {
            let _ = killpg(group, Signal::SIGCONT);
        }
    }
    Ok(status)
}

/// Why a process cannot be let go of, for `--check`; `None` if it can be, or if it has ended.
pub fn find_obstacle(pid: Pid) -> Option<String> {
    if let Err(refusal) = consent::ask(pid)? {
        return Some(refusal.reason);
    }
    let table = job::read_table().ok()?;
    let job = RunningJob::find(&table, pid).ok()?;
    job.find_relay(&table).map(|_| RELAY.to_owned())
}

/// The jobs that are meant, each once.
fn find_jobs(wanted: &[Pid]) -> Result<Vec<RunningJob>, Error> {
    let table = job::read_table()?;
    let ancestors = list_ancestors(&table);
    let mut jobs: Vec<RunningJob> = Vec::new();
    for pid in wanted {
        if jobs.iter().any(|job| job.has(*pid)) {
            continue;
        }
        let mut job = RunningJob::find(&table, *pid)?;
        if job.members.iter().any(|member| ancestors.contains(&member.pid)) {
            let (reason, hint) = if ancestors.contains(pid) {
                ("detach is one of its descendants", None)
            } else {
                ("detach is in its process group", Some("in a script, start it with 'detach COMMAND' instead"))
            };
            let member = job.members.iter().find(|member| member.pid == *pid).or(job.first());
            let error = member.map_or_else(|| Error::new(reason), |member| refuse(member, reason));
            return Err(error.with_hint_if_any(hint.map(str::to_owned)));
        }
        if let Some((sudo, command)) = job.find_relay(&table) {
            let error = refuse_unchanged(sudo, RELAY);
            return Err(error.with_hint(format!("let go of that command: sudo detach --pid {command}")));
        }
        // One that was named before may be a part of this one.
        let is_part = |earlier: &mut RunningJob| earlier.members.iter().any(|member| job.has(member.pid));
        let parts: Vec<RunningJob> = jobs.extract_if(.., is_part).collect();
        for part in parts {
            job.absorb(part);
        }
        jobs.push(job);
    }
    Ok(jobs)
}

/// This process and all its ancestors.
fn list_ancestors(table: &Table) -> Vec<Pid> {
    let parents = iter::successors(Some(getppid()), |pid| table.get(pid).map(|stat| stat.parent));
    // The table is not a snapshot, so it may contain a cycle: take no more steps than there are processes.
    iter::once(Pid::this()).chain(parents.take(table.len())).collect()
}

/// Asks for every process of every job whether it may be let go of.
fn ask(jobs: &[RunningJob]) -> Result<(), Error> {
    for member in jobs.iter().flat_map(|job| &job.members) {
        if let Some(Err(refusal)) = consent::ask(member.pid) {
            return Err(explain_refusal(member, &refusal));
        }
    }
    Ok(())
}

fn explain_refusal(member: &Member, Refusal { reason, is_for_root }: &Refusal) -> Error {
    let hint = is_for_root.then(|| format!("as root: sudo detach --pid {}", member.pid));
    refuse_unchanged(member, reason).with_hint_if_any(hint)
}

fn refuse_unchanged(member: &Member, reason: &str) -> Error {
    refuse(member, &format!("{reason}; nothing was changed"))
}

fn refuse(member: &Member, reason: &str) -> Error {
    Error::new(format!("cannot let go of {}: {reason}", member.describe()))
}

/// Makes the log of a job, and changes nothing else. `None` if there is nothing to do: the job is known, and no longer
/// has a terminal.
fn prepare<'k>(job: &RunningJob, keeper: &'k Keeper, request: &Request, ui: &Ui) -> Result<Option<Draft<'k>>, Error> {
    let Some(first) = job.first() else { return Ok(None) };
    let known = keeper.find_known(job)?;
    if job.terminal.is_none() {
        let Some(known) = known else { return Err(refuse(first, "it has no terminal")) };
        ui.note(format!("{} no longer has a terminal", known.describe()));
        return Ok(None);
    }
    let draft = keeper.draft(job, first, known.as_ref(), request)?;
    if let Some((member, errno)) = draft.find_denied(job) {
        draft.remove_log();
        let error = refuse_unchanged(member, &format!("it cannot open its output: {}", reason(errno)));
        return Err(error.with_hint("with -o, name a file that all processes of the job may write"));
    }
    Ok(Some(draft))
}

fn let_go_of(job: &mut RunningJob, draft: &Draft, after: After, ui: &Ui) -> Result<(), Error> {
    let Some(first) = job.first().cloned() else { return Ok(()) };
    let (released, trouble) = procedure::let_go(job, draft, after, ui);
    match trouble {
        Some(trouble) => Err(explain(&first, trouble, &released)),
        None if released.is_empty() => Err(refuse(&first, "it has ended")),
        None => {
            ui.note(draft.describe(job, ui));
            Ok(())
        }
    }
}

/// The sentence for a job that was not let go of, or not as a whole.
fn explain(first: &Member, trouble: Trouble, released: &[Member]) -> Error {
    match trouble {
        Trouble::Guardian(errno) => {
            refuse_unchanged(first, &format!("cannot create the helper process: {}", reason(errno)))
        }
        Trouble::TooMany => refuse_unchanged(first, "it has too many processes"),
        Trouble::Look(errno) => refuse_unchanged(first, &reason(errno)),
        Trouble::Refused(member, refusal) => explain_refusal(&member, &refusal),
        Trouble::DoesNotStop(member, b'D') => {
            refuse_unchanged(&member, "it does not stop: it is in uninterruptible sleep (state D)")
        }
        Trouble::DoesNotStop(member, _) => refuse_unchanged(&member, &explain_fault(Fault::Continued)),
        Trouble::Unchanged(member, failure) if released.is_empty() => {
            refuse_unchanged(&member, &explain_failure(failure))
        }
        Trouble::Unchanged(member, failure) => {
            let names: Vec<String> = released.iter().map(Member::describe).collect();
            let failure = explain_failure(failure);
            refuse(&member, &format!("{failure}; only these processes were let go of: {}", names.join(", ")))
        }
        Trouble::Halfway(member, failure) => {
            let names: Vec<String> = released.iter().chain([&member]).map(Member::describe).collect();
            let failure = explain_failure(failure);
            refuse(&member, &format!("{failure}; let go of, at least in part: {}", names.join(", ")))
        }
    }
}

fn explain_failure(failure: Failure) -> String {
    match failure {
        Failure::Refused(what, errno) => format!("it cannot {what}: {}", reason(errno)),
        Failure::Fault(fault) => explain_fault(fault),
    }
}

fn explain_fault(fault: Fault) -> String {
    match fault {
        Fault::Gone => "it has ended".to_owned(),
        Fault::Continued => "it does not stay stopped: another process continues it".to_owned(),
        Fault::Trace(errno) => format!("it cannot be traced: {}", reason(errno)),
        Fault::NotNative => "it runs 32-bit code, which is not supported".to_owned(),
        Fault::Intercepted => "it intercepts its own system calls, as Wine does".to_owned(),
        Fault::NoInstruction => "no system call instruction was found in its memory".to_owned(),
    }
}
