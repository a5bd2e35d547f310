//! The journal of a boot, `BOOT_ID.jsonl`: what happened to its jobs, one event per line.
//!
//! A writer appends a whole line with one write and takes no lock. Then it checks that the journal still has its name:
//! a prune first renames the journal to `BOOT_ID.old.jsonl` and then reads it, so a line that was written to a renamed
//! journal is written again to the new one. No line is lost, whichever process is killed and whenever. A line may
//! therefore appear twice, and an end may precede its start: readers accept events in any order and any number.
//!
//! Each write begins with a newline, so a line that was cut short (full disk, power loss) damages no other line.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::{IoSlice, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, renameat};
use nix::sys::stat::{FileStat, SFlag, fchmod, fstat, fstatat};
use nix::sys::uio::writev;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::error::{Error, reason};
use crate::jobs::directory::{OWNER_ALONE, StateDirectory};
use crate::jobs::record::{End, FileId, JobId, Process, Record, Rescue, Start, VERSION};
use crate::sys::errno;
use crate::sys::fixed::FixedText;

const ENDING: &str = ".jsonl";
const OLD_ENDING: &str = ".old.jsonl";
/// In bytes: a boot id has 36.
const LONGEST_BOOT_ID: usize = 64;
/// In bytes: more than the numbers and the name of a log in an event need.
const LONGEST_EVENT: usize = 1024;
/// How often a line is written while prunes move the journal away.
const MOST_TRIES: u32 = 100;
/// In bytes: how much a prune writes at once. A start that appends a line meanwhile waits for that write.
const PIECE: usize = 1024 * 1024;
/// In bytes: the length of a start with a short command line.
const USUAL_START: usize = 300;
/// A write that is in progress has ended after this.
const TIME_TO_WRITE: Duration = Duration::from_millis(5);

type FileName = FixedText<{ LONGEST_BOOT_ID + OLD_ENDING.len() + 1 }>;

/// The journal of a boot, open for appending.
pub struct Journal {
    name: FileName,
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
        let name = file_name(boot_id, ENDING)?;
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
        let mut head = to_fixed_line(&Event { process: Some(process), ..Event::of(job) })?;
        // The end of the object, because more of it follows.
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
        let event = Event { rescue: Some(rescue), ..Event::of(job) };
        let mut line = format!("\n{}", serde_json::to_string(&event).unwrap_or_default()).into_bytes();
        // The end of the object, which goes on.
        line.pop();
        line.extend(StartDraft::new(start).tail);
        self.append(directory, &[IoSlice::new(&line)])
    }

    /// Appends that nothing came of letting go of a job at that time. Allocates nothing.
    pub fn append_rescue_withdrawal(
        &self,
        directory: &StateDirectory,
        job: JobId,
        let_go_at_ms: u64,
    ) -> nix::Result<()> {
        self.append_event(directory, &Event { withdrawn_rescue: Some(let_go_at_ms), ..Event::of(job) })
    }

    /// Appends that the start was taken back. Allocates nothing.
    pub fn append_withdrawal(&self, directory: &StateDirectory, job: JobId) -> nix::Result<()> {
        self.append_event(directory, &Event { withdrawn: true, ..Event::of(job) })
    }

    /// Appends how the command ended.
    pub fn append_end(&self, directory: &StateDirectory, job: JobId, end: &End) -> nix::Result<()> {
        self.append_event(directory, &Event { end: Some(end), ..Event::of(job) })
    }

    /// Appends when the last process of the session ended, in milliseconds since 1970-01-01 00:00 UTC.
    pub fn append_session_end(&self, directory: &StateDirectory, job: JobId, at_ms: u64) -> nix::Result<()> {
        self.append_event(directory, &Event { session_ended_at_ms: Some(at_ms), ..Event::of(job) })
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

    fn append_event(&self, directory: &StateDirectory, event: &Event) -> nix::Result<()> {
        self.append(directory, &[IoSlice::new(to_fixed_line(event)?.as_bytes()), IoSlice::new(b"\n")])
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

fn open_for_appending(directory: &StateDirectory, name: &(impl NixPath + ?Sized)) -> nix::Result<(OwnedFd, FileStat)> {
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND;
    let file = match directory.open_file(name, flags) {
        Err(Errno::ENOENT) => {
            let file = directory.open_file(name, flags | OFlag::O_CREAT)?;
            // Whatever the umask takes from the mode, which is that of the command by now.
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

fn file_name(boot_id: &str, ending: &str) -> nix::Result<FileName> {
    let mut name = FileName::new();
    let pushed = name.push(boot_id.as_bytes()).and_then(|()| name.push(ending.as_bytes()));
    pushed.map(|()| name).map_err(|_| Errno::ENAMETOOLONG)
}

/// The part of a start that is known before there is a new process.
pub struct StartDraft {
    tail: Vec<u8>,
}

impl StartDraft {
    pub fn new(start: &Start) -> Self {
        let start = serde_json::to_string(start).unwrap_or_default();
        Self { tail: format!(",\"start\":{start}}}\n").into_bytes() }
    }
}

/// An event, as it is written. What was started follows in its own bytes.
#[derive(Serialize)]
struct Event<'a> {
    version: u32,
    job: JobId,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<&'a Process<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rescue: Option<&'a Rescue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<&'a End>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_ended_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    withdrawn: bool,
    /// The `let_go_at_ms` of a rescue that came to nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    withdrawn_rescue: Option<u64>,
}

impl Event<'_> {
    fn of(job: JobId) -> Self {
        Self {
            version: VERSION,
            job,
            process: None,
            rescue: None,
            end: None,
            session_ended_at_ms: None,
            withdrawn: false,
            withdrawn_rescue: None,
        }
    }
}

/// A newline and the event. The new process calls this: nothing is allocated, since all of it fits.
fn to_fixed_line(event: &Event) -> nix::Result<FixedText<LONGEST_EVENT>> {
    let mut line = FixedText::new();
    line.push(b"\n").map_err(|_| Errno::ENAMETOOLONG)?;
    serde_json::to_writer(&mut line, event).map_err(|_| Errno::ENAMETOOLONG)?;
    Ok(line)
}

/// An event, as a reader needs it to know which jobs there are. What was started is read where the job is shown.
#[derive(Deserialize)]
struct Line<'a> {
    version: u32,
    job: JobId,
    process: Option<Process>,
    rescue: Option<Rescue>,
    #[serde(borrow)]
    start: Option<&'a RawValue>,
    end: Option<End>,
    session_ended_at_ms: Option<u64>,
    #[serde(default)]
    withdrawn: bool,
    withdrawn_rescue: Option<u64>,
}

/// The journal of a boot, as it was read.
pub struct Contents {
    pub boot_id: String,
    /// The old journal, if a prune is at work or was killed, and the journal.
    files: Vec<(PathBuf, Vec<u8>)>,
    /// The jobs of the boot, in no particular order.
    pub entries: Vec<Entry>,
    /// What else the events speak of: starts that were withdrawn, and the ends of jobs that have been removed.
    pub leftovers: Vec<JobId>,
    /// How many lines are damaged: no version of this program can read them.
    pub damaged_lines: usize,
}

/// Where in the files what was started is: the number of the file, and the bytes.
type Part = (usize, Range<usize>);

/// A job, as the events have it.
pub struct Entry {
    pub id: JobId,
    pub process: Process,
    /// What the processes of a job are recognised by that detach has not started.
    pub rescue: Option<Rescue>,
    pub end: Option<End>,
    /// Milliseconds since 1970-01-01 00:00 UTC; known only for tracked jobs.
    pub session_ended_at_ms: Option<u64>,
    /// The place of its last event: later jobs have a higher one.
    pub place: (usize, usize),
    start: Part,
}

/// What the events say of one job so far.
#[derive(Default)]
struct Events {
    process: Option<Process>,
    start: Option<Part>,
    /// Each time that detach has let go of it, and how it is since then.
    rescues: Vec<(Rescue, Option<Part>)>,
    withdrawn_rescues: Vec<u64>,
    end: Option<End>,
    session_ended_at_ms: Option<u64>,
    is_withdrawn: bool,
    place: (usize, usize),
}

impl Events {
    /// Adds an event at this place, whose start is there.
    fn add(&mut self, event: Line, start: Option<Part>, place: (usize, usize)) {
        self.place = self.place.max(place);
        if let Some(rescue) = event.rescue {
            self.rescues.push((rescue, start));
        } else if let (Some(process), Some(start)) = (event.process, start) {
            self.process = Some(process);
            self.start = Some(start);
        }
        self.end = event.end.or(self.end.take());
        self.session_ended_at_ms = event.session_ended_at_ms.or(self.session_ended_at_ms);
        self.is_withdrawn |= event.withdrawn;
        self.withdrawn_rescues.extend(event.withdrawn_rescue);
    }

    /// `None`: there is no such job.
    fn into_entry(mut self, id: JobId) -> Option<Entry> {
        let (rescue, start_of_rescue) = self.merge_rescues().unzip();
        let Self { process, start, end, session_ended_at_ms, is_withdrawn, place, .. } = self;
        let start = start_of_rescue.flatten().or(start).filter(|_| !is_withdrawn)?;
        let log = rescue.as_ref().and_then(|rescue| rescue.log.clone());
        let (process, rescue) = match (process, rescue) {
            // Started by detach, so its processes are known by their session.
            (Some(process), _) => (Process { log: log.or(process.log), ..process }, None),
            (None, Some(rescue)) => (Process { session: rescue.session, log, tracker: None }, Some(rescue)),
            (None, None) => return None,
        };
        Some(Entry { id, process, rescue, end, session_ended_at_ms, place, start })
    }

    /// Whatever the order of the events, a process that was let go of in any of them was let go of; everything else is as
    /// in the last.
    fn merge_rescues(&mut self) -> Option<(Rescue, Option<Part>)> {
        self.rescues.retain(|(rescue, _)| !self.withdrawn_rescues.contains(&rescue.let_go_at_ms));
        let mut members: Vec<_> = self.rescues.iter().flat_map(|(rescue, _)| &rescue.members).copied().collect();
        members.sort_unstable();
        members.dedup();
        let (last, start) = self.rescues.drain(..).max_by_key(|(rescue, _)| rescue.let_go_at_ms)?;
        Some((Rescue { members, ..last }, start))
    }
}

impl Contents {
    /// The boots that have a journal, by the names in the directory.
    pub fn boots_in(names: &[OsString]) -> Vec<String> {
        let names = names.iter().filter_map(|name| {
            let name = name.to_str()?;
            name.strip_suffix(OLD_ENDING).or_else(|| name.strip_suffix(ENDING))
        });
        let mut boots: Vec<String> = names.map(str::to_owned).collect();
        boots.sort_unstable();
        boots.dedup();
        boots
    }

    /// Reads the journal of a boot. `warn` is called with the path, the number and the fault of each line that cannot be
    /// read.
    pub fn read(directory: &StateDirectory, boot_id: &str, warn: impl FnMut(Error)) -> Result<Self, Error> {
        let open = |ending| {
            let name = format!("{boot_id}{ending}");
            let path = directory.path().join(&name);
            match directory.open_file(name.as_str(), OFlag::O_RDONLY) {
                Ok(file) => Ok(Some((path, File::from(file)))),
                Err(Errno::ENOENT) => Ok(None),
                Err(errno) => Err(unreadable(&path, errno)),
            }
        };
        let mut files = Vec::new();
        // A prune moves the journal first and removes the old one last. So the journal is opened first, and the old one
        // is read first: what is not in the one is in the other. Where neither is there, a prune came between.
        for _ in 0..2 {
            let current = open(ENDING)?;
            let old = open(OLD_ENDING)?;
            for (path, file) in old.into_iter().chain(current) {
                let bytes = read_whole(file).map_err(|errno| unreadable(&path, errno))?;
                files.push((path, bytes));
            }
            if !files.is_empty() {
                break;
            }
        }
        Ok(Self::fold(boot_id, files, warn))
    }

    /// What the events in these files mean.
    fn fold(boot_id: &str, files: Vec<(PathBuf, Vec<u8>)>, mut warn: impl FnMut(Error)) -> Self {
        let length: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut jobs: HashMap<JobId, Events> = HashMap::with_capacity(length / USUAL_START);
        let mut damaged_lines = 0;
        let is_ours = is_boot_id(boot_id);
        for (number, (path, bytes)) in files.iter().enumerate() {
            // A part of `bytes`.
            let place_of = |part: &[u8]| part.as_ptr().addr() - bytes.as_ptr().addr();
            let lines = bytes.split(|byte| *byte == b'\n').enumerate();
            for (line_number, line) in lines.filter(|(_, line)| !line.is_empty()) {
                match parse(line) {
                    Ok(event) => {
                        let start = event.start.map(|start| {
                            let begin = place_of(start.get().as_bytes());
                            (number, begin..begin + start.get().len())
                        });
                        jobs.entry(event.job).or_default().add(event, start, (number, place_of(line)));
                    }
                    Err(fault) => {
                        warn(Error::refused(&format!("read line {} of", line_number + 1), path, &fault.to_string()));
                        damaged_lines += usize::from(is_ours && matches!(fault, Fault::Damage(_)));
                    }
                }
            }
        }
        let mut contents =
            Self { boot_id: boot_id.to_owned(), files, entries: Vec::new(), leftovers: Vec::new(), damaged_lines };
        for (id, events) in jobs {
            match events.into_entry(id) {
                Some(entry) => contents.entries.push(entry),
                None => contents.leftovers.push(id),
            }
        }
        contents
    }

    /// How the command ended, if that is recorded.
    pub fn find_end(self, job: JobId) -> Option<End> {
        self.entries.into_iter().find(|entry| entry.id == job)?.end
    }

    /// Whether a prune has something to remove besides jobs, or was killed before it had removed the old journal.
    pub fn is_untidy(&self) -> bool {
        !self.leftovers.is_empty() || self.damaged_lines > 0 || self.is_moved_aside()
    }

    fn is_moved_aside(&self) -> bool {
        self.files.iter().any(|(path, _)| path.as_os_str().as_bytes().ends_with(OLD_ENDING.as_bytes()))
    }

    /// Everything that is known of a job. The error is a reason.
    pub fn load(&self, entry: &Entry, directory: &StateDirectory) -> Result<Record, String> {
        let start: Start = self.parse_start(entry)?;
        let mut record = Record::new(&self.boot_id, entry.id, entry.process.clone(), start, directory.path());
        record.rescue.clone_from(&entry.rescue);
        record.end.clone_from(&entry.end);
        record.session_ended_at_ms = entry.session_ended_at_ms;
        Ok(record)
    }

    /// A part of [`Start`], for callers that need no more.
    pub fn parse_start<'a, T: Deserialize<'a>>(&'a self, entry: &Entry) -> Result<T, String> {
        let (number, range) = &entry.start;
        let bytes = self.files.get(*number).and_then(|(_, bytes)| bytes.get(range.clone())).unwrap_or_default();
        serde_json::from_slice(bytes).map_err(|error| describe_damage(&error).to_owned())
    }
}

fn unreadable(path: &PathBuf, errno: Errno) -> Error {
    let reason = if errno == Errno::ELOOP { "it is a symbolic link".to_owned() } else { reason(errno) };
    Error::refused("read", path, &reason)
}

/// Reads a journal to its end, and waits for a line that is being written.
fn read_whole(mut file: File) -> nix::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| errno(&error))?;
    if bytes.last().is_some_and(|last| *last != b'\n') {
        sleep(TIME_TO_WRITE);
        file.read_to_end(&mut bytes).map_err(|error| errno(&error))?;
    }
    Ok(bytes)
}

/// Whether a file with this name is a journal, whatever it contains: a boot id is a UUID, see random(4). Any other file
/// may be the user's own.
fn is_boot_id(name: &str) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    let is_hex = |part: &&str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.iter().all(is_hex) && parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
}

/// Why a line is not read.
enum Fault {
    /// Another version of this program may be able to read it.
    OtherVersion(u32),
    /// No version can.
    Damage(&'static str),
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Self::OtherVersion(version) => {
                write!(f, "it has version {version}, but only version {VERSION} is supported")
            }
            Self::Damage(reason) => f.write_str(reason),
        }
    }
}

/// Reads an event.
fn parse(line: &[u8]) -> Result<Line<'_>, Fault> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let parsed: Result<Line, _> = serde_json::from_slice(line);
    let is_plain = |log: &Option<String>| log.as_ref().is_none_or(|log| !log.contains('/'));
    let is_valid = |line: &Line| {
        line.version == VERSION
            && line.end.as_ref().is_none_or(End::is_valid)
            && line.process.as_ref().is_none_or(|process| is_plain(&process.log))
            && line.rescue.as_ref().is_none_or(|rescue| is_plain(&rescue.log))
    };
    if let Ok(event) = parsed
        && is_valid(&event)
    {
        return Ok(event);
    }
    match serde_json::from_slice::<Versioned>(line) {
        Ok(Versioned { version }) if version != VERSION => Err(Fault::OtherVersion(version)),
        Ok(_) => Err(Fault::Damage("it is not an event of a job")),
        Err(error) => Err(Fault::Damage(describe_damage(&error))),
    }
}

fn describe_damage(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        Category::Eof => "it is cut short",
        Category::Data => "it is not an event of a job",
        Category::Io | Category::Syntax => "it is not JSON",
    }
}

/// Keeps other prunes away from a state directory until it is dropped.
pub struct PruneLock {
    _lock: Flock<OwnedFd>,
}

impl PruneLock {
    /// Calls `note_wait` if there is another, which is waited for.
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

#[cfg(test)]
mod tests {
    use nix::unistd::Pid;
    use proptest::prelude::*;

    use super::*;
    use crate::jobs::record::{Stream, Text, Tracker};

    fn id(pid: i32) -> JobId {
        JobId { pid: Pid::from_raw(pid), start_time: 8, pid_namespace: Some(4), time_namespace: None, started_at_ms: 9 }
    }

    fn start() -> Start {
        Start {
            host: Text::from("h"),
            name: Text::from(OsStr::from_bytes(b"a\xff")),
            argv: vec![Text::from(OsStr::from_bytes(b"a\xff")), Text::from(""), Text::from("naïve \"x\"\n")],
            directory: None,
            stdout: Stream::Log,
            stderr: Stream::File(Text::from("/f")),
            unit: Some("app-x-1.scope".into()),
        }
    }

    /// A start as the new process writes it.
    fn start_line(pid: i32) -> Vec<u8> {
        let tracker = Some(Tracker { pid: Pid::from_raw(6), start_time: 7 });
        let process = Process { session: Pid::from_raw(pid), log: Some("宽-7.log"), tracker };
        let mut head = line_of(&Event { process: Some(&process), ..Event::of(id(pid)) });
        head.pop();
        [head, StartDraft::new(&start()).tail].concat()
    }

    fn line_of(event: &Event) -> Vec<u8> {
        to_fixed_line(event).unwrap_or_else(|_| unreachable!()).as_bytes().to_owned()
    }

    /// The jobs, in the order of their last events, and what was said against the rest.
    fn fold(bytes: &[u8]) -> (Contents, Vec<String>) {
        let mut faults = Vec::new();
        let files = vec![(PathBuf::from("/s/b.jsonl"), bytes.to_owned())];
        let mut contents = Contents::fold("b", files, |error| faults.push(error.to_string()));
        contents.entries.sort_unstable_by_key(|entry| entry.place);
        (contents, faults)
    }

    #[test]
    fn start_is_read_as_it_was_written() {
        let (contents, faults) = fold(&start_line(7));
        assert_eq!(faults, [""; 0]);
        let [entry] = contents.entries.as_slice() else { unreachable!() };
        assert_eq!(entry.id, id(7));
        let tracker = Some(Tracker { pid: Pid::from_raw(6), start_time: 7 });
        assert_eq!(entry.process, Process { session: Pid::from_raw(7), log: Some("宽-7.log".into()), tracker });
        assert_eq!(contents.parse_start::<Start>(entry), Ok(start()));
    }

    #[test]
    fn events_are_taken_in_any_order_and_number() {
        let end = r#"
{"version":1,"job":{"pid":7,"start_time":8,"pid_namespace":4,"started_at_ms":9},"end":{"ended_at_ms":1,"status":3,"signal":null,"core_dumped":false,"wall_ms":1,"cpu_ms":1,"peak_memory_bytes":1}}"#;
        let withdrawal = |pid: i32| line_of(&Event { withdrawn: true, ..Event::of(id(pid)) });
        let once = [start_line(7), start_line(8), format!("\n{end}\n").into(), withdrawal(8)];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1]] {
            let bytes = order.iter().chain(&order).filter_map(|number| once.get(*number)).flatten();
            let (contents, faults) = fold(&bytes.copied().collect::<Vec<u8>>());
            let [entry] = contents.entries.as_slice() else { unreachable!() };
            assert_eq!((entry.id, faults.len()), (id(7), 0));
            assert_eq!(entry.end.as_ref().map(|end| end.status().code()), Some(Some(3)));
        }
        assert_eq!(fold(end.as_bytes()).0.entries.len(), 0);
    }

    #[test]
    fn damaged_line_is_named_and_hides_no_other() {
        let line = start_line(7);
        let text = String::from_utf8_lossy(&line).into_owned();
        let cut = line.get(..line.len() / 2).unwrap_or_default().to_owned();
        for (damaged, reason) in [
            (cut, "it is cut short"),
            (b"hello".to_vec(), "it is not JSON"),
            (b"\0\0\0".to_vec(), "it is not JSON"),
            (b"[1]".to_vec(), "it is not an event of a job"),
            (vec![b'x'; 10_000_000], "it is not JSON"),
            (
                text.replace("\"version\":1", "\"version\":2").into(),
                "it has version 2, but only version 1 is supported",
            ),
            (text.replace("\"pid\":7", "\"pid\":\"7\"").into(), "it is not an event of a job"),
            (text.replace("宽-7.log", "../宽-7.log").into(), "it is not an event of a job"),
        ] {
            let (contents, faults) = fold(&[start_line(5), damaged, start_line(9)].concat());
            assert_eq!(contents.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [id(5), id(9)]);
            assert_eq!(faults.len(), 1, "{reason}");
            let fault = faults.concat();
            assert!(fault.starts_with("cannot read line ") && fault.ends_with(reason), "{fault}");
        }
    }

    #[test]
    fn end_that_says_nothing_is_refused() {
        let line = |end: &str| {
            let end = format!(
                "{{{end},\"ended_at_ms\":1,\"core_dumped\":false,\"wall_ms\":1,\"cpu_ms\":1,\"peak_memory_bytes\":1}}"
            );
            let id = r#"{"pid":7,"start_time":8,"pid_namespace":4,"started_at_ms":9}"#;
            format!("{{\"version\":1,\"job\":{id},\"end\":{end}}}")
        };
        assert!(parse(line(r#""status":0,"signal":null"#).as_bytes()).is_ok());
        for end in [r#""status":null,"signal":null"#, r#""status":0,"signal":9"#, r#""status":null,"signal":65"#] {
            assert!(parse(line(end).as_bytes()).is_err(), "{end}");
        }
    }

    proptest! {
        /// Whatever a broken disk makes of a journal, it does no harm.
        #[test]
        fn random_damage_is_survived(place: usize, byte: u8, end: usize) {
            let mut bytes = [start_line(7), start_line(8)].concat();
            let length = bytes.len();
            bytes.get_mut(place % length).map(|old| *old = byte).unwrap_or_default();
            bytes.truncate(1 + end % length);
            let (contents, _) = fold(&bytes);
            for entry in &contents.entries {
                let _ = contents.parse_start::<Start>(entry);
            }
        }
    }
}
