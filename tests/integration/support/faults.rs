//! Starts in which something fails: what each must lead to, whatever it is.
//!
//! Either the command runs, is recorded, and detach exits with 0; or it does not run, nothing is left, and detach exits with
//! 125 to 127 and a sentence. The test module `faults` tries a part of what `benches/faults` does.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};

use super::tracer::{Act, Call, STOPPED, with_calls, with_kill, with_steps};
use super::wait::{await_result, eventually};
use super::{DETACH, Sandbox, storage};

/// The starts that are tried: what they are called, their options, and how many processes they make.
pub const MODES: [(&str, &[&str], usize); 6] = [
    ("-o FILE", &["-o", "out"], 1),
    ("a log", &[], 1),
    ("--full", &["--full"], 2),
    ("-t", &["-t"], 2),
    ("-t --full", &["-t", "--full"], 3),
    ("--pidfile", &["--pidfile", "pid"], 1),
];

/// The errors that system calls fail with.
pub const ERRORS: [Errno; 6] = [Errno::ENOSPC, Errno::EIO, Errno::EMFILE, Errno::ENOMEM, Errno::EPERM, Errno::EINTR];

/// What a process cannot survive, or cannot fail: what the C library does before `main`, and the look at its own PID.
const NOT_TRIED: [i64; 3] = [libc::SYS_getpid, libc::SYS_exit, libc::SYS_exit_group];
/// The first call after `main` has begun.
const FIRST: i64 = libc::SYS_fcntl;
/// Every signal gets its disposition in turn; so many are passed over.
const REPEATED: usize = 16;
/// A shell, and what it becomes, without a random layout of the memory: setarch(8).
#[allow(dead_code)] // benches/faults needs it
const AT_FIXED_ADDRESSES: &[&str] = &["setarch", "-R", "sh"];
/// Longer than any start takes.
const LIMIT: Duration = Duration::from_mins(1);

/// What was tried, and what fell short.
#[derive(Default)]
pub struct Tally {
    pub tried: usize,
    pub started: usize,
    pub refused: usize,
    pub launcher_killed: usize,
    /// Between the last step and the exec: such a start counts, as the manual says.
    pub killed_before_exec: usize,
    pub shortfalls: Vec<String>,
}

/// A place for starts of one mode, one after the other.
pub struct Range {
    sandbox: Sandbox,
    mode: (&'static str, &'static [&'static str], usize),
    /// The reading end of a FIFO that every job has open, and writes to when it runs.
    alive: File,
    pub tally: Tally,
}

impl Range {
    pub fn new(mode: (&'static str, &'static [&'static str], usize)) -> Self {
        let sandbox = Sandbox::new();
        // The first start makes the directory and the journal.
        sandbox.detach(["-w", "true"]).succeeds();
        sandbox.sh("mkfifo alive").succeeds_silently();
        let alive = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(sandbox.work("alive")).unwrap();
        let range = Self { sandbox, mode, alive, tally: Tally::default() };
        range.clean();
        range
    }

    /// How many system calls can be tried: those of a start in which all goes well.
    pub fn count_calls(&mut self) -> usize {
        let mut places = Places::default();
        self.try_start(&["sh"], |command| {
            let (child, status) = with_calls(command, |call| {
                places.find(call);
                Act::Make
            });
            Trial { child, status, is_tried: true, what: "nothing".to_owned(), may_be_killed_before_exec: false }
        });
        places.count
    }

    /// A start in which one system call does not go well.
    pub fn try_call(&mut self, place: usize, act: Act) {
        let mode = self.mode;
        self.try_start(&["sh"], |command| {
            let mut places = Places::default();
            let mut hit = None;
            let (child, status) = with_calls(command, |call| {
                if places.find(call) != Some(place) {
                    return Act::Make;
                }
                hit = Some(call);
                act
            });
            let is_exec = |call: Call| call.number == libc::SYS_execve && call.process == mode.2;
            let may_be_killed_before_exec = act == Act::Kill && hit.is_some_and(is_exec);
            let what = format!("{}: {act:?} at call {place}, {hit:?}", mode.0);
            Trial { child, status, is_tried: hit.is_some(), what, may_be_killed_before_exec }
        });
    }

    /// The instructions that the process of this number makes in a start in which all goes well.
    #[allow(dead_code)] // benches/faults needs it
    pub fn list_instructions(&mut self, process: usize) -> Vec<u64> {
        let mode = self.mode;
        let mut instructions = Vec::new();
        self.try_start(AT_FIXED_ADDRESSES, |command| {
            let (child, status, reached) = with_steps(command, process);
            assert!(status.success(), "{}: it was held up", mode.0);
            instructions = reached;
            Trial { child, status, is_tried: false, what: String::new(), may_be_killed_before_exec: false }
        });
        instructions
    }

    /// A start in which the process of this number is killed before one of [`Range::list_instructions`].
    #[allow(dead_code)] // benches/faults needs it
    pub fn try_instruction(&mut self, process: usize, address: u64) {
        let mode = self.mode;
        self.try_start(AT_FIXED_ADDRESSES, |command| {
            let (child, status, is_tried) = with_kill(command, process, address);
            let what = format!("{}: process {process} killed at {address:#x}", mode.0);
            Trial { child, status, is_tried, what, may_be_killed_before_exec: process == mode.2 }
        });
    }

    /// Makes a start by `run`, as an argument of `launcher`.
    fn try_start(&mut self, launcher: &[&str], run: impl FnOnce(&mut Command) -> Trial) {
        let mut command = self.sandbox.command(launcher[0]);
        command.args(&launcher[1..]);
        let script = format!("exec 9> alive; {STOPPED}");
        command.args(["-c", &script, "sh", DETACH]).args(self.mode.1);
        command.args(["--keep-fd", "9", "/bin/sh", "-c", "echo ran >&9"]);
        let watchdog = Watchdog::start(self.sandbox.mark());
        let trial = run(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let Trial { mut child, status, is_tried, what, may_be_killed_before_exec } = trial;
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let ran = self.wait_for_jobs();
        let is_late = watchdog.stop();
        if is_tried {
            let seen = self.look(status, ran, &stderr, is_late);
            self.judge(&what, &seen, may_be_killed_before_exec);
        }
        self.clean();
    }

    /// Waits until every job has ended, and returns how many have run.
    fn wait_for_jobs(&mut self) -> usize {
        let mut text = String::new();
        await_result(|| {
            let mut buffer = [0; 64];
            match self.alive.read(&mut buffer) {
                Ok(0) => Ok(()),
                Ok(count) => {
                    text.push_str(&String::from_utf8_lossy(&buffer[..count]));
                    Err("a job runs".to_owned())
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => Err("a job runs".to_owned()),
                Err(error) => panic!("{error}"),
            }
        });
        text.lines().count()
    }

    fn look(&self, status: ExitStatus, ran: usize, stderr: &str, is_late: bool) -> Seen {
        Seen {
            status: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            ran,
            recorded: storage::count_recorded(&self.sandbox),
            logs: self.sandbox.logs().len(),
            has_pidfile: self.sandbox.work("pid").exists(),
            stderr: stderr.to_owned(),
            is_late,
        }
    }

    fn judge(&mut self, what: &str, seen: &Seen, may_be_killed_before_exec: bool) {
        let tally = &mut self.tally;
        tally.tried += 1;
        let needs_log = self.mode.1.iter().all(|option| !["-o", "--full"].contains(option));
        let needs_pidfile = self.mode.1.contains(&"--pidfile");
        let is_warned = seen.stderr.starts_with("detach: warning: cannot record ");
        let is_recorded = (seen.recorded == 1 || is_warned)
            && seen.logs == usize::from(needs_log)
            && seen.has_pidfile == needs_pidfile;
        let is_started = seen.ran == 1 && is_recorded;
        let is_nothing = seen.ran == 0 && seen.recorded == 0 && seen.logs == 0 && !seen.has_pidfile;
        let has_sentence = seen.stderr.starts_with("detach: cannot ") && seen.stderr.ends_with('\n');
        match seen.status {
            _ if seen.is_late => (),
            0 if is_started => return tally.started += 1,
            125..=127 if is_nothing && has_sentence => return tally.refused += 1,
            137 if is_started || is_nothing => return tally.launcher_killed += 1,
            0 if may_be_killed_before_exec && is_recorded && seen.ran == 0 => return tally.killed_before_exec += 1,
            _ => (),
        }
        tally.shortfalls.push(format!("{what}: {seen:?}"));
    }

    fn clean(&self) {
        if self.mode.1.contains(&"-t") {
            // The process that tracks a command records its end.
            eventually(|| self.sandbox.processes().is_empty());
        }
        for log in self.sandbox.logs() {
            fs::remove_file(self.sandbox.state().join(log)).unwrap();
        }
        self.sandbox.remove("pid");
        fs::write(storage::journal(&self.sandbox), "").unwrap();
    }
}

/// A start that was made.
struct Trial {
    child: Child,
    status: ExitStatus,
    /// Whether it came to what was to fail.
    is_tried: bool,
    what: String,
    may_be_killed_before_exec: bool,
}

/// What a start has led to.
#[derive(Debug)]
#[allow(dead_code)] // read in messages, by `Debug`
struct Seen {
    status: i32,
    ran: usize,
    recorded: usize,
    logs: usize,
    has_pidfile: bool,
    stderr: String,
    is_late: bool,
}

/// Numbers the system calls that are tried.
#[derive(Default)]
struct Places {
    has_begun: bool,
    count: usize,
    dispositions: BTreeMap<usize, usize>,
}

impl Places {
    fn find(&mut self, call: Call) -> Option<usize> {
        self.has_begun |= call.number == FIRST;
        if !self.has_begun || NOT_TRIED.contains(&call.number) {
            return None;
        }
        if call.number == libc::SYS_rt_sigaction {
            let dispositions = self.dispositions.entry(call.process).or_default();
            *dispositions += 1;
            if *dispositions % REPEATED != 1 {
                return None;
            }
        }
        self.count += 1;
        Some(self.count - 1)
    }
}

/// Kills everything with a mark in its environment if a start takes too long.
struct Watchdog {
    stop: Sender<()>,
    thread: JoinHandle<bool>,
}

impl Watchdog {
    fn start(mark: String) -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let is_late = stopped.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout);
            if is_late {
                for process in super::process::with_variable(&mark) {
                    let _ = kill(process.pid, Signal::SIGKILL);
                }
            }
            is_late
        });
        Self { stop, thread }
    }

    /// Returns whether it was late.
    fn stop(self) -> bool {
        let _ = self.stop.send(());
        self.thread.join().unwrap()
    }
}
