//! The way from detach to a running command: what is prepared, and the steps of the new process in their order, as
//! session leader or by the daemon sequence.
//!
//! The system calls are in `session`, the files in `streams`, `job` and `pidfile`, the search and the exec in `command`.
//! What is told about it is in `launch`.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt::Display;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{Ordering, compiler_fence};

use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, chdir};

use crate::command::Command;
use crate::error::{Error, reason};
use crate::job::{Destination, Record, StateDirectory, Step};
use crate::launch::{Sequence, Start};
use crate::pidfile::PidFile;
use crate::session::{self, Block, Disposition};
use crate::streams::{Input, Output, Streams};
use crate::ui::{describe_output, shorten_home};

/// A start on its way: what this process has prepared, and what the child, which works on the same memory until its
/// exec, leaves here.
pub struct Launch<'a> {
    start: &'a Start,
    command: Command,
    pub streams: Streams,
    pidfile: Option<PidFile>,
    keep_fds: Vec<RawFd>,
    state: Result<StateDirectory, Error>,
    umask: Mode,
    is_watched: bool,
    names_steps: bool,

    /// What has been done so far, if that is to be told.
    pub steps: Vec<Step>,
    /// Where stdout and stderr go.
    pub output: [Destination; 2],
    /// The record of the job, stored or not.
    pub record: Option<Record>,
    /// Why the record is not stored.
    pub record_fault: Option<Error>,
    log: Option<PathBuf>,
    is_executing: bool,
    failure: Option<Error>,
}

impl<'a> Launch<'a> {
    /// Looks at and opens whatever the start needs, as far as that can be done before there is a new process.
    pub fn prepare(start: &'a Start, is_watched: bool, names_steps: bool) -> Result<Self, Error> {
        let command = Command::find(&start.command, start.directory.is_some())?;
        let mut keep_fds = descriptors_to_keep(&start.keep_fds, &start.command)?;
        let streams = Streams::open(start.input.as_ref(), start.output.as_ref(), start.error.as_ref())?;
        let pidfile = start.pidfile.as_deref().map(PidFile::open).transpose()?;
        keep_fds.extend(pidfile.as_ref().map(AsRawFd::as_raw_fd));
        keep_fds.sort_unstable();
        // From here on what is made is detach's own, for the user alone. The child takes the umask back.
        let caller_umask = umask(Mode::from_bits_truncate(0o077));
        let state = match StateDirectory::open() {
            Err(error) if streams.need_log() => {
                pidfile.iter().for_each(PidFile::remove_if_free);
                return Err(error);
            }
            other => other,
        };
        Ok(Self {
            start,
            command,
            streams,
            pidfile,
            keep_fds,
            state,
            umask: start.umask.unwrap_or(caller_umask),
            is_watched,
            names_steps,
            steps: Vec::new(),
            output: [Destination::Kept, Destination::Kept],
            record: None,
            record_fault: None,
            log: None,
            is_executing: false,
            failure: None,
        })
    }

    /// Starts the command and returns when its exec has worked or failed. After a failure nothing is left of it: the
    /// child sees to that itself, even if this process is killed meanwhile.
    pub fn spawn(&mut self) -> Result<Pid, Error> {
        session::prepare_signals().map_err(|errno| Error::Step { step: "prepare signals", errno })?;
        if self.is_watched && self.start.sequence == Sequence::Daemon {
            // The intermediate process leaves the command to this one, which can wait for it then.
            session::adopt_orphans().map_err(|errno| Error::Step { step: "become a subreaper", errno })?;
        }
        let spawned = match self.start.sequence {
            Sequence::Leader => {
                self.step(None, "signals", "SIGHUP ignored, all others blocked");
                session::spawn(|| {
                    // This is the child.
                    let Err(error) = self.become_leader();
                    self.give_up(error);
                })
            }
            Sequence::Daemon => {
                let fork = self.step(Some(1), "fork", "");
                let spawned = session::spawn(|| {
                    // This is the intermediate process.
                    if let Err(error) = self.leave_session() {
                        self.give_up(error);
                    }
                });
                self.amend(fork, spawned.map(|pid| format!("child {pid}, the parent returns")));
                spawned
            }
        };
        // This is detach again; the command runs, or its process has ended.
        let record = self.record.as_ref().filter(|_| self.is_executing).map(|record| record.pid);
        match (spawned, self.failure.take(), record) {
            // Killed from here on it counts as started: the kernel does not tell.
            (Ok(child), None, Some(pid)) => {
                if child != pid {
                    // The intermediate process has ended.
                    let _ = session::reap(child, Block::UntilEnd);
                }
                if self.names_steps {
                    let result = shorten_home(self.command.file());
                    self.steps.push(Step { pid, number: None, name: "exec", result });
                }
                Ok(pid)
            }
            (Ok(child), failure, _) => {
                let failure = failure.unwrap_or_else(|| {
                    // The child had no time to do it.
                    self.discard();
                    Error::KilledEarly { command: self.name() }
                });
                // Nothing can go wrong with a child that is ours, and nothing could be done about it.
                let _ = session::reap(child, Block::UntilEnd);
                self.pidfile.iter().for_each(PidFile::remove_if_free);
                Err(failure)
            }
            (Err(errno), ..) => {
                self.pidfile.iter().for_each(PidFile::remove_if_free);
                Err(Error::NoProcess { command: self.name(), errno })
            }
        }
    }

    /// What the only child does, to lead a session of its own. Returns only when a step fails.
    fn become_leader(&mut self) -> Result<Infallible, Error> {
        self.make_session(None)?;
        self.become_command()
    }

    /// What the intermediate process does: leads a new session, and leaves it to a child that does not lead it, and so
    /// can never acquire a controlling terminal.
    fn leave_session(&mut self) -> Result<(), Error> {
        self.make_session(Some(2))?;
        let fork = self.step(Some(3), "fork", "");
        let spawned = session::spawn(|| {
            // This is the process of the command.
            let Err(error) = self.become_daemon();
            self.give_up(error);
        });
        // This is the intermediate process again.
        self.amend(fork, spawned.map(|pid| format!("child {pid}, SIGHUP ignored, the session leader exits")));
        let child = spawned.map_err(|errno| Error::NoProcess { command: self.name(), errno })?;
        if self.failure.is_some() || !self.is_executing {
            let _ = session::reap(child, Block::UntilEnd);
        }
        Ok(())
    }

    /// What the second child does. Returns only when a step fails.
    fn become_daemon(&mut self) -> Result<Infallible, Error> {
        let group =
            session::lead_new_group().map_err(|errno| Error::Step { step: "make a new process group", errno })?;
        self.step(None, "setpgid", format_args!("process group {group}"));
        self.become_command()
    }

    fn make_session(&mut self, number: Option<u8>) -> Result<(), Error> {
        let session = session::lead_new_session().map_err(|errno| Error::Step { step: "make a new session", errno })?;
        self.step(number, "setsid", format_args!("session {session}, no controlling terminal"));
        Ok(())
    }

    /// What the process of the command does, in this order. Returns only when a step fails.
    fn become_command(&mut self) -> Result<Infallible, Error> {
        // The child's alone: its parent has no such descriptor, and must not close one of its number.
        let log = self.open_log()?;
        self.write_pidfile()?;
        if let Some(directory) = &self.start.directory {
            chdir(directory.as_path()).map_err(|errno| Error::path("change directory to", directory, errno))?;
            self.step(self.numbered(4), "chdir", directory.display());
        }
        umask(self.umask);
        self.step(self.numbered(5), "umask", format_args!("{:03o}", self.umask.bits()));
        self.close_descriptors(log.as_ref())?;
        self.redirect_streams(log.as_ref())?;
        let sigchld = self.start.sigchld;
        session::reset_dispositions(sigchld).map_err(|errno| Error::Step { step: "reset signals", errno })?;
        let state = if sigchld == Disposition::Ignored { "ignored" } else { "default" };
        self.step(self.numbered(8), "sigchld", state);

        self.save_record()?;
        session::unblock_signals(sigchld).map_err(|errno| Error::Step { step: "unblock signals", errno })?;
        self.step(None, "signals", "SIGHUP ignored, none blocked");
        self.is_executing = true;
        // The other process reads what this one has written, although nothing here returns to it: to the compiler,
        // that would be a reason to write later or not at all.
        compiler_fence(Ordering::SeqCst);
        Err(self.command.execute())
    }

    /// Makes the log, if one is needed.
    fn open_log(&mut self) -> Result<Option<OwnedFd>, Error> {
        let (true, Ok(state)) = (self.streams.need_log(), &self.state) else { return Ok(None) };
        let (log, path) = state.create_log(&self.start.name, Pid::this())?;
        self.log = Some(path);
        Ok(Some(log))
    }

    /// Takes the pidfile, if there is one. The lock belongs to this process, and stays its own through the exec.
    fn write_pidfile(&mut self) -> Result<(), Error> {
        let Some(pidfile) = &self.pidfile else { return Ok(()) };
        pidfile.lock_and_write(Pid::this())?;
        let path = shorten_home(pidfile.path());
        self.step(None, "pidfile", path);
        Ok(())
    }

    /// Closes what the command has not asked for. What detach itself has open stays, to be closed by the exec.
    fn close_descriptors(&mut self, log: Option<&OwnedFd>) -> Result<(), Error> {
        let mut keep = self.keep_fds.clone();
        keep.extend(self.state.as_ref().map(AsRawFd::as_raw_fd));
        keep.extend(log.map(AsRawFd::as_raw_fd));
        keep.extend(self.streams.descriptors());
        keep.sort_unstable();
        let count = if self.names_steps { session::count_others(&keep) } else { None };
        session::close_descriptors(&keep).map_err(|errno| Error::Step { step: "close descriptors", errno })?;
        if self.names_steps {
            let count = count.map_or("unknown".to_owned(), |count| count.to_string());
            let kept = self.keep_fds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let kept = if kept.is_empty() { kept } else { format!(", kept {kept}") };
            self.step(self.numbered(6), "close", format_args!("descriptors from 3 on: {count}{kept}"));
        }
        Ok(())
    }

    fn redirect_streams(&mut self, log: Option<&OwnedFd>) -> Result<(), Error> {
        let redirected = self.streams.redirect(log.map(AsFd::as_fd));
        redirected.map_err(|errno| Error::Step { step: "redirect the standard streams", errno })?;
        if let Some(pidfile) = &self.pidfile {
            pidfile.keep_open().map_err(|errno| Error::path("keep pidfile", pidfile.path(), errno))?;
        }
        self.output = self.destinations();
        if self.names_steps {
            let input = match &self.streams.input {
                Input::Opened(opened) => format!("stdin from {}, ", shorten_home(&opened.path)),
                Input::Keep => String::new(),
            };
            self.step(self.numbered(7), "redirect", format_args!("{input}{}", describe_output(&self.output)));
        }
        Ok(())
    }

    /// Where stdout and stderr go.
    fn destinations(&self) -> [Destination; 2] {
        let destination = |output: &Output| match (output, &self.log) {
            (output, _) if output.is_discarded() => Destination::Discarded,
            (Output::Opened(opened), _) => Destination::File((&opened.path).into()),
            (Output::Log, Some(path)) => Destination::Log(path.into()),
            _ => Destination::Kept,
        };
        let stdout = destination(&self.streams.output);
        let stderr = match &self.streams.error {
            Output::WithStdout => stdout.clone(),
            other => destination(other),
        };
        [stdout, stderr]
    }

    /// Writes the record. That is worth a warning when it fails, no more: unless there is no room for it, and so
    /// none for the log beside it.
    fn save_record(&mut self) -> Result<(), Error> {
        let Start { name, command, .. } = self.start;
        let record = Record::of_this_process(name, command, self.output.clone());
        let no_record = |reason| Error::NoRecord { name: name.clone(), reason };
        let result = match (&self.state, &record.identity) {
            (Err(error), _) => Err(no_record(error.to_string())),
            (_, None) => Err(no_record("/proc does not tell when it started".into())),
            (Ok(state), Some(identity)) => match state.save(identity, &record.to_json()) {
                Err(errno @ (Errno::ENOSPC | Errno::EDQUOT)) if self.log.is_some() => {
                    return Err(no_record(reason(errno)));
                }
                other => other.map_err(|errno| no_record(reason(errno))),
            },
        };
        self.record = Some(record);
        match result {
            Ok(()) => {
                self.step(None, "record", "written");
            }
            Err(fault) => self.record_fault = Some(fault),
        }
        Ok(())
    }

    fn give_up(&mut self, error: Error) {
        self.discard();
        self.failure = Some(error);
    }

    /// Takes back the log and the record of a command that did not start.
    fn discard(&self) {
        if let Ok(state) = &self.state {
            if let Some(log) = &self.log {
                state.remove_log(log);
            }
            if let Some(identity) = self.record.as_ref().and_then(|record| record.identity.as_ref()) {
                state.remove_record(identity);
            }
        }
    }

    /// The command, as typed.
    fn name(&self) -> OsString {
        self.start.command.first().cloned().unwrap_or_default()
    }

    /// The number of a step, which has one in the daemon sequence only.
    fn numbered(&self, number: u8) -> Option<u8> {
        (self.start.sequence == Sequence::Daemon).then_some(number)
    }

    /// Notes a step of this process, if steps are to be told. Returns its place.
    fn step(&mut self, number: Option<u8>, name: &'static str, result: impl Display) -> usize {
        if self.names_steps {
            self.steps.push(Step { pid: Pid::this(), number, name, result: result.to_string() });
        }
        self.steps.len().saturating_sub(1)
    }

    /// Completes the report of a fork, which is known only after it.
    fn amend(&mut self, step: usize, result: nix::Result<String>) {
        if let (Some(step), Ok(result)) = (self.steps.get_mut(step), result) {
            step.result = result;
        }
    }
}

/// The descriptors that stay open, sorted: those asked for, which must be open, and those that an argument names,
/// as a shell's process substitution does.
fn descriptors_to_keep(asked: &[RawFd], command: &[OsString]) -> Result<Vec<RawFd>, Error> {
    if let Some(fd) = asked.iter().find(|fd| !session::is_open(**fd)) {
        return Err(Error::KeepDescriptor { fd: *fd });
    }
    let named = command.iter().flat_map(|word| descriptors_named_in(word.as_bytes()));
    let named = named.filter(|fd| *fd > 2 && session::is_open(*fd));
    let mut keep: Vec<RawFd> = asked.iter().copied().chain(named).collect();
    keep.sort_unstable();
    keep.dedup();
    Ok(keep)
}

/// The numbers N of every `/dev/fd/N` and `/proc/self/fd/N` in `word`.
fn descriptors_named_in(word: &[u8]) -> Vec<RawFd> {
    let mut found = Vec::new();
    for prefix in [&b"/dev/fd/"[..], b"/proc/self/fd/"] {
        for start in 0..word.len() {
            let Some(rest) = word.get(start..).and_then(|rest| rest.strip_prefix(prefix)) else { continue };
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let number = rest.get(..digits).and_then(|digits| str::from_utf8(digits).ok());
            found.extend(number.and_then(|number| number.parse::<RawFd>().ok()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_found_wherever_an_argument_names_them() {
        for (word, expected) in [
            (&b"/dev/fd/63"[..], &[63][..]),
            (b"--from=/dev/fd/62 /dev/fd/61", &[62, 61]),
            (b"/proc/self/fd/11", &[11]),
            (b"/dev/fd/", &[]),
            (b"/dev/fd/99999999999999999999", &[]),
            (b"\xff/dev/fd/7\xff", &[7]),
            (b"/dev/fd", &[]),
        ] {
            assert_eq!(descriptors_named_in(word), expected, "{}", word.escape_ascii());
        }
    }
}
