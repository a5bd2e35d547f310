//! Jobs are files: a record and, where output needs a place, a log, in a directory that is the user's alone.
//!
//! The start path makes files by name and never reads the directory, so its cost does not depend on how many there
//! are. A record is named after the identity of its process and written whole: it appears by rename(2). A log is
//! named for people, after the job.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Pid, UnlinkatFlags, geteuid, unlinkat};
use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};

use crate::error::{Error, errno, quote, reason};
use crate::proc::Identity;

/// The format of a record. A reader that knows only an older one leaves the record alone.
const VERSION: u32 = 1;
/// Enough for any name that people give, and short enough for every file system.
const LONGEST_NAME_IN_LOG: usize = 100;
/// Logs of one name and one PID: more than a few would mean that something else goes wrong.
const MOST_LOGS_OF_A_PID: u32 = 10_000;

/// Nobody else's business: what jobs say, and which there are.
const OWNER_ALONE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// Where a stream of a job goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The job's own log.
    Log(Text),
    /// A file that the user named.
    File(Text),
    /// /dev/null
    Discarded,
    /// Where the caller's went.
    Kept,
}

impl Destination {
    /// The file, where it is one that detach has opened.
    pub fn as_path(&self) -> Option<&Path> {
        match self {
            Self::Log(path) | Self::File(path) => Some(path.as_path()),
            Self::Discarded | Self::Kept => None,
        }
    }
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, path) = match self {
            Self::Log(path) => ("log", path),
            Self::File(path) => ("file", path),
            Self::Discarded => return serializer.serialize_str("discarded"),
            Self::Kept => return serializer.serialize_str("kept"),
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(kind, path)?;
        map.end()
    }
}

/// What is known of a job when it starts. Written as JSON.
#[derive(Debug)]
pub struct Record {
    pub pid: Pid,
    /// Absent where /proc does not tell.
    pub identity: Option<Identity>,
    /// Milliseconds since 1970-01-01 00:00 UTC.
    pub started_at_ms: u64,
    pub name: Text,
    pub argv: Vec<Text>,
    /// The working directory of the command; absent where it has no name any more.
    pub directory: Option<Text>,
    pub stdout: Destination,
    pub stderr: Destination,
    /// How it was started: printed, not stored.
    pub steps: Vec<Step>,
}

impl Record {
    /// The record of the calling process, which is to become the command, in its directory.
    pub fn of_this_process(name: &OsStr, argv: &[OsString], [stdout, stderr]: [Destination; 2]) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            pid: Pid::this(),
            identity: Identity::of_this_process(),
            started_at_ms: now.as_millis().try_into().unwrap_or(u64::MAX),
            name: name.into(),
            argv: argv.iter().map(Into::into).collect(),
            directory: env::current_dir().ok().map(|path| path.as_os_str().into()),
            stdout,
            stderr,
            steps: Vec::new(),
        }
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let identity = self.identity.as_ref();
        let mut fields = serializer.serialize_struct("Record", 11)?;
        fields.serialize_field("version", &VERSION)?;
        fields.serialize_field("pid", &self.pid.as_raw())?;
        fields.serialize_field("start_time", &identity.map(|identity| identity.start_time))?;
        fields.serialize_field("boot_id", &identity.map(|identity| &identity.boot_id))?;
        fields.serialize_field("started_at_ms", &self.started_at_ms)?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("argv", &self.argv)?;
        fields.serialize_field("directory", &self.directory)?;
        fields.serialize_field("stdout", &self.stdout)?;
        fields.serialize_field("stderr", &self.stderr)?;
        if !self.steps.is_empty() {
            fields.serialize_field("steps", &self.steps)?;
        }
        fields.end()
    }
}

/// One step of a start, as reported by the process that took it.
#[derive(Clone, Debug)]
pub struct Step {
    pub pid: Pid,
    /// Its number in the daemon sequence.
    pub number: Option<u8>,
    /// The system call, or what stands for several.
    pub name: &'static str,
    pub result: String,
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Step", 4)?;
        fields.serialize_field("pid", &self.pid.as_raw())?;
        fields.serialize_field("number", &self.number)?;
        fields.serialize_field("name", self.name)?;
        fields.serialize_field("result", &self.result)?;
        fields.end()
    }
}

/// A name or an argument: in JSON a string, or an array of bytes where it is not UTF-8, as in journalctl(1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(OsString);

impl<T: AsRef<OsStr> + ?Sized> From<&T> for Text {
    fn from(text: &T) -> Self {
        Self(text.as_ref().to_owned())
    }
}

impl Text {
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => serializer.collect_seq(self.0.as_bytes()),
        }
    }
}

/// The directory of all records and logs of this user: `$XDG_STATE_HOME/detach`, else `~/.local/state/detach`.
pub struct StateDirectory {
    path: PathBuf,
    directory: OwnedFd,
}

impl StateDirectory {
    /// Opens the directory, and makes it where it is missing. One that others can read, write or have made is
    /// refused: they could learn what jobs say, or put a link where a log should be. Wants a umask that takes
    /// nothing from the owner.
    pub fn open() -> Result<Self, Error> {
        let path = state_home().ok_or(Error::NoStateDirectory)?.join("detach");
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = match open(&path, flags, Mode::empty()) {
            Err(Errno::ENOENT) => {
                make_directory(&path)?;
                open(&path, flags, Mode::empty())
            }
            other => other,
        };
        let refuse = |reason: &str| Error::Path { verb: "use directory", path: path.clone(), reason: reason.into() };
        let directory = directory.map_err(|errno| match errno {
            // What open(2) says of a symbolic link with O_DIRECTORY and O_NOFOLLOW.
            Errno::ENOTDIR | Errno::ELOOP if path.is_symlink() => refuse("it is a symbolic link"),
            _ => refuse(&reason(errno)),
        })?;
        let status = fstat(&directory).map_err(|errno| refuse(&reason(errno)))?;
        if status.st_uid != geteuid().as_raw() {
            return Err(refuse(&format!("it belongs to user {}", status.st_uid)));
        }
        if status.st_mode & 0o077 != 0 {
            return Err(Error::ExposedDirectory { path, mode: status.st_mode & 0o777 });
        }
        Ok(Self { path, directory })
    }

    /// Makes the log of the job `name`, which is process `pid`. Returns its path.
    pub fn create_log(&self, name: &OsStr, pid: Pid) -> Result<(OwnedFd, PathBuf), Error> {
        let stem = format!("{}-{pid}", file_name_of(name));
        let flags = OFlag::O_WRONLY
            | OFlag::O_CREAT
            | OFlag::O_EXCL
            | OFlag::O_APPEND
            | OFlag::O_NOFOLLOW
            | OFlag::O_NOCTTY
            | OFlag::O_CLOEXEC;
        let mut file_name = format!("{stem}.log");
        for next in 2..MOST_LOGS_OF_A_PID {
            match openat(&self.directory, file_name.as_str(), flags, OWNER_ALONE) {
                Ok(log) => return Ok((log, self.path.join(file_name))),
                // An older job of this name had the same PID.
                Err(Errno::EEXIST) => file_name = format!("{stem}-{next}.log"),
                Err(errno) => return Err(Error::path("create log", self.path.join(file_name), errno)),
            }
        }
        Err(Error::path("create log", self.path.join(file_name), Errno::EEXIST))
    }

    /// Writes the record of the process `identity`, whole or not at all.
    pub fn save(&self, identity: &Identity, json: &str) -> nix::Result<()> {
        let name = record_name(identity);
        let draft = format!("{name}.tmp");
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.directory, draft.as_str(), flags, OWNER_ALONE)?);
        // The umask is the command's by now, and may take anything from the mode.
        let result = fchmod(&file, OWNER_ALONE)
            .and_then(|()| file.write_all(json.as_bytes()).map_err(|error| errno(&error)))
            .and_then(|()| renameat(&self.directory, draft.as_str(), &self.directory, name.as_str()));
        if result.is_err() {
            self.remove(&draft);
        }
        result
    }

    /// Takes back the record of a process that did not become a command.
    pub fn remove_record(&self, identity: &Identity) {
        self.remove(record_name(identity));
    }

    /// Takes back a log that [`StateDirectory::create_log`] made.
    pub fn remove_log(&self, log: &Path) {
        if let Some(name) = log.file_name() {
            self.remove(name);
        }
    }

    fn remove(&self, name: impl AsRef<Path>) {
        // What is not there needs no removal, and nothing else can be done about a file that stays.
        let _ = unlinkat(&self.directory, name.as_ref(), UnlinkatFlags::NoRemoveDir);
    }
}

impl AsRawFd for StateDirectory {
    fn as_raw_fd(&self) -> RawFd {
        self.directory.as_raw_fd()
    }
}

fn make_directory(path: &Path) -> Result<(), Error> {
    // Root that has kept a user's HOME would lock that user out of their own ~/.local.
    let parent = path.ancestors().find_map(|parent| Some((parent, parent.metadata().ok()?)));
    if let Some((parent, metadata)) = parent.filter(|(_, metadata)| geteuid().is_root() && metadata.uid() != 0) {
        let reason = format!("{} belongs to user {}", quote(parent.as_os_str()), metadata.uid());
        return Err(Error::Path { verb: "make directory", path: path.to_owned(), reason });
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Error::path("make directory", path, errno(&error)))
}

/// PID, start time and boot: no other process has or had them, so no record is ever written over another.
fn record_name(identity: &Identity) -> String {
    format!("{}-{}-{}.json", identity.pid, identity.start_time, identity.boot_id)
}

/// `$XDG_STATE_HOME`, else `~/.local/state`: the XDG Base Directory Specification, by which a relative path is to
/// be ignored. The password file is not asked: who unsets HOME means it.
fn state_home() -> Option<PathBuf> {
    let directory = |variable| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    directory("XDG_STATE_HOME").or_else(|| Some(directory("HOME")?.join(".local/state")))
}

/// A job's name as part of a file name that needs no quotes in a shell, and is no hidden file and no option.
fn file_name_of(name: &OsStr) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    let bytes = name.as_bytes().iter().take(LONGEST_NAME_IN_LOG);
    let plain: String = bytes.map(|byte| if is_plain(*byte) { char::from(*byte) } else { '_' }).collect();
    if plain.starts_with(['.', '-']) { format!("_{plain}") } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_a_log_needs_no_quotes() {
        for (name, expected) in [
            ("sleep", "sleep"),
            ("a b\n$(c)", "a_b___c_"),
            ("-rf", "_-rf"),
            (".profile", "_.profile"),
            ("g++", "g++"),
            ("naïve", "na__ve"),
        ] {
            assert_eq!(file_name_of(OsStr::new(name)), expected);
        }
        assert_eq!(file_name_of(OsStr::new(&"x".repeat(300))).len(), LONGEST_NAME_IN_LOG);
    }

    #[test]
    fn text_that_is_not_utf8_becomes_its_bytes() {
        let json = |bytes: &[u8]| serde_json::to_string(&Text::from(OsStr::from_bytes(bytes))).unwrap_or_default();
        assert_eq!(json("naïve \"x\"\n".as_bytes()), r#""naïve \"x\"\n""#);
        assert_eq!(json(b"a\xff"), "[97,255]");
        assert_eq!(json(b""), r#""""#);
    }
}
