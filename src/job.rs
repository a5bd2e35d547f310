//! Jobs: what detach has started, what has become of it, and which of them a PID or a name means.
//!
//! The name of a record tells whose it is, so only the records that are asked for are opened. A record that cannot be
//! read is skipped with a warning; it hides no other. How records are stored is in `state`.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

use nix::unistd::{Pid, gethostname};

use crate::error::{Error, escape, quote};
use crate::proc::{self, Identity};
use crate::record::{Destination, Record, Text};
use crate::state::{Listing, StateDirectory, record_name};
use crate::table::cut;
use crate::ui::Ui;

/// What has become of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Running,
    /// By a signal or a tracer.
    Stopped,
    /// How, its record may tell.
    Ended,
    /// It may run on another machine, or in another PID namespace, that shares this directory.
    Elsewhere,
}

/// A job, as it was when it was looked at.
pub struct Job {
    pub identity: Identity,
    pub record: Record,
    pub state: State,
}

impl Job {
    pub fn pid(&self) -> Pid {
        self.identity.pid
    }

    pub fn name(&self) -> &OsStr {
        self.record.name.as_os_str()
    }

    /// Why `verb` cannot be done with this job.
    pub fn error(&self, verb: &'static str, reason: impl Into<String>) -> Error {
        Error::Job { verb, name: self.name().to_owned(), pid: self.pid(), reason: reason.into(), hint: None }
    }

    /// `'make', PID 4242`
    pub fn describe(&self) -> String {
        format!("{}, PID {}", quote(self.name()), self.pid())
    }

    /// The command line, safe to show. A word that a shell would not take as it is stands in quotes.
    pub fn command_line(&self) -> String {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(byte) || *byte >= 0x80;
        let show = |word: &Text| {
            let bytes = word.as_os_str().as_encoded_bytes();
            if !bytes.is_empty() && bytes.iter().all(is_plain) { escape(bytes, "") } else { quote(word.as_os_str()) }
        };
        self.record.argv.iter().map(show).collect::<Vec<_>>().join(" ")
    }
}

/// Why nothing can be done with a job in that state.
pub const ELSEWHERE: &str = "it was started on another machine, or in another PID namespace";

/// How many jobs a name may mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The newest of them, to read about it.
    Newest,
    /// The only one that runs, to do something with it.
    Only(&'static str),
}

/// All jobs of this user.
pub struct Jobs<'a> {
    pub directory: StateDirectory,
    /// Those that have not ended.
    living: Vec<(Identity, State)>,
    pub ended: Vec<Identity>,
    /// The other files in the directory.
    pub files: Listing,
    /// Whose records could not be read so far.
    unreadable: RefCell<Vec<Pid>>,
    /// Where this is: boot, PID namespace and machine.
    boot_id: String,
    pid_namespace: u64,
    host: OsString,
    ui: &'a Ui,
}

impl<'a> Jobs<'a> {
    /// Looks at the directory and at /proc; `None` when no job has ever been started.
    pub fn find(ui: &'a Ui) -> Result<Option<Self>, Error> {
        let Some(directory) = StateDirectory::find()? else { return Ok(None) };
        let mut files = directory.list()?;
        for name in &files.foreign {
            ui.warn(unreadable(&directory, name, "this is not the name of a record"));
        }
        let records = std::mem::take(&mut files.records);
        let mut jobs = Self {
            directory,
            living: Vec::new(),
            ended: Vec::new(),
            files,
            unreadable: RefCell::default(),
            boot_id: proc::boot_id().map_err(Error::proc)?,
            pid_namespace: proc::visible_pid_namespace().map_err(Error::proc)?,
            host: gethostname().unwrap_or_default(),
            ui,
        };
        let pids: HashSet<Pid> = proc::all_pids().map_err(Error::proc)?.into_iter().collect();
        for identity in records {
            match if pids.contains(&identity.pid) { jobs.state_of(&identity)? } else { State::Ended } {
                State::Ended => jobs.ended.push(identity),
                state => jobs.living.push((identity, state)),
            }
        }
        Ok(Some(jobs))
    }

    /// As [`Jobs::find`], to look for the job `wanted`.
    pub fn find_for(wanted: &OsStr, ui: &'a Ui) -> Result<Self, Error> {
        Self::find(ui)?.ok_or_else(|| no_job(wanted))
    }

    /// The jobs that all of `wanted` mean, to do something with them.
    pub fn choose_all(wanted: &[OsString], verb: &'static str, ui: &'a Ui) -> Result<(Self, Vec<Job>), Error> {
        let jobs = Self::find_for(wanted.first().map_or(OsStr::new(""), OsString::as_os_str), ui)?;
        let chosen = wanted.iter().map(|job| jobs.choose(job, Choice::Only(verb))).collect::<Result<_, _>>()?;
        Ok((jobs, chosen))
    }

    /// What has become of a process. Its PID alone says nothing: that may be another one's by now, or have been one's
    /// before a reboot.
    fn state_of(&self, identity: &Identity) -> Result<State, Error> {
        if !self.is_of_this_boot(identity) {
            return Ok(State::Ended);
        }
        let stat = proc::stat(identity.pid).map_err(Error::proc)?;
        Ok(match stat.filter(|stat| stat.start_time == identity.start_time) {
            Some(stat) if stat.is_stopped() => State::Stopped,
            Some(stat) if !stat.is_dead() => State::Running,
            _ => State::Ended,
        })
    }

    /// The job of `identity`; `None`, with a warning, when its record cannot be read.
    pub fn load(&self, identity: &Identity, state: State) -> Option<Job> {
        match self.directory.load(identity) {
            Ok(record) => {
                let record = record?;
                let state = match record.end {
                    // It may have ended since.
                    Some(_) => State::Ended,
                    None if self.is_elsewhere(&record) => State::Elsewhere,
                    None => state,
                };
                Some(Job { identity: identity.clone(), record, state })
            }
            Err(reason) => {
                self.ui.warn(unreadable(&self.directory, record_name(identity).as_ref(), &reason));
                self.unreadable.borrow_mut().push(identity.pid);
                None
            }
        }
    }

    /// Whether it is or was a process of the boot that runs.
    pub fn is_of_this_boot(&self, identity: &Identity) -> bool {
        self.boot_id == identity.boot_id
    }

    /// Whether the record is of processes that cannot be seen from here. Another boot of a machine of this name was an
    /// earlier one.
    fn is_elsewhere(&self, record: &Record) -> bool {
        if record.identity.as_ref().is_some_and(|identity| self.is_of_this_boot(identity)) {
            record.pid_namespace != Some(self.pid_namespace)
        } else {
            record.host.as_os_str() != self.host
        }
    }

    /// The processes whose records could not be read so far.
    pub fn unreadable(&self) -> Vec<Pid> {
        self.unreadable.borrow().clone()
    }

    /// The names, in this directory, of the files that its output goes to and that are wanted.
    pub fn files_of(&self, job: &Job, is_wanted: fn(&Destination) -> bool) -> Vec<OsString> {
        let wanted = job.record.output().into_iter().filter(|output| is_wanted(output));
        wanted.filter_map(|output| Some(self.directory.name_of(output.as_path()?)?.to_owned())).collect()
    }

    /// Whether the record may get the end of the job yet.
    pub fn is_tracked_still(&self, job: &Job) -> bool {
        let tracker = job.record.tracker.as_ref().filter(|_| job.record.end.is_none());
        tracker.is_some_and(|tracker| self.state_of(tracker).is_ok_and(|state| state != State::Ended))
    }

    /// All jobs that have not ended.
    pub fn living(&self) -> impl Iterator<Item = Job> {
        self.living.iter().filter_map(|(identity, state)| self.load(identity, *state))
    }

    /// The jobs that have ended, the one that was last heard of first.
    pub fn ended(&self) -> impl Iterator<Item = Job> {
        let mut ended: Vec<_> = self.ended.iter().map(|identity| (self.last_change(identity), identity)).collect();
        ended.sort_unstable_by_key(|(change, _)| Reverse(*change));
        ended.into_iter().filter_map(|(_, identity)| self.load(identity, State::Ended))
    }

    /// When the record was written, as seconds and nanoseconds: at the start, or at the end of a job that is tracked.
    fn last_change(&self, identity: &Identity) -> (i64, i64) {
        let status = self.directory.status(record_name(identity).as_ref());
        status.map_or((0, 0), |status| (status.st_mtime, status.st_mtime_nsec))
    }

    /// The job that `wanted` means: a PID, or a name where no job has this PID.
    pub fn choose(&self, wanted: &OsStr, choice: Choice) -> Result<Job, Error> {
        let pid = parse_pid(wanted);
        let is_it = |identity: &Identity| Some(identity.pid) == pid;
        let living = self.living.iter().filter(|(identity, _)| is_it(identity));
        let mut living: Vec<Job> = living.filter_map(|(identity, state)| self.load(identity, *state)).collect();
        let ended = self.ended.iter().filter(|identity| is_it(identity));
        let mut ended = ended.filter_map(|identity| self.load(identity, State::Ended)).max_by_key(by_start);
        if living.is_empty() && ended.is_none() {
            if pid.is_some_and(|pid| self.unreadable().contains(&pid)) {
                return Err(Error::NoJob { job: wanted.to_owned(), reason: "its record cannot be read" });
            }
            living = self.living().filter(|job| job.name() == wanted).collect();
            if choice == Choice::Newest || living.is_empty() {
                ended = self.ended().filter(|job| job.name() == wanted).max_by_key(by_start);
            }
        }
        match (choice, living.as_slice()) {
            (Choice::Only(verb), [_, _, ..]) => {
                living.sort_by_key(by_start);
                let show = |job: &Job| format!("{} ({})", job.pid(), cut(&job.command_line(), 40));
                let candidates = living.iter().map(show).collect();
                Err(Error::AmbiguousJob { verb, job: wanted.to_owned(), candidates })
            }
            (Choice::Only(_), [_]) => living.pop().ok_or_else(|| no_job(wanted)),
            _ => living.into_iter().chain(ended).max_by_key(by_start).ok_or_else(|| no_job(wanted)),
        }
    }
}

fn by_start(job: &Job) -> u64 {
    job.record.started_at_ms
}

/// The PID that `text` is, if it is one.
pub fn parse_pid(text: &OsStr) -> Option<Pid> {
    let digits = text.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|pid| *pid > 0).map(Pid::from_raw)
}

/// Nothing is called `job`.
fn no_job(job: &OsStr) -> Error {
    let is_process = parse_pid(job).is_some_and(proc::is_alive);
    let reason = if is_process { "detach has not started this process" } else { "none has this PID or name" };
    Error::NoJob { job: job.to_owned(), reason }
}

fn unreadable(directory: &StateDirectory, name: &OsStr, reason: &str) -> Error {
    Error::Path { verb: "read record", path: directory.path().join(name), reason: reason.to_owned() }
}
