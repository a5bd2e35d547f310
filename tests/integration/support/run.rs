//! A program that has ended: its exit status and everything it wrote.
//!
//! Each way it may have gone has a method that checks the status, stdout and stderr to the letter, and shows the whole
//! run when one of them differs.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

#[derive(Debug)]
pub struct Run {
    /// The words of the command line; empty where a child was waited for.
    #[allow(dead_code)] // read in messages, by `Debug`
    command: Vec<String>,
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Runs `command` to its end.
    #[track_caller]
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let words = [command.get_program()].into_iter().chain(command.get_args());
        Self { command: words.map(|word| word.to_string_lossy().into_owned()).collect(), ..Self::from(output) }
    }

    /// Status 0, and nothing on stderr. Returns stdout.
    #[track_caller]
    pub fn succeeds(self) -> String {
        self.warns("")
    }

    /// Status 0, and nothing on stdout and stderr.
    #[track_caller]
    pub fn succeeds_silently(self) {
        self.ends(0, "", "");
    }

    /// Status 0, and exactly these lines on stderr. Returns stdout.
    #[track_caller]
    pub fn warns(self, stderr: &str) -> String {
        assert_eq!((self.status, self.stderr.as_str()), (0, lines(stderr).as_str()), "{self:#?}");
        self.stdout
    }

    /// This status, nothing on stdout, and exactly these lines on stderr.
    #[track_caller]
    pub fn fails(self, status: i32, stderr: &str) {
        assert_ne!(status, 0);
        self.ends(status, "", &lines(stderr));
    }

    /// This status, and nothing on stdout and stderr: what a command under `--wait --quiet` leads to.
    #[track_caller]
    pub fn exits_silently(self, status: i32) {
        self.ends(status, "", "");
    }

    /// This status. Returns the run, whose output is then the test's to check.
    #[track_caller]
    pub fn exits(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    #[track_caller]
    fn ends(self, status: i32, stdout: &str, stderr: &str) {
        let all = (self.status, self.stdout.as_str(), self.stderr.as_str());
        assert_eq!(all, (status, stdout, stderr), "{self:#?}");
    }
}

/// `text` with the newline at its end, which expected messages are written without.
fn lines(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{text}\n") }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let status = output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal));
        Self {
            command: Vec::new(),
            status: status.unwrap(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
