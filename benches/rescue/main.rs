//! The benchmark of `--pid`: how long a running job stands still, beside gdb and reptyr.
//!
//! A program that looks at the clock all the time (gap.c) notes the longest time in which it did not run: alone, and as
//! a job of nine processes. Its terminal is a pseudo-terminal of a bash. The control is a round in which nothing is
//! done.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pty_process::blocking as pty;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ROUNDS: usize = 31;
const PAUSE: Duration = Duration::from_millis(2);
const LIMIT: Duration = Duration::from_secs(30);
const DETACH: &str = env!("CARGO_BIN_EXE_detach");
/// For each process, a count and a gap.
const BYTES_OF_PROCESS: usize = 16;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What lets go of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Nothing,
    Detach,
    Gdb,
    Reptyr,
}

fn run() -> Result<()> {
    let directory = tempfile::Builder::new().prefix("rescue-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let place = directory.path();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/rescue/gap.c");
    let status = Command::new("cc").args(["-O2", "-o"]).arg(place.join("gap")).arg(source).status()?;
    if !status.success() {
        return Err("cc cannot compile benches/rescue/gap.c".into());
    }
    println!("# How long a job stands still while it is let go of, in ms\n");
    println!("| | processes | median | lowest | highest | rounds |\n|---|--:|--:|--:|--:|--:|");
    for (tool, name, processes, rounds) in [
        (Tool::Nothing, "nothing", 1, ROUNDS),
        (Tool::Detach, "detach --pid", 1, ROUNDS),
        (Tool::Gdb, "gdb -batch", 1, ROUNDS / 4),
        (Tool::Reptyr, "reptyr", 1, ROUNDS / 4),
        (Tool::Nothing, "nothing", 9, ROUNDS),
        (Tool::Detach, "detach --pid", 9, ROUNDS),
        (Tool::Gdb, "gdb -batch, one by one", 9, ROUNDS / 8),
    ] {
        let gaps = (0..rounds).map(|_| measure(tool, processes, place)).collect::<Result<Vec<Duration>>>();
        match gaps {
            Ok(mut gaps) => {
                gaps.sort_unstable();
                let ms = |place: usize| gaps.get(place).map_or(0.0, Duration::as_secs_f64) * 1e3;
                let (median, lowest, highest) = (ms(rounds / 2), ms(0), ms(rounds - 1));
                println!("| {name} | {processes} | {median:.1} | {lowest:.1} | {highest:.1} | {rounds} |");
            }
            Err(reason) => println!("skipped: {name}: {reason}"),
        }
    }
    println!("\nreptyr refuses a process with children.");
    Ok(())
}

/// Lets go of a new job, and returns the longest gap.
fn measure(tool: Tool, processes: usize, place: &Path) -> Result<Duration> {
    let job = Job::start(processes, place)?;
    let mut started = None;
    match tool {
        Tool::Nothing => sleep(PAUSE * 10),
        Tool::Detach => {
            let mut command = Command::new(DETACH);
            command.args(["--pid", &job.first.to_string()]).env("XDG_STATE_HOME", place);
            finish(&mut command)?;
        }
        Tool::Gdb => {
            for pid in job.pids() {
                finish(&mut gdb(pid, place))?;
            }
        }
        Tool::Reptyr => {
            let (master, slave) = pty::open()?;
            let child = pty::Command::new("reptyr").arg(job.first.to_string()).spawn(slave)?;
            // It has done so when the program has the other terminal.
            let before = fs::read_link(format!("/proc/{}/fd/1", job.first))?;
            wait_until(|| fs::read_link(format!("/proc/{}/fd/1", job.first)).is_ok_and(|now| now != before))?;
            started = Some((master, child));
        }
    }
    // Every process has run since.
    let looks = job.looks()?;
    wait_until(|| job.looks().is_ok_and(|now| now.iter().zip(&looks).all(|(now, then)| *now > then + 20)))?;
    let longest = job.longest_gap()?;
    if let Some((_master, mut child)) = started {
        child.kill()?;
        child.wait()?;
    }
    Ok(longest)
}

/// The usual recipe: libc functions of the program are called.
fn gdb(pid: i32, place: &Path) -> Command {
    let mut command = Command::new("gdb");
    command.args(["-nx", "-batch", "-p", &pid.to_string()]);
    let log = place.join("gdb.log");
    for call in [
        format!("call (int)open(\"{}\", 02101, 0600)", log.display()),
        "call (int)dup2($1, 1)".into(),
        "call (int)dup2($1, 2)".into(),
        "call (int)close($1)".into(),
        "call (long)signal(1, 1)".into(),
    ] {
        command.args(["-ex", &call]);
    }
    command
}

fn finish(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let program = command.get_program().display();
    Err(format!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into())
}

/// The program, in the background of a terminal of its own.
struct Job {
    shell: Child,
    _master: pty::Pty,
    board: PathBuf,
    first: i32,
    children: Vec<i32>,
}

impl Job {
    fn start(processes: usize, place: &Path) -> Result<Self> {
        let (board, pid_file) = (place.join("board"), place.join("pid"));
        for file in [&board, &pid_file] {
            let _ = fs::remove_file(file);
        }
        let (master, slave) = pty::open()?;
        // Not wait: it returns when the job is stopped, and the shell would exit and take the job along.
        let line = format!("set -m; ./gap board {processes} & echo $! > pid; exec sleep 600");
        let shell = pty::Command::new("bash").args(["-c", &line]).current_dir(place).spawn(slave)?;
        let runs = || read_board(&board, processes, 0).is_ok_and(|looks| looks.iter().all(|count| *count > 150));
        wait_until(runs)?;
        let first: i32 = fs::read_to_string(pid_file)?.trim().parse()?;
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children"))?;
        let children = children.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
        Ok(Self { shell, _master: master, board, first, children })
    }

    fn pids(&self) -> impl Iterator<Item = i32> {
        std::iter::once(self.first).chain(self.children.iter().copied())
    }

    fn looks(&self) -> Result<Vec<u64>> {
        read_board(&self.board, 1 + self.children.len(), 0)
    }

    fn longest_gap(&self) -> Result<Duration> {
        let gaps = read_board(&self.board, 1 + self.children.len(), 1)?;
        Ok(Duration::from_nanos(gaps.into_iter().max().unwrap_or(0)))
    }
}

/// One number for each process: its count or its gap.
fn read_board(board: &Path, processes: usize, field: usize) -> Result<Vec<u64>> {
    let bytes = fs::read(board)?;
    let number = |process: usize| {
        let begin = process * BYTES_OF_PROCESS + field * 8;
        Some(u64::from_ne_bytes(bytes.get(begin..begin + 8)?.try_into().ok()?))
    };
    (0..processes).map(|process| number(process).ok_or("the board is too short".into())).collect()
}

fn wait_until(condition: impl Fn() -> bool) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !condition() {
        if Instant::now() > end {
            return Err("did not happen in time".into());
        }
        sleep(PAUSE);
    }
    Ok(())
}

impl Drop for Job {
    fn drop(&mut self) {
        for pid in self.pids() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
