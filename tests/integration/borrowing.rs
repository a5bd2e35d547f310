//! A new process borrows the memory of its launcher until its exec: it allocates nothing, and SIGKILL may end it at any
//! moment without harm to the launcher.
//!
//! Debug builds kill a borrower that allocates or frees (src/sys/allocator.rs), so every start in these tests shows
//! that none does. Here are starts in every mode.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{DETACH, Process, Run, Sandbox, TRACKER, await_result, eventually, skip};

const MODES: [&[&str]; 4] = [&[], &["--full"], &["-t"], &["-t", "--full"]];

#[test]
fn new_process_allocates_nothing_whatever_it_does() {
    let sandbox = Sandbox::new();
    sandbox.write("in", "");
    sandbox.script("plain", "exit 3\n");
    sandbox.script("broken", "#!/no/such/interpreter\n");
    for mode in MODES {
        for options in [
            &[][..],
            &["-o", "/dev/null"],
            &["-o", "out", "-e", "err", "-i", "in", "-C", "/", "-m", "027", "--sigchld", "ignore"],
            &["--pidfile", "pid"],
            &["--json", "-N", "name"],
            &["-vv"],
        ] {
            let start = |command: &[&str]| sandbox.detach(mode.iter().chain(options).chain(command));
            let what = format!("{mode:?} {options:?}");
            assert_eq!(start(&["-w", "/bin/sh", "-c", "exit 7"]).status, 7, "{what}");
            // Nothing, or what runs through sh, or what is searched for in PATH.
            assert_eq!(start(&["/no/such/command"]).status, 127, "{what}");
            assert_eq!(start(&["-w", "./plain"]).status, 3, "{what}");
            assert_eq!(start(&["./broken"]).status, 127, "{what}");
            assert_eq!(start(&["-w", "true"]).status, 0, "{what}");
            // A directory and a pidfile that cannot be used.
            assert_eq!(start(&["-C", "/no/such/directory", "true"]).status, 125, "{what}");
            assert_eq!(start(&["--pidfile", "/proc/pid", "true"]).status, 125, "{what}");
        }
    }
}

#[test]
fn first_process_may_be_killed_at_any_moment() {
    if fs::metadata("/proc/self/task").is_ok() && fs::read(children_file(std::process::id())).is_err() {
        skip("the kernel does not list children (CONFIG_PROC_CHILDREN)");
        return;
    }
    std::thread::scope(|scope| {
        for mode in MODES {
            scope.spawn(move || kill_first_processes(mode, 150));
        }
    });
}

fn children_file(pid: u32) -> String {
    format!("/proc/{pid}/task/{pid}/children")
}

/// Starts many commands in this mode, and kills the first process of each start up to 0.7 ms after it was made.
fn kill_first_processes(mode: &[&str], starts: u64) {
    let sandbox = Sandbox::new();
    let mut started = BTreeSet::new();
    for number in 0..starts {
        sandbox.remove("pid");
        let mut command = sandbox.command(DETACH);
        command.args(mode).args(["-P", "-o", "out", "--pidfile", "pid", "sleep", "600"]);
        if number % 2 == 0 {
            // With a log.
            command = sandbox.command(DETACH);
            command.args(mode).args(["-P", "--pidfile", "pid", "sleep", "600"]);
        }
        let mut launcher = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let moment = Duration::from_micros(number * 337 % 700);
        kill_first_child(&mut launcher, moment);
        let status = await_result(|| launcher.try_wait().unwrap().ok_or_else(|| "the launcher hangs".to_owned()));
        let what = format!("{mode:?} after {moment:?}");
        assert!(status.code().is_some(), "{what}: {status:?}");
        let run = Run::from(launcher.wait_with_output().unwrap());
        if run.status == 0 {
            started.insert(run.succeeds().trim().to_owned());
        } else {
            run.fails(125, "detach: cannot start 'sleep': its process was killed before it ran");
            assert!(!sandbox.work("pid").exists(), "{what}");
        }
    }
    // Whether the command of a start runs is known when every process has reached its last exec.
    let is_settled = |process: &Process| process.runs("sleep") || process.runs(TRACKER);
    eventually(|| sandbox.processes().iter().all(is_settled));
    let records = sandbox.records();
    let recorded: BTreeSet<String> = records.iter().map(|record| record["pid"].to_string()).collect();
    assert_eq!(recorded.len(), records.len(), "{mode:?}: recorded twice");
    assert_eq!(recorded, started, "{mode:?}");
    let running = records.iter().filter(|record| record["state"] == "running").map(|record| record["pid"].to_string());
    let living = sandbox.processes().into_iter().filter(|process| process.runs("sleep"));
    assert_eq!(
        running.collect::<BTreeSet<_>>(),
        living.map(|process| process.pid.to_string()).collect::<BTreeSet<_>>(),
        "{mode:?}"
    );
    let logs: BTreeSet<&str> = records.iter().filter_map(|record| record["stdout"]["log"].as_str()).collect();
    let state = sandbox.state().display().to_string();
    let kept: BTreeSet<String> = sandbox.logs().iter().map(|log| format!("{state}/{log}")).collect();
    assert_eq!(kept, logs.into_iter().map(str::to_owned).collect(), "{mode:?}");
    // The moments were such that some of the starts failed, and some did not.
    assert!(!started.is_empty() && started.len() < usize::try_from(starts).unwrap(), "{mode:?}: {}", started.len());
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
