//! A file that contains the PID of a command and is locked as long as the command lives.
//!
//! The lock is a POSIX record lock: fcntl(2). It belongs to the process of the command, survives the exec, is not
//! inherited by children, and ends with the process, however that ends. So a stale file needs no cleanup. The lock is
//! lost when the process closes any descriptor of the file. Therefore it is taken after all descriptors have been
//! closed and redirected, under a number that programs do not use for their own.
//!
//! Everything here except the error messages runs in the new process, and allocates nothing.

use std::ffi::{CString, OsStr};
use std::fmt::Write;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, lstat};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{Pid, ftruncate, geteuid, unlink};

use crate::error::{Error, reason};
use crate::jobs::directory::was_changed_since;
use crate::sys::descriptors::duplicate_from;
use crate::sys::exec::to_c_string;
use crate::sys::fixed::FixedText;

/// Shells use descriptors up to 9 in scripts, and some from 10 on for themselves.
const LOWEST_DESCRIPTOR: RawFd = 64;
/// A link could lead anywhere. Opening what is not a regular file could wait, or acquire a controlling terminal.
const FLAGS: OFlag =
    OFlag::O_RDWR.union(OFlag::O_NOFOLLOW).union(OFlag::O_NOCTTY).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);
/// In bytes: more than any PID with a newline.
const LONGEST_CONTENT: usize = 32;
/// How often to try again when another start has just removed or released the file.
const MOST_TRIES: usize = 100;

/// A pidfile, as it is asked for.
pub struct PidFile {
    path: CString,
    /// The mode of a new file: 644 less the caller's umask, but always with the owner's rights.
    mode: Mode,
    /// Device and inode of the standard streams.
    streams: Vec<(u64, u64)>,
}

/// Why it cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Open(Errno),
    Write(Errno),
    NotRegular,
    IsStream,
    OtherContent,
    /// It belongs to this user, who could write anything into a file that root trusts.
    Foreign(u32),
    /// Locked by the process with this PID; 0 where that cannot be seen from here.
    Held(i32),
    KeepsChanging,
}

impl PidFile {
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.path.to_bytes()))
    }

    pub fn new(path: &Path, caller_umask: Mode, streams: Vec<(u64, u64)>) -> Result<Self, Error> {
        // It is opened when the process may be in another directory.
        let absolute = std::path::absolute(path).map_err(|error| Error::io("use pidfile", path, &error))?;
        let mode = Mode::from_bits_truncate(0o644).difference(caller_umask) | Mode::S_IRUSR | Mode::S_IWUSR;
        Ok(Self { path: to_c_string(absolute.into_os_string()), mode, streams })
    }

    /// Opens the file, creates it if need be, locks it for the calling process, and writes its PID and a newline. The
    /// descriptor stays open across an exec, and the lock with it. A link could lead anywhere, and is refused.
    ///
    /// `note` is called before the file is opened, and with `true` when it is known to be a new one.
    pub fn take(&self, note: impl Fn(bool)) -> Result<OwnedFd, Fault> {
        for _ in 0..MOST_TRIES {
            let file = self.open(&note).map_err(Fault::Open)?;
            if self.lock_and_write(&file)? {
                return Ok(file);
            }
        }
        Err(Fault::KeepsChanging)
    }

    fn open(&self, note: impl Fn(bool)) -> nix::Result<OwnedFd> {
        note(false);
        // First as a new file, to know whether it is to be removed again.
        let (low, is_new) = match open(self.path.as_c_str(), FLAGS | OFlag::O_CREAT | OFlag::O_EXCL, self.mode) {
            Err(Errno::EEXIST) => (open(self.path.as_c_str(), FLAGS | OFlag::O_CREAT, self.mode)?, false),
            other => (other?, true),
        };
        note(is_new);
        // The umask is the command's by now. The next start must be able to open it.
        if is_new {
            fchmod(&low, self.mode)?;
        }
        duplicate_from(&low, LOWEST_DESCRIPTOR)
    }

    /// Returns false if the file has to be opened again.
    fn lock_and_write(&self, file: &OwnedFd) -> Result<bool, Fault> {
        let status = fstat(file).map_err(Fault::Open)?;
        if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Err(Fault::NotRegular);
        }
        if geteuid().is_root() && status.st_uid != 0 {
            return Err(Fault::Foreign(status.st_uid));
        }
        if self.streams.contains(&(status.st_dev, status.st_ino)) {
            return Err(Fault::IsStream);
        }
        match fcntl(file, FcntlArg::F_SETLK(&whole_file())) {
            Ok(_) if self.is_in_place(&status) => {
                if !holds_at_most_a_pid(file, &status) {
                    return Err(Fault::OtherContent);
                }
                write_pid(file).map_err(Fault::Write)?;
                Ok(true)
            }
            // A start that has failed has removed it between the open and the lock.
            Ok(_) => Ok(false),
            Err(Errno::EACCES | Errno::EAGAIN) => match find_holder(file) {
                Some(number) => Err(Fault::Held(number)),
                // Its holder has ended meanwhile.
                None => Ok(false),
            },
            Err(errno) => Err(Fault::Open(errno)),
        }
    }

    /// Undoes what the process `pid` did to the file before it failed or was killed: removes the file if that process
    /// made it, else empties it. `is_new`: that process is known to have made it; otherwise it may have, if the file is
    /// empty and younger than the start. A file that another start has locked since is left alone.
    pub fn take_back_from(&self, pid: Pid, is_new: bool, started_at_ms: u64) {
        let Ok(file) = open(self.path.as_c_str(), FLAGS, Mode::empty()) else { return };
        let Ok(status) = fstat(&file) else { return };
        let is_new = is_new || status.st_size == 0 && was_changed_since(&status, started_at_ms);
        let is_free = match fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
            Err(Errno::EACCES | Errno::EAGAIN) => false,
            // Where nothing can be locked, no other start has written its PID.
            Err(_) => status.st_size == 0,
            Ok(_) => true,
        };
        if is_free && self.is_in_place(&status) && holds_nothing_or(pid, &file, &status) {
            // If that fails, nothing else can be done.
            let _ = if is_new { unlink(self.path.as_c_str()) } else { ftruncate(&file, 0) };
        }
    }

    /// The sentence for it.
    pub fn explain(&self, fault: Fault) -> Error {
        let path = self.path();
        let refuse = |reason: &str| Error::refused("use pidfile", path, reason);
        match fault {
            Fault::Open(Errno::ELOOP) => refuse("it is a symbolic link"),
            Fault::Open(errno) => refuse(&reason(errno)),
            Fault::Write(errno) => Error::path("write pidfile", path, errno),
            Fault::NotRegular => refuse("it is not a regular file"),
            Fault::IsStream => refuse("it is also open as a standard stream"),
            Fault::OtherContent => refuse("it contains something other than a PID"),
            Fault::Held(0) => refuse("another process has locked it"),
            Fault::Held(pid) => refuse(&format!("process {pid} has locked it")),
            Fault::KeepsChanging => refuse("other processes keep replacing it"),
            Fault::Foreign(user) => refuse(&format!("it belongs to user {user}")),
        }
    }

    fn is_in_place(&self, status: &FileStat) -> bool {
        lstat(self.path.as_c_str()).is_ok_and(|named| (named.st_dev, named.st_ino) == (status.st_dev, status.st_ino))
    }
}

/// Whether nothing is lost when it is overwritten: it is empty, or holds a single number.
fn holds_at_most_a_pid(file: &OwnedFd, status: &FileStat) -> bool {
    let mut content = [0; LONGEST_CONTENT];
    let length = pread(file, &mut content, 0).unwrap_or(LONGEST_CONTENT);
    let content = content.get(..length).unwrap_or_default().trim_ascii();
    let is_pid = || str::from_utf8(content).is_ok_and(|digits| digits.parse::<u32>().is_ok());
    usize::try_from(status.st_size).is_ok_and(|size| size < LONGEST_CONTENT) && (content.is_empty() || is_pid())
}

fn holds_nothing_or(pid: Pid, file: &OwnedFd, status: &FileStat) -> bool {
    let mut content = [0; LONGEST_CONTENT];
    let length = pread(file, &mut content, 0).unwrap_or(0);
    status.st_size == 0 || content.get(..length) == Some(text_of(pid).as_bytes())
}

/// Writes the PID of this process. If there is no room for all of it, the file is empty.
fn write_pid(file: &OwnedFd) -> nix::Result<()> {
    ftruncate(file, 0)?;
    let text = text_of(Pid::this());
    if pwrite(file, text.as_bytes(), 0)? < text.as_bytes().len() {
        ftruncate(file, 0)?;
        return Err(Errno::ENOSPC);
    }
    Ok(())
}

/// The PID of the process that has it locked, 0 where that cannot be seen from here; `None` if no process has.
fn find_holder(file: &OwnedFd) -> Option<i32> {
    let mut lock = whole_file();
    fcntl(file, FcntlArg::F_GETLK(&mut lock)).ok()?;
    (i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid)
}

fn text_of(pid: Pid) -> FixedText<LONGEST_CONTENT> {
    let mut text = FixedText::new();
    // It has room for the largest PID.
    let _ = writeln!(text, "{pid}");
    text
}

/// A lock for writing, from the first byte to whatever will be the last.
fn whole_file() -> libc::flock {
    #[allow(clippy::cast_possible_truncation)] // the constants fit what the structure has for them
    libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}
