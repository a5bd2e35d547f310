//! What is kept of a job that has been let go of: its log, and its record in the journal.
//!
//! The log is made before anything is done to the job, and removed if that comes to nothing. A job that the journal has
//! already keeps its identity, and its log.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::stat::{Mode, umask};
use nix::unistd::gethostname;

use crate::error::{Error, reason};
use crate::jobs::directory::{LogStem, StateDirectory};
use crate::jobs::journal::Journal;
use crate::jobs::record::{
    FileId, JobId, Process, Record, Rescue, RescuedProcess, Start, Stream, Text, describe_output,
};
use crate::jobs::session::State;
use crate::jobs::{Job, Jobs, name};
use crate::rescue::Request;
use crate::rescue::job::{Member, RunningJob, read_argv};
use crate::sys::exec::to_c_string;
use crate::sys::proc::{self, time_since_boot};
use crate::term::format::{in_ms, now_in_ms};
use crate::term::text::quote;
use crate::term::ui::{Ui, Verbosity};

const NULL: &str = "/dev/null";
/// The unit of start times, in milliseconds: time(7).
const TICK_MS: u64 = 10;

/// Where jobs are recorded.
pub struct Keeper {
    place: Result<Place, Error>,
    /// The file that `-o` names.
    output: Option<PathBuf>,
}

struct Place {
    directory: StateDirectory,
    boot_id: String,
    pid_namespace: Option<u64>,
}

/// What is known of a job before it is let go of.
pub struct Draft<'k> {
    keeper: &'k Keeper,
    id: JobId,
    known: Option<Job>,
    start: Start,
    /// The name of its log, and whether it was made for this.
    log: Option<String>,
    is_log_new: bool,
    output: CString,
}

impl Keeper {
    /// Opens the state directory, and makes the file that `-o` names.
    pub fn open(request: &Request) -> Result<Self, Error> {
        let output = request.output.as_deref().map(make_output).transpose()?;
        // From here on, what is made is for the user alone.
        umask(Mode::from_bits_truncate(0o077));
        let place = StateDirectory::open().and_then(|directory| {
            let boot_id = proc::boot_id().map_err(Error::proc)?;
            let pid_namespace = proc::visible_pid_namespace().ok();
            Ok(Place { directory, boot_id, pid_namespace })
        });
        match (place, &output) {
            (Err(error), None) => Err(error),
            (place, _) => Ok(Self { place, output }),
        }
    }

    /// Prepares what a job needs.
    pub fn draft(&self, job: &RunningJob, first: &Member, request: &Request) -> Result<Draft<'_>, Error> {
        let argv = read_argv(first);
        let name = request.name.clone().unwrap_or_else(|| name::of_command(&argv).to_owned());
        let known = find_known(job)?;
        let id = known.as_ref().map_or_else(|| self.identify(first), |known| *known.id());
        let mut draft = Draft {
            keeper: self,
            id,
            start: make_start(first, &name, &argv),
            known,
            log: None,
            is_log_new: false,
            output: CString::default(),
        };
        draft.choose_output(&name)?;
        Ok(draft)
    }

    fn identify(&self, first: &Member) -> JobId {
        let pid_namespace = self.place.as_ref().ok().and_then(|place| place.pid_namespace);
        let age = in_ms(time_since_boot()).saturating_sub(first.stat.start_time * TICK_MS);
        let started_at_ms = now_in_ms().saturating_sub(age);
        JobId { pid: first.pid, start_time: first.stat.start_time, pid_namespace, started_at_ms }
    }
}

/// Makes the file that `-o` names, and returns its absolute path.
fn make_output(path: &Path) -> Result<PathBuf, Error> {
    let failed = |error: &std::io::Error| Error::io("write output to", path, error);
    let absolute = std::path::absolute(path).map_err(|error| failed(&error))?;
    let mut options = OpenOptions::new();
    options.append(true).create(absolute != Path::new(NULL)).custom_flags(libc::O_NOCTTY);
    options.open(&absolute).map_err(|error| failed(&error))?;
    Ok(absolute)
}

fn make_start(first: &Member, name: &OsStr, argv: &[OsString]) -> Start {
    Start {
        host: Text::from(&gethostname().unwrap_or_default()),
        name: Text::from(name),
        argv: argv.iter().map(Text::from).collect(),
        directory: fs::read_link(format!("/proc/{}/cwd", first.pid)).ok().as_ref().map(Text::from),
        stdout: Stream::Discarded,
        stderr: Stream::Discarded,
    }
}

/// The job that the journal has, if it has this one.
fn find_known(running: &RunningJob) -> Result<Option<Job>, Error> {
    // What is wrong with the journal is reported where it is read.
    let ui = Ui::new(Verbosity::Quiet);
    let Some(jobs) = Jobs::find(&ui)? else { return Ok(None) };
    let is_it = |job: &Job| match &job.record.rescue {
        None => job.is_visible && job.record.session == running.session,
        Some(rescue) => {
            job.is_visible && running.members.iter().any(|member| rescue.members.contains(&identity(member)))
        }
    };
    let living = jobs.living().filter(|known| known.state != State::Elsewhere);
    Ok(living.filter_map(|known| jobs.load(known)).filter(is_it).next_back())
}

fn identity(member: &Member) -> RescuedProcess {
    RescuedProcess { pid: member.pid, start_time: member.stat.start_time }
}

impl Draft<'_> {
    /// Whether the journal has the job.
    pub fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// `'make' (PID 4242)`
    pub fn describe(&self) -> String {
        format!("{} (PID {})", quote(self.start.name.as_os_str()), self.id.pid)
    }

    /// Where its descriptors are to lead to.
    pub fn output(&self) -> &CStr {
        &self.output
    }

    fn choose_output(&mut self, name: &OsStr) -> Result<(), Error> {
        let known = self.known.as_ref().and_then(|known| known.record.output().into_iter().find_map(|it| it.as_path()));
        let named = self.keeper.output.clone();
        if let Some(path) = named.or_else(|| known.filter(|path| path.exists()).map(Path::to_owned)) {
            let log = self.keeper.place.as_ref().ok().and_then(|place| place.directory.name_of(&path));
            self.log = log.filter(|_| self.keeper.output.is_none()).and_then(OsStr::to_str).map(str::to_owned);
            self.set_output(&path);
            return Ok(());
        }
        let place = self.keeper.place.as_ref().map_err(Clone::clone)?;
        let stem = LogStem::new(name);
        let number = std::cell::Cell::new(0);
        let made = place.directory.create_log(&stem, self.id.pid, |tried| number.set(tried));
        let log = String::from_utf8_lossy(stem.name(self.id.pid, number.get()).as_bytes()).into_owned();
        let path = place.directory.path().join(&log);
        made.map_err(|errno| Error::path("create log", &path, errno))?;
        (self.log, self.is_log_new) = (Some(log), true);
        self.set_output(&path);
        Ok(())
    }

    fn set_output(&mut self, path: &Path) {
        let stream = if path == Path::new(NULL) {
            Stream::Discarded
        } else if self.log.is_some() {
            Stream::Log
        } else {
            Stream::File(Text::from(path))
        };
        (self.start.stdout, self.start.stderr) = (stream.clone(), stream);
        self.output = to_c_string(path.as_os_str().to_owned());
    }

    /// Takes back what was made: nothing was done to the job.
    pub fn discard(self) {
        if let (true, Some(log), Ok(place)) = (self.is_log_new, &self.log, &self.keeper.place) {
            let _ = place.directory.remove(log.as_str());
        }
    }

    /// Records the job, of which these processes were let go of. Returns a sentence about it.
    pub fn keep(&self, job: &RunningJob, released: &[Member], ui: &Ui) -> String {
        let path = Path::new(OsStr::from_bytes(self.output.to_bytes()));
        let output = fs::metadata(path).ok().filter(fs::Metadata::is_file);
        let rescue = Rescue {
            session: job.session,
            group: job.group,
            log: self.log.clone(),
            output: output.map(|metadata| FileId { device: metadata.dev(), inode: metadata.ino() }),
            members: released.iter().map(identity).collect(),
        };
        let recorded = self.keeper.place.as_ref().map_err(ToString::to_string).and_then(|place| {
            let failed = |errno| reason(errno);
            let journal = Journal::open(&place.directory, &place.boot_id).map_err(failed)?;
            journal.append_rescue(&place.directory, self.id, &rescue, Some(&self.start)).map_err(failed)
        });
        if let Err(fault) = recorded {
            ui.warn(format!("cannot record job {}: {fault}", quote(self.start.name.as_os_str())));
        }
        let (boot_id, directory) = match &self.keeper.place {
            Ok(place) => (place.boot_id.as_str(), place.directory.path()),
            Err(_) => ("", Path::new("")),
        };
        let process = Process { session: rescue.session, log: rescue.log, tracker: None };
        let record = Record::new(boot_id, self.id, process, self.start.clone(), directory);
        format!("{} (PID {}), {}", quote(self.start.name.as_os_str()), ui.strong(self.id.pid), describe_output(&record))
    }
}
