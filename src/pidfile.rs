//! The file that holds the PID of a command, locked as long as the command lives.
//!
//! The lock is a POSIX record lock, see fcntl(2): it belongs to the process of the command, survives the exec, is not
//! inherited by children, and ends with the process, however that ends. So a stale file needs no cleaning up, and who
//! holds it can be asked. It is lost when the process closes any descriptor of the file: it is taken after all
//! descriptors have been closed and redirected, under a number that programs do not use for their own.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::Pid;

use crate::error::{Error, errno};
use crate::session::duplicate_from;

/// Shells use descriptors up to 9 in scripts, and some from 10 on for themselves.
const LOWEST_DESCRIPTOR: RawFd = 64;
/// More than any PID with a newline.
const LONGEST_CONTENT: usize = 32;
/// How often a file is tried again that another start has just removed or given up.
const MOST_TRIES: usize = 100;

/// A pidfile that the calling process holds.
pub struct PidFile<'a> {
    path: &'a Path,
    file: File,
    is_new: bool,
}

impl<'a> PidFile<'a> {
    /// Opens `path`, which is absolute, makes it if need be, locks it for the calling process, and writes its PID and
    /// a newline. The descriptor stays open across an exec, and the lock with it.
    ///
    /// Fails if another process holds it, and if `is_in_use` says of its status that a stream leads there. A link
    /// could lead anywhere, and is refused, as is whatever is no file.
    pub fn take(path: &'a Path, is_in_use: impl Fn(&Metadata) -> bool) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::Path { verb: "use pidfile", path: path.to_owned(), reason: reason.into() };
        let failed = |errno| match errno {
            Errno::ELOOP => refuse("it is a symbolic link"),
            errno => Error::path("use pidfile", path, errno),
        };
        for _ in 0..MOST_TRIES {
            let pidfile = Self::open(path).map_err(failed)?;
            let status = pidfile.file.metadata().map_err(|error| failed(errno(&error)))?;
            if !status.is_file() {
                return Err(refuse("it is not a regular file"));
            }
            if is_in_use(&status) {
                return Err(refuse("a standard stream leads there as well"));
            }
            match fcntl(&pidfile.file, FcntlArg::F_SETLK(&whole_file())) {
                Ok(_) if pidfile.is_in_place(&status) => {
                    if !pidfile.holds_at_most_a_pid(&status) {
                        return Err(refuse("it holds something else than a PID"));
                    }
                    pidfile.write().map_err(|error| Error::path("write pidfile", path, errno(&error)))?;
                    return Ok(pidfile);
                }
                // A start that has failed has removed it between the open and the lock.
                Ok(_) => (),
                Err(Errno::EACCES | Errno::EAGAIN) => {
                    if let Some(number) = pidfile.holder() {
                        let holder = (number > 0).then(|| Pid::from_raw(number));
                        return Err(Error::PidFileHeld { path: path.to_owned(), holder });
                    }
                    // Whoever held it has ended meanwhile.
                }
                Err(errno) => return Err(failed(errno)),
            }
        }
        Err(refuse("other starts keep changing it"))
    }

    fn open(path: &'a Path) -> nix::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o644).custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY | libc::O_NONBLOCK);
        // First as a new file, to know whether it is ours to remove again.
        let (opened, is_new) = match options.clone().create_new(true).open(path) {
            Err(error) if errno(&error) == Errno::EEXIST => (options.create(true).truncate(false).open(path), false),
            other => (other, true),
        };
        let low = opened.map_err(|error| errno(&error))?;
        if is_new {
            // Whatever the umask of the command takes, the next start must be able to open it.
            let mode = low.metadata().map_err(|error| errno(&error))?.mode();
            fchmod(&low, Mode::from_bits_truncate(mode) | Mode::S_IRUSR | Mode::S_IWUSR)?;
        }
        let high = duplicate_from(&low, LOWEST_DESCRIPTOR)?;
        Ok(Self { path, file: high.into(), is_new })
    }

    /// Whether nothing is lost when it is overwritten.
    fn holds_at_most_a_pid(&self, status: &Metadata) -> bool {
        let mut content = [0; LONGEST_CONTENT];
        let length = self.file.read_at(&mut content, 0).unwrap_or(LONGEST_CONTENT);
        let is_plain = |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_whitespace();
        status.len() < LONGEST_CONTENT as u64 && content.iter().take(length).all(is_plain)
    }

    fn write(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(format!("{}\n", Pid::this()).as_bytes(), 0)
    }

    /// Takes it back after a start that failed: removes it if it was made for that, else empties it.
    pub fn give_back(self) {
        // There is nobody to tell, and the lock ends in any case.
        let _ = if self.is_new { std::fs::remove_file(self.path) } else { self.file.set_len(0) };
    }

    /// The number of the process that has it locked, 0 where that cannot be seen from here; `None` when nobody has.
    fn holder(&self) -> Option<i32> {
        let mut lock = whole_file();
        fcntl(&self.file, FcntlArg::F_GETLK(&mut lock)).ok()?;
        (i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid)
    }

    fn is_in_place(&self, status: &Metadata) -> bool {
        std::fs::symlink_metadata(self.path)
            .is_ok_and(|named| (named.dev(), named.ino()) == (status.dev(), status.ino()))
    }
}

/// A lock for writing from the first byte to whatever will be the last.
fn whole_file() -> libc::flock {
    #[allow(clippy::cast_possible_truncation)] // the constants fit what the structure has for them
    libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}
