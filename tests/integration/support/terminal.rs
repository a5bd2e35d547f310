//! A pseudo-terminal with a program in it whose controlling terminal it is: the work of a terminal emulator.
//!
//! The test types into it, reads its screen, and hangs it up.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Pid, tcgetpgrp};

use super::process::{Process, read_pid};
use super::sandbox::Sandbox;
use super::wait::{LIMIT, await_result, eventually};

pub struct Terminal {
    master: Option<pty_process::blocking::Pty>,
    /// The other side, and when it was made.
    device: (PathBuf, i64, i64),
    child: Child,
    pub shell: Process,
    seen: Vec<u8>,
    /// Where `background` and `detach` have PIDs written.
    directory: PathBuf,
}

impl Terminal {
    /// A terminal with sh in it.
    pub fn open(sandbox: &Sandbox) -> Self {
        Self::open_with(sandbox, &["sh", "-i"])
    }

    /// A terminal with bash in it, without its startup files.
    pub fn open_bash(sandbox: &Sandbox) -> Self {
        Self::open_with(sandbox, &["bash", "--norc", "--noprofile", "-i"])
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
        Self { master: Some(master), device, child, shell, seen: Vec::new(), directory: sandbox.path("") }
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
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.read(),
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
        // The typed line appears as well, but without the sum.
        self.type_line(&format!("{line}; echo \"[$?]$((40 + 2))\""));
        self.wait_for("]42\r\n");
        let screen = self.screen();
        let (before, _) = screen.rsplit_once("]42\r\n").unwrap();
        let (text, status) = before.rsplit_once('[').unwrap();
        (status.parse().unwrap(), text.to_owned())
    }

    /// Types a line of sh that must end with status 0, and returns what has appeared meanwhile.
    #[track_caller]
    pub fn succeeds(&mut self, line: &str) -> String {
        let (status, screen) = self.run(line);
        assert_eq!(status, 0, "{line:?}: {screen:?}");
        screen
    }

    /// Types a line that writes a PID to `file`, and waits for that process.
    #[track_caller]
    pub fn start(&mut self, line: &str, file: &Path) -> Process {
        self.type_until(line, || read_pid(file))
    }

    /// Types a line and waits for its effect. If there is none for a while the line is typed again, as a shell may
    /// drop what is typed while it returns to its prompt.
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
    pub fn background(&mut self, command: &str) -> Process {
        let file = self.directory.join("background.pid");
        let _ = fs::remove_file(&file);
        let process = self.start(&format!("{command} & echo $! > {}", file.display()), &file);
        process.wait_for_exec(command.split(' ').next().unwrap());
        process
    }

    /// Starts `command` through detach.
    #[track_caller]
    pub fn detach(&mut self, command: &str) -> Process {
        let file = self.directory.join("detached.pid");
        let _ = fs::remove_file(&file);
        self.start(&format!("detach -P {command} > {}", file.display()), &file)
    }

    /// Everything that has appeared on the screen.
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

    /// Waits until the shell is in the foreground and has been waiting for a key for a while. Before, it may drop what is
    /// typed; and a zsh that is hung up on its way back to the prompt may exit without a signal to its jobs.
    #[track_caller]
    pub fn wait_for_prompt(&mut self) {
        let (mut quiet, mut last) = (0, None);
        await_result(|| {
            self.read();
            let switches = self.shell.switches();
            let is_waiting = self.shell.is_asleep() && switches == last && self.foreground() == self.shell.group();
            quiet = if is_waiting { quiet + 1 } else { 0 };
            last = switches;
            if quiet > 20 { Ok(()) } else { Err(format!("no prompt; the screen ends with {:?}", self.screen_end())) }
        });
    }

    /// Waits until no process has the terminal open any more: then its master side reports the end.
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

    /// The device that programs in it have open.
    pub fn name(&self) -> &Path {
        &self.device.0
    }

    /// The process group in the foreground.
    pub fn foreground(&mut self) -> i32 {
        tcgetpgrp(self.master().as_fd()).map_or(0, Pid::as_raw)
    }

    /// Closes the window: the kernel hangs up the terminal. A child that another test is just starting may have this
    /// side open as well for a moment; the device is gone when all have closed it.
    #[track_caller]
    pub fn hang_up(&mut self) {
        drop(self.master.take());
        let (name, seconds, nanoseconds) = &self.device;
        eventually(|| {
            let is_ours = |it: fs::Metadata| (it.ctime(), it.ctime_nsec()) == (*seconds, *nanoseconds);
            !fs::metadata(name).is_ok_and(is_ours)
        });
    }

    /// Whether the shell has ended. `Drop` reaps it.
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

/// Asks the shell to end until it does: some shells warn first that there are jobs.
#[track_caller]
pub fn repeat_until_shell_ends(terminal: &mut Terminal, ask: impl Fn(&mut Terminal)) {
    let mut asked = None::<Instant>;
    await_result(|| {
        if terminal.is_shell_dead() {
            return Ok(());
        }
        if asked.is_none_or(|asked| asked.elapsed() > Duration::from_millis(500)) {
            ask(terminal);
            asked = Some(Instant::now());
        }
        Err(format!("the screen is {:?}", terminal.screen_end()))
    });
}
