//! What every test stands on: a `Sandbox` with its own HOME, a `Terminal` with a shell in it, a `Process` seen
//! through /proc, and `eventually` in place of sleep.
//!
//! The test process never forks, it spawns; and it is a subreaper, so that whatever a test leaves behind becomes its
//! child, is found by the mark of the sandbox, and ends with it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, close, tcgetpgrp};
use serde_json::Value;

/// The program under test.
pub const DETACH: &str = env!("CARGO_BIN_EXE_detach");
/// Longer than anything here takes on a machine under load.
const LIMIT: Duration = Duration::from_secs(30);
/// The variable by which a sandbox knows its processes.
const MARK: &str = "DETACH_TEST_SANDBOX";

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(mut condition: impl FnMut() -> bool) {
    await_result(|| if condition() { Ok(()) } else { Err(String::from("the condition does not hold")) });
}

/// Tries until there is a result; when there is none, says what was last seen.
#[track_caller]
pub fn await_result<T>(mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        match attempt() {
            Ok(result) => return result,
            Err(last_seen) => assert!(Instant::now() < end, "did not happen within {LIMIT:?}: {last_seen}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Says why a test cannot run here. Under CI nothing may be left out.
#[track_caller]
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "skipped: {reason}");
    eprintln!("skipped: {reason}");
}

/// Whether `program` is in PATH; says that the test is skipped where it is not.
#[track_caller]
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !found {
        skip(&format!("{program} is not installed (tests/run installs it)"));
    }
    found
}

/// Whether this is root; says that the test is skipped where it is not.
#[track_caller]
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("only root can do this");
    }
    root
}

/// A HOME of its own, for the length of a test.
pub struct Sandbox {
    directory: tempfile::TempDir,
    mark: String,
}

impl Sandbox {
    pub fn new() -> Self {
        static PREPARED: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        PREPARED.call_once(|| {
            prctl::set_child_subreaper(true).unwrap();
            close_inherited_descriptors();
        });
        let directory = tempfile::Builder::new().prefix("detach-test-").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mark = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let sandbox = Self { directory, mark };
        for name in ["home", "work"] {
            fs::create_dir(sandbox.path(name)).unwrap();
        }
        sandbox
    }

    /// A path in the sandbox. `work` is the directory in which commands start.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where logs and records are.
    pub fn state(&self) -> PathBuf {
        self.path("home/.local/state/detach")
    }

    /// Writes a file in `work`, executable, and returns its path.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path("work").join(name);
        // Written by another process: a file that this one has open for writing may be open in the child of another
        // test for a moment as well, and cannot be executed then (ETXTBSY).
        let mut command = self.command("sh");
        command.args(["-c", "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\""]).arg(&path).arg(text);
        assert_eq!(Run::of(&mut command).status, 0);
        path
    }

    /// The environment of everything in the sandbox. `detach` is in its PATH.
    pub fn environment(&self) -> BTreeMap<OsString, OsString> {
        let mut path = OsString::from(Path::new(DETACH).parent().unwrap());
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        let home = self.path("home");
        let variables: [(&str, &OsStr); 7] = [
            ("PATH", &path),
            ("HOME", home.as_os_str()),
            ("ZDOTDIR", home.as_os_str()),
            ("TERM", "xterm".as_ref()),
            ("NO_COLOR", "1".as_ref()),
            ("LC_ALL", "C.UTF-8".as_ref()),
            (MARK, self.mark.as_ref()),
        ];
        variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    /// The mark as a line of a configuration: `NAME=VALUE`.
    pub fn mark(&self) -> String {
        format!("{MARK}={}", self.mark)
    }

    /// A program in the sandbox, to be started by the test. No terminal is near, and none is this process's.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment()).current_dir(self.path("work")).stdin(Stdio::null());
        command
    }

    /// A script of sh in the sandbox, run to its end.
    pub fn sh(&self, script: &str) -> Run {
        Run::of(self.command("sh").args(["-c", script]))
    }

    /// `detach ARGS`, run to its end. Its stdout and stderr are pipes.
    pub fn detach<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::of(self.command(DETACH).args(args))
    }

    /// Starts a command by `detach -P OPTIONS COMMAND` and returns its process.
    #[track_caller]
    pub fn job<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Process {
        let run = Run::of(self.command(DETACH).arg("-P").args(args));
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{run:?}");
        Process::started(&run.stdout)
    }

    /// The names of the files in the state directory with this ending.
    pub fn files(&self, ending: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.state()) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(ending)).collect()
    }

    /// All records, read.
    pub fn records(&self) -> Vec<Value> {
        let read = |name: String| serde_json::from_slice(&fs::read(self.state().join(name)).unwrap()).unwrap();
        self.files(".json").into_iter().map(read).collect()
    }

    /// What the only log of the sandbox holds.
    #[track_caller]
    pub fn log(&self) -> String {
        let logs = self.files(".log");
        assert_eq!(logs.len(), 1, "{logs:?}");
        fs::read_to_string(self.state().join(&logs[0])).unwrap()
    }

    /// Nothing is left of a start that failed: no process, no zombie, no file.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        assert_eq!(self.files(""), [""; 0], "files are left");
        let left = self.processes();
        assert!(left.is_empty(), "processes are left: {left:?}");
    }

    /// The processes of the sandbox, which must come to be `count`.
    #[track_caller]
    pub fn jobs(&self, count: usize) -> Vec<Process> {
        await_result(|| {
            let processes = self.processes();
            if processes.len() == count { Ok(processes) } else { Err(format!("{count} wanted, not {processes:?}")) }
        })
    }

    /// The process of the sandbox that has no terminal.
    #[track_caller]
    pub fn detached(&self) -> Process {
        let has_no_terminal = |process: &Process| process.stat(7).is_some_and(|terminal| terminal == "0");
        await_result(|| self.processes().into_iter().find(has_no_terminal).ok_or_else(String::new))
    }

    /// The living processes of the sandbox.
    pub fn processes(&self) -> Vec<Process> {
        let mark = self.mark();
        let is_ours = |pid: &i32| {
            let environment = environment(Pid::from_raw(*pid));
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        all_pids().into_iter().filter(is_ours).map(Process::new).filter(Process::is_alive).collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let end = Instant::now() + LIMIT;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end || std::thread::panicking(), "processes outlive the test: {left:?}");
            for process in left {
                // It may have ended by itself, and may not be this process's to reap.
                let _ = kill(process.pid, Signal::SIGKILL);
                let _ = waitpid(process.pid, Some(WaitPidFlag::WNOHANG));
            }
        }
    }
}

/// The PIDs of all processes.
pub fn all_pids() -> Vec<i32> {
    let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).collect()
}

/// How a program that ran to its end did.
#[derive(Debug)]
pub struct Run {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    #[track_caller]
    pub fn of(command: &mut Command) -> Self {
        let output: Output = command.output().unwrap();
        Self::from(output)
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let status = output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal));
        Self {
            status: status.unwrap(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A process, known by its PID and its start time, as the kernel shows it.
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

    /// A process whose exec is known to have worked, and which may have ended since. The kernel lets detach go on
    /// in the middle of the exec: the environment of the new program is one of the last things to appear.
    #[track_caller]
    pub fn started(pid: &str) -> Self {
        let process = Self::new(pid.trim().parse().unwrap_or_else(|_| panic!("{pid:?} is no PID")));
        environment(process.pid);
        process
    }

    /// Field `number` of /proc/PID/stat, counted as in `proc_pid_stat(5)`; `None` when the process is gone.
    pub fn stat(&self, number: usize) -> Option<String> {
        (stat_field(self.pid, 22)? == self.start_time).then(|| stat_field(self.pid, number))?
    }

    /// Gone, or a zombie: nobody has to reap it for it to be dead.
    pub fn is_dead(&self) -> bool {
        self.stat(3).is_none_or(|state| state == "Z" || state == "X")
    }

    pub fn is_alive(&self) -> bool {
        !self.is_dead()
    }

    pub fn is_stopped(&self) -> bool {
        self.stat(3).is_some_and(|state| state == "T")
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

    /// The open descriptors and what they lead to.
    #[track_caller]
    pub fn descriptors(&self) -> BTreeMap<i32, PathBuf> {
        let entries = fs::read_dir(self.file("fd")).unwrap().map(Result::unwrap);
        let number = |entry: &fs::DirEntry| entry.file_name().to_str().unwrap().parse().unwrap();
        entries.map(|entry| (number(&entry), fs::read_link(entry.path()).unwrap_or_default())).collect()
    }

    /// Exactly these descriptors are open, as soon as the dynamic loader has opened and closed its libraries. Returns
    /// what they lead to; asked again, the loader may just have opened one.
    #[track_caller]
    pub fn assert_descriptors(&self, expected: &[i32]) -> BTreeMap<i32, PathBuf> {
        await_result(|| {
            let open = self.descriptors();
            let is_expected = open.keys().eq(expected);
            if is_expected { Ok(open) } else { Err(format!("{open:?} are open, not {expected:?}")) }
        })
    }

    /// How it has opened a descriptor, with `O_CLOEXEC`; `None` when that is closed.
    pub fn descriptor_flags(&self, fd: i32) -> Option<OFlag> {
        let info = fs::read_to_string(self.file(&format!("fdinfo/{fd}"))).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        i32::from_str_radix(flags.trim(), 8).ok().map(OFlag::from_bits_retain)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    /// The words of a file of /proc/PID whose entries end in NUL; none when it has ended, or is in the middle of an exec.
    pub fn words(&self, name: &str) -> Vec<Vec<u8>> {
        let bytes = fs::read(self.file(name)).unwrap_or_default();
        let mut words: Vec<Vec<u8>> = bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        words.pop();
        words
    }

    /// Whether its command line begins with these words, between which are spaces.
    pub fn runs(&self, command: &str) -> bool {
        let mut words = self.words("cmdline").into_iter();
        command.split(' ').all(|word| words.next().is_some_and(|it| it == word.as_bytes()))
    }

    /// Waits until it runs `command`: what has written its PID may be a shell that is on the way to an exec.
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
}

/// What the caller of the tests has left open would be open in all that they start as well, and `--check` tells of it.
/// This process itself opens nothing without `O_CLOEXEC`.
fn close_inherited_descriptors() {
    let this = Process::new(std::process::id().cast_signed());
    for fd in this.descriptors().into_keys().filter(|fd| *fd > 2) {
        if this.descriptor_flags(fd).is_some_and(|flags| !flags.contains(OFlag::O_CLOEXEC)) {
            close(fd).unwrap();
        }
    }
}

/// The environment of a process; empty when it may not be read. In the middle of an exec there is none for a moment,
/// which is waited for: there is memory (`vsize`) then, and `env_start` and `env_end` do not say yet that it is empty.
fn environment(pid: Pid) -> Vec<u8> {
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

/// A script of sh that writes its PID to `file`, whole, and becomes a sleep.
pub fn sleeper(file: &Path) -> String {
    format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 60", file.display())
}

/// A process that has written its PID to `file`, or is about to.
#[track_caller]
pub fn process_named_in(file: &Path) -> Process {
    await_result(|| read_pid(file))
}

fn read_pid(file: &Path) -> Result<Process, String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    match text.strip_suffix('\n').map(str::parse) {
        Some(Ok(pid)) => Ok(Process::new(pid)),
        _ => Err(format!("{} holds {text:?} and no PID", file.display())),
    }
}

/// Mode bits of a file.
#[track_caller]
pub fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// A pseudo-terminal with a program in it, whose controlling terminal it is: what a terminal emulator does.
pub struct Terminal {
    master: Option<pty_process::blocking::Pty>,
    /// The other side of it, and when that was made.
    device: (PathBuf, i64, i64),
    child: Child,
    pub shell: Process,
    seen: Vec<u8>,
}

impl Terminal {
    /// A terminal with sh in it.
    pub fn open(sandbox: &Sandbox) -> Self {
        Self::open_with(sandbox, &["sh", "-i"])
    }

    pub fn open_with(sandbox: &Sandbox, program: &[&str]) -> Self {
        let (master, slave) = pty_process::blocking::open().unwrap();
        master.resize(pty_process::Size::new(50, 200)).unwrap();
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_RDWR)).unwrap();
        let name = fs::read_link(format!("/proc/self/fd/{}", slave.as_fd().as_raw_fd())).unwrap();
        let made = fs::metadata(&name).unwrap();
        let device = (name, made.ctime(), made.ctime_nsec());
        let command = pty_process::blocking::Command::new(program[0])
            .args(&program[1..])
            .env_clear()
            .envs(sandbox.environment())
            .current_dir(sandbox.path("work"));
        let child = command.spawn(slave).unwrap();
        let shell = Process::new(child.id().try_into().unwrap());
        Self { master: Some(master), device, child, shell, seen: Vec::new() }
    }

    /// Types `keys`.
    #[track_caller]
    pub fn press(&mut self, keys: &str) {
        self.read();
        let mut keys = keys.as_bytes();
        let end = Instant::now() + LIMIT;
        while !keys.is_empty() {
            match self.master().write(keys) {
                Ok(written) => keys = &keys[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => self.read(),
                Err(error) => panic!("cannot type: {error}"),
            }
            assert!(Instant::now() < end, "the terminal takes no more keys");
        }
    }

    /// Types a line.
    #[track_caller]
    pub fn type_line(&mut self, line: &str) {
        self.press(line);
        self.press("\r");
    }

    /// Types a line of sh, waits until it has run, and returns its exit status and what has appeared meanwhile.
    #[track_caller]
    pub fn run(&mut self, line: &str) -> (i32, String) {
        await_result(|| {
            let end = self.screen_end();
            if end.ends_with("# ") || end.ends_with("$ ") { Ok(()) } else { Err(format!("no prompt: {end:?}")) }
        });
        self.seen.clear();
        // What is typed appears as well, but not with these numbers in it.
        self.type_line(&format!("{line}; echo \"[$?]$((40 + 2))\""));
        self.wait_for("]42\r\n");
        let screen = self.screen();
        let (before, _) = screen.rsplit_once("]42\r\n").unwrap();
        let (text, status) = before.rsplit_once('[').unwrap();
        (status.parse().unwrap(), text.to_owned())
    }

    /// Types a line that writes a PID to `file`, and waits for that process.
    #[track_caller]
    pub fn start(&mut self, line: &str, file: &Path) -> Process {
        self.type_until(line, || read_pid(file))
    }

    /// Types a line, and waits for what is to come of it. Types it again when nothing does: a shell may drop what is
    /// typed while it goes back to its prompt.
    #[track_caller]
    pub fn type_until<T>(&mut self, line: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
        let mut typed = None::<Instant>;
        await_result(|| {
            if typed.is_none_or(|typed| typed.elapsed() > Duration::from_secs(2)) {
                self.type_line(line);
                typed = Some(Instant::now());
            }
            let screen = self.screen_end();
            attempt().map_err(|reason| format!("after {line:?}: {reason}; the screen ends with {screen:?}"))
        })
    }

    /// Starts `command` in the background with `&`.
    #[track_caller]
    pub fn background(&mut self, sandbox: &Sandbox, command: &str) -> Process {
        let file = sandbox.path("background.pid");
        let _ = fs::remove_file(&file);
        let process = self.start(&format!("{command} & echo $! > {}", file.display()), &file);
        process.wait_for_exec(command.split(' ').next().unwrap());
        process
    }

    /// Starts `command` through detach.
    #[track_caller]
    pub fn detach(&mut self, sandbox: &Sandbox, command: &str) -> Process {
        let file = sandbox.path("detached.pid");
        let _ = fs::remove_file(&file);
        self.start(&format!("detach -P {command} > {}", file.display()), &file)
    }

    /// Everything that has appeared on the screen, the newest last.
    pub fn screen(&mut self) -> String {
        self.read();
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// The last part of the screen, for a message.
    pub fn screen_end(&mut self) -> String {
        let screen = self.screen();
        screen.chars().skip(screen.chars().count().saturating_sub(500)).collect()
    }

    /// Waits until `text` has appeared.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        await_result(|| {
            if self.screen().contains(text) {
                return Ok(());
            }
            Err(format!("{text:?} is not on the screen, which ends with {:?}", self.screen_end()))
        });
    }

    /// Waits until everything has let go of the terminal: the other side of it reports the end.
    #[track_caller]
    pub fn wait_for_end(&mut self) {
        eventually(|| self.has_ended());
    }

    pub fn has_ended(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.master().read(&mut buffer) {
            Ok(0) => true,
            Ok(count) => {
                self.seen.extend_from_slice(&buffer[..count]);
                false
            }
            Err(error) => error.raw_os_error() == Some(Errno::EIO as i32),
        }
    }

    /// The process group in the foreground.
    pub fn foreground(&mut self) -> i32 {
        tcgetpgrp(self.master().as_fd()).map_or(0, Pid::as_raw)
    }

    /// Closes the window: the kernel hangs up the terminal. For a moment a child that another test is just starting
    /// may have this side open as well; when all have closed it, the device is gone.
    #[track_caller]
    pub fn hang_up(&mut self) {
        drop(self.master.take());
        let (name, seconds, nanoseconds) = &self.device;
        eventually(|| {
            let is_ours = |it: fs::Metadata| (it.ctime(), it.ctime_nsec()) == (*seconds, *nanoseconds);
            !fs::metadata(name).is_ok_and(is_ours)
        });
    }

    /// Whether the shell has ended. A zombie is left to `Drop`.
    pub fn is_shell_dead(&mut self) -> bool {
        if self.master.is_some() {
            self.read();
        }
        self.shell.is_dead()
    }

    fn master(&mut self) -> &mut pty_process::blocking::Pty {
        self.master.as_mut().expect("the terminal has been closed")
    }

    /// Takes what has been written to the terminal, so that no writer has to wait.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = self.master().read(&mut buffer) {
            self.seen.extend_from_slice(&buffer[..count]);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A byte string as an argument.
pub fn bytes(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
