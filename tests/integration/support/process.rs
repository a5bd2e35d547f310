//! A process as the kernel shows it in /proc.
//!
//! It is identified by its PID and its start time: once it has ended, another process with the same PID is not taken
//! for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, close, getpid, getsid};

use super::wait::{await_result, eventually};

#[derive(Clone, Debug)]
pub struct Process {
    pub pid: Pid,
    start_time: String,
}

impl Process {
    pub fn new(pid: i32) -> Self {
        let pid = Pid::from_raw(pid);
        Self { pid, start_time: stat_field(pid, 22).unwrap_or_default() }
    }

    /// A process whose exec is known to have worked; it may have ended since. detach may return while the kernel is
    /// still in the exec. The environment of the new program is one of the last things to appear, so wait for it.
    #[track_caller]
    pub fn started(pid: &str) -> Self {
        let process = Self::new(pid.trim().parse().unwrap_or_else(|_| panic!("{pid:?} is no PID")));
        environment(process.pid);
        process
    }

    /// Field `number` of /proc/PID/stat, numbered as in `proc_pid_stat(5)`. `None` when the process is gone.
    pub fn stat(&self, number: usize) -> Option<String> {
        (stat_field(self.pid, 22)? == self.start_time).then(|| stat_field(self.pid, number))?
    }

    /// Whether it is gone or a zombie. A dead process need not have been reaped.
    pub fn is_dead(&self) -> bool {
        self.stat(3).is_none_or(|state| state == "Z" || state == "X")
    }

    pub fn is_alive(&self) -> bool {
        !self.is_dead()
    }

    pub fn is_stopped(&self) -> bool {
        self.stat(3).is_some_and(|state| state == "T")
    }

    pub fn is_asleep(&self) -> bool {
        self.stat(3).is_some_and(|state| state == "S")
    }

    #[track_caller]
    pub fn number(&self, field: usize) -> i32 {
        let value = self.stat(field);
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{self:?} has ended"))
    }

    #[track_caller]
    pub fn parent(&self) -> i32 {
        self.number(4)
    }

    #[track_caller]
    pub fn group(&self) -> i32 {
        self.number(5)
    }

    #[track_caller]
    pub fn session(&self) -> i32 {
        self.number(6)
    }

    /// The device number of the controlling terminal, 0 for none.
    #[track_caller]
    pub fn terminal(&self) -> i32 {
        self.number(7)
    }

    /// Whether it leads its session. False when it has ended.
    pub fn leads_session(&self) -> bool {
        self.stat(6) == Some(self.pid.to_string())
    }

    /// A line of /proc/PID/status.
    #[track_caller]
    pub fn status(&self, name: &str) -> String {
        let status = fs::read_to_string(self.file("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
    }

    /// A signal set of /proc/PID/status, as numbers.
    #[track_caller]
    pub fn signals(&self, name: &str) -> Vec<u32> {
        let set = u64::from_str_radix(&self.status(name), 16).unwrap();
        (1..=64).filter(|number| set >> (number - 1) & 1 == 1).collect()
    }

    /// How often it has given up the processor by itself. `None` when it is gone.
    pub fn switches(&self) -> Option<u64> {
        let status = fs::read_to_string(self.file("status")).ok()?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        count.trim().parse().ok()
    }

    /// The open descriptors and the files they refer to.
    #[track_caller]
    pub fn descriptors(&self) -> BTreeMap<i32, PathBuf> {
        let entries = fs::read_dir(self.file("fd")).unwrap().map(Result::unwrap);
        let number = |entry: &fs::DirEntry| entry.file_name().to_str().unwrap().parse().unwrap();
        entries.map(|entry| (number(&entry), fs::read_link(entry.path()).unwrap_or_default())).collect()
    }

    /// Waits until this process, a sleep, sleeps: before, it opens and closes files of the C library.
    #[track_caller]
    pub fn wait_for_sleep(&self) {
        eventually(|| fs::read_to_string(self.file("wchan")).is_ok_and(|place| place.ends_with("nanosleep")));
    }

    /// Waits until exactly these descriptors are open, and returns the files they refer to. The dynamic loader opens
    /// and closes libraries at first, so do not ask again for the descriptors.
    #[track_caller]
    pub fn assert_descriptors(&self, expected: &[i32]) -> BTreeMap<i32, PathBuf> {
        await_result(|| {
            let open = self.descriptors();
            let is_expected = open.keys().eq(expected);
            if is_expected { Ok(open) } else { Err(format!("{open:?} are open, not {expected:?}")) }
        })
    }

    /// The flags of an open descriptor, `O_CLOEXEC` included. `None` when it is closed.
    pub fn descriptor_flags(&self, fd: i32) -> Option<OFlag> {
        let info = fs::read_to_string(self.file(&format!("fdinfo/{fd}"))).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        i32::from_str_radix(flags.trim(), 8).ok().map(OFlag::from_bits_retain)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    /// The entries of a file of /proc/PID that are terminated by NUL. None when the process has ended or is in the
    /// middle of an exec.
    pub fn words(&self, name: &str) -> Vec<Vec<u8>> {
        let bytes = fs::read(self.file(name)).unwrap_or_default();
        let mut words: Vec<Vec<u8>> = bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        words.pop();
        words
    }

    /// Whether its command line begins with these words, which are separated by spaces.
    pub fn runs(&self, command: &str) -> bool {
        let mut words = self.words("cmdline").into_iter();
        command.split(' ').all(|word| words.next().is_some_and(|it| it == word.as_bytes()))
    }

    /// Waits until it runs `command`. A shell that has written its PID may not have reached its `exec` yet.
    #[track_caller]
    pub fn wait_for_exec(&self, command: &str) {
        eventually(|| self.runs(command));
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
    }

    #[track_caller]
    pub fn signal_group(&self, signal: Signal) {
        killpg(Pid::from_raw(self.group()), signal).unwrap();
    }

    /// Kills it and waits until it is dead.
    #[track_caller]
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
        eventually(|| self.is_dead());
    }
}

/// The PIDs of all processes.
pub fn all_pids() -> Vec<i32> {
    let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).collect()
}

/// The living processes with this variable in their environment: `NAME=VALUE`.
pub fn with_variable(variable: &str) -> Vec<Process> {
    let has_it =
        |pid: &i32| environment(Pid::from_raw(*pid)).split(|byte| *byte == 0).any(|other| other == variable.as_bytes());
    all_pids().into_iter().filter(has_it).map(Process::new).filter(Process::is_alive).collect()
}

/// A script of sh that writes its PID to `file` in one step and becomes a sleep.
pub fn sleeper(file: &Path) -> String {
    format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 60", file.display())
}

/// The process that writes its PID to `file`, which is waited for.
#[track_caller]
pub fn process_named_in(file: &Path) -> Process {
    await_result(|| read_pid(file))
}

pub fn read_pid(file: &Path) -> Result<Process, String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    match text.strip_suffix('\n').map(str::parse) {
        Some(Ok(pid)) => Ok(Process::new(pid)),
        _ => Err(format!("{} holds {text:?} and no PID", file.display())),
    }
}

/// Closes what the caller of the tests left open in this process: every program that the tests start would inherit it,
/// and `--check` would report it. The test process itself opens everything with `O_CLOEXEC`.
pub fn close_inherited_descriptors() {
    let this = Process::new(std::process::id().cast_signed());
    for fd in this.descriptors().into_keys().filter(|fd| *fd > 2) {
        if this.descriptor_flags(fd).is_some_and(|flags| !flags.contains(OFlag::O_CLOEXEC)) {
            close(fd).unwrap();
        }
    }
}

/// The environment of a process; empty when it may not be read. In the middle of an exec there is none for a moment,
/// so wait for it: then the process has memory (`vsize`), but `env_start` and `env_end` do not say yet that its
/// environment is empty.
pub fn environment(pid: Pid) -> Vec<u8> {
    loop {
        let Ok(bytes) = fs::read(format!("/proc/{pid}/environ")) else { return Vec::new() };
        if !bytes.is_empty() {
            return bytes;
        }
        let Some([memory, start, end]) = stat_fields(pid, [23, 50, 51]) else { return Vec::new() };
        if memory == "0" || (start == end && end != "0") {
            return Vec::new();
        }
        std::thread::yield_now();
    }
}

/// The dead children of this process that were started at least `age` ago and lead or are in another session.
pub fn old_zombies(age: Duration) -> Vec<Pid> {
    let (this, session) = (getpid().to_string(), getsid(None).unwrap().to_string());
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    // In ticks, of which there are a hundred a second: proc_pid_stat(5).
    let is_old = |start_time: &str| start_time.parse::<f64>().unwrap() / 100.0 + age.as_secs_f64() < uptime;
    let is_one = |pid: &Pid| {
        let fields = stat_fields(*pid, [3, 4, 6, 22]);
        fields.is_some_and(|[state, parent, its, start]| {
            state == "Z" && parent == this && its != session && is_old(&start)
        })
    };
    all_pids().into_iter().map(Pid::from_raw).filter(is_one).collect()
}

fn stat_field(pid: Pid, number: usize) -> Option<String> {
    stat_fields(pid, [number]).map(|[value]| value)
}

fn stat_fields<const N: usize>(pid: Pid, numbers: [usize; N]) -> Option<[String; N]> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = String::from_utf8_lossy(&stat[end_of_name + 1..]).into_owned();
    let values: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(numbers.map(|number| values[number - 3].to_owned()))
}
