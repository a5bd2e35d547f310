//! Every sentence that can go wrong, with its exit status and its hint.
//!
//! A sentence reads `cannot VERB OBJECT: REASON`. The statuses are those of nohup(1), env(1) and timeout(1):
//! 125 when detach itself failed, 126 when COMMAND was found but could not be run, 127 when it was not found.
//! Printing is left to `ui`.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display, Formatter, Write};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Pid;

/// detach itself failed, wrong usage included.
pub const FAILED: u8 = 125;
/// COMMAND was found but could not be run.
const NOT_EXECUTABLE: u8 = 126;
/// COMMAND was not found.
const NOT_FOUND: u8 = 127;

/// Why a command was not started, or what else was asked for was not done.
#[derive(Clone, Debug)]
pub enum Error {
    /// What was typed makes no sense: the whole sentence, and what may have been meant.
    Usage { sentence: String, hint: Option<String> },
    /// No file of this name, or none in PATH.
    NotFound { command: OsString },
    /// The file is there, but what must run it is not: the interpreter of a script (with its name), or the
    /// dynamic loader of a program (without).
    NoInterpreter { command: OsString, interpreter: Option<OsString> },
    /// execve(2) refused the file.
    NotExecutable { command: OsString, reason: String },
    /// A step that concerns a file or directory failed: `cannot VERB 'PATH': REASON`.
    Path { verb: &'static str, path: PathBuf, reason: String },
    /// A descriptor of `--keep-fd` that is not open.
    KeepDescriptor { fd: RawFd },
    /// The directory of logs and records is open to others.
    ExposedDirectory { path: PathBuf, mode: u32 },
    /// A pidfile is locked by a process, which may not be to be seen from here.
    PidFileHeld { path: PathBuf, holder: Option<Pid> },
    /// The record could not be written. Ends a start only when there is no room for a log either.
    NoRecord { name: OsString, reason: String },
    /// A log or a record needs a place, and the environment names none.
    NoStateDirectory,
    /// A step that concerns no file failed: `cannot STEP: REASON`.
    Step { step: &'static str, errno: Errno },
    /// The new process could not be made.
    NoProcess { command: OsString, errno: Errno },
    /// The new process was killed before it became COMMAND.
    KilledEarly { command: OsString },
    /// The process that is to track COMMAND could not run. COMMAND does.
    NotTracked { command: OsString, errno: Errno },
    /// A desktop notification was asked for, and none can be shown.
    CannotNotify { reason: String, hint: String },
    /// No record has this PID or name, or none that can be read.
    NoJob { job: OsString, reason: &'static str },
    /// Several jobs run that have this name: their PIDs and commands.
    AmbiguousJob { verb: &'static str, job: OsString, candidates: Vec<String> },
    /// There is no process with this PID, or it ended while it was looked at.
    NoSuchProcess { pid: Pid },
    /// No job runs that could be checked.
    NothingToCheck,
    /// A step that concerns a job failed: `cannot VERB 'NAME', PID PID: REASON`.
    Job { verb: &'static str, name: OsString, pid: Pid, reason: String, hint: Option<&'static str> },
}

impl Error {
    /// A failed system call on `path`.
    pub fn path(verb: &'static str, path: impl Into<PathBuf>, errno: Errno) -> Self {
        Self::Path { verb, path: path.into(), reason: reason(errno) }
    }

    /// /proc does not tell what it should.
    pub fn proc(errno: Errno) -> Self {
        Self::path("read", "/proc", errno)
    }

    /// What was asked for could not be written.
    pub fn stdout(error: &std::io::Error) -> Self {
        Self::path("write to", "stdout", errno(error))
    }

    /// The exit status that goes with the sentence.
    pub fn status(&self) -> u8 {
        match self {
            Self::NotFound { .. } | Self::NoInterpreter { .. } => NOT_FOUND,
            Self::NotExecutable { .. } => NOT_EXECUTABLE,
            _ => FAILED,
        }
    }

    /// What the user may want to type instead, where there is such a thing.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } => hint.clone(),
            Self::NotFound { command } => hint_for_missing(command),
            Self::ExposedDirectory { path, .. } => {
                Some(format!("logs and records of jobs are kept there: chmod 700 {}", show(path)))
            }
            Self::CannotNotify { hint, .. } => Some(hint.clone()),
            Self::NoJob { .. } => Some("see 'detach --list --all'".into()),
            Self::AmbiguousJob { verb, .. } => Some(format!("{verb} one of them by its PID")),
            Self::Job { hint, .. } => hint.map(str::to_owned),
            Self::NoStateDirectory => Some("set HOME or XDG_STATE_HOME, or name a file: detach -o FILE COMMAND".into()),
            _ => None,
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Self::Usage { sentence, .. } => f.write_str(sentence),
            Self::NotFound { command } if is_path(command) => {
                write!(f, "cannot run {}: {}", quote(command), reason(Errno::ENOENT))
            }
            Self::NotFound { command } => write!(f, "cannot run {}: not found in PATH", quote(command)),
            Self::NoInterpreter { command, interpreter: Some(interpreter) } => {
                write!(f, "cannot run {}: its interpreter {} does not exist", quote(command), quote(interpreter))
            }
            Self::NoInterpreter { command, interpreter: None } => {
                write!(f, "cannot run {}: the dynamic loader that it needs does not exist", quote(command))
            }
            Self::NotExecutable { command, reason } => write!(f, "cannot run {}: {reason}", quote(command)),
            Self::Path { verb, path, reason } => write!(f, "cannot {verb} {}: {reason}", quote(path.as_os_str())),
            Self::KeepDescriptor { fd } => write!(f, "cannot keep descriptor {fd}: it is not open"),
            Self::ExposedDirectory { path, mode } => {
                write!(
                    f,
                    "cannot use directory {}: others may use it: its mode is {mode:03o}, not 700",
                    quote(path.as_os_str())
                )
            }
            Self::PidFileHeld { path, holder: Some(pid) } => {
                write!(f, "cannot use pidfile {}: process {pid} holds it", quote(path.as_os_str()))
            }
            Self::PidFileHeld { path, holder: None } => {
                write!(f, "cannot use pidfile {}: another process holds it", quote(path.as_os_str()))
            }
            Self::NoRecord { name, reason } => write!(f, "cannot record job {}: {reason}", quote(name)),
            Self::NoStateDirectory => {
                f.write_str("cannot find a place for logs and records: HOME is not set to an absolute path")
            }
            Self::Step { step, errno } => write!(f, "cannot {step}: {}", reason(*errno)),
            // fork(2) and clone(2): EAGAIN is the limit on processes, of the user or of the system.
            Self::NoProcess { command, errno: Errno::EAGAIN } => {
                write!(f, "cannot start {}: no more processes are allowed", quote(command))
            }
            Self::NoProcess { command, errno } => write!(f, "cannot start {}: {}", quote(command), reason(*errno)),
            Self::KilledEarly { command } => {
                write!(f, "cannot start {}: its process was killed before it ran", quote(command))
            }
            Self::NotTracked { command, errno } => {
                write!(f, "cannot track {}, which runs: {}", quote(command), reason(*errno))
            }
            Self::CannotNotify { reason, .. } => write!(f, "cannot show a notification: {reason}"),
            Self::NoJob { job, reason } => write!(f, "cannot find job {}: {reason}", quote(job)),
            Self::AmbiguousJob { verb, job, candidates } => {
                write!(f, "cannot {verb} {}: several jobs have this name: {}", quote(job), candidates.join(", "))
            }
            Self::NoSuchProcess { pid } => write!(f, "cannot check process {pid}: there is no such process"),
            Self::NothingToCheck => f.write_str("cannot check anything: no PID or JOB is given, and no job runs"),
            Self::Job { verb, name, pid, reason, .. } => {
                write!(f, "cannot {verb} {}, PID {pid}: {reason}", quote(name))
            }
        }
    }
}

/// The plain reason of an error number, in lower case: `no such file or directory`.
pub fn reason(errno: Errno) -> String {
    let description = match errno {
        Errno::EAGAIN => "Resource temporarily unavailable",
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

/// The error number of a failed standard library call on files.
pub fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// `'so'`, with control bytes and bytes that are not UTF-8 escaped, safe to show on a terminal.
pub fn quote(name: &OsStr) -> String {
    format!("'{}'", escape(name.as_bytes(), "'\\"))
}

/// `path` as typed, with control bytes escaped, for the end of a sentence.
pub fn show(path: &Path) -> String {
    escape(path.as_os_str().as_bytes(), "\\")
}

/// `bytes` with everything escaped that a terminal could take for a command, and the characters of `also`.
pub fn escape(bytes: &[u8], also: &str) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter == '\x1b' {
                text.push_str("\\e");
            } else if letter.is_control() || is_direction_mark(letter) {
                text.extend(letter.escape_default());
            } else {
                if also.contains(letter) {
                    text.push('\\');
                }
                text.push(letter);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Characters that make a terminal show a text in another order than it has: Unicode UAX #9.
fn is_direction_mark(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// execvp(3) looks a name up in PATH only when it has no slash.
pub fn is_path(command: &OsStr) -> bool {
    command.as_bytes().contains(&b'/')
}

/// A word that no file in PATH answers to is often something that only the shell knows.
fn hint_for_missing(command: &OsStr) -> Option<String> {
    let text = command.to_str().filter(|text| !text.is_empty() && !text.contains(char::is_control))?;
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_path(command) {
        None
    } else if SHELL_WORDS.contains(&text) {
        Some(format!("a shell can run it: detach sh -c '{text} …'"))
    } else if text.split_once('=').is_some_and(|(name, _)| !name.is_empty() && is_name(name)) {
        Some("to set a variable for the command: detach env NAME=VALUE COMMAND".into())
    } else if text.contains(|letter| " ;|&<>(){}$`*?~".contains(letter)) {
        Some(format!("a shell can run it: detach sh -c '{}'", text.replace('\'', r"'\''")))
    } else {
        Some("if it is an alias, first type: alias detach='detach '".into())
    }
}

/// Reserved words, and utilities that shells have built in and that make sense at the start of a script
/// (POSIX.1-2024, XCU 2.4 and 2.15).
const SHELL_WORDS: &[&str] = &[
    "!", ".", ":", "[[", "case", "cd", "command", "eval", "exec", "export", "for", "if", "popd", "pushd", "read",
    "set", "source", "time", "trap", "ulimit", "umask", "unset", "until", "while", "{",
];
