//! What is kept of a job that has been let go of: its log, and its record in the journal.
//!
//! Both are made before anything is done to the job, and undone if nothing was; if detach is killed in between, the
//! output of the job can still be found. A job that is already in the journal keeps its identity, and its output file
//! if it was let go of before.

use std::cell::Cell;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use nix::sys::stat::{Mode, stat, umask};
use nix::unistd::{
    AccessFlags, Gid, Pid, Uid, faccessat, geteuid, getgid, getgroups, gethostname, getuid, setegid, seteuid, setgroups,
};

use crate::error::{Error, reason};
use crate::jobs::directory::{LogStem, StateDirectory};
use crate::jobs::journal::Journal;
use crate::jobs::record::{
    Destination, FileId, JobId, Process, ProcessId, Record, Rescue, Start, Stream, Text, describe_output,
};
use crate::jobs::{Job, Jobs, name};
use crate::rescue::Request;
use crate::rescue::job::{Member, RunningJob, read_argv};
use crate::rescue::terminal::Terminal;
use crate::sys::exec::to_c_string;
use crate::sys::proc::{self, TICK_MS, status_field, time_since_boot};
use crate::term::format::{in_ms, now_in_ms};
use crate::term::text::quote;
use crate::term::ui::{Ui, Verbosity};

const NULL: &str = "/dev/null";

/// Where a job is recorded, and with whose rights.
pub struct Keeper {
    user: User,
    place: Result<Place, Error>,
}

struct Place {
    directory: StateDirectory,
    boot_id: String,
    pid_namespace: Option<u64>,
    time_namespace: Option<u64>,
}

/// What is known of a job before it is let go of.
pub struct Draft<'k> {
    keeper: &'k Keeper,
    id: JobId,
    let_go_at_ms: u64,
    /// The error is a reason.
    journal: Result<Journal, String>,
    start: Start,
    output: Output,
    output_path: CString,
}

/// Where the descriptors of a job are to lead to.
struct Output {
    path: PathBuf,
    /// Its name, if it is in the state directory.
    log: Option<String>,
    is_new: bool,
}

impl Output {
    fn stream(&self) -> Stream {
        match &self.log {
            _ if self.path == Path::new(NULL) => Stream::Discarded,
            Some(_) => Stream::Log,
            None => Stream::File(Text::from(&self.path)),
        }
    }
}

/// Whose files are made. What root lets go of for a user is that user's: the job must be able to open its log, and the
/// user to find the job.
#[derive(Clone, Debug, PartialEq, Eq)]
enum User {
    Caller,
    Other {
        user: Uid,
        group: Gid,
        groups: Vec<Gid>,
        /// Those of this process, to return to.
        own_groups: Vec<Gid>,
    },
}

impl User {
    /// With whose rights a process opens files: the last numbers of `Uid` and `Gid` in /proc/PID/status, and `Groups`.
    fn of(process: Pid) -> Self {
        let status = fs::read(format!("/proc/{process}/status")).unwrap_or_default();
        let numbers = |name| {
            let text = status_field(&status, name).unwrap_or_default();
            text.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect::<Vec<u32>>()
        };
        match (numbers("Uid").last(), numbers("Gid").last()) {
            (Some(user), Some(group)) if geteuid().is_root() && *user != 0 => Self::Other {
                user: Uid::from_raw(*user),
                group: Gid::from_raw(*group),
                groups: numbers("Groups").into_iter().map(Gid::from_raw).collect(),
                own_groups: getgroups().unwrap_or_default(),
            },
            _ => Self::Caller,
        }
    }

    /// Takes the rights of this user, until the result is dropped. Allocates nothing.
    fn assume(&self) -> nix::Result<Option<AssumedRights<'_>>> {
        let Self::Other { user, group, groups, own_groups } = self else { return Ok(None) };
        let rights = AssumedRights { own_groups };
        setgroups(groups)?;
        setegid(*group)?;
        seteuid(*user)?;
        Ok(Some(rights))
    }
}

/// This process acts with the rights of another user.
struct AssumedRights<'u> {
    own_groups: &'u [Gid],
}

impl Drop for AssumedRights<'_> {
    fn drop(&mut self) {
        let _ = seteuid(getuid());
        let _ = setegid(getgid());
        let _ = setgroups(self.own_groups);
    }
}

impl Keeper {
    /// Opens the state directory.
    pub fn open(first: &Member, request: &Request) -> Result<Self, Error> {
        let user = User::of(first.pid);
        let rights = user.assume().map_err(|errno| Error::step("act as the user of the job", errno))?;
        // What is made from here on is for the user alone.
        let mask = umask(Mode::from_bits_truncate(0o077));
        let place = Place::open(&user, first);
        umask(mask);
        drop(rights);
        match place {
            Err(error) if request.output.is_none() => Err(error),
            place => Ok(Self { user, place }),
        }
    }

    /// This job, if the journal has it.
    pub fn find_known(&self, running: &RunningJob) -> Result<Option<Job>, Error> {
        let Ok(place) = &self.place else { return Ok(None) };
        // What is wrong with the journal is reported where it is read.
        let ui = Ui::new(Verbosity::Quiet);
        let Ok(_rights) = self.user.assume() else { return Ok(None) };
        let jobs = Jobs::find_in(StateDirectory::open_at(place.directory.path())?, &ui)?;
        let has_member = |rescue: &Rescue| running.members.iter().any(|it| rescue.members.contains(&identity(it)));
        let is_it = |job: &Job| {
            let is_same = job.record.rescue.as_ref().map_or(job.record.session == running.session, has_member);
            job.is_visible && is_same
        };
        Ok(jobs.living().filter_map(|known| jobs.load(known)).rfind(is_it))
    }

    /// Prepares what a job needs: makes its log.
    pub fn draft(
        &self,
        job: &RunningJob,
        first: &Member,
        known: Option<&Job>,
        request: &Request,
    ) -> Result<Draft<'_>, Error> {
        let argv = read_argv(first);
        let name = request.name.clone().unwrap_or_else(|| name::of_command(&argv).to_owned());
        let id = known.map_or_else(|| self.identify(first), |known| *known.id());
        let let_go_at_ms = now_in_ms();
        let journal = self.open_journal();
        let output = match &request.output {
            Some(path) => self.make_output(path, job.terminal)?,
            None => self.choose_output(&name, id.pid, known)?,
        };
        let [stdout, stderr] = [1, 2].map(|fd| find_stream(job, first, fd, &output));
        let start = Start {
            host: Text::from(&gethostname().unwrap_or_default()),
            name: Text::from(&name),
            argv: argv.iter().map(Text::from).collect(),
            directory: fs::read_link(format!("/proc/{}/cwd", first.pid)).ok().as_ref().map(Text::from),
            stdout,
            stderr,
            unit: None,
        };
        let output_path = to_c_string(output.path.clone().into_os_string());
        Ok(Draft { keeper: self, id, let_go_at_ms, journal, start, output, output_path })
    }

    /// The file that `-o` names, which is created. It must not be the terminal that the job is to leave.
    fn make_output(&self, path: &Path, terminal: Option<Terminal>) -> Result<Output, Error> {
        // Without a directory, or for an empty name.
        let absolute = std::path::absolute(path).map_err(|_| Error::path("write output to", path, Errno::ENOENT))?;
        let _rights = self.user.assume().map_err(|errno| Error::path("write output to", path, errno))?;
        let metadata = absolute.metadata();
        // To open it could wait, here and in each process of the job.
        if metadata.as_ref().is_ok_and(|metadata| metadata.file_type().is_fifo()) {
            return Err(Error::refused("write output to", path, "it is a FIFO"));
        }
        let device = metadata.ok().and_then(|metadata| Terminal::of_device(&metadata));
        if device.zip(terminal).is_some_and(|(device, terminal)| device.leads_to(terminal)) {
            return Err(Error::refused("write output to", path, "the terminal cannot be kept"));
        }
        let mut options = OpenOptions::new();
        options.append(true).create(absolute != Path::new(NULL)).custom_flags(libc::O_NOCTTY);
        options.open(&absolute).map_err(|error| Error::io("write output to", path, &error))?;
        Ok(Output { path: absolute, log: None, is_new: false })
    }

    /// The file that the output goes to already, or a new log.
    fn choose_output(&self, name: &OsStr, pid: Pid, known: Option<&Job>) -> Result<Output, Error> {
        let place = self.place.as_ref().map_err(Clone::clone)?;
        let is_reused = |job: &&Job| job.record.rescue.is_some();
        let reused =
            known.filter(is_reused).and_then(|job| job.record.output().into_iter().find_map(Destination::as_path));
        if let Some(path) = reused.filter(|path| path.exists()) {
            let log = place.directory.name_of(path).and_then(OsStr::to_str).map(str::to_owned);
            return Ok(Output { path: path.to_owned(), log, is_new: false });
        }
        let stem = LogStem::new(name);
        let number = Cell::new(0);
        let rights = self.user.assume();
        let made = rights.and_then(|_rights| place.directory.create_log(&stem, pid, |it| number.set(it)));
        let log = String::from_utf8_lossy(stem.name(pid, number.get()).as_bytes()).into_owned();
        let path = place.directory.path().join(&log);
        made.map_err(|errno| Error::path("create log", &path, errno))?;
        Ok(Output { path, log: Some(log), is_new: true })
    }

    /// The journal; the error is a reason.
    fn open_journal(&self) -> Result<Journal, String> {
        let place = self.place.as_ref().map_err(ToString::to_string)?;
        let _rights = self.user.assume().map_err(reason)?;
        Journal::open(&place.directory, &place.boot_id).map_err(reason)
    }

    fn identify(&self, first: &Member) -> JobId {
        let namespaces = |place: &Place| (place.pid_namespace, place.time_namespace);
        let (pid_namespace, time_namespace) = self.place.as_ref().map_or((None, None), namespaces);
        let age = in_ms(time_since_boot()).saturating_sub(first.stat.start_time * TICK_MS);
        let started_at_ms = now_in_ms().saturating_sub(age);
        JobId { pid: first.pid, start_time: first.stat.start_time, pid_namespace, time_namespace, started_at_ms }
    }
}

impl Place {
    fn open(user: &User, first: &Member) -> Result<Self, Error> {
        let directory = match user {
            User::Caller => StateDirectory::open(),
            User::Other { .. } => StateDirectory::open_for(|variable| read_variable(first.pid, variable)),
        }?;
        let boot_id = proc::boot_id().map_err(Error::proc)?;
        let (pid_namespace, time_namespace) = (proc::visible_pid_namespace().ok(), proc::time_namespace().ok());
        Ok(Self { directory, boot_id, pid_namespace, time_namespace })
    }
}

/// A variable in the environment with which a process was started.
fn read_variable(pid: Pid, variable: &str) -> Option<OsString> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut entries = environment.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(variable.as_bytes())?.strip_prefix(b"="))?;
    Some(OsStr::from_bytes(value).to_owned())
}

/// Where a stream of a job leads when it has been let go of. In a pipeline, another process than the first may write to
/// the terminal.
fn find_stream(job: &RunningJob, first: &Member, fd: i32, output: &Output) -> Stream {
    let leads_to_terminal = |member: &Member| {
        Terminal::of_descriptor(member.pid, fd).zip(job.terminal).is_some_and(|(device, it)| device.leads_to(it))
    };
    if job.members.iter().any(leads_to_terminal) {
        return output.stream();
    }
    let link = format!("/proc/{}/fd/{fd}", first.pid);
    let path = fs::read_link(&link).unwrap_or_default();
    // A file that still has its name.
    let is_file = Path::new(&link).is_file()
        && stat(link.as_str()).is_ok_and(|open| stat(&path).is_ok_and(|named| FileId::of(&open) == FileId::of(&named)));
    match path.to_str() {
        Some(NULL) => Stream::Discarded,
        // The job was let go of in part before.
        _ if is_file && path == output.path => output.stream(),
        _ if is_file => Stream::File(Text::from(&path)),
        _ => Stream::Kept,
    }
}

fn identity(member: &Member) -> ProcessId {
    ProcessId { pid: member.pid, start_time: member.stat.start_time }
}

impl Draft<'_> {
    /// Where its descriptors are to lead to.
    pub fn output(&self) -> &CStr {
        &self.output_path
    }

    /// A process of the job that may not write to the output, because it has other rights than the first, and the
    /// reason.
    pub fn find_denied<'j>(&self, job: &'j RunningJob) -> Option<(&'j Member, Errno)> {
        job.members.iter().find_map(|member| {
            let user = User::of(member.pid);
            let can_write =
                |_rights| faccessat(AT_FDCWD, self.output.path.as_path(), AccessFlags::W_OK, AtFlags::AT_EACCESS);
            let denied = if user == self.keeper.user { None } else { user.assume().and_then(can_write).err() };
            denied.map(|errno| (member, errno))
        })
    }

    /// Records that the job is let go of, with all its processes. Returns whether that worked; if not, the job is let go of
    /// all the same.
    pub fn record(&self, job: &RunningJob, ui: &Ui) -> bool {
        let output = Some(&self.output.path).filter(|path| path.is_file()).and_then(|path| stat(path).ok());
        let rescue = Rescue {
            session: job.session,
            group: job.group,
            let_go_at_ms: self.let_go_at_ms,
            log: self.output.log.clone(),
            output: output.map(|status| FileId::of(&status)),
            members: job.members.iter().map(identity).collect(),
        };
        let recorded = match (&self.keeper.place, &self.journal) {
            (Ok(place), Ok(journal)) => {
                let rights = self.keeper.user.assume();
                let append = |_rights| journal.append_rescue(&place.directory, self.id, &rescue, &self.start);
                rights.and_then(append).map_err(reason)
            }
            (Err(error), _) => Err(error.to_string()),
            (_, Err(reason)) => Err(reason.clone()),
        };
        if let Err(fault) = &recorded {
            ui.warn(format!("cannot record job {}: {fault}", quote(self.start.name.as_os_str())));
        }
        recorded.is_ok()
    }

    /// Withdraws the record and removes the log, because nothing was done to the job. Called by the guardian as well:
    /// allocates nothing.
    pub fn take_back(&self) {
        if let (Ok(place), Ok(journal), Ok(_rights)) = (&self.keeper.place, &self.journal, self.keeper.user.assume()) {
            let _ = journal.append_rescue_withdrawal(&place.directory, self.id, self.let_go_at_ms);
        }
        self.remove_log();
    }

    /// Removes the log, if it is new.
    pub fn remove_log(&self) {
        let (Ok(place), Ok(_rights)) = (&self.keeper.place, self.keeper.user.assume()) else { return };
        if let (true, Some(log)) = (self.output.is_new, &self.output.log) {
            let _ = place.directory.remove(log.as_str());
        }
    }

    /// The job, and where its output goes.
    pub fn describe(&self, job: &RunningJob, ui: &Ui) -> String {
        let directory = self.keeper.place.as_ref().map_or(Path::new(""), |place| place.directory.path());
        let process = Process { session: job.session, log: self.output.log.clone(), tracker: None };
        let record = Record::new("", self.id, process, self.start.clone(), directory);
        format!("{} (PID {}), {}", quote(self.start.name.as_os_str()), ui.strong(self.id.pid), describe_output(&record))
    }
}
