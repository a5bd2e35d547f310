//! Watching a command after its start, until it ends, a limit passes, or a signal asks detach to return. The command
//! keeps running in any case.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::iter;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::jobs::record::{End, JobId};
use crate::sys::proc::{self, Stat};
use crate::sys::process::{Held, Usage, Wait, reap_all_until, reap_any, time_left, wait_for};
use crate::sys::signals::{Disposition, disposition};
use crate::term::text::escape;

/// The signals with which a person or a closing terminal ends a program that waits.
const INTERRUPTS: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];
/// How much of a job's output is shown when it fails at once.
const LAST_LINES: usize = 10;
const LAST_BYTES: u64 = 8 * 1024;
/// Between two checks whether the end has been recorded.
const INTERVAL: Duration = Duration::from_millis(2);

/// How watching has ended.
pub enum Watched {
    /// The limit has passed.
    Running,
    /// The command, a child of this process, has ended.
    Ended(ExitStatus, Usage),
    /// The command has ended, and this is what its tracking process has recorded.
    EndRecorded(Option<End>),
    /// This signal has come for detach.
    Interrupted(Signal),
}

/// The signals that would end a wait but are ignored by the caller: detach ignores them as well. Must be called before
/// the dispositions are changed.
pub fn ignored_signals() -> Vec<Signal> {
    INTERRUPTS.into_iter().filter(|signal| disposition(*signal) == Disposition::Ignored).collect()
}

/// What ends a watch before the command does.
pub struct Watcher {
    until: Option<Instant>,
    /// The signals that end it, and SIGCHLD, as events.
    signals: SignalFd,
}

impl Watcher {
    /// Watches until a time, or until a signal comes that is not among `ignored`. Those that count have been blocked
    /// since before the start, so none is lost. All other signals, such as that of Ctrl-Z, take effect again.
    pub fn new(until: Option<Instant>, ignored: &[Signal]) -> nix::Result<Self> {
        let mut awaited = SigSet::empty();
        awaited.add(Signal::SIGCHLD);
        awaited.extend(INTERRUPTS.into_iter().filter(|signal| !ignored.contains(signal)));
        let signals = SignalFd::with_flags(&awaited, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        awaited.thread_set_mask()?;
        Ok(Self { until, signals })
    }

    /// Watches the command `pid`, a child of this process.
    pub fn watch_child(&self, pid: Pid) -> nix::Result<Watched> {
        self.watch(None, None, || {
            while let Some((ended, status, usage)) = reap_any(Wait::Return)? {
                // Any other is an orphan of the command from the time in which detach was a subreaper, or a child that
                // was there before the exec of detach.
                if ended == pid {
                    return Ok(Some(Watched::Ended(status, usage)));
                }
            }
            Ok(None)
        })
    }

    /// Watches the command `id`, which is the child of its tracking process, a child of this one. `recorded_end` is
    /// what that process has recorded so far.
    pub fn watch_tracked(
        &self,
        id: JobId,
        tracker: Pid,
        recorded_end: impl Fn() -> Option<End>,
    ) -> nix::Result<Watched> {
        // Where /proc hides the command, it is assumed to still have its PID.
        let is_it = |stat: Option<Stat>| stat.is_none_or(|stat| stat.start_time == id.start_time);
        let command = Held::open(id.pid)?.filter(|held| proc::stat(held.pid).is_ok_and(is_it));
        if let Some(command) = &command {
            let look = || Ok(command.has_ended().then_some(Watched::EndRecorded(None)));
            match self.watch(Some(command.as_fd()), None, look)? {
                Watched::EndRecorded(_) => (),
                other => return Ok(other),
            }
        }
        self.watch(None, Some(INTERVAL), || {
            // Asked before the record is read: what a process has recorded before its end is read after it.
            let has_tracker = reap_all_until(tracker)?;
            let end = recorded_end();
            Ok((end.is_some() || !has_tracker).then_some(Watched::EndRecorded(end)))
        })
    }

    /// Watches until `look` sees that the command has ended. Looks again after each SIGCHLD, when `end` is readable,
    /// and after each `interval`.
    fn watch(
        &self,
        end: Option<BorrowedFd>,
        interval: Option<Duration>,
        look: impl Fn() -> nix::Result<Option<Watched>>,
    ) -> nix::Result<Watched> {
        let awaited = iter::once(self.signals.as_fd()).chain(end);
        let mut awaited: Vec<PollFd> = awaited.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        loop {
            // The signals first: a SIGCHLD that is taken here reports an end that is seen below.
            let interrupt = self.take_signals()?;
            if let Some(ended) = look()? {
                return Ok(ended);
            }
            if let Some(signal) = interrupt {
                return Ok(Watched::Interrupted(signal));
            }
            if time_left(self.until) == PollTimeout::ZERO {
                return Ok(Watched::Running);
            }
            let next_look = interval.map(|interval| Instant::now() + interval);
            wait_for(&mut awaited, time_left(self.until.into_iter().chain(next_look).min()))?;
        }
    }

    /// Takes all signals that have come. Returns the first of those that end the watch.
    fn take_signals(&self) -> nix::Result<Option<Signal>> {
        let mut interrupt = None;
        while let Some(info) = self.signals.read_signal()? {
            let signal = Signal::try_from(info.ssi_signo.cast_signed())?;
            if signal != Signal::SIGCHLD {
                interrupt = interrupt.or(Some(signal));
            }
        }
        Ok(interrupt)
    }
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

/// A line, in which nothing but a tab can move the cursor.
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
        assert_eq!(select_last_lines(b"\x1b[2Jdos\r\n\xff\n"), ["\\x1b[2Jdos", "\\xff"]);
        assert_eq!(select_last_lines(b"\tat C:\\x\n"), ["\tat C:\\x"]);
        assert_eq!(select_last_lines(b""), [""; 0]);
        assert_eq!(select_last_lines(b"\n"), [""; 0]);
    }
}
