//! The file that holds the PID of a command, locked as long as the command lives.
//!
//! The lock is a POSIX record lock, see fcntl(2): it belongs to the process of the command, survives the exec, is not
//! passed on to children, and ends with the process, however that ends. So a stale file needs no cleaning up, and who
//! holds it can be asked. Closing the descriptor gives it up.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::unistd::Pid;

use crate::error::{Error, errno};

/// A pidfile, open.
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Opens `path`, relative to the caller's directory, and makes it if need be. A link could lead anywhere, and is
    /// refused, as is whatever cannot be locked and written as a file can.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::Path { verb: "use pidfile", path: path.to_owned(), reason: reason.into() };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o644);
        let opened = options.custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY | libc::O_NONBLOCK).open(path);
        let file = opened.map_err(|error| match errno(&error) {
            Errno::ELOOP => refuse("it is a symbolic link"),
            errno => Error::path("use pidfile", path, errno),
        })?;
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(refuse("it is not a regular file"));
        }
        // Absolute, because the command may start in another directory.
        let path = std::path::absolute(path).map_err(|error| Error::path("use pidfile", path, errno(&error)))?;
        Ok(Self { path, file })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Locks the file for the calling process and writes `pid` and a newline. Fails if another process has it locked.
    pub fn lock_and_write(&self, pid: Pid) -> Result<(), Error> {
        let failed = |errno| Error::path("lock pidfile", &self.path, errno);
        match self.try_lock() {
            Ok(()) => (),
            Err(Errno::EACCES | Errno::EAGAIN) => {
                return Err(Error::PidFileHeld { path: self.path.clone(), holder: self.holder() });
            }
            Err(errno) => return Err(failed(errno)),
        }
        // A start that failed may have removed it between the open and the lock.
        if !self.is_in_place() {
            return Err(failed(Errno::ESTALE));
        }
        let written = self.file.set_len(0).and_then(|()| self.file.write_all_at(format!("{pid}\n").as_bytes(), 0));
        written.map_err(|error| Error::path("write pidfile", &self.path, errno(&error)))
    }

    /// Leaves the descriptor open across the exec: the lock is given up with it.
    pub fn keep_open(&self) -> nix::Result<()> {
        fcntl(&self.file, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
    }

    /// Removes the file after a start that failed, unless another process has taken it.
    pub fn remove_if_free(&self) {
        if self.try_lock().is_ok() && self.is_in_place() {
            // Whoever removed it first has done what was to be done.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn try_lock(&self) -> nix::Result<()> {
        fcntl(&self.file, FcntlArg::F_SETLK(&whole_file())).map(drop)
    }

    /// The process that has it locked; `None` when it cannot be seen from here, or has ended just now.
    fn holder(&self) -> Option<Pid> {
        let mut lock = whole_file();
        fcntl(&self.file, FcntlArg::F_GETLK(&mut lock)).ok()?;
        (i32::from(lock.l_type) != libc::F_UNLCK && lock.l_pid > 0).then(|| Pid::from_raw(lock.l_pid))
    }

    fn is_in_place(&self) -> bool {
        let same = || -> io::Result<bool> {
            let (open, named) = (self.file.metadata()?, std::fs::symlink_metadata(&self.path)?);
            Ok((open.dev(), open.ino()) == (named.dev(), named.ino()))
        };
        same().unwrap_or(false)
    }
}

impl AsRawFd for PidFile {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// A lock for writing from the first byte to whatever will be the last.
fn whole_file() -> libc::flock {
    #[allow(clippy::cast_possible_truncation)] // the constants fit what the structure has for them
    libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}
