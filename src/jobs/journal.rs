//! The journal of a boot, `BOOT_ID.jsonl`: what happened to its jobs, one event per line.
//!
//! A writer appends a whole line with one write and takes no lock. Then it checks that the journal still has its name:
//! a prune first renames the journal to `BOOT_ID.old.jsonl` and then reads it, so a line that was written to a renamed
//! journal is written again to the new one. No line is lost, whichever process is killed and whenever. A line may
//! therefore appear twice, and an end may precede its start: readers accept events in any order and more than once.
//!
//! Each write begins with a newline, so a line that was cut short (full disk, power loss) damages no other line.

mod append;
mod compact;
mod contents;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::Read;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::jobs::record::{End, JobId, Process, Rescue, Start, VERSION};
use crate::sys::errno;
use crate::sys::fixed::FixedText;

pub use append::Journal;
pub use compact::{PruneLock, compact};
pub use contents::{Contents, Entry};

const ENDING: &str = ".jsonl";
const OLD_ENDING: &str = ".old.jsonl";
/// In bytes: more than the numbers and the name of a log in an event need.
const LONGEST_EVENT: usize = 1024;
/// By then, a write that is in progress has ended.
const TIME_TO_WRITE: Duration = Duration::from_millis(5);

/// What happened to a job, as it is written. The start follows as bytes of its own (`StartDraft`).
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Event<'a> {
    Process(&'a Process<&'a str>),
    Rescue(&'a Rescue),
    End(&'a End),
    SessionEndedAtMs(u64),
    Withdrawn(bool),
    /// The `let_go_at_ms` of a rescue that changed nothing.
    WithdrawnRescue(u64),
}

/// A line, as it is written.
#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    job: JobId,
    #[serde(flatten)]
    event: Event<'a>,
}

impl<'a> Written<'a> {
    fn new(job: JobId, event: Event<'a>) -> Self {
        Self { version: VERSION, job, event }
    }

    /// A newline and the event. The new process calls this: nothing is allocated, since all of it fits.
    fn to_fixed_text(&self) -> nix::Result<FixedText<LONGEST_EVENT>> {
        let mut text = FixedText::new();
        text.push(b"\n").map_err(|_| Errno::ENAMETOOLONG)?;
        serde_json::to_writer(&mut text, self).map_err(|_| Errno::ENAMETOOLONG)?;
        Ok(text)
    }
}

/// A line, as a reader needs it to know which jobs there are. The start is parsed only where it is needed.
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
    // At once for the whole line, which is quicker than for each of its strings.
    let Ok(line) = str::from_utf8(line) else { return Err(Fault::Damage("it is not JSON")) };
    let parsed: Result<Line, _> = serde_json::from_str(line);
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
    match serde_json::from_str::<Versioned>(line) {
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
