//! An interactive shell in which the function of `--init` is loaded.
//!
//! What is typed is typed once, when the shell waits for it: a second `detach %1` would mean another job.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::process::{Process, read_pid};
use super::sandbox::Sandbox;
use super::terminal::Terminal;
use super::wait::{await_result, eventually};

/// How a shell is started, and how the function is loaded.
pub struct Shell {
    pub name: &'static str,
    pub program: &'static [&'static str],
    pub load: &'static str,
    /// The exit status of the last command.
    status: &'static str,
}

pub const BASH: Shell = Shell {
    name: "bash",
    program: &["bash", "--norc", "--noprofile", "-i"],
    load: "eval \"$(detach --init bash)\"",
    status: "\"$?\"",
};
pub const ZSH: Shell =
    Shell { name: "zsh", program: &["zsh", "-f", "-i"], load: "eval \"$(detach --init zsh)\"", status: "\"$?\"" };
pub const FISH: Shell = Shell {
    name: "fish",
    program: &["fish", "--no-config", "-i"],
    load: "detach --init fish | source",
    status: "$status",
};

/// An interactive shell with the function on a terminal.
pub struct LoadedShell {
    name: &'static str,
    status: &'static str,
    pub sandbox: Sandbox,
    pub terminal: Terminal,
    /// The number of files that have been named.
    count: u32,
}

impl LoadedShell {
    pub fn open(shell: &Shell) -> Self {
        Self::open_after(shell, &[])
    }

    /// Types these lines before the function is loaded.
    #[track_caller]
    pub fn open_after(shell: &Shell, settings: &[&str]) -> Self {
        let sandbox = Sandbox::new();
        let terminal = Terminal::open_with(&sandbox, shell.program);
        let mut loaded = Self { name: shell.name, status: shell.status, sandbox, terminal, count: 0 };
        for line in settings {
            loaded.terminal.wait_for_prompt();
            loaded.terminal.type_line(line);
        }
        loaded.succeeds(shell.load);
        loaded
    }

    fn file(&mut self, name: &str) -> PathBuf {
        self.count += 1;
        self.sandbox.path(&format!("{name}.{}", self.count))
    }

    /// Types a command once, waits until it has ended, and returns its exit status.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> i32 {
        self.terminal.wait_for_prompt();
        let file = self.file("status");
        self.terminal.type_line(&format!("{command}; echo {} > {}", self.status, file.display()));
        await_result(|| {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let status = text.strip_suffix('\n').and_then(|status| status.parse().ok());
            status.ok_or_else(|| format!("{command}: {}", self.terminal.screen_end()))
        })
    }

    /// Like [`Self::run`], for a command that must succeed.
    #[track_caller]
    pub fn succeeds(&mut self, command: &str) {
        let status = self.run(command);
        assert_eq!(status, 0, "{} {command}: {}", self.name, self.terminal.screen_end());
    }

    /// Like [`await_result`]. It reads the screen meanwhile: when the buffer of a terminal is full, the shell waits.
    #[track_caller]
    pub fn await_result<T>(&mut self, mut attempt: impl FnMut(&mut Terminal) -> Result<T, String>) -> T {
        await_result(|| {
            let screen = self.terminal.screen_end();
            attempt(&mut self.terminal).map_err(|reason| format!("{reason}; the screen ends with {screen:?}"))
        })
    }

    #[track_caller]
    pub fn eventually(&mut self, mut condition: impl FnMut(&mut Terminal) -> bool) {
        self.await_result(|terminal| if condition(terminal) { Ok(()) } else { Err("it is not so".to_owned()) });
    }

    /// Starts a program that writes its PID to the file that is its last argument.
    #[track_caller]
    pub fn start(&mut self, program: &str, how: &str) -> Process {
        self.terminal.wait_for_prompt();
        let file = self.file("pid");
        self.terminal.type_line(&format!("{program} {} {how}", file.display()));
        self.await_result(|_| read_pid(&file))
    }

    /// Starts a program in the foreground, and stops it and its pipeline with Ctrl-Z.
    #[track_caller]
    pub fn start_stopped(&mut self, program: &str, pipeline: &str) -> Process {
        let process = self.start(program, pipeline);
        self.eventually(|terminal| terminal.foreground() == process.group());
        // Again if a process of the pipeline was still ignoring the key, as shells do.
        let mut pressed = None::<Instant>;
        self.eventually(|terminal| {
            let is_in_foreground = terminal.foreground() == process.group();
            if is_in_foreground && pressed.is_none_or(|pressed| pressed.elapsed() > Duration::from_millis(500)) {
                terminal.press("\x1a");
                pressed = Some(Instant::now());
            }
            process.is_stopped() && terminal.foreground() == terminal.shell.group()
        });
        process
    }

    /// Closes the window, when the shell waits for a key.
    #[track_caller]
    pub fn hang_up(&mut self) {
        self.terminal.wait_for_prompt();
        self.terminal.hang_up();
        eventually(|| self.terminal.is_shell_dead());
    }
}
