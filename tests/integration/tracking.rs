//! `--track`: the process that waits for the end of a command, what it costs, what it records, and what becomes of
//! the command when it is killed.

use std::fs;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::support::{
    DETACH, Process, Run, Sandbox, TRACKER, Terminal, eventually, process_named_in, sleeper, storage,
};

const WAYS: [&[&str]; 2] = [&["-t"], &["--track", "--full", "--sigchld=default", "-C", "."]];

#[test]
fn end_of_a_tracked_command_is_recorded() {
    let sandbox = Sandbox::new();
    for options in WAYS {
        for (script, status, signal, word) in [
            ("exit 0", Some(0), None, "exited 0"),
            ("exit 1", Some(1), None, "exited 1"),
            ("exit 42", Some(42), None, "exited 42"),
            ("exit 255", Some(255), None, "exited 255"),
            ("kill -TERM $$", None, Some(15), "killed by SIGTERM"),
            ("kill -KILL $$", None, Some(9), "killed by SIGKILL"),
            ("ulimit -c 0; kill -SEGV $$", None, Some(11), "killed by SIGSEGV"),
        ] {
            let job = sandbox.job(options.iter().chain(&["sh", "-c", script]));
            let end = sandbox.end_of(&job);
            assert_eq!((end["status"].as_u64(), end["signal"].as_u64()), (status, signal), "{options:?} {script}");
            assert_eq!(end["core_dumped"], false);
            assert_eq!(sandbox.state_of(&job), word, "{options:?}");
        }
    }
    sandbox.jobs(0);
}

#[test]
fn time_and_memory_of_the_command_are_recorded() {
    requires!(perl);
    let sandbox = Sandbox::new();
    // A child that the command waits for counts as well.
    let script =
        "system('perl', '-e', q(my $x = 'x' x 60_000_000; 1 while (times)[0] < 0.3)); select undef, undef, undef, 0.2";
    let job = sandbox.job(["-t", "perl", "-e", script]);
    let end = sandbox.end_of(&job);
    let number = |name: &str| end[name].as_u64().unwrap();
    assert!((300..10_000).contains(&number("cpu_ms")), "{end}");
    assert!(number("wall_ms") >= 500, "{end}");
    assert!((60_000_000..400_000_000).contains(&number("peak_memory_bytes")), "{end}");
    let record = sandbox.record_of(&job);
    let lifetime = number("ended_at_ms") - record["started_at_ms"].as_u64().unwrap();
    assert!(lifetime.abs_diff(number("wall_ms")) < 1000, "{record}");
}

#[test]
fn tracking_process_keeps_nothing_open_and_little_memory() {
    let sandbox = Sandbox::new();
    for options in WAYS {
        let script = "exec 9>lock; flock 9; exec detach -P \"$@\" sleep 60";
        let run = Run::of(sandbox.command("bash").args(["-c", script, "bash"]).args(options));
        let job = Process::started(&run.succeeds());
        let tracker = sandbox.tracker_of(&job);
        assert_eq!(job.parent(), tracker.pid.as_raw());
        assert_eq!((tracker.session(), tracker.group()), (tracker.pid.as_raw(), tracker.pid.as_raw()));
        assert_ne!(tracker.session(), job.session());
        assert_eq!(tracker.terminal(), 0);
        eventually(|| tracker.is_asleep());
        let descriptors = tracker.descriptors();
        let expected = [0, 1, 2].map(|fd| (fd, "/dev/null".into()));
        assert_eq!(descriptors, expected.into());
        assert_eq!(fs::read_to_string(tracker.file("comm")).unwrap(), "detach\n");
        job.assert_descriptors(&[0, 1, 2]);
        assert_eq!(job.signals("SigIgn"), [1]);
        assert_eq!(job.signals("SigBlk"), [0; 0]);
        // In kilobytes: the memory that it alone uses. The pages of the program itself are those of a file: they are
        // shared with every other run of it, and the kernel can drop them.
        let memory = fs::read_to_string(tracker.file("smaps_rollup")).unwrap();
        let kilobytes = |name: &str| -> u64 {
            let line = memory.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        assert!(kilobytes("Private_Dirty:") < 300, "{memory}");
        assert!(kilobytes("Anonymous:") < 300, "{memory}");
    }
}

#[test]
fn tracking_process_survives_what_the_command_survives() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let control = terminal.background("sleep 60");
    let job = terminal.detach("-t sleep 61");
    let tracker = sandbox.tracker_of(&job);
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGUSR1] {
        tracker.signal(signal);
    }
    terminal.hang_up();
    eventually(|| control.is_dead());
    assert!(job.is_alive() && tracker.is_alive());
    job.signal(Signal::SIGTERM);
    assert_eq!(sandbox.end_of(&job)["signal"], 15);
    eventually(|| tracker.is_dead());
}

#[test]
fn command_keeps_running_when_its_tracking_process_is_killed() {
    let sandbox = Sandbox::new();
    for options in WAYS {
        let job = sandbox.job(options.iter().chain(&["sleep", "60"]));
        let tracker = sandbox.tracker_of(&job);
        tracker.kill();
        assert!(job.is_alive());
        assert_eq!(sandbox.state_of(&job), "running");
        job.signal(Signal::SIGTERM);
        eventually(|| job.is_dead());
        assert_eq!(sandbox.state_of(&job), "ended");
    }
}

#[test]
fn tracking_process_stays_until_the_session_is_empty() {
    let sandbox = Sandbox::new();
    for options in WAYS {
        let file = sandbox.work("child");
        sandbox.remove("child");
        let script =
            format!("sh -c '{}' & until [ -e {} ]; do sleep 0.01; done; exit 7", sleeper(&file), file.display());
        let job = sandbox.job(options.iter().chain(&["sh", "-c", &script]));
        let child = process_named_in(&file);
        let tracker = sandbox.tracker_of_ended(&job);
        assert_eq!(sandbox.end_of(&job)["status"], 7);
        // The command is gone, not only dead: its parent, the tracking process, has waited for it.
        eventually(|| job.stat(3).is_none());
        assert_eq!(sandbox.state_of(&job), "running (1 left)");
        let record = sandbox.record_of(&job);
        assert_eq!((&record["state"], record["processes_left"].as_u64()), (&json!("running"), Some(1)));
        assert_eq!(record["session_ended_at_ms"], Value::Null);
        // What the command has left belongs to the tracking process, which leaves no zombie.
        assert!(child.is_alive() && tracker.is_alive());
        assert_eq!((child.parent(), child.session()), (tracker.pid.as_raw(), number(&record["session"])));
        child.signal(Signal::SIGKILL);
        eventually(|| tracker.is_dead());
        assert_eq!(child.stat(3), None);
        let record = sandbox.record_of(&job);
        assert_eq!(record["end"]["status"], 7);
        let [end, session_end] = [&record["end"]["ended_at_ms"], &record["session_ended_at_ms"]];
        assert!(session_end.as_u64().unwrap() >= end.as_u64().unwrap(), "{record}");
        assert_eq!(sandbox.state_of(&job), "exited 7");
    }
}

fn number(value: &Value) -> i32 {
    value.as_i64().unwrap().try_into().unwrap()
}

#[test]
fn tracking_process_does_not_wait_for_what_has_left_the_session() {
    requires!(setsid);
    let sandbox = Sandbox::new();
    for options in WAYS {
        let file = sandbox.work("child");
        sandbox.remove("child");
        let script =
            format!("setsid sh -c '{}' & until [ -e {} ]; do sleep 0.01; done", sleeper(&file), file.display());
        let job = sandbox.job(options.iter().chain(&["sh", "-c", &script]));
        let child = process_named_in(&file);
        let tracker = sandbox.tracker_of_ended(&job);
        sandbox.end_of(&job);
        eventually(|| tracker.is_dead());
        assert_eq!(sandbox.state_of(&job), "exited 0");
        assert!(child.is_alive());
        assert_eq!(child.parent(), std::process::id().cast_signed());
        child.signal(Signal::SIGKILL);
    }
}

#[test]
fn end_of_an_orphan_is_not_taken_for_that_of_the_command() {
    requires!(strace);
    let sandbox = Sandbox::new();
    // As long as the tracking process is a subreaper it becomes the parent of orphans. strace prolongs that time.
    let script = "(exit 77 &); sleep 0.4; exit 3";
    let run = Run::of(sandbox.command("strace").args(["-f", "-o", "../trace", "-e", "trace=prctl"]).args([
        "-e",
        "inject=prctl:delay_enter=100000",
        "detach",
        "-P",
        "-t",
        "--full",
        "--sigchld=default",
        "sh",
        "-c",
        script,
    ]));
    let job = Process::new(run.stdout.trim().parse().unwrap());
    assert_eq!(sandbox.end_of(&job)["status"], 3);
}

#[test]
fn command_killed_before_its_exec_was_not_started() {
    requires!(strace);
    let sandbox = Sandbox::new();
    for options in ["", "--full", "-t", "-t --full"] {
        for call in ["rt_sigpending", storage::CALLS_THAT_RECORD] {
            let run = sandbox.sh(&format!(
                "strace -f -b execve -o ../trace -e trace={call} -e inject={call}:signal=KILL \
                 detach {options} -P touch ran"
            ));
            let what = format!("{options:?} {call}: {run:?}");
            assert_ne!(run.status, 0, "{what}");
            eventually(|| sandbox.processes().is_empty());
            if run.status == 125 {
                assert_eq!(sandbox.records(), [""; 0], "{what}");
            }
            let _ = fs::remove_dir_all(sandbox.state());
        }
    }
}

#[test]
fn command_killed_in_its_exec_counts_as_started() {
    requires!(strace);
    let sandbox = Sandbox::new();
    let start = |options: &str| {
        // The exec of detach is the first of its process.
        let kill = "strace -f -o ../trace -e trace=execve -e inject=execve:signal=KILL:when=2+";
        sandbox.sh(&format!("{kill} sh -c 'detach {options} touch ran'"))
    };
    assert_eq!(start("-P").succeeds().trim(), sandbox.only_record()["pid"].to_string());
    let run = start("--settle 9s");
    let end = "detach: 'touch' was killed by SIGKILL after ";
    assert!(run.status == 137 && run.stderr.starts_with(end), "{run:?}");
    assert!(!sandbox.work("ran").exists());
    assert!(sandbox.processes().is_empty());
}

#[test]
fn first_word_of_the_tracking_process_is_not_an_option() {
    let sandbox = Sandbox::new();
    for words in [&["--tracking"][..], &["--tracking", "./train.py"], &["--tracking", "./train.py", "7"]] {
        let run = sandbox.detach(words).exits(125);
        let sentence = "error: unexpected argument '--tracking' found\n\n  tip: a similar argument exists: '--track'\n";
        assert_eq!((run.stdout.as_str(), run.stderr.starts_with(sentence)), ("", true), "{run:?}");
    }
}

#[test]
fn wait_returns_the_status_of_a_tracked_command() {
    let sandbox = Sandbox::new();
    for options in WAYS {
        for (script, status, words) in [
            ("exit 0", 0, "succeeded"),
            ("exit 42", 42, "failed with status 42"),
            ("kill -KILL $$", 137, "was killed by SIGKILL"),
        ] {
            let run = sandbox.detach(["-v", "-w"].iter().chain(options).chain(&["-o", "-", "sh", "-c", script]));
            assert_eq!(run.status, status, "{run:?}");
            assert!(run.stderr.contains(&format!("detach: 'sh' {words} after ")), "{run:?}");
        }
    }
    let run = sandbox.detach(["-t", "--settle", "30", "false"]);
    assert_eq!(run.status, 1, "{run:?}");
}

#[test]
fn wait_for_a_command_whose_tracking_process_is_killed_lasts_to_its_end_and_is_125() {
    let sandbox = Sandbox::new();
    let file = sandbox.work("pid");
    let mut command = sandbox.command(DETACH);
    command.args(["-w", "-t", "sh", "-c", &sleeper(&file)]).stderr(Stdio::piped());
    let waiting = command.spawn().unwrap();
    let launcher = Process::new(waiting.id().cast_signed());
    let job = process_named_in(&file);
    sandbox.tracker_of(&job).kill();
    // It waits, and does not look again and again.
    eventually(|| launcher.is_asleep());
    assert!(job.is_alive());
    job.kill();
    let stderr = "detach: warning: 'sh' has ended; its exit status is unknown: the process that tracked it was killed";
    Run::from(waiting.wait_with_output().unwrap()).fails(125, stderr);
}

#[test]
fn pidfile_is_held_by_a_tracked_command() {
    let sandbox = Sandbox::new();
    for options in WAYS {
        let arguments = || options.iter().chain(&["--pidfile", "pid", "sleep", "60"]);
        let job = sandbox.job(arguments());
        assert_eq!(sandbox.read("pid"), format!("{}\n", job.pid));
        let path = sandbox.work("pid").display().to_string();
        let stderr = format!("detach: cannot use pidfile '{path}': process {} has locked it", job.pid);
        sandbox.detach(arguments()).fails(125, &stderr);
        assert_eq!(sandbox.processes().len(), 2);
        job.signal(Signal::SIGKILL);
        eventually(|| sandbox.processes().is_empty());
    }
}

#[test]
fn failed_start_leaves_no_tracking_process() {
    let sandbox = Sandbox::new();
    for options in WAYS {
        for (words, status, stderr) in [
            (&["./missing"][..], 127, "detach: cannot run './missing': no such file or directory"),
            (&["/"], 126, "detach: cannot run '/': is a directory"),
            (
                &["-C", "/missing", "true"],
                125,
                "detach: cannot change directory to '/missing': no such file or directory",
            ),
        ] {
            sandbox.detach(options.iter().chain(words)).fails(status, stderr);
            sandbox.assert_nothing_left();
        }
    }
}

#[test]
fn command_to_be_tracked_is_not_started_without_a_state_directory() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("home/.local"), "").unwrap();
    let stderr = format!("detach: cannot use directory '{}': not a directory", sandbox.state().display());
    for option in ["-t", "--track"] {
        sandbox.detach([option, "-o", "/dev/null", "touch", "ran"]).fails(125, &stderr);
    }
    sandbox.jobs(0);
    assert!(!sandbox.work("ran").exists());
}

#[test]
fn command_to_be_tracked_is_not_started_without_a_record() {
    requires!(strace);
    let sandbox = Sandbox::new();
    let calls = storage::CALLS_THAT_RECORD;
    let strace = format!("strace -f -o ../trace -e trace={calls} -e inject={calls}:error=EIO");
    sandbox
        .sh(&format!("{strace} detach -t -o /dev/null touch ran"))
        .fails(125, "detach: cannot record job 'touch': I/O error");
    sandbox.assert_nothing_left();
    assert!(!sandbox.work("ran").exists());
}

#[test]
fn tracking_that_fails_is_a_warning_and_the_command_runs() {
    requires!(strace);
    let sandbox = Sandbox::new();
    // The second exec of that process, that of the tracking program.
    let script = "strace -f -b execve -o ../trace -e trace=fchdir -e inject=fchdir:error=EIO detach -P -t sleep 60";
    let stderr = "detach: warning: cannot track 'sleep', which is running: I/O error";
    let stdout = sandbox.sh(script).warns(stderr);
    let job = Process::started(&stdout);
    assert_eq!(sandbox.only_job().pid, job.pid);
    assert!(job.is_alive());
    // With --wait, detach itself waits for it then.
    let run = sandbox.sh(&script.replace("-P -t sleep 60", "-w -t sh -c 'exit 7'"));
    assert_eq!((run.status, run.stderr.contains("cannot track 'sh', which is running")), (7, true), "{run:?}");
}

#[test]
fn tracking_process_killed_early_leaves_no_wrong_record() {
    requires!(strace);
    let sandbox = Sandbox::new();
    for options in WAYS {
        // Each of these is made by the tracking process or by one that it has started.
        for call in ["setsid", storage::CALL_WHILE_RECORDING, "prctl", "close_range", "fchdir"] {
            for number in 1..=3 {
                let _ = fs::remove_dir_all(sandbox.state());
                let script = format!(
                    "strace -f -b execve -o ../trace -e trace={call} -e inject={call}:signal=KILL:when={number} \
                     detach {} -P sleep 60",
                    options.join(" ")
                );
                let run = sandbox.sh(&script);
                let what = format!("{options:?} {call} {number}: {run:?}");
                assert!([0, 125, 137].contains(&run.status), "{what}");
                let is_job = |process: &Process| process.runs("sleep");
                eventually(|| sandbox.processes().iter().all(|process| is_job(process) || process.runs(TRACKER)));
                let jobs = sandbox.processes().into_iter().filter(is_job).count();
                if run.status == 125 {
                    assert_eq!((jobs, sandbox.records().len()), (0, 0), "{what}");
                }
                if run.status == 0 {
                    assert_eq!(sandbox.records().len(), 1, "{what}");
                }
                sandbox.processes().iter().for_each(|process| {
                    let _ = kill(process.pid, Signal::SIGKILL);
                });
                eventually(|| sandbox.processes().is_empty());
            }
        }
    }
}

/// Starts a tracked command that is watched for so long. Returns detach, the command, and the process that tracks it.
fn watch_for(sandbox: &Sandbox, duration: &str) -> (Child, Process, Process) {
    let mut command = sandbox.command(DETACH);
    let detach = command.args(["-q", "-t", "--settle", duration, "-o", "/dev/null", "sleep", "60"]).spawn().unwrap();
    eventually(|| !sandbox.records().is_empty());
    let record = sandbox.only_record();
    let process = |value: &Value| Process::new(value["pid"].as_i64().unwrap().try_into().unwrap());
    (detach, process(&record), process(&record["tracker"]))
}

#[test]
fn wait_for_a_record_that_does_not_come_ends_in_time() {
    let sandbox = Sandbox::new();
    let (mut detach, job, tracker) = watch_for(&sandbox, "1s");
    tracker.signal(Signal::SIGSTOP);
    job.signal(Signal::SIGKILL);
    eventually(|| detach.try_wait().unwrap().is_some());
    tracker.signal(Signal::SIGCONT);
    assert_eq!(detach.wait().unwrap().code(), Some(0));
    assert_eq!(sandbox.end_of(&job)["signal"], 9);
}

#[test]
fn end_that_nobody_saw_is_no_success() {
    let sandbox = Sandbox::new();
    let (mut detach, job, tracker) = watch_for(&sandbox, "60s");
    tracker.signal(Signal::SIGKILL);
    job.signal(Signal::SIGKILL);
    eventually(|| detach.try_wait().unwrap().is_some());
    assert_eq!(detach.wait().unwrap().code(), Some(125));
}
