//! What can go wrong: a sentence, an exit status, and sometimes a hint.
//!
//! A sentence reads `cannot VERB OBJECT: REASON`. The statuses are those of nohup(1), env(1) and timeout(1): 125 if
//! detach itself failed, 126 if COMMAND was found but could not be run, 127 if it was not found. Each sentence is made
//! where the error occurs; `term::ui` prints it.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::Path;

use nix::errno::Errno;

use crate::sys::errno;
use crate::term::text::quote;

/// detach itself failed, or its usage was wrong.
pub const FAILED: u8 = 125;
/// COMMAND was found but could not be run.
const NOT_EXECUTABLE: u8 = 126;
/// COMMAND was not found.
const NOT_FOUND: u8 = 127;

/// Why something that was asked for was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    status: u8,
    sentence: String,
    hint: Option<String>,
}

impl Error {
    /// detach itself failed.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self { status: FAILED, sentence: sentence.into(), hint: None }
    }

    /// COMMAND was found but could not be run.
    pub fn not_executable(sentence: impl Into<String>) -> Self {
        Self { status: NOT_EXECUTABLE, ..Self::new(sentence) }
    }

    /// COMMAND, or what must run it, was not found.
    pub fn not_found(sentence: impl Into<String>) -> Self {
        Self { status: NOT_FOUND, ..Self::new(sentence) }
    }

    /// A system call on `path` failed.
    pub fn path(verb: &str, path: impl AsRef<Path>, errno: Errno) -> Self {
        Self::refused(verb, path, &reason(errno))
    }

    /// A call of the standard library on `path` failed.
    pub fn io(verb: &str, path: impl AsRef<Path>, error: &io::Error) -> Self {
        Self::path(verb, path, errno(error))
    }

    /// Something is wrong with `path`.
    pub fn refused(verb: &str, path: impl AsRef<Path>, reason: &str) -> Self {
        Self::new(format!("cannot {verb} {}: {reason}", quote(path.as_ref().as_os_str())))
    }

    /// A step that concerns no file failed.
    pub fn step(step: &str, errno: Errno) -> Self {
        Self::new(format!("cannot {step}: {}", reason(errno)))
    }

    /// /proc cannot be read, or shows other processes than those of this PID namespace.
    pub fn proc(errno: Errno) -> Self {
        match errno {
            Errno::ENOENT => Self::refused("read", "/proc", "it is not mounted"),
            Errno::ESRCH => Self::refused("read", "/proc", "it belongs to another PID namespace"),
            _ => Self::path("read", "/proc", errno),
        }
    }

    /// What was asked for could not be written to stdout.
    pub fn stdout(error: &io::Error) -> Self {
        Self::step("write to stdout", errno(error))
    }

    /// Adds what the user may want to do instead.
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Like [`Error::with_hint`], where there may be none.
    pub fn with_hint_if_any(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// The exit status that goes with the sentence.
    pub fn status(&self) -> u8 {
        self.status
    }

    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// An error number in lower case, as a reason: `no such file or directory`.
pub fn reason(errno: Errno) -> String {
    let description = match errno {
        Errno::EAGAIN => "Resource temporarily unavailable",
        // As glibc says it; nix has the words of 4.2BSD.
        Errno::EBADF => "Bad file descriptor",
        errno => errno.desc(),
    };
    let mut letters = description.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(description.chars().skip(1)).collect()
        }
        _ => description.to_owned(),
    }
}
