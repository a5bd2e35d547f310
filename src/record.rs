//! The record of a job: what was started, and, where it was tracked, how it ended. One line of JSON, written and read
//! here and nowhere else.
//!
//! A reader takes nothing for granted: whatever the bytes are, they give a record or a reason why they do not.
//! Where records are kept is in `state`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::unistd::{Pid, gethostname};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use crate::proc::{self, Identity};

/// The format of a record. A reader that knows only an older one leaves the record alone.
const VERSION: u64 = 1;
/// The bit by which wait(2) tells of a core file.
const CORE_DUMPED: i32 = 0x80;

/// What is known of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub pid: Pid,
    /// Absent where /proc does not tell; such a record is printed, not stored.
    pub identity: Option<Identity>,
    /// The name of the machine.
    pub host: Text,
    /// Of which PID namespace the PID is; absent where /proc does not tell.
    pub pid_namespace: Option<u64>,
    /// Milliseconds since 1970-01-01 00:00 UTC.
    pub started_at_ms: u64,
    pub name: Text,
    pub argv: Vec<Text>,
    /// The working directory of the command; absent where it has no name any more.
    pub directory: Option<Text>,
    pub stdout: Destination,
    pub stderr: Destination,
    /// The process that waits for the end of the command, where one was asked for.
    pub tracker: Option<Identity>,
    /// How the command ended, as the tracking process saw it.
    pub end: Option<End>,
}

/// The end of a command, as wait4(2) tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Milliseconds since 1970-01-01 00:00 UTC.
    pub ended_at_ms: u64,
    pub status: ExitStatus,
    /// From the start to the end, the time in which the machine slept included.
    pub wall: Duration,
    /// User and system time of the command and of those descendants that were waited for.
    pub cpu: Duration,
    /// The largest resident set in bytes, that of one process.
    pub peak_memory: u64,
}

/// Where a stream of a job goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The job's own log.
    Log(Text),
    /// A file that the user named.
    File(Text),
    /// /dev/null
    Discarded,
    /// Where the caller's went.
    Kept,
}

/// A name or an argument: in JSON a string, or an array of bytes where it is not UTF-8, as in journalctl(1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(OsString);

impl Record {
    /// The record of the calling process, which is to become the command, in its directory.
    pub fn of_this_process(
        identity: Option<Identity>,
        name: &OsStr,
        argv: &[OsString],
        [stdout, stderr]: [Destination; 2],
    ) -> Self {
        Self {
            pid: Pid::this(),
            identity,
            host: Text(gethostname().unwrap_or_default()),
            pid_namespace: proc::pid_namespace().ok(),
            started_at_ms: now_in_ms(),
            name: name.into(),
            argv: argv.iter().map(Into::into).collect(),
            directory: env::current_dir().ok().map(|path| path.as_os_str().into()),
            stdout,
            stderr,
            tracker: None,
            end: None,
        }
    }

    /// Reads a record. The error is the reason why it is none, for people.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(json).map_err(|error| match error.classify() {
            serde_json::error::Category::Eof => "it is cut short".to_owned(),
            _ => "it is not JSON".to_owned(),
        })?;
        let version = read(&value, "version", Value::as_u64)?;
        if version != VERSION {
            return Err(format!("it has version {version}, and only version {VERSION} is known here"));
        }
        let boot_id = read(&value, "boot_id", |field| field.as_str().map(str::to_owned))?;
        let pid = read(&value, "pid", to_pid)?;
        let start_time = read(&value, "start_time", Value::as_u64)?;
        Ok(Self {
            pid,
            identity: Some(Identity { pid, start_time, boot_id: boot_id.clone() }),
            host: read(&value, "host", Text::from_value)?,
            pid_namespace: read_option(&value, "pid_namespace", Value::as_u64)?,
            started_at_ms: read(&value, "started_at_ms", Value::as_u64)?,
            name: read(&value, "name", Text::from_value)?,
            argv: read(&value, "argv", |field| field.as_array()?.iter().map(Text::from_value).collect())?,
            directory: read_option(&value, "directory", Text::from_value)?,
            stdout: read(&value, "stdout", Destination::from_value)?,
            stderr: read(&value, "stderr", Destination::from_value)?,
            tracker: read_option(&value, "tracker", |field| Tracker::from_value(field, &boot_id))?,
            end: read_option(&value, "end", End::from_value)?,
        })
    }

    /// The fields, for the record itself and for whoever prints it with more.
    pub fn serialize_fields<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let identity = self.identity.as_ref();
        map.serialize_entry("version", &VERSION)?;
        map.serialize_entry("pid", &self.pid.as_raw())?;
        map.serialize_entry("start_time", &identity.map(|identity| identity.start_time))?;
        map.serialize_entry("boot_id", &identity.map(|identity| &identity.boot_id))?;
        map.serialize_entry("host", &self.host)?;
        map.serialize_entry("pid_namespace", &self.pid_namespace)?;
        map.serialize_entry("started_at_ms", &self.started_at_ms)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("argv", &self.argv)?;
        map.serialize_entry("directory", &self.directory)?;
        map.serialize_entry("stdout", &self.stdout)?;
        map.serialize_entry("stderr", &self.stderr)?;
        map.serialize_entry("tracker", &self.tracker.as_ref().map(Tracker))?;
        map.serialize_entry("end", &self.end)
    }

    /// Where stdout and stderr go.
    pub fn output(&self) -> [&Destination; 2] {
        [&self.stdout, &self.stderr]
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.serialize_fields(&mut map)?;
        map.end()
    }
}

/// The tracking process in JSON. It belongs to the boot of the command.
struct Tracker<'a>(&'a Identity);

impl Tracker<'_> {
    fn from_value(value: &Value, boot_id: &str) -> Option<Identity> {
        let (pid, start_time) = (to_pid(value.get("pid")?)?, value.get("start_time")?.as_u64()?);
        Some(Identity { pid, start_time, boot_id: boot_id.to_owned() })
    }
}

impl Serialize for Tracker<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("pid", &self.0.pid.as_raw())?;
        map.serialize_entry("start_time", &self.0.start_time)?;
        map.end()
    }
}

impl End {
    fn from_value(value: &Value) -> Option<Self> {
        let byte = |name| value.get(name)?.as_u64().and_then(|number| u8::try_from(number).ok());
        let number = |name| value.get(name)?.as_u64();
        // As wait(2) has it.
        let raw = match (byte("status"), byte("signal")) {
            (Some(status), None) => i32::from(status) << 8,
            (None, Some(signal @ 1..=64)) => i32::from(signal),
            _ => return None,
        };
        let core = if value.get("core_dumped")?.as_bool()? { CORE_DUMPED } else { 0 };
        Some(Self {
            ended_at_ms: number("ended_at_ms")?,
            status: ExitStatus::from_raw(raw | core),
            wall: number("wall_ms").map(Duration::from_millis)?,
            cpu: number("cpu_ms").map(Duration::from_millis)?,
            peak_memory: number("peak_memory_bytes")?,
        })
    }
}

impl Serialize for End {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("ended_at_ms", &self.ended_at_ms)?;
        map.serialize_entry("status", &self.status.code())?;
        map.serialize_entry("signal", &self.status.signal())?;
        map.serialize_entry("core_dumped", &self.status.core_dumped())?;
        map.serialize_entry("wall_ms", &in_ms(self.wall))?;
        map.serialize_entry("cpu_ms", &in_ms(self.cpu))?;
        map.serialize_entry("peak_memory_bytes", &self.peak_memory)?;
        map.end()
    }
}

impl Destination {
    /// The file, where it is one that detach has opened.
    pub fn as_path(&self) -> Option<&Path> {
        match self {
            Self::Log(path) | Self::File(path) => Some(path.as_path()),
            Self::Discarded | Self::Kept => None,
        }
    }

    fn from_value(value: &Value) -> Option<Self> {
        match value.as_str() {
            Some("discarded") => Some(Self::Discarded),
            Some("kept") => Some(Self::Kept),
            Some(_) => None,
            None => {
                let path = |kind| value.get(kind).and_then(Text::from_value);
                path("log").map(Self::Log).or_else(|| path("file").map(Self::File))
            }
        }
    }
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, path) = match self {
            Self::Log(path) => ("log", path),
            Self::File(path) => ("file", path),
            Self::Discarded => return serializer.serialize_str("discarded"),
            Self::Kept => return serializer.serialize_str("kept"),
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(kind, path)?;
        map.end()
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

    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    fn from_value(value: &Value) -> Option<Self> {
        let bytes = match value {
            Value::String(text) => text.as_bytes().to_owned(),
            Value::Array(bytes) => {
                let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
                bytes.iter().map(byte).collect::<Option<Vec<u8>>>()?
            }
            _ => return None,
        };
        // No name, argument or path of Linux holds a zero.
        (!bytes.contains(&0)).then(|| Self(OsString::from_vec(bytes)))
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => serializer.collect_seq(self.0.as_bytes()),
        }
    }
}

/// `value` as one line of JSON.
pub fn to_line(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

/// Milliseconds since 1970-01-01 00:00 UTC, or 0 before.
pub fn now_in_ms() -> u64 {
    in_ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn in_ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

fn to_pid(value: &Value) -> Option<Pid> {
    let pid = value.as_i64().and_then(|pid| i32::try_from(pid).ok());
    pid.filter(|pid| *pid > 0).map(Pid::from_raw)
}

fn read<T>(value: &Value, name: &str, parse: impl Fn(&Value) -> Option<T>) -> Result<T, String> {
    let field = value.get(name).ok_or_else(|| format!("it has no field '{name}'"))?;
    parse(field).ok_or_else(|| format!("its field '{name}' makes no sense"))
}

/// A field that may be absent or null.
fn read_option<T>(value: &Value, name: &str, parse: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, String> {
    match value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => read(value, name, parse).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: &[u8]) -> Text {
        OsStr::from_bytes(bytes).into()
    }

    fn record() -> Record {
        let identity = |number| Identity { pid: Pid::from_raw(number), start_time: 8, boot_id: "b".into() };
        Record {
            pid: Pid::from_raw(7),
            identity: Some(identity(7)),
            host: text(b"h"),
            pid_namespace: Some(4),
            started_at_ms: 9,
            name: text(b"a\xff"),
            argv: vec![text(b"a\xff"), text(b""), text("naïve \"x\"\n".as_bytes())],
            directory: None,
            stdout: Destination::Log(text(b"/a")),
            stderr: Destination::Kept,
            tracker: Some(identity(6)),
            end: Some(End {
                ended_at_ms: 10,
                status: ExitStatus::from_raw(0x8b),
                wall: Duration::from_millis(1),
                cpu: Duration::from_millis(2),
                peak_memory: 3,
            }),
        }
    }

    #[test]
    fn record_is_read_as_it_was_written() {
        let plain = Record { tracker: None, end: None, stderr: Destination::Discarded, ..record() };
        for record in [record(), plain] {
            assert_eq!(Record::from_json(to_line(&record).as_bytes()), Ok(record));
        }
    }

    #[test]
    fn text_that_is_not_utf8_becomes_its_bytes() {
        let json = |bytes: &[u8]| serde_json::to_string(&text(bytes)).unwrap_or_default();
        assert_eq!(json("naïve \"x\"\n".as_bytes()), r#""naïve \"x\"\n""#);
        assert_eq!(json(b"a\xff"), "[97,255]");
        assert_eq!(json(b""), r#""""#);
    }

    #[test]
    fn record_that_is_none_says_why() {
        let line = to_line(&record());
        for (json, reason) in [
            (String::new(), "it is cut short"),
            (line[..line.len() / 2].to_owned(), "it is cut short"),
            ("hello".to_owned(), "it is not JSON"),
            ("[1]".to_owned(), "it has no field 'version'"),
            (line.replace("\"version\":1", "\"version\":2"), "it has version 2, and only version 1 is known here"),
            (line.replace("\"pid\":7", "\"pid\":-1"), "its field 'pid' makes no sense"),
            (line.replace("\"kept\"", "\"sent\""), "its field 'stderr' makes no sense"),
            (line.replace("\"argv\":", "\"argw\":"), "it has no field 'argv'"),
            (line.replace("\"signal\":11", "\"signal\":65"), "its field 'end' makes no sense"),
            (line.replace("[97,255]", "[97,256]"), "its field 'name' makes no sense"),
            (line.replace("[97,255]", "[97,0]"), "its field 'name' makes no sense"),
        ] {
            assert_eq!(Record::from_json(json.as_bytes()), Err(reason.to_owned()), "{json}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_are_no_record(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(Record::from_json(&bytes).is_err());
        }

        /// Whatever a broken disk makes of a record, it is a record or none.
        #[test]
        fn damaged_record_does_no_harm(place: usize, byte: u8, end: usize) {
            let mut line = to_line(&record()).into_bytes();
            let length = line.len();
            line.get_mut(place % length).map(|old| *old = byte).unwrap_or_default();
            line.truncate(1 + end % length);
            let _ = Record::from_json(&line);
        }

        #[test]
        fn every_name_and_every_status_comes_back(bytes in proptest::collection::vec(1_u8.., 0..50), raw in 0..=255) {
            let mut expected = Record { name: text(&bytes), argv: vec![text(&bytes); 2], ..record() };
            if let Some(end) = &mut expected.end {
                end.status = ExitStatus::from_raw(raw << 8);
            }
            prop_assert_eq!(Record::from_json(to_line(&expected).as_bytes()), Ok(expected));
        }
    }
}
