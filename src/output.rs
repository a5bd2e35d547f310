//! `--log`: what a job has written, and what it goes on to write.
//!
//! Where that is, its record tells. It is copied as it is; that a job has ended is told by a pidfd, and that there is
//! more to copy by inotify(7).

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::fstat;
use nix::unistd::write;

use crate::error::{Error, errno, quote, reason};
use crate::job::{Choice, ELSEWHERE, Job, Jobs, State};
use crate::pidfd::{Held, wait_for};
use crate::record::Destination;
use crate::streams::is_same;
use crate::ui::{Ui, shorten_home};

const VERB: &str = "show the output of";

/// Whether to go on until the job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    No,
    Yes,
}

/// Writes the output of the job `wanted` to stdout.
pub fn show(wanted: &OsStr, follow: Follow, ui: &Ui) -> Result<(), Error> {
    let job = Jobs::find_for(wanted, ui)?.choose(wanted, Choice::Newest)?;
    let failed = |errno| job.error(VERB, reason(errno));
    let path = file_with_output(&job, ui)?;
    let mut options = OpenOptions::new();
    // Not to wait for the other side of what has become a FIFO since.
    let opened = options.read(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open(path);
    let mut file = opened.map_err(|error| Error::path("read", path, errno(&error)))?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(job.error(VERB, format!("{} is not a regular file", quote(path.as_os_str()))));
    }
    if is_stdout(&file) {
        return Err(job.error(VERB, "stdout is that file as well"));
    }
    let held = match (follow, job.state) {
        (Follow::Yes, State::Running | State::Stopped) => Held::of(&job.identity).map_err(failed)?,
        (Follow::Yes, State::Elsewhere) => return Err(job.error("follow the output of", ELSEWHERE)),
        _ => None,
    };
    let result = match &held {
        Some(held) => follow_output(&mut file, held),
        None => copy_rest(&mut file),
    };
    match result {
        // The reader has gone away.
        Err(Errno::EPIPE) => Ok(()),
        other => other.map_err(failed),
    }
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
            Err(job.error(VERB, reason))
        }
    }
}

/// Copies what is there and what comes, until the job has ended or nobody reads any more.
fn follow_output(file: &mut File, job: &Held) -> nix::Result<()> {
    // Watched before it is read, so that no write falls between the two.
    let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    // The file that is open, whatever its name means by now.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    changes.add_watch(path.as_str(), AddWatchFlags::IN_MODIFY)?;
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
    wait_for(&mut awaited, PollTimeout::NONE)?;
    let [_, _, stdout] = awaited;
    let is_gone = stdout.revents().is_some_and(|events| events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP));
    if is_gone { Err(Errno::EPIPE) } else { Ok(()) }
}

/// Whether `file` is what stdout goes to: a copy would never come to its end.
fn is_stdout(file: &File) -> bool {
    fstat(io::stdout()).ok().zip(fstat(file).ok()).is_some_and(|(one, other)| is_same(&one, &other))
}

/// Copies everything from here to the end of the file to stdout.
fn copy_rest(file: &mut File) -> nix::Result<()> {
    let position = file.stream_position().unwrap_or(0);
    if file.metadata().is_ok_and(|metadata| metadata.len() < position) {
        // It has been truncated: what it holds now is all new.
        file.seek(SeekFrom::Start(0)).map_err(|error| errno(&error))?;
    }
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = file.read(&mut buffer).map_err(|error| errno(&error))?;
        match buffer.get(..count) {
            Some(bytes) if count > 0 => write_all(bytes)?,
            _ => return Ok(()),
        }
    }
}

/// Writes all of `bytes` to stdout, however slowly somebody takes them.
fn write_all(mut bytes: &[u8]) -> nix::Result<()> {
    let stdout = io::stdout();
    while !bytes.is_empty() {
        match write(&stdout, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            // Whoever has given this descriptor to detach wants no write to wait.
            Err(Errno::EAGAIN) => {
                wait_for(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(Errno::EINTR) => (),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
