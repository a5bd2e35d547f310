//! A start from beginning to end: what the user meant, what is told about it, and how long detach stays.
//!
//! How the command comes to run is in `sequence`, the waiting in `watch`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::Pid;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::error::{Error, FAILED, errno, quote, reason};
use crate::human::{describe_end, exit_status, show_duration};
use crate::record::{Record, to_line};
use crate::sequence::{Launch, Step};
use crate::session::{self, Disposition};
use crate::streams::{Output, Target};
use crate::ui::{Ui, describe_output, shorten_home, write_data};
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
    pub sequence: Sequence,
    pub pidfile: Option<PathBuf>,
    pub tracking: Tracking,
    pub watch: Watch,
    pub print_pid: bool,
    pub json: bool,
}

/// How the process of the command comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    /// It leads a session of its own.
    Leader,
    /// The daemon sequence: it is in a session that nobody leads.
    Daemon,
}

/// Whether a process stays to record how the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    No,
    Record,
    /// With a desktop notification.
    Notify,
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
    let limit = match start.watch {
        Watch::Default if ui.is_terminal() => Some(SETTLE_ON_TERMINAL),
        Watch::Default => Some(Duration::ZERO),
        Watch::For(limit) => Some(limit),
        Watch::ToTheEnd => None,
    };
    let mut launch = Launch::prepare(start, ui.is_verbose() || start.json)?;
    let stays = limit != Some(Duration::ZERO);
    let ignored = if stays { watch::ignored_signals() } else { Vec::new() };
    let begun = Instant::now();
    let spawned = launch.spawn();
    ui.note_steps(&launch.steps);
    let pid = spawned?;
    report(&launch, start, ui);

    let note_start = || {
        if ui.shows_notes() {
            let output = describe_output(&launch.output);
            ui.note(format!("{}, PID {}, {output}", quote(&start.name), ui.strong(pid)));
        }
    };
    if limit.is_none() {
        note_start();
    }
    let name = || quote(&start.name);
    match watch::watch(launch.child(pid), limit.and_then(|limit| begun.checked_add(limit)), &ignored) {
        Ok(Watched::Running) => {
            note_start();
            if Pid::this() == INIT {
                ui.warn(format!("{} ends with detach, which is process 1 here: use --wait", name()));
            }
            Ok(0)
        }
        Ok(Watched::Ended(status)) => {
            let Some((status, lifetime)) = launch.end_of_command(status, begun.elapsed()) else {
                ui.warn(format!("cannot tell how {} ends: the process that tracked it has not recorded it", name()));
                return Ok(if start.watch == Watch::ToTheEnd { FAILED } else { 0 });
            };
            report_end(&launch, &start.name, status, lifetime, ui);
            Ok(exit_status(status))
        }
        Ok(Watched::Interrupted(signal)) => {
            ui.note(format!("let go of {}, PID {}, which goes on", name(), ui.strong(pid)));
            // Not reached unless that fails.
            let _ = session::die_of(signal);
            Ok(128 + signal as u8)
        }
        Err(errno) => {
            ui.warn(format!("cannot watch {}: {}", name(), reason(errno)));
            Ok(if start.watch == Watch::ToTheEnd { FAILED } else { 0 })
        }
    }
}

/// What is known as soon as the exec has worked.
fn report(launch: &Launch, start: &Start, ui: &Ui) {
    for fault in [&launch.record_fault, &launch.tracking_fault].into_iter().flatten() {
        ui.warn(fault);
    }
    let Some(record) = &launch.record else { return };
    if start.print_pid {
        report_unwritten(write_data(&format!("{}\n", record.pid)), "the PID", ui);
    }
    if start.json {
        let line = to_line(&Report { record, steps: &launch.steps });
        report_unwritten(write_data(&line), "the record", ui);
    }
}

/// A start in JSON: the record, and the steps, which are not stored.
struct Report<'a> {
    record: &'a Record,
    steps: &'a [Step],
}

impl Serialize for Report<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.record.serialize_fields(&mut map)?;
        map.serialize_entry("steps", self.steps)?;
        map.end()
    }
}

/// How the command has ended while it was watched.
fn report_end(launch: &Launch, name: &OsStr, status: ExitStatus, lifetime: Duration, ui: &Ui) {
    let name = quote(name);
    let end = describe_end(status);
    let lifetime = show_duration(lifetime);
    let output = file_with_output(launch);
    if status.success() {
        let place = output.map_or(String::new(), |(path, _)| format!(", output in {}", shorten_home(path)));
        ui.note(format!("{name} {end} after {lifetime}{place}"));
    } else if let Some((path, from)) = output {
        let lines = watch::last_lines(path, from);
        let colon = if lines.is_empty() { "" } else { ":" };
        ui.complain(format!("{name} {end} after {lifetime}{colon}"));
        ui.quote_output(&lines);
        ui.complain(describe_output(&launch.output));
    } else {
        ui.complain(format!("{name} {end} after {lifetime}"));
    }
}

/// The file into which this job has written, stderr first, and where in it the job's part begins.
fn file_with_output<'a>(launch: &'a Launch) -> Option<(&'a Path, u64)> {
    let [stdout, stderr] = &launch.output;
    let stdout_begin = launch.streams.output.length();
    let stderr_begin = match &launch.streams.error {
        Output::WithStdout => stdout_begin,
        other => other.length(),
    };
    let files = [(stderr, stderr_begin), (stdout, stdout_begin)].into_iter();
    let mut files = files.filter_map(|(destination, begin)| Some((destination.as_path()?, begin)));
    files.find(|(path, begin)| watch::has_grown(path, *begin))
}

/// Warns when something asked for on stdout could not be written; the command runs all the same.
fn report_unwritten(result: io::Result<()>, what: &str, ui: &Ui) {
    if let Err(error) = result {
        ui.warn(format!("cannot write {what}: {}", reason(errno(&error))));
    }
}
