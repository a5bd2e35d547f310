//! What the launcher prepares before the new process exists: everything that this process will need is looked up,
//! opened and put into memory, because it may not allocate (`sys::spawn`). From then on, the plan is only read.

use std::env;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::gethostname;

use crate::error::Error;
use crate::jobs::directory::{LogStem, StateDirectory};
use crate::jobs::journal::{Journal, StartDraft};
use crate::jobs::name;
use crate::jobs::record::{Start, Text};
use crate::start::command::Command;
use crate::start::notify;
use crate::start::pidfile::PidFile;
use crate::start::request::{Request, Scope, Sequence, Tracking};
use crate::start::streams::{Streams, descriptors_to_keep, open_null};
use crate::sys::descriptors::{Closer, count_others};
use crate::sys::exec::to_c_string;
use crate::sys::proc;
use crate::sys::process::set_umask;
use crate::sys::signals::Disposition;
use crate::sys::spawn::Stack;
use crate::systemd::scope::name_unit;
use crate::term::text::quote;

/// Everything about a start that is known beforehand.
pub struct Plan {
    pub sequence: Sequence,
    pub command: Command,
    pub directory: Option<CString>,
    pub umask: Mode,
    pub streams: Streams,
    pub pidfile: Option<PidFile>,
    pub sigchld: Disposition,
    pub closer: Closer,
    /// The descriptors that the command keeps, sorted.
    pub kept: Vec<RawFd>,
    /// Those, and what the new process itself needs until its exec, sorted.
    pub open: Vec<RawFd>,
    pub tracking: Option<TrackingPlan>,
    pub log_stem: LogStem,
    pub start: Start,
    pub draft: StartDraft,
    pub place: Result<Place, Error>,
    /// One for each process that is made: tracking, intermediate and command (`Role`).
    pub stacks: [Option<Stack>; 3],
    /// How many descriptors will be closed, where every step is reported.
    pub closed: Option<usize>,
    pub reports_steps: bool,
}

/// Where the job is recorded.
pub struct Place {
    pub directory: StateDirectory,
    pub boot_id: String,
    pub pid_namespace: Option<u64>,
    pub time_namespace: Option<u64>,
    pub journal: nix::Result<Journal>,
}

/// What a tracking process needs.
pub struct TrackingPlan {
    pub null: File,
    pub name: CString,
    /// The program that shows notifications.
    pub notifier: Option<CString>,
}

/// Whether every step is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    Hidden,
    Reported,
}

impl Plan {
    pub fn make(request: &Request, steps: Steps) -> Result<Self, Error> {
        let is_daemon = request.sequence == Sequence::Daemon;
        let directory = request.directory.as_deref().or_else(|| is_daemon.then_some(Path::new("/")));
        let command = Command::find(&request.command, directory.is_some())?;
        let kept = descriptors_to_keep(&request.keep, &request.command)?;
        let streams = Streams::open(request)?;
        // From here on, the files that are created are detach's own, and only for the user. The new process sets the
        // umask of the command.
        let own_umask = Mode::from_bits_truncate(0o077);
        let caller_umask = set_umask(own_umask).map_err(|errno| Error::step("set the umask", errno))?;
        let pidfile =
            request.pidfile.as_deref().map(|path| PidFile::new(path, caller_umask, streams.files())).transpose()?;
        let name = request.name.clone().unwrap_or_else(|| name::of_command(&request.command).to_owned());
        let tracking = TrackingPlan::make(request.tracking, &name)?;
        let place = Place::find();
        if let Err(error) = &place
            && (streams.need_log() || tracking.is_some())
        {
            return Err(error.clone());
        }
        let unit = if request.scope == Scope::Own { Some(name_unit(&name)?) } else { None };
        let start = make_start(request, &name, directory, &streams, unit);
        let mut open: Vec<RawFd> = kept.clone();
        open.extend(streams.descriptors());
        open.extend(place.iter().flat_map(Place::descriptors));
        open.extend(tracking.as_ref().map(|tracking| tracking.null.as_raw_fd()));
        open.sort_unstable();
        let reports_steps = steps == Steps::Reported;
        let closed = if reports_steps { count_others(&open) } else { None };
        let map_stack =
            |is_needed: bool| is_needed.then(Stack::map).transpose().map_err(|errno| Error::step("map a stack", errno));
        Ok(Self {
            sequence: request.sequence,
            command,
            directory: directory.map(|path| to_c_string(path.as_os_str().to_owned())),
            umask: request.umask.unwrap_or(if is_daemon { Mode::empty() } else { caller_umask }),
            streams,
            pidfile,
            sigchld: request.sigchld.unwrap_or(if is_daemon { Disposition::Ignored } else { Disposition::Default }),
            closer: Closer::find().map_err(|errno| Error::step("list descriptors", errno))?,
            kept,
            open,
            stacks: [map_stack(tracking.is_some())?, map_stack(is_daemon)?, map_stack(true)?],
            tracking,
            log_stem: LogStem::new(&name),
            draft: StartDraft::new(&start),
            start,
            place,
            closed,
            reports_steps,
        })
    }

    /// The name of the job, for a sentence.
    pub fn name(&self) -> String {
        quote(self.start.name.as_os_str())
    }

    /// The command as typed, for a sentence.
    pub fn command_name(&self) -> String {
        quote(self.start.argv.first().map_or(OsStr::new(""), Text::as_os_str))
    }
}

impl TrackingPlan {
    fn make(tracking: Tracking, name: &OsStr) -> Result<Option<Self>, Error> {
        let notifier = match tracking {
            Tracking::No => return Ok(None),
            Tracking::Record => None,
            Tracking::Notify => Some(to_c_string(notify::find_program()?.into_os_string())),
        };
        Ok(Some(Self { null: open_null()?, name: to_c_string(name.to_owned()), notifier }))
    }
}

impl Place {
    fn find() -> Result<Self, Error> {
        let directory = StateDirectory::open()?;
        let boot_id = proc::boot_id();
        let journal = boot_id.as_ref().map_err(|errno| *errno);
        let journal = journal.and_then(|boot_id| Journal::open(&directory, boot_id));
        let boot_id = boot_id.unwrap_or_default();
        let (pid_namespace, time_namespace) = (proc::pid_namespace().ok(), proc::time_namespace().ok());
        Ok(Self { directory, boot_id, pid_namespace, time_namespace, journal })
    }

    fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let journal = self.journal.as_ref().ok().map(|journal| journal.as_fd().as_raw_fd());
        journal.into_iter().chain([self.directory.as_fd().as_raw_fd()])
    }
}

fn make_start(
    request: &Request,
    name: &OsStr,
    directory: Option<&Path>,
    streams: &Streams,
    unit: Option<String>,
) -> Start {
    // As the kernel will show it.
    let directory = directory.map_or_else(env::current_dir, fs::canonicalize).ok();
    let [stdout, stderr] = streams.destinations();
    Start {
        host: Text::from(&gethostname().unwrap_or_default()),
        name: Text::from(name),
        argv: request.command.iter().map(Text::from).collect(),
        directory: directory.as_ref().map(Text::from),
        stdout,
        stderr,
        unit,
    }
}
