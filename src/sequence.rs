//! The way from detach to a running command: what is prepared, and the steps of the new process in their order.
//!
//! As session leader: `spawn` forks, `become_leader` makes the session, `become_command` does the rest. By the daemon
//! sequence: `spawn` forks (1), `leave_session` makes the session (2) and forks again (3), `become_daemon` makes the
//! process group, and `become_command` does the rest: chdir (4), umask (5), close (6), redirect (7), SIGCHLD (8), exec.
//! Where the command is tracked, all of that is done by a child of detach that stays as its parent (`spawn_tracker`).
//! The system calls are in `session`, what is told about it is in `launch`.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{Ordering, compiler_fence};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, chdir};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::command::Command;
use crate::error::{Error, reason, show};
use crate::launch::{Sequence, Start, Tracking};
use crate::notify;
use crate::pidfile::PidFile;
use crate::proc::{Identity, time_since_boot};
use crate::record::{Destination, Record};
use crate::session::{self, Disposition};
use crate::state::StateDirectory;
use crate::streams::{Input, Output, Streams, descriptors_to_keep, open_null};
use crate::tracker;
use crate::ui::{describe_output, shorten_home};

/// A start on its way: what this process has prepared, and what the child, which works on the same memory until its
/// exec, leaves here.
pub struct Launch<'a> {
    start: &'a Start,
    command: Command,
    pub streams: Streams,
    pidfile: Option<PathBuf>,
    keep_fds: Vec<RawFd>,
    state: Result<StateDirectory, Error>,
    umask: Mode,
    names_steps: bool,
    /// detach itself.
    launcher: Pid,
    /// What a tracking process needs: its standard streams, and the program that shows notifications.
    null: Option<File>,
    notifier: Option<PathBuf>,

    /// What has been done so far, if that is to be told.
    pub steps: Vec<Step>,
    /// Where stdout and stderr go.
    pub output: [Destination; 2],
    /// The record of the job, stored or not.
    pub record: Option<Record>,
    /// Why the record is not stored.
    pub record_fault: Option<Error>,
    log: Option<PathBuf>,
    /// When the calling process was made.
    made: RangeInclusive<Duration>,
    /// The processes that have borrowed the memory.
    borrowers: Vec<Pid>,
    tracker: Option<Identity>,
    /// Why the command, which runs, is not tracked.
    pub tracking_fault: Option<Error>,
    is_executing: bool,
    failure: Option<Error>,
}

/// One step of a start, as reported by the process that took it.
#[derive(Clone, Debug)]
pub struct Step {
    pub pid: Pid,
    /// Its number in the daemon sequence.
    pub number: Option<u8>,
    /// The system call, or what stands for several.
    pub name: &'static str,
    pub result: String,
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Step", 4)?;
        fields.serialize_field("pid", &self.pid.as_raw())?;
        fields.serialize_field("number", &self.number)?;
        fields.serialize_field("name", self.name)?;
        fields.serialize_field("result", &self.result)?;
        fields.end()
    }
}

impl<'a> Launch<'a> {
    /// Looks at and opens whatever the start needs, as far as that can be done before there is a new process.
    pub fn prepare(start: &'a Start, names_steps: bool) -> Result<Self, Error> {
        let command = Command::find(&start.command, start.directory.is_some())?;
        let keep_fds = descriptors_to_keep(&start.keep_fds, &start.command)?;
        let streams = Streams::open(start.input.as_ref(), start.output.as_ref(), start.error.as_ref())?;
        // Absolute, because it is opened when the process is in another directory already.
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let pidfile = start.pidfile.as_ref().map(absolute);
        let is_tracked = start.tracking != Tracking::No;
        let null = if is_tracked { Some(open_null()?) } else { None };
        let notifier = if start.tracking == Tracking::Notify { Some(notify::find_program()?) } else { None };
        // From here on what is made is detach's own, for the user alone. The child takes the umask back.
        let caller_umask = umask(Mode::from_bits_truncate(0o077));
        let state = match StateDirectory::open() {
            Err(error) if streams.need_log() || is_tracked => return Err(error),
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
            names_steps,
            launcher: Pid::this(),
            null,
            notifier,
            steps: Vec::new(),
            output: [Destination::Kept, Destination::Kept],
            record: None,
            record_fault: None,
            log: None,
            made: Duration::ZERO..=Duration::MAX,
            borrowers: Vec::new(),
            tracker: None,
            tracking_fault: None,
            is_executing: false,
            failure: None,
        })
    }

    /// Starts the command and returns when its exec has worked or failed. After a failure nothing is left of it: the
    /// child sees to that itself, even if this process is killed meanwhile.
    pub fn spawn(&mut self) -> Result<Pid, Error> {
        session::prepare_signals().map_err(|errno| Error::Step { step: "prepare signals", errno })?;
        self.step(None, "signals", "SIGHUP ignored, all others blocked");
        if self.start.tracking == Tracking::No { self.spawn_command() } else { self.spawn_tracker() }
    }

    /// The child of detach that tells of the command `pid` by its own end: the command, or what tracks it.
    pub fn child(&self, pid: Pid) -> Pid {
        let tracker = self.tracker.as_ref().filter(|_| self.tracking_fault.is_none());
        tracker.map_or(pid, |tracker| tracker.pid)
    }

    /// How the command has ended and how long it ran, after that child has ended so; `None` where nobody knows.
    pub fn end_of_command(&self, status: ExitStatus, lifetime: Duration) -> Option<(ExitStatus, Duration)> {
        if self.tracker.is_none() || self.tracking_fault.is_some() {
            return Some((status, lifetime));
        }
        let identity = self.record.as_ref()?.identity.as_ref()?;
        let end = self.state.as_ref().ok()?.load(identity).ok()??.end?;
        Some((end.status, end.wall))
    }

    fn spawn_command(&mut self) -> Result<Pid, Error> {
        match self.start.sequence {
            Sequence::Leader => self.spawn_leader(),
            Sequence::Daemon => self.spawn_daemon(),
        }
    }

    /// Starts the process that tracks the command, and starts the command in its turn.
    fn spawn_tracker(&mut self) -> Result<Pid, Error> {
        // If the tracking process is killed on the way, its children come to this one, which can wait for them then.
        session::set_subreaper(true).map_err(|errno| Error::Step { step: "become a subreaper", errno })?;
        let spawned = self.spawn_child(Self::become_tracker);
        // This is detach again; the tracking process has become a program of its own, or has ended.
        let tracker = spawned.map_err(|errno| Error::NoProcess { command: self.name(), errno })?;
        let has_failed = !self.is_executing || self.failure.is_some();
        if has_failed || self.tracking_fault.is_some() {
            let _ = session::reap(tracker);
        }
        if !self.is_executing {
            self.reap_borrowers();
        }
        let _ = session::set_subreaper(false);
        match &self.record {
            Some(record) if !has_failed => Ok(record.pid),
            _ => Err(self.explain_failure()),
        }
    }

    fn spawn_leader(&mut self) -> Result<Pid, Error> {
        let spawned = self.spawn_child(Self::become_leader);
        // This is the parent again; the child is the command, or has ended.
        let child = spawned.map_err(|errno| Error::NoProcess { command: self.name(), errno })?;
        self.conclude(child)
    }

    fn spawn_daemon(&mut self) -> Result<Pid, Error> {
        // The intermediate process leaves its child to this one, which can wait for it then.
        session::set_subreaper(true).map_err(|errno| Error::Step { step: "become a subreaper", errno })?;
        let fork = self.step(Some(1), "fork", "");
        let spawned = self.spawn_child(Self::leave_session);
        // This is the parent again; the intermediate process has ended. If it was killed, its child is being killed as
        // well (`die_with`), and waited for here. Nothing can go wrong with children that are ours.
        let _ = spawned.map(session::reap);
        if !self.is_executing {
            self.reap_borrowers();
        }
        self.complete(fork, spawned.map(|pid| format!("child {pid}, the parent returns")));
        if let Err(errno) = spawned {
            return Err(Error::NoProcess { command: self.name(), errno });
        }
        // The command is the child of this process by now; from here on its orphans go to init.
        let _ = session::set_subreaper(false);
        match self.record.as_ref() {
            Some(record) if self.is_executing => self.conclude(record.pid),
            _ => Err(self.explain_failure()),
        }
    }

    /// Runs `steps` in a child that borrows the memory. It ends with this process, which would go on to use the memory
    /// beside it: but detach itself waits for its child, and if it is killed, nobody else uses the memory.
    fn spawn_child<T>(&mut self, steps: impl Fn(&mut Self) -> Result<T, Error>) -> nix::Result<Pid> {
        let (parent, before) = (Pid::this(), time_since_boot());
        session::spawn(|| {
            // This is the child.
            self.made = before..=time_since_boot();
            self.borrowers.push(Pid::this());
            let tie = if parent == self.launcher { Ok(()) } else { session::die_with(parent) };
            let tied = tie.map_err(|errno| Error::Step { step: "follow the parent process", errno });
            if let Err(error) = tied.and_then(|()| steps(self)) {
                self.give_up(error);
            }
        })
    }

    /// Waits until nobody borrows the memory any more.
    fn reap_borrowers(&self) {
        for pid in &self.borrowers {
            // Those that are not children of this process have been waited for.
            let _ = session::reap(*pid);
        }
    }

    /// What has become of `child`, which is the command or a process that has failed to become it. One that is killed
    /// after its last step counts as the command: to tell that from a kill after its exec, every start would have to
    /// read /proc.
    fn conclude(&mut self, child: Pid) -> Result<Pid, Error> {
        if self.is_executing && self.failure.is_none() {
            if self.names_steps {
                let result = show(self.command.file());
                self.steps.push(Step { pid: child, number: None, name: "exec", result });
            }
            return Ok(child);
        }
        let _ = session::reap(child);
        Err(self.explain_failure())
    }

    /// Why there is no command, of which nothing is left: without a reason it was killed, and had no time to tidy up.
    fn explain_failure(&mut self) -> Error {
        self.failure.take().unwrap_or_else(|| {
            self.discard();
            Error::KilledEarly { command: self.name() }
        })
    }

    /// What the tracking process does. Returns only when that fails.
    fn become_tracker(&mut self) -> Result<(), Error> {
        let session = session::lead_new_session().map_err(|errno| Error::Step { step: "make a new session", errno })?;
        self.step(None, "track", format_args!("session {session}, stays as the parent of the command"));
        self.tracker = Identity::of_this_process(&self.made);
        let begin = time_since_boot();
        self.spawn_command()?;
        // The command runs from here on, whatever happens to this process.
        let identity = self.record.as_ref().and_then(|record| record.identity.as_ref());
        if let (Ok(state), Some(identity), Some(null)) = (&self.state, identity, &self.null) {
            let notifier = self.notifier.as_ref().map(|program| [program.as_os_str(), &self.start.name]);
            let Err(errno) = tracker::execute(state, identity, begin, null, notifier);
            self.tracking_fault = Some(Error::NotTracked { command: self.name(), errno });
        }
        Ok(())
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
        session::ignore(Signal::SIGHUP).map_err(|errno| Error::Step { step: "ignore SIGHUP", errno })?;
        let fork = self.step(Some(3), "fork", "");
        let spawned = self.spawn_child(Self::become_daemon);
        // This is the intermediate process again.
        self.complete(fork, spawned.map(|pid| format!("SIGHUP ignored, child {pid}, the session leader exits")));
        spawned.map(drop).map_err(|errno| Error::Step { step: "fork a second time", errno })
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
        if let Some(directory) = &self.start.directory {
            chdir(directory.as_path()).map_err(|errno| Error::path("change directory to", directory, errno))?;
            self.step(self.numbered(4), "chdir", show(directory));
        }
        umask(self.umask);
        self.step(self.numbered(5), "umask", format_args!("{:03o}", self.umask.bits()));
        self.close_descriptors(log.as_ref())?;
        self.redirect_streams(log.as_ref())?;
        let sigchld = self.start.sigchld;
        session::reset_dispositions(sigchld).map_err(|errno| Error::Step { step: "reset signals", errno })?;
        let state = if sigchld == Disposition::Ignored { "ignored" } else { "default" };
        self.step(self.numbered(8), "sigchld", state);

        let path = self.pidfile.clone();
        let pidfile = path.as_deref().map(|path| self.take_pidfile(path)).transpose()?;
        let Err(error) = self.execute();
        if let Some(pidfile) = pidfile {
            pidfile.give_back();
        }
        Err(error)
    }

    /// The last steps. Returns only when one fails.
    fn execute(&mut self) -> Result<Infallible, Error> {
        self.save_record()?;
        session::unblock_signals(self.start.sigchld).map_err(|errno| Error::Step { step: "unblock signals", errno })?;
        self.step(None, "signals", "SIGHUP ignored, none blocked");
        self.is_executing = true;
        // The other process reads what this one has written, although nothing here returns to it: to the compiler,
        // that would be a reason to write later or not at all.
        compiler_fence(Ordering::SeqCst);
        session::outlive_parent().map_err(|errno| Error::Step { step: "leave the parent process", errno })?;
        Err(self.command.execute())
    }

    /// Makes the log, if one is needed.
    fn open_log(&mut self) -> Result<Option<OwnedFd>, Error> {
        let (true, Ok(state)) = (self.streams.need_log(), &self.state) else { return Ok(None) };
        let (log, path) = state.create_log(&self.start.name, Pid::this())?;
        self.log = Some(path);
        Ok(Some(log))
    }

    fn take_pidfile<'p>(&mut self, path: &'p Path) -> Result<PidFile<'p>, Error> {
        let pidfile = PidFile::take(path, |status| self.streams.lead_to(status))?;
        self.step(None, "pidfile", show(path));
        Ok(pidfile)
    }

    /// Closes what the command has not asked for. What detach itself has open stays, to be closed by the exec.
    fn close_descriptors(&mut self, log: Option<&OwnedFd>) -> Result<(), Error> {
        let mut keep = self.keep_fds.clone();
        keep.extend(self.state.as_ref().map(|state| state.as_fd().as_raw_fd()));
        keep.extend(log.map(AsRawFd::as_raw_fd));
        keep.extend(self.null.as_ref().map(AsRawFd::as_raw_fd));
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

    /// Writes the record. That is worth a warning when it fails, no more: unless the end of the command is to be written
    /// there, or there is no room for it, and so none for the log beside it.
    fn save_record(&mut self) -> Result<(), Error> {
        let Start { name, command, .. } = self.start;
        let identity = Identity::of_this_process(&self.made);
        let mut record = Record::of_this_process(identity, name, command, self.output.clone());
        record.tracker.clone_from(&self.tracker);
        let no_record = |reason| Error::NoRecord { name: name.clone(), reason };
        let result = match (&self.state, &record.identity) {
            (Err(error), _) => Err(no_record(error.to_string())),
            (_, None) => Err(no_record("/proc does not tell its identity".into())),
            (Ok(state), Some(identity)) => match state.save(identity, &record) {
                Err(errno @ (Errno::ENOSPC | Errno::EDQUOT)) if self.log.is_some() => {
                    return Err(no_record(reason(errno)));
                }
                other => other.map_err(|errno| no_record(reason(errno))),
            },
        };
        self.record = Some(record);
        if let (Err(fault), true) = (&result, self.start.tracking != Tracking::No) {
            return Err(fault.clone());
        }
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
        let Ok(state) = &self.state else { return };
        // Nothing else can be done about a file that stays.
        if let Some(name) = self.log.as_ref().and_then(|log| log.file_name()) {
            let _ = state.remove(name);
        }
        if let Some(identity) = self.record.as_ref().and_then(|record| record.identity.as_ref()) {
            let _ = state.remove_record(identity);
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
    fn step(&mut self, number: Option<u8>, name: &'static str, result: impl Display) -> Option<usize> {
        if !self.names_steps {
            return None;
        }
        self.steps.push(Step { pid: Pid::this(), number, name, result: result.to_string() });
        Some(self.steps.len() - 1)
    }

    /// Completes the report of a fork, which is known only after it.
    fn complete(&mut self, step: Option<usize>, result: nix::Result<String>) {
        if let Some(step) = step.and_then(|step| self.steps.get_mut(step)) {
            step.result = result.unwrap_or_else(|errno| format!("failed: {}", reason(errno)));
        }
    }
}
