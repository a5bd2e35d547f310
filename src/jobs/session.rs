//! Which processes of a job are running: those of its session.
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
use crate::jobs::journal::Entry;
use crate::jobs::record::JobId;
use crate::sys::exec::JOB_VARIABLE;
use crate::sys::proc::{self, Stat};
use crate::sys::process::Held;

/// What has become of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its first process is running.
    Running,
    /// Its first process is stopped, by a signal or a tracer.
    Stopped,
    /// Its first process has ended, and this many processes of its session are running. If there are none, its tracking
    /// process is about to record how the command ended.
    Left(usize),
    /// No process of its session is alive.
    Ended,
    /// It may be running on another machine or in another PID namespace that shares the state directory.
    Elsewhere,
}

impl State {
    /// Whether its first process is alive.
    pub fn has_first_process(self) -> bool {
        matches!(self, Self::Running | Self::Stopped)
    }
}

/// All processes that can be seen, at one moment: which there are, and in which sessions. Anything else is read from
/// /proc where it is needed, which takes a hundred times as long as getsid(2).
pub struct Processes {
    pids: HashSet<Pid>,
    by_session: HashMap<Pid, Vec<Pid>>,
}

impl Processes {
    pub fn look() -> nix::Result<Self> {
        let mut processes = Self { pids: HashSet::new(), by_session: HashMap::new() };
        for pid in proc::all_pids()? {
            // One that has ended since is left out.
            if let Ok(session) = getsid(Some(pid)) {
                processes.pids.insert(pid);
                processes.by_session.entry(session).or_default().push(pid);
            }
        }
        Ok(processes)
    }

    /// What has become of a job of this boot and this PID namespace.
    pub fn state_of(&self, entry: &Entry) -> State {
        match self.find(entry.id.pid, entry.id.start_time) {
            Some(stat) if stat.is_stopped() => State::Stopped,
            Some(_) => State::Running,
            None => match self.count_left(entry) {
                // How it ended will be recorded in a moment.
                0 if entry.end.is_none() && self.is_tracked(entry) => State::Left(0),
                0 => State::Ended,
                count => State::Left(count),
            },
        }
    }

    fn count_left(&self, entry: &Entry) -> usize {
        let members = self.by_session.get(&entry.process.session);
        members.into_iter().flatten().filter(|pid| proc::is_alive(**pid) && is_marked(**pid, &entry.id)).count()
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

    /// Whether the number is in use as that of a process, a process group or a session.
    pub fn use_number(&self, number: Pid) -> bool {
        let has_it =
            |pid: &Pid| *pid == number || getsid(Some(*pid)) == Ok(number) || getpgid(Some(*pid)) == Ok(number);
        self.pids.iter().any(|pid| has_it(pid) && proc::is_alive(*pid))
    }
}

/// How often, and how long, to wait until the environment of a process can be seen.
const TRIES: usize = 200;
const PAUSE: Duration = Duration::from_micros(500);
/// For a moment during an exec, the environment appears to be empty.
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
        // A process that has taken another user's rights may not be read. If it is younger than the job, it may well
        // belong to it: better a job that seems to run than one that runs and seems to have ended.
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

/// What the environment of all processes of the job says.
fn mark_of(id: &JobId) -> String {
    format!("{JOB_VARIABLE}={}-{}", id.pid, id.start_time)
}

fn contains(environment: &[u8], mark: &str) -> bool {
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

/// With one read(2), unless it is huge: an exec between two would leave out the rest.
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

/// How many living processes are in the session of this number, whosever they are.
pub fn count_in_session(session: Pid) -> usize {
    let is_in_it = |pid: &Pid| getsid(Some(*pid)) == Ok(session) && proc::is_alive(*pid);
    proc::all_pids().map_or(0, |pids| pids.iter().filter(|pid| is_in_it(pid)).count())
}

/// A living process of a job.
pub struct Member {
    /// The number of the job, among those that were asked about.
    pub job: usize,
    pub group: Pid,
    pub start_time: u64,
    pub process: Held,
}

/// The living processes of the sessions of these jobs, each held by a pidfd.
///
/// A process counts if it is the first of the job, or if its environment says that it belongs to the job. The others of
/// the session count as well if such a process is still alive after they have been held: then the session has been the
/// job's all the time.
pub fn find_members(jobs: &[&Job]) -> nix::Result<Vec<Member>> {
    let mut found: Vec<(Member, bool)> = Vec::new();
    for pid in proc::all_pids()? {
        let Ok(session) = getsid(Some(pid)) else { continue };
        let has_it = |job: &Job| job.is_visible && job.record.session == session;
        for (number, job) in jobs.iter().enumerate().filter(|(_, job)| has_it(job)) {
            let Some(stat) = proc::stat(pid)? else { continue };
            let is_it = |now: &Stat| now.session == stat.session && now.start_time == stat.start_time;
            let Some(process) = Held::if_is(pid, is_it)? else { continue };
            let is_first = (pid, stat.start_time) == (job.pid(), job.id().start_time);
            let is_certain = is_first || is_marked(pid, job.id());
            found.push((Member { job: number, group: stat.group, start_time: stat.start_time, process }, is_certain));
        }
    }
    let mut is_held = vec![false; jobs.len()];
    for (member, _) in found.iter().filter(|(_, is_certain)| *is_certain) {
        if let Some(is_held) = is_held.get_mut(member.job) {
            *is_held = *is_held || !member.process.has_ended();
        }
    }
    let counts =
        |(member, is_certain): (Member, bool)| (is_certain || is_held.get(member.job) == Some(&true)).then_some(member);
    Ok(found.into_iter().filter_map(counts).collect())
}

/// Waits until no process is left in the sessions of these jobs, at most until `deadline`. Returns what is left.
pub fn wait_for_end(jobs: &[&Job], deadline: Option<Instant>) -> nix::Result<Vec<Member>> {
    // A fork may slip through one look: the new process comes into the part of /proc that has been read.
    let mut looks_in_vain = 0;
    while looks_in_vain < 2 && !jobs.is_empty() {
        let living = find_members(jobs)?;
        looks_in_vain = if living.is_empty() { looks_in_vain + 1 } else { 0 };
        for member in &living {
            if !member.process.wait(deadline)? {
                return find_members(jobs);
            }
        }
    }
    Ok(Vec::new())
}
