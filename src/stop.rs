//! `--stop`: asks jobs to end, and ends what does not.
//!
//! A signal goes to a process that is held by a pidfd and was found in the job's session or process group after that,
//! so none ever reaches a process that has come to have the same number.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use crate::error::{Error, FAILED, reason};
use crate::human::{show_duration, signal_name};
use crate::job::{Choice, Job, Jobs, no_job};
use crate::pidfd::Held;
use crate::proc::{self, Identity, Stat};
use crate::ui::Ui;

const VERB: &str = "stop";
/// Processes that fork all the time are looked for that often, not for ever.
const MOST_LOOKS: usize = 100;
/// SIGKILL takes effect at once, but for a process that waits for a device or a file server.
const TIME_TO_DIE: Duration = Duration::from_secs(1);

/// What is sent to jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// SIGTERM, and after the time SIGKILL.
    End(Duration),
    /// The signal with this number, and nothing more.
    Signal(i32),
}

/// Sends the jobs `wanted` what `how` says, all before any is waited for. Returns the exit status.
pub fn stop(wanted: &[OsString], how: How, ui: &Ui) -> Result<u8, Error> {
    let Some(jobs) = Jobs::find(ui)? else { return Err(no_job(wanted.first().map_or("".as_ref(), |job| job))) };
    let mut chosen: Vec<Job> = Vec::new();
    for job in wanted {
        let job = jobs.choose(job, Choice::Only(VERB))?;
        if chosen.iter().all(|other| other.identity != job.identity) {
            chosen.push(job);
        }
    }
    let mut status = 0;
    let mut asked = Vec::new();
    for job in &chosen {
        match ask(job, how) {
            Ok(Some(session)) => asked.push((job, session)),
            Ok(None) => ui.note(format!("{} has ended already", job.describe())),
            Err(error) => {
                ui.error(&error);
                status = FAILED;
            }
        }
    }
    let begun = Instant::now();
    for (job, mut session) in asked {
        let result = match how {
            How::End(grace) => end(job, &mut session, begun, grace, ui),
            How::Signal(signal) => {
                ui.note(format!("sent {} to {}", signal_name(signal), job.describe()));
                Ok(())
            }
        };
        if let Err(error) = result {
            ui.error(&error);
            status = FAILED;
        }
    }
    Ok(status)
}

/// Sends the first signal to the process group of the job. `None`: it has ended already.
fn ask(job: &Job, how: How) -> Result<Option<Session>, Error> {
    let failed = |errno| refuse(job, errno);
    let Some(mut session) = Session::of(&job.identity).map_err(failed)? else { return Ok(None) };
    match how {
        How::End(_) => {
            session.signal(Reach::Group, libc::SIGTERM).map_err(failed)?;
            // One that is stopped would only see the signal when it is continued.
            session.signal(Reach::Group, libc::SIGCONT).map_err(failed)?;
        }
        How::Signal(signal) => session.signal(Reach::Group, signal).map_err(failed)?,
    }
    Ok(Some(session))
}

/// Waits until the session of the job is empty, and ends what is left of it after `grace`.
fn end(job: &Job, session: &mut Session, begun: Instant, grace: Duration, ui: &Ui) -> Result<(), Error> {
    let failed = |errno| refuse(job, errno);
    if session.wait(begun.checked_add(grace)).map_err(failed)? {
        ui.note(format!("{} ended after {}", job.describe(), show_duration(begun.elapsed())));
        return Ok(());
    }
    let left = session.living();
    session.signal(Reach::Session, libc::SIGKILL).map_err(failed)?;
    if !session.wait(Instant::now().checked_add(TIME_TO_DIE)).map_err(failed)? {
        return Err(cannot_stop(job, "it does not end, not even of SIGKILL".into(), None));
    }
    let others = match left.iter().filter(|pid| **pid != job.pid()).count() {
        0 => String::new(),
        1 => ", with one other process of its session".into(),
        count => format!(", with {count} other processes of its session"),
    };
    let grace = show_duration(grace);
    if left.contains(&job.pid()) {
        ui.warn(format!("killed {}, which did not end within {grace}{others}", job.describe()));
    } else {
        ui.warn(format!(
            "{} ended, but not all of its session within {grace}: killed {} more",
            job.describe(),
            left.len()
        ));
    }
    Ok(())
}

fn refuse(job: &Job, errno: Errno) -> Error {
    match errno {
        Errno::EPERM => cannot_stop(job, "it belongs to another user".into(), Some("try it as that user, or as root")),
        _ => cannot_stop(job, reason(errno), None),
    }
}

fn cannot_stop(job: &Job, reason: String, hint: Option<&'static str>) -> Error {
    Error::Job { verb: VERB, name: job.name().to_owned(), pid: job.pid(), reason, hint }
}

/// To whom a signal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// The process group that the command leads.
    Group,
    Session,
}

/// The session of a job: those of its processes that have been seen.
struct Session {
    /// The process of the command, which leads its group, and unless it is a daemon the session.
    command: Identity,
    number: Pid,
    members: Vec<Held>,
}

impl Session {
    /// The session of the process `identity`; `None` when that has ended.
    fn of(identity: &Identity) -> nix::Result<Option<Self>> {
        let Some(held) = Held::of(identity)? else { return Ok(None) };
        // Of the process that is held, as long as that lives: which is looked at after.
        let Some(stat) = proc::stat(identity.pid) else { return Ok(None) };
        if held.has_ended() {
            return Ok(None);
        }
        Ok(Some(Self { command: identity.clone(), number: stat.session, members: vec![held] }))
    }

    /// Sends `signal` to every process within `reach`, also to those that are forked meanwhile. Fails when none could
    /// be signalled.
    fn signal(&mut self, reach: Reach, signal: i32) -> nix::Result<()> {
        let mut known: Vec<Pid> = Vec::new();
        let (mut is_sent, mut refusal) = (false, None);
        for _ in 0..MOST_LOOKS {
            self.find_members()?;
            let new = self.members.iter().filter(|member| !known.contains(&member.pid) && !member.has_ended());
            let new: Vec<&Held> = new.filter(|member| reach == Reach::Session || self.is_in_group(member)).collect();
            if new.is_empty() {
                break;
            }
            for member in &new {
                match member.signal(signal) {
                    Ok(()) => is_sent = true,
                    Err(errno) => refusal = Some(errno),
                }
            }
            known.extend(new.iter().map(|member| member.pid));
        }
        // As kill(2) has it for a group: one that could be signalled is enough.
        refusal.filter(|_| !is_sent).map_or(Ok(()), Err)
    }

    fn is_in_group(&self, member: &Held) -> bool {
        proc::stat(member.pid).is_some_and(|stat| stat.group == self.command.pid)
    }

    /// Adds the processes of the session that are not known yet.
    ///
    /// The number of a session, or of a process group, is not used again as long as a process is in it: credentials(7).
    /// If all of them end between two looks, another session may get the number; but then its leader has it as PID.
    fn find_members(&mut self) -> nix::Result<()> {
        let is_member = |stat: &Stat| stat.session == self.number;
        for pid in proc::all_pids().map_err(|_| Errno::ENOENT)? {
            if self.members.iter().any(|member| member.pid == pid && !member.has_ended()) {
                continue;
            }
            if proc::stat(pid).is_some_and(|stat| is_member(&stat))
                && let Some(held) = Held::if_is(pid, is_member)?
                && !self.is_number_taken()
            {
                self.members.push(held);
            }
        }
        Ok(())
    }

    /// Whether a process of somebody else has the number of the session as its PID.
    fn is_number_taken(&self) -> bool {
        let is_job = |stat: &Stat| self.number == self.command.pid && stat.start_time == self.command.start_time;
        proc::stat(self.number).is_some_and(|stat| !is_job(&stat))
    }

    /// Waits until nobody is left, at most until `deadline`. Returns whether nobody is.
    fn wait(&mut self, deadline: Option<Instant>) -> nix::Result<bool> {
        loop {
            self.find_members()?;
            match self.members.iter().find(|member| !member.has_ended()) {
                None => return Ok(true),
                Some(member) if !member.wait(deadline)? => return Ok(false),
                Some(_) => self.members.retain(|member| !member.has_ended()),
            }
        }
    }

    fn living(&self) -> Vec<Pid> {
        self.members.iter().filter(|member| !member.has_ended()).map(|member| member.pid).collect()
    }
}
