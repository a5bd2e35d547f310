//! `--log`: what a job has written, and what it goes on to write.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::error::{Error, errno, reason};
use crate::job::{Choice, Job, Jobs, State, no_job};
use crate::pidfd::Held;
use crate::record::Destination;
use crate::ui::{Ui, shorten_home};

/// Whether to go on until the job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    No,
    Yes,
}

/// Writes the output of the job `wanted` to stdout.
pub fn show(wanted: &OsStr, follow: Follow, ui: &Ui) -> Result<(), Error> {
    let job = Jobs::find(ui)?.ok_or_else(|| no_job(wanted))?.choose(wanted, Choice::Newest)?;
    let path = file_with_output(&job, ui)?;
    let mut options = OpenOptions::new();
    // Not to wait for the other side of what has become a FIFO since.
    let opened = options.read(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open(path);
    let mut file = opened.map_err(|error| Error::path("read", path, errno(&error)))?;
    let held = match (follow, job.state) {
        (Follow::Yes, State::Running | State::Stopped) => Held::of(&job.identity).map_err(|e| refuse(&job, e))?,
        _ => None,
    };
    let result = match &held {
        Some(held) => follow_output(&mut file, path, held),
        None => copy_rest(&mut file).map(drop),
    };
    match result {
        // The reader has gone away.
        Err(Errno::EPIPE) => Ok(()),
        other => other.map_err(|errno| refuse(&job, errno)),
    }
}

fn refuse(job: &Job, errno: Errno) -> Error {
    cannot_show(job, reason(errno))
}

fn cannot_show(job: &Job, reason: String) -> Error {
    let (name, pid) = (job.name().to_owned(), job.pid());
    Error::Job { verb: "show the output of", name, pid, reason, hint: None }
}

/// The file that stdout goes to, or else stderr.
fn file_with_output<'j>(job: &'j Job, ui: &Ui) -> Result<&'j Path, Error> {
    let [stdout, stderr] = job.record.output();
    match (stdout.as_path(), stderr.as_path()) {
        (Some(stdout), Some(stderr)) if stdout != stderr => {
            ui.note(format!("its stderr is in {}", shorten_home(stderr)));
            Ok(stdout)
        }
        (Some(path), _) | (None, Some(path)) => Ok(path),
        (None, None) => {
            let reason = match (stdout, stderr) {
                (Destination::Discarded, Destination::Discarded) => "it is discarded",
                _ => "it was left to go where that of its caller went",
            };
            Err(cannot_show(job, reason.into()))
        }
    }
}

/// Copies what is there and what comes, until the job has ended or nobody reads any more.
fn follow_output(file: &mut File, path: &Path, job: &Held) -> nix::Result<()> {
    // Watched before it is read, so that no write falls between the two.
    let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    changes.add_watch(path, AddWatchFlags::IN_MODIFY)?;
    loop {
        // Asked before the copy: what was written before the end is copied after it.
        let is_last = job.has_ended();
        copy_rest(file)?;
        if is_last {
            return Ok(());
        }
        wait_for_more(&changes, job)?;
        while changes.read_events().is_ok() {}
    }
}

/// Waits until the file has changed, the job has ended, or the reader of stdout has gone away.
fn wait_for_more(changes: &Inotify, job: &Held) -> nix::Result<()> {
    let stdout = io::stdout();
    let mut awaited = [
        PollFd::new(changes.as_fd(), PollFlags::POLLIN),
        PollFd::new(job.as_fd(), PollFlags::POLLIN),
        // Asks for nothing: an error is reported in any case.
        PollFd::new(stdout.as_fd(), PollFlags::empty()),
    ];
    match poll(&mut awaited, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => (),
        Err(errno) => return Err(errno),
    }
    let [_, _, stdout] = awaited;
    let is_gone = stdout.revents().is_some_and(|events| events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP));
    if is_gone { Err(Errno::EPIPE) } else { Ok(()) }
}

/// Copies everything from here to the end of the file to stdout.
fn copy_rest(file: &mut File) -> nix::Result<()> {
    let position = file.stream_position().unwrap_or(0);
    if file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() < position) {
        // It has been truncated: what it holds now is all new.
        file.seek(SeekFrom::Start(0)).map_err(|error| errno(&error))?;
    }
    // The descriptor itself: the standard library would look for the ends of lines.
    let stdout: OwnedFd = io::stdout().as_fd().try_clone_to_owned().map_err(|error| errno(&error))?;
    io::copy(file, &mut File::from(stdout)).map(drop).map_err(|error| errno(&error))
}
