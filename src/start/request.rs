//! What is to be started, and how: what the user typed, and no more.
//!
//! `cli` makes it from the words, `plan` turns it into what the new processes need.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::stat::Mode;

use crate::sys::signals::Disposition;

/// A start that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The command and its arguments; never empty.
    pub command: Vec<OsString>,
    /// If the job is not to be named after the command.
    pub name: Option<OsString>,
    pub sequence: Sequence,
    pub input: Option<Target>,
    pub output: Option<Target>,
    pub error: Option<Target>,
    pub directory: Option<PathBuf>,
    pub umask: Option<Mode>,
    /// Descriptors to keep open.
    pub keep: Vec<RawFd>,
    pub sigchld: Option<Disposition>,
    pub pidfile: Option<PathBuf>,
    pub tracking: Tracking,
    pub watch: Watch,
    pub scope: Scope,
    pub print_pid: bool,
    pub json: bool,
}

impl Request {
    /// The start of `command` with every default.
    pub fn new(command: Vec<OsString>) -> Self {
        Self { command, ..Self::default() }
    }
}

/// What an option says about a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `-`: leave it as it is.
    Keep,
    File(PathBuf),
}

/// How the process of the command comes about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sequence {
    /// It leads a session of its own.
    #[default]
    Leader,
    /// The daemon sequence: it is in a session that no process leads.
    Daemon,
}

/// Whether a process stays to record how the command ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracking {
    #[default]
    No,
    Record,
    /// With a desktop notification.
    Notify,
}

/// How long detach stays to see whether the command fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watch {
    /// A moment on a terminal, else not at all.
    #[default]
    Default,
    For(Duration),
    ToTheEnd,
}

/// In which control group the job runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    #[default]
    OfCaller,
    /// In a systemd scope of its own.
    Own,
}
