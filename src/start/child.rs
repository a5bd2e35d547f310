//! What the new processes do, in the order in which they do it.
//!
//! As a session leader: `lead_session`, then `become_command`. In the daemon sequence, the launcher forks (1);
//! `leave_session` makes the session (2) and forks again (3); `leave_leader` makes the process group; `become_command`
//! does the rest: chdir (4), umask (5), close (6), redirect (7), SIGCHLD (8), exec. If the command is tracked, `track`
//! does what the launcher does otherwise, and stays as the parent of the command.
//!
//! All of this runs in the memory of the launcher (`sys::spawn`): it reads the plan, writes the report, and allocates
//! nothing.

use std::convert::Infallible;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, chdir, setpgid, setsid};

use crate::jobs::record::{JobId, Process, ProcessId};
use crate::start::plan::{Place, Plan};
use crate::start::report::{GivenUp, Report, Role, Step};
use crate::start::request::Sequence;
use crate::start::tracker;
use crate::sys::descriptors::redirect;
use crate::sys::proc::{own_start_time, time_since_boot};
use crate::sys::process::{reap, set_umask};
use crate::sys::signals;
use crate::sys::spawn::spawn;
use crate::term::format::now_in_ms;

/// A start in progress.
#[derive(Clone, Copy)]
pub struct Child<'a> {
    pub plan: &'a Plan,
    pub report: &'a Report,
}

impl Child<'_> {
    /// Makes the process that becomes or makes the command, and returns its PID when the command is running or has
    /// failed to start. Called by the launcher, or by the tracking process.
    pub fn make_command(self) -> nix::Result<Pid> {
        match self.plan.sequence {
            Sequence::Leader => self.spawn(Role::Command, Self::lead_session),
            Sequence::Daemon => {
                self.note(Step::Fork, None);
                let intermediate = self.spawn(Role::Intermediate, Self::leave_session)?;
                // It has ended, or is ending.
                reap(intermediate);
                Ok(self.report.command().unwrap_or(intermediate))
            }
        }
    }

    /// Makes the tracking process, and returns its PID when it has become a program of its own or has ended.
    pub fn make_tracker(self) -> nix::Result<Pid> {
        self.spawn(Role::Tracker, Self::track)
    }

    /// Runs `steps` in a new process.
    fn spawn(self, role: Role, steps: impl Fn(Self, Duration) -> Result<Infallible, GivenUp>) -> nix::Result<Pid> {
        let place = role as usize;
        let Some(Some(stack)) = self.plan.stacks.get(place) else { return Err(Errno::ENOMEM) };
        let before = time_since_boot();
        spawn(stack, self.report.borrower(role), &mut || {
            // This is the new process.
            let Err(given_up) = steps(self, before);
            if given_up != GivenUp::Abandoned {
                self.report.given_up.set(given_up);
            }
            if role == Role::Command {
                take_back(self.plan, self.report);
            }
        })
    }

    /// What the tracking process does. Returns only when that fails.
    fn track(self, before: Duration) -> Result<Infallible, GivenUp> {
        let made = before..=time_since_boot();
        let session = check(setsid(), Step::Track)?;
        // What the command leaves behind becomes a child of this process, which waits for it.
        check(set_child_subreaper(true), Step::Subreaper)?;
        self.note(Step::Track, Some(session));
        if let Some(start_time) = own_start_time(&made) {
            self.report.tracker.set(ProcessId { pid: Pid::this(), start_time });
        }
        let begin = time_since_boot();
        check(self.make_command(), Step::Fork)?;
        // This is the tracking process again.
        if !self.report.counts() {
            return Err(GivenUp::Abandoned);
        }
        // The command runs from here on, whatever happens to this process.
        self.report.tracking_fault.set(tracker::execute(self.plan, self.report, begin));
        Err(GivenUp::Abandoned)
    }

    /// What the only new process does, to lead a session of its own.
    fn lead_session(self, before: Duration) -> Result<Infallible, GivenUp> {
        self.identify_job(before);
        self.make_session()?;
        self.become_command()
    }

    /// What the intermediate process does: it makes a new session and a child in it, and exits. The child does not lead
    /// the session, so it can never acquire a controlling terminal.
    fn leave_session(self, _before: Duration) -> Result<Infallible, GivenUp> {
        self.make_session()?;
        check(signals::ignore(Signal::SIGHUP), Step::IgnoreHangup)?;
        self.note(Step::SecondFork, None);
        check(self.spawn(Role::Command, Self::leave_leader), Step::SecondFork)?;
        // This is the intermediate process again. It exits.
        Err(GivenUp::Abandoned)
    }

    /// What the second new process does.
    fn leave_leader(self, before: Duration) -> Result<Infallible, GivenUp> {
        self.identify_job(before);
        let this = Pid::this();
        check(setpgid(this, this), Step::Group)?;
        self.note(Step::Group, Some(this));
        self.become_command()
    }

    fn make_session(self) -> Result<(), GivenUp> {
        let session = check(setsid(), Step::Session)?;
        self.report.session.set(session);
        self.note(Step::Session, Some(session));
        Ok(())
    }

    /// Notes the identity of the job: this process, which was made after `before`. Without a start time, it could not
    /// be distinguished from others, and is not recorded.
    fn identify_job(self, before: Duration) {
        let started_at_ms = now_in_ms();
        self.report.started_at_ms.store(started_at_ms, Ordering::Release);
        let namespaces = |place: &Place| (place.pid_namespace, place.time_namespace);
        let (pid_namespace, time_namespace) = self.plan.place.as_ref().map_or((None, None), namespaces);
        if let Some(start_time) = own_start_time(&(before..=time_since_boot())) {
            let pid = Pid::this();
            self.report.job.set(JobId { pid, start_time, pid_namespace, time_namespace, started_at_ms });
        }
    }

    /// What the process of the command does, in this order.
    fn become_command(self) -> Result<Infallible, GivenUp> {
        let plan = self.plan;
        let log = self.create_log()?;
        if let Some(directory) = &plan.directory {
            check(chdir(directory.as_c_str()), Step::Directory)?;
            self.note(Step::Directory, None);
        }
        check(set_umask(plan.umask), Step::Umask)?;
        self.note(Step::Umask, None);
        check(plan.closer.close(&plan.open, log.as_ref().map(AsRawFd::as_raw_fd)), Step::Close)?;
        self.note(Step::Close, None);
        check(self.redirect(log.as_ref()), Step::Redirect)?;
        self.note(Step::Redirect, None);
        check(signals::reset_dispositions(plan.sigchld), Step::Dispositions)?;
        self.note(Step::Dispositions, None);
        // Its lock ends when it is closed.
        let _held = self.take_pidfile()?;
        self.execute()
    }

    /// The last steps.
    fn execute(self) -> Result<Infallible, GivenUp> {
        self.record()?;
        check(signals::unblock(self.plan.sigchld), Step::Unblock)?;
        self.note(Step::Unblock, None);
        if !self.report.start_executing() {
            return Err(GivenUp::Abandoned);
        }
        let start_time = self.report.job.get().map_or(0, |job| job.start_time);
        let note = |file| self.report.file.store(file, Ordering::Relaxed);
        Err(GivenUp::Refused(self.plan.command.execute(Pid::this(), start_time, note)))
    }

    /// Creates the log, if one is needed.
    fn create_log(self) -> Result<Option<OwnedFd>, GivenUp> {
        let Ok(place) = &self.plan.place else { return Ok(None) };
        if !self.plan.streams.need_log() {
            return Ok(None);
        }
        let note = |number| self.report.log.store(number, Ordering::Relaxed);
        let log = check(place.directory.create_log(&self.plan.log_stem, Pid::this(), note), Step::Log);
        if log.is_err() {
            // None was made.
            note(0);
        }
        log.map(Some)
    }

    fn redirect(self, log: Option<&OwnedFd>) -> nix::Result<()> {
        let replacements = self.plan.streams.replacements(log.map(AsRawFd::as_raw_fd));
        for (stream, replacement) in (0..).zip(replacements) {
            if let Some(replacement) = replacement {
                redirect(replacement, stream)?;
            }
        }
        Ok(())
    }

    fn take_pidfile(self) -> Result<Option<OwnedFd>, GivenUp> {
        let Some(pidfile) = &self.plan.pidfile else { return Ok(None) };
        let note = |is_new| {
            self.report.is_pidfile_new.store(is_new, Ordering::Release);
            self.report.has_pidfile.store(true, Ordering::Release);
        };
        let taken = pidfile.take(note);
        if taken.is_err() && !self.report.is_pidfile_new.load(Ordering::Acquire) {
            // Nothing was made.
            self.report.has_pidfile.store(false, Ordering::Release);
        }
        let held = taken.map_err(GivenUp::Pidfile)?;
        self.note(Step::Pidfile, None);
        Ok(Some(held))
    }

    /// Records the start. If that fails, the launcher only warns; but the start fails if the end is to be recorded too,
    /// or if the job has a log and the disk is full.
    fn record(self) -> Result<(), GivenUp> {
        match self.append_start() {
            Ok(()) => {
                self.note(Step::Record, None);
                Ok(())
            }
            Err(errno) => {
                let has_no_room = matches!(errno, Errno::ENOSPC | Errno::EDQUOT);
                let has_log = self.report.log.load(Ordering::Relaxed) != 0;
                if self.plan.tracking.is_some() || has_no_room && has_log {
                    return Err(GivenUp::Errno(Step::Record, errno));
                }
                self.report.record_fault.set(errno);
                Ok(())
            }
        }
    }

    fn append_start(self) -> nix::Result<()> {
        let Ok(place) = &self.plan.place else { return Ok(()) };
        let journal = place.journal.as_ref().map_err(|errno| *errno)?;
        let job = self.report.job.get().ok_or(Errno::ENOENT)?;
        let session = self.report.session.get().ok_or(Errno::ENOENT)?;
        let log_number = self.report.log.load(Ordering::Relaxed);
        let log = self.plan.log_stem.name(job.pid, log_number);
        let process =
            Process { session, log: (log_number != 0).then(|| log.as_str()), tracker: self.report.tracker.get() };
        self.report.is_recorded.store(true, Ordering::Release);
        journal.append_start(&place.directory, &self.plan.draft, job, &process)
    }

    /// Notes a step of this process, if steps are to be reported.
    fn note(self, step: Step, made: Option<Pid>) {
        if self.plan.reports_steps {
            self.report.note_step(step, made);
        }
    }
}

fn check<T>(result: nix::Result<T>, step: Step) -> Result<T, GivenUp> {
    result.map_err(|errno| GivenUp::Errno(step, errno))
}

/// Undoes what a failed start has done: the pidfile, the log and the record. Called by the process that could not
/// become the command, and by the launcher if that process was killed, possibly during this call; so each item is
/// marked as undone only afterwards, and may be undone twice. Allocates nothing.
pub fn take_back(plan: &Plan, report: &Report) {
    let Some(pid) = report.command() else { return };
    let started_at_ms = report.started_at_ms.load(Ordering::Acquire);
    // Nothing else can be done about what stays.
    if let Some(pidfile) = plan.pidfile.as_ref().filter(|_| report.has_pidfile.load(Ordering::Acquire)) {
        pidfile.take_back_from(pid, report.is_pidfile_new.load(Ordering::Acquire), started_at_ms);
        report.has_pidfile.store(false, Ordering::Release);
    }
    let Ok(place) = &plan.place else { return };
    let log = report.log.load(Ordering::Acquire);
    if log != 0 {
        place.directory.remove_new_log(plan.log_stem.name(pid, log).as_c_str(), started_at_ms);
        report.log.store(0, Ordering::Release);
    }
    if report.is_recorded.load(Ordering::Acquire)
        && let (Ok(journal), Some(job)) = (&place.journal, report.job.get())
    {
        let _ = journal.append_withdrawal(&place.directory, job);
        report.is_recorded.store(false, Ordering::Release);
    }
}
