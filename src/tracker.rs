//! The process that tracks a command: its parent, which waits for its end and writes that to its record.
//!
//! It is another run of this program, so that it holds next to nothing of what the start has needed. `sequence` makes
//! it, in a session of its own; `execute` is the last step of that, and `run` is what the new program does.
//! All signals are blocked in it: it ends after the command, or of SIGKILL.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_name;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, execv, fchdir};

use crate::error::FAILED;
use crate::notify;
use crate::proc::{Identity, time_since_boot};
use crate::record::{End, now_in_ms};
use crate::session;
use crate::state::{StateDirectory, parse_record_name, record_name};

/// The first argument of this program in a tracking process. No option is called so.
const WORD: &str = "--tracking";
/// The program that runs, even if its file has been replaced meanwhile: proc_pid_exe(5).
const THIS_PROGRAM: &CStr = c"/proc/self/exe";

/// Becomes the program that tracks the child `command` of this process. Returns only when that fails.
///
/// `begin` is when it was started ([`time_since_boot`]), `null` is /dev/null, `notifier` the program that shows
/// notifications and the name for that. The working directory becomes `state`: what is to be written lies there.
pub fn execute(
    state: &StateDirectory,
    command: &Identity,
    begin: Duration,
    null: impl AsFd,
    notifier: Option<[&OsStr; 2]>,
) -> nix::Result<Infallible> {
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    fchdir(state)?;
    session::close_descriptors(&[])?;
    let begin = begin.as_millis().to_string();
    let record = record_name(command);
    let words = [OsStr::new("detach"), WORD.as_ref(), record.as_ref(), begin.as_ref()];
    let words = words.into_iter().chain(notifier.into_iter().flatten()).map(|word| CString::new(word.as_bytes()));
    let arguments = words.collect::<Result<Vec<_>, _>>().map_err(|_| Errno::EINVAL)?;
    execv(THIS_PROGRAM, &arguments)
}

/// If this process is to track a command: does so, to its end. Costs every other process the look at one argument.
pub fn run(words: &[OsString]) -> Option<u8> {
    let mut words = words.iter();
    if words.next()? != WORD {
        return None;
    }
    // Whoever types this means something else, and is told that there is no such option.
    let command = parse_record_name(words.next()?)?;
    let begin = Duration::from_millis(words.next()?.to_str()?.parse().ok()?);
    let notifier = words.next().cloned().zip(words.next());
    Some(track(&command, begin, notifier).map_or(FAILED, |()| 0))
}

/// Waits for the child `command`, which was started at `begin`, and records how it has ended.
fn track(command: &Identity, begin: Duration, notifier: Option<(OsString, &OsString)>) -> nix::Result<()> {
    // The kernel calls a process after the file that it runs, which would be "exe".
    let _ = set_name(c"detach");
    session::release_program();
    let (status, usage) = session::reap_with_usage(command.pid)?;
    let wall = time_since_boot().saturating_sub(begin);
    let end = End { ended_at_ms: now_in_ms(), status, wall, cpu: usage.cpu, peak_memory: usage.peak_memory };
    let saved = save(command, &end);
    if let Some((program, name)) = notifier {
        notify::send(program, name, &end);
    }
    saved
}

/// Writes the end to the record. If somebody has removed that, it does not come back.
fn save(command: &Identity, end: &End) -> nix::Result<()> {
    let state = StateDirectory::here()?;
    let Ok(Some(mut record)) = state.load(command) else { return Err(Errno::ENOENT) };
    record.end = Some(end.clone());
    state.save(command, &record)
}
