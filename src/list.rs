//! `--list`: which jobs there are, and how they fare.
//!
//! What is known of them comes from `job` and from their records; how a table looks is in `table`, how quantities look
//! in `human`.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use nu_ansi_term::{Color, Style};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::error::{Error, escape};
use crate::human::{show_day, show_lifetime, show_size, show_time, signal_name};
use crate::job::{Job, Jobs, State};
use crate::record::{now_in_ms, to_line};
use crate::session;
use crate::table::{Cell, Column, in_columns, with_tabs};
use crate::ui::{Ui, wants_colour, write_data};

/// How many jobs that have ended are shown unless all are asked for.
const ENDED_SHOWN: usize = 10;
/// From here on it is worth a word how much room the logs of ended jobs take.
const MUCH: u64 = 100 * 1024 * 1024;
/// Of a terminal that does not tell its width.
const USUAL_WIDTH: usize = 80;

const COLUMNS: [Column; 7] = [
    Column::Number("PID"),
    Column::Text("NAME", 20),
    Column::Text("STATE", 20),
    Column::Text("STARTED", 20),
    Column::Number("TIME"),
    Column::Number("OUTPUT"),
    Column::Text("COMMAND", usize::MAX),
];

/// Prints the jobs, the newest last.
pub fn list(all: bool, json: bool, ui: &Ui) -> Result<(), Error> {
    let Some(jobs) = Jobs::find(ui)? else {
        ui.note("no job has been started yet");
        return Ok(());
    };
    let mut shown: Vec<Job> = jobs.living().collect();
    shown.extend(jobs.ended().take(if all { usize::MAX } else { ENDED_SHOWN }));
    shown.sort_by_key(|job| job.record.started_at_ms);
    if shown.is_empty() {
        ui.note("there are no jobs");
    }
    write_data(&if json { in_json(&shown) } else { for_people(&shown) }).map_err(|error| Error::stdout(&error))?;
    if !all && jobs.ended.len() > ENDED_SHOWN {
        ui.note(format!("{} more have ended: detach --list --all", jobs.ended.len() - ENDED_SHOWN));
    }
    let held = if ui.shows_notes() { size_of_ended(&jobs, &shown) } else { 0 };
    if held > MUCH {
        let held = show_size(held);
        ui.note(format!("the logs of jobs that have ended take {held}: detach --prune=7d keeps the last week"));
    }
    Ok(())
}

/// The room that all logs take, but for those of `shown` that are in use.
fn size_of_ended(jobs: &Jobs, shown: &[Job]) -> u64 {
    let in_use = shown.iter().filter(|job| job.state != State::Ended);
    let in_use: Vec<OsString> = in_use.flat_map(|job| jobs.files_of(job, |_| true)).collect();
    let ended = jobs.files.logs.iter().filter(|log| !in_use.contains(log));
    ended.filter_map(|log| jobs.directory.status(log)).map(|status| status.st_size.unsigned_abs()).sum()
}

fn in_json(jobs: &[Job]) -> String {
    jobs.iter().map(to_line).collect()
}

/// The record, with what is known now.
impl Serialize for Job {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.record.serialize_fields(&mut map)?;
        map.serialize_entry("state", state_word(self))?;
        map.serialize_entry("output_bytes", &output_size(self))?;
        map.end()
    }
}

fn for_people(jobs: &[Job]) -> String {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return with_tabs(&jobs.iter().map(|job| row(job, show_time)).collect::<Vec<_>>());
    }
    if jobs.is_empty() {
        return String::new();
    }
    let rows: Vec<_> = jobs.iter().map(|job| row(job, show_day)).collect();
    let width = session::columns(stdout.as_fd()).unwrap_or(USUAL_WIDTH);
    in_columns(&COLUMNS, &rows, width, wants_colour())
}

fn row(job: &Job, show_time: impl Fn(u64) -> String) -> Vec<Cell> {
    vec![
        job.pid().to_string().into(),
        escape(job.name().as_encoded_bytes(), "").into(),
        describe_state(job),
        show_time(job.record.started_at_ms).into(),
        lifetime(job).map_or("-".to_owned(), show_lifetime).into(),
        output_size(job).map_or("-".to_owned(), show_size).into(),
        job.command_line().into(),
    ]
}

/// How long it ran, or runs; unknown where nobody saw the end.
fn lifetime(job: &Job) -> Option<Duration> {
    match (&job.record.end, job.state) {
        (Some(end), _) => Some(end.wall),
        (None, State::Ended | State::Elsewhere) => None,
        (None, _) => Some(Duration::from_millis(now_in_ms().saturating_sub(job.record.started_at_ms))),
    }
}

/// The size of the files that its output goes to.
fn output_size(job: &Job) -> Option<u64> {
    let size = |path: Option<&Path>| Some(path?.metadata().ok()?.len());
    let [stdout, stderr] = job.record.output();
    let stdout_size = size(stdout.as_path());
    let stderr_size = if stdout == stderr { None } else { size(stderr.as_path()) };
    stdout_size.map_or(stderr_size, |size| Some(size + stderr_size.unwrap_or(0)))
}

fn state_word(job: &Job) -> &'static str {
    match (job.state, &job.record.end) {
        (State::Running, _) => "running",
        (State::Stopped, _) => "stopped",
        (State::Elsewhere, _) => "elsewhere",
        (State::Ended, None) => "ended",
        (State::Ended, Some(end)) if end.status.signal().is_some() => "killed",
        (State::Ended, Some(_)) => "exited",
    }
}

fn describe_state(job: &Job) -> Cell {
    let word = state_word(job);
    let end = job.record.end.as_ref().filter(|_| job.state == State::Ended);
    let (text, style) = match (job.state, end) {
        (State::Running, _) => (word.to_owned(), Color::Green.normal()),
        (State::Stopped, _) => (word.to_owned(), Color::Yellow.normal()),
        (State::Ended, None) | (State::Elsewhere, _) => (word.to_owned(), Style::new()),
        (State::Ended, Some(end)) => match (end.status.code(), end.status.signal()) {
            (Some(0), _) => (format!("{word} 0"), Style::new()),
            (Some(code), _) => (format!("{word} {code}"), Color::Red.normal()),
            (None, signal) => (format!("{word} by {}", signal_name(signal.unwrap_or(0))), Color::Red.normal()),
        },
    };
    Cell { text, style }
}
