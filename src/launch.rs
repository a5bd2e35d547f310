//! A start, from what the user meant to a running command: what is prepared, the steps of the new process in their
//! order, and what is told afterwards.
//!
//! The steps themselves are in `session`, the files in `streams` and `job`, the search and the exec in `command`.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{Ordering, compiler_fence};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, chdir};

use crate::command::Command;
use crate::error::{Error, FAILED, errno, quote, reason};
use crate::job::{Destination, Record, StateDirectory};
use crate::proc::Identity;
use crate::session::{self, Block, Disposition};
use crate::streams::{Input, Output, Streams, Target};
use crate::ui::{Ui, shorten_home, write_data};
use crate::watch::{self, Watched};

/// How long a start on a terminal is watched unless `--settle` says otherwise: long enough for a program that
/// cannot find its library or its configuration, short enough not to be noticed.
const SETTLE_ON_TERMINAL: Duration = Duration::from_millis(100);

/// The process whose end is that of all others in its PID namespace: pid_namespaces(7).
const INIT: Pid = Pid::from_raw(1);

/// What is to be started, and how.
#[derive(Debug)]
pub struct Start {
    /// The command and its arguments; never empty.
    pub command: Vec<OsString>,
    pub name: OsString,
    pub input: Option<Target>,
    pub output: Option<Target>,
    pub error: Option<Target>,
    pub directory: Option<PathBuf>,
    pub umask: Option<Mode>,
    pub keep_fds: Vec<RawFd>,
    pub sigchld: Disposition,
    pub watch: Watch,
    pub print_pid: bool,
    pub json: bool,
}

/// How long detach stays to see how the command fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// As long as it takes to see it fall over at once, on a terminal; else not at all.
    Default,
    /// That long.
    For(Duration),
    /// To its end.
    ToTheEnd,
}

/// Starts the command. Returns the exit status of detach.
pub fn start(start: &Start, ui: &Ui) -> Result<u8, Error> {
    let mut launch = Launch::prepare(start, ui.is_verbose())?;
    let ignored = watch::ignored_signals();
    let begun = Instant::now();
    let spawned = launch.spawn();
    for (pid, text) in &launch.steps {
        ui.note(format!("{} {text}", ui.strong(pid)));
    }
    let pid = spawned?;
    launch.report(pid, ui);

    let limit = match start.watch {
        Watch::Default if ui.is_terminal() => Some(SETTLE_ON_TERMINAL),
        Watch::Default => Some(Duration::ZERO),
        Watch::For(limit) => Some(limit),
        Watch::ToTheEnd => None,
    };
    let name = quote(&start.name);
    let started = format!("{name}, PID {}, {}", ui.strong(pid), describe(&launch.output));
    if limit.is_none() {
        ui.note(&started);
    }
    match watch::watch(pid, limit.and_then(|limit| begun.checked_add(limit)), &ignored) {
        Ok(Watched::Running) => {
            ui.note(&started);
            if Pid::this() == INIT {
                ui.warn(format!("{name} ends with detach, which is process 1 here: use --wait"));
            }
            Ok(0)
        }
        Ok(Watched::Ended(status)) => {
            launch.report_end(status, begun.elapsed(), ui);
            Ok(watch::exit_status(status))
        }
        Ok(Watched::Interrupted(signal)) => {
            ui.note(format!("let go of {name}, PID {}, which goes on", ui.strong(pid)));
            // Not reached unless that fails.
            let _ = session::die_of(signal);
            Ok(128 + signal as u8)
        }
        Err(errno) => {
            ui.warn(format!("cannot watch {name}: {}", reason(errno)));
            Ok(if start.watch == Watch::ToTheEnd { FAILED } else { 0 })
        }
    }
}

/// A start on its way: what this process has prepared, and what the child, which works on the same memory until its
/// exec, leaves here.
struct Launch<'a> {
    start: &'a Start,
    command: Command,
    streams: Streams,
    keep_fds: Vec<RawFd>,
    state: Result<StateDirectory, Error>,
    umask: Mode,
    is_verbose: bool,

    steps: Vec<(Pid, String)>,
    log: Option<PathBuf>,
    output: [Destination; 2],
    identity: Option<Identity>,
    record: String,
    record_fault: Option<Error>,
    is_executing: bool,
    failure: Option<Error>,
}

impl<'a> Launch<'a> {
    /// Looks at and opens whatever the start needs, as far as that can be done before there is a new process.
    fn prepare(start: &'a Start, is_verbose: bool) -> Result<Self, Error> {
        let command = Command::find(&start.command, start.directory.is_some())?;
        let keep_fds = descriptors_to_keep(&start.keep_fds, &start.command)?;
        let streams = Streams::open(start.input.as_ref(), start.output.as_ref(), start.error.as_ref())?;
        // From here on what is made is detach's own, for the user alone. The child takes the umask back.
        let caller_umask = umask(Mode::from_bits_truncate(0o077));
        let state = match StateDirectory::open() {
            Err(error) if streams.need_log() => return Err(error),
            other => other,
        };
        Ok(Self {
            start,
            command,
            streams,
            keep_fds,
            state,
            umask: start.umask.unwrap_or(caller_umask),
            is_verbose,
            steps: Vec::new(),
            log: None,
            output: [Destination::Kept, Destination::Kept],
            identity: None,
            record: String::new(),
            record_fault: None,
            is_executing: false,
            failure: None,
        })
    }

    /// Starts the command and returns when its exec has worked or failed. After a failure nothing is left of it: the
    /// child sees to that itself, even if this process is killed meanwhile.
    fn spawn(&mut self) -> Result<Pid, Error> {
        session::prepare_signals().map_err(|errno| Error::Step { step: "prepare signals", errno })?;
        self.step("ignores SIGHUP, blocks all other signals");
        let spawned = session::spawn(|| {
            // This is the child.
            let Err(error) = self.become_command();
            self.discard();
            self.failure = Some(error);
        });
        // This is detach again; the child is COMMAND, or has ended.
        let command = || self.start.command.first().cloned().unwrap_or_default();
        match (spawned, self.failure.take()) {
            // Killed from here on it counts as started: the kernel does not tell.
            (Ok(pid), None) if self.is_executing => Ok(pid),
            (Ok(pid), failure) => {
                let failure = failure.unwrap_or_else(|| {
                    // The child had no time to do it.
                    self.discard();
                    Error::KilledEarly { command: command() }
                });
                // Nothing can go wrong with a child that is ours, and nothing could be done about it.
                let _ = session::reap(pid, Block::UntilEnd);
                Err(failure)
            }
            (Err(errno), _) => Err(Error::NoProcess { command: command(), errno }),
        }
    }

    /// What the child does, in this order. Returns only when a step fails.
    fn become_command(&mut self) -> Result<Infallible, Error> {
        let session = session::lead_new_session().map_err(|errno| Error::Step { step: "make a new session", errno })?;
        self.step(format_args!("leads the new session {session}, without a controlling terminal"));

        // The child's alone: its parent has no such descriptor, and must not close one of its number.
        let log = self.open_log()?;
        let redirected = self.streams.redirect(log.as_ref().map(AsFd::as_fd));
        redirected.map_err(|errno| Error::Step { step: "redirect the standard streams", errno })?;
        drop(log);
        self.output = self.destinations();
        self.step_streams();

        if let Some(directory) = &self.start.directory {
            chdir(directory.as_path()).map_err(|errno| Error::path("change directory to", directory, errno))?;
            self.step(format_args!("is in directory {}", quote(directory.as_os_str())));
        }
        umask(self.umask);
        self.step(format_args!("has umask {:03o}", self.umask.bits()));

        self.close_descriptors()?;

        self.save_record()?;
        session::reset_signals(self.start.sigchld).map_err(|errno| Error::Step { step: "reset signals", errno })?;
        match self.start.sigchld {
            Disposition::Default => self.step("ignores SIGHUP alone, blocks no signal"),
            Disposition::Ignored => self.step("ignores SIGHUP and SIGCHLD alone, blocks no signal"),
        }

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

    /// Closes what the command has not asked for. The state directory stays open to the exec, for the record.
    fn close_descriptors(&mut self) -> Result<(), Error> {
        let mut keep = self.keep_fds.clone();
        keep.extend(self.state.as_ref().map(AsRawFd::as_raw_fd));
        keep.sort_unstable();
        session::close_descriptors(&keep).map_err(|errno| Error::Step { step: "close descriptors", errno })?;
        match self.keep_fds.as_slice() {
            [] => self.step("closes every descriptor from 3 on"),
            kept => self.step(format!("closes every descriptor from 3 on, except {}", join(kept))),
        }
        Ok(())
    }

    /// Writes the record. That is worth a warning when it fails, no more: unless there is no room for it, and so
    /// none for the log beside it.
    fn save_record(&mut self) -> Result<(), Error> {
        self.identity = Identity::of_this_process();
        let Start { name, command, .. } = self.start;
        let record = Record::new(Pid::this(), self.identity.as_ref(), name, command, &self.output);
        self.record = record.to_json();
        let no_record = |reason| Error::NoRecord { name: name.clone(), reason };
        let result = match (&self.state, &self.identity) {
            (Err(error), _) => Err(no_record(error.to_string())),
            (_, None) => Err(no_record("/proc does not tell when it started".into())),
            (Ok(state), Some(identity)) => match state.save(identity, &self.record) {
                Err(errno @ (Errno::ENOSPC | Errno::EDQUOT)) if self.log.is_some() => {
                    return Err(no_record(reason(errno)));
                }
                other => other.map_err(|errno| no_record(reason(errno))),
            },
        };
        match result {
            Ok(()) => self.step("has a record"),
            Err(fault) => self.record_fault = Some(fault),
        }
        Ok(())
    }

    /// Takes back the log and the record of a command that did not start.
    fn discard(&mut self) {
        if let Ok(state) = &self.state {
            if let Some(log) = &self.log {
                state.remove_log(log);
            }
            if let Some(identity) = &self.identity {
                state.remove_record(identity);
            }
        }
    }

    fn step(&mut self, text: impl Display) {
        if self.is_verbose {
            self.steps.push((Pid::this(), text.to_string()));
        }
    }

    fn step_streams(&mut self) {
        if let Input::Opened(opened) = &self.streams.input {
            let path = shorten_home(&opened.path);
            self.step(format!("reads stdin from {path}"));
        }
        self.step(format!("has {}", describe(&self.output)));
    }

    /// What is known as soon as the exec has worked.
    fn report(&self, pid: Pid, ui: &Ui) {
        if ui.is_verbose() {
            ui.note(format!("{} runs {}", ui.strong(pid), quote(self.command.file().as_os_str())));
        }
        if let Some(fault) = &self.record_fault {
            ui.warn(fault);
        }
        if self.start.print_pid {
            report_unwritten(write_data(&format!("{pid}\n")), "the PID", ui);
        }
        if self.start.json {
            report_unwritten(write_data(&self.record), "the record", ui);
        }
    }

    /// How the command has ended while it was watched.
    fn report_end(&self, status: ExitStatus, lifetime: Duration, ui: &Ui) {
        let name = quote(&self.start.name);
        let end = watch::describe_end(status);
        let lifetime = watch::show_duration(lifetime);
        let output = self.file_with_output();
        if status.success() {
            let place = output.map_or(String::new(), |(path, _)| format!(", output in {}", shorten_home(path)));
            ui.note(format!("{name} {end} after {lifetime}{place}"));
        } else if let Some((path, from)) = output {
            let lines = watch::last_lines(path, from);
            let colon = if lines.is_empty() { "" } else { ":" };
            ui.complain(format!("{name} {end} after {lifetime}{colon}"));
            ui.quote_output(&lines);
            ui.complain(describe(&self.output));
        } else {
            ui.complain(format!("{name} {end} after {lifetime}"));
        }
    }

    /// The file into which this job has written, stderr first, and where in it the job's part begins.
    fn file_with_output(&self) -> Option<(&Path, u64)> {
        let [stdout, stderr] = &self.output;
        let stdout_begin = self.streams.output.length();
        let stderr_begin = match &self.streams.error {
            Output::WithStdout => stdout_begin,
            other => other.length(),
        };
        let files = [(stderr, stderr_begin), (stdout, stdout_begin)].into_iter();
        let mut files = files.filter_map(|(destination, begin)| Some((destination.as_path()?, begin)));
        files.find(|(path, begin)| watch::has_grown(path, *begin))
    }
}

/// Warns when something asked for on stdout could not be written; the command runs all the same.
fn report_unwritten(result: io::Result<()>, what: &str, ui: &Ui) {
    if let Err(error) = result {
        ui.warn(format!("cannot write {what}: {}", reason(errno(&error))));
    }
}

/// Where the output goes, as the end of a sentence.
fn describe(output: &[Destination; 2]) -> String {
    let place = |destination: &Destination| match destination {
        Destination::Log(path) | Destination::File(path) => format!("in {}", shorten_home(path.as_path())),
        Destination::Discarded => "discarded".to_owned(),
        Destination::Kept => "left as it is".to_owned(),
    };
    let [stdout, stderr] = output;
    if stdout == stderr {
        format!("output {}", place(stdout))
    } else {
        format!("stdout {}, stderr {}", place(stdout), place(stderr))
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

fn join(fds: &[RawFd]) -> String {
    fds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
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
