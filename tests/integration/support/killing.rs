//! Starts whose first process is killed at some moment: what is seen of them must agree, whether the command runs or not.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::ops::Range;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::wait::{LIMIT, eventually};
use super::{DETACH, Process, Run, Sandbox, TRACKER};

pub const MODES: [&[&str]; 4] = [&[], &["--full"], &["-t"], &["-t", "--full"]];

/// What became of the starts.
#[derive(Default)]
pub struct Tally {
    pub started: usize,
    pub refused: usize,
    pub shortfalls: Vec<String>,
}

/// Whether the kernel lists the children of a process (`CONFIG_PROC_CHILDREN`), without which no first one can be found.
pub fn are_children_listed() -> bool {
    fs::read(children_file(std::process::id())).is_ok()
}

fn children_file(pid: u32) -> String {
    format!("/proc/{pid}/task/{pid}/children")
}

/// Makes the starts with these numbers in this mode, and kills the first process of each up to 0.7 ms after it was made.
pub fn kill_first_processes(mode: &[&str], numbers: Range<u64>) -> Tally {
    let sandbox = Sandbox::new();
    let mut tally = Tally::default();
    let mut started = BTreeSet::new();
    for number in numbers {
        sandbox.remove("pid");
        let mut command = sandbox.command(DETACH);
        command.args(mode).args(["-P", "--pidfile", "pid"]);
        if number % 2 == 0 {
            command.args(["-o", "out"]);
        }
        let launcher = command.args(["sleep", "600"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut launcher = launcher.spawn().unwrap();
        let moment = Duration::from_micros(number * 337 % 700);
        kill_first_child(&mut launcher, moment);
        let what = format!("{mode:?} after {moment:?}");
        if !ends(&mut launcher) {
            tally.shortfalls.push(format!("{what}: the launcher hangs"));
            launcher.kill().unwrap();
        }
        let run = Run::from(launcher.wait_with_output().unwrap());
        let refusal = "detach: cannot start 'sleep': its process was killed before it ran the command\n";
        let has_pidfile = sandbox.work("pid").exists();
        match (run.status, run.stdout.as_str(), run.stderr.as_str()) {
            (0, pid, "") if has_pidfile => drop(started.insert(pid.trim().to_owned())),
            (125, "", stderr) if stderr == refusal && !has_pidfile => tally.refused += 1,
            _ => tally.shortfalls.push(format!("{what}: {run:?}, pidfile: {has_pidfile}")),
        }
    }
    tally.started = started.len();
    // Whether the command of a start runs is known when every process has reached its last exec.
    let is_settled = |process: &Process| process.runs("sleep") || process.runs(TRACKER);
    eventually(|| sandbox.processes().iter().all(is_settled));
    let list = sandbox.detach(["--list", "--all", "--json"]).exits(0);
    // A process that is killed in the middle of its write leaves a line that is cut short: no start, and a warning.
    let others = list.stderr.lines().filter(|line| !line.ends_with(".jsonl': it is cut short"));
    tally.compare("warnings", &others.collect::<Vec<_>>(), &Vec::new());
    let records: Vec<Value> = list.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let recorded: BTreeSet<String> = records.iter().map(|record| record["pid"].to_string()).collect();
    let running = records.iter().filter(|record| record["state"] == "running").map(|record| record["pid"].to_string());
    let living = sandbox.processes().into_iter().filter(|process| process.runs("sleep"));
    let state = sandbox.state().display().to_string();
    let logs = records.iter().filter_map(|record| record["stdout"]["log"].as_str().map(str::to_owned));
    tally.compare("recorded", &records.len(), &recorded.len());
    tally.compare("recorded", &recorded, &started);
    let living: BTreeSet<String> = living.map(|process| process.pid.to_string()).collect();
    tally.compare("running", &running.collect(), &living);
    let kept = sandbox.logs().into_iter().map(|log| format!("{state}/{log}"));
    tally.compare("logs", &logs.collect::<BTreeSet<_>>(), &kept.collect());
    tally
}

impl Tally {
    fn compare<T: PartialEq + Debug>(&mut self, what: &str, one: &T, other: &T) {
        if one != other {
            self.shortfalls.push(format!("{what}: {one:?} and {other:?}"));
        }
    }
}

/// Whether a program ends in time.
fn ends(child: &mut Child) -> bool {
    let limit = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    true
}

/// Kills the first child of `launcher` so long after it was made.
fn kill_first_child(launcher: &mut Child, moment: Duration) {
    let file = children_file(launcher.id());
    let child: i32 = loop {
        let children = fs::read_to_string(&file).unwrap_or_default();
        if let Some(child) = children.split_whitespace().next() {
            break child.parse().unwrap();
        }
        if launcher.try_wait().unwrap().is_some() {
            return;
        }
    };
    let end = Instant::now() + moment;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    // It may have ended.
    let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
}
