//! The state directory: it holds the journals and logs of one user, and only that user has access to it.
//!
//! A start creates its log by name and never reads the directory, so its cost does not depend on the number of files.
//! What is in the journals is left to `journal`.

use std::env;
use std::ffi::{CStr, OsStr, OsString};
use std::fmt::Write;
use std::fs::DirBuilder;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::NixPath;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::unistd::{Pid, UnlinkatFlags, geteuid, unlinkat};

use crate::error::{Error, reason};
use crate::sys::fixed::FixedText;
use crate::term::text::{quote, show_path};

/// In bytes: enough for any name that people give, and short enough for every file system.
const LONGEST_STEM: usize = 100;
/// A stem, two dashes, a PID, a number, `.log` and a zero.
const LONGEST_LOG_NAME: usize = LONGEST_STEM + 32;
/// Logs of one name and one PID: more than a few would mean that something else is wrong.
const MOST_LOGS_OF_A_PID: u32 = 10_000;

/// Only the owner may know which jobs there are, and what they have written.
pub const OWNER_ALONE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// `$XDG_STATE_HOME/detach`, else `~/.local/state/detach`.
pub struct StateDirectory {
    path: PathBuf,
    directory: OwnedFd,
}

impl StateDirectory {
    /// Opens the directory, and creates it if it is missing. One that belongs to another user, or to which others have
    /// access, is refused: they could read what jobs write, or put a link where a log should be.
    ///
    /// The umask must not take permissions from the owner.
    pub fn open() -> Result<Self, Error> {
        Self::open_for(|variable| env::var_os(variable))
    }

    /// Like [`StateDirectory::open`], for a process with another environment.
    pub fn open_for(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let path = path_of_directory(variable)?;
        if let Some(found) = Self::find_at(&path)? {
            return Ok(found);
        }
        make_directory(&path)?;
        Self::open_at(&path)
    }

    /// Opens the directory with this path.
    pub fn open_at(path: &Path) -> Result<Self, Error> {
        Self::find_at(path)?.ok_or_else(no_place)
    }

    /// Opens the directory; `None` where there is none, because no job has been started yet.
    pub fn find() -> Result<Option<Self>, Error> {
        Self::find_at(&path_of_directory(|variable| env::var_os(variable))?)
    }

    fn find_at(path: &Path) -> Result<Option<Self>, Error> {
        let refuse = |reason: &str| Error::refused("use directory", path, reason);
        let directory = match open(path, DIRECTORY_FLAGS | OFlag::O_NOFOLLOW, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => return Ok(None),
            // The answer of open(2) to a symbolic link with O_DIRECTORY and O_NOFOLLOW.
            Err(Errno::ENOTDIR | Errno::ELOOP) if path.is_symlink() => return Err(refuse("it is a symbolic link")),
            Err(errno) => return Err(refuse(&reason(errno))),
        };
        let status = fstat(&directory).map_err(|errno| refuse(&reason(errno)))?;
        if status.st_uid != geteuid().as_raw() {
            return Err(refuse(&format!("it belongs to user {}", status.st_uid)));
        }
        let mode = status.st_mode & 0o777;
        if mode & 0o077 != 0 {
            let error = refuse(&format!("other users have access to it: its mode is {mode:03o}, not 700"));
            return Err(error.with_hint(format!("it contains the output of jobs; run: chmod 700 {}", show_path(path))));
        }
        Ok(Some(Self { path: path.to_owned(), directory }))
    }

    /// The working directory of this process, which is a state directory.
    pub fn here() -> nix::Result<Self> {
        Ok(Self { path: PathBuf::new(), directory: open(".", DIRECTORY_FLAGS, Mode::empty())? })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the files in the directory.
    pub fn list(&self) -> Result<Vec<OsString>, Error> {
        let failed = |errno| Error::path("read directory", &self.path, errno);
        let mut names = Vec::new();
        for entry in Dir::openat(&self.directory, ".", DIRECTORY_FLAGS, Mode::empty()).map_err(failed)?.iter() {
            names.push(OsString::from_vec(entry.map_err(failed)?.file_name().to_bytes().to_owned()));
        }
        Ok(names)
    }

    /// Opens a file of this directory, and never follows a link or waits for the other side of a FIFO.
    pub fn open_file(&self, name: &(impl NixPath + ?Sized), flags: OFlag) -> nix::Result<OwnedFd> {
        openat(&self.directory, name, flags | SAFELY | OFlag::O_NONBLOCK, OWNER_ALONE)
    }

    /// Size, times and kind of the file `name`; `None` when it is gone.
    pub fn status(&self, name: &OsStr) -> Option<FileStat> {
        fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()
    }

    /// Removes the file `name`, which is in this directory, if it is there.
    pub fn remove(&self, name: &(impl NixPath + ?Sized)) -> nix::Result<()> {
        match unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// Removes a log that a start has created since `started_at_ms`. If the start was killed before it created the log,
    /// the name may still be that of an older one, which stays. Allocates nothing.
    pub fn remove_new_log(&self, name: &CStr, started_at_ms: u64) {
        let status = fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        if status.is_ok_and(|status| status.st_size == 0 && was_changed_since(&status, started_at_ms)) {
            let _ = self.remove(name);
        }
    }

    /// The name that `path` has in this directory; `None` where it is elsewhere.
    pub fn name_of<'p>(&self, path: &'p Path) -> Option<&'p OsStr> {
        path.file_name().filter(|_| path.parent() == Some(self.path.as_path()))
    }

    /// Creates the log of process `pid`. `note` is called before each try with the number in the name. Called by the
    /// new process: allocates nothing.
    pub fn create_log(&self, stem: &LogStem, pid: Pid, note: impl Fn(u32)) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_APPEND | SAFELY;
        for number in 1..MOST_LOGS_OF_A_PID {
            note(number);
            match openat(&self.directory, stem.name(pid, number).as_c_str(), flags, OWNER_ALONE) {
                // An older job of this name had the same PID.
                Err(Errno::EEXIST) => (),
                other => return other,
            }
        }
        Err(Errno::EEXIST)
    }
}

const DIRECTORY_FLAGS: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);
/// How a file of the directory is opened, whatever has been put in its place.
const SAFELY: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// Whether a file was created or changed since then. The clock of a file system may be a few milliseconds behind.
pub fn was_changed_since(status: &FileStat, ms: u64) -> bool {
    const CLOCK_ERROR: u64 = 20;
    let seconds = u64::try_from(status.st_ctime).unwrap_or(0);
    let changed = seconds * 1000 + u64::try_from(status.st_ctime_nsec).unwrap_or(0) / 1_000_000;
    changed + CLOCK_ERROR >= ms
}

impl AsFd for StateDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The part of a log's name that stands for the job: it needs no quotes in a shell or in JSON, and no log is a hidden
/// file or looks like an option.
pub struct LogStem(String);

impl LogStem {
    pub fn new(job: &OsStr) -> Self {
        let mut stem = String::new();
        for letter in job.as_bytes().utf8_chunks().flat_map(|chunk| {
            let invalid = chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER);
            chunk.valid().chars().chain(invalid)
        }) {
            let is_plain = letter.is_alphanumeric() || "._+-".contains(letter);
            let letter = if is_plain { letter } else { '_' };
            if stem.len() + letter.len_utf8() > LONGEST_STEM {
                break;
            }
            stem.push(letter);
        }
        if stem.is_empty() || stem.starts_with(['.', '-']) {
            stem.insert(0, '_');
            while stem.len() > LONGEST_STEM {
                stem.pop();
            }
        }
        Self(stem)
    }

    /// `NAME-PID.log`, or `NAME-PID-NUMBER.log` from the second one on. Allocates nothing.
    pub fn name(&self, pid: Pid, number: u32) -> FixedText<LONGEST_LOG_NAME> {
        let mut name = FixedText::new();
        // It has room for the longest stem and the largest numbers.
        let _ = match number {
            ..=1 => write!(name, "{}-{pid}.log", self.0),
            _ => write!(name, "{}-{pid}-{number}.log", self.0),
        };
        name
    }
}

/// The PIDs that the name of a log may hold: in `NAME-PID-NUMBER.log`, either of the two numbers could be meant.
pub fn pids_in_log_name(name: &OsStr) -> Vec<Pid> {
    let stem = name.as_bytes().strip_suffix(b".log").unwrap_or_default();
    let parts = stem.rsplit(|byte| *byte == b'-').take(2);
    parts.filter_map(|part| Some(Pid::from_raw(str::from_utf8(part).ok()?.parse().ok()?))).collect()
}

fn make_directory(path: &Path) -> Result<(), Error> {
    // Root that has kept a user's HOME would lock that user out of their own ~/.local.
    let parent = path.ancestors().find_map(|parent| Some((parent, parent.metadata().ok()?)));
    if let Some((parent, metadata)) = parent.filter(|(_, metadata)| geteuid().is_root() && metadata.uid() != 0) {
        let reason = format!("{} belongs to user {}", quote(parent.as_os_str()), metadata.uid());
        return Err(Error::refused("create directory", path, &reason));
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Error::io("create directory", path, &error))
}

fn path_of_directory(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, Error> {
    Ok(state_home(variable).ok_or_else(no_place)?.join("detach"))
}

/// `$XDG_STATE_HOME`, else `~/.local/state`: the XDG Base Directory Specification, which says that a relative path is
/// to be ignored. The password file is not asked: a user who unsets HOME means it.
fn state_home(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let directory = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    directory("XDG_STATE_HOME").or_else(|| Some(directory("HOME")?.join(".local/state")))
}

fn no_place() -> Error {
    Error::new("cannot find a place for logs and records: HOME is not set to an absolute path")
        .with_hint("set HOME or XDG_STATE_HOME, or name a file: detach -o FILE COMMAND")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_name_needs_no_quotes() {
        for (name, expected) in [
            ("make", "make-7.log"),
            ("a b/c\n'", "a_b_c__-7.log"),
            (".hidden", "_.hidden-7.log"),
            ("-o", "_-o-7.log"),
            ("", "_-7.log"),
            ("作业", "作业-7.log"),
            ("..", "_..-7.log"),
        ] {
            assert_eq!(LogStem::new(OsStr::new(name)).name(Pid::from_raw(7), 1).as_bytes(), expected.as_bytes());
        }
        let invalid = LogStem::new(OsStr::from_bytes(b"a\xff"));
        assert_eq!(invalid.name(Pid::from_raw(7), 2).as_bytes(), b"a_-7-2.log");
        for letter in ["x", "业", "-"] {
            let stem = LogStem::new(OsStr::new(&letter.repeat(300)));
            let name = stem.name(Pid::from_raw(i32::MAX), u32::MAX);
            assert!(name.as_bytes().ends_with(b"-2147483647-4294967295.log"), "{letter}");
        }
    }

    #[test]
    fn pid_is_found_in_log_name() {
        for (name, pids) in [("make-7.log", &[7][..]), ("make-7-2.log", &[2, 7]), ("7-up-8.log", &[8]), ("x.log", &[])]
        {
            assert_eq!(pids_in_log_name(OsStr::new(name)), pids.iter().copied().map(Pid::from_raw).collect::<Vec<_>>());
        }
    }
}
