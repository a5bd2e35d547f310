//! The state directory: the records and the logs of all jobs of this user, in a directory that is theirs alone.
//!
//! The start path makes files by name and never reads the directory, so its cost does not depend on how many there
//! are. A record is named after the identity of its process and written whole: it appears by rename(2). A log is
//! named for people, after the job. What a record says is in `record`, what a job is in `job`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat};
use nix::unistd::{Pid, UnlinkatFlags, geteuid, unlinkat};

use crate::error::{Error, errno, quote, reason};
use crate::proc::Identity;
use crate::record::{self, Record};

/// Enough for any name that people give, and short enough for every file system.
const LONGEST_NAME_IN_LOG: usize = 100;
/// Logs of one name and one PID: more than a few would mean that something else goes wrong.
const MOST_LOGS_OF_A_PID: u32 = 10_000;
/// More than a record with the longest command line can need: the kernel takes at most 6 MiB of arguments, and a byte
/// is at most four characters.
const LONGEST_RECORD: u64 = 32 * 1024 * 1024;

/// Nobody else's business: what jobs say, and which there are.
const OWNER_ALONE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

const RECORD_ENDING: &str = ".json";
const DRAFT_ENDING: &str = ".tmp";

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
        if let Some(found) = Self::find()? {
            return Ok(found);
        }
        make_directory(&path_of_directory()?)?;
        Self::find()?.ok_or(Error::NoStateDirectory)
    }

    /// Opens the directory; `None` where there is none, because no job has been started yet.
    pub fn find() -> Result<Option<Self>, Error> {
        let path = path_of_directory()?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = match open(&path, flags, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
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
        Ok(Some(Self { path, directory }))
    }

    /// The working directory of this process, which is a state directory.
    pub fn here() -> nix::Result<Self> {
        let directory = open(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { path: PathBuf::new(), directory })
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

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in the directory, by the names.
    pub fn list(&self) -> Result<Listing, Error> {
        let failed = |errno| Error::path("read directory", &self.path, errno);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut listing = Listing::default();
        for entry in Dir::openat(&self.directory, ".", flags, Mode::empty()).map_err(failed)?.iter() {
            let entry = entry.map_err(failed)?;
            listing.add(entry.file_name().to_bytes());
        }
        Ok(listing)
    }

    /// Reads the record of the process `identity`. `Ok(None)`: it is gone. The error is a reason for people.
    pub fn load(&self, identity: &Identity) -> Result<Option<Record>, String> {
        // Not to wait for the writer of a FIFO.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = match openat(&self.directory, record_name(identity).as_str(), flags, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP) => return Err("it is a symbolic link".into()),
            other => File::from(other.map_err(reason)?),
        };
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err("it is not a regular file".into());
        }
        let mut json = Vec::new();
        file.take(LONGEST_RECORD).read_to_end(&mut json).map_err(|error| reason(errno(&error)))?;
        let record = Record::from_json(&json)?;
        if record.identity.as_ref() == Some(identity) {
            Ok(Some(record))
        } else {
            Err("it is of another process".into())
        }
    }

    /// Size, times and kind of the file `name`; `None` when it is gone.
    pub fn status(&self, name: &OsStr) -> Option<FileStat> {
        fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()
    }

    /// Writes the record of the process `identity`, whole or not at all.
    pub fn save(&self, identity: &Identity, record: &Record) -> nix::Result<()> {
        let json = record::to_line(record);
        let name = record_name(identity);
        let draft = draft_name(identity);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.directory, draft.as_str(), flags, OWNER_ALONE)?);
        // The umask is the command's by now, and may take anything from the mode.
        let result = fchmod(&file, OWNER_ALONE)
            .and_then(|()| file.write_all(json.as_bytes()).map_err(|error| errno(&error)))
            .and_then(|()| renameat(&self.directory, draft.as_str(), &self.directory, name.as_str()));
        if result.is_err() {
            // What cannot be removed either is found by the next prune.
            let _ = self.remove(&draft);
        }
        result
    }

    /// Removes the record of `identity`, if it is there.
    pub fn remove_record(&self, identity: &Identity) -> nix::Result<()> {
        self.remove(record_name(identity))
    }

    /// Removes the file `name`, which lies in this directory, if it is there.
    pub fn remove(&self, name: impl AsRef<Path>) -> nix::Result<()> {
        match unlinkat(&self.directory, name.as_ref(), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// The name that `path` has in this directory; `None` where it lies elsewhere.
    pub fn name_of<'p>(&self, path: &'p Path) -> Option<&'p OsStr> {
        path.file_name().filter(|_| path.parent() == Some(self.path.as_path()))
    }
}

/// The names in a state directory, sorted by what they are.
#[derive(Debug, Default)]
pub struct Listing {
    /// The processes that have a record.
    pub records: Vec<Identity>,
    pub logs: Vec<OsString>,
    /// Records that were not finished, or are being written.
    pub drafts: Vec<OsString>,
    /// What has the ending of a record, but not the name of one.
    pub foreign: Vec<OsString>,
}

impl Listing {
    fn add(&mut self, name: &[u8]) {
        let text = || OsString::from_vec(name.to_owned());
        if let Some(stem) = name.strip_suffix(RECORD_ENDING.as_bytes()) {
            match parse_identity(stem) {
                Some(identity) => self.records.push(identity),
                None => self.foreign.push(text()),
            }
        } else if name.ends_with(b".log") {
            self.logs.push(text());
        } else if name.strip_suffix(DRAFT_ENDING.as_bytes()).is_some_and(|stem| parse_identity(stem).is_some()) {
            self.drafts.push(text());
        }
    }
}

impl AsFd for StateDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
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
pub fn record_name(identity: &Identity) -> String {
    format!("{}-{}-{}{RECORD_ENDING}", identity.pid, identity.start_time, identity.boot_id)
}

fn draft_name(identity: &Identity) -> String {
    record_name(identity).replace(RECORD_ENDING, DRAFT_ENDING)
}

/// The identity in the name of a record.
pub fn parse_record_name(name: &OsStr) -> Option<Identity> {
    parse_identity(name.as_bytes().strip_suffix(RECORD_ENDING.as_bytes())?)
}

fn parse_identity(stem: &[u8]) -> Option<Identity> {
    let mut parts = str::from_utf8(stem).ok()?.splitn(3, '-');
    let pid = parts.next()?.parse().ok().filter(|pid| *pid > 0)?;
    let start_time = parts.next()?.parse().ok()?;
    let identity = Identity { pid: Pid::from_raw(pid), start_time, boot_id: parts.next()?.to_owned() };
    // Only one name means this identity.
    record_name(&identity).as_bytes().strip_suffix(RECORD_ENDING.as_bytes()).filter(|name| *name == stem)?;
    Some(identity)
}

/// The PID in the name of a log: `NAME-PID.log`, or `NAME-PID-N.log` where an older one had that name. In the second
/// case two numbers could be meant, so it gives both.
pub fn pids_in_log_name(name: &OsStr) -> Vec<Pid> {
    let stem = name.as_bytes().strip_suffix(b".log").unwrap_or_default();
    let parts = stem.rsplit(|byte| *byte == b'-').take(2);
    parts.filter_map(|part| Some(Pid::from_raw(str::from_utf8(part).ok()?.parse().ok()?))).collect()
}

fn path_of_directory() -> Result<PathBuf, Error> {
    Ok(state_home().ok_or(Error::NoStateDirectory)?.join("detach"))
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
    fn name_of_a_record_is_that_of_one_identity() {
        let identity = Identity { pid: Pid::from_raw(7), start_time: 90, boot_id: "0b1c-22".into() };
        assert_eq!(record_name(&identity), "7-90-0b1c-22.json");
        assert_eq!(parse_identity(b"7-90-0b1c-22"), Some(identity));
        for stem in ["", "7", "7-90", "07-90-b", "+7-90-b", "-7-90-b", "0-90-b", "7-x-b", "99999999999-1-b"] {
            assert_eq!(parse_identity(stem.as_bytes()), None, "{stem}");
        }
        assert_eq!(parse_identity(b"7-90-\xff"), None);
    }

    #[test]
    fn names_are_sorted_by_what_they_are() {
        let mut listing = Listing::default();
        for name in [".", "..", "7-90-b.json", "7-90-b.tmp", "notes.json", "notes.tmp", "make-7.log", "README"] {
            listing.add(name.as_bytes());
        }
        assert_eq!(listing.records.len(), 1);
        assert_eq!((listing.logs, listing.drafts), (vec!["make-7.log".into()], vec!["7-90-b.tmp".into()]));
        assert_eq!(listing.foreign, ["notes.json"]);
    }

    #[test]
    fn log_names_its_process() {
        for (name, pids) in [("make-7.log", &[7][..]), ("make-7-2.log", &[2, 7]), ("7-up-8.log", &[8]), ("x.log", &[])]
        {
            assert_eq!(pids_in_log_name(OsStr::new(name)), pids.iter().copied().map(Pid::from_raw).collect::<Vec<_>>());
        }
    }
}
