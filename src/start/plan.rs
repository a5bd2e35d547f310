//! What the launcher prepares before the new process exists: everything that this process will need is looked up,
//! opened and put into memory, because it may not allocate (`sys::spawn`). From then on, the plan is only read.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::sys::stat::{Mode, umask};
use nix::unistd::gethostname;

use crate::error::{Error, reason};
use crate::jobs::directory::{LogStem, StateDirectory};
use crate::jobs::journal::{Journal, StartDraft};
use crate::jobs::record::{Start, Text};
use crate::start::command::Command;
use crate::start::name;
use crate::start::notify;
use crate::start::pidfile::PidFile;
use crate::start::request::{Request, Sequence, Tracking};
use crate::start::streams::{Streams, descriptors_to_keep, open_null};
use crate::sys::descriptors::{Closer, count_others};
use crate::sys::exec::to_c_string;
use crate::sys::proc;
use crate::sys::signals::Disposition;
use crate::sys::spawn::Stack;
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
    pub journal: nix::Result<Journal>,
}

/// What a tracking process needs.
pub struct TrackingPlan {
    pub null: File,
    pub boot_id: CString,
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
        let [input, output, error] = [&request.input, &request.output, &request.error].map(Option::as_ref);
        let streams = if is_daemon {
            Streams::open_for_daemon(input, output, error)
        } else {
            Streams::open(input, output, error)
        }?;
        let pidfile = request.pidfile.as_deref().map(std::path::absolute).transpose();
        let pidfile = pidfile
            .map_err(|error| Error::io("use pidfile", request.pidfile.as_deref().unwrap_or(Path::new("")), &error))?;
        let is_tracked = request.tracking != Tracking::No;
        let notifier = if request.tracking == Tracking::Notify { Some(notify::find_program()?) } else { None };
        let null = if is_tracked { Some(open_null()?) } else { None };
        // From here on, the files that are created are detach's own, and only for the user. The new process sets the
        // umask of the command.
        let caller_umask = umask(Mode::from_bits_truncate(0o077));
        let place = Place::find();
        let name = name::of_job(request);
        if let Err(error) = &place
            && (streams.need_log() || is_tracked)
        {
            return Err(error.clone());
        }
        let tracking = null.map(|null| TrackingPlan {
            null,
            boot_id: place.as_ref().map_or(CString::default(), |place| to_c_string(OsString::from(&place.boot_id))),
            name: to_c_string(name.clone()),
            notifier: notifier.map(|program| to_c_string(program.into_os_string())),
        });
        let start = make_start(request, &name, directory, &streams);
        let pidfile = pidfile.map(|path| PidFile::new(&path, caller_umask, streams.files()));
        let mut open: Vec<RawFd> = kept.clone();
        open.extend(streams.descriptors());
        open.extend(place.iter().flat_map(Place::descriptors));
        open.extend(tracking.as_ref().map(|tracking| tracking.null.as_raw_fd()));
        open.sort_unstable();
        let reports_steps = steps == Steps::Reported;
        let closed = if reports_steps { count_others(&open) } else { None };
        let mut stacks = [None, None, None];
        for (stack, is_needed) in stacks.iter_mut().zip([is_tracked, is_daemon, true]) {
            if is_needed {
                *stack = Some(Stack::map().map_err(|errno| Error::step("map a stack", errno))?);
            }
        }
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
            tracking,
            log_stem: LogStem::new(&name),
            draft: StartDraft::new(&start),
            start,
            place,
            stacks,
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

impl Place {
    fn find() -> Result<Self, Error> {
        let directory = StateDirectory::open()?;
        let boot_id = proc::boot_id();
        let journal = boot_id.as_ref().map_err(|errno| *errno);
        let journal = journal.and_then(|boot_id| Journal::open(&directory, boot_id));
        let boot_id = boot_id.unwrap_or_default();
        Ok(Self { directory, boot_id, pid_namespace: proc::pid_namespace().ok(), journal })
    }

    fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let journal = self.journal.as_ref().ok().map(|journal| journal.as_fd().as_raw_fd());
        journal.into_iter().chain([self.directory.as_fd().as_raw_fd()])
    }

    /// Why the job is not recorded, if that is known beforehand.
    pub fn fault(&self) -> Option<String> {
        self.journal.as_ref().err().map(|errno| reason(*errno))
    }
}

fn make_start(request: &Request, name: &OsStr, directory: Option<&Path>, streams: &Streams) -> Start {
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
    }
}
