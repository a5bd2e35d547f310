//! `--stop`, `--join` and `--prune`: whom signals reach, what is waited for, what is removed and what is not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::support::{
    DETACH, Process, Run, Sandbox, Terminal, eventually, is_installed, is_root, process_named_in, sleeper,
};

/// Writes its PID to `$1`, lets SIGTERM pass by, and sleeps.
const STUBBORN: &str = "trap '' TERM; echo $$ > $1.new; mv $1.new $1; while :; do sleep 0.05; done";

#[test]
fn stop_ends_the_process_group_of_the_job() {
    let sandbox = Sandbox::new();
    for options in [&[][..], &["--full", "-C", "."], &["-t"], &["-t", "--full", "-C", "."]] {
        let child = sandbox.path("work/child");
        let _ = fs::remove_file(&child);
        let script = format!("sh -c '{}' & wait; sleep 60", sleeper(&child));
        let job = sandbox.job(options.iter().chain(&["sh", "-c", &script]));
        let child = process_named_in(&child);
        let run = sandbox.detach(["-v", "--stop", "sh"]);
        let note = format!("detach: 'sh', PID {} ended\n", job.pid);
        assert_eq!((run.status, run.stderr.starts_with(&note)), (0, true), "{run:?}");
        assert!(job.is_dead() && child.is_dead(), "{options:?}");
        sandbox.jobs(0);
    }
    // Where nobody looks, nothing is said.
    sandbox.job(["sleep", "60"]);
    let run = sandbox.detach(["--stop", "sleep"]);
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""));
}

#[test]
fn stop_reaches_a_job_that_is_stopped() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    job.signal(Signal::SIGSTOP);
    eventually(|| job.is_stopped());
    let run = sandbox.detach(["--stop", "sleep", "--grace", "20"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""), "it did not see the signal");
    assert!(job.is_dead());
}

#[test]
fn stop_leaves_all_others_alone() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let other = sandbox.job(["sleep", "61"]);
    let control = Process::new(sandbox.command("sleep").arg("62").spawn().unwrap().id().cast_signed());
    assert_eq!(sandbox.detach(["--stop", &job.pid.to_string()]).status, 0);
    assert!(job.is_dead());
    assert!(other.is_alive() && control.is_alive());
}

#[test]
fn what_does_not_end_is_killed_with_its_whole_session() {
    let sandbox = Sandbox::new();
    // The second sleeps in a process group of its own, which SIGTERM does not reach.
    let script = "set -m; sh -c \"$0\" sh member & exec sh -c \"$0\" sh leader";
    sandbox.job(["bash", "-c", script, STUBBORN]);
    let [leader, member] = ["leader", "member"].map(|name| process_named_in(&sandbox.path("work").join(name)));
    assert_ne!(leader.group(), member.group());
    assert_eq!(leader.session(), member.session());
    let run = sandbox.detach(["--stop", "bash", "--grace=200ms"]);
    assert_eq!(run.status, 0);
    let warning = format!("detach: warning: killed 'bash', PID {}, which did not end within 200ms, with ", leader.pid);
    assert!(run.stderr.starts_with(&warning), "{run:?}");
    assert!(leader.is_dead() && member.is_dead());
}

#[test]
fn only_the_process_group_is_asked_to_end() {
    let sandbox = Sandbox::new();
    let member = "trap ': > got' TERM; echo $$ > member.new; mv member.new member; while :; do sleep 0.01; done";
    let leader = "trap 'sleep 0.2; exit' TERM; while :; do sleep 0.01; done";
    sandbox.job(["bash", "-c", "set -m; sh -c \"$0\" & exec sh -c \"$1\"", member, leader]);
    let member = process_named_in(&sandbox.path("work/member"));
    let run = sandbox.detach(["--stop", "bash", "--signal", "TERM"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert_eq!(sandbox.detach(["--stop", "bash", "--grace", "0.5"]).status, 0);
    eventually(|| member.is_dead() || sandbox.processes().len() == 1);
    assert!(!sandbox.path("work/got").exists());
}

#[test]
fn job_has_five_seconds_to_end() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sh", "-c", STUBBORN, "sh", "file"]);
    process_named_in(&sandbox.path("work/file"));
    let run = sandbox.detach(["--stop", "sh"]);
    let warning = format!("detach: warning: killed 'sh', PID {}, which did not end within 5s", job.pid);
    assert!(run.stderr.starts_with(&warning), "{run:?}");
}

#[test]
fn what_is_started_at_the_end_ends_as_well() {
    let sandbox = Sandbox::new();
    let script = "trap '(trap : TERM; echo $$ > late; while :; do sleep 0.01; done) & exit' TERM; : > up; while :; do sleep 0.01; done";
    sandbox.job(["sh", "-c", script]);
    eventually(|| sandbox.path("work/up").exists());
    assert_eq!(sandbox.detach(["--stop", "sh", "--grace", "2s"]).status, 0);
    eventually(|| sandbox.path("work/late").exists());
    assert_eq!(sandbox.processes().len(), 0);
}

#[test]
fn what_is_left_of_a_session_is_killed() {
    let sandbox = Sandbox::new();
    let script = "set -m; sh -c \"$0\" sh member & exec sleep 60";
    let job = sandbox.job(["bash", "-c", script, STUBBORN]);
    let member = process_named_in(&sandbox.path("work/member"));
    let run = sandbox.detach(["--stop", "bash", "--grace=1s"]);
    assert_eq!(run.status, 0);
    let warning =
        format!("detach: warning: 'bash', PID {} ended, but not all of its session within 1s: killed ", job.pid);
    assert!(run.stderr.starts_with(&warning), "{run:?}");
    assert!(job.is_dead() && member.is_dead());
}

#[test]
fn process_that_has_left_the_session_is_left_alone() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("work/left");
    let script = format!("setsid sh -c '{}' & wait", sleeper(&file));
    let job = sandbox.job(["sh", "-c", &script]);
    let left = process_named_in(&file);
    assert_eq!(sandbox.detach(["--stop", "sh"]).status, 0);
    assert!(job.is_dead());
    assert!(left.is_alive());
}

#[test]
fn session_of_more_processes_than_descriptors_ends() {
    let sandbox = Sandbox::new();
    for (trap, warns) in [("", false), ("trap '' TERM;", true)] {
        let script = format!("{trap} for i in $(seq 200); do sleep 60 & done; : > up; wait");
        let _ = fs::remove_file(sandbox.path("work/up"));
        sandbox.job(["-o", "/dev/null", "sh", "-c", &script]);
        eventually(|| sandbox.path("work/up").exists());
        let run = sandbox.sh("ulimit -Sn 64; detach --stop sh --grace 300ms");
        assert_eq!((run.status, run.stderr.contains("with 200 other processes of its session")), (0, warns), "{run:?}");
        assert_eq!(sandbox.processes().len(), 0);
    }
    // Where no more descriptors are to be had, nothing is said to have ended.
    sandbox.job(["-o", "/dev/null", "sh", "-c", "for i in $(seq 99); do sleep 60 & done; : > up2; wait"]);
    eventually(|| sandbox.path("work/up2").exists());
    for limit in 4..10 {
        let run =
            sandbox.sh(&format!("ulimit -n {limit}; detach -v --stop sh --signal CONT; detach -v --join sh --list"));
        assert!(!run.stderr.contains("ended"), "{limit}: {run:?}");
    }
}

#[test]
fn session_that_forks_all_the_time_ends() {
    if !is_installed("python3") {
        return;
    }
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
        let _ = fs::remove_file(sandbox.path("work/up"));
        let job = sandbox.job(["-o", "/dev/null", "python3", "-c", script]);
        eventually(|| sandbox.path("work/up").exists());
        let session = job.session();
        let run = sandbox.detach(["--stop", "python3", "--grace=0.1"]);
        assert_eq!(run.status, 0, "{run:?}");
        let is_left =
            |pid: &i32| Process::new(*pid).stat(6) == Some(session.to_string()) && Process::new(*pid).is_alive();
        assert!(!crate::support::all_pids().iter().any(is_left));
    }
}

#[test]
fn what_an_ended_job_has_left_behind_is_told_and_left_alone() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("work/child");
    let job = sandbox.job(["sh", "-c", &format!("sh -c '{}' &", sleeper(&file))]);
    let child = process_named_in(&file);
    eventually(|| job.is_dead());
    let before = names(&sandbox);
    let run = sandbox.detach(["--stop", "sh"]);
    let pid = job.pid;
    let stderr =
        format!("detach: warning: 'sh', PID {pid} has ended already, but in session {pid} there are processes still\n");
    assert_eq!((run.status, run.stderr), (0, stderr));
    assert!(child.is_alive());
    // It may go on to write.
    assert_eq!(sandbox.detach(["--prune"]).status, 0);
    assert_eq!(names(&sandbox), before);
    child.signal(Signal::SIGKILL);
    eventually(|| child.is_dead());
    assert_eq!(sandbox.detach(["--prune"]).status, 0);
    assert_eq!(names(&sandbox), [""; 0]);
}

#[test]
fn process_whose_first_thread_has_ended_runs() {
    if !is_installed("python3") {
        return;
    }
    let sandbox = Sandbox::new();
    let script = "import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).syscall(60, 0)";
    let job = sandbox.job(["-o", "/dev/null", "python3", "-c", script]);
    eventually(|| job.stat(3).is_some_and(|state| state == "Z"));
    let list = sandbox.detach(["--list"]).stdout;
    assert_eq!(list.split('\t').nth(2), Some("running"));
    assert_eq!(sandbox.detach(["--prune"]).status, 0);
    assert_eq!(names(&sandbox).len(), 1);
    assert_eq!(sandbox.detach(["--stop", "python3"]).status, 0);
    eventually(|| job.stat(20).is_none_or(|threads| threads == "1" || threads == "0"));
}

#[test]
fn job_that_cannot_be_seen_from_here_is_left_alone() {
    if !is_root() || !is_installed("unshare") {
        return;
    }
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let pid = job.pid;
    let before = names(&sandbox);
    let reason = "it was started on another machine, or in another PID namespace";
    let expect = |run: &Run| {
        let lines: Vec<&str> = run.stdout.lines().collect();
        let expected = [
            "elsewhere".to_owned(),
            format!("detach: cannot stop 'sleep', PID {pid}: {reason}"),
            format!("detach: cannot wait for 'sleep', PID {pid}: {reason}"),
            "0".to_owned(),
        ];
        assert_eq!(lines, expected, "{run:?}");
        assert_eq!(names(&sandbox), before);
        assert!(job.is_alive());
    };
    let script = "detach --list | cut -f3; detach --stop sleep 2>&1; detach --join sleep 2>&1; detach --prune; echo $?";
    let namespace = ["--pid", "--fork", "--mount-proc", "sh", "-c", script];
    expect(&Run::of(sandbox.command("unshare").args(namespace)));
    // Where /proc shows other processes, or none, nothing can be told.
    for script in ["mount -t tmpfs none /proc; detach --prune", "exec unshare --pid --fork detach --prune"] {
        let run = Run::of(sandbox.command("unshare").args(["--mount", "sh", "-c", script]));
        assert_eq!((run.status, run.stderr.starts_with("detach: cannot read '/proc': ")), (125, true), "{run:?}");
    }
    assert_eq!(names(&sandbox), before);
    // Another machine that shares the directory.
    let name = sandbox.files(".json").remove(0);
    let text = fs::read_to_string(sandbox.state().join(&name)).unwrap();
    let boot = name.splitn(3, '-').nth(2).unwrap().strip_suffix(".json").unwrap().to_owned();
    let other = "0b1c2d3e-0000-0000-0000-000000000000";
    fs::remove_file(sandbox.state().join(&name)).unwrap();
    let host = text.split("\"host\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let text = text.replace(&boot, other).replace(&format!("\"host\":\"{host}\""), "\"host\":\"elsewhere\"");
    fs::write(sandbox.state().join(name.replace(&boot, other)), text).unwrap();
    let before = names(&sandbox);
    assert_eq!(sandbox.sh("detach --list | cut -f3; detach --prune").stdout, "elsewhere\n");
    assert_eq!(names(&sandbox), before);
    // With time, nobody misses it.
    for name in &before {
        set_age(&sandbox.state().join(name), "3 days");
    }
    job.signal(Signal::SIGKILL);
    eventually(|| job.is_dead());
    assert_eq!(sandbox.detach(["--prune=2d"]).status, 0);
    assert_eq!(names(&sandbox), [""; 0]);
}

#[test]
fn signal_is_sent_and_nothing_more() {
    let sandbox = Sandbox::new();
    // The shell itself starts nothing any more: while a child is on the way to its exec, it could not be stopped.
    let script = "mkfifo fifo; trap 'echo got it' USR1; sleep 60 & echo $! > pid.new; mv pid.new pid
        while :; do read -r _ <> fifo; done";
    let job = sandbox.job(["sh", "-c", script]);
    let child = process_named_in(&sandbox.path("work/pid"));
    child.wait_for_exec("sleep");
    for signal in ["USR1", "sigusr1", "10"] {
        let run = sandbox.detach(["-v", "--stop", "sh", "--signal", signal]);
        assert_eq!((run.status, run.stderr), (0, format!("detach: sent USR1 to 'sh', PID {}\n", job.pid)));
    }
    eventually(|| sandbox.log().matches("got it\n").count() >= 1);
    eventually(|| child.is_dead());
    assert!(job.is_alive());
    assert_eq!(sandbox.detach(["--stop=sh", "--signal=STOP"]).status, 0);
    eventually(|| job.is_stopped());
    assert_eq!(sandbox.detach(["--stop=sh", "--signal=KILL"]).status, 0);
    eventually(|| job.is_dead());
}

#[test]
fn name_of_several_jobs_is_refused() {
    let sandbox = Sandbox::new();
    let long = "x".repeat(60);
    let jobs = [sandbox.job(["sleep", "60"]), sandbox.job(["-N", "sleep", "sh", "-c", "exec sleep 61 # $0", &long])];
    let candidates = format!("{} (sleep 60), {} (sh -c 'exec sleep 61 # $0' xxxxxxxxxxxx…)", jobs[0].pid, jobs[1].pid);
    for (mode, verb) in [("--stop", "stop"), ("--join", "wait for")] {
        let run = sandbox.detach([mode, "sleep"]);
        let stderr = format!(
            "detach: cannot {verb} 'sleep': several jobs have this name: {candidates}\n\
             detach: hint: {verb} one of them by its PID\n"
        );
        assert_eq!((run.status, run.stderr), (125, stderr));
    }
    assert!(jobs.iter().all(Process::is_alive));
    // Those that have ended are not meant.
    jobs[1].signal(Signal::SIGKILL);
    eventually(|| jobs[1].is_dead());
    assert_eq!(sandbox.detach(["--stop", "sleep"]).status, 0);
    assert!(jobs[0].is_dead());
}

#[test]
fn nothing_is_stopped_when_one_job_is_not_there() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    assert_eq!(sandbox.detach(["--stop", "sleep", "nope"]).status, 125);
    assert_eq!(sandbox.detach(["--join", "nope", "sleep"]).status, 125);
    assert!(job.is_alive());
}

#[test]
fn several_jobs_are_stopped_at_once() {
    let sandbox = Sandbox::new();
    // The first does not end before the last has got its signal.
    let end = |name: &str| match name {
        "a" => "until [ -e c.got ]; do sleep 0.01; done; exit",
        _ => ": > $1.got; exit",
    };
    let jobs = ["a", "b", "c"].map(|name| {
        let script = format!("trap '{}' TERM; echo $$ > $1.new; mv $1.new $1; while :; do sleep 0.01; done", end(name));
        sandbox.job(["-N", name, "sh", "-c", &script, "sh", name]);
        process_named_in(&sandbox.path("work").join(name))
    });
    let pid = jobs[0].pid.to_string();
    let run = sandbox.detach(["-v", "--stop", "a", "b", "c", &pid, "--grace=60s"]);
    let note = |(name, job): (&str, &Process)| format!("detach: '{name}', PID {} ended\n", job.pid);
    let notes: Vec<String> = ["a", "b", "c"].into_iter().zip(&jobs).map(note).collect();
    assert_eq!((run.status, run.stderr), (0, notes.concat()));
    assert!(jobs.iter().all(Process::is_dead));
    let run = sandbox.detach(["-v", "--stop", "b"]);
    let stderr = format!("detach: 'b', PID {} has ended already\n", jobs[1].pid);
    assert_eq!((run.status, run.stderr), (0, stderr));
}

#[test]
fn job_of_somebody_else_is_told() {
    if !is_root() || !is_installed("setpriv") {
        return;
    }
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    // The other user has a record of the process of root.
    let home = sandbox.path("other");
    let state = home.join(".local/state/detach");
    fs::create_dir_all(&state).unwrap();
    for name in sandbox.files(".json") {
        fs::copy(sandbox.state().join(&name), state.join(name)).unwrap();
    }
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(Run::of(sandbox.command("chown").args(["-R", "54321:54321"]).arg(&home)).status, 0);
    let detach = reachable_copy(&sandbox);
    for options in [&["--stop", "sleep"][..], &["--stop", "sleep", "--signal", "USR1"]] {
        let mut command = sandbox.command("setpriv");
        command.args(["--reuid=54321", "--regid=54321", "--clear-groups"]).arg(&detach).args(options);
        let run = Run::of(command.env("HOME", &home));
        let stderr = format!(
            "detach: cannot stop 'sleep', PID {}: it belongs to another user\n\
             detach: hint: try it as that user, or as root\n",
            job.pid
        );
        assert_eq!((run.status, run.stderr), (125, stderr));
    }
    assert!(job.is_alive());
}

/// The program where any user may run it.
fn reachable_copy(sandbox: &Sandbox) -> std::path::PathBuf {
    let copy = sandbox.path("detach");
    assert_eq!(Run::of(sandbox.command("cp").arg(DETACH).arg(&copy)).status, 0);
    copy
}

#[test]
fn join_waits_and_exits_as_the_last_job() {
    let sandbox = Sandbox::new();
    let until = "until [ -e go ]; do sleep 0.01; done";
    for options in [&["-t"][..], &["-t", "--full", "-C", "."]] {
        let _ = fs::remove_file(sandbox.path("work/go"));
        let job =
            |name, end: &str| sandbox.job(options.iter().chain(&["-N", name, "sh", "-c", &format!("{until}; {end}")]));
        let [a, b] = [job("a", "exit 3"), job("b", "kill -TERM $$")];
        let mut command = sandbox.command(DETACH);
        let joining = command.args(["--join", "a", "b"]).stderr(Stdio::piped()).spawn().unwrap();
        let process = Process::new(joining.id().cast_signed());
        eventually(|| process.stat(3).is_some_and(|state| state == "S"));
        assert!(a.is_alive() && b.is_alive());
        fs::write(sandbox.path("work/go"), "").unwrap();
        let run = Run::from(joining.wait_with_output().unwrap());
        let lines: Vec<&str> = run.stderr.lines().map(|line| line.rsplit_once(" after ").unwrap().0).collect();
        let expected = [
            format!("detach: 'a', PID {} failed with status 3", a.pid),
            format!("detach: 'b', PID {} was killed by SIGTERM", b.pid),
        ];
        assert_eq!((run.status, lines), (143, expected.iter().map(String::as_str).collect()), "{options:?}");
        // Those that have ended are known still.
        assert_eq!(sandbox.detach(["--join", "b", "a"]).status, 3);
    }
}

#[test]
fn status_that_nobody_knows_is_told() {
    let sandbox = Sandbox::new();
    sandbox.job(["-t", "false"]);
    let job = sandbox.job(["sh", "-c", "exit 3"]);
    let run = sandbox.detach(["-q", "--join", "false"]);
    assert_eq!(run.status, 1);
    let run = sandbox.detach(["--join", "false", "sh"]);
    let warning = format!(
        "detach: warning: 'sh', PID {} has ended, nobody knows how: start it with --track next time\n",
        job.pid
    );
    assert_eq!((run.status, run.stderr.ends_with(&warning)), (0, true), "{run:?}");
}

#[test]
fn join_waits_without_work() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.job(["sleep", "0.5"]);
    assert_eq!(sandbox.sh("strace -o ../trace -e trace=poll detach --join sleep").status, 0);
    let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
    // One at the start of every program in Rust, one for the process.
    assert!(trace.matches("poll(").count() <= 2, "{trace}");
}

#[test]
fn interrupt_ends_a_join_and_no_job() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["-t", "sleep", "60"]);
    let mut terminal = Terminal::open(&sandbox);
    terminal.type_line("detach --join sleep");
    eventually(|| terminal.foreground() != terminal.shell.pid.as_raw());
    terminal.press("\x03");
    assert_eq!(terminal.run("(exit $?)").0, 130);
    assert!(job.is_alive());
}

fn names(sandbox: &Sandbox) -> Vec<String> {
    let mut names = sandbox.files("");
    names.sort();
    names
}

fn set_age(path: &Path, age: &str) {
    let run = std::process::Command::new("touch").args(["-d", &format!("{age} ago")]).arg(path).status();
    assert!(run.unwrap().success());
}

#[test]
fn prune_removes_what_has_ended_and_nothing_else() {
    let sandbox = Sandbox::new();
    let running = sandbox.job(["sleep", "60"]);
    let tracked = sandbox.job(["-t", "sleep", "61"]);
    let kept = names(&sandbox);
    assert_eq!(kept.len(), 4);
    assert_eq!(sandbox.detach(["-w", "-o", "named.log", "echo", "word"]).status, 0);
    // Even in this directory, a file that the user has named is the user's.
    let named = sandbox.state().join("named-99999999.log");
    assert_eq!(sandbox.detach(["-w", "-o", named.to_str().unwrap(), "echo", "word"]).status, 0);
    assert_eq!(sandbox.detach(["-w", "sh", "-c", "head -c 5000 /dev/zero"]).status, 0);
    let ended = sandbox.job(["--full", "-t", "true"]);
    eventually(|| sandbox.records().iter().any(|record| record["end"]["status"] == 0));
    eventually(|| sandbox.processes().len() == 3);
    assert!(ended.is_dead());

    let mut terminal = Terminal::open(&sandbox);
    let (status, screen) = terminal.run("detach --prune");
    assert_eq!(status, 0);
    assert!(screen.contains("detach: removed 3 jobs that had ended, "), "{screen:?}");
    assert!(screen.contains(" KiB\r\n"), "{screen:?}");
    // Its record alone tells it from a log.
    assert_eq!(names(&sandbox).len(), kept.len() + 2);
    assert!(kept.iter().all(|name| names(&sandbox).contains(name)) && named.exists());
    assert_eq!(fs::read_to_string(sandbox.path("work/named.log")).unwrap(), "word\n");
    assert!(running.is_alive() && tracked.is_alive());
    let screen = terminal.run("detach --prune").1;
    assert!(screen.contains("detach: removed 0 jobs that had ended, 0 B\r\n"), "{screen:?}");
}

#[test]
fn prune_leaves_what_is_younger() {
    let sandbox = Sandbox::new();
    for name in ["old", "talker", "young"] {
        assert_eq!(sandbox.detach(["-w", "-N", name, "true"]).status, 0);
    }
    for name in names(&sandbox) {
        set_age(&sandbox.state().join(name), "3 hours");
    }
    // This one has written to its log not long ago.
    let log =
        |name: &str| sandbox.state().join(names(&sandbox).into_iter().find(|file| file.starts_with(name)).unwrap());
    set_age(&log("talker"), "1 hour");
    set_age(&log("young"), "1 hour");
    assert_eq!(sandbox.detach(["--prune=4h"]).status, 0);
    assert_eq!(names(&sandbox).len(), 6);
    // And the record of this one was written not long ago: at its end, if it was tracked.
    let record = sandbox.files(".json").into_iter().find(|name| {
        let text = fs::read_to_string(sandbox.state().join(name)).unwrap();
        text.contains("\"name\":\"young\"")
    });
    set_age(&log("young"), "3 hours");
    set_age(&sandbox.state().join(record.unwrap()), "1 hour");
    assert_eq!(sandbox.detach(["--prune=2h"]).status, 0);
    assert_eq!(names(&sandbox).len(), 4);
    assert!(!names(&sandbox).iter().any(|name| name.starts_with("old")));
    assert_eq!(sandbox.detach(["--prune=0.5h"]).status, 0);
    assert_eq!(names(&sandbox), [""; 0]);
}

#[test]
fn prune_removes_what_killed_starts_have_left() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let kept = names(&sandbox);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let ended = sandbox.job(["true"]);
    eventually(|| ended.is_dead());
    let make = |name: &str, age: &str| {
        fs::write(sandbox.state().join(name), "x").unwrap();
        set_age(&sandbox.state().join(name), age);
    };
    // The process of this log lives; its record could not be written.
    make(&format!("lives-{}.log", job.pid), "1 hour");
    make(&format!("lives-{}-2.log", job.pid), "1 hour");
    make(&format!("dead-{}.log", ended.pid), "1 hour");
    make("no-number.log", "1 hour");
    make(&format!("7-1-{}.tmp", boot.trim()), "1 hour");
    make(&format!("8-1-{}.tmp", boot.trim()), "1 second");
    make("notes.txt", "1 hour");
    // What is no file is nobody's to remove, and in nobody's way.
    fs::create_dir(sandbox.state().join(format!("a-{}.log", ended.pid))).unwrap();
    assert_eq!(sandbox.detach(["--prune"]).status, 0);
    let mut expected = kept.clone();
    expected.push(format!("a-{}.log", ended.pid));
    expected.extend(["no-number.log".into(), "notes.txt".into(), format!("8-1-{}.tmp", boot.trim())]);
    expected.extend([format!("lives-{}.log", job.pid), format!("lives-{}-2.log", job.pid)]);
    expected.sort();
    assert_eq!(names(&sandbox), expected);
}

#[test]
fn log_in_use_is_not_removed_with_an_older_record_that_names_it() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let names_before = names(&sandbox);
    let name = sandbox.files(".json").remove(0);
    let text = fs::read_to_string(sandbox.state().join(&name)).unwrap();
    // The record of a process that had the same PID before: its log has been removed, and its name used again.
    let start_time = name.split('-').nth(1).unwrap();
    let older = name.replacen(start_time, "1", 1);
    let text = text.replace(&format!("\"start_time\":{start_time}"), "\"start_time\":1");
    fs::write(sandbox.state().join(older), text).unwrap();
    assert_eq!(sandbox.detach(["--prune"]).status, 0);
    assert_eq!(names(&sandbox), names_before);
    assert!(job.is_alive());
}

#[test]
fn log_of_a_record_that_cannot_be_read_stays() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.detach(["-w", "true"]).status, 0);
    let record = sandbox.state().join(sandbox.files(".json").remove(0));
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("\"version\":1", "\"version\":9")).unwrap();
    assert_eq!(sandbox.detach(["-q", "--prune"]).status, 0);
    assert_eq!(names(&sandbox).len(), 2);
}
