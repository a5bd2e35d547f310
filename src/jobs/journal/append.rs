//! The writer of a journal: it appends one line for each event.
//!
//! The new process, the launcher, the tracking process and `--pid` append; only a prune writes in another way
//! (`compact`).

use std::fmt::Write;
use std::fs::File;
use std::io::{IoSlice, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, SFlag, fchmod, fstat, fstatat};
use nix::sys::uio::writev;

use super::{Contents, ENDING, Event, StartDraft, Written, read_whole};
use crate::jobs::directory::{OWNER_ALONE, StateDirectory};
use crate::jobs::record::{End, FileId, JobId, Process, Rescue, Start};
use crate::sys::errno;
use crate::sys::fixed::FixedText;

/// In bytes: a boot id has 36.
const LONGEST_NAME: usize = 64;
/// How often a line is written at most, if prunes keep moving the journal away.
const MOST_TRIES: u32 = 100;

/// The journal of a boot, open for appending.
pub struct Journal {
    name: FixedText<LONGEST_NAME>,
    file: OwnedFd,
    status: FileStat,
}

impl AsFd for Journal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Journal {
    /// Opens the journal, and creates it where it is missing.
    pub fn open(directory: &StateDirectory, boot_id: &str) -> nix::Result<Self> {
        let mut name = FixedText::new();
        write!(name, "{boot_id}{ENDING}").map_err(|_| Errno::ENAMETOOLONG)?;
        let (file, status) = open_for_appending(directory, name.as_c_str())?;
        Ok(Self { name, file, status })
    }

    /// Appends a start. Called by the new process: allocates nothing.
    pub fn append_start(
        &self,
        directory: &StateDirectory,
        draft: &StartDraft,
        job: JobId,
        process: &Process<&str>,
    ) -> nix::Result<()> {
        let mut head = Written::new(job, Event::Process(process)).to_fixed_text()?;
        // Remove the closing brace: the object continues.
        head.pop();
        self.append(directory, &[IoSlice::new(head.as_bytes()), IoSlice::new(&draft.tail)])
    }

    /// Appends that detach has let go of a job.
    pub fn append_rescue(
        &self,
        directory: &StateDirectory,
        job: JobId,
        rescue: &Rescue,
        start: &Start,
    ) -> nix::Result<()> {
        let mut head = serde_json::to_vec(&Written::new(job, Event::Rescue(rescue))).unwrap_or_default();
        // Remove the closing brace: the object continues.
        head.pop();
        let tail = StartDraft::new(start).tail;
        self.append(directory, &[IoSlice::new(b"\n"), IoSlice::new(&head), IoSlice::new(&tail)])
    }

    /// Appends that the attempt to let go of a job at that time changed nothing. Allocates nothing.
    pub fn append_rescue_withdrawal(
        &self,
        directory: &StateDirectory,
        job: JobId,
        let_go_at_ms: u64,
    ) -> nix::Result<()> {
        self.append_event(directory, job, Event::WithdrawnRescue(let_go_at_ms))
    }

    /// Appends that the start was taken back. Allocates nothing.
    pub fn append_withdrawal(&self, directory: &StateDirectory, job: JobId) -> nix::Result<()> {
        self.append_event(directory, job, Event::Withdrawn(true))
    }

    /// Appends how the command ended.
    pub fn append_end(&self, directory: &StateDirectory, job: JobId, end: &End) -> nix::Result<()> {
        self.append_event(directory, job, Event::End(end))
    }

    /// Appends when the last process of the session ended, in milliseconds since 1970-01-01 00:00 UTC.
    pub fn append_session_end(&self, directory: &StateDirectory, job: JobId, at_ms: u64) -> nix::Result<()> {
        self.append_event(directory, job, Event::SessionEndedAtMs(at_ms))
    }

    /// How a command ended that was started since the journal was opened; `None` as long as that is not recorded.
    pub fn find_end(&self, directory: &StateDirectory, boot_id: &str, job: JobId) -> Option<End> {
        let contents = match self.read_new(directory) {
            Ok(Some(bytes)) => Contents::fold(boot_id, vec![(PathBuf::new(), bytes)], drop),
            _ => Contents::read(directory, boot_id, drop).ok()?,
        };
        contents.find_end(job)
    }

    /// What was appended since the journal was opened; `None` if a prune has moved it.
    fn read_new(&self, directory: &StateDirectory) -> nix::Result<Option<Vec<u8>>> {
        let mut file = File::from(directory.open_file(self.name.as_c_str(), OFlag::O_RDONLY)?);
        if FileId::of(&fstat(&file)?) != FileId::of(&self.status) {
            return Ok(None);
        }
        let old = self.status.st_size.unsigned_abs();
        file.seek(SeekFrom::Start(old)).map_err(|error| errno(&error))?;
        read_whole(file).map(Some)
    }

    fn append_event(&self, directory: &StateDirectory, job: JobId, event: Event) -> nix::Result<()> {
        let line = Written::new(job, event).to_fixed_text()?;
        self.append(directory, &[IoSlice::new(line.as_bytes()), IoSlice::new(b"\n")])
    }

    fn append(&self, directory: &StateDirectory, parts: &[IoSlice]) -> nix::Result<()> {
        let length = parts.iter().map(|part| part.len()).sum();
        let mut newer = None;
        for _ in 0..MOST_TRIES {
            let (file, status) = newer.as_ref().map_or((&self.file, &self.status), |(file, status)| (file, status));
            if writev(file, parts)? < length {
                return Err(Errno::ENOSPC);
            }
            // Asked after the write: if a prune moves the journal away now, it reads this line.
            match fstatat(directory, self.name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(named) if FileId::of(&named) == FileId::of(status) => return Ok(()),
                Ok(_) | Err(Errno::ENOENT) => newer = Some(open_for_appending(directory, self.name.as_c_str())?),
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EAGAIN)
    }
}

pub fn open_for_appending(
    directory: &StateDirectory,
    name: &(impl NixPath + ?Sized),
) -> nix::Result<(OwnedFd, FileStat)> {
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND;
    let file = match directory.open_file(name, flags) {
        Err(Errno::ENOENT) => {
            let file = directory.open_file(name, flags | OFlag::O_CREAT)?;
            // Despite the umask, which may already be that of the command.
            fchmod(&file, OWNER_ALONE)?;
            file
        }
        other => other?,
    };
    let status = fstat(&file)?;
    if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG {
        Ok((file, status))
    } else {
        Err(Errno::EINVAL)
    }
}
