//! What a prune does with a journal: it moves it aside and copies what stays to a new one.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, renameat};

use super::append::open_for_appending;
use super::{ENDING, Fault, OLD_ENDING, is_boot_id, parse, read_whole};
use crate::error::Error;
use crate::jobs::directory::StateDirectory;
use crate::jobs::record::JobId;
use crate::sys::errno;

/// In bytes: how much is written at once. A start that appends a line meanwhile waits for that write.
const PIECE: usize = 1024 * 1024;

/// Keeps other prunes away from a state directory until it is dropped.
pub struct PruneLock {
    _lock: Flock<OwnedFd>,
}

impl PruneLock {
    /// Waits for another prune if there is one, after a call of `note_wait`.
    pub fn take(directory: &StateDirectory, note_wait: impl Fn()) -> Result<Self, Error> {
        let failed = |errno| Error::path("lock", directory.path(), errno);
        let own = directory.open_file(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(failed)?;
        let lock = match Flock::lock(own, FlockArg::LockExclusiveNonblock) {
            Err((own, Errno::EWOULDBLOCK)) => {
                note_wait();
                Flock::lock(own, FlockArg::LockExclusive)
            }
            other => other,
        };
        Ok(Self { _lock: lock.map_err(|(_, errno)| failed(errno))? })
    }
}

/// Removes the events of these jobs and the damaged lines from the journal of a boot. Every other line stays, those of
/// other versions included.
pub fn compact(
    directory: &StateDirectory,
    boot_id: &str,
    removed: &HashSet<JobId>,
    _lock: &PruneLock,
) -> Result<(), Error> {
    let [old_name, name] = [OLD_ENDING, ENDING].map(|ending| format!("{boot_id}{ending}"));
    let path = directory.path().join(&name);
    let failed = |errno| Error::path("prune", &path, errno);
    let is_ours = is_boot_id(boot_id);
    // Dropping a line that its writer has not finished loses nothing: the writer finds the journal renamed, and writes
    // the line again.
    let stays = |line: &[u8]| match parse(line) {
        Ok(event) => !removed.contains(&event.job),
        Err(Fault::OtherVersion(_)) => true,
        Err(Fault::Damage(_)) => !is_ours,
    };
    // Twice, where an earlier prune was killed and left its old journal.
    for _ in 0..2 {
        let is_left = directory.status(OsStr::new(&old_name)).is_some();
        if !is_left {
            match renameat(directory, name.as_str(), directory, old_name.as_str()) {
                Err(Errno::ENOENT) => return Ok(()),
                other => other.map_err(failed)?,
            }
        }
        let old = directory.open_file(old_name.as_str(), OFlag::O_RDONLY).map_err(failed)?;
        let bytes = read_whole(old.into()).map_err(failed)?;
        append_kept(directory, &name, &bytes, stays).map_err(failed)?;
        directory.remove(old_name.as_str()).map_err(failed)?;
        if !is_left {
            break;
        }
    }
    Ok(())
}

/// Appends the lines that stay, in pieces of whole lines.
fn append_kept(directory: &StateDirectory, name: &str, bytes: &[u8], stays: impl Fn(&[u8]) -> bool) -> nix::Result<()> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && stays(line));
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return Ok(());
    }
    let mut journal = File::from(open_for_appending(directory, name)?.0);
    let mut piece = Vec::new();
    while let Some(line) = lines.next() {
        piece.push(b'\n');
        piece.extend_from_slice(line);
        if piece.len() >= PIECE || lines.peek().is_none() {
            piece.push(b'\n');
            journal.write_all(&piece).map_err(|error| errno(&error))?;
            piece.clear();
        }
    }
    Ok(())
}
