//! The reader of a journal: from the lines to the jobs.
//!
//! The start is the longest part of a line. It is kept as bytes, and parsed only where it is needed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use serde::Deserialize;

use super::{ENDING, Fault, Line, OLD_ENDING, describe_damage, is_boot_id, parse, read_whole};
use crate::error::{Error, reason};
use crate::jobs::directory::StateDirectory;
use crate::jobs::record::{End, JobId, Process, Record, Rescue, Start};
use crate::sys::proc::TICK_MS;

/// In bytes: the length of a start with a short command line.
const USUAL_START: usize = 300;

/// The journal of a boot, as it was read.
pub struct Contents {
    pub boot_id: String,
    /// The old journal, if a prune is at work or was killed, and the journal.
    files: Vec<(PathBuf, Vec<u8>)>,
    /// The jobs of the boot, in the order of their first events.
    pub entries: Vec<Entry>,
    /// Identities without a job: what is left of withdrawn starts and rescues, and of removed jobs.
    pub leftovers: Vec<JobId>,
    /// How many lines are damaged: no version of this program can read them.
    pub damaged_lines: usize,
}

/// Where a start is: the number of the file, and the range of its bytes.
type Part = (usize, Range<usize>);

/// A job, as the events have it.
pub struct Entry {
    pub id: JobId,
    pub process: Process,
    /// How to recognize the processes of a job that detach did not start.
    pub rescue: Option<Box<Rescue>>,
    /// When detach let go of it, the last time, in milliseconds since 1970-01-01 00:00 UTC.
    pub let_go_at_ms: Option<u64>,
    pub end: Option<End>,
    /// Milliseconds since 1970-01-01 00:00 UTC; known only for tracked jobs.
    pub session_ended_at_ms: Option<u64>,
    /// The place of its last event: later jobs have a higher one.
    pub place: (usize, usize),
    start: Part,
}

impl Entry {
    /// When detach started it or let go of it, in milliseconds after boot.
    pub fn detached_at_ms(&self) -> u64 {
        let since_start = self.let_go_at_ms.map_or(0, |let_go| let_go.saturating_sub(self.id.started_at_ms));
        self.id.start_time.saturating_mul(TICK_MS).saturating_add(since_start)
    }
}

/// What the events say of one job so far.
#[derive(Default)]
struct Events {
    process: Option<Process>,
    start: Option<Part>,
    rescues: Option<Box<Rescues>>,
    end: Option<End>,
    session_ended_at_ms: Option<u64>,
    is_withdrawn: bool,
    place: (usize, usize),
}

/// Most jobs have none.
#[derive(Default)]
struct Rescues {
    /// Each time that detach has let go of the job, with the start that was recorded then.
    all: Vec<(Rescue, Option<Part>)>,
    /// By their `let_go_at_ms`.
    withdrawn: Vec<u64>,
}

impl Rescues {
    /// Makes one rescue of all, in whatever order they were read: the members of all, everything else from the last.
    fn merge(mut self) -> Option<(Rescue, Option<Part>)> {
        self.all.retain(|(rescue, _)| !self.withdrawn.contains(&rescue.let_go_at_ms));
        let mut members: Vec<_> = self.all.iter().flat_map(|(rescue, _)| &rescue.members).copied().collect();
        members.sort_unstable();
        members.dedup();
        let (last, start) = self.all.into_iter().max_by_key(|(rescue, _)| rescue.let_go_at_ms)?;
        Some((Rescue { members, ..last }, start))
    }
}

impl Events {
    /// Adds an event. `place` is where its line is, `start` where its start is.
    fn add(&mut self, event: Line, start: Option<Part>, place: (usize, usize)) {
        self.place = self.place.max(place);
        if let Some(rescue) = event.rescue {
            self.rescues.get_or_insert_default().all.push((rescue, start));
        } else if let (Some(process), Some(start)) = (event.process, start) {
            self.process = Some(process);
            self.start = Some(start);
        }
        self.end = event.end.or(self.end.take());
        self.session_ended_at_ms = event.session_ended_at_ms.or(self.session_ended_at_ms);
        self.is_withdrawn |= event.withdrawn;
        if let Some(let_go_at_ms) = event.withdrawn_rescue {
            self.rescues.get_or_insert_default().withdrawn.push(let_go_at_ms);
        }
    }

    /// `None`: there is no such job.
    fn into_entry(self, id: JobId) -> Option<Entry> {
        let Self { process, start, rescues, end, session_ended_at_ms, is_withdrawn, place } = self;
        let (rescue, start_of_rescue) = rescues.and_then(|rescues| rescues.merge()).unzip();
        let start = start_of_rescue.flatten().or(start).filter(|_| !is_withdrawn)?;
        let let_go_at_ms = rescue.as_ref().map(|rescue| rescue.let_go_at_ms);
        let log = rescue.as_ref().and_then(|rescue| rescue.log.clone());
        let (process, rescue) = match (process, rescue) {
            // Started by detach, so its processes are known by their session.
            (Some(process), _) => (Process { log: log.or(process.log), ..process }, None),
            (None, Some(rescue)) => (Process { session: rescue.session, log, tracker: None }, Some(rescue)),
            (None, None) => return None,
        };
        Some(Entry { id, process, rescue: rescue.map(Box::new), let_go_at_ms, end, session_ended_at_ms, place, start })
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

    /// Reads the journal of a boot. `warn` is called with the path, the number and the fault of each line that cannot
    /// be read.
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
        // is read first: what is not in the one is in the other. If there is neither, a prune came in between, so both
        // are opened again.
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
    pub fn fold(boot_id: &str, files: Vec<(PathBuf, Vec<u8>)>, mut warn: impl FnMut(Error)) -> Self {
        let length: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        // In the order of their first events, which is nearly that of their starts: so they are sorted quickly.
        let mut jobs: Vec<(JobId, Events)> = Vec::with_capacity(length / USUAL_START);
        let mut numbers: HashMap<JobId, usize> = HashMap::with_capacity(length / USUAL_START);
        let mut damaged_lines = 0;
        let is_ours = is_boot_id(boot_id);
        for (number, (path, bytes)) in files.iter().enumerate() {
            // Where this part of `bytes` begins in it.
            let place_of = |part: &[u8]| part.as_ptr().addr() - bytes.as_ptr().addr();
            let lines = bytes.split(|byte| *byte == b'\n').enumerate();
            for (line_number, line) in lines.filter(|(_, line)| !line.is_empty()) {
                match parse(line) {
                    Ok(event) => {
                        let start = event.start.map(|start| {
                            let begin = place_of(start.get().as_bytes());
                            (number, begin..begin + start.get().len())
                        });
                        let job = *numbers.entry(event.job).or_insert(jobs.len());
                        if job == jobs.len() {
                            jobs.push((event.job, Events::default()));
                        }
                        if let Some((_, events)) = jobs.get_mut(job) {
                            events.add(event, start, (number, place_of(line)));
                        }
                    }
                    Err(fault) => {
                        warn(Error::refused(&format!("read line {} of", line_number + 1), path, &fault.to_string()));
                        damaged_lines += usize::from(is_ours && matches!(fault, Fault::Damage(_)));
                    }
                }
            }
        }
        let mut leftovers = Vec::new();
        let into_entry = |(id, events): (JobId, Events)| {
            let entry = events.into_entry(id);
            if entry.is_none() {
                leftovers.push(id);
            }
            entry
        };
        let entries = jobs.into_iter().filter_map(into_entry).collect();
        Self { boot_id: boot_id.to_owned(), files, entries, leftovers, damaged_lines }
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
        record.rescue = entry.rescue.as_deref().cloned();
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
