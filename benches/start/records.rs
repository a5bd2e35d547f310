//! What the number of records costs: at a start, which should not ask, and in `--list`, which reads them all.
//!
//! The records are copies of a genuine one, each of another process that has ended.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Result;
use crate::launchers::{DETACH, Kind, Launcher, words};
use crate::measure::{Row, reap_all, run_once, run_rounds, stop_if_interrupted};

/// Before a start.
pub const MANY: u64 = 100_000;
/// For `--list`, each with a log.
pub const LISTED: u64 = 10_000;

/// Linux gives no higher PID, so no process has one of the copies.
const MOST_PIDS: u64 = 1 << 22;

/// The start with no records, and with many.
pub fn measure_start(few: &Path, many: &Path, rounds: u32) -> Result<Vec<Row>> {
    fill(many, MANY, false)?;
    let mut rows = Vec::new();
    for (name, state_home) in [("0", few), ("100,000", many)] {
        rows.push(Row::new(Launcher::detach(name, &["-o", "/dev/null"], state_home)?)?);
    }
    run_rounds(&mut rows, rounds)?;
    Ok(rows)
}

/// `--list`, as it is and of all.
pub fn measure_list(state_home: &Path, rounds: u32) -> Result<Vec<Row>> {
    fill(state_home, LISTED, true)?;
    let mut rows = Vec::new();
    for options in [&["--list"][..], &["--list", "--all"]] {
        let argv = [&[DETACH], options].concat();
        let name = format!("`detach {}`", options.join(" "));
        rows.push(Row::new(Launcher::new(&name, Kind::Detach, &words(&argv), state_home)?)?);
    }
    run_rounds(&mut rows, rounds)?;
    Ok(rows)
}

/// Makes a state directory with `count` records of jobs that have ended, with or without logs.
fn fill(state_home: &Path, count: u64, with_logs: bool) -> Result<()> {
    let launcher = if with_logs {
        Launcher::detach_with_log("record", state_home)?
    } else {
        Launcher::detach("record", &["-o", "/dev/null"], state_home)?
    };
    run_once(&mut launcher.command(&[])?)?;
    reap_all()?;
    let directory = state_home.join("detach");
    let genuine = names_in(&directory)?.into_iter().map(PathBuf::from);
    let genuine = genuine.into_iter().find(|name| name.extension().is_some_and(|ending| ending == "json"));
    let mut record: Value = serde_json::from_slice(&fs::read(directory.join(genuine.ok_or("there is no record")?))?)?;
    let number = |field: &str| record.get(field).and_then(Value::as_u64).ok_or("a field is missing");
    let (start_time, started_at_ms) = (number("start_time")?, number("started_at_ms")?);
    let boot_id = record.get("boot_id").and_then(Value::as_str).ok_or("there is no boot ID")?.to_owned();
    for index in 1..count {
        stop_if_interrupted()?;
        let (pid, start_time) = (MOST_PIDS + index, start_time + index);
        let log = directory.join(format!("true-{pid}.log"));
        set(&mut record, "pid", json!(pid));
        set(&mut record, "start_time", json!(start_time));
        set(&mut record, "started_at_ms", json!(started_at_ms - count + index));
        if with_logs {
            create(&log)?;
            set(&mut record, "stdout", json!({ "log": log }));
            set(&mut record, "stderr", json!({ "log": log }));
        }
        writeln!(create(&directory.join(format!("{pid}-{start_time}-{boot_id}.json")))?, "{record}")?;
    }
    Ok(())
}

fn set(record: &mut Value, field: &str, value: Value) {
    if let Some(field) = record.get_mut(field) {
        *field = value;
    }
}

fn create(path: &Path) -> Result<File> {
    Ok(File::options().write(true).create_new(true).mode(0o600).open(path)?)
}

pub fn names_in(directory: &Path) -> Result<Vec<OsString>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
}
