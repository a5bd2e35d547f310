//! Journals, damaged ones included, and what is read from them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::unistd::Pid;
use proptest::prelude::*;

use super::*;
use crate::jobs::record::{ProcessId, Stream, Text};

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
    let tracker = Some(ProcessId { pid: Pid::from_raw(6), start_time: 7 });
    let process = Process { session: Pid::from_raw(pid), log: Some("宽-7.log"), tracker };
    let mut head = line_of(pid, Event::Process(&process));
    head.pop();
    [head, StartDraft::new(&start()).tail].concat()
}

fn line_of(pid: i32, event: Event) -> Vec<u8> {
    Written::new(id(pid), event).to_fixed_text().unwrap_or_else(|_| unreachable!()).as_bytes().to_owned()
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
    let tracker = Some(ProcessId { pid: Pid::from_raw(6), start_time: 7 });
    assert_eq!(entry.process, Process { session: Pid::from_raw(7), log: Some("宽-7.log".into()), tracker });
    assert_eq!(contents.parse_start::<Start>(entry), Ok(start()));
}

#[test]
fn events_are_taken_in_any_order_and_number() {
    let end = r#"
{"version":1,"job":{"pid":7,"start_time":8,"pid_namespace":4,"started_at_ms":9},"end":{"ended_at_ms":1,"status":3,"signal":null,"core_dumped":false,"wall_ms":1,"cpu_ms":1,"peak_memory_bytes":1}}"#;
    let withdrawal = |pid: i32| line_of(pid, Event::Withdrawn(true));
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
        (text.replace("\"version\":1", "\"version\":2").into(), "it has version 2, but only version 1 is supported"),
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
