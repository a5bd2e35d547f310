//! Jobs: what detach has started, what has become of it, and which job a PID, a name or a command line means.
//!
//! A job is a session: it is running as long as a process of its session lives, even if its first process has ended.
//! `journal` knows which jobs there are, `session` which of their processes are running. Each mode has a file of its
//! own.

mod belonging;
pub mod directory;
pub mod join;
pub mod journal;
pub mod list;
pub mod log;
pub mod name;
pub mod prune;
pub mod record;
mod rescued;
pub mod session;
pub mod stop;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::mem::take;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::{Pid, gethostname};
use serde::Deserialize;

use crate::error::Error;
use crate::jobs::directory::StateDirectory;
use crate::jobs::journal::{Contents, Entry};
use crate::jobs::record::{JobId, Record, Text};
use crate::jobs::session::{Search, State, find_states};
use crate::sys::proc;
use crate::term::text::{cut, quote, show_words};
use crate::term::ui::Ui;

/// More than init needs to wait for a process that has ended.
const TIME_TO_BE_REAPED: Duration = Duration::from_secs(1);
/// How many candidates an error names.
const CANDIDATES_SHOWN: usize = 5;
/// How much of a command line an error shows, in columns.
const COMMAND_SHOWN: usize = 40;
/// Why nothing can be done with a job that is elsewhere.
const ELSEWHERE: &str = "it was started on another machine or in another PID or time namespace";
/// The same for a job that is hidden.
const HIDDEN: &str = "/proc does not show its processes to this user";

/// A job, as it was when it was looked at.
pub struct Job {
    pub record: Record,
    pub state: State,
    /// Whether it belongs to this boot and to these namespaces, so that its processes can be seen.
    pub is_visible: bool,
}

impl Job {
    pub fn id(&self) -> &JobId {
        &self.record.id
    }

    pub fn pid(&self) -> Pid {
        self.record.id.pid
    }

    pub fn name(&self) -> &OsStr {
        self.record.name.as_os_str()
    }

    /// Why `verb` cannot be done with this job.
    pub fn error(&self, verb: &str, reason: &str) -> Error {
        Error::new(format!("cannot {verb} {}: {reason}", self.describe()))
    }

    /// `'make' (PID 4242)`
    pub fn describe(&self) -> String {
        format!("{} (PID {})", quote(self.name()), self.pid())
    }

    /// Fails where its processes cannot be seen.
    pub fn check_visible(&self, verb: &str) -> Result<(), Error> {
        match self.state {
            State::Elsewhere => Err(self.error(verb, ELSEWHERE)),
            State::Hidden => Err(self.error(verb, HIDDEN)),
            State::Running | State::Stopped | State::Left(_) | State::Ended => Ok(()),
        }
    }

    /// Fails if a process of the job may be alive although none is visible. It also looks like that while the first
    /// process is a zombie, so this waits a moment for that to pass.
    pub fn check_ended(&self, verb: &str) -> Result<(), Error> {
        let limit = Instant::now() + TIME_TO_BE_REAPED;
        while self.is_visible && session::may_be_hidden(self.pid(), self.record.session) {
            if Instant::now() >= limit {
                return Err(self.error(verb, HIDDEN));
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The number of its process group.
    pub fn group(&self) -> Pid {
        self.record.rescue.as_ref().map_or(self.pid(), |rescue| rescue.group)
    }

    /// The command line, safe to show.
    pub fn command_line(&self) -> String {
        show_words(self.record.argv.iter().map(Text::as_os_str))
    }
}

/// How many jobs a name may mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The newest, to read about it.
    Newest(&'static str),
    /// The only one that is running, to do something with it; else the newest that has ended.
    Only(&'static str),
}

/// An entry of a journal, and what has become of the job.
pub struct Known {
    /// The number of the journal.
    pub journal: usize,
    pub entry: Entry,
    pub state: State,
    pub is_visible: bool,
}

/// All jobs of this user, the oldest first.
pub struct Jobs<'a> {
    pub directory: StateDirectory,
    /// Their entries have been moved to `known`.
    pub journals: Vec<Contents>,
    pub known: Vec<Known>,
    /// The names of the logs in the directory.
    pub logs: Vec<OsString>,
    /// Whether every line of the journals could be read.
    pub is_complete: bool,
    ui: &'a Ui,
}

/// A part of `record::Start`.
#[derive(Deserialize)]
struct WithHost {
    host: Text,
}

/// A part of `record::Start`.
#[derive(Deserialize)]
struct WithName {
    name: Text,
}

/// What decides whether the processes of a job can be seen.
struct Here {
    pid_namespace: u64,
    boot_id: String,
    time_namespace: Option<u64>,
    host: Text,
}

impl Here {
    fn find() -> Result<Self, Error> {
        Ok(Self {
            pid_namespace: proc::visible_pid_namespace().map_err(Error::proc)?,
            boot_id: proc::boot_id().map_err(|errno| Error::step("find the ID of this boot in /proc", errno))?,
            time_namespace: proc::time_namespace().ok(),
            host: Text::from(&gethostname().unwrap_or_default()),
        })
    }

    /// A job, as far as the journal of this number tells: a job of this boot may run.
    fn look_at(&self, entry: Entry, journal: usize, contents: &Contents) -> Known {
        let is_this_boot = contents.boot_id == self.boot_id;
        let is_elsewhere = if is_this_boot {
            entry.id.pid_namespace != Some(self.pid_namespace)
                || entry.id.time_namespace.is_some() && entry.id.time_namespace != self.time_namespace
        } else {
            contents.parse_start::<WithHost>(&entry).is_ok_and(|start| start.host != self.host)
        };
        // The end of its first process says nothing about the others.
        let may_run = is_elsewhere && entry.session_ended_at_ms.is_none();
        let state = if may_run { State::Elsewhere } else { State::Ended };
        Known { journal, entry, state, is_visible: is_this_boot && !is_elsewhere }
    }
}

/// Reads all journals, that of this boot last.
fn read_journals(
    directory: &StateDirectory,
    names: &[OsString],
    here: &Here,
    warn: &mut impl FnMut(Error),
) -> Vec<Contents> {
    let mut boots = Contents::boots_in(names);
    // A prune may have renamed the journal while the names were read.
    if !boots.contains(&here.boot_id) {
        boots.push(here.boot_id.clone());
    }
    let mut journals = Vec::new();
    for boot in boots {
        match Contents::read(directory, &boot, &mut *warn) {
            Ok(contents) => journals.push(contents),
            Err(error) => warn(error),
        }
    }
    // The clock may have been wrong in an earlier boot, but this one is the newest.
    journals.sort_by_key(|contents| {
        let newest = contents.entries.iter().map(|entry| entry.id.started_at_ms).max();
        (contents.boot_id == here.boot_id, newest)
    });
    journals
}

impl<'a> Jobs<'a> {
    /// Reads the journals and looks at /proc; `None` when no job has ever been started.
    pub fn find(ui: &'a Ui) -> Result<Option<Self>, Error> {
        StateDirectory::find()?.map(|directory| Self::find_in(directory, ui)).transpose()
    }

    /// Like [`Jobs::find`], in this state directory.
    pub fn find_in(directory: StateDirectory, ui: &'a Ui) -> Result<Self, Error> {
        let names = directory.list()?;
        let here = Here::find()?;
        let mut is_complete = true;
        let mut warn = |error| {
            ui.warn(error);
            is_complete = false;
        };
        let mut journals = read_journals(&directory, &names, &here, &mut warn);
        let mut known = Vec::with_capacity(journals.iter().map(|contents| contents.entries.len()).sum());
        for (journal, contents) in journals.iter_mut().enumerate() {
            let mut entries = take(&mut contents.entries);
            entries.sort_unstable_by_key(|entry| (entry.detached_at_ms(), entry.id.started_at_ms, entry.id.pid));
            known.extend(entries.into_iter().map(|entry| here.look_at(entry, journal, contents)));
        }
        // After the journals were read: otherwise, a job that was started in between would seem to have ended.
        find_running(&mut known)?;
        let is_log = |name: &OsString| name.as_encoded_bytes().ends_with(b".log");
        let logs = names.into_iter().filter(is_log).collect();
        Ok(Self { directory, journals, known, logs, is_complete, ui })
    }

    /// Like [`Jobs::find`], to look for the job `wanted`.
    pub fn find_for(wanted: Option<&OsStr>, ui: &'a Ui) -> Result<Self, Error> {
        Self::find(ui)?.ok_or_else(|| no_job(wanted))
    }

    /// Everything that is known of a job; `None`, with a warning, if its record cannot be read.
    pub fn load(&self, known: &Known) -> Option<Job> {
        let contents = self.journals.get(known.journal)?;
        match contents.load(&known.entry, &self.directory) {
            Ok(record) => Some(Job { record, state: known.state, is_visible: known.is_visible }),
            Err(reason) => {
                let path = self.directory.path().join(format!("{}.jsonl", contents.boot_id));
                self.ui.warn(Error::refused(&format!("read job {} of", known.entry.id.pid), path, &reason));
                None
            }
        }
    }

    /// The jobs that have not ended.
    pub fn living(&self) -> impl DoubleEndedIterator<Item = &Known> {
        self.known.iter().filter(|known| known.state != State::Ended)
    }

    /// The job that `wanted` means: a PID, or else a name, or else, unless it is a number, a part of the command line
    /// of only one job. Without a word, the newest job.
    pub fn choose(&self, wanted: Option<&OsStr>, choice: Choice) -> Result<Job, Error> {
        let Some(wanted) = wanted else {
            let newest = self.known.iter().rev().find_map(|known| self.load(known));
            return newest.ok_or_else(|| no_job(None));
        };
        let pid = parse_pid(wanted);
        let mut matching: Vec<&Known> = self.known.iter().filter(|known| Some(known.entry.id.pid) == pid).collect();
        if matching.is_empty() {
            matching = self.named(wanted).collect();
        }
        // A number that is not the PID of a job would match ports, durations and the like in command lines.
        let is_part = matching.is_empty() && pid.is_none();
        if is_part {
            matching = self.with_part_of_command_line(wanted);
        }
        let living: Vec<&Known> = matching.iter().copied().filter(|known| known.state != State::Ended).collect();
        let candidates = if living.is_empty() && is_part { &matching } else { &living };
        let (Choice::Newest(verb) | Choice::Only(verb)) = choice;
        if candidates.len() > 1 && (is_part || matches!(choice, Choice::Only(_))) {
            return Err(self.ambiguous(verb, wanted, candidates));
        }
        let chosen = match choice {
            Choice::Only(_) => living.last().or(matching.last()),
            Choice::Newest(_) => matching.last(),
        };
        chosen.and_then(|known| self.load(known)).ok_or_else(|| self.not_found(wanted))
    }

    /// The error for `wanted`, which means no job: it may be another process of one.
    fn not_found(&self, wanted: &OsStr) -> Error {
        match parse_pid(wanted).and_then(|pid| self.find_owner(pid)) {
            Some(job) => {
                Error::new(format!("cannot find job {}: it is a process of {}", quote(wanted), job.describe()))
                    .with_hint(format!("use the PID of the job, {}", job.pid()))
            }
            None => no_job(Some(wanted)),
        }
    }

    /// The job that this process belongs to.
    fn find_owner(&self, pid: Pid) -> Option<Job> {
        let mut running = self.living().filter(|known| known.is_visible).filter_map(|known| self.load(known));
        running.find(|job| {
            let members = Search::new(&[job]).look().unwrap_or_default();
            members.iter().any(|member| member.process.pid == pid)
        })
    }

    /// The jobs of this name.
    pub fn named(&self, name: &OsStr) -> impl DoubleEndedIterator<Item = &Known> {
        self.known.iter().filter(move |known| {
            let contents = self.journals.get(known.journal);
            let start = contents.and_then(|contents| contents.parse_start::<WithName>(&known.entry).ok());
            start.is_some_and(|start| start.name.as_os_str() == name)
        })
    }

    fn with_part_of_command_line(&self, part: &OsStr) -> Vec<&Known> {
        let Some(part) = part.to_str().filter(|part| !part.is_empty()) else { return Vec::new() };
        let has_part = |known: &&Known| self.load(known).is_some_and(|job| job.command_line().contains(part));
        self.known.iter().filter(has_part).collect()
    }

    fn ambiguous(&self, verb: &str, wanted: &OsStr, candidates: &[&Known]) -> Error {
        let jobs: Vec<Job> = candidates.iter().rev().take(CANDIDATES_SHOWN).filter_map(|it| self.load(it)).collect();
        let show = |job: &Job| format!("{} ({})", job.pid(), cut(&job.command_line(), COMMAND_SHOWN));
        let shown = jobs.iter().map(show).collect::<Vec<_>>().join(", ");
        let more = match candidates.len().saturating_sub(CANDIDATES_SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Error::new(format!("cannot {verb} {}: several jobs match: {shown}{more}", quote(wanted)))
            .with_hint("use the PID of one of them")
    }
}

/// Finds out what has become of those jobs whose processes can be seen.
fn find_running(known: &mut [Known]) -> Result<(), Error> {
    let entries = known.iter().filter(|known| known.is_visible).map(|known| &known.entry);
    let states = find_states(entries).map_err(Error::proc)?;
    for (known, state) in known.iter_mut().filter(|known| known.is_visible).zip(states) {
        known.state = state;
    }
    // Where PIDs are few, two jobs can have the same PID and the same start time: then the older one has ended.
    let mut living = HashSet::new();
    for known in known.iter_mut().rev().filter(|known| known.is_visible && known.state != State::Ended) {
        if !living.insert((known.entry.id.pid, known.entry.id.start_time)) {
            known.state = State::Ended;
        }
    }
    Ok(())
}

/// The PIDs of the processes to check: the process or job that `wanted` means, else the newest running job. If the
/// first process of a job has ended, these are all processes that are left.
pub fn find_for_check(wanted: Option<&OsStr>, ui: &Ui) -> Result<Vec<Pid>, Error> {
    const VERB: &str = "check";
    let Some(wanted) = wanted else {
        let nothing = || Error::new("cannot check anything: no PID or JOB is given, and no job is running");
        let jobs = Jobs::find(ui)?.ok_or_else(nothing)?;
        let is_running = |known: &&Known| !matches!(known.state, State::Hidden | State::Elsewhere | State::Left(0));
        let newest = jobs.living().rev().filter(is_running).find_map(|known| jobs.load(known));
        return list_to_check(&newest.ok_or_else(nothing)?);
    };
    let Some(pid) = parse_pid(wanted) else {
        let job = Jobs::find_for(Some(wanted), ui)?.choose(Some(wanted), Choice::Newest(VERB))?;
        job.check_visible(VERB)?;
        return if matches!(job.state, State::Ended | State::Left(0)) {
            Err(job.error(VERB, "it has ended"))
        } else {
            list_to_check(&job)
        };
    };
    // Any process may be meant. One that has ended may have left others of its job.
    let left = if proc::is_alive(pid) { None } else { Jobs::find(ui)? };
    let is_left = |known: &&Known| known.entry.id.pid == pid && matches!(known.state, State::Left(1..));
    match left.as_ref().and_then(|jobs| jobs.load(jobs.living().find(is_left)?)) {
        Some(job) => list_to_check(&job),
        None => Ok(vec![pid]),
    }
}

/// The first process of a job, or else all that are left of it.
fn list_to_check(job: &Job) -> Result<Vec<Pid>, Error> {
    if job.state.has_first_process() {
        return Ok(vec![job.pid()]);
    }
    let members = Search::new(&[job]).look().map_err(Error::proc)?;
    let pids: Vec<Pid> = members.iter().map(|member| member.process.pid).collect();
    if pids.is_empty() { Err(job.error("check", "it has ended")) } else { Ok(pids) }
}

/// The PID that `text` is, if it is one.
pub fn parse_pid(text: &OsStr) -> Option<Pid> {
    let digits = text.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|pid| *pid > 0).map(Pid::from_raw)
}

/// The error if `job` means no job, or if there are no jobs.
fn no_job(job: Option<&OsStr>) -> Error {
    let Some(job) = job else { return Error::new("cannot find a job: none has been started yet") };
    let is_process = parse_pid(job).is_some_and(proc::is_alive);
    let reason = if is_process { "it was not started by detach" } else { "no job has this PID, name or command line" };
    Error::new(format!("cannot find job {}: {reason}", quote(job))).with_hint("see 'detach --list --all'")
}
