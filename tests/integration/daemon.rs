//! `--full`: the daemon sequence as the kernel shows it, each step with its override, and failures in between.
//!
//! The table of other ways to become a daemon is printed by `cargo bench --bench tables`.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal;

use crate::support::{DETACH, Process, Run, Sandbox, Terminal, all_pids, eventually, process_named_in};

/// A terminal that controls no session, and its path.
fn free_terminal() -> (PtyMaster, String) {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname_r(&master).unwrap();
    (master, path)
}

#[test]
fn daemon_is_in_the_state_of_the_classic_sequence() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    let file = sandbox.path("pid");
    terminal.succeeds(&format!("exec 9>lock; umask 027; detach -F -P sleep 60 > {}", file.display()));
    let job = process_named_in(&file);
    eventually(|| job.stat(4) == Some(std::process::id().to_string()));
    assert_ne!(job.session(), job.pid.as_raw());
    assert_ne!(job.session(), terminal.shell.session());
    assert!(Process::new(job.session()).is_dead(), "the session leader lives");
    assert_eq!((job.group(), job.terminal()), (job.pid.as_raw(), 0));
    assert_eq!(fs::read_link(job.file("cwd")).unwrap(), Path::new("/"));
    assert_eq!(job.status("Umask"), "0000");
    assert_eq!(job.signals("SigIgn"), [1, 17]);
    assert_eq!(job.signals("SigBlk"), [0; 0]);
    let descriptors = job.assert_descriptors(&[0, 1, 2]);
    assert!(descriptors.values().all(|path| path == Path::new("/dev/null")), "{descriptors:?}");
    // Nothing but the command stays, not even a zombie.
    let session = job.session().to_string();
    let left = all_pids().into_iter().map(Process::new);
    let left: Vec<i32> =
        left.filter(|process| process.stat(6).as_ref() == Some(&session)).map(|process| process.pid.as_raw()).collect();
    assert_eq!(left, [job.pid.as_raw()]);
}

#[test]
fn daemon_cannot_acquire_a_controlling_terminal() {
    requires!(perl);
    let sandbox = Sandbox::new();
    // Opened without O_NOCTTY, it becomes the controlling terminal of a session leader that has none.
    let script = "open my $terminal, '+<', $ARGV[0] or die; open my $f, '>', $ARGV[1] or die; print $f qq($$\\n); \
                  close $f; sleep 60";
    for (option, acquires) in [("--full", false), ("-q", true)] {
        let (_master, path) = free_terminal();
        let file = sandbox.path(option);
        let mut command = sandbox.command(DETACH);
        Run::of(command.args([option, "perl", "-e", script, &path]).arg(&file)).succeeds();
        let job = process_named_in(&file);
        assert_eq!(job.terminal() != 0, acquires, "{option}");
    }
}

#[test]
fn signal_to_the_group_reaches_the_tree_of_a_daemon() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["--full", "sh", "-c", "sleep 60 & sleep 60; :"]);
    let tree = sandbox.jobs(3);
    sandbox.sh(&format!("kill -- -{}", job.pid)).succeeds();
    eventually(|| tree.iter().all(Process::is_dead));
}

/// Starts a daemon with a pipe on stdin and descriptor 9 open.
#[track_caller]
fn start_daemon(sandbox: &Sandbox, options: &str) -> Process {
    sandbox.write("in", "hi\n");
    Process::started(&sandbox.sh(&format!("exec 9>lock; echo | detach -P -F {options} sleep 60")).succeeds())
}

#[test]
fn directory_umask_and_sigchld_of_a_daemon_can_be_chosen() {
    let sandbox = Sandbox::new();
    assert_eq!(fs::read_link(start_daemon(&sandbox, "-C .").file("cwd")).unwrap(), sandbox.path("work"));
    assert_eq!(start_daemon(&sandbox, "-m 077").status("Umask"), "0077");
    assert_eq!(start_daemon(&sandbox, "--sigchld default").signals("SigIgn"), [1]);
    assert_eq!(start_daemon(&sandbox, "--sigchld=ignore").signals("SigIgn"), [1, 17]);
}

#[test]
fn streams_and_descriptors_of_a_daemon_can_be_chosen() {
    let sandbox = Sandbox::new();
    let target = |job: &Process, fd: i32| job.descriptors().remove(&fd).unwrap();
    start_daemon(&sandbox, "--keep-fd 9").assert_descriptors(&[0, 1, 2, 9]);
    assert_eq!(target(&start_daemon(&sandbox, "-i in"), 0), sandbox.work("in"));
    assert!(target(&start_daemon(&sandbox, "-i -"), 0).to_string_lossy().starts_with("pipe:"));
    let job = start_daemon(&sandbox, "-o out");
    assert_eq!([target(&job, 1), target(&job, 2)], [sandbox.work("out"), sandbox.work("out")]);
    let job = start_daemon(&sandbox, "-e err");
    assert_eq!([target(&job, 1), target(&job, 2)], [PathBuf::from("/dev/null"), sandbox.work("err")]);
    assert_eq!(sandbox.logs(), [""; 0], "no stream needs a log");
}

#[test]
fn paths_of_a_daemon_are_relative_to_the_directory_of_the_caller() {
    let sandbox = Sandbox::new();
    sandbox.script("server", "#!/bin/sh\necho \"$0\"; pwd; exec sleep 60\n");
    sandbox.detach(["-F", "-o", "out", "--pidfile", "pid", "./server"]).succeeds_silently();
    let expected = format!("{}\n/\n", sandbox.work("./server").display());
    eventually(|| fs::read_to_string(sandbox.work("out")).is_ok_and(|text| text == expected));
    assert_eq!(sandbox.read("pid"), format!("{}\n", sandbox.only_job().pid));
}

#[test]
fn daemon_sees_its_name_as_it_was_typed() {
    let sandbox = Sandbox::new();
    symlink("/bin/sleep", sandbox.work("nap")).unwrap();
    let job = sandbox.job(["-F", "./nap", "60"]);
    assert_eq!(job.words("cmdline"), [&b"./nap"[..], b"60"]);
}

#[test]
fn failed_exec_of_a_daemon_is_reported() {
    let sandbox = Sandbox::new();
    sandbox.script("bad", "#!/no/such\n");
    sandbox.write("plain", "");
    for (command, status, reason) in [
        ("./missing", 127, "no such file or directory"),
        ("./bad", 127, "its interpreter '/no/such' does not exist"),
        ("./plain", 126, "permission denied"),
        ("/", 126, "is a directory"),
    ] {
        let stderr = format!("detach: cannot run '{command}': {reason}");
        sandbox.detach(["--full", "--pidfile", "pid", command]).fails(status, &stderr);
        sandbox.assert_nothing_left();
        assert!(!sandbox.work("pid").exists());
    }
    let stderr = "detach: cannot change directory to 'missing': no such file or directory";
    sandbox.detach(["--full", "-C", "missing", "true"]).fails(125, stderr);
}

#[test]
fn failed_step_of_the_sequence_is_named() {
    requires!(strace);
    for (call, sentence) in [
        ("clone", "cannot start 'sleep': the limit on the number of processes is reached"),
        ("setsid", "cannot create a new session: resource temporarily unavailable"),
        ("setpgid", "cannot create a new process group: resource temporarily unavailable"),
        ("chdir", "cannot change directory to '/': resource temporarily unavailable"),
        // The first call of detach asks whether the kernel has it, so the second of a process fails.
        ("close_range", "cannot close descriptors: resource temporarily unavailable"),
        ("dup2", "cannot redirect the standard streams: resource temporarily unavailable"),
    ] {
        let sandbox = Sandbox::new();
        let when = if call == "close_range" { 2 } else { 1 };
        let inject = format!("strace -f -o ../trace -e trace={call} -e inject={call}:error=EAGAIN:when={when}");
        let run = sandbox.sh(&format!("exec 9>lock; {inject} detach --full --keep-fd 9 --pidfile ../pid sleep 60"));
        run.fails(125, &format!("detach: {sentence}"));
        sandbox.jobs(0);
        sandbox.assert_nothing_left();
        assert!(!sandbox.path("pid").exists(), "{call}");
    }
}

#[test]
fn verbose_daemon_names_the_eight_steps() {
    let sandbox = Sandbox::new();
    // The shell has two descriptors open, and none that the test process has inherited.
    let script = "for fd in /proc/$$/fd/*; do n=${fd##*/}; [ $n -lt 3 ] || eval \"exec $n>&-\"; done
        exec 8>a 9>b; detach -vvF --json sleep 60";
    let run = sandbox.bash(script);
    let record: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let job = sandbox.only_job();
    let (pid, session) = (job.pid, job.session());
    let lines: Vec<&str> = run.stderr.lines().collect();
    let launcher = lines[0].split(' ').nth(1).unwrap();
    let sleep = sandbox.sh("command -v sleep").stdout;
    let width = [launcher.len(), session.to_string().len(), pid.to_string().len()].into_iter().max().unwrap();
    let steps = [
        (launcher.to_owned(), None, "signals", "SIGHUP ignored, all others blocked".into()),
        (launcher.to_owned(), Some(1), "fork", format!("child {session}, the parent returns")),
        (session.to_string(), Some(2), "setsid", format!("session {session}, no controlling terminal")),
        (session.to_string(), Some(3), "fork", format!("SIGHUP ignored, child {pid}, the session leader exits")),
        (pid.to_string(), None, "setpgid", format!("process group {pid}")),
        (pid.to_string(), Some(4), "chdir", "/".into()),
        (pid.to_string(), Some(5), "umask", "000".into()),
        (pid.to_string(), Some(6), "close", "descriptors from 3 on: 2".into()),
        (pid.to_string(), Some(7), "redirect", "stdin from /dev/null, output discarded".into()),
        (pid.to_string(), Some(8), "sigchld", "ignored".into()),
        (pid.to_string(), None, "record", "written".into()),
        (pid.to_string(), None, "signals", "SIGHUP ignored, none blocked".into()),
        (pid.to_string(), None, "exec", sleep.trim().to_owned()),
    ];
    let mut expected = String::new();
    for (pid, number, name, result) in &steps {
        let number = number.map_or(" ".to_owned(), |number: u8| number.to_string());
        let _ = writeln!(expected, "detach: {pid:width$} {number} {name:8} {result}");
    }
    let _ = writeln!(expected, "detach: 'sleep' (PID {pid}), output discarded");
    assert_eq!(run.stderr, expected);
    let same = steps.map(|(pid, number, name, result)| {
        serde_json::json!({ "pid": pid.parse::<i32>().unwrap(), "number": number, "name": name, "result": result })
    });
    assert_eq!(record["steps"], serde_json::json!(same));
}

#[test]
fn steps_of_the_sequence_are_taken_in_order() {
    requires!(strace);
    let sandbox = Sandbox::new();
    let calls = "clone,clone3,vfork,setsid,setpgid,chdir,umask,close_range,dup2,rt_sigaction,execve,exit";
    sandbox.sh(&format!("strace -f -o trace -e trace={calls} detach --full true")).succeeds();
    let trace = sandbox.read("trace");
    let mut rest = trace.as_str();
    for call in [
        "rt_sigaction(SIGHUP, {sa_handler=SIG_IGN",
        "CLONE_VFORK",
        "setsid()",
        "rt_sigaction(SIGHUP, {sa_handler=SIG_IGN",
        "CLONE_VFORK",
        "setpgid(",
        "chdir(\"/\")",
        "umask(000)",
        "close_range(",
        "dup2(",
        ", 0)",
        ", 1)",
        ", 2)",
        "rt_sigaction(SIGCHLD, {sa_handler=SIG_IGN",
        "execve(",
    ] {
        let Some((_, after)) = rest.split_once(call) else { panic!("{call} is not where it should be:\n{trace}") };
        rest = after;
    }
    // SIGHUP is never anything but ignored.
    assert!(!trace.contains("rt_sigaction(SIGHUP, {sa_handler=SIG_DFL"), "{trace}");
}

#[test]
fn closing_descriptors_costs_the_same_whatever_their_limit() {
    requires!(strace);
    let sandbox = Sandbox::new();
    let count = |limit: &str| {
        sandbox.sh(&format!("ulimit -n {limit}; strace -f -o trace detach -qF -w true")).succeeds();
        let trace = sandbox.read("trace");
        // What happens between the exec of detach and that of the command. Other calls do not count: a tick of the
        // clock leads to a look at /proc.
        let calls = trace.split("\"true\"], ").nth(1).unwrap().lines();
        calls.filter(|call| call.contains("close_range(") || call.contains("EBADF")).count()
    };
    let usual = count("1024");
    assert_ne!(usual, 0);
    assert_eq!(count(sandbox.sh("ulimit -Hn").succeeds().trim()), usual);
    // Whether more is possible depends on the machine.
    if sandbox.sh("ulimit -n 1000000").status == 0 {
        assert_eq!(count("1000000"), usual);
    }
}

/// Dispositions of SIGCHLD, and whether programs that wait for their children work. With SIGCHLD ignored the kernel
/// discards the statuses of children (wait(2)).
const SIGCHLD: [(&str, bool); 2] = [("--sigchld=ignore", false), ("--sigchld=default", true)];

#[test]
fn python_sees_the_status_of_a_child_only_with_default_sigchld() {
    requires!(python3);
    let sandbox = Sandbox::new();
    let script = "import subprocess; print(subprocess.run(['false']).returncode)";
    for (option, works) in SIGCHLD {
        sandbox.detach(["-qwF", option, "-o", "out", "python3", "-c", script]).succeeds_silently();
        assert_eq!(sandbox.read("out"), if works { "1\n" } else { "0\n" }, "{option}");
        sandbox.remove("out");
    }
}

#[test]
fn git_runs_aliases_only_with_default_sigchld() {
    requires!(git);
    let sandbox = Sandbox::new();
    sandbox.sh("git init -q .").succeeds_silently();
    for (option, works) in SIGCHLD {
        let run = sandbox.detach(["-qwF", "-C", ".", option, "git", "-c", "alias.x=!true", "x"]);
        assert_eq!(run.status == 0, works, "{run:?}");
    }
}

#[test]
fn cargo_builds_only_with_default_sigchld() {
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir src && echo 'fn main() {}' > src/main.rs").succeeds_silently();
    sandbox.write("Cargo.toml", "[package]\nname = \"nothing\"\nedition = \"2024\"\n");
    // The tools that build this test: with another HOME, rustup would not find them.
    let cargo = Path::new(env!("CARGO"));
    for (option, works) in SIGCHLD {
        let mut command = sandbox.command(DETACH);
        command.env("RUSTC", cargo.with_file_name("rustc")).args(["-qwF", "-C", ".", option]).arg(cargo);
        let run = Run::of(command.args(["build", "--offline", "--quiet"]));
        assert_eq!(run.status == 0, works, "{run:?}");
    }
}

#[test]
fn daemon_can_be_waited_for() {
    let sandbox = Sandbox::new();
    sandbox.detach(["-qwF", "sh", "-c", "exit 42"]).exits_silently(42);
}

#[test]
fn daemon_that_fails_while_settling_is_reported() {
    let sandbox = Sandbox::new();
    let run = sandbox.detach(["-F", "--settle", "20", "sh", "-c", "kill -TERM $$"]).exits(143);
    assert!(run.stderr.starts_with("detach: 'sh' was killed by SIGTERM after "), "{run:?}");
}

#[test]
fn daemon_that_outlives_settling_has_no_parent_of_detach() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["-F", "--settle", "20ms", "sleep", "60"]);
    assert_eq!(job.parent(), std::process::id().cast_signed());
}

#[test]
fn daemon_starts_without_environment_session_streams_or_directory() {
    let warning = "detach: warning: cannot record job 'sleep': cannot find a place for logs and records: \
                   HOME is not set to an absolute path";
    for (script, stderr) in [
        ("exec env -i \"$1\" \"$0\" -F sleep 60", warning),
        ("exec setsid \"$0\" -F sleep 60", ""),
        ("exec \"$0\" -F sleep 60 <&- >&- 2>&-", ""),
        ("cd /; exec \"$0\" -F sleep 60 < /dev/null > /dev/null", ""),
    ] {
        let sandbox = Sandbox::new();
        let mark = sandbox.mark();
        Run::of(sandbox.command("sh").args(["-c", script, DETACH, &mark])).warns(stderr);
        let job = sandbox.only_job();
        assert_eq!((job.signals("SigIgn"), job.terminal()), (vec![1, 17], 0), "{script}");
    }
}

#[test]
fn daemon_starts_for_a_user_without_a_home() {
    requires!(root, setpriv);
    let sandbox = Sandbox::new();
    let program = sandbox.copy_of_detach();
    Run::of(sandbox.command_as(65534, program).args(["-qF", "sleep", "60"])).succeeds_silently();
    sandbox.only_job();
}

#[test]
fn watched_daemon_collects_no_zombies() {
    let sandbox = Sandbox::new();
    let orphan = "sh -c 'sleep 0.1 & echo $! > orphan.new; mv orphan.new orphan' & exec sleep 60";
    let mut waiting = sandbox.command(DETACH).args(["-qwF", "-C", ".", "sh", "-c", orphan]).spawn().unwrap();
    let orphan = process_named_in(&sandbox.work("orphan"));
    let detach = waiting.id().to_string();
    // It is gone, or a zombie of the process that reaps orphans here, but not one of detach.
    eventually(|| orphan.is_dead() && orphan.stat(4).as_ref() != Some(&detach));
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}

#[test]
fn killed_intermediate_process_takes_its_child_with_it() {
    requires!(strace);
    let sandbox = Sandbox::new();
    // The second child is held up in its chdir; the first waits for it, and is killed.
    let mut command = sandbox.command("strace");
    command.args(["-f", "-o", "trace", "-e", "trace=chdir", "-e", "inject=chdir:delay_enter=5s", DETACH]);
    let traced = command.args(["--full", "sleep", "60"]).stderr(Stdio::piped()).spawn().unwrap();
    let leads = Process::leads_session;
    let groups = |process: &Process| process.stat(5) == Some(process.pid.to_string()) && !leads(process);
    let second =
        |sandbox: &Sandbox| sandbox.processes().into_iter().find(|p| groups(p) && p.stat(4) != Some("1".into()));
    eventually(|| sandbox.processes().iter().any(leads) && second(&sandbox).is_some());
    let intermediate = sandbox.processes().into_iter().find(leads).unwrap();
    intermediate.signal(Signal::SIGKILL);
    let run = Run::from(traced.wait_with_output().unwrap());
    // strace may report the death of a process that it holds up.
    let said: Vec<&str> = run.stderr.lines().filter(|line| !line.starts_with("strace: ")).collect();
    let refusal = "detach: cannot start 'sleep': its process was killed before it ran the command";
    assert_eq!((run.status, said), (125, vec![refusal]));
    sandbox.jobs(0);
    assert_eq!(sandbox.records(), [""; 0]);
}

#[test]
fn failed_second_fork_is_named() {
    requires!(root, setpriv, prlimit);
    let sandbox = Sandbox::new();
    let mut command = sandbox.command_as(54322, "prlimit");
    command.arg("--nproc=2").arg(sandbox.copy_of_detach());
    let stderr = "detach: cannot fork a second time: resource temporarily unavailable";
    Run::of(command.args(["--full", "sleep", "60"])).fails(125, stderr);
    sandbox.jobs(0);
}

#[test]
fn null_device_is_not_made_and_nothing_takes_its_place() {
    requires!(root, unshare);
    let sandbox = Sandbox::new();
    // A /dev without null, and with a file of that name.
    let script = "mount -t tmpfs none /dev || exit 99
        for round in 1 2; do
            detach --full sleep 60; detach -o /dev/null sleep 60; detach -i /dev/null -o out sleep 60; detach -t -o out true
            detach sleep 60 <&-
            ls /dev; echo kept > /dev/null
        done
        detach --full sleep 60; cat /dev/null";
    let run = Run::of(sandbox.command("unshare").args(["--mount", "sh", "-c", script])).exits(0);
    let errors = |reason: &str| {
        [
            "write output to '/dev/null'",
            "write output to '/dev/null'",
            "read input from '/dev/null'",
            "open '/dev/null'",
        ]
        .map(|what| format!("detach: cannot {what}: {reason}\n"))
        .concat()
            + &format!("detach: cannot open /dev/null for a closed stream: {reason}\n")
    };
    let [missing, other] = ["no such file or directory", "no such device"].map(errors);
    assert_eq!(run.stderr, format!("{missing}{other}detach: cannot write output to '/dev/null': no such device\n"));
    assert_eq!(run.stdout, "null\nkept\n");
    sandbox.assert_nothing_left();
}

#[test]
fn signal_reaches_a_command_that_has_moved_to_another_process_group() {
    requires!(perl);
    let sandbox = Sandbox::new();
    // The group of another process of its session. Nothing is left in its own.
    let script = "my $other = fork; unless ($other) { setpgrp; sleep 60; exit }
        select undef, undef, undef, 0.001 until getpgrp $other == $other;
        $SIG{TERM} = sub { open my $got, '>', 'got'; exit };
        setpgrp 0, $other or die; open my $ready, '>', 'ready'; close $ready; sleep 60 while 1";
    let start = || {
        sandbox.remove("ready");
        let job = sandbox.job(["--full", "-C", &sandbox.work("").display().to_string(), "perl", "-e", script]);
        eventually(|| sandbox.work("ready").exists());
        assert_ne!(job.group(), job.pid.as_raw());
        job
    };
    let job = start();
    let note = format!("detach: sent SIGTERM to 'perl' (PID {})", job.pid);
    sandbox.detach(["-v", "--stop", "--signal", "TERM", &job.pid.to_string()]).warns(&note);
    eventually(|| job.is_dead());
    assert!(sandbox.work("got").exists());
    sandbox.detach(["--stop", &job.pid.to_string()]).succeeds_silently();
    sandbox.remove("got");
    let job = start();
    let note = format!("detach: 'perl' (PID {}) ended", job.pid);
    sandbox.detach(["-v", "--stop", &job.pid.to_string()]).warns(&note);
    assert!(sandbox.work("got").exists());
}
