//! How a launcher is measured: time and page faults round by round, in turn with all others; memory, system calls and
//! instructions once, by the tools that count them.
//!
//! This process is the subreaper of all that it starts. After each start it waits until the job has ended, so that no
//! start pays for the one before.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::TimeVal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Result;
use crate::launchers::{Launcher, find_program, words};

/// Rounds that are not counted, at most: they bring programs and directories into memory.
const WARM_UP: u32 = 20;

/// How long an orphan may take to end.
pub const LIMIT: Duration = Duration::from_secs(10);

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// A launcher, what it has cost so far, and what went wrong.
pub struct Row {
    pub launcher: Launcher,
    command: Command,
    walls: Vec<Duration>,
    processor: Duration,
    faults: Vec<u64>,
    pub failure: Option<String>,
}

/// What one start cost.
pub struct Cost {
    pub wall: Duration,
    /// User and system time of the launcher and of what it has waited for.
    pub processor: Duration,
    /// Minor page faults of the same processes.
    pub faults: u64,
}

impl Row {
    pub fn new(launcher: Launcher) -> Result<Self> {
        let command = launcher.command(&[])?;
        Ok(Self { launcher, command, walls: Vec::new(), processor: Duration::ZERO, faults: Vec::new(), failure: None })
    }

    pub fn median(&self) -> Duration {
        median(&self.walls)
    }

    pub fn lowest(&self) -> Duration {
        self.walls.iter().copied().min().unwrap_or_default()
    }

    /// User and system time of the launcher and of what it has waited for: the mean of all starts.
    pub fn processor(&self) -> Duration {
        self.processor.checked_div(u32::try_from(self.walls.len()).unwrap_or(u32::MAX)).unwrap_or_default()
    }

    /// Minor page faults of the launcher and of what it has waited for: the median.
    pub fn faults(&self) -> u64 {
        median(&self.faults)
    }
}

/// Runs all rows once a round, each round in another order. `before_round` is not measured.
pub fn run_rounds(rows: &mut [Row], rounds: u32, mut before_round: impl FnMut() -> Result<()>) -> Result<()> {
    let mut shuffle = Shuffle::new();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let warm_up = WARM_UP.min(rounds / 4 + 1);
    for round in 0..warm_up + rounds {
        before_round()?;
        shuffle.shuffle(&mut order);
        for index in &order {
            let Some(row) = rows.get_mut(*index).filter(|row| row.failure.is_none()) else { continue };
            match run_once(&mut row.command) {
                Ok(cost) if round >= warm_up => {
                    row.walls.push(cost.wall);
                    row.processor += cost.processor;
                    row.faults.push(cost.faults);
                }
                Ok(_) => (),
                Err(failure) => row.failure = Some(format!("{}: {failure}", row.launcher.name)),
            }
            row.launcher.drain()?;
            sleep(row.launcher.rest);
            reap_all()?;
        }
    }
    Ok(())
}

/// One start, until the launcher has been waited for.
pub fn run_once(command: &mut Command) -> Result<Cost> {
    let (processor, faults) = usage_of_children()?;
    let begin = Instant::now();
    let mut launcher = command.spawn()?;
    let status = launcher.wait()?;
    let wall = begin.elapsed();
    if !status.success() {
        return Err(status.to_string().into());
    }
    let (processor_after, faults_after) = usage_of_children()?;
    Ok(Cost { wall, processor: processor_after.saturating_sub(processor), faults: faults_after - faults })
}

/// The processor time and the minor page faults of all children that have been waited for.
fn usage_of_children() -> Result<(Duration, u64)> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let duration = |time: TimeVal| -> Result<Duration> {
        let microseconds = Duration::from_micros(u64::try_from(time.tv_usec())?);
        Ok(Duration::from_secs(u64::try_from(time.tv_sec())?) + microseconds)
    };
    let processor = duration(usage.user_time())? + duration(usage.system_time())?;
    Ok((processor, u64::try_from(usage.minor_page_faults())?))
}

/// From now on Ctrl-C sets a flag, so that the benchmark ends in good order.
pub fn note_interrupts() -> Result<()> {
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
        signal_hook::flag::register(signal as i32, Arc::clone(&INTERRUPTED))?;
    }
    Ok(())
}

pub fn stop_if_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err("interrupted".into()) } else { Ok(()) }
}

/// Waits until all orphans have ended. Returns how many there were.
pub fn reap_all() -> Result<u32> {
    let (end, mut reaped) = (Instant::now() + LIMIT, 0);
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() > end => return Err("an orphan does not end".into()),
            Ok(WaitStatus::StillAlive) => {
                stop_if_interrupted()?;
                sleep(Duration::from_micros(50));
            }
            Ok(_) => reaped += 1,
            Err(Errno::ECHILD) => return Ok(reaped),
            Err(errno) => return Err(errno.into()),
        }
    }
}

pub fn median<T: Copy + Ord + Default>(values: &[T]) -> T {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The most memory that the launcher has had, in KB: `VmHWM` at its end. `ru_maxrss` would not do, since it includes
/// what the process was before its exec: a copy of this one.
pub fn peak_memory(launcher: &Launcher) -> Result<u64> {
    let sh = find_program("sh").ok_or("sh is not installed")?;
    let before = [sh.as_os_str(), OsStr::new("-c"), OsStr::new("kill -s STOP $$; exec \"$@\""), OsStr::new("sh")];
    let child = launcher.command(&before)?.spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    waitpid(pid, Some(WaitPidFlag::WUNTRACED))?;
    ptrace::seize(pid, Options::PTRACE_O_TRACEEXIT)?;
    nix::sys::signal::kill(pid, Signal::SIGCONT)?;
    let mut peak = None;
    loop {
        let pass_on = match waitpid(pid, None)? {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => break,
            WaitStatus::PtraceEvent(_, _, event) if event == Event::PTRACE_EVENT_EXIT as i32 => {
                peak = read_field(Path::new(&format!("/proc/{pid}/status")), "VmHWM:")?;
                None
            }
            WaitStatus::Stopped(_, signal) => Some(signal),
            _ => None,
        };
        ptrace::cont(pid, pass_on)?;
    }
    launcher.drain()?;
    reap_all()?;
    peak.ok_or_else(|| "its end was not seen".into())
}

/// The number after `field`, added up where there are several, in a file of /proc.
pub fn read_field(file: &Path, field: &str) -> Result<Option<u64>> {
    let text = fs::read_to_string(file)?;
    let numbers = text.lines().filter(|line| line.starts_with(field));
    let numbers: Vec<u64> = numbers.filter_map(|line| line.split_whitespace().nth(1)?.parse().ok()).collect();
    Ok((!numbers.is_empty()).then(|| numbers.iter().sum()))
}

/// The system calls of the launcher and all that it starts, to the end of the job.
pub fn count_system_calls(launcher: &Launcher, directory: &Path) -> Result<u64> {
    let strace = find_program("strace").ok_or("strace is not installed")?;
    let summary = directory.join("strace");
    let mut before = vec![strace.as_os_str()];
    before.extend(words(&["-f", "-c", "-U", "calls,name", "-o"]));
    before.extend([summary.as_os_str(), OsStr::new("--")]);
    launcher.command(&before)?.status()?;
    launcher.drain()?;
    reap_all()?;
    let summary = fs::read_to_string(summary)?;
    let total = summary.lines().find_map(|line| line.trim().strip_suffix(" total")).ok_or("strace has no total")?;
    Ok(total.trim().parse()?)
}

/// The instructions of the launcher itself, without those of its children. In valgrind a child that should borrow its
/// parent's memory gets a copy, so detach learns nothing from it and takes the path of a failed start.
pub fn count_instructions(launcher: &Launcher, directory: &Path) -> Result<u64> {
    let valgrind = find_program("valgrind").ok_or("valgrind is not installed")?;
    let log = directory.join("callgrind").display().to_string();
    let log_option = format!("--log-file={log}.%p");
    let mut before = vec![valgrind.as_os_str()];
    before.extend(words(&["--tool=callgrind", "--callgrind-out-file=/dev/null", &log_option]));
    let mut child = launcher.command(&before)?.spawn()?;
    child.wait()?;
    launcher.drain()?;
    reap_all()?;
    let text = fs::read_to_string(format!("{log}.{}", child.id()))?;
    let collected = text.lines().find_map(|line| line.split_once("Collected : ")).ok_or("callgrind has no result")?;
    Ok(collected.1.trim().parse()?)
}

/// Puts things into an order that changes each time, and is the same in each run: splitmix64.
pub struct Shuffle(u64);

impl Shuffle {
    pub fn new() -> Self {
        Self(1)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let limit = u64::try_from(last + 1).unwrap_or(u64::MAX);
            let other = usize::try_from(self.next() % limit).unwrap_or_default();
            items.swap(last, other);
        }
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }
}
