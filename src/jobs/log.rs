//! `--log`: copies the output of a job to stdout, and with `--follow` also what is appended to it.
//!
//! Pidfds report that the job has ended, inotify(7) reports that there is more to copy.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::fstat;
use nix::unistd::write;

use crate::error::{Error, reason};
use crate::jobs::record::{Destination, FileId};
use crate::jobs::session::{Member, Search, State};
use crate::jobs::{Choice, Job, Jobs};
use crate::sys::errno;
use crate::sys::process::wait_for;
use crate::term::text::{quote, shorten_home};
use crate::term::ui::Ui;

const VERB: &str = "show the output of";
/// How many lines `--follow` begins with on a terminal.
const LINES_ON_TERMINAL: u64 = 10;
/// In bytes: how much is read at once.
const CHUNK: usize = 64 * 1024;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The newest job if none is named.
    pub job: Option<OsString>,
    pub follow: bool,
    /// Only the last lines.
    pub lines: Option<u64>,
}

/// Writes the output of a job to stdout.
pub fn show(options: &Options, ui: &Ui) -> Result<u8, Error> {
    let wanted = options.job.as_deref();
    let jobs = Jobs::find_for(wanted, ui)?;
    let job = jobs.choose(wanted, Choice::Newest(VERB))?;
    let failed = |errno| job.error(VERB, &reason(errno));
    let (path, note) = file_with_output(&job)?;
    let mut open = OpenOptions::new();
    // So that it does not wait if the file has been replaced by a FIFO.
    let opened = open.read(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open(path);
    let mut file = opened.map_err(|error| Error::io("read", path, &error))?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(job.error(VERB, &format!("{} is not a regular file", quote(path.as_os_str()))));
    }
    if is_stdout(&file) {
        return Err(job.error(VERB, "stdout is the same file"));
    }
    if options.follow {
        job.check_visible("follow the output of")?;
    }
    if let Some(wanted) = wanted.filter(|_| job.state == State::Ended) {
        warn_of_running(&jobs, wanted, &job, ui);
    }
    if let Some(note) = note {
        ui.note(note);
    }
    let default = (options.follow && io::stdout().is_terminal()).then_some(LINES_ON_TERMINAL);
    if let Some(lines) = options.lines.or(default) {
        skip_to_last_lines(&mut file, lines).map_err(|error| failed(errno(&error)))?;
    }
    let runs = !matches!(job.state, State::Ended | State::Hidden | State::Elsewhere);
    if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
        ui.note(if runs { "nothing written yet; the program may buffer its output" } else { "nothing was written" });
    }
    let result = if options.follow && runs { follow_output(&mut file, &job) } else { copy_rest(&mut file) };
    match result {
        // The reader has closed the pipe.
        Err(Errno::EPIPE) => Ok(0),
        other => other.map(|()| 0).map_err(failed),
    }
}

/// Warns that another job of this name, which `--stop` would choose, is still running.
fn warn_of_running(jobs: &Jobs, name: &OsStr, shown: &Job, ui: &Ui) {
    let mut running = jobs.named(name).filter(|known| known.state != State::Ended).filter_map(|known| jobs.load(known));
    if let Some(running) = running.next_back() {
        ui.warn(format!("showing {}, which has ended; {} is still running", shown.describe(), running.describe()));
    }
}

/// The file that stdout goes to, or else stderr; and what to say where the two differ.
fn file_with_output(job: &Job) -> Result<(&Path, Option<String>), Error> {
    let [stdout, stderr] = job.record.output();
    match (stdout.as_path(), stderr.as_path()) {
        (Some(stdout), Some(stderr)) if stdout != stderr => {
            Ok((stdout, Some(format!("this is stdout; stderr goes to {}", shorten_home(stderr)))))
        }
        (Some(path), Some(_)) => Ok((path, None)),
        (Some(path), None) => Ok((path, Some(format!("this is stdout; stderr is {}", describe(stderr))))),
        (None, Some(path)) => Ok((path, Some(format!("this is stderr; stdout is {}", describe(stdout))))),
        (None, None) => Err(job.error(VERB, &format!("stdout is {}", describe(stdout)))),
    }
}

fn describe(destination: &Destination) -> &'static str {
    match destination {
        Destination::Discarded => "discarded",
        _ => "inherited from the caller",
    }
}

/// Copies what the file contains and what is appended, until the job has ended or stdout has no reader.
fn follow_output(file: &mut File, job: &Job) -> nix::Result<()> {
    // Watched before it is read, so that no write falls between the two.
    let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    // The file that is open, whatever its name means by now.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    changes.add_watch(path.as_str(), AddWatchFlags::IN_MODIFY)?;
    let jobs = [job];
    let mut search = Search::new(&jobs);
    let mut members = search.look()?;
    loop {
        if members.iter().any(|member| member.process.has_ended()) || members.is_empty() {
            members = search.look()?;
        }
        // Asked before the copy: what was written before the end is copied after it.
        let is_last = members.is_empty() && search.is_conclusive();
        copy_rest(file)?;
        if is_last {
            return Ok(());
        }
        if !members.is_empty() {
            wait_for_more(&changes, &members)?;
            while changes.read_events().is_ok() {}
        }
    }
}

/// Waits until the file has changed, a process of the job has ended, or the reader of stdout has closed it.
fn wait_for_more(changes: &Inotify, members: &[Member]) -> nix::Result<()> {
    let stdout = io::stdout();
    // No event is asked for: poll(2) reports errors in any case.
    let mut awaited = vec![PollFd::new(stdout.as_fd(), PollFlags::empty())];
    awaited.push(PollFd::new(changes.as_fd(), PollFlags::POLLIN));
    awaited.extend(members.iter().map(|member| PollFd::new(member.process.as_fd(), PollFlags::POLLIN)));
    wait_for(&mut awaited, PollTimeout::NONE)?;
    let events = awaited.first().and_then(PollFd::revents);
    let is_closed = events.is_some_and(|events| events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP));
    if is_closed { Err(Errno::EPIPE) } else { Ok(()) }
}

/// Whether stdout goes to `file`: a copy would never come to its end.
fn is_stdout(file: &File) -> bool {
    fstat(io::stdout()).is_ok_and(|stdout| fstat(file).is_ok_and(|file| FileId::of(&stdout) == FileId::of(&file)))
}

/// Moves to the beginning of the last lines.
fn skip_to_last_lines(file: &mut File, lines: u64) -> io::Result<()> {
    let size = file.metadata()?.len();
    if lines == 0 {
        return file.seek(SeekFrom::Start(size)).map(drop);
    }
    let mut buffer = vec![0; CHUNK];
    let mut lines_seen = 0;
    let mut end = size;
    while end > 0 {
        let length = buffer.len().min(usize::try_from(end).unwrap_or(usize::MAX));
        let begin = end - length as u64;
        let chunk = buffer.get_mut(..length).unwrap_or_default();
        file.read_exact_at(chunk, begin)?;
        for (place, _) in chunk.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let begin_of_line = begin + place as u64 + 1;
            // The newline at the end of the last line begins no other.
            lines_seen += u64::from(begin_of_line < size);
            if lines_seen == lines {
                return file.seek(SeekFrom::Start(begin_of_line)).map(drop);
            }
        }
        end = begin;
    }
    Ok(())
}

/// Copies everything from here to the end of the file to stdout.
fn copy_rest(file: &mut File) -> nix::Result<()> {
    let position = file.stream_position().unwrap_or(0);
    if file.metadata().is_ok_and(|metadata| metadata.len() < position) {
        // It has been truncated: everything that it contains now is new.
        file.seek(SeekFrom::Start(0)).map_err(|error| errno(&error))?;
    }
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = file.read(&mut buffer).map_err(|error| errno(&error))?;
        match buffer.get(..count) {
            Some(bytes) if count > 0 => write_all(bytes)?,
            _ => return Ok(()),
        }
    }
}

/// Writes all of `bytes` to stdout, however slowly it is read.
fn write_all(mut bytes: &[u8]) -> nix::Result<()> {
    let stdout = io::stdout();
    while !bytes.is_empty() {
        match write(&stdout, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            // The caller has made this descriptor non-blocking.
            Err(Errno::EAGAIN) => {
                wait_for(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(Errno::EINTR) => (),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
