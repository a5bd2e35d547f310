//! `--stop`: which processes a signal reaches, how long they have, and what is killed in the end.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::support::{Process, Run, Sandbox, all_pids, eventually, process_named_in, sleeper, storage};

/// Writes its PID to `$1`, ignores SIGTERM, and sleeps.
const STUBBORN: &str = "trap '' TERM; echo $$ > $1.new; mv $1.new $1; while :; do sleep 0.05; done";

#[test]
fn stop_ends_all_processes_of_the_job() {
    let sandbox = Sandbox::new();
    for options in [&[][..], &["--full", "-C", "."], &["-t"], &["-t", "--full", "-C", "."]] {
        let child = sandbox.work("child");
        let _ = fs::remove_file(&child);
        let script = format!("sh -c '{}' & wait; sleep 60", sleeper(&child));
        let job = sandbox.job(options.iter().chain(&["sh", "-c", &script]));
        let child = process_named_in(&child);
        let run = sandbox.detach(["-v", "--stop", "sh"]);
        run.warns(&format!("detach: 'sh' (PID {}) ended", job.pid));
        assert!(job.is_dead() && child.is_dead(), "{options:?}");
        sandbox.jobs(0);
    }
}

#[test]
fn stop_without_a_terminal_is_silent() {
    let sandbox = Sandbox::new();
    sandbox.job(["sleep", "60"]);
    sandbox.detach(["--stop", "sleep"]).succeeds_silently();
}

#[test]
fn stop_reaches_a_job_that_is_stopped() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    job.signal(Signal::SIGSTOP);
    eventually(|| job.is_stopped());
    // No warning: it has seen the signal.
    sandbox.detach(["--stop", "sleep", "--grace", "20"]).succeeds_silently();
    assert!(job.is_dead());
}

#[test]
fn stop_leaves_all_other_processes_alone() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let other = sandbox.job(["sleep", "61"]);
    let control = Process::new(sandbox.command("sleep").arg("62").spawn().unwrap().id().cast_signed());
    sandbox.detach(["--stop", &job.pid.to_string()]).succeeds();
    assert!(job.is_dead());
    assert!(other.is_alive() && control.is_alive());
}

#[test]
fn job_that_does_not_end_is_killed_with_its_session() {
    let sandbox = Sandbox::new();
    // The member is in a process group of its own.
    let script = "set -m; sh -c \"$0\" sh member & exec sh -c \"$0\" sh leader";
    sandbox.job(["bash", "-c", script, STUBBORN]);
    let [leader, member] = ["leader", "member"].map(|name| process_named_in(&sandbox.work(name)));
    assert_ne!(leader.group(), member.group());
    assert_eq!(leader.session(), member.session());
    let run = sandbox.detach(["--stop", "bash", "--grace=200ms"]).exits(0);
    // Each of the two shells may have a sleep.
    let warning = format!("detach: warning: killed 'bash' (PID {}) and ", leader.pid);
    let others = run.stderr.strip_prefix(&warning).unwrap_or_else(|| panic!("{run:?}"));
    let (others, rest) = others.split_once(" of its session").unwrap();
    assert!(["one other process", "2 other processes", "3 other processes"].contains(&others), "{run:?}");
    assert_eq!(rest, ", which were still running 200ms after SIGTERM\n");
    assert!(leader.is_dead() && member.is_dead());
}

/// A job of a leader and a member of its session that is in a process group of its own. Each writes its name to `got`
/// when SIGTERM comes, and the leader ends then.
fn job_of_two_groups(sandbox: &Sandbox) -> (Process, Process) {
    let member = "trap 'echo member >> got; exit' TERM; echo $$ > member.new; mv member.new member
        while :; do sleep 0.01; done";
    let leader = "trap 'echo leader >> got; exit' TERM; echo $$ > leader.new; mv leader.new leader
        while :; do sleep 0.01; done";
    sandbox.job(["bash", "-c", "set -m; sh -c \"$0\" & exec sh -c \"$1\"", member, leader]);
    ["leader", "member"].map(|name| process_named_in(&sandbox.work(name))).into()
}

#[test]
fn stop_asks_the_whole_session_to_end() {
    let sandbox = Sandbox::new();
    let (leader, member) = job_of_two_groups(&sandbox);
    assert_ne!(leader.group(), member.group());
    sandbox.detach(["--stop", "bash", "--grace", "20"]).succeeds_silently();
    let got = sandbox.read("got");
    assert_eq!((got.contains("leader\n"), got.contains("member\n"), got.lines().count()), (true, true, 2), "{got}");
}

#[test]
fn signal_option_reaches_only_the_process_group_of_the_job() {
    let sandbox = Sandbox::new();
    let (leader, member) = job_of_two_groups(&sandbox);
    sandbox.detach(["--stop", "bash", "--signal", "TERM"]).succeeds_silently();
    eventually(|| leader.is_dead());
    assert_eq!(sandbox.read("got"), "leader\n");
    assert!(member.is_alive());
    // What is left of a job has no group to go by.
    sandbox.detach(["--stop", "bash", "--signal", "TERM"]).succeeds_silently();
    eventually(|| member.is_dead());
    assert_eq!(sandbox.read("got"), "leader\nmember\n");
}

#[test]
fn job_has_five_seconds_to_end() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sh", "-c", STUBBORN, "sh", "file"]);
    process_named_in(&sandbox.work("file"));
    let run = sandbox.detach(["--stop", "sh"]).exits(0);
    let warning = format!("detach: warning: killed 'sh' (PID {})", job.pid);
    let others = run.stderr.strip_prefix(&warning).unwrap_or_else(|| panic!("{run:?}"));
    // It may have a sleep, and its child that is becoming one.
    let begin = others.strip_suffix(" still running 5s after SIGTERM\n").unwrap_or_else(|| panic!("{run:?}"));
    let of_several =
        ["one other process", "2 other processes"].map(|of| format!(" and {of} of its session, which were"));
    assert!(begin == ", which was" || of_several.iter().any(|expected| begin == expected), "{run:?}");
}

#[test]
fn process_started_while_the_job_ends_is_stopped_as_well() {
    let sandbox = Sandbox::new();
    let script = "trap '(trap : TERM; echo $$ > late; while :; do sleep 0.01; done) & exit' TERM
        : > up; while :; do sleep 0.01; done";
    sandbox.job(["sh", "-c", script]);
    eventually(|| sandbox.work("up").exists());
    sandbox.detach(["--stop", "sh", "--grace", "2s"]).exits(0);
    eventually(|| sandbox.work("late").exists());
    assert_eq!(sandbox.processes().len(), 0);
}

#[test]
fn rest_of_the_session_is_killed_after_the_grace_period() {
    let sandbox = Sandbox::new();
    let script = "set -m; sh -c \"$0\" sh member & exec sleep 60";
    let job = sandbox.job(["bash", "-c", script, STUBBORN]);
    let member = process_named_in(&sandbox.work("member"));
    let run = sandbox.detach(["--stop", "bash", "--grace=1s"]).exits(0);
    // It may have sleeps, some of which it has been told to end.
    let expected = ["one process", "2 processes", "3 processes"].map(|killed| {
        let pid = job.pid;
        format!("detach: warning: 'bash' (PID {pid}) ended; killed {killed} of its session, still running 1s after SIGTERM\n")
    });
    assert!(expected.contains(&run.stderr), "{run:?}");
    assert!(job.is_dead() && member.is_dead());
}

#[test]
fn process_that_has_left_the_session_is_left_alone() {
    let sandbox = Sandbox::new();
    let file = sandbox.work("left");
    let script = format!("setsid sh -c '{}' & wait", sleeper(&file));
    let job = sandbox.job(["sh", "-c", &script]);
    let left = process_named_in(&file);
    let note = format!(
        "detach: 'sh' (PID {}) ended; process {}, which it started, keeps running in another session",
        job.pid, left.pid
    );
    sandbox.detach(["-v", "--stop", "sh"]).warns(&note);
    assert!(job.is_dead());
    assert!(left.is_alive());
}

#[test]
fn session_with_more_processes_than_descriptors_is_stopped() {
    let sandbox = Sandbox::new();
    for (trap, warns) in [("", false), ("trap '' TERM;", true)] {
        let script = format!("{trap} for i in $(seq 200); do sleep 60 & done; : > up; wait");
        sandbox.remove("up");
        let job = sandbox.job(["-o", "/dev/null", "sh", "-c", &script]);
        eventually(|| sandbox.work("up").exists());
        let warning = format!(
            "detach: warning: killed 'sh' (PID {}) and 200 other processes of its session, \
             which were still running 300ms after SIGTERM",
            job.pid
        );
        let run = sandbox.sh("ulimit -Sn 64; detach --stop sh --grace 300ms");
        run.warns(if warns { &warning } else { "" });
        assert_eq!(sandbox.processes().len(), 0);
    }
}

#[test]
fn stop_without_descriptors_does_not_claim_that_a_job_ended() {
    let sandbox = Sandbox::new();
    sandbox.job(["-o", "/dev/null", "sh", "-c", "for i in $(seq 99); do sleep 60 & done; : > up; wait"]);
    eventually(|| sandbox.work("up").exists());
    for limit in 4..10 {
        let run = sandbox.sh(&format!("ulimit -n {limit}; detach -v --stop sh --signal CONT; detach -v --join sh"));
        assert!(!run.stderr.contains("ended"), "{limit}: {run:?}");
    }
}

#[test]
fn session_that_forks_all_the_time_is_stopped() {
    requires!(python3);
    let sandbox = Sandbox::new();
    let script = "import os,signal,time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
end = time.time() + 20
for _ in range(4):
    if os.fork() == 0:
        while time.time() < end:
            if os.fork(): os._exit(0)
            time.sleep(.002)
        os._exit(0)
open('up', 'w')
while time.time() < end: time.sleep(.1)";
    for _ in 0..3 {
        sandbox.remove("up");
        let job = sandbox.job(["-o", "/dev/null", "python3", "-c", script]);
        eventually(|| sandbox.work("up").exists());
        let session = job.session();
        sandbox.detach(["--stop", "python3", "--grace=0.1"]).exits(0);
        let is_left =
            |pid: &i32| Process::new(*pid).stat(6) == Some(session.to_string()) && Process::new(*pid).is_alive();
        assert!(!all_pids().iter().any(is_left));
        // Thousands of zombies have become children of this process, and would use up the PIDs of the machine.
        while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
            waitpid(Pid::from_raw(-session), Some(WaitPidFlag::WNOHANG))
        {}
    }
}

#[test]
fn stop_ends_what_is_left_of_a_job() {
    let sandbox = Sandbox::new();
    let file = sandbox.work("child");
    let job = sandbox.job(["sh", "-c", &format!("sh -c '{}' &", sleeper(&file))]);
    let child = process_named_in(&file);
    eventually(|| job.is_dead());
    assert_eq!(sandbox.state_of(&job), "running (1 left)");
    sandbox.detach(["-v", "--stop", "sh"]).warns(&format!("detach: 'sh' (PID {}) ended", job.pid));
    assert!(child.is_dead());
    assert_eq!(sandbox.state_of(&job), "ended");
}

#[test]
fn job_runs_after_the_end_of_its_first_thread() {
    requires!(python3);
    let sandbox = Sandbox::new();
    let script = "import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).syscall(60, 0)";
    let job = sandbox.job(["-o", "/dev/null", "python3", "-c", script]);
    eventually(|| job.stat(3).is_some_and(|state| state == "Z"));
    assert_eq!(sandbox.state_of(&job), "running");
    sandbox.detach(["--prune", "0"]).succeeds_silently();
    assert_eq!(sandbox.records().len(), 1);
    sandbox.detach(["--stop", "python3"]).exits(0);
    eventually(|| job.stat(20).is_none_or(|threads| threads == "1" || threads == "0"));
}

const ELSEWHERE: &str = "it was started on another machine or in another PID or time namespace";

#[test]
fn job_of_another_pid_namespace_is_left_alone() {
    requires!(root, unshare);
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let pid = job.pid;
    let before = sandbox.files("");
    let script = "detach --list | cut -f3; detach --stop sleep 2>&1; detach --join sleep 2>&1; detach --prune";
    let mut command = sandbox.command("unshare");
    let stdout = Run::of(command.args(["--pid", "--fork", "--mount-proc", "sh", "-c", script])).succeeds();
    let expected = format!(
        "elsewhere\n\
         detach: cannot stop 'sleep' (PID {pid}): {ELSEWHERE}\n\
         detach: cannot wait for 'sleep' (PID {pid}): {ELSEWHERE}\n"
    );
    assert_eq!(stdout, expected);
    assert_eq!(sandbox.files(""), before);
    assert!(job.is_alive());
}

#[test]
fn stop_with_a_signal_only_sends_it() {
    let sandbox = Sandbox::new();
    // The shell starts no more children: while one is on its way to its exec, the shell could not be stopped.
    let script = "mkfifo fifo; trap 'echo got it' USR1; sleep 60 & echo $! > pid.new; mv pid.new pid
        while :; do read -r _ <> fifo; done";
    let job = sandbox.job(["sh", "-c", script]);
    let child = process_named_in(&sandbox.work("pid"));
    child.wait_for_exec("sleep");
    for signal in ["USR1", "sigusr1", "10"] {
        let note = format!("detach: sent SIGUSR1 to 'sh' (PID {})", job.pid);
        sandbox.detach(["-v", "--stop", "sh", "--signal", signal]).warns(&note);
    }
    eventually(|| sandbox.log().matches("got it\n").count() >= 1);
    eventually(|| child.is_dead());
    assert!(job.is_alive());
    sandbox.detach(["--stop", "sh", "--signal=STOP"]).succeeds_silently();
    eventually(|| job.is_stopped());
    sandbox.detach(["--stop", "sh", "--signal=KILL"]).succeeds_silently();
    eventually(|| job.is_dead());
}

#[test]
fn name_of_several_running_jobs_is_refused() {
    let sandbox = Sandbox::new();
    let long = "x".repeat(60);
    let jobs = [sandbox.job(["sleep", "60"]), sandbox.job(["-N", "sleep", "sh", "-c", "exec sleep 61 # $0", &long])];
    let candidates = format!("{} (sh -c 'exec sleep 61 # $0' xxxxxxxxxxxx…), {} (sleep 60)", jobs[1].pid, jobs[0].pid);
    for (mode, verb) in [("--stop", "stop"), ("--join", "wait for")] {
        let stderr = format!(
            "detach: cannot {verb} 'sleep': several jobs match: {candidates}\n\
             detach: hint: use the PID of one of them"
        );
        sandbox.detach([mode, "sleep"]).fails(125, &stderr);
    }
    assert!(jobs.iter().all(Process::is_alive));
    // Jobs that have ended do not count.
    jobs[1].signal(Signal::SIGKILL);
    eventually(|| jobs[1].is_dead());
    let warning = format!("detach: warning: the newest 'sleep' has ended; stopping PID {}: sleep 60", jobs[0].pid);
    sandbox.detach(["--stop", "sleep"]).warns(&warning);
    assert!(jobs[0].is_dead());
}

#[test]
fn no_job_is_stopped_when_one_is_not_found() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let stderr = "detach: cannot find job 'nope': no job has this PID, name or command line\n\
                  detach: hint: see 'detach --list --all'";
    sandbox.detach(["--stop", "sleep", "nope"]).fails(125, stderr);
    sandbox.detach(["--join", "nope", "sleep"]).fails(125, stderr);
    assert!(job.is_alive());
}

#[test]
fn several_jobs_are_stopped_at_once() {
    let sandbox = Sandbox::new();
    // The first does not end before the last has received its signal.
    let end = |name: &str| match name {
        "a" => "until [ -e c.got ]; do sleep 0.01; done; exit",
        _ => ": > $1.got; exit",
    };
    let jobs = ["a", "b", "c"].map(|name| {
        let script = format!("trap '{}' TERM; echo $$ > $1.new; mv $1.new $1; while :; do sleep 0.01; done", end(name));
        sandbox.job(["-N", name, "sh", "-c", &script, "sh", name]);
        process_named_in(&sandbox.work(name))
    });
    let pid = jobs[0].pid.to_string();
    let run = sandbox.detach(["-v", "--stop", "a", "b", "c", &pid, "--grace=60s"]);
    let note = |(name, job): (&str, &Process)| format!("detach: '{name}' (PID {}) ended", job.pid);
    let notes: Vec<String> = ["a", "b", "c"].into_iter().zip(&jobs).map(note).collect();
    run.warns(&notes.join("\n"));
    assert!(jobs.iter().all(Process::is_dead));
    sandbox.detach(["-v", "--stop", "b"]).warns(&format!("detach: 'b' (PID {}) has already ended", jobs[1].pid));
}

#[test]
fn process_of_another_user_cannot_be_stopped() {
    requires!(root, setpriv);
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    // The other user is given the record of a process of root.
    let home = sandbox.path("other");
    let state = home.join(".local/state/detach");
    fs::create_dir_all(&state).unwrap();
    storage::copy_records(&sandbox, &state);
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    Run::of(sandbox.command("chown").args(["-R", "54321:54321"]).arg(&home)).succeeds_silently();
    let detach = sandbox.copy_of_detach();
    for options in [&["--stop", "sleep"][..], &["--stop", "sleep", "--signal", "USR1"]] {
        let mut command = sandbox.command_as(54321, &detach);
        let stderr = format!(
            "detach: cannot stop 'sleep' (PID {}): it belongs to another user\n\
             detach: hint: stop it as that user, or as root",
            job.pid
        );
        Run::of(command.args(options).env("HOME", &home)).fails(125, &stderr);
    }
    assert!(job.is_alive());
}

#[test]
fn job_that_forks_and_exits_all_the_time_is_stopped_or_is_said_not_to_be() {
    requires!(perl);
    let sandbox = Sandbox::new();
    // Each process leaves a mark.
    let job = sandbox.chain("open F, '>>', 'beat'; print F 1; close F;", "");
    let run = sandbox.detach(["-v", "--stop", "chain"]);
    let beats = sandbox.read("beat").len();
    if run.status == 0 {
        assert_eq!(run.stderr, format!("detach: 'chain' (PID {}) ended\n", job.pid));
        assert_eq!(sandbox.state_of(&job), "ended");
        assert_eq!(sandbox.read("beat").len(), beats);
    } else {
        run.exits(125);
        eventually(|| sandbox.read("beat").len() > beats);
    }
    sandbox.remove("on");
}
