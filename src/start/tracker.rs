//! The process that tracks a command: its parent, which waits for its end and records it.
//!
//! It executes this program again, so that it keeps almost nothing of what the start needed. `child` makes it, in a
//! session of its own; `execute` is its last step there, and `run` is what the new program does. It stays until no
//! process of the job's session is left. All signals are blocked in it, so it ends after the job, or by SIGKILL.

use std::ffi::{CStr, OsStr, OsString};
use std::fmt::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_name;
use nix::unistd::{Pid, fchdir};

use crate::error::FAILED;
use crate::jobs::directory::StateDirectory;
use crate::jobs::journal::Journal;
use crate::jobs::record::{End, JobId};
use crate::jobs::session::count_in_session;
use crate::start::notify;
use crate::start::plan::Plan;
use crate::start::report::Report;
use crate::sys::descriptors::redirect;
use crate::sys::exec::execute_here;
use crate::sys::fixed::FixedText;
use crate::sys::proc::time_since_boot;
use crate::sys::process::{Wait, has_child_ended, reap_any};
use crate::term::format::now_in_ms;

/// The first argument of this program in a tracking process. No option is called so.
const WORD: &CStr = c"--tracking";
/// The program that runs, even if its file has been replaced meanwhile: proc_pid_exe(5).
const THIS_PROGRAM: &CStr = c"/proc/self/exe";

/// Becomes the program that tracks the command, a child of this process that was started at `begin`
/// ([`time_since_boot`]). The working directory becomes the state directory. Returns only when that fails. Allocates
/// nothing.
pub fn execute(plan: &Plan, report: &Report, begin: Duration) -> Errno {
    let (Ok(place), Some(tracking)) = (&plan.place, &plan.tracking) else { return Errno::EINVAL };
    let (Some(id), Some(session)) = (report.job.get(), report.session.get()) else { return Errno::EINVAL };
    let prepare = || {
        for stream in 0..=2 {
            redirect(tracking.null.as_raw_fd(), stream)?;
        }
        fchdir(place.directory.as_fd())?;
        plan.closer.close(&[], None)
    };
    if let Err(errno) = prepare() {
        return errno;
    }
    let mut numbers = [(); 7].map(|()| FixedText::<24>::new());
    let pid = u64::from(id.pid.as_raw().unsigned_abs());
    let [pid_namespace, time_namespace] = [id.pid_namespace, id.time_namespace].map(Option::unwrap_or_default);
    let values = [pid, id.start_time, pid_namespace, time_namespace, id.started_at_ms];
    let session = u64::from(session.as_raw().unsigned_abs());
    let begin = u64::try_from(begin.as_millis()).unwrap_or(u64::MAX);
    for (text, value) in numbers.iter_mut().zip(values.into_iter().chain([session, begin])) {
        // It has room for any number of 64 bits.
        let _ = write!(text, "{value}");
    }
    let [pid, start_time, pid_namespace, time_namespace, started_at_ms, session, begin] =
        numbers.each_ref().map(FixedText::as_c_str);
    let boot_id = tracking.boot_id.as_c_str();
    let words =
        [c"detach", WORD, boot_id, pid, start_time, pid_namespace, time_namespace, started_at_ms, session, begin];
    match &tracking.notifier {
        None => execute_here(THIS_PROGRAM, &words),
        Some(notifier) => {
            let mut all = [c""; 12];
            for (place, word) in
                all.iter_mut().zip(words.iter().chain(&[notifier.as_c_str(), tracking.name.as_c_str()]))
            {
                *place = word;
            }
            execute_here(THIS_PROGRAM, &all)
        }
    }
}

/// If this process is to track a command: does so, to its end. Costs every other process the look at one argument.
pub fn run(words: &[OsString]) -> Option<u8> {
    let mut words = words.iter().map(OsString::as_os_str);
    if words.next()?.as_bytes() != WORD.to_bytes() {
        return None;
    }
    let boot_id = words.next()?.to_str()?;
    let mut number = || words.next()?.to_str()?.parse::<u64>().ok();
    let pid = Pid::from_raw(i32::try_from(number()?).ok()?);
    let (start_time, namespaces) = (number()?, [number()?, number()?]);
    let [pid_namespace, time_namespace] = namespaces.map(|namespace| (namespace > 0).then_some(namespace));
    let id = JobId { pid, start_time, pid_namespace, time_namespace, started_at_ms: number()? };
    let session = Pid::from_raw(i32::try_from(number()?).ok()?);
    let begin = Duration::from_millis(number()?);
    let notifier = words.next().zip(words.next());
    // Whoever types this is told that there is no such option.
    if has_child_ended(pid).is_err() {
        return None;
    }
    Some(track(boot_id, id, session, begin, notifier).map_or(FAILED, |()| 0))
}

/// Waits for the child `id`, which was started at `begin`, and records how it has ended; then for the rest of its
/// session, and records when that is empty.
fn track(
    boot_id: &str,
    id: JobId,
    session: Pid,
    begin: Duration,
    notifier: Option<(&OsStr, &OsStr)>,
) -> nix::Result<()> {
    // The kernel calls a process after the file that it runs, which would be "exe".
    let _ = set_name(c"detach");
    let end = loop {
        // Any other is something that the command has left behind.
        if let Some((pid, status, usage)) = reap_any(Wait::Block)?
            && pid == id.pid
        {
            break End::now(status, time_since_boot().saturating_sub(begin), usage);
        }
    };
    // If it cannot be recorded, it can still be shown.
    let recorded = append(boot_id, |directory, journal| journal.append_end(directory, id, &end));
    if let Some((program, name)) = notifier {
        notify::send(program, name, &end);
    }
    let mut ended_at_ms = end.ended_at_ms;
    while !is_empty(session) {
        match reap_any(Wait::Block) {
            Ok(_) | Err(Errno::EINTR) => ended_at_ms = now_in_ms(),
            Err(_) => break,
        }
    }
    recorded.and(append(boot_id, |directory, journal| journal.append_session_end(directory, id, ended_at_ms)))
}

fn append(boot_id: &str, event: impl Fn(&StateDirectory, &Journal) -> nix::Result<()>) -> nix::Result<()> {
    let directory = StateDirectory::here()?;
    event(&directory, &Journal::open(&directory, boot_id)?)
}

/// Whether no process is left in a session. One without children is not looked for: all that the command has started
/// becomes a child of this process at last, which is a subreaper. Where /proc does not show all processes, that alone counts.
fn is_empty(session: Pid) -> bool {
    while let Ok(Some(_)) = reap_any(Wait::Return) {}
    if matches!(reap_any(Wait::Return), Err(Errno::ECHILD)) {
        return true;
    }
    count_in_session(session) == Some(0)
}
