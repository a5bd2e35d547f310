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

/// The first argument of this program in a tracking process. No option has this name.
const WORD: &CStr = c"--tracking";
/// The program that runs, even if its file has been replaced meanwhile: proc_pid_exe(5).
const THIS_PROGRAM: &CStr = c"/proc/self/exe";
/// In bytes: a boot ID, seven numbers of 64 bits, blanks between them, and a zero.
const LONGEST_TRACKED: usize = 256;

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
    let JobId { pid, start_time, pid_namespace, time_namespace, started_at_ms } = id;
    let [pid_namespace, time_namespace] = [pid_namespace, time_namespace].map(Option::unwrap_or_default);
    let (boot_id, begin) = (&place.boot_id, begin.as_millis());
    let mut tracked = FixedText::<LONGEST_TRACKED>::new();
    // It has room for any. `Tracked::parse` reads it.
    let _ = write!(tracked, "{boot_id} {pid} {start_time} {pid_namespace} {time_namespace} {started_at_ms} ");
    let _ = write!(tracked, "{session} {begin}");
    let words = [c"detach", WORD, tracked.as_c_str()];
    match &tracking.notifier {
        None => execute_here(THIS_PROGRAM, &words),
        Some(notifier) => {
            let [detach, word, tracked] = words;
            execute_here(THIS_PROGRAM, &[detach, word, tracked, notifier, &tracking.name])
        }
    }
}

/// What the new program is told about the command, in one word.
#[derive(Clone, Copy)]
struct Tracked<'a> {
    boot_id: &'a str,
    id: JobId,
    session: Pid,
    /// When it was started ([`time_since_boot`]).
    begin: Duration,
}

impl<'a> Tracked<'a> {
    fn parse(word: &'a OsStr) -> Option<Self> {
        let mut parts = word.to_str()?.split(' ');
        let boot_id = parts.next()?;
        let mut number = || parts.next()?.parse::<u64>().ok();
        let to_pid = |number| Some(Pid::from_raw(i32::try_from(number).ok()?));
        let to_namespace = |number| (number > 0).then_some(number);
        let id = JobId {
            pid: to_pid(number()?)?,
            start_time: number()?,
            pid_namespace: to_namespace(number()?),
            time_namespace: to_namespace(number()?),
            started_at_ms: number()?,
        };
        Some(Self { boot_id, id, session: to_pid(number()?)?, begin: Duration::from_millis(number()?) })
    }
}

/// Tracks a command to its end, if this process was started for that. Other processes only compare one argument.
pub fn run(words: &[OsString]) -> Option<u8> {
    let mut words = words.iter().map(OsString::as_os_str);
    if words.next()?.as_bytes() != WORD.to_bytes() {
        return None;
    }
    let tracked = Tracked::parse(words.next()?)?;
    let notifier = words.next().zip(words.next());
    // Typed by a user, this is an unknown option.
    if has_child_ended(tracked.id.pid).is_err() {
        return None;
    }
    Some(track(tracked, notifier).map_or(FAILED, |()| 0))
}

/// Waits for the command, a child of this process, and records how it has ended; then for the rest of its session, and
/// records when that is empty.
fn track(tracked: Tracked, notifier: Option<(&OsStr, &OsStr)>) -> nix::Result<()> {
    let Tracked { boot_id, id, session, begin } = tracked;
    // The kernel names a process after the file that it runs, which would be "exe".
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

/// Whether no process is left in a session. If this process has no children, none is left: as a subreaper, it inherits
/// all that the command has started. Where /proc does not show all processes, that alone counts.
fn is_empty(session: Pid) -> bool {
    while let Ok(Some(_)) = reap_any(Wait::Return) {}
    if matches!(reap_any(Wait::Return), Err(Errno::ECHILD)) {
        return true;
    }
    count_in_session(session) == Some(0)
}
