//! `--full`: the daemon sequence as the kernel shows it, each step with its override, and `--pidfile`.
//!
//! `cargo test daemon_table -- --ignored --nocapture` prints the table of the README, which measures other ways to
//! become a daemon in the same way.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal;

use crate::support::{
    DETACH, Process, Run, Sandbox, Terminal, eventually, is_installed, is_root, process_named_in, sleeper,
};

/// A terminal that is nobody's controlling terminal, and its path.
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
    terminal.run(&format!("exec 9>lock; umask 027; detach -F -P sleep 60 > {}", file.display()));
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
    let left = crate::support::all_pids().into_iter().map(Process::new);
    let left: Vec<i32> =
        left.filter(|process| process.stat(6).as_ref() == Some(&session)).map(|process| process.pid.as_raw()).collect();
    assert_eq!(left, [job.pid.as_raw()]);
}

#[test]
fn daemon_cannot_acquire_a_controlling_terminal() {
    if !is_installed("perl") {
        return;
    }
    let sandbox = Sandbox::new();
    // Opened without O_NOCTTY, it becomes that of a session leader that has none.
    let script = "open my $terminal, '+<', $ARGV[0] or die; open my $f, '>', $ARGV[1] or die; print $f qq($$\\n); \
                  close $f; sleep 60";
    for (option, acquires) in [("--full", false), ("-q", true)] {
        let (_master, path) = free_terminal();
        let file = sandbox.path(option);
        let mut command = sandbox.command(DETACH);
        let run = Run::of(command.args([option, "perl", "-e", script, &path]).arg(&file));
        assert_eq!((run.status, run.stderr.as_str()), (0, ""));
        let job = process_named_in(&file);
        assert_eq!(job.terminal() != 0, acquires, "{option}");
    }
}

#[test]
fn signal_to_the_group_reaches_the_tree_of_a_daemon() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["--full", "sh", "-c", "sleep 60 & sleep 60; :"]);
    let tree = sandbox.jobs(3);
    assert_eq!(sandbox.sh(&format!("kill -- -{}", job.pid)).status, 0);
    eventually(|| tree.iter().all(Process::is_dead));
}

#[test]
fn every_step_of_the_sequence_can_be_overridden() {
    let sandbox = Sandbox::new();
    let start = |options: &str| {
        let run = sandbox.sh(&format!("echo hi > in; exec 9>lock; echo | detach -P -F {options} sleep 60"));
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{options}");
        Process::started(&run.stdout)
    };
    let work = sandbox.path("work");
    let leads = |job: &Process, fd: i32| job.descriptors().remove(&fd).unwrap();
    assert_eq!(fs::read_link(start("-C .").file("cwd")).unwrap(), work);
    assert_eq!(start("-m 077").status("Umask"), "0077");
    start("--keep-fd 9").assert_descriptors(&[0, 1, 2, 9]);
    assert_eq!(leads(&start("-i in"), 0), work.join("in"));
    assert!(leads(&start("-i -"), 0).to_string_lossy().starts_with("pipe:"));
    let job = start("-o out");
    assert_eq!([leads(&job, 1), leads(&job, 2)], [work.join("out"), work.join("out")]);
    let job = start("-e err");
    assert_eq!([leads(&job, 1), leads(&job, 2)], [PathBuf::from("/dev/null"), work.join("err")]);
    assert_eq!(start("--sigchld default").signals("SigIgn"), [1]);
    assert_eq!(start("--sigchld=ignore").signals("SigIgn"), [1, 17]);
    // No log is made where nothing goes to one.
    assert_eq!(sandbox.files(".log"), [""; 0]);
}

#[test]
fn daemon_is_found_from_the_callers_directory() {
    let sandbox = Sandbox::new();
    sandbox.script("server", "#!/bin/sh\necho \"$0\"; pwd; exec sleep 60\n");
    std::os::unix::fs::symlink("/bin/sleep", sandbox.path("work/nap")).unwrap();
    let run = sandbox.detach(["-F", "-o", "out", "--pidfile", "pid", "./server"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let expected = format!("{}\n/\n", sandbox.path("work/./server").display());
    eventually(|| fs::read_to_string(sandbox.path("work/out")).is_ok_and(|text| text == expected));
    assert_eq!(fs::read_to_string(sandbox.path("work/pid")).unwrap(), format!("{}\n", sandbox.jobs(1)[0].pid));
    let job = sandbox.job(["-F", "./nap", "60"]);
    assert_eq!(job.words("cmdline"), [&b"./nap"[..], b"60"]);
}

#[test]
fn failed_exec_of_a_daemon_is_reported() {
    let sandbox = Sandbox::new();
    sandbox.script("bad", "#!/no/such\n");
    fs::write(sandbox.path("work/plain"), "").unwrap();
    for (command, status, reason) in [
        ("./missing", 127, "no such file or directory"),
        ("./bad", 127, "its interpreter '/no/such' does not exist"),
        ("./plain", 126, "permission denied"),
        ("/", 126, "is a directory"),
    ] {
        let run = sandbox.detach(["--full", "--pidfile", "pid", command]);
        let stderr = format!("detach: cannot run '{command}': {reason}\n");
        assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (status, "", stderr.as_str()));
        sandbox.assert_nothing_left();
        assert!(!sandbox.path("work/pid").exists());
    }
    let run = sandbox.detach(["--full", "-C", "missing", "true"]);
    let stderr = "detach: cannot change directory to 'missing': no such file or directory\n";
    assert_eq!((run.status, run.stderr.as_str()), (125, stderr));
}

#[test]
fn failed_step_of_the_sequence_is_named() {
    if !is_installed("strace") {
        return;
    }
    for (call, sentence) in [
        ("clone", "cannot start 'sleep': no more processes are allowed"),
        ("setsid", "cannot make a new session: resource temporarily unavailable"),
        ("setpgid", "cannot make a new process group: resource temporarily unavailable"),
        ("chdir", "cannot change directory to '/': resource temporarily unavailable"),
        ("close_range", "cannot close descriptors: resource temporarily unavailable"),
        ("dup2", "cannot redirect the standard streams: resource temporarily unavailable"),
    ] {
        let sandbox = Sandbox::new();
        let inject = format!("strace -f -o ../trace -e trace={call} -e inject={call}:error=EAGAIN:when=1");
        let run = sandbox.sh(&format!("{inject} detach --full --pidfile ../pid sleep 60"));
        assert_eq!((run.status, run.stderr), (125, format!("detach: {sentence}\n")), "{call}");
        sandbox.jobs(0);
        sandbox.assert_nothing_left();
        assert!(!sandbox.path("pid").exists(), "{call}");
    }
}

#[test]
fn verbose_daemon_names_the_eight_steps() {
    let sandbox = Sandbox::new();
    // Two descriptors to close, and none that the test has inherited itself.
    let script = "for fd in /proc/$$/fd/*; do n=${fd##*/}; [ $n -lt 3 ] || eval \"exec $n>&-\"; done
        exec 8>a 9>b; detach -vF --json sleep 60";
    let run = Run::of(sandbox.command("bash").args(["-c", script]));
    let record: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let job = sandbox.jobs(1).remove(0);
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
    let _ = writeln!(expected, "detach: 'sleep', PID {pid}, output discarded");
    assert_eq!(run.stderr, expected);
    let same = steps.map(|(pid, number, name, result)| {
        serde_json::json!({ "pid": pid.parse::<i32>().unwrap(), "number": number, "name": name, "result": result })
    });
    assert_eq!(record["steps"], serde_json::json!(same));
}

#[test]
fn steps_are_taken_in_their_order() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    let calls = "clone,clone3,vfork,setsid,setpgid,chdir,umask,close_range,dup2,rt_sigaction,execve,exit";
    let run = sandbox.sh(&format!("strace -f -o trace -e trace={calls} detach --full true"));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let trace = fs::read_to_string(sandbox.path("work/trace")).unwrap();
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
fn closing_costs_the_same_whatever_the_limit() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    let count = |limit: &str| {
        let run = sandbox.sh(&format!("ulimit -n {limit}; strace -f -o trace detach -qF -w true; echo $?"));
        assert_eq!(run.stdout, "0\n", "{run:?}");
        let trace = fs::read_to_string(sandbox.path("work/trace")).unwrap();
        // From the exec of detach to that of the command; what that does is its own. Whether the clock has ticked, which
        // costs a look at /proc, is not what is asked here.
        let calls = trace.split("\"true\"], ").nth(1).unwrap().lines();
        calls.filter(|call| call.contains("close_range(") || call.contains("EBADF")).count()
    };
    let hard = sandbox.sh("ulimit -Hn").stdout;
    let usual = count("1024");
    assert_ne!(usual, 0);
    assert_eq!(count(hard.trim()), usual);
    if is_root() {
        assert_eq!(count("1000000"), usual);
    }
}

/// With SIGCHLD ignored the kernel throws the statuses of children away: wait(2).
#[test]
fn ignored_sigchld_breaks_programs_that_wait_for_their_children() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.sh("git init -q . && mkdir src && echo 'fn main() {}' > src/main.rs").status, 0);
    fs::write(sandbox.path("work/Cargo.toml"), "[package]\nname = \"nothing\"\nedition = \"2024\"\n").unwrap();
    // The tools that build this test: under another HOME, rustup would not find them.
    let cargo = Path::new(env!("CARGO"));
    let python = "import subprocess; print(subprocess.run(['false']).returncode)";
    for (sigchld, code, works) in [("ignore", "0\n", false), ("default", "1\n", true)] {
        let option = format!("--sigchld={sigchld}");
        if is_installed("python3") {
            let run = sandbox.detach(["-qwF", &option, "-o", "out", "python3", "-c", python]);
            assert_eq!(run.status, 0);
            assert_eq!(fs::read_to_string(sandbox.path("work/out")).unwrap(), code, "{sigchld}");
            fs::remove_file(sandbox.path("work/out")).unwrap();
        }
        if is_installed("git") {
            let run = sandbox.detach(["-qwF", "-C", ".", &option, "git", "-c", "alias.x=!true", "x"]);
            assert_eq!(run.status == 0, works, "{sigchld}: {run:?}");
        }
        let mut command = sandbox.command(DETACH);
        command.env("RUSTC", cargo.with_file_name("rustc")).args(["-qwF", "-C", ".", &option]).arg(cargo);
        let run = Run::of(command.args(["build", "--offline", "--quiet"]));
        assert_eq!(run.status == 0, works, "{sigchld}: {run:?}");
    }
}

#[test]
fn daemon_can_be_waited_for_and_watched() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.detach(["-qwF", "sh", "-c", "exit 42"]).status, 42);
    assert_eq!(sandbox.detach(["-qF", "--settle", "20", "sh", "-c", "kill -TERM $$"]).status, 143);
    let run = sandbox.detach(["-F", "--settle", "20ms", "-P", "sleep", "60"]);
    let job = Process::started(&run.stdout);
    assert_eq!(job.parent(), std::process::id().cast_signed());
}

#[test]
fn daemon_starts_in_bare_surroundings() {
    let sandbox = Sandbox::new();
    let warning = "detach: warning: cannot record job 'sleep': cannot find a place for logs and records: \
                   HOME is not set to an absolute path\n";
    let mark = sandbox.mark();
    for (script, stderr) in [
        ("exec env -i \"$1\" \"$0\" -F sleep 60", warning),
        ("exec setsid \"$0\" -F sleep 60", ""),
        ("exec \"$0\" -F sleep 60 <&- >&- 2>&-", ""),
        ("cd /; exec \"$0\" -F sleep 60 < /dev/null > /dev/null", ""),
    ] {
        let before = sandbox.processes().len();
        let run = Run::of(sandbox.command("sh").args(["-c", script, DETACH, &mark]));
        assert_eq!((run.status, run.stderr.as_str()), (0, stderr), "{script}");
        let jobs = sandbox.jobs(before + 1);
        assert!(jobs.iter().all(|job| job.signals("SigIgn") == [1, 17] && job.terminal() == 0));
    }
    if is_root() && is_installed("setpriv") {
        let program = sandbox.path("detach");
        assert_eq!(Run::of(sandbox.command("cp").args([DETACH.as_ref(), program.as_os_str()])).status, 0);
        let mut command = sandbox.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program).args(["-qF", "sleep", "60"]);
        assert_eq!(Run::of(&mut command).status, 0);
        sandbox.jobs(5);
    }
}

#[test]
fn pidfile_holds_the_pid_and_is_locked_while_the_command_lives() {
    for option in ["--full", "-q"] {
        let sandbox = Sandbox::new();
        let file = sandbox.path("work/pid");
        let start = || sandbox.detach([option, "--pidfile", "pid", "sleep", "60"]);
        assert_eq!((start().status, fs::read_to_string(&file).unwrap()), (0, format!("{}\n", sandbox.jobs(1)[0].pid)));
        let job = sandbox.jobs(1).remove(0);

        let run = start();
        let stderr = format!("detach: cannot use pidfile '{}': process {} holds it\n", file.display(), job.pid);
        assert_eq!((run.status, run.stderr), (125, stderr));
        assert_eq!(sandbox.jobs(1)[0].pid, job.pid);
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{}\n", job.pid));

        // Nothing has to be cleaned up when it ends, however it ends.
        job.signal(Signal::SIGKILL);
        eventually(|| job.is_dead());
        assert_eq!(start().status, 0);
        let next = sandbox.jobs(1).remove(0);
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{}\n", next.pid));
    }
}

#[test]
fn stale_pidfile_is_taken_over() {
    let sandbox = Sandbox::new();
    // Longer than the new content, and with the PID of a process that lives: the lock counts, not the number.
    fs::write(sandbox.path("work/pid"), format!("{}\n\n   \n", std::process::id())).unwrap();
    let job = sandbox.job(["--pidfile", "pid", "sleep", "60"]);
    assert_eq!(fs::read_to_string(sandbox.path("work/pid")).unwrap(), format!("{}\n", job.pid));
}

#[test]
fn lock_of_a_pidfile_is_not_passed_on_to_children() {
    let sandbox = Sandbox::new();
    let child = sandbox.path("child");
    let script = format!("sh -c '{}' & wait", sleeper(&child));
    let job = sandbox.job(["--pidfile", "pid", "sh", "-c", &script]);
    let child = process_named_in(&child);
    job.signal(Signal::SIGKILL);
    eventually(|| job.is_dead());
    assert!(child.is_alive());
    let next = sandbox.job(["--pidfile", "pid", "sleep", "60"]);
    assert_eq!(fs::read_to_string(sandbox.path("work/pid")).unwrap(), format!("{}\n", next.pid));
}

#[test]
fn of_a_hundred_starts_with_one_pidfile_one_wins() {
    let sandbox = Sandbox::new();
    let starts: Vec<_> = (0..100)
        .map(|number: i32| {
            let mut command = sandbox.command(DETACH);
            command.args(["-P", "--pidfile", "pid", "sleep", "600"]).args((number % 2 == 0).then_some("0"));
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let runs: Vec<Run> = starts.into_iter().map(|start| Run::from(start.wait_with_output().unwrap())).collect();
    let winners: Vec<&Run> = runs.iter().filter(|run| run.status == 0).collect();
    assert_eq!(winners.len(), 1, "{runs:?}");
    let file = sandbox.path("work/pid");
    assert_eq!(fs::read_to_string(&file).unwrap(), winners[0].stdout);
    let stderr =
        format!("detach: cannot use pidfile '{}': process {} holds it\n", file.display(), winners[0].stdout.trim());
    for loser in runs.iter().filter(|run| run.status != 0) {
        assert_eq!((loser.status, &loser.stderr), (125, &stderr));
    }
    sandbox.jobs(1);
    // The winner's alone.
    assert_eq!((sandbox.files(".json").len(), sandbox.files(".log").len()), (1, 1));
}

#[test]
fn pidfile_is_held_whatever_else_is_open() {
    let sandbox = Sandbox::new();
    // A lock is lost when a descriptor of the file is closed: the caller's, or one that a script uses.
    let script = "for n in 3 4 5 6 7 8 9; do eval \"exec $n>/dev/null $n>&-\"; done; exec sleep 60";
    for (before, command) in [("exec 9>>pid", "sleep 60"), (":", &format!("sh -c '{script}'"))] {
        let start = format!("{before}; detach --pidfile pid {command}");
        assert_eq!(sandbox.sh(&start).status, 0);
        let job = sandbox.jobs(1).remove(0);
        job.wait_for_exec("sleep");
        assert_eq!(sandbox.sh(&start).status, 125, "{before}");
        job.signal(Signal::SIGKILL);
        sandbox.jobs(0);
    }
    for option in ["-o", "-e", "-i"] {
        fs::write(sandbox.path("work/pid"), "").unwrap();
        let run = sandbox.detach([option, "pid", "--pidfile", "./pid", "sleep", "60"]);
        let path = sandbox.path("work/pid").display().to_string();
        let stderr = format!("detach: cannot use pidfile '{path}': a standard stream leads there as well\n");
        assert_eq!((run.status, run.stderr), (125, stderr), "{option}");
    }
}

#[test]
fn starts_that_fail_do_not_disturb_one_that_succeeds() {
    let sandbox = Sandbox::new();
    // The failed ones make and remove the file all the time; a held one is the only reason to refuse.
    let run = sandbox.sh("for i in 1 2 3 4 5 6 7 8 9 10; do
        for j in 1 2 3 4 5; do detach -q --pidfile pid ./missing 2> /dev/null & done
        detach --pidfile pid true 2>> errors; wait; done; grep -v 'holds it$' errors");
    assert_eq!((run.status, run.stdout.as_str()), (1, ""));
}

#[test]
fn pidfile_of_others_is_emptied_not_removed_by_a_start_that_fails() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("work/pid"), "99999999\n").unwrap();
    assert_eq!(sandbox.detach(["--pidfile", "pid", "./missing"]).status, 127);
    assert_eq!(fs::read_to_string(sandbox.path("work/pid")).unwrap(), "");
    // What failed before it was taken has not touched it.
    fs::write(sandbox.path("work/pid"), "99999999\n").unwrap();
    assert_eq!(sandbox.detach(["--pidfile", "pid", "-C", "missing", "true"]).status, 125);
    assert_eq!(fs::read_to_string(sandbox.path("work/pid")).unwrap(), "99999999\n");
}

#[test]
fn watched_daemon_collects_no_zombies() {
    let sandbox = Sandbox::new();
    let orphan = "sh -c 'sleep 0.1 & echo $! > orphan.new; mv orphan.new orphan' & exec sleep 60";
    let mut waiting = sandbox.command(DETACH).args(["-qwF", "-C", ".", "sh", "-c", orphan]).spawn().unwrap();
    let orphan = process_named_in(&sandbox.path("work/orphan"));
    let detach = waiting.id().to_string();
    // Gone, or a zombie of whoever is the reaper here; but not one of detach.
    eventually(|| orphan.is_dead() && orphan.stat(4).as_ref() != Some(&detach));
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}

#[test]
fn killed_intermediate_process_takes_its_child_with_it() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    // The second child is held up in its chdir; the first waits for it, and is killed.
    let mut command = sandbox.command("strace");
    command.args(["-f", "-o", "trace", "-e", "trace=chdir", "-e", "inject=chdir:delay_enter=5s", DETACH]);
    let traced = command.args(["--full", "sleep", "60"]).stderr(Stdio::piped()).spawn().unwrap();
    let leads = |process: &Process| process.stat(6) == Some(process.pid.to_string());
    let groups = |process: &Process| process.stat(5) == Some(process.pid.to_string()) && !leads(process);
    let second =
        |sandbox: &Sandbox| sandbox.processes().into_iter().find(|p| groups(p) && p.stat(4) != Some("1".into()));
    eventually(|| sandbox.processes().iter().any(&leads) && second(&sandbox).is_some());
    let intermediate = sandbox.processes().into_iter().find(|process| leads(process)).unwrap();
    intermediate.signal(Signal::SIGKILL);
    let run = Run::from(traced.wait_with_output().unwrap());
    // strace may have something to say about the death of a process that it holds up.
    let said: Vec<&str> = run.stderr.lines().filter(|line| !line.starts_with("strace: ")).collect();
    assert_eq!((run.status, said), (125, vec!["detach: cannot start 'sleep': its process was killed before it ran"]));
    sandbox.jobs(0);
    assert_eq!(sandbox.files(".json"), [""; 0]);
}

#[test]
fn failed_second_fork_is_named() {
    if !is_root() || !is_installed("setpriv") || !is_installed("prlimit") {
        return;
    }
    let sandbox = Sandbox::new();
    let program = sandbox.path("detach");
    assert_eq!(Run::of(sandbox.command("cp").args([DETACH.as_ref(), program.as_os_str()])).status, 0);
    let mut command = sandbox.command("setpriv");
    command.args(["--reuid=54322", "--regid=54322", "--clear-groups", "prlimit", "--nproc=2"]).arg(&program);
    let run = Run::of(command.args(["--full", "sleep", "60"]));
    let stderr = "detach: cannot fork a second time: resource temporarily unavailable\n";
    assert_eq!((run.status, run.stderr.as_str()), (125, stderr));
    sandbox.jobs(0);
}

#[test]
fn pidfile_that_is_no_file_is_refused() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("work/target"), "target\n").unwrap();
    std::os::unix::fs::symlink("target", sandbox.path("work/link")).unwrap();
    assert_eq!(sandbox.sh("mkfifo fifo").status, 0);
    for (path, reason) in [
        ("link", "it is a symbolic link"),
        ("fifo", "it is not a regular file"),
        ("/dev/null", "it is not a regular file"),
        ("/", "is a directory"),
        ("no/pid", "no such file or directory"),
        ("", "no such file or directory"),
    ] {
        let run = sandbox.detach(["--pidfile", path, "sleep", "60"]);
        let path = if path.is_empty() { PathBuf::new() } else { sandbox.path("work").join(path) };
        let stderr = format!("detach: cannot use pidfile '{}': {reason}\n", path.display());
        assert_eq!((run.status, run.stderr), (125, stderr));
    }
    assert_eq!(fs::read_to_string(sandbox.path("work/target")).unwrap(), "target\n");
    sandbox.jobs(0);
}

#[test]
fn file_that_holds_something_else_is_no_pidfile() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("work/notes");
    for content in ["precious\n".to_owned(), "1".repeat(32)] {
        fs::write(&path, &content).unwrap();
        let run = sandbox.detach(["--pidfile", "notes", "sleep", "60"]);
        let stderr = format!("detach: cannot use pidfile '{}': it holds something else than a PID\n", path.display());
        assert_eq!((run.status, run.stderr), (125, stderr));
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    sandbox.jobs(0);
}

#[test]
fn pidfile_can_be_used_again_whatever_the_umask() {
    let sandbox = Sandbox::new();
    for umask in ["0", "077", "0777"] {
        assert_eq!(sandbox.sh(&format!("umask {umask}; detach --pidfile pid{umask} true")).status, 0);
        let mode = crate::support::mode(&sandbox.path(&format!("work/pid{umask}")));
        assert_eq!(mode, if umask == "0" { 0o644 } else { 0o600 });
    }
}

#[test]
fn failed_start_leaves_no_pidfile() {
    let sandbox = Sandbox::new();
    for arguments in [&["./missing"][..], &["-C", "missing", "true"], &["-F", "./missing"]] {
        let run = sandbox.detach(["--pidfile", "pid"].iter().chain(arguments));
        assert_ne!(run.status, 0);
        assert!(!sandbox.path("work/pid").exists(), "{arguments:?}");
    }
    let run = Run::of(sandbox.command(DETACH).env_remove("HOME").args(["--pidfile", "pid", "true"]));
    assert_eq!(run.status, 125);
    assert!(!sandbox.path("work/pid").exists());
    // One that another command holds is left alone.
    let job = sandbox.job(["--pidfile", "pid", "sleep", "60"]);
    assert_eq!(sandbox.detach(["--pidfile", "pid", "./missing"]).status, 125);
    assert_eq!(fs::read_to_string(sandbox.path("work/pid")).unwrap(), format!("{}\n", job.pid));
}

/// A program that calls daemon(3), and then executes its arguments.
const DAEMON_3: &str = "#define _DEFAULT_SOURCE\n#include <unistd.h>\n\
    int main(int c, char **v) { if (c < 2 || daemon(0, 0)) return 1; execv(v[1], v + 1); return 1; }\n";

/// Tells its PID by a file, and stays. Not a script: shells and perl change the signals that they start with.
const PROGRAM: &str = "#include <stdio.h>\n#include <unistd.h>\n\
    int main(int c, char **v) { char n[4096]; snprintf(n, sizeof n, \"%s.new\", v[1]); FILE *f = fopen(n, \"w\");\n\
    if (!f) return 1; fprintf(f, \"%d\\n\", (int)getpid()); fclose(f); rename(n, v[1]); sleep(60); return c; }\n";

#[test]
#[ignore = "prints the table of the README"]
fn daemon_table() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("work/daemon.c"), DAEMON_3).unwrap();
    fs::write(sandbox.path("work/program.c"), PROGRAM).unwrap();
    assert_eq!(sandbox.sh("cc -o daemon3 daemon.c && cc -o program program.c").status, 0);
    sandbox.script("bad", "#!/no/such/interpreter\n");
    let work = sandbox.path("work").display().to_string();
    let ways = [
        ("detach --full", "detach --full COMMAND".to_owned()),
        ("daemon(3)", format!("{work}/daemon3 COMMAND")),
        ("daemonize", "daemonize COMMAND".to_owned()),
        ("libslack daemon", "daemon -U -- COMMAND".to_owned()),
        ("start-stop-daemon -b", "start-stop-daemon -S -b -x PROGRAM -- ARGUMENTS".to_owned()),
    ];
    // Every row: its title, what daemon(7) asks for, and what is found.
    let titles = [
        ("parent", "init"),
        ("leads its session", "no"),
        ("leads its process group", ""),
        ("directory", "/"),
        ("umask", "0000"),
        ("stdin, stdout, stderr", "/dev/null"),
        ("inherited descriptor 9", "closed"),
        ("SIGHUP", "default"),
        ("SIGCHLD", "default"),
        ("ignored SIGINT", "default"),
        ("blocked SIGUSR1", "unblocked"),
        ("exit status: bad `#!` interpreter", "told"),
    ];
    let mut columns = Vec::new();
    for (number, (_, line)) in ways.iter().enumerate() {
        let file = sandbox.path(&format!("table{number}"));
        let line_for = |program: &str, arguments: &str| {
            line.replace("COMMAND", &format!("{work}/{program} {arguments}"))
                .replace("PROGRAM", &format!("{work}/{program}"))
                .replace("ARGUMENTS", arguments)
        };
        let mut terminal = Terminal::open_with(&sandbox, &["bash", "--norc", "--noprofile", "-i"]);
        let dirty = "perl -MPOSIX -e '$SIG{INT}=q(IGNORE); sigprocmask(SIG_BLOCK, POSIX::SigSet->new(10)); exec @ARGV'";
        let started = line_for("program", &file.display().to_string());
        let job = terminal.start(&format!("umask 027; exec 9>lock; {dirty} {started}"), &file);
        // What has started it has returned, and it is what it will be.
        terminal.run("true");
        let yes = |fact: bool| if fact { "yes".to_owned() } else { "no".to_owned() };
        let descriptors = job.descriptors();
        let streams: Vec<String> = (0..3)
            .map(|fd| descriptors.get(&fd).map_or("closed".to_owned(), |path| path.display().to_string()))
            .map(|path| if path.starts_with("pipe:") { "a pipe".to_owned() } else { path })
            .collect();
        let streams =
            if streams.iter().all(|path| *path == streams[0]) { streams[0].clone() } else { streams.join(", ") };
        let has = |set: &str, signal: u32| job.signals(set).contains(&signal);
        let disposition = |signal| if has("SigIgn", signal) { "ignored" } else { "default" }.to_owned();
        let parent = Process::new(job.parent());
        let parent =
            if parent.pid.as_raw() == std::process::id().cast_signed() { "init" } else { "the launcher stays" };
        let status = sandbox.sh(&format!("{} > /dev/null 2>&1; echo $?", line_for("bad", "")));
        columns.push([
            parent.to_owned(),
            yes(job.session() == job.pid.as_raw()),
            yes(job.group() == job.pid.as_raw()),
            fs::read_link(job.file("cwd")).unwrap().display().to_string().replace(&work, "kept"),
            job.status("Umask"),
            streams,
            if descriptors.contains_key(&9) { "open" } else { "closed" }.to_owned(),
            disposition(1),
            disposition(17),
            disposition(2),
            if has("SigBlk", 10) { "blocked" } else { "unblocked" }.to_owned(),
            status.stdout.trim().to_owned(),
        ]);
        job.signal(Signal::SIGKILL);
    }
    let names: Vec<String> = ways.iter().map(|(name, _)| format!("`{name}`")).collect();
    println!("| | {} | daemon(7) asks |", names.join(" | "));
    println!("|---|{}---|", "---|".repeat(ways.len()));
    for (row, (title, asked)) in titles.iter().enumerate() {
        let cells: Vec<&str> = columns.iter().map(|column| column[row].as_str()).collect();
        println!("| {title} | {} | {asked} |", cells.join(" | "));
    }
}
