//! What stays behind: after many starts in a row, after many at once, and with `-t` while the command runs.

use std::fs;
use std::io::pipe;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

use crate::Result;
use crate::journal::{find_journal, names_in, read_events};
use crate::launchers::{DETACH, Kind, Launcher, find_program, words};
use crate::measure::{LIMIT, read_field, run_once, stop_if_interrupted};

pub const IN_A_ROW: u32 = 10_000;
pub const AT_ONCE: u32 = 200;
/// In seconds. A job that is ended here also ends by itself, in case this process is killed.
const JOB_TIME: &str = "60";

/// What stays, or what should stay.
pub struct Remains {
    pub processes: usize,
    /// Processes that were reparented to the subreaper and that it has reaped. Each job that ends is one; a process of
    /// detach that nothing has waited for would be one more.
    pub orphans: u32,
    pub descriptors: usize,
    /// Lines of the journal.
    pub lines: usize,
    pub logs: usize,
    /// Files that are neither a log nor the journal.
    pub others: usize,
}

/// What should stay of jobs that have ended, with output discarded.
pub const WANTED_IN_A_ROW: Remains =
    Remains { processes: 0, orphans: IN_A_ROW, descriptors: 0, lines: IN_A_ROW as usize, logs: 0, others: 0 };
/// What should stay of jobs that run, each with a log.
pub const WANTED_AT_ONCE: Remains = Remains {
    processes: AT_ONCE as usize,
    orphans: 0,
    descriptors: 0,
    lines: AT_ONCE as usize,
    logs: AT_ONCE as usize,
    others: 0,
};

/// Starts `true` again and again, with output discarded.
pub fn start_in_a_row(state_home: &Path) -> Result<Remains> {
    let launcher = Launcher::detach("in a row", &[], state_home)?;
    let mut command = launcher.command(&[])?;
    let mut orphans = 0;
    for _ in 0..IN_A_ROW {
        stop_if_interrupted()?;
        run_once(&mut command)?;
        orphans += reap_ended(usize::MAX)?;
    }
    orphans += reap_until(0)?;
    let remains = Remains { orphans, ..look(state_home)? };
    Ok(remains)
}

/// Starts many detach processes at the same moment; each has a log to make and inherits descriptor 9.
pub fn start_at_once(state_home: &Path) -> Result<Remains> {
    let sh = find_program("sh").ok_or("sh is not installed")?.display().to_string();
    // The first pipe is the barrier: a shell reads its end when all have been started.
    let script = r#"read -r _; exec "$@" < /dev/null 9< /dev/null"#;
    let argv = words(&[&sh, "-c", script, "sh", DETACH, "sleep", JOB_TIME]);
    let launcher = Launcher::new("at once", Kind::Detach, &argv, state_home)?;
    let (barrier, release) = pipe()?;
    // What they write fits into the second pipe, which is never read: detach lets go of it and makes a log.
    let (_unread, writer) = pipe()?;
    let mut launchers = Vec::new();
    for _ in 0..AT_ONCE {
        let mut command = launcher.command(&[])?;
        command.stdin(barrier.try_clone()?).stdout(writer.try_clone()?).stderr(writer.try_clone()?);
        launchers.push(command.spawn()?);
    }
    drop(release);
    for launcher in &mut launchers {
        if !launcher.wait()?.success() {
            return Err("one of many starts at once failed".into());
        }
    }
    let orphans = reap_until(usize::try_from(AT_ONCE)?)?;
    let remains = Remains { orphans, ..look(state_home)? };
    end_descendants();
    Ok(remains)
}

/// The memory of a tracking process that is its own and not the program file's, in KB.
pub fn memory_of_tracker(state_home: &Path) -> Result<u64> {
    let argv = words(&[DETACH, "-t", "sleep", JOB_TIME]);
    let launcher = Launcher::new("tracker", Kind::Detach, &argv, state_home)?;
    run_once(&mut launcher.command(&[])?)?;
    let tracker = descendants().into_iter().find(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(is_detach));
    let tracker = tracker.ok_or("there is no tracking process")?;
    let memory = read_field(Path::new(&format!("/proc/{tracker}/smaps_rollup")), "Private_Dirty")?;
    end_descendants();
    memory.ok_or_else(|| "its memory is unknown".into())
}

fn is_detach(path: impl AsRef<Path>) -> bool {
    path.as_ref() == Path::new(DETACH)
}

/// Counts what is there now. All orphans are reparented to this process, so whatever stays is among its descendants.
fn look(state_home: &Path) -> Result<Remains> {
    let descendants = descendants();
    let (mut descriptors, mut logs, mut others) = (0, 0, 0);
    for pid in &descendants {
        // Those of a zombie are closed.
        let names = names_in(Path::new(&format!("/proc/{pid}/fd"))).unwrap_or_default();
        descriptors += names.iter().filter(|name| !["0", "1", "2"].iter().any(|standard| name == standard)).count();
    }
    let directory = state_home.join("detach");
    let journal = find_journal(&directory)?;
    let lines = journal.as_deref().map_or(Ok(Vec::new()), read_events)?.len();
    for path in names_in(&directory)?.iter().map(|name| directory.join(name)) {
        match path.extension().and_then(|ending| ending.to_str()) {
            _ if journal.as_ref() == Some(&path) => (),
            Some("log") => logs += 1,
            _ => others += 1,
        }
    }
    Ok(Remains { processes: descendants.len(), orphans: 0, descriptors, lines, logs, others })
}

/// All processes that come from this one, zombies included.
fn descendants() -> Vec<Pid> {
    let stat = |name: &str| {
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        // The name of the program may hold anything.
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        Some((Pid::from_raw(name.parse().ok()?), Pid::from_raw(parent)))
    };
    let names = names_in(Path::new("/proc")).unwrap_or_default();
    let processes: Vec<(Pid, Pid)> = names.iter().filter_map(|name| stat(name.to_str()?)).collect();
    let mut found = vec![getpid()];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(processes.iter().filter(|(_, its_parent)| *its_parent == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Kills all that is left, and reaps it.
pub fn end_descendants() {
    for _ in 0..3 {
        for pid in descendants() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let _ = reap_until(0);
    }
}

/// Reaps orphans that have ended, `most` of them at most. Returns how many there were.
fn reap_ended(most: usize) -> Result<u32> {
    let mut reaped = 0;
    while usize::try_from(reaped)? < most {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => break,
            other => other?,
        };
        reaped += 1;
    }
    Ok(reaped)
}

/// Reaps orphans until no more than `left` descendants are there, or it takes too long.
fn reap_until(left: usize) -> Result<u32> {
    let (end, mut reaped) = (Instant::now() + LIMIT, 0);
    loop {
        reaped += reap_ended(usize::MAX)?;
        if descendants().len() <= left || Instant::now() > end {
            return Ok(reaped);
        }
        sleep(Duration::from_millis(2));
    }
}
