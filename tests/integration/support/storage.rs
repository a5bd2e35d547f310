//! Records as they are stored: the events of all jobs of a boot, one line of JSON each, in `BOOT_ID.jsonl`.
//!
//! Everything in the tests that depends on the form of storage is here: damaged records, records from other machines
//! and boots, old files. All other tests ask `Sandbox::records`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::process::Process;
use super::sandbox::Sandbox;

/// A boot id that no machine has.
pub const OTHER_BOOT: &str = "0b1c2d3e-0000-0000-0000-000000000000";

/// The system calls that record a start, for strace. In a start, only the process of the command makes them.
pub const CALLS_THAT_RECORD: &str = "writev";

/// A system call that is made when the start is recorded and does not count yet, for strace. In a start, only the
/// process of the command makes it.
pub const CALL_WHILE_RECORDING: &str = "rt_sigpending";

/// The system call with which `--prune` moves the journal aside, for strace.
#[allow(dead_code)]
pub const CALLS_THAT_MOVE_THE_JOURNAL: &str = "renameat,renameat2";

pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned()
}

/// The journal of a boot.
pub fn journal_of(sandbox: &Sandbox, boot: &str) -> PathBuf {
    sandbox.state().join(format!("{boot}.jsonl"))
}

/// The journal of this boot.
pub fn journal(sandbox: &Sandbox) -> PathBuf {
    journal_of(sandbox, &boot_id())
}

#[allow(dead_code)]
/// The journal of this boot, as long as a prune works on it, or after one has been killed.
pub fn old_journal(sandbox: &Sandbox) -> PathBuf {
    sandbox.state().join(format!("{}.old.jsonl", boot_id()))
}

/// The names of the files with records.
pub fn record_files(sandbox: &Sandbox) -> Vec<String> {
    sandbox.files(".jsonl")
}

/// The name of the file with the record of `job`, which is there once.
#[track_caller]
pub fn record_file_of(job: &Process) -> String {
    assert!(job.stat(22).is_some(), "{job:?} has ended");
    format!("{}.jsonl", boot_id())
}

/// The events in the journal of this boot, in their order.
#[track_caller]
pub fn events(sandbox: &Sandbox) -> Vec<Value> {
    events_in(&journal(sandbox))
}

#[track_caller]
fn events_in(journal: &Path) -> Vec<Value> {
    let text = fs::read_to_string(journal).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The only event that says what was started.
#[track_caller]
fn only_start(sandbox: &Sandbox) -> Value {
    let mut starts: Vec<Value> = events(sandbox).into_iter().filter(|event| !event["start"].is_null()).collect();
    assert_eq!(starts.len(), 1, "{starts:?}");
    starts.remove(0)
}

/// The line of the only start, without its newlines.
#[track_caller]
pub fn only_line(sandbox: &Sandbox) -> String {
    only_start(sandbox).to_string()
}

/// Appends bytes to the journal of this boot, as they are.
#[track_caller]
pub fn append(sandbox: &Sandbox, bytes: impl AsRef<[u8]>) {
    let mut file = fs::File::options().append(true).open(journal(sandbox)).unwrap();
    file.write_all(bytes.as_ref()).unwrap();
}

/// Appends an event to the journal of this boot.
fn append_event(sandbox: &Sandbox, event: &Value) {
    append(sandbox, format!("\n{event}\n"));
}

/// Changes every event in the journal of this boot.
fn change(sandbox: &Sandbox, change: impl Fn(&mut Value)) {
    let mut events = events(sandbox);
    events.iter_mut().for_each(change);
    fs::write(journal(sandbox), events.iter().map(|event| format!("\n{event}\n")).collect::<Vec<_>>().concat())
        .unwrap();
}

/// Asserts that a failed start has left nothing in the state directory but a journal that holds no job.
#[track_caller]
pub fn assert_no_record_left(sandbox: &Sandbox) {
    let journal = format!("{}.jsonl", boot_id());
    let (journals, others): (Vec<String>, Vec<String>) = sandbox.files("").into_iter().partition(|it| *it == journal);
    assert_eq!(others, [""; 0], "files are left");
    assert!(journals.is_empty() || sandbox.records().is_empty(), "records are left: {:?}", sandbox.records());
}

/// Adds `count` records like the only one, of processes with other start times.
pub fn add_copies(sandbox: &Sandbox, count: usize) {
    let mut copy = only_start(sandbox);
    let start_time = copy["job"]["start_time"].as_u64().unwrap();
    let copies = (1..=count as u64).map(|number| {
        copy["job"]["start_time"] = json!(start_time + number);
        format!("\n{copy}\n")
    });
    append(sandbox, copies.collect::<String>());
}

/// Adds a record of a process that had the same PID as the only job before, and whose log has the same name.
pub fn add_older_record(sandbox: &Sandbox) {
    let mut older = only_start(sandbox);
    older["job"]["start_time"] = json!(1);
    append_event(sandbox, &older);
}

/// Makes the only record one of another boot of this machine.
pub fn move_to_other_boot(sandbox: &Sandbox) {
    only_start(sandbox);
    fs::rename(journal(sandbox), journal_of(sandbox, OTHER_BOOT)).unwrap();
}

/// Makes the only record one of another machine.
pub fn move_to_other_machine(sandbox: &Sandbox) {
    only_start(sandbox);
    change(sandbox, |event| event["start"]["host"] = json!("elsewhere"));
    move_to_other_boot(sandbox);
}

/// Makes the only record one of another PID namespace.
pub fn move_to_other_pid_namespace(sandbox: &Sandbox) {
    only_start(sandbox);
    change(sandbox, |event| event["job"]["pid_namespace"] = json!(1));
}

/// Makes the processes of all jobs that detach has let go of others with the same PIDs.
pub fn change_start_times(sandbox: &Sandbox) {
    let make_earlier = |time: &mut Value| *time = json!(time.as_u64().unwrap() - 1);
    change(sandbox, |event| {
        make_earlier(&mut event["job"]["start_time"]);
        let members = event.pointer_mut("/rescue/members").and_then(Value::as_array_mut);
        members.into_iter().flatten().for_each(|member| make_earlier(&mut member["start_time"]));
    });
}

/// Makes the only record one of a version that detach does not know.
pub fn set_unknown_version(sandbox: &Sandbox) {
    only_start(sandbox);
    change(sandbox, |event| event["version"] = json!(9));
}

/// Gives another state directory the records of this one, but not the logs.
pub fn copy_records(sandbox: &Sandbox, state: &Path) {
    for name in record_files(sandbox) {
        fs::copy(sandbox.state().join(&name), state.join(name)).unwrap();
    }
}

/// Makes the jobs look as if everything that is recorded of them had happened so much earlier.
pub fn make_older(sandbox: &Sandbox, age: Duration) {
    let age = u64::try_from(age.as_millis()).unwrap();
    change(sandbox, |event| {
        let id = &mut event["job"]["started_at_ms"];
        *id = json!(id.as_u64().unwrap() - age);
        for time in ["/end/ended_at_ms", "/session_ended_at_ms"] {
            if let Some(time) = event.pointer_mut(time) {
                *time = json!(time.as_u64().unwrap() - age);
            }
        }
    });
}

/// Makes the end of a job look as if it had been so much later.
pub fn make_end_later(sandbox: &Sandbox, name: &str, time: Duration) {
    let start = events(sandbox).into_iter().find(|event| event["start"]["name"] == name).unwrap();
    change(sandbox, |event| {
        if event["job"] == start["job"]
            && let Some(end) = event.pointer_mut("/end/ended_at_ms")
        {
            *end = json!(end.as_u64().unwrap() + u64::try_from(time.as_millis()).unwrap());
        }
    });
}

/// Makes a file look as if it had been written this long ago.
pub fn set_age(path: &Path, age: &str) {
    let status = Command::new("touch").args(["-d", &format!("{age} ago")]).arg(path).status();
    assert!(status.unwrap().success());
}
