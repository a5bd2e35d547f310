//! `--stop`: asks jobs to end, and ends what does not.
//!
//! A signal goes to a process that is held by a pidfd and was found in the job's session or process group after that,
//! so none ever reaches a process that has come to have the same number.

use std::collections::HashSet;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use crate::error::{Error, FAILED, reason};
use crate::human::{show_duration, signal_name};
use crate::job::{ELSEWHERE, Job, Jobs, State};
use crate::pidfd::Held;
use crate::proc::{self, Stat};
use crate::session;
use crate::ui::Ui;

const VERB: &str = "stop";
/// Processes that fork all the time are looked for that often, not for ever.
const MOST_LOOKS: usize = 100;
/// SIGKILL takes effect at once, but for a process that waits for a device or a file server.
const TIME_TO_DIE: Duration = Duration::from_secs(5);

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
    // A descriptor for each job.
    session::raise_descriptor_limit();
    let (jobs, mut chosen) = Jobs::choose_all(wanted, VERB, ui)?;
    let mut known = HashSet::new();
    chosen.retain(|job| known.insert(job.identity.clone()));
    let mut status = 0;
    let mut fail = |error: &Error| {
        ui.error(error);
        status = FAILED;
    };
    let mut asked = Vec::new();
    for job in &chosen {
        match ask(job, how) {
            Ok(Some(session)) => asked.push(session),
            Ok(None) => tell_of_ended(job, jobs.is_of_this_boot(&job.identity), ui),
            Err(error) => fail(&error),
        }
    }
    match how {
        How::End(grace) => end(&asked, grace, ui, &mut fail)?,
        How::Signal(signal) => {
            for session in &asked {
                ui.note(format!("sent {} to {}", signal_name(signal), session.job.describe()));
            }
        }
    }
    Ok(status)
}

/// Sends the first signal to the process group of the job. `None`: it has ended already.
fn ask(job: &Job, how: How) -> Result<Option<Session<'_>>, Error> {
    if job.state == State::Elsewhere {
        return Err(job.error(VERB, ELSEWHERE));
    }
    let failed = |errno| refuse(job, errno);
    let Some(session) = Session::of(job).map_err(failed)? else { return Ok(None) };
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

/// What a job has left behind cannot be told from what has come to have its number, so it gets no signal.
fn tell_of_ended(job: &Job, is_of_this_boot: bool, ui: &Ui) {
    let is_left = |stat: &Stat| stat.session == job.pid() && !stat.is_dead();
    let has_left = || proc::processes().is_ok_and(|mut all| all.any(|it| it.is_ok_and(|(_, stat)| is_left(&stat))));
    if is_of_this_boot && !proc::is_alive(job.pid()) && has_left() {
        let pid = job.pid();
        ui.warn(format!("{} has ended already, but in session {pid} there are processes still", job.describe()));
    } else {
        ui.note(format!("{} has ended already", job.describe()));
    }
}

/// Waits until all sessions are empty, and ends what is left of them after `grace`.
fn end(sessions: &[Session], grace: Duration, ui: &Ui, fail: &mut impl FnMut(&Error)) -> Result<(), Error> {
    let sessions: Vec<&Session> = sessions.iter().collect();
    wait(&sessions, Instant::now().checked_add(grace)).map_err(Error::proc)?;
    let left = find(&sessions, Reach::Session).map_err(Error::proc)?;
    let left_of = |session: &Session, left: &[Member]| -> Vec<Pid> {
        left.iter().filter(|member| member.session == session.number).map(|member| member.process.pid).collect()
    };
    for session in sessions.iter().filter(|session| !left_of(session, &left).is_empty()) {
        if let Err(errno) = session.signal(Reach::Session, libc::SIGKILL) {
            fail(&refuse(session.job, errno));
        }
    }
    wait(&sessions, Instant::now().checked_add(TIME_TO_DIE)).map_err(Error::proc)?;
    let undead = find(&sessions, Reach::Session).map_err(Error::proc)?;
    for session in sessions {
        let left = left_of(session, &left);
        let job = session.job;
        let (grace, count) = (show_duration(grace), left.len());
        if !left_of(session, &undead).is_empty() {
            fail(&job.error(VERB, format!("it has not ended {} after SIGKILL", show_duration(TIME_TO_DIE))));
        } else if left.contains(&job.pid()) {
            let others = match count - 1 {
                0 => String::new(),
                1 => ", with one other process of its session".into(),
                others => format!(", with {others} other processes of its session"),
            };
            ui.warn(format!("killed {}, which did not end within {grace}{others}", job.describe()));
        } else if count > 0 {
            ui.warn(format!(
                "{} ended, but not all of its session within {grace}: killed {count} more",
                job.describe()
            ));
        } else {
            ui.note(format!("{} ended", job.describe()));
        }
    }
    Ok(())
}

fn refuse(job: &Job, errno: Errno) -> Error {
    match (errno, job.error(VERB, reason(errno))) {
        (Errno::EPERM, Error::Job { verb, name, pid, .. }) => {
            let hint = Some("try it as that user, or as root");
            Error::Job { verb, name, pid, reason: "it belongs to another user".into(), hint }
        }
        (_, error) => error,
    }
}

/// To whom a signal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// The process group that the command leads.
    Group,
    Session,
}

/// The session of a job.
struct Session<'a> {
    job: &'a Job,
    /// The process of the command, which leads its group, and unless it is a daemon the session.
    command: Held,
    number: Pid,
}

impl<'a> Session<'a> {
    /// The session of a job; `None` when that has ended.
    fn of(job: &'a Job) -> nix::Result<Option<Self>> {
        let Some(command) = Held::of(&job.identity)? else { return Ok(None) };
        // Of the process that is held, as long as that lives: which is looked at after.
        let stat = proc::stat(job.pid())?.filter(|_| !command.has_ended());
        Ok(stat.map(|stat| Self { job, command, number: stat.session }))
    }

    fn has(&self, stat: &Stat, reach: Reach) -> bool {
        stat.session == self.number && (reach == Reach::Session || stat.group == self.job.pid()) && !stat.is_dead()
    }

    /// Whether a process of somebody else has the number of the session as its PID.
    fn is_number_taken(&self) -> nix::Result<bool> {
        let start_time = self.job.identity.start_time;
        let is_job = |stat: &Stat| self.number == self.job.pid() && stat.start_time == start_time;
        Ok(proc::stat(self.number)?.is_some_and(|stat| !is_job(&stat)))
    }

    /// Sends `signal` to all within `reach`. Fails when none could be signalled.
    fn signal(&self, reach: Reach, signal: i32) -> nix::Result<()> {
        let to_group = self.command.signal_group(signal);
        match (reach, to_group) {
            (Reach::Group, Ok(()) | Err(Errno::ESRCH)) => return Ok(()),
            (Reach::Group, Err(errno)) if errno != Errno::EINVAL => return Err(errno),
            // The kernel cannot do that, or there is more than the group.
            _ => (),
        }
        let mut known = HashSet::new();
        let (mut is_sent, mut refusal) = (to_group.is_ok(), None);
        for _ in 0..MOST_LOOKS {
            let mut new = find(&[self], reach)?;
            new.retain(|member| known.insert((member.process.pid, member.start_time)));
            if new.is_empty() {
                break;
            }
            for member in new {
                match member.process.signal(signal) {
                    Ok(()) => is_sent = true,
                    Err(errno) => refusal = Some(errno),
                }
            }
        }
        // As kill(2) has it for a group: one that could be signalled is enough.
        refusal.filter(|_| !is_sent).map_or(Ok(()), Err)
    }
}

/// A living process of a session.
struct Member {
    session: Pid,
    start_time: u64,
    process: Held,
}

/// The living processes within `reach` of the sessions.
///
/// The number of a session, or of a process group, is not used again as long as a process is in it: credentials(7). If
/// all of them end between two looks, another session may get the number; but then its leader has it as PID.
fn find(sessions: &[&Session], reach: Reach) -> nix::Result<Vec<Member>> {
    let mut found = Vec::new();
    for process in proc::processes()? {
        let (pid, stat) = process?;
        let Some(session) = sessions.iter().find(|session| session.has(&stat, reach)) else { continue };
        if let Some(process) = Held::if_is(pid, |now| session.has(now, reach) && now.start_time == stat.start_time)?
            && !session.is_number_taken()?
        {
            found.push(Member { session: session.number, start_time: stat.start_time, process });
        }
    }
    Ok(found)
}

/// Waits until nobody is left in the sessions, at most until `deadline`.
fn wait(sessions: &[&Session], deadline: Option<Instant>) -> nix::Result<()> {
    for session in sessions {
        session.command.wait(deadline)?;
    }
    // A fork may slip through one look: the new process comes into the part of the list that has been read.
    let mut looks_in_vain = 0;
    while looks_in_vain < 2 && !sessions.is_empty() {
        let living = find(sessions, Reach::Session)?;
        looks_in_vain = if living.is_empty() { looks_in_vain + 1 } else { 0 };
        for member in living {
            if !member.process.wait(deadline)? {
                return Ok(());
            }
        }
    }
    Ok(())
}
