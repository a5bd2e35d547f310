//! `--stop`: sends SIGTERM to the processes of a job, and SIGKILL to those that are left.
//!
//! A process is first held by a pidfd and then identified as one of the job's (`session`), so no signal ever reaches a
//! process that has reused its PID.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use crate::error::{Error, FAILED, reason};
use crate::jobs::session::{MOST_LOOKS, Member, Search, State, find_departed, wait_for_end};
use crate::jobs::{Choice, Job, Jobs, parse_pid};
use crate::term::format::{show_duration, signal_name};
use crate::term::text::quote;
use crate::term::ui::Ui;

const VERB: &str = "stop";
/// Where no process of a job was found, but one may have been missed in each look.
const UNCLEAR: &str = "too many processes are being started to tell whether it has ended";
/// SIGKILL takes effect at once, except for a process that waits for a device or a file server.
const TIME_TO_DIE: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub which: Which,
    pub how: How,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    Jobs(Vec<OsString>),
    /// Every running job, or every one that has one of these names.
    All(Vec<OsString>),
}

/// What is sent to jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// SIGTERM, and after the time SIGKILL.
    End(Duration),
    /// The signal with this number, and nothing more.
    Signal(i32),
}

/// Sends the jobs what `how` says, all before any is waited for. Returns the exit status.
pub fn stop(options: &Options, ui: &Ui) -> Result<u8, Error> {
    let chosen = choose(&options.which, ui)?;
    let mut status = 0;
    let mut fail = |error: &Error| {
        ui.failure(error, error.hint());
        status = FAILED;
    };
    let mut asked = Vec::new();
    for job in &chosen {
        match ask(job, options.how) {
            Ok(true) => asked.push(job),
            Ok(false) if ui.shows_notes() => {
                ui.note(format!("{} has already ended{}", job.describe(), describe_departed(job)));
            }
            Ok(false) => (),
            Err(error) => fail(&error),
        }
    }
    match options.how {
        How::End(grace) => end(&asked, grace, ui, &mut fail)?,
        How::Signal(signal) => {
            for job in asked {
                ui.note(format!("sent {} to {}", signal_name(signal), job.describe()));
            }
        }
    }
    Ok(status)
}

fn choose(which: &Which, ui: &Ui) -> Result<Vec<Job>, Error> {
    match which {
        Which::Jobs(wanted) => {
            let jobs = Jobs::find_for(wanted.first().map(OsString::as_os_str), ui)?;
            let mut known = HashSet::new();
            let mut chosen = Vec::new();
            for word in wanted {
                let job = jobs.choose(Some(word), Choice::Only(VERB))?;
                warn_if_unclear(&jobs, word, &job, ui);
                if known.insert(*job.id()) {
                    chosen.push(job);
                }
            }
            Ok(chosen)
        }
        Which::All(names) => {
            let Some(jobs) = Jobs::find(ui)? else {
                ui.note("nothing to stop: no job has been started yet");
                return Ok(Vec::new());
            };
            let is_meant = |job: &Job| names.is_empty() || names.iter().any(|name| name == job.name());
            let running = jobs.living().filter(|known| known.state != State::Elsewhere);
            let chosen: Vec<Job> = running.filter_map(|known| jobs.load(known)).filter(is_meant).collect();
            if chosen.is_empty() {
                ui.note(if names.is_empty() {
                    "nothing to stop: no job is running"
                } else {
                    "nothing to stop: no such job is running"
                });
            }
            Ok(chosen)
        }
    }
}

/// Says which job is stopped if the word could mislead: because `--log` would show another job of this name, one that
/// has ended; or because the word is only a part of a command line.
fn warn_if_unclear(jobs: &Jobs, name: &OsStr, job: &Job, ui: &Ui) {
    if job.name() != name && parse_pid(name) != Some(job.pid()) {
        ui.warn(format!("{} matches {}: {}", quote(name), job.describe(), job.command_line()));
        return;
    }
    let newest = jobs.named(name).next_back();
    if job.state != State::Ended && newest.is_some_and(|newest| newest.entry.id != *job.id()) {
        ui.warn(format!("the newest {} has ended; stopping PID {}: {}", quote(name), job.pid(), job.command_line()));
    }
}

/// The end of a sentence about a job that has ended: a program that has left its session with setsid(2) is not stopped,
/// and the user should know.
fn describe_departed(job: &Job) -> String {
    const MOST: usize = 5;
    let departed = find_departed(job).unwrap_or_default();
    let pids = departed.iter().take(MOST).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match departed.len() {
        0 => String::new(),
        1 => format!("; process {pids}, which it started, keeps running in another session"),
        2..=MOST => format!("; processes {pids}, which it started, keep running in other sessions"),
        count => format!("; {count} processes that it started keep running in other sessions: {pids}, …"),
    }
}

/// Sends the first signal. Returns whether there was anything to send it to.
fn ask(job: &Job, how: How) -> Result<bool, Error> {
    job.check_visible(VERB)?;
    let failed = |errno| refuse(job, errno);
    let sent = match how {
        How::End(_) => {
            let sent = signal(job, Reach::Session, libc::SIGTERM).map_err(failed)?;
            // A stopped process sees the signal only when it is continued.
            signal(job, Reach::Session, libc::SIGCONT).map_err(failed)?;
            sent
        }
        How::Signal(number) => signal(job, Reach::Group, number).map_err(failed)?,
    };
    match sent {
        Sent::ToSome => Ok(true),
        Sent::ToNone => Ok(false),
        Sent::Unclear => Err(job.error(VERB, UNCLEAR)),
    }
}

/// Waits until all sessions are empty, and kills what is left of them after `grace`.
fn end(jobs: &[&Job], grace: Duration, ui: &Ui, fail: &mut impl FnMut(&Error)) -> Result<(), Error> {
    let late = wait_for_end(jobs, Instant::now().checked_add(grace)).map_err(Error::proc)?;
    let late_of = |number| late.members.iter().filter(move |member| member.job == number);
    let left: Vec<Vec<Pid>> =
        (0..jobs.len()).map(|number| late_of(number).map(|member| member.process.pid).collect()).collect();
    for (job, left) in jobs.iter().zip(&left) {
        if !(left.is_empty() && late.are_all)
            && let Err(errno) = signal(job, Reach::Session, libc::SIGKILL)
        {
            fail(&refuse(job, errno));
        }
    }
    let undead = wait_for_end(jobs, Instant::now().checked_add(TIME_TO_DIE)).map_err(Error::proc)?;
    for (number, (job, left)) in jobs.iter().zip(left).enumerate() {
        let (grace, count) = (show_duration(grace), left.len());
        if undead.members.iter().any(|member| member.job == number) {
            fail(&job.error(VERB, &format!("it is still running {} after SIGKILL", show_duration(TIME_TO_DIE))));
        } else if let Err(error) = job.check_ended(VERB) {
            fail(&error);
        } else if !undead.are_all {
            fail(&job.error(VERB, UNCLEAR));
        } else if left.contains(&job.pid()) {
            let (others, were) = match count - 1 {
                0 => (String::new(), "was"),
                1 => (" and one other process of its session".into(), "were"),
                others => (format!(" and {others} other processes of its session"), "were"),
            };
            ui.warn(format!("killed {}{others}, which {were} still running {grace} after SIGTERM", job.describe()));
        } else if count > 0 {
            let what = if count == 1 { "one process".into() } else { format!("{count} processes") };
            ui.warn(format!(
                "{} ended; killed {what} of its session, still running {grace} after SIGTERM",
                job.describe()
            ));
        } else if ui.shows_notes() {
            ui.note(format!("{} ended{}", job.describe(), describe_departed(job)));
        }
    }
    Ok(())
}

fn refuse(job: &Job, errno: Errno) -> Error {
    match errno {
        Errno::EPERM => job.error(VERB, "it belongs to another user").with_hint("stop it as that user, or as root"),
        _ => job.error(VERB, &reason(errno)),
    }
}

/// Which processes get a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// The command and the process group that it was given; or all that is left when the command has ended.
    Group,
    Session,
}

/// Whether anything got a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    ToSome,
    /// Nothing is left.
    ToNone,
    /// Nothing was found, but a process may have been missed.
    Unclear,
}

/// Sends a signal to all within `reach`. Fails when none could be signaled.
fn signal(job: &Job, reach: Reach, signal: i32) -> nix::Result<Sent> {
    let mut known = HashSet::new();
    let (mut is_sent, mut refusal) = (false, None);
    let jobs = [job];
    let mut search = Search::new(&jobs);
    for _ in 0..MOST_LOOKS {
        let members = search.look()?;
        let command =
            members.iter().find(|member| (member.process.pid, member.start_time) == (job.pid(), job.id().start_time));
        // Atomically where the kernel can, so that no fork escapes. Where it cannot, or may not, the processes get it
        // one by one.
        let is_first_look = known.is_empty();
        let has_group = is_first_look && command.is_some_and(|it| it.process.signal_group(signal).is_ok());
        is_sent |= has_group;
        let is_all_meant = reach == Reach::Session || command.is_none();
        let is_meant = |it: &&Member| is_all_meant || it.group == job.group() || it.process.pid == job.pid();
        let mut is_new = false;
        for member in members.iter().filter(is_meant) {
            if !known.insert((member.process.pid, member.start_time)) {
                continue;
            }
            is_new = true;
            if has_group && member.group == job.pid() {
                continue;
            }
            match member.process.signal(signal) {
                Ok(()) => is_sent = true,
                Err(errno) => refusal = Some(errno),
            }
        }
        // A group that was signaled atomically has no members left to signal.
        if !is_new && search.is_conclusive() || has_group && reach == Reach::Group {
            break;
        }
    }
    // As with kill(2) and a group: one process that could be signaled is enough.
    match refusal {
        Some(errno) if !is_sent => Err(errno),
        _ if !known.is_empty() => Ok(Sent::ToSome),
        _ if search.is_conclusive() => Ok(Sent::ToNone),
        _ => Ok(Sent::Unclear),
    }
}
