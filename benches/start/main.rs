//! The benchmark of the start: what a launcher costs, against its peers and against the least that is possible.
//!
//! It asserts nothing and prints everything, as Markdown; CONTRIBUTING.md says how to read it. This file has the order
//! of the parts and the tables. `launchers` knows the programs, `measure` how they are measured, `deletions` where;
//! `throughput`, `journal` and `remains` are the other parts; `chart` draws.

mod chart;
mod deletions;
mod journal;
mod launchers;
mod measure;
mod remains;
mod throughput;

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit};
use tempfile::TempDir;

use chart::Bar;
use deletions::Deletions;
use launchers::{DETACH, Kind, Launcher, TRUE};
use measure::Row;
use remains::Remains;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Enough for a stable median; use at least 200 for numbers that are published.
const ROUNDS: u32 = 300;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let rounds = parse_rounds()?;
    let scratch = Scratch::make()?;
    let directory = scratch.directory.path();
    let state_home = scratch.fresh("state");
    let floor = compile_floor(directory)?;
    // Started before this process becomes the subreaper, so that it never waits for them.
    launchers::start_servers(&state_home)?;
    prctl::set_child_subreaper(true)?;

    let machine = Machine::look(directory)?;
    machine.print(rounds);
    let mut deletions = Deletions::new(directory, &state_home.join("detach"))?;
    let bars = print_launchers(&floor, &state_home, directory, rounds, &mut deletions)?;
    deletions.print_effect()?;
    print_throughput(&floor, &state_home, &mut deletions)?;
    if let Err(reason) = print_journal(&scratch, rounds, &mut deletions) {
        println!("skipped: {reason}");
    }
    print_remains(&scratch)?;

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/start.svg");
    let place = "in a directory where files were just deleted";
    let subtitle = format!("{place} · {} · {}", machine.date, machine.class());
    chart::draw(&path, bars, "Starting /bin/true, until the prompt is back", &subtitle)?;
    println!("\nThe chart is in benches/start.svg, which each run overwrites.");
    Ok(())
}

/// `--rounds N`; cargo adds `--bench`.
fn parse_rounds() -> Result<u32> {
    let mut rounds = ROUNDS;
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => (),
            "--rounds" => {
                let number = words.next().and_then(|number| number.parse().ok()).filter(|number| *number > 0);
                rounds = number.ok_or("--rounds wants a number")?;
            }
            _ => return Err(format!("unknown option '{word}'; there is --rounds N").into()),
        }
    }
    Ok(rounds)
}

/// An ordinary directory on the disk of the build, in which everything happens: the programs, the state directories and
/// the output are in it. It goes away with all that was started.
struct Scratch {
    directory: TempDir,
}

impl Scratch {
    fn make() -> Result<Self> {
        measure::note_interrupts()?;
        let directory = tempfile::Builder::new().prefix("start-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        env::set_current_dir(directory.path())?;
        Ok(Self { directory })
    }

    /// A place for a state directory of its own.
    fn fresh(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        launchers::end_servers(self.directory.path());
        remains::end_descendants();
    }
}

fn compile_floor(directory: &Path) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/floor.c");
    let floor = directory.join("floor");
    let status = Command::new("cc").args(["-O2", "-static", "-o"]).args([&floor, &source]).status();
    match status {
        Ok(status) if status.success() => Ok(floor),
        Ok(_) => Err("cc cannot compile benches/floor.c".into()),
        Err(error) => Err(format!("cannot run cc: {error}").into()),
    }
}

/// What the numbers depend on.
struct Machine {
    date: String,
    processor: String,
    processors: usize,
    kernel: String,
    file_system: String,
}

impl Machine {
    fn look(directory: &Path) -> Result<Self> {
        let processor = fs::read_to_string("/proc/cpuinfo")?;
        let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let file_system = last_line_of(Command::new("df").arg("--output=fstype").arg(directory))?;
        Ok(Self {
            date: last_line_of(Command::new("date").arg("+%F"))?,
            processor: processor.map_or("an unnamed processor", |(_, name)| name.trim()).to_owned(),
            processors: thread::available_parallelism()?.get(),
            // Without what a distribution adds.
            kernel: kernel.trim().split('-').next().unwrap_or_default().to_owned(),
            file_system,
        })
    }

    fn class(&self) -> String {
        format!("{} × {} · Linux {} · {}", self.processors, self.processor, self.kernel, self.file_system)
    }

    fn print(&self, rounds: u32) {
        println!("# The start of a job\n");
        println!("{}, {}.", self.date, self.class());
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(limit, _)| limit);
        println!("{rounds} rounds. Limit of descriptors: {limit} (some peers close every one).");
    }
}

fn last_line_of(command: &mut Command) -> Result<String> {
    let output = String::from_utf8(command.output()?.stdout)?;
    Ok(output.lines().last().unwrap_or_default().to_owned())
}

fn print_launchers(
    floor: &Path,
    state_home: &Path,
    directory: &Path,
    rounds: u32,
    deletions: &mut Deletions,
) -> Result<Vec<Bar>> {
    let (launchers, mut skipped) = launchers::all(floor, state_home, directory)?;
    let mut rows = launchers.into_iter().map(Row::new).collect::<Result<Vec<_>>>()?;
    measure::run_rounds(&mut rows, rounds, || deletions.refresh())?;
    let (rows, failed): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.failure.is_none());
    skipped.extend(failed.into_iter().filter_map(|row| row.failure));
    let find = |kind| rows.iter().find(|row: &&Row| row.launcher.kind == kind).ok_or("the floor does not run");
    let (floor, floor_with_file) = (find(Kind::Floor)?, find(Kind::FloorWithFile)?);
    let job = Launcher::new("true", Kind::Peer, &launchers::words(&[TRUE]), state_home)?;
    let calls_of_job = measure::count_system_calls(&job, directory);

    println!("\n## Launchers\n");
    println!(
        "Ratios are to the floor; those to the floor with a file are in parentheses. Faults: minor page faults.\n"
    );
    println!(
        "| | median µs | ratio | lowest µs | ratio | user+sys µs | faults | peak KB | system calls | instructions |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut bars = Vec::new();
    for row in &rows {
        let launcher = &row.launcher;
        let ratio = row.median().div_duration_f64(floor.median());
        let mut to_floor_with_file = [None, None];
        if launcher.creates_file() {
            to_floor_with_file = [
                Some(row.median().div_duration_f64(floor_with_file.median())),
                Some(row.lowest().div_duration_f64(floor_with_file.lowest())),
            ];
        }
        let [of_medians, of_lowest] = to_floor_with_file.map(|ratio| ratio.map(|ratio| format!(" ({ratio:.2})")));
        let mut show = |what: &str, number: Result<u64>| match number {
            Ok(number) => number.to_string(),
            Err(reason) => {
                let reason = format!("{what}: {reason}");
                if !skipped.contains(&reason) {
                    skipped.push(reason);
                }
                "-".to_owned()
            }
        };
        let peak = show("peak memory", measure::peak_memory(launcher));
        let calls = show("system calls", measure::count_system_calls(launcher, directory));
        let instructions = match launcher.kind {
            Kind::Peer => String::new(),
            _ => show("instructions", measure::count_instructions(launcher, directory)),
        };
        println!(
            "| {} | {} | {ratio:.2}{} | {} | {:.2}{} | {} | {} | {peak} | {calls} | {instructions} |",
            launcher.name,
            row.median().as_micros(),
            of_medians.unwrap_or_default(),
            row.lowest().as_micros(),
            row.lowest().div_duration_f64(floor.lowest()),
            of_lowest.unwrap_or_default(),
            row.processor().as_micros(),
            row.faults(),
        );
        let [to_floor_with_file, _] = to_floor_with_file;
        bars.push(Bar { name: launcher.name.clone(), kind: launcher.kind, ratio, to_floor_with_file });
    }
    println!();
    if let Ok(calls) = calls_of_job {
        println!("The system calls include those of /bin/true, which are {calls}.");
    }
    for reason in skipped {
        println!("skipped: {reason}");
    }
    Ok(bars)
}

fn print_throughput(floor: &Path, state_home: &Path, deletions: &mut Deletions) -> Result<()> {
    let make = || {
        let mut launchers = vec![Launcher::floor(floor, state_home)?, Launcher::floor_with_file(floor, state_home)?];
        launchers.extend(Launcher::setsid(state_home));
        launchers.push(Launcher::detach("detach, discarded", &[], state_home)?);
        launchers.push(Launcher::detach_with_log("detach, new log", &[], state_home)?);
        Ok(launchers)
    };
    let rates = throughput::measure(make, deletions)?;
    println!("\n## Starts per second\n\n| | one caller | two at once |\n|---|--:|--:|");
    for (name, columns) in rates {
        let columns: Vec<String> = columns.iter().map(u32::to_string).collect();
        println!("| {name} | {} |", columns.join(" | "));
    }
    Ok(())
}

fn print_journal(scratch: &Scratch, rounds: u32, deletions: &mut Deletions) -> Result<()> {
    println!("\n## A long journal\n");
    println!("| jobs in the journal before `detach -o /dev/null true` | median µs | lowest µs |\n|---|--:|--:|");
    for row in journal::measure_start(&scratch.fresh("few"), &scratch.fresh("many"), rounds, deletions)? {
        println!("| {} | {} | {} |", row.launcher.name, row.median().as_micros(), row.lowest().as_micros());
    }
    println!("\n| | ended jobs in the journal | median ms | lowest ms |\n|---|--:|--:|--:|");
    let in_ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    for (count, row) in journal::measure_list(&scratch.fresh("listed"), rounds)? {
        println!("| {} | {count} | {:.1} | {:.1} |", row.launcher.name, in_ms(row.median()), in_ms(row.lowest()));
    }
    Ok(())
}

fn print_remains(scratch: &Scratch) -> Result<()> {
    println!("\n## What stays\n");
    println!("The program file has {} bytes.", fs::metadata(DETACH)?.len());
    println!(
        "A tracking process (-t) has {} KB of its own (Private_Dirty).\n",
        remains::memory_of_tracker(&scratch.fresh("tracker"))?
    );
    println!("| | processes | orphans reaped | descriptors from 3 on | journal lines | logs | other files |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let print = |what: &str, remains: &Remains| {
        let Remains { processes, orphans, descriptors, lines, logs, others } = remains;
        println!("| {what} | {processes} | {orphans} | {descriptors} | {lines} | {logs} | {others} |");
    };
    let should_be = "should be";
    print(
        &format!("{} × `true` in a row, discarded", remains::IN_A_ROW),
        &remains::start_in_a_row(&scratch.fresh("in-a-row"))?,
    );
    print(should_be, &remains::WANTED_IN_A_ROW);
    print(
        &format!("{} × `sleep` at once, with a log", remains::AT_ONCE),
        &remains::start_at_once(&scratch.fresh("at-once"))?,
    );
    print(should_be, &remains::WANTED_AT_ONCE);
    Ok(())
}
