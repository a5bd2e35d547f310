//! What a long journal costs: at a start, which must not read it, and in `--list`, which reads all of it.
//!
//! The jobs are copies of genuine ones, each of another process that has ended.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Result;
use crate::deletions::Deletions;
use crate::launchers::{DETACH, Kind, Launcher, words};
use crate::measure::{Row, reap_all, run_once, run_rounds, stop_if_interrupted};

/// In the journal before a start.
pub const MANY: u64 = 100_000;
/// In the journals that are listed, with the rounds: a longer list is measured less often.
const LISTED: [(u64, u32); 2] = [(10_000, 30), (100_000, 8)];
/// Each tenth job was tracked and has a log; the others discard their output.
const PLAIN_FOR_EACH_TRACKED: u64 = 9;

/// Linux gives no higher PID, so no process has one of the copies.
const MOST_PIDS: u64 = 1 << 22;

/// The start with an empty journal, and with a long one.
pub fn measure_start(few: &Path, many: &Path, rounds: u32, deletions: &mut Deletions) -> Result<Vec<Row>> {
    fill(many, MANY)?;
    let mut rows = Vec::new();
    for (name, state_home) in [("0", few), ("100,000", many)] {
        rows.push(Row::new(Launcher::detach(name, &["-o", "/dev/null"], state_home)?)?);
    }
    run_rounds(&mut rows, rounds, || deletions.refresh())?;
    Ok(rows)
}

/// `--list`, as it is and of all, with the number of jobs for each row.
pub fn measure_list(state_home: &Path, most_rounds: u32) -> Result<Vec<(u64, Row)>> {
    let mut measured = Vec::new();
    for (count, rounds) in LISTED {
        let state_home = state_home.join(count.to_string());
        fill(&state_home, count)?;
        let mut rows = Vec::new();
        for options in [&["--list"][..], &["--list", "--all"]] {
            let argv = [&[DETACH], options].concat();
            let name = format!("`detach {}`", options.join(" "));
            rows.push(Row::new(Launcher::new(&name, Kind::Detach, &words(&argv), &state_home)?)?);
        }
        run_rounds(&mut rows, rounds.min(most_rounds), || Ok(()))?;
        measured.extend(rows.into_iter().map(|row| (count, row)));
    }
    Ok(measured)
}

/// Makes a state directory with `count` jobs that have ended.
fn fill(state_home: &Path, count: u64) -> Result<()> {
    fs::create_dir_all(state_home)?;
    run_once(&mut Launcher::detach("plain", &["-o", "/dev/null"], state_home)?.command(&[])?)?;
    run_once(&mut Launcher::detach_with_log("tracked", &["-t"], state_home)?.command(&[])?)?;
    // The tracking process is an orphan too: when it has ended, the end is recorded.
    reap_all()?;
    let directory = state_home.join("detach");
    let path = find_journal(&directory)?.ok_or("there is no journal")?;
    let lines = fs::read_to_string(&path)?;
    let lines = lines.lines().filter(|line| !line.is_empty()).map(Genuine::read).collect::<Result<Vec<_>>>()?;
    let plain = lines.first().ok_or("the journal is empty")?.pid;
    let (plain, tracked): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.pid == plain);

    let mut journal = BufWriter::new(File::options().append(true).open(path)?);
    for index in 2..count {
        stop_if_interrupted()?;
        let is_tracked = index % (PLAIN_FOR_EACH_TRACKED + 1) == 0;
        let log = is_tracked.then(|| format!("true-{}.log", MOST_PIDS + index));
        if let Some(log) = &log {
            File::options().write(true).create_new(true).mode(0o600).open(directory.join(log))?;
        }
        for line in if is_tracked { &tracked } else { &plain } {
            writeln!(journal, "{}", line.make_another(index))?;
        }
    }
    Ok(journal.flush()?)
}

/// A line of a genuine journal, and what is different in its copies.
struct Genuine {
    line: String,
    pid: u64,
    start_time: u64,
    started_at_ms: u64,
}

impl Genuine {
    fn read(line: &str) -> Result<Self> {
        let event: Value = serde_json::from_str(line)?;
        let number = |place: &str| event.pointer(place).and_then(Value::as_u64).ok_or("a field is missing");
        Ok(Self {
            line: line.to_owned(),
            pid: number("/job/pid")?,
            start_time: number("/job/start_time")?,
            started_at_ms: number("/job/started_at_ms")?,
        })
    }

    /// The same line about another process, which was started earlier. All fields stay in their order.
    fn make_another(&self, index: u64) -> String {
        let Self { line, pid, start_time, started_at_ms } = self;
        let (other_pid, other_time) = (MOST_PIDS + index, start_time + index);
        line.replacen(&format!(r#""pid":{pid},"#), &format!(r#""pid":{other_pid},"#), 1)
            .replacen(&format!(r#""start_time":{start_time},"#), &format!(r#""start_time":{other_time},"#), 1)
            .replacen(&started_at_ms.to_string(), &(started_at_ms - MANY + index).to_string(), 1)
            .replacen(&format!(r#""session":{pid},"#), &format!(r#""session":{other_pid},"#), 1)
            .replacen(&format!("true-{pid}.log"), &format!("true-{other_pid}.log"), 1)
            .replacen(r#""name":"true""#, &format!(r#""name":"true-{index}""#), 1)
    }
}

/// The events in a journal, in their order.
pub fn read_events(journal: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(journal)?;
    let lines = text.lines().filter(|line| !line.is_empty());
    Ok(lines.map(serde_json::from_str).collect::<std::result::Result<_, _>>()?)
}

/// The journal in a directory: there is one, as nothing is pruned here.
pub fn find_journal(directory: &Path) -> Result<Option<PathBuf>> {
    let mut paths = names_in(directory)?.into_iter().map(|name| directory.join(name));
    Ok(paths.find(|path| path.extension().is_some_and(|ending| ending == "jsonl")))
}

pub fn names_in(directory: &Path) -> Result<Vec<OsString>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
}
