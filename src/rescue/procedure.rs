//! How a job is let go of: what is done to its processes, in its order.
//!
//! The guardian starts. All processes of the job are stopped. Then each process in turn is made, through one of its
//! threads, to open the new targets of its descriptors, ignore SIGHUP, leave its terminal, and redirect its
//! descriptors. What can fail comes first, while the process is unchanged. Then all continue.
//!
//! SIGSTOP comes before ptrace(2): it stops all threads, though only one is traced; the calls in which they wait are
//! made again after SIGCONT, and then find the new descriptors; and if detach is killed, the kernel stops the tracee
//! before it runs another instruction.

use std::ffi::CStr;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rescue::calls::{Caller, Failure, RemoteFd};
use crate::rescue::consent::{self, Refusal};
use crate::rescue::guardian::Guardian;
use crate::rescue::job::{Member, RunningJob};
use crate::rescue::ledger::Ledger;
use crate::rescue::record::Draft;
use crate::rescue::terminal::{Purpose, Terminal, TerminalDescriptor, list_terminal_descriptors, list_watches};
use crate::rescue::tracee::{Fault, Tracee};
use crate::sys::mishap;
use crate::sys::proc::{self, Stat, list_threads};
use crate::sys::process::Held;
use crate::term::ui::Ui;

/// A process that does not stop in this time waits in the kernel: for a file server, or for its vfork(2).
const TIME_TO_STOP: Duration = Duration::from_secs(3);
/// A parent that has not stopped in this time is left to the general wait.
const TIME_FOR_PARENT: Duration = Duration::from_millis(500);
/// How long the child of a vfork may run, to reach its exec.
const TIME_FOR_CHILD: Duration = Duration::from_millis(2);
/// A shell that has not taken its terminal back in this time will not do so.
const TIME_FOR_SHELL: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_micros(200);
const NULL: &CStr = c"/dev/null";
const TERMINAL: &CStr = c"/dev/tty";

/// Whether the job continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Continue,
    /// Its process group stays stopped, if all went well, for a shell that has to do something first.
    StayStopped,
}

/// Why a job was not let go of, or not all of it.
#[derive(Debug)]
pub enum Trouble {
    /// Nothing was changed.
    Guardian(Errno),
    TooMany,
    Look(Errno),
    /// A process that the job has started meanwhile may not be let go of.
    Refused(Member, Refusal),
    /// It did not stop, and is in this state; those that detach has stopped continue.
    DoesNotStop(Member, u8),
    /// It is as it was; those before it have been let go of.
    Unchanged(Member, Failure),
    /// It has been let go of in part, and those before it as a whole.
    Halfway(Member, Failure),
}

/// Lets go of `job`, as `draft` says. Returns the processes that have been let go of, and why the others have not.
pub fn let_go(job: &mut RunningJob, draft: &Draft, after: After, ui: &Ui) -> (Vec<Member>, Option<Trouble>) {
    let guardian = match Guardian::start(|| draft.take_back()) {
        Ok(guardian) => guardian,
        Err(errno) => {
            draft.take_back();
            return (Vec::new(), Some(Trouble::Guardian(errno)));
        }
    };
    mishap::pass();
    // Before the job is stopped, since recording may take a while.
    let is_recorded = draft.record(job, ui);
    mishap::pass();
    let recorded = job.members.len();
    let mut stopped = Stopped { processes: Vec::new(), ledger: guardian.ledger };
    let (mut released, mut trouble) = (Vec::new(), stop_all(job, &mut stopped).err());
    if trouble.is_none() {
        if is_recorded && job.members.len() > recorded {
            draft.record(job, ui);
        }
        trouble = let_go_of_each(job, draft.output(), guardian.ledger, &mut released);
    }
    if !guardian.ledger.has_changed() {
        draft.take_back();
        stopped.let_continue(|process| process.has_run);
    } else if after == After::Continue {
        await_shell(job);
        stopped.let_continue(|_| true);
    } else if trouble.is_some() {
        stopped.let_continue(|process| process.has_run);
    } else {
        stopped.let_continue(|process| process.group != job.group);
    }
    mishap::pass();
    guardian.dismiss();
    (released, trouble)
}

/// Lets go of one process after the other, and stops at the first with which that does not work.
fn let_go_of_each(job: &RunningJob, output: &CStr, ledger: &Ledger, released: &mut Vec<Member>) -> Option<Trouble> {
    for member in job.in_order() {
        let prepared = Prepared::new(member, job.terminal, output, ledger).map_err(|failure| (failure, false));
        match prepared.and_then(|prepared| prepared.let_go().map_err(|failure| (failure, true))) {
            Ok(()) => released.push(member.clone()),
            // It has ended meanwhile.
            Err((Failure::Fault(Fault::Gone), _)) => (),
            Err((failure, false)) => return Some(Trouble::Unchanged(member.clone(), failure)),
            Err((failure, true)) => return Some(Trouble::Halfway(member.clone(), failure)),
        }
    }
    None
}

/// A process that is stopped.
struct StoppedProcess {
    held: Held,
    group: Pid,
    /// Whether it ran before.
    has_run: bool,
}

struct Stopped<'l> {
    /// Parents before their children. They continue in the opposite order: a parent must not find a child stopped.
    processes: Vec<StoppedProcess>,
    ledger: &'l Ledger,
}

impl Stopped<'_> {
    /// Sends SIGSTOP to a process that is not stopped yet.
    fn stop(&mut self, member: &Member) -> Result<(), Trouble> {
        let is_it = |stat: &Stat| stat.start_time == member.stat.start_time;
        let Some(held) = Held::if_is(member.pid, is_it).map_err(Trouble::Look)? else { return Ok(()) };
        let has_run = running_state(member.pid).is_some();
        if has_run {
            if !self.ledger.enter_stopped(member.pid) {
                return Err(Trouble::TooMany);
            }
            mishap::pass();
            held.signal(libc::SIGSTOP).map_err(Trouble::Look)?;
            mishap::pass();
        }
        self.processes.push(StoppedProcess { held, group: member.stat.group, has_run });
        Ok(())
    }

    fn let_continue(&self, is_meant: impl Fn(&StoppedProcess) -> bool) {
        for process in self.processes.iter().rev().filter(|process| is_meant(process)) {
            mishap::pass();
            let _ = process.held.signal(libc::SIGCONT);
        }
    }

    fn find(&self, pid: Pid) -> Option<&Held> {
        self.processes.iter().map(|process| &process.held).find(|held| held.pid == pid)
    }
}

/// Waits until the shell of a job in the foreground has seen it stopped, and has taken the terminal back: otherwise it
/// would wait for the job. A shell without job control does not do so, hence the limit.
fn await_shell(job: &RunningJob) {
    let end = Instant::now() + TIME_FOR_SHELL;
    let is_in_foreground = |stat: Option<Stat>| stat.is_some_and(|leader| leader.foreground == job.group);
    while !job.has(job.session) && proc::stat(job.session).is_ok_and(is_in_foreground) && Instant::now() < end {
        sleep(PAUSE);
    }
}

/// Stops every process of the job, including those that it starts meanwhile, and waits until all threads have stopped.
fn stop_all(job: &mut RunningJob, stopped: &mut Stopped) -> Result<(), Trouble> {
    let end = Instant::now() + TIME_TO_STOP;
    let mut count = 0;
    loop {
        for member in job.members.get(count..).unwrap_or_default() {
            stopped.stop(member)?;
            if job.members.iter().any(|child| child.stat.parent == member.pid) {
                await_stop(member.pid, end);
            }
        }
        count = job.members.len();
        while let Some((member, state)) = find_running(job) {
            if Instant::now() > end {
                return Err(Trouble::DoesNotStop(member.clone(), state));
            }
            if state == b'D' {
                let_children_run(job, member.pid, stopped);
            }
            sleep(PAUSE);
        }
        // None of them can start another one now.
        if !job.add_new().map_err(Trouble::Look)? {
            return Ok(());
        }
        for member in job.members.get(count..).unwrap_or_default() {
            if let Some(Err(refusal)) = consent::ask(member.pid) {
                return Err(Trouble::Refused(member.clone(), refusal));
            }
        }
    }
}

/// Waits until a parent has stopped, before its children are: one that waits for them as a shell does (wait(2),
/// WUNTRACED) would do what it does at Ctrl-Z. A parent in vfork(2) is not waited for: it does not stop until its child
/// has run on.
fn await_stop(parent: Pid, end: Instant) {
    let end = end.min(Instant::now() + TIME_FOR_PARENT);
    while running_state(parent).is_some_and(|state| state != b'D') && Instant::now() < end {
        sleep(PAUSE);
    }
}

/// A process with a thread that has not stopped, and the state of that thread.
fn find_running(job: &RunningJob) -> Option<(&Member, u8)> {
    job.members.iter().find_map(|member| Some((member, running_state(member.pid)?)))
}

/// The state of a thread of this process that has not stopped.
fn running_state(pid: Pid) -> Option<u8> {
    let mut states = list_threads(pid).into_iter().map(|(_, stat)| stat.state);
    states.find(|state| !matches!(state, b'T' | b't' | b'Z' | b'X' | b'x'))
}

/// Lets the children of a process run for a moment: in vfork(2), it waits in the kernel until its child has reached its
/// exec or has ended.
fn let_children_run(job: &RunningJob, parent: Pid, stopped: &Stopped) {
    let children = job.members.iter().filter(|member| member.stat.parent == parent);
    let children: Vec<&Held> = children.filter_map(|member| stopped.find(member.pid)).collect();
    let signal_all = |signal| {
        for child in &children {
            let _ = child.signal(signal);
        }
    };
    signal_all(libc::SIGCONT);
    sleep(TIME_FOR_CHILD);
    signal_all(libc::SIGSTOP);
}

/// A stopped process for which everything that can fail has been done. Its terminal and descriptors are unchanged.
struct Prepared<'l> {
    member: &'l Member,
    caller: Caller<'l>,
    null: RemoteFd,
    output: RemoteFd,
    descriptors: Vec<TerminalDescriptor>,
    /// Epoll instances, and the descriptors that they watch.
    watches: Vec<(i32, i32)>,
    ledger: &'l Ledger,
}

impl<'l> Prepared<'l> {
    fn new(member: &'l Member, terminal: Option<Terminal>, output: &CStr, ledger: &'l Ledger) -> Result<Self, Failure> {
        let thread = choose_thread(member.pid)?;
        let descriptors = match terminal {
            Some(terminal) => list_terminal_descriptors(thread, terminal).map_err(Fault::from)?,
            None => Vec::new(),
        };
        let watches = list_watches(thread, &descriptors);
        let mut caller = Caller::prepare(Tracee::seize(member.pid, thread, ledger)?)?;
        match open_files(&mut caller, output) {
            Ok((null, output)) => Ok(Self { member, caller, null, output, descriptors, watches, ledger }),
            Err(failure) => {
                caller.finish()?;
                Err(failure)
            }
        }
    }

    /// Lets go of it. Even if that fails, what was opened and mapped for it does not stay in the process.
    fn let_go(mut self) -> Result<(), Failure> {
        self.ledger.note_change();
        let result = self.change();
        self.caller.close(self.null)?;
        self.caller.close(self.output)?;
        self.caller.finish()?;
        result
    }

    fn change(&mut self) -> Result<(), Failure> {
        let caller = &mut self.caller;
        caller.ignore(Signal::SIGHUP as i32)?;
        leave_terminal(caller, &self.descriptors)?;
        if self.member.is_session_leader() {
            // The kernel has sent SIGCONT to the process group in the foreground: tty_ioctl(4). If detach is killed
            // now, only a stopped process stops again before it runs.
            let _ = kill(self.member.pid, Signal::SIGSTOP);
        }
        for (epoll, watched) in &self.watches {
            caller.stop_watching((*epoll).into(), (*watched).into())?;
        }
        for TerminalDescriptor { fd, purpose, closes_on_exec } in &self.descriptors {
            let from = if *purpose == Purpose::Read { self.null } else { self.output };
            caller.redirect(from, (*fd).into(), *closes_on_exec)?;
        }
        Ok(())
    }
}

/// Opens the new targets of the descriptors: /dev/null and `output`.
fn open_files(caller: &mut Caller, output: &CStr) -> Result<(RemoteFd, RemoteFd), Failure> {
    let null = caller.open(NULL, libc::O_RDWR, "open /dev/null")?;
    match caller.open(output, libc::O_WRONLY | libc::O_APPEND | libc::O_NOCTTY, "open its output") {
        Ok(output) => Ok((null, output)),
        Err(failure) => {
            caller.close(null)?;
            Err(failure)
        }
    }
}

/// Gives up the controlling terminal, through a descriptor that leads to it.
fn leave_terminal(caller: &mut Caller, descriptors: &[TerminalDescriptor]) -> Result<(), Failure> {
    if let Some(descriptor) = descriptors.first() {
        return caller.leave_terminal(descriptor.fd.into());
    }
    match caller.open(TERMINAL, libc::O_RDWR | libc::O_NOCTTY, "open /dev/tty") {
        Ok(terminal) => {
            let result = caller.leave_terminal(terminal);
            caller.close(terminal)?;
            result
        }
        // It has none.
        Err(Failure::Refused(..)) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// A living thread, preferably one that waits in a system call: another may be at a place of its program where it must
/// not be interrupted (rseq(2)).
fn choose_thread(process: Pid) -> Result<Pid, Fault> {
    let mut living = list_threads(process);
    living.retain(|(_, stat)| !stat.is_dead());
    if living.is_empty() {
        return Err(Fault::Gone);
    }
    living.retain(|(_, stat)| stat.is_stopped());
    let is_in_call = |thread: Pid| {
        let call = fs::read_to_string(format!("/proc/{process}/task/{thread}/syscall")).unwrap_or_default();
        call.starts_with(|first: char| first.is_ascii_digit())
    };
    let in_call = living.iter().find(|(thread, _)| is_in_call(*thread));
    in_call.or(living.first()).map(|(thread, _)| *thread).ok_or(Fault::Continued)
}
