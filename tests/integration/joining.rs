//! `--join`: it waits for jobs, reports how they ended, and exits with the status of the first that failed.

use std::fs;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::support::{DETACH, Process, Run, Sandbox, Terminal, await_result, eventually};

#[test]
fn join_waits_and_exits_with_the_status_of_the_first_job_that_failed() {
    let sandbox = Sandbox::new();
    let until = "until [ -e go ]; do sleep 0.01; done";
    for options in [&["-t"][..], &["-t", "--full", "-C", "."]] {
        sandbox.remove("go");
        let job =
            |name, end: &str| sandbox.job(options.iter().chain(&["-N", name, "sh", "-c", &format!("{until}; {end}")]));
        let [a, b] = [job("a", "exit 3"), job("b", "kill -TERM $$")];
        let mut command = sandbox.command(DETACH);
        let joining = command.args(["--join", "a", "b"]).stderr(Stdio::piped()).spawn().unwrap();
        let process = Process::new(joining.id().cast_signed());
        eventually(|| process.is_asleep());
        assert!(a.is_alive() && b.is_alive());
        sandbox.write("go", "");
        let run = Run::from(joining.wait_with_output().unwrap());
        let lines: Vec<&str> = run.stderr.lines().map(|line| line.rsplit_once(" after ").unwrap().0).collect();
        let expected = [
            format!("detach: 'a' (PID {}) failed with status 3", a.pid),
            format!("detach: 'b' (PID {}) was killed by SIGTERM", b.pid),
        ];
        assert_eq!((run.status, lines), (3, expected.iter().map(String::as_str).collect()), "{options:?}");
        // The ends of jobs are remembered.
        sandbox.detach(["--join", "b", "a"]).exits(143);
    }
}

#[test]
fn join_of_a_job_whose_status_was_not_recorded_is_125() {
    let sandbox = Sandbox::new();
    sandbox.job(["-t", "false"]);
    sandbox.job(["-t", "true"]);
    let job = sandbox.job(["sh", "-c", "exit 0"]);
    sandbox.detach(["-q", "--join", "false"]).exits_silently(1);
    let unknown = format!(
        "detach: 'sh' (PID {}) has ended; its exit status is unknown (start it with --track to record it)",
        job.pid
    );
    for jobs in [&["sh"][..], &["true", "sh"]] {
        sandbox.detach(["--join"].iter().chain(jobs)).fails(125, &unknown);
        // It is an error, which --quiet does not hide.
        sandbox.detach(["-q", "--join"].iter().chain(jobs)).fails(125, &unknown);
    }
    // The first that failed counts.
    sandbox.detach(["-q", "--join", "false", "sh"]).fails(1, &unknown);
    sandbox.detach(["-q", "--join", "sh", "false"]).fails(125, &unknown);
}

#[test]
fn job_that_is_named_twice_is_reported_once() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["-qw", "true"]);
    let pid = job.pid.to_string();
    let run = sandbox.detach(["-v", "--join", "true", &pid, "true"]).exits(0);
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert!(lines.len() == 1 && lines[0].starts_with(&format!("detach: 'true' (PID {pid}) succeeded")), "{lines:?}");
}

#[test]
fn join_waits_without_polling() {
    requires!(strace);
    let sandbox = Sandbox::new();
    sandbox.job(["sleep", "0.5"]);
    sandbox.sh("strace -o ../trace -e trace=poll detach --join sleep").exits(125);
    let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
    // One at the start of every program in Rust, and one to wait for the process.
    assert!(trace.matches("poll(").count() <= 2, "{trace}");
}

#[test]
fn interrupt_ends_join_and_leaves_the_job_running() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["-t", "sleep", "60"]);
    let mut terminal = Terminal::open(&sandbox);
    terminal.type_line("detach --join sleep");
    eventually(|| terminal.foreground() != terminal.shell.pid.as_raw());
    terminal.press("\x03");
    assert_eq!(terminal.run("(exit $?)").0, 130);
    assert!(job.is_alive());
}

#[test]
fn join_waits_until_the_tracking_process_has_recorded_the_end() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["-t", "sleep", "60"]);
    let tracker = sandbox.tracker_of(&job);
    tracker.signal(Signal::SIGSTOP);
    eventually(|| tracker.is_stopped());
    job.signal(Signal::SIGTERM);
    eventually(|| job.is_dead());
    // The record is kept, as its end may still come.
    sandbox.detach(["--prune", "0"]).succeeds_silently();
    assert_eq!(sandbox.records().len(), 1);
    let joining = sandbox.command(DETACH).args(["--join", "sleep"]).stderr(Stdio::piped()).spawn().unwrap();
    let process = Process::new(joining.id().cast_signed());
    let is_waiting = || fs::read_dir(process.file("fd")).is_ok_and(|fds| fds.count() > 4);
    eventually(|| is_waiting() && process.is_asleep());
    tracker.signal(Signal::SIGCONT);
    Run::from(joining.wait_with_output().unwrap()).exits(143);
}

#[test]
fn join_of_a_job_whose_tracking_process_was_killed_is_125() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["-t", "sleep", "60"]);
    sandbox.tracker_of(&job).signal(Signal::SIGKILL);
    job.signal(Signal::SIGTERM);
    let stderr = format!(
        "detach: 'sleep' (PID {}) has ended; its exit status is unknown (the process that tracked it was killed)",
        job.pid
    );
    sandbox.detach(["--join", "sleep"]).fails(125, &stderr);
}

#[test]
fn join_waits_for_a_detach_that_is_about_to_record_the_end() {
    let sandbox = Sandbox::new();
    let mut waiting = sandbox.command(DETACH).args(["-q", "-w", "-N", "watched", "sleep", "60"]).spawn().unwrap();
    let launcher = Process::new(waiting.id().cast_signed());
    let pid = await_result(|| {
        let records = sandbox.records();
        records.first().and_then(|record| record["pid"].as_i64()).ok_or_else(String::new)
    });
    let job = Process::new(pid.try_into().unwrap());
    job.wait_for_exec("sleep");
    let joining = sandbox.command(DETACH).args(["--join", "watched"]).stderr(Stdio::null()).spawn().unwrap();
    let process = Process::new(joining.id().cast_signed());
    eventually(|| process.is_asleep());
    launcher.signal(Signal::SIGSTOP);
    job.signal(Signal::SIGTERM);
    eventually(|| job.is_dead());
    launcher.signal(Signal::SIGCONT);
    Run::from(joining.wait_with_output().unwrap()).exits(143);
    assert_eq!(waiting.wait().unwrap().code(), Some(143));
}

#[test]
fn join_and_log_hold_more_processes_than_the_soft_limit_on_descriptors() {
    let sandbox = Sandbox::new();
    let script = "i=0; while [ $i -lt 100 ]; do sleep 60 & i=$((i + 1)); done; : > up; wait";
    let job = sandbox.job(["-N", "many", "sh", "-c", script]);
    eventually(|| sandbox.work("up").exists());
    let start = |mode: &str| {
        let script = format!("ulimit -S -n 64; exec detach {mode} many");
        let running = sandbox.command("sh").args(["-c", &script]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        running.unwrap()
    };
    let running = [start("--join"), start("--log -f")];
    for running in &running {
        let process = Process::new(running.id().cast_signed());
        eventually(|| process.is_alive() && process.descriptors().len() > 100);
    }
    sandbox.detach(["--stop", "many"]).succeeds_silently();
    assert!(job.is_dead());
    let [joining, following] = running.map(|running| Run::from(running.wait_with_output().unwrap()));
    joining.exits(125);
    following.succeeds();
}
