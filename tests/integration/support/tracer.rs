//! Runs detach under ptrace(2), so that any system call of a start can fail, and any process of it be killed at any
//! instruction, before it becomes another program.
//!
//! Only the thread that starts a program traces it. All that it traces ends with the test, at the latest.

use std::collections::{HashMap, HashSet};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Stops as soon as it runs, and becomes its arguments when it is continued.
pub const STOPPED: &str = "kill -STOP $$; exec \"$@\"";

/// A system call that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub number: i64,
    /// The process: 0 for the launcher, 1 for the first that it makes, and so on.
    pub process: usize,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Make,
    Fail(Errno),
    /// The process is killed before the call.
    Kill,
}

/// A process that is traced.
struct Tracee {
    /// 0 for the launcher.
    number: usize,
    /// The error of the system call that it is in.
    fault: Option<Errno>,
    is_in_call: bool,
}

/// How a program goes on until the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    ToNextCall,
    /// No event but its exec, its end and its children.
    #[allow(dead_code)] // benches/faults needs it
    Freely,
}

struct Tracer {
    launcher: Pid,
    tracees: HashMap<Pid, Tracee>,
    /// How many processes there have been.
    count: usize,
    has_begun: bool,
    status: Option<ExitStatus>,
}

/// Runs `command`, which must begin with [`STOPPED`], and asks `act` about each system call that it and its children make
/// until they become other programs. Returns how it ended.
pub fn with_calls(command: &mut Command, mut act: impl FnMut(Call) -> Act) -> (Child, ExitStatus) {
    let (child, mut tracer) = Tracer::start(command);
    while let Some(event) = tracer.next_event() {
        match event {
            WaitStatus::PtraceSyscall(pid) => {
                tracer.at_call(pid, &mut act);
                Tracer::resume(pid, None, Pace::ToNextCall);
            }
            other => tracer.handle(other, Pace::ToNextCall),
        }
    }
    (child, tracer.status.unwrap())
}

/// Runs `command` likewise, and lists the instructions of its process `number` by their addresses, each where it is made for
/// the first time. Returns how it ended.
#[allow(dead_code)] // benches/faults needs it
pub fn with_steps(command: &mut Command, number: usize) -> (Child, ExitStatus, Vec<u64>) {
    let (child, mut tracer) = Tracer::start(command);
    let mut known = HashSet::new();
    let mut addresses = Vec::new();
    while let Some(event) = tracer.next_event() {
        let stepped = match event {
            WaitStatus::Stopped(pid, Signal::SIGTRAP) => Some(pid),
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_STOP) => {
                tracer.meet(pid);
                Some(pid)
            }
            // It steps over the clone of its own child; after a vfork it runs on freely.
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_CLONE) => {
                tracer.meet_child(pid);
                Some(pid)
            }
            _ => None,
        };
        let Some(pid) = stepped.filter(|pid| tracer.is_process(*pid, number)) else {
            tracer.handle(event, Pace::Freely);
            continue;
        };
        if let Ok(registers) = ptrace::getregs(pid)
            && known.insert(registers.rip)
        {
            addresses.push(registers.rip);
        }
        let _ = ptrace::step(pid, None);
    }
    (child, tracer.status.unwrap(), addresses)
}

/// Runs `command` likewise, and kills its process `number` before it makes the instruction at `address` for the first time.
/// Returns how it ended, and whether the process came there.
#[allow(dead_code)] // benches/faults needs it
pub fn with_kill(command: &mut Command, number: usize, address: u64) -> (Child, ExitStatus, bool) {
    let (child, mut tracer) = Tracer::start(command);
    let mut original = None;
    let mut is_killed = false;
    // The process that makes the instruction all the same, because it is another one.
    let mut passing = None;
    while let Some(event) = tracer.next_event() {
        match event {
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_STOP) => {
                tracer.meet(pid);
                if tracer.is_process(pid, number) && original.is_none() {
                    original = set_breakpoint(pid, address);
                }
                Tracer::resume(pid, None, Pace::Freely);
            }
            WaitStatus::Stopped(pid, Signal::SIGTRAP) if passing == Some(pid) => {
                passing = None;
                // All of them share the memory.
                if tracer.tracees.values().any(|tracee| tracee.number == number) {
                    let _ = set_breakpoint(pid, address);
                }
                Tracer::resume(pid, None, Pace::Freely);
            }
            WaitStatus::Stopped(pid, Signal::SIGTRAP) if original.is_some() => {
                remove_breakpoint(pid, address, original.unwrap_or_default());
                if tracer.is_process(pid, number) {
                    is_killed = true;
                    let _ = kill(pid, Signal::SIGKILL);
                } else {
                    passing = Some(pid);
                    let _ = ptrace::step(pid, None);
                }
            }
            other => tracer.handle(other, Pace::Freely),
        }
    }
    (child, tracer.status.unwrap(), is_killed)
}

/// int3
const BREAKPOINT: i64 = 0xcc;

/// Puts a breakpoint in the place of the instruction at `address`, and returns the word that was there.
fn set_breakpoint(pid: Pid, address: u64) -> Option<i64> {
    let place = address as *mut libc::c_void;
    let word = ptrace::read(pid, place).ok()?;
    ptrace::write(pid, place, word & !0xff | BREAKPOINT).ok()?;
    Some(word)
}

/// Puts the instruction back before which `pid` has stopped.
fn remove_breakpoint(pid: Pid, address: u64, original: i64) {
    let _ = ptrace::write(pid, address as *mut libc::c_void, original);
    if let Ok(mut registers) = ptrace::getregs(pid) {
        registers.rip = address;
        let _ = ptrace::setregs(pid, registers);
    }
}

impl Tracer {
    fn start(command: &mut Command) -> (Child, Self) {
        let child = command.spawn().unwrap();
        let launcher = Pid::from_raw(child.id().cast_signed());
        let stopped = waitpid(launcher, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert_eq!(stopped, WaitStatus::Stopped(launcher, Signal::SIGSTOP));
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(launcher, options).unwrap();
        kill(launcher, Signal::SIGCONT).unwrap();
        let first = Tracee { number: 0, fault: None, is_in_call: false };
        let tracees = HashMap::from([(launcher, first)]);
        (child, Self { launcher, tracees, count: 1, has_begun: false, status: None })
    }

    /// The next event of a process that is traced; `None` when there is none any more.
    fn next_event(&mut self) -> Option<WaitStatus> {
        while !self.tracees.is_empty() {
            // Children and tracees of other threads are none of its business.
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Ok(WaitStatus::Exited(pid, code)) => self.note_end(pid, code << 8),
                Ok(WaitStatus::Signaled(pid, signal, _)) => self.note_end(pid, signal as i32),
                Ok(event) => return Some(event),
                Err(Errno::EINTR) => (),
                Err(_) => return None,
            }
        }
        None
    }

    fn note_end(&mut self, pid: Pid, status: i32) {
        self.tracees.remove(&pid);
        if pid == self.launcher {
            self.status = Some(ExitStatus::from_raw(status));
        }
    }

    /// At the beginning or at the end of a system call.
    fn at_call(&mut self, pid: Pid, act: &mut impl FnMut(Call) -> Act) {
        let Some(tracee) = self.tracees.get_mut(&pid) else { return };
        tracee.is_in_call = !tracee.is_in_call;
        let Ok(mut registers) = ptrace::getregs(pid) else { return };
        if !tracee.is_in_call {
            if let Some(errno) = tracee.fault.take() {
                registers.rax = i64::from(-(errno as i32)).cast_unsigned();
                let _ = ptrace::setregs(pid, registers);
            }
            return;
        }
        if !self.has_begun {
            return;
        }
        match act(Call { number: registers.orig_rax.cast_signed(), process: tracee.number }) {
            Act::Make => (),
            Act::Kill => drop(kill(pid, Signal::SIGKILL)),
            Act::Fail(errno) => {
                tracee.fault = Some(errno);
                // There is no such call.
                registers.orig_rax = u64::MAX;
                let _ = ptrace::setregs(pid, registers);
            }
        }
    }

    fn handle(&mut self, event: WaitStatus, pace: Pace) {
        match event {
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) if pid == self.launcher => {
                self.has_begun = true;
                Self::resume(pid, None, pace);
            }
            // It is another program now.
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => {
                self.tracees.remove(&pid);
                let _ = ptrace::detach(pid, None);
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                if event != libc::PTRACE_EVENT_STOP {
                    self.meet_child(pid);
                }
                self.meet(pid);
                Self::resume(pid, None, pace);
            }
            WaitStatus::Stopped(pid, signal) => {
                let signal = Some(signal).filter(|signal| *signal != Signal::SIGTRAP);
                Self::resume(pid, signal, pace);
            }
            WaitStatus::PtraceSyscall(pid) => Self::resume(pid, None, pace),
            _ => (),
        }
    }

    /// A process that is new, unless it is known already: its own first stop may come before its parent's.
    fn meet(&mut self, pid: Pid) {
        let number = self.count;
        self.tracees.entry(pid).or_insert_with(|| {
            self.count += 1;
            Tracee { number, fault: None, is_in_call: false }
        });
    }

    /// The process that `pid` has just made.
    fn meet_child(&mut self, pid: Pid) {
        if let Ok(child) = ptrace::getevent(pid) {
            self.meet(Pid::from_raw(child.try_into().unwrap()));
        }
    }

    fn is_process(&self, pid: Pid, number: usize) -> bool {
        self.tracees.get(&pid).is_some_and(|tracee| tracee.number == number)
    }

    /// It may have been killed meanwhile.
    fn resume(pid: Pid, signal: Option<Signal>, pace: Pace) {
        let _ = match pace {
            Pace::ToNextCall => ptrace::syscall(pid, signal),
            Pace::Freely => ptrace::cont(pid, signal),
        };
    }
}
