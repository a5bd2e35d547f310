//! Which processes of a job are running: those of its session; `rescued` knows those of a job that has none of its own.
//!
//! The number of a session is not reused while a process is in it: credentials(7). Once the first process of a job has
//! ended, the others are recognized by `DETACH_JOB=PID-STARTTIME` in their environment, so that a reused session number
//! is never taken for the job.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::{Pid, getpgid, getsid};

use crate::jobs::Job;
use crate::jobs::belonging::Belonging;
use crate::jobs::journal::Entry;
use crate::jobs::record::{JobId, Rescue};
use crate::jobs::rescued;
use crate::sys::census::Census;
use crate::sys::exec::JOB_VARIABLE;
use crate::sys::proc::{self, Stat};
use crate::sys::process::{Held, raise_descriptor_limit};

/// What has become of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its first process is running.
    Running,
    /// Its first process is stopped, by a signal or a tracer.
    Stopped,
    /// Its first process has ended, and this many processes of its session are running. If there are none, its tracking
    /// process is about to record how the command ended, or it cannot be seen whether any is running.
    Left(usize),
    /// No process of its session is alive.
    Ended,
    /// A process of it may be alive, but /proc does not show it: `hidepid` in proc(5).
    Hidden,
    /// It may be running on another machine or in another PID or time namespace that shares the state directory.
    Elsewhere,
}

impl State {
    /// Whether its first process is alive.
    pub fn has_first_process(self) -> bool {
        matches!(self, Self::Running | Self::Stopped)
    }
}

/// A look that finds no process may have missed one, so there is another; but only so many, since processes may be
/// created all the time.
pub const MOST_LOOKS: usize = 100;
/// Between two looks.
const TIME_BETWEEN_LOOKS: Duration = Duration::from_micros(500);

/// What has become of these jobs of this boot and this PID namespace.
pub fn find_states<'e>(entries: impl Iterator<Item = &'e Entry>) -> nix::Result<Vec<State>> {
    let mut states: Vec<(&Entry, Option<State>)> = entries.map(|entry| (entry, None)).collect();
    let mut processes = Processes::default();
    for _ in 0..MOST_LOOKS {
        processes.look()?;
        for (entry, state) in states.iter_mut().filter(|(_, state)| state.is_none()) {
            *state = processes.state_of(entry);
        }
        if states.iter().all(|(_, state)| state.is_some()) {
            break;
        }
    }
    // Not known to have ended.
    Ok(states.into_iter().map(|(_, state)| state.unwrap_or(State::Left(0))).collect())
}

/// All processes that can be seen, at one moment: which there are, and in which sessions. Anything else is read from
/// /proc where it is needed, which takes a hundred times as long as getsid(2).
#[derive(Default)]
pub struct Processes {
    census: Census,
    pids: HashSet<Pid>,
    by_session: HashMap<Pid, Vec<Pid>>,
    /// Whether there are no others.
    are_all: bool,
}

impl Processes {
    /// Replaces the previous look.
    pub fn look(&mut self) -> nix::Result<()> {
        self.pids.clear();
        self.by_session.clear();
        self.are_all = proc::shows_all();
        for pid in self.census.pass()? {
            // One that has ended since is left out.
            if let Ok(session) = getsid(Some(pid)) {
                self.pids.insert(pid);
                self.by_session.entry(session).or_default().push(pid);
            }
        }
        Ok(())
    }

    /// What has become of a job of this boot and this PID namespace; `None` where it seems to have ended, but a process
    /// of it may have been missed.
    fn state_of(&self, entry: &Entry) -> Option<State> {
        match self.find(entry.id.pid, entry.id.start_time) {
            Some(stat) if stat.is_stopped() => Some(State::Stopped),
            Some(_) => Some(State::Running),
            None => match self.count_left(entry) {
                0 if !self.show_session(entry.process.session) => None,
                0 if self.may_hide(entry) => Some(State::Hidden),
                // How it ended will be recorded in a moment.
                0 if entry.end.is_none() && self.is_tracked(entry) => Some(State::Left(0)),
                0 => Some(State::Ended),
                count => Some(State::Left(count)),
            },
        }
    }

    /// Whether no process of this session is missing. One that has ended since the look may have made another, which
    /// one of the next passes shows.
    fn show_session(&self, session: Pid) -> bool {
        let mut members = self.by_session.get(&session).into_iter().flatten();
        self.census.is_complete()
            && (members.all(|pid| proc::is_alive(*pid)) || self.census.is_current() || self.census.is_certain())
    }

    fn count_left(&self, entry: &Entry) -> usize {
        let in_session = self.by_session.get(&entry.process.session).into_iter().flatten();
        match &entry.rescue {
            None => in_session.filter(|pid| proc::is_alive(**pid) && is_marked(**pid, &entry.id)).count(),
            Some(rescue) => self.count_rescued(rescue, in_session),
        }
    }

    fn count_rescued<'p>(&self, rescue: &Rescue, in_session: impl Iterator<Item = &'p Pid>) -> usize {
        let let_go = rescue.members.iter().map(|member| member.pid).filter(|pid| self.pids.contains(pid));
        let pids: HashSet<Pid> = in_session.copied().chain(let_go).collect();
        let living = pids.into_iter().filter_map(|pid| {
            let stat = proc::stat(pid).ok()??;
            (!stat.is_dead()).then(|| rescued::judge(rescue, pid, &stat))
        });
        let living: Vec<Belonging> = living.collect();
        let is_certain = living.contains(&Belonging::Certain);
        living.into_iter().filter(|belonging| belonging.counts(is_certain)).count()
    }

    /// Whether a process of the job may be alive, but not visible. Some `hidepid` modes leave the PIDs visible.
    fn may_hide(&self, entry: &Entry) -> bool {
        if self.are_all || entry.session_ended_at_ms.is_some() {
            return false;
        }
        let session = entry.process.session;
        let is_hidden = |pid: &Pid| proc::stat(*pid) == Ok(None) && proc::exists(*pid);
        may_be_hidden(entry.id.pid, session) || self.by_session.get(&session).into_iter().flatten().any(is_hidden)
    }

    /// Whether the tracking process of a job lives, which may still record how the command ended.
    pub fn is_tracked(&self, entry: &Entry) -> bool {
        entry.process.tracker.is_some_and(|tracker| self.find(tracker.pid, tracker.start_time).is_some())
    }

    /// The living process with this PID and start time.
    pub fn find(&self, pid: Pid, start_time: u64) -> Option<Stat> {
        let stat = self.pids.contains(&pid).then(|| proc::stat(pid).ok()).flatten().flatten()?;
        (stat.start_time == start_time && !stat.is_dead()).then_some(stat)
    }

    /// Whether the number may be in use as that of a process, a process group or a session.
    pub fn may_use_number(&self, number: Pid) -> bool {
        let has_it =
            |pid: &Pid| *pid == number || getsid(Some(*pid)) == Ok(number) || getpgid(Some(*pid)) == Ok(number);
        !self.are_all || self.pids.iter().any(|pid| has_it(pid) && proc::is_alive(*pid))
    }
}

/// How often, and how long, to wait until the environment of a process can be seen.
const TRIES: usize = 200;
const PAUSE: Duration = Duration::from_micros(500);
/// How many looks in a row must find none: for a moment during an exec, the environment appears to be empty.
const LOOKS_IN_VAIN: usize = 4;
/// In bytes: more than nearly every environment has.
const READ_AT_ONCE: usize = 256 * 1024;

/// Whether the environment of the process says that it belongs to the job.
fn is_marked(pid: Pid, id: &JobId) -> bool {
    let mark = mark_of(id);
    let mut environment = read_environment(pid);
    let mut looks_in_vain = 0;
    for _ in 0..TRIES {
        if !environment.as_ref().is_ok_and(Vec::is_empty) || looks_in_vain == LOOKS_IN_VAIN {
            break;
        }
        looks_in_vain = if may_have_environment(pid) { 0 } else { looks_in_vain + 1 };
        sleep(PAUSE);
        environment = read_environment(pid);
    }
    match environment {
        Ok(environment) => contains(&environment, &mark),
        // The environment of a process that runs as another user cannot be read. If it is younger than the job, it may
        // well belong to it: better a job that seems to run than one that runs and seems to have ended.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            proc::stat(pid).is_ok_and(|stat| stat.is_some_and(|stat| stat.start_time >= id.start_time))
        }
        Err(_) => false,
    }
}

/// The processes that a job has started and that have left its session: setsid(2). They no longer belong to the job. A
/// process whose environment cannot be read is left out: nothing is guessed.
pub fn find_departed(job: &Job) -> nix::Result<Vec<Pid>> {
    let mark = mark_of(job.id());
    let has_left = |pid: &Pid| {
        // Session 0 is that of the kernel's own threads.
        let is_elsewhere =
            getsid(Some(*pid)).is_ok_and(|session| session != job.record.session && session.as_raw() != 0);
        is_elsewhere && read_environment(*pid).is_ok_and(|it| contains(&it, &mark)) && proc::is_alive(*pid)
    };
    Ok(if job.is_visible { proc::all_pids()?.into_iter().filter(has_left).collect() } else { Vec::new() })
}

/// The entry in the environment that marks the processes of the job.
fn mark_of(id: &JobId) -> String {
    format!("{JOB_VARIABLE}={}-{}", id.pid, id.start_time)
}

fn contains(environment: &[u8], mark: &str) -> bool {
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

/// With one read(2), unless it is huge: an exec between two reads would cut off the rest.
fn read_environment(pid: Pid) -> io::Result<Vec<u8>> {
    let mut file = File::open(format!("/proc/{pid}/environ"))?;
    let mut environment = vec![0; READ_AT_ONCE];
    let length = file.read(&mut environment)?;
    environment.truncate(length);
    if length == READ_AT_ONCE {
        file.read_to_end(&mut environment)?;
    }
    Ok(environment)
}

/// Whether a living process whose environment appears to be empty may have one all the same: in the middle of an exec,
/// and just before the process ends, it cannot be seen. Fields 50 and 51 of /proc/PID/stat say where it begins and
/// ends.
fn may_have_environment(pid: Pid) -> bool {
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(|byte| *byte == b')').next().unwrap_or_default();
    let mut fields = after_name.split(u8::is_ascii_whitespace).skip(48);
    let (begin, end) = (fields.next(), fields.next());
    let is_known_to_be_empty = begin == end && begin != Some(b"0");
    !is_known_to_be_empty && proc::is_alive(pid)
}

/// How many living processes are in the session of this number, of any user; `None` if that is unknown.
pub fn count_in_session(session: Pid) -> Option<usize> {
    let is_in_it = |pid: &Pid| getsid(Some(*pid)) == Ok(session) && proc::is_alive(*pid);
    let mut census = Census::default();
    for _ in 0..MOST_LOOKS {
        let count = census.pass().ok()?.filter(is_in_it).count();
        if count > 0 || census.is_complete() {
            return (count > 0 || proc::shows_all()).then_some(count);
        }
    }
    None
}

/// Whether a process of the job may be alive, although /proc shows none of them. Its first process cannot leave the
/// session, because it leads a process group: setsid(2). What is left after its end is found by that group.
pub fn may_be_hidden(pid: Pid, session: Pid) -> bool {
    if proc::shows_all() || proc::is_alive(pid) {
        return false;
    }
    getsid(Some(pid)).map_or_else(|_| proc::is_group(pid), |its| its == session)
}

/// A living process of a job.
pub struct Member {
    /// The number of the job, among those that were asked about.
    pub job: usize,
    pub group: Pid,
    pub start_time: u64,
    pub process: Held,
}

/// The living processes of these jobs, each held by a pidfd.
///
/// A process counts if it is the first of the job, or if its environment says that it belongs to the job. The others of
/// the session count as well if such a process is still alive after they have been held: then the session has been the
/// job's all the time.
fn find_members(jobs: &[&Job], census: &mut Census) -> nix::Result<Vec<Member>> {
    let mut found: Vec<(Member, Belonging)> = Vec::new();
    for pid in census.pass()? {
        let Ok(session) = getsid(Some(pid)) else { continue };
        let may_have_it = |job: &Job| match &job.record.rescue {
            None => job.record.session == session,
            Some(rescue) => rescued::may_have(rescue, pid, session),
        };
        let has_it = |job: &Job| job.is_visible && may_have_it(job);
        for (number, job) in jobs.iter().enumerate().filter(|(_, job)| has_it(job)) {
            let Some(stat) = proc::stat(pid)? else { continue };
            let is_it = |now: &Stat| now.session == stat.session && now.start_time == stat.start_time;
            let Some(process) = Held::if_is(pid, is_it)? else { continue };
            let is_first = (pid, stat.start_time) == (job.pid(), job.id().start_time);
            let belonging = match &job.record.rescue {
                None if is_first || is_marked(pid, job.id()) => Belonging::Certain,
                None => Belonging::IfOthersDo,
                Some(rescue) => rescued::judge(rescue, pid, &stat),
            };
            found.push((Member { job: number, group: stat.group, start_time: stat.start_time, process }, belonging));
        }
    }
    let certain =
        found.iter().filter(|(member, belonging)| *belonging == Belonging::Certain && !member.process.has_ended());
    let held: HashSet<usize> = certain.map(|(member, _)| member.job).collect();
    let counts =
        |(member, belonging): (Member, Belonging)| belonging.counts(held.contains(&member.job)).then_some(member);
    Ok(found.into_iter().filter_map(counts).collect())
}

/// Looks for the living processes of jobs, again and again.
pub struct Search<'a> {
    jobs: &'a [&'a Job],
    census: Census,
    /// How many looks in a row have found none.
    looks_in_vain: usize,
    is_conclusive: bool,
}

impl<'a> Search<'a> {
    pub fn new(jobs: &'a [&'a Job]) -> Self {
        // A descriptor for each process.
        raise_descriptor_limit();
        Self { jobs, census: Census::default(), looks_in_vain: 0, is_conclusive: false }
    }

    pub fn look(&mut self) -> nix::Result<Vec<Member>> {
        let members = find_members(self.jobs, &mut self.census)?;
        self.looks_in_vain = if members.is_empty() { self.looks_in_vain + 1 } else { 0 };
        self.is_conclusive = if members.is_empty() {
            self.looks_in_vain >= self.census.passes_that_agree()
        } else {
            self.census.is_complete()
        };
        Ok(members)
    }

    /// Whether the last look has missed no process, so that the jobs have ended if it has found none.
    pub fn is_conclusive(&self) -> bool {
        self.is_conclusive
    }
}

/// What is left of jobs.
pub struct Left {
    pub members: Vec<Member>,
    /// Whether there are no others.
    pub are_all: bool,
}

/// Waits until no process is left in the sessions of these jobs, at most until `deadline`.
pub fn wait_for_end(jobs: &[&Job], deadline: Option<Instant>) -> nix::Result<Left> {
    let mut search = Search::new(jobs);
    let mut late_looks = 0;
    loop {
        let members = search.look()?;
        let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        late_looks += usize::from(is_late);
        let are_all = search.is_conclusive();
        if are_all && (members.is_empty() || is_late) || late_looks > MOST_LOOKS {
            return Ok(Left { members, are_all });
        }
        if members.is_empty() {
            sleep(TIME_BETWEEN_LOOKS);
        }
        for member in members {
            if !member.process.wait(deadline)? {
                break;
            }
        }
    }
}
