//! A home directory for one test, in which everything the test starts lives and with which it ends.
//!
//! Programs carry the mark of their sandbox in the environment. The test process is a subreaper (prctl(2)): all that a
//! test leaves behind becomes its child, is recognized by the mark, and is killed when the sandbox is dropped.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};

use super::process::{Process, close_inherited_descriptors, old_zombies, with_variable};
use super::run::Run;
use super::wait::{LIMIT, await_result};
use super::{DETACH, storage};

/// The variable that holds the mark.
const MARK: &str = "DETACH_TEST_SANDBOX";

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

    /// A path in the sandbox.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A path in the directory in which commands start.
    pub fn work(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path("work").join(name)
    }

    /// The directory of the journal and the logs.
    pub fn state(&self) -> PathBuf {
        self.path("home/.local/state/detach")
    }

    /// Writes a file in the working directory.
    #[track_caller]
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.work(name), text).unwrap();
    }

    /// The content of a file in the working directory.
    #[track_caller]
    pub fn read(&self, name: &str) -> String {
        let path = self.work(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Removes a file in the working directory, if it is there.
    pub fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.work(name));
    }

    /// Writes an executable file in the working directory and returns its path.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.work(name);
        // Written by another process: while this one has it open for writing, the child of another test may have it
        // open as well for a moment, and then it cannot be executed (ETXTBSY).
        let mut command = self.command("sh");
        command.args(["-c", "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\""]).arg(&path).arg(text);
        Run::of(&mut command).succeeds_silently();
        path
    }

    /// A copy of detach that every user may run.
    pub fn copy_of_detach(&self) -> PathBuf {
        let copy = self.path("detach");
        Run::of(self.command("cp").arg(DETACH).arg(&copy)).succeeds_silently();
        copy
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

    /// The mark as it stands in the environment: `NAME=VALUE`.
    pub fn mark(&self) -> String {
        format!("{MARK}={}", self.mark)
    }

    /// A program in the sandbox that the test starts. Its stdin is /dev/null.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment()).current_dir(self.path("work")).stdin(Stdio::null());
        command
    }

    /// The beginning of a command line that runs `program` as the user with this number. Requires root and setpriv.
    pub fn command_as(&self, user: u32, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command("setpriv");
        command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--clear-groups").arg(program);
        command
    }

    /// Runs a script of sh to its end.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Run {
        Run::of(self.command("sh").args(["-c", script]))
    }

    /// Runs a script of bash to its end.
    #[track_caller]
    pub fn bash(&self, script: &str) -> Run {
        Run::of(self.command("bash").args(["-c", script]))
    }

    /// Runs `detach ARGS` to its end. Its stdout and stderr are pipes.
    #[track_caller]
    pub fn detach<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::of(self.command(DETACH).args(args))
    }

    /// Starts a command by `detach -P OPTIONS COMMAND` and returns its process.
    #[track_caller]
    pub fn job<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Process {
        Process::started(&Run::of(self.command(DETACH).arg("-P").args(args)).succeeds())
    }

    /// The names of the files in the state directory with this ending, sorted.
    pub fn files(&self, ending: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.state()) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(ending)).collect();
        names.sort();
        names
    }

    /// The names of all logs, sorted.
    pub fn logs(&self) -> Vec<String> {
        self.files(".log")
    }

    /// The path of the only log.
    #[track_caller]
    pub fn log_file(&self) -> PathBuf {
        let logs = self.logs();
        assert_eq!(logs.len(), 1, "{logs:?}");
        self.state().join(&logs[0])
    }

    /// The content of the only log.
    #[track_caller]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap()
    }

    /// Asserts that a failed start has left nothing behind: no process, no zombie, no log, no record.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        assert_eq!(self.logs(), [""; 0], "logs are left");
        storage::assert_no_record_left(self);
        let left = self.processes();
        assert!(left.is_empty(), "processes are left: {left:?}");
    }

    /// Asserts that there is no log and no record.
    #[track_caller]
    pub fn assert_no_job_recorded(&self) {
        if self.state().exists() {
            assert_eq!(self.logs(), [""; 0], "logs are left");
            storage::assert_no_record_left(self);
        }
    }

    /// The processes of the sandbox, as soon as there are `count`.
    #[track_caller]
    pub fn jobs(&self, count: usize) -> Vec<Process> {
        await_result(|| {
            let processes = self.processes();
            if processes.len() == count { Ok(processes) } else { Err(format!("{count} wanted, not {processes:?}")) }
        })
    }

    /// The only process of the sandbox.
    #[track_caller]
    pub fn only_job(&self) -> Process {
        self.jobs(1).remove(0)
    }

    /// The process of the sandbox that has no terminal.
    #[track_caller]
    pub fn detached(&self) -> Process {
        let has_no_terminal = |process: &Process| process.stat(7).is_some_and(|terminal| terminal == "0");
        await_result(|| self.processes().into_iter().find(has_no_terminal).ok_or_else(String::new))
    }

    /// The living processes of the sandbox.
    pub fn processes(&self) -> Vec<Process> {
        with_variable(&self.mark())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let end = Instant::now() + LIMIT;
        loop {
            let left = self.processes();
            if left.is_empty() {
                reap_old_orphans();
                return;
            }
            assert!(Instant::now() < end || std::thread::panicking(), "processes outlive the test: {left:?}");
            for process in left {
                // It may have ended by itself, or be the child of another process.
                let _ = kill(process.pid, Signal::SIGKILL);
                let _ = waitpid(process.pid, Some(WaitPidFlag::WNOHANG));
            }
        }
    }
}

/// Waits for what earlier tests have left to this process: thousands of zombies make every look at /proc slow. The children
/// that a test has made itself are in the session of this process, and it waits for them.
fn reap_old_orphans() {
    for pid in old_zombies(Duration::from_secs(20)) {
        let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
    }
}
