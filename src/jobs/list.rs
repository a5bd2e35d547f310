//! `--list`: the jobs and their states, as a table or as JSON.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use nu_ansi_term::{Color, Style};
use serde::Serialize;

use crate::error::Error;
use crate::jobs::record::{self, Record, to_line};
use crate::jobs::session::State;
use crate::jobs::{Job, Jobs, Known};
use crate::sys::descriptors;
use crate::term::format::{now_in_ms, show_day, show_lifetime, show_size, show_time, signal_name};
use crate::term::table::{Cell, Column, in_columns, with_tabs};
use crate::term::text::escape;
use crate::term::ui::{Ui, wants_colour, write_data};

/// How many jobs that have ended are shown unless all are asked for.
const ENDED_SHOWN: usize = 10;
/// In bytes: from here on, a note says how much space the logs of ended jobs take up.
const MUCH: u64 = 100 * 1024 * 1024;
/// Of a terminal whose width is unknown.
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

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether to list all jobs that ended, not only the last ones.
    pub all: bool,
    pub json: bool,
}

/// Prints the jobs, the newest last.
pub fn list(options: Options, ui: &Ui) -> Result<u8, Error> {
    let Some(jobs) = Jobs::find(ui)? else {
        ui.note("no job has been started yet");
        return Ok(0);
    };
    let mut ended: Vec<_> = jobs.known.iter().filter(|known| known.state == State::Ended).map(by_end).collect();
    ended.sort_unstable();
    let hidden = if options.all { 0 } else { ended.len().saturating_sub(ENDED_SHOWN) };
    let oldest_shown = ended.get(hidden).copied();
    let is_shown = |known: &&Known| known.state != State::Ended || Some(by_end(known)) >= oldest_shown;
    let shown: Vec<Job> = jobs.known.iter().filter(is_shown).filter_map(|known| jobs.load(known)).collect();
    if shown.is_empty() {
        ui.note("there are no jobs");
    }
    let text = if options.json { in_json(&shown) } else { for_people(&shown) };
    write_data(&text).map_err(|error| Error::stdout(&error))?;
    if hidden > 0 {
        let (have, them) = if hidden == 1 { ("job has", "it") } else { ("jobs have", "them") };
        ui.note(format!("{hidden} more {have} ended; 'detach --list --all' lists {them}"));
    }
    let held = if ui.shows_notes() { size_of_ended(&jobs) } else { 0 };
    if held > MUCH {
        let held = show_size(held);
        ui.note(format!(
            "logs of ended jobs take up {held}; 'detach --prune' removes jobs that ended more than 7 days ago"
        ));
    }
    Ok(0)
}

/// The order in which jobs were last heard of.
fn by_end(known: &Known) -> (usize, (usize, usize)) {
    (known.journal, known.entry.place)
}

/// The size of all logs that belong to no running job.
fn size_of_ended(jobs: &Jobs) -> u64 {
    let in_use: Vec<&str> = jobs.living().filter_map(|known| known.entry.process.log.as_deref()).collect();
    let is_unused = |log: &&OsString| log.to_str().is_none_or(|log| !in_use.contains(&log));
    let sizes = jobs.logs.iter().filter(is_unused).filter_map(|log| jobs.directory.status(log));
    sizes.map(|status| status.st_size.unsigned_abs()).sum()
}

/// A job in JSON: the record, and what is known now.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    record: &'a Record,
    state: &'static str,
    /// How many processes are left, if the first has ended.
    processes_left: Option<usize>,
    output_bytes: Option<u64>,
}

fn in_json(jobs: &[Job]) -> String {
    let line = |job: &Job| {
        let processes_left = if let State::Left(count) = job.state { Some(count) } else { None };
        let (state, output_bytes) = (state_word(job), output_size(job));
        to_line(&Listed { record: &job.record, state, processes_left, output_bytes })
    };
    jobs.iter().map(line).collect()
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
    let width = descriptors::columns(stdout.as_fd()).unwrap_or(USUAL_WIDTH);
    in_columns(&COLUMNS, &rows, width, wants_colour())
}

fn row(job: &Job, show_time: impl Fn(u64) -> String) -> Vec<Cell> {
    vec![
        job.pid().to_string().into(),
        escape(job.name().as_encoded_bytes(), "").into(),
        describe_state(job),
        show_time(job.id().started_at_ms).into(),
        lifetime(job).map_or("-".to_owned(), show_lifetime).into(),
        output_size(job).map_or("-".to_owned(), show_size).into(),
        job.command_line().into(),
    ]
}

/// How long it ran, or has been running; unknown if the end was not seen.
fn lifetime(job: &Job) -> Option<Duration> {
    match (job.state, &job.record.end) {
        (State::Running | State::Stopped | State::Left(_), _) => {
            Some(Duration::from_millis(now_in_ms().saturating_sub(job.id().started_at_ms)))
        }
        (State::Ended | State::Hidden | State::Elsewhere, end) => {
            let of_session = job.record.session_ended_at_ms;
            let of_session = of_session.map(|end| Duration::from_millis(end.saturating_sub(job.id().started_at_ms)));
            of_session.max(end.as_ref().map(record::End::wall))
        }
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
        (State::Running | State::Left(_), _) => "running",
        (State::Stopped, _) => "stopped",
        (State::Hidden, _) => "hidden",
        (State::Elsewhere, _) => "elsewhere",
        (State::Ended, None) => "ended",
        (State::Ended, Some(end)) if end.status().signal().is_some() => "killed",
        (State::Ended, Some(_)) => "exited",
    }
}

fn describe_state(job: &Job) -> Cell {
    let word = state_word(job);
    let end = job.record.end.as_ref().filter(|_| job.state == State::Ended).map(record::End::status);
    let (text, style) = match (job.state, end) {
        (State::Running, _) => (word.to_owned(), Color::Green.normal()),
        (State::Left(0), _) => ("ending".to_owned(), Color::Green.normal()),
        (State::Left(count), _) => (format!("{word} ({count} left)"), Color::Green.normal()),
        (State::Stopped, _) => (word.to_owned(), Color::Yellow.normal()),
        (State::Ended, None) | (State::Hidden | State::Elsewhere, _) => (word.to_owned(), Style::new()),
        (State::Ended, Some(end)) => match (end.code(), end.signal()) {
            (Some(0), _) => (format!("{word} 0"), Style::new()),
            (Some(code), _) => (format!("{word} {code}"), Color::Red.normal()),
            (None, signal) => (format!("{word} by {}", signal_name(signal.unwrap_or(0))), Color::Red.normal()),
        },
    };
    Cell { text, style }
}
