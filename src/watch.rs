//! The time after the start in which detach stays: until the command ends, a limit passes, or somebody at the
//! terminal wants the prompt back. The command goes on in any case.
//!
//! What is said about it is put together in `launch`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::error::escape;
use crate::pidfd::{time_left, wait_for};
use crate::session::{self, Disposition};

/// The signals by which a person or a closing terminal ends a program that waits.
const INTERRUPTS: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];
/// As much of a job's output as is shown when it falls over.
const LAST_LINES: usize = 10;
const LAST_BYTES: u64 = 8 * 1024;

/// How watching has ended.
pub enum Watched {
    /// The limit has passed.
    Running,
    /// The command has ended.
    Ended(ExitStatus),
    /// This signal has come for detach.
    Interrupted(Signal),
}

/// Those of the signals that end a wait which the caller has ignored: detach ignores them as well. To be called
/// before the dispositions are changed.
pub fn ignored_signals() -> Vec<Signal> {
    INTERRUPTS.into_iter().filter(|signal| session::disposition(*signal) == Disposition::Ignored).collect()
}

/// Stays until the child `pid` ends, `until` passes, or a signal comes that is not among `ignored`.
pub fn watch(pid: Pid, until: Option<Instant>, ignored: &[Signal]) -> nix::Result<Watched> {
    if until.is_some_and(|until| until <= Instant::now()) {
        return Ok(Watched::Running);
    }
    let mut awaited = SigSet::empty();
    awaited.add(Signal::SIGCHLD);
    awaited.extend(INTERRUPTS.into_iter().filter(|signal| !ignored.contains(signal)));
    let signals = SignalFd::with_flags(&awaited, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    // Blocked since before the fork, so none is lost; the others, Ctrl-Z among them, act again.
    awaited.thread_set_mask()?;
    loop {
        // The signals first: a SIGCHLD that is taken here tells of an end that is seen below.
        let interrupt = read_signals(&signals)?;
        while let Some((ended, status)) = session::reap_any()? {
            // Any other is an orphan of the command, from the moment in which detach was a subreaper.
            if ended == pid {
                return Ok(Watched::Ended(status));
            }
        }
        if let Some(signal) = interrupt {
            return Ok(Watched::Interrupted(signal));
        }
        let left = time_left(until);
        if left == PollTimeout::ZERO {
            return Ok(Watched::Running);
        }
        wait_for(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], left)?;
    }
}

/// Takes all signals that have come. Returns the first of those that end the wait.
fn read_signals(signals: &SignalFd) -> nix::Result<Option<Signal>> {
    let mut interrupt = None;
    while let Some(info) = signals.read_signal()? {
        let signal = Signal::try_from(info.ssi_signo.cast_signed())?;
        if signal != Signal::SIGCHLD {
            interrupt = interrupt.or(Some(signal));
        }
    }
    Ok(interrupt)
}

/// Whether the regular file `path` holds more than `from` bytes.
pub fn has_grown(path: &Path, from: u64) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > from)
}

/// The last lines of `path` after byte `from`, safe to show. Empty where the file cannot be read.
pub fn last_lines(path: &Path, from: u64) -> Vec<String> {
    let read = || {
        let mut file = File::open(path)?;
        let end = file.seek(SeekFrom::End(0))?;
        let begin = from.max(end.saturating_sub(LAST_BYTES));
        file.seek(SeekFrom::Start(begin))?;
        let mut bytes = Vec::new();
        file.take(LAST_BYTES).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    select_last_lines(&read().unwrap_or_default())
}

fn select_last_lines(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let first = lines.len().saturating_sub(LAST_LINES);
    lines.iter().skip(first).map(|line| show_line(line)).collect()
}

/// A line as it would be seen, without anything that could do more than a tab does.
fn show_line(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let parts: Vec<String> = line.split(|byte| *byte == b'\t').map(|part| escape(part, "")).collect();
    parts.join("\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_are_at_most_ten_and_safe() {
        let many: Vec<String> = (1..=12).map(|n| format!("line {n}\n")).collect();
        let lines = select_last_lines(many.concat().as_bytes());
        assert_eq!((lines.len(), lines.first().map(String::as_str)), (10, Some("line 3")));
        assert_eq!(select_last_lines(b"no newline at the end"), ["no newline at the end"]);
        assert_eq!(select_last_lines(b"\x1b[2Jdos\r\n\xff\n"), ["\\e[2Jdos", "\\xff"]);
        assert_eq!(select_last_lines(b"\tat C:\\x\n"), ["\tat C:\\x"]);
        assert_eq!(select_last_lines(b""), [""; 0]);
        assert_eq!(select_last_lines(b"\n"), [""; 0]);
    }
}
