//! What is known of a job: its identity, what was started, and how it ended. These are the fields of `--json`, and also
//! those of the journal, except for the few that all jobs of a boot or a directory share.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::stat::FileStat;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::sys::process::Usage;
use crate::term::format::{in_ms, now_in_ms};
use crate::term::text::{escape_json, shorten_home};

/// The version of the format. Events of other versions are skipped and kept.
pub const VERSION: u32 = 1;
/// The bit with which wait(2) reports a core file.
const CORE_DUMPED: i32 = 0x80;

/// What distinguishes a job from all others of its boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobId {
    /// The first process of the job: the command.
    #[serde(with = "Number")]
    pub pid: Pid,
    /// Its start time, in clock ticks after boot: field 22 of /proc/PID/stat.
    pub start_time: u64,
    /// The PID namespace of `pid`, by its number; absent where /proc is missing.
    pub pid_namespace: Option<u64>,
    /// The time namespace of `start_time`, by its number; absent where /proc is missing, and in older records.
    pub time_namespace: Option<u64>,
    /// Milliseconds since 1970-01-01 00:00 UTC.
    pub started_at_ms: u64,
}

/// What is known when the new process has been made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process<T = String> {
    #[serde(with = "Number")]
    pub session: Pid,
    /// The name of the job's log in the state directory.
    pub log: Option<T>,
    /// The process that waits for the end of the command.
    pub tracker: Option<ProcessId>,
}

/// What is known of a job that was running already when detach let go of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rescue {
    /// Usually that of the shell.
    #[serde(with = "Number")]
    pub session: Pid,
    #[serde(with = "Number")]
    pub group: Pid,
    /// Milliseconds since 1970-01-01 00:00 UTC.
    pub let_go_at_ms: u64,
    /// The name of the job's log in the state directory.
    pub log: Option<String>,
    /// The file that its output goes to; absent for /dev/null.
    pub output: Option<FileId>,
    /// The processes that were let go of.
    pub members: Vec<ProcessId>,
}

/// A file, wherever its name has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    pub device: u64,
    pub inode: u64,
}

/// A process, whatever its PID means later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    #[serde(with = "Number")]
    pub pid: Pid,
    /// In clock ticks after boot.
    pub start_time: u64,
}

/// What is known before there is a new process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The name of the machine.
    pub host: Text,
    pub name: Text,
    pub argv: Vec<Text>,
    /// The working directory of the command; absent where it no longer has a name.
    pub directory: Option<Text>,
    pub stdout: Stream,
    pub stderr: Stream,
    /// The systemd scope that was made for the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// Where a stream of a job goes, as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// To the job's own log.
    Log,
    /// To a file that the user named, or redirected to.
    File(Text),
    /// To /dev/null.
    Discarded,
    /// Where the caller's stream went.
    Kept,
}

/// The end of a command, as wait4(2) reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Milliseconds since 1970-01-01 00:00 UTC.
    pub ended_at_ms: u64,
    /// The exit status, or else the signal that killed the command.
    status: Option<u8>,
    signal: Option<u8>,
    core_dumped: bool,
    /// From the start to the end, the time in which the machine slept included.
    wall_ms: u64,
    /// User and system time of the command and of those descendants that were waited for.
    cpu_ms: u64,
    /// The largest resident set in bytes, that of one process.
    peak_memory_bytes: u64,
}

/// Everything that is known of a job, as `--json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    pub version: u32,
    #[serde(flatten)]
    pub id: JobId,
    /// /proc/sys/kernel/random/boot_id: random(4).
    pub boot_id: String,
    pub host: Text,
    pub name: Text,
    pub argv: Vec<Text>,
    pub directory: Option<Text>,
    pub stdout: Destination,
    pub stderr: Destination,
    /// The systemd scope that was made for the job.
    pub unit: Option<String>,
    #[serde(with = "Number")]
    pub session: Pid,
    pub tracker: Option<ProcessId>,
    /// Absent for a job that detach has started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescue: Option<Rescue>,
    pub end: Option<End>,
    /// When the last process of a tracked job ended, in milliseconds since 1970-01-01 00:00 UTC.
    pub session_ended_at_ms: Option<u64>,
}

/// Where a stream of a job goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Destination {
    /// The job's own log, by its path.
    Log(Text),
    File(Text),
    Discarded,
    Kept,
}

/// A name or an argument: in JSON a string, or an array of bytes where it is not UTF-8, as in journalctl(1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "TextInJson", into = "TextInJson")]
pub struct Text(OsString);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum TextInJson {
    Utf8(String),
    Bytes(Vec<u8>),
}

/// How serde reads and writes a PID.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Pid")]
pub struct Number(#[serde(getter = "to_number")] i32);

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn to_number(pid: &Pid) -> i32 {
    pid.as_raw()
}

impl From<Number> for Pid {
    fn from(number: Number) -> Self {
        Self::from_raw(number.0)
    }
}

impl Record {
    /// `directory` is where its log is.
    pub fn new(boot_id: &str, id: JobId, process: Process, start: Start, directory: &Path) -> Self {
        let log = process.log.map(|log| directory.join(log));
        let destination = |stream| match (stream, &log) {
            (Stream::Log, Some(log)) => Destination::Log(log.into()),
            (Stream::File(path), _) => Destination::File(path),
            (Stream::Discarded, _) => Destination::Discarded,
            (Stream::Kept | Stream::Log, _) => Destination::Kept,
        };
        Self {
            version: VERSION,
            id,
            boot_id: boot_id.to_owned(),
            host: start.host,
            name: start.name,
            argv: start.argv,
            directory: start.directory,
            stdout: destination(start.stdout),
            stderr: destination(start.stderr),
            unit: start.unit,
            session: process.session,
            tracker: process.tracker,
            rescue: None,
            end: None,
            session_ended_at_ms: None,
        }
    }

    /// Where stdout and stderr go.
    pub fn output(&self) -> [&Destination; 2] {
        [&self.stdout, &self.stderr]
    }
}

impl FileId {
    pub fn of(status: &FileStat) -> Self {
        Self { device: status.st_dev, inode: status.st_ino }
    }
}

impl Destination {
    /// The file, where it is one whose path is known.
    pub fn as_path(&self) -> Option<&Path> {
        match self {
            Self::Log(path) | Self::File(path) => Some(path.as_path()),
            Self::Discarded | Self::Kept => None,
        }
    }
}

impl End {
    /// The end of a command that has just ended.
    pub fn now(status: ExitStatus, wall: Duration, usage: Usage) -> Self {
        let to_byte = |number: Option<i32>| number.and_then(|number| u8::try_from(number).ok());
        Self {
            ended_at_ms: now_in_ms(),
            status: to_byte(status.code()),
            signal: to_byte(status.signal()),
            core_dumped: status.core_dumped(),
            wall_ms: in_ms(wall),
            cpu_ms: in_ms(usage.cpu),
            peak_memory_bytes: usage.peak_memory,
        }
    }

    /// Whether it says how the command ended, in the one way or the other.
    pub fn is_valid(&self) -> bool {
        matches!((self.status, self.signal), (Some(_), None) | (None, Some(1..=64)))
    }

    pub fn status(&self) -> ExitStatus {
        let code = i32::from(self.status.unwrap_or(u8::MAX)) << 8;
        let dumped = if self.core_dumped { CORE_DUMPED } else { 0 };
        // As in wait(2).
        ExitStatus::from_raw(self.signal.map_or(code, |signal| i32::from(signal) | dumped))
    }

    /// How long the command ran.
    pub fn wall(&self) -> Duration {
        Duration::from_millis(self.wall_ms)
    }
}

impl<T: AsRef<OsStr> + ?Sized> From<&T> for Text {
    fn from(text: &T) -> Self {
        Self(text.as_ref().to_owned())
    }
}

impl Text {
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl From<Text> for TextInJson {
    fn from(text: Text) -> Self {
        text.0.into_string().map_or_else(|text| Self::Bytes(text.into_vec()), Self::Utf8)
    }
}

impl TryFrom<TextInJson> for Text {
    type Error = &'static str;

    fn try_from(json: TextInJson) -> Result<Self, Self::Error> {
        let bytes = match json {
            TextInJson::Utf8(text) => text.into_bytes(),
            TextInJson::Bytes(bytes) => bytes,
        };
        // No name, argument or path of Linux holds one.
        if bytes.contains(&0) { Err("it contains a zero byte") } else { Ok(Self(OsString::from_vec(bytes))) }
    }
}

/// Where the output goes, as the end of a sentence.
pub fn describe_output(record: &Record) -> String {
    let place = |destination: &Destination| match destination {
        Destination::Log(path) | Destination::File(path) => format!("in {}", shorten_home(path.as_path())),
        Destination::Discarded => "discarded".to_owned(),
        Destination::Kept => "left as it is".to_owned(),
    };
    let [stdout, stderr] = record.output();
    if stdout == stderr {
        format!("output {}", place(stdout))
    } else {
        format!("stdout {}, stderr {}", place(stdout), place(stderr))
    }
}

/// `value` as one line of JSON, safe to show.
pub fn to_line(value: &impl Serialize) -> String {
    escape_json(&serde_json::to_string(value).unwrap_or_default()) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_not_utf8_becomes_its_bytes() {
        let json = |bytes: &[u8]| serde_json::to_string(&Text::from(OsStr::from_bytes(bytes))).unwrap_or_default();
        assert_eq!(json("naïve \"x\"\n".as_bytes()), r#""naïve \"x\"\n""#);
        assert_eq!(json(b"a\xff"), "[97,255]");
        assert_eq!(json(b""), r#""""#);
        assert!(serde_json::from_str::<Text>("[97,0]").is_err());
        assert!(serde_json::from_str::<Text>("[97,256]").is_err());
    }

    #[test]
    fn end_comes_back_as_it_was() {
        let usage = Usage { cpu: Duration::from_millis(2), peak_memory: 3 };
        for raw in [0, 42 << 8, 255 << 8, 9, 15 | CORE_DUMPED, 64] {
            let end = End::now(ExitStatus::from_raw(raw), Duration::from_millis(1), usage);
            assert!(end.is_valid());
            assert_eq!(end.status().into_raw(), raw);
        }
    }
}
