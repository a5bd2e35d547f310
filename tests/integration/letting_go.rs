//! `--pid`: what becomes of a job that detach lets go of, and that the job does not notice.
//!
//! What is refused is in `refusals`, what happens when detach is killed meanwhile in `guarding`, real jobs of real shells
//! are in a module of their own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::support::target::Target;
use crate::support::{
    DETACH, Process, Run, Sandbox, Terminal, await_result, eventually, process_named_in, sleeper, storage,
};

/// Writes a line every few milliseconds.
const TICKER: &str = "n=0; while :; do echo tick $n; n=$((n + 1)); sleep 0.01; done";

#[track_caller]
fn let_go(sandbox: &Sandbox, process: &Process) {
    sandbox.detach(["--pid", &process.pid.to_string()]).succeeds_silently();
}

/// The descriptors that lead to a terminal.
fn on_terminal(process: &Process) -> BTreeMap<i32, PathBuf> {
    let is_terminal = |path: &Path| path.starts_with("/dev/pts") || path == Path::new("/dev/tty");
    process.descriptors().into_iter().filter(|(_, path)| is_terminal(path)).collect()
}

#[track_caller]
fn assert_is_let_go(process: &Process) {
    assert_eq!(process.terminal(), 0, "{process:?}");
    assert!(process.signals("SigIgn").contains(&1), "{process:?}");
    assert_eq!(on_terminal(process), BTreeMap::new(), "{process:?}");
}

/// A shell script in the background of bash; returns the process of its shell.
#[track_caller]
fn start_script(sandbox: &Sandbox, terminal: &mut Terminal, script: &str) -> Process {
    sandbox.script("script", &format!("#!/bin/sh\n{script}\n"));
    let file = sandbox.path("script.pid");
    let _ = fs::remove_file(&file);
    let process = terminal.start(&format!("./script & echo $! > {}", file.display()), &file);
    process.wait_for_exec("/bin/sh ./script");
    process
}

#[track_caller]
fn await_growth(file: &Path) {
    let length = || fs::metadata(file).map_or(0, |metadata| metadata.len());
    let before = length();
    eventually(|| length() > before);
}

#[test]
fn job_that_is_let_go_survives_its_terminal_and_one_that_is_not_dies() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let control = terminal.background("sleep 60");
    let job = start_script(&sandbox, &mut terminal, TICKER);
    let pid = job.pid;
    let run = sandbox.detach(["-v", "--pid", &pid.to_string()]);
    run.warns(&format!("detach: 'script' (PID {pid}), output in ~/.local/state/detach/script-{pid}.log"));
    assert_is_let_go(&job);
    terminal.hang_up();
    eventually(|| control.is_dead());
    await_growth(&sandbox.log_file());
    assert!(job.is_alive());
    // Not one line is missing from there on.
    let log = sandbox.log();
    let ticks: Vec<u32> = log.lines().filter_map(|line| line.strip_prefix("tick ")?.parse().ok()).collect();
    assert!(ticks.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{log}");
    // A job like any other.
    assert_eq!(sandbox.state_of(&job), "running");
    assert!(sandbox.detach(["--log", "-n", "1", "script"]).succeeds().starts_with("tick "));
    sandbox.detach(["-v", "--stop", "script"]).warns(&format!("detach: 'script' (PID {pid}) ended"));
    assert!(job.is_dead());
    assert_eq!(sandbox.state_of(&job), "ended");
    sandbox.detach(["--join", "script"]).fails(
        125,
        &format!("detach: 'script' (PID {pid}) has ended; its exit status is unknown (detach did not start it)"),
    );
    sandbox.detach(["--prune", "0"]).exits(0);
    assert_eq!(sandbox.logs(), [""; 0]);
    assert_eq!(sandbox.records(), [""; 0]);
}

#[test]
fn foreground_job_gives_the_prompt_back() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    sandbox.script("script", &format!("#!/bin/sh\necho $$ > pid.new; mv pid.new pid\n{TICKER}\n"));
    let job = terminal.start("./script", &sandbox.work("pid"));
    eventually(|| terminal.foreground() == job.group());
    let_go(&sandbox, &job);
    eventually(|| terminal.foreground() == terminal.shell.group());
    terminal.hang_up();
    eventually(|| terminal.shell.is_dead());
    await_growth(&sandbox.log_file());
    assert!(job.is_alive());
}

#[test]
fn stopped_job_continues_unless_it_is_to_stay_stopped() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    for (options, stays) in [(&[][..], false), (&["--stay-stopped"], true)] {
        for is_stopped_before in [true, false] {
            let job = terminal.background("sleep 60");
            if is_stopped_before {
                job.signal(Signal::SIGTSTP);
                eventually(|| job.is_stopped());
            }
            sandbox.detach(["--pid"].iter().chain(options).chain(&[job.pid.to_string().as_str()])).succeeds_silently();
            assert_is_let_go(&job);
            if stays {
                // The kernel stops a thread again when its tracer has let go of it.
                eventually(|| job.is_stopped());
                assert_eq!(sandbox.state_of(&job), "stopped");
            } else {
                eventually(|| job.is_asleep());
            }
            job.kill();
        }
    }
}

#[test]
fn pipeline_is_one_job_and_loses_nothing() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    sandbox.script("slowly", "#!/bin/sh\nuntil [ -e go ]; do sleep 0.01; done; seq 200000\n");
    let last = sandbox.path("last.pid");
    let job = terminal.start(&format!("./slowly | cat | md5sum & echo $! > {}", last.display()), &last);
    job.wait_for_exec("md5sum");
    let group = job.group();
    assert_ne!(group, job.pid.as_raw());
    sandbox.detach(["--pid", &group.to_string()]).succeeds_silently();
    assert_is_let_go(&job);
    terminal.hang_up();
    sandbox.write("go", "");
    eventually(|| job.is_dead());
    let expected = sandbox.sh("seq 200000 | md5sum").succeeds();
    assert_eq!(sandbox.log(), expected);
    assert_eq!(sandbox.records().len(), 1);
}

#[test]
fn group_whose_first_process_has_ended_is_found_by_its_number() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let file = sandbox.path("last.pid");
    let job = terminal.start(&format!("true | sleep 60 & echo $! > {}", file.display()), &file);
    job.wait_for_exec("sleep");
    let group = job.group();
    eventually(|| Process::new(group).is_dead());
    sandbox.detach(["--pid", &group.to_string()]).succeeds_silently();
    assert_is_let_go(&job);
    assert_eq!(sandbox.state_of(&job), "running");
    sandbox.detach(["--stop", "sleep"]).succeeds_silently();
    assert!(job.is_dead());
}

#[test]
fn descendants_are_let_go_of_in_whatever_group_or_session() {
    requires!(bash, setsid);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let files = ["own-group", "own-session"].map(|name| sandbox.path(name));
    sandbox.script("group", &format!("#!/bin/sh\n{}\n", sleeper(&files[0])));
    sandbox.script("session", &format!("#!/bin/sh\n{}\n", sleeper(&files[1])));
    let file = sandbox.path("job.pid");
    let line = "bash -c 'set -m; ./group & setsid -w ./session & wait' & echo $!";
    let job = terminal.start(&format!("{line} > {}", file.display()), &file);
    let [own_group, own_session] = files.map(|file| process_named_in(&file));
    own_session.wait_for_exec("sleep");
    own_group.wait_for_exec("sleep");
    assert_ne!(own_group.group(), job.group());
    assert_ne!(own_session.session(), job.session());
    let_go(&sandbox, &job);
    for process in [&job, &own_group, &own_session] {
        assert_is_let_go(process);
    }
    // All of them are the job.
    sandbox.detach(["--stop", &job.pid.to_string()]).succeeds_silently();
    assert!(job.is_dead() && own_group.is_dead() && own_session.is_dead());
}

#[test]
fn child_on_a_terminal_of_its_own_is_left_alone() {
    requires!(bash, script);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let child = sandbox.path("child");
    sandbox.script("child", &format!("#!/bin/sh\n{}\n", sleeper(&child)));
    // It has a pseudo-terminal for its child, as terminal emulators do.
    let child = terminal.start("script -qc ./child typescript", &child);
    child.wait_for_exec("sleep");
    child.wait_for_sleep();
    let job = Process::new(terminal.foreground());
    let (before, ignored) = (child.descriptors(), child.signals("SigIgn"));
    assert_ne!(child.terminal(), job.terminal());
    let_go(&sandbox, &job);
    assert_eq!(job.terminal(), 0);
    // What it has of the other terminal is not touched either.
    assert!(!job.descriptors().values().any(|path| path == terminal.name()));
    assert_ne!(child.terminal(), 0);
    assert_eq!((child.descriptors(), child.signals("SigIgn")), (before, ignored));
    child.kill();
}

#[test]
fn reader_of_the_terminal_gets_end_of_file() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    sandbox.script("script", "#!/bin/sh\necho $$ > pid.new; mv pid.new pid\nexec cat\n");
    let job = terminal.start("./script", &sandbox.work("pid"));
    job.wait_for_exec("cat");
    eventually(|| job.is_asleep());
    let_go(&sandbox, &job);
    eventually(|| job.is_dead());
}

#[test]
fn streams_that_are_not_on_the_terminal_are_kept() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let file = sandbox.path("job.pid");
    let line = "sleep 60 > out 3> other 7<> /dev/tty 8< script";
    sandbox.write("script", "");
    let job = terminal.start(&format!("{line} & echo $! > {}", file.display()), &file);
    job.wait_for_exec("sleep");
    let flags = job.descriptor_flags(1);
    let_go(&sandbox, &job);
    let record = sandbox.only_record();
    assert_eq!(record["stdout"]["file"], sandbox.work("out").to_str().unwrap());
    let descriptors = job.descriptors();
    let path = |fd: i32| descriptors[&fd].clone();
    let null = PathBuf::from("/dev/null");
    assert_eq!([path(0), path(2), path(7)], [null.clone(), sandbox.log_file(), null]);
    assert_eq!([path(1), path(3), path(8)], ["out", "other", "script"].map(|name| sandbox.work(name)));
    assert_eq!(job.descriptor_flags(1), flags);
    assert!(descriptors.keys().all(|fd| [0, 1, 2, 3, 7, 8].contains(fd)), "{descriptors:?}");
}

/// su, and a shell in a job, wait for their children in this way, and stop as well when one of them does.
#[test]
fn parent_that_waits_as_a_shell_does_sees_no_child_stop() {
    requires!(bash, perl);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let wuntraced = 2;
    let parent = format!("$child = fork; $child or exec 'sleep', '60'; waitpid $child, {wuntraced}");
    sandbox.script("parent", &format!("#!/usr/bin/perl\n{parent}\n"));
    for _ in 0..20 {
        let job = terminal.background("/usr/bin/perl ./parent");
        eventually(|| child_of(&job).is_some_and(|child| child.runs("sleep 60")) && job.is_asleep());
        let child = child_of(&job).unwrap();
        let_go(&sandbox, &job);
        eventually(|| child.is_asleep() && (job.is_asleep() || job.is_dead()));
        assert!(job.is_alive());
        child.kill();
    }
}

fn child_of(process: &Process) -> Option<Process> {
    let pid = process.pid;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    Some(Process::new(children.split(' ').next()?.parse().ok()?))
}

#[test]
fn job_whose_terminal_has_hung_up_is_let_go_of() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let file = sandbox.path("job.pid");
    let job = terminal.start(&format!("(trap '' HUP; exec sleep 60) & echo $! > {}", file.display()), &file);
    job.wait_for_exec("sleep 60");
    terminal.hang_up();
    eventually(|| terminal.is_shell_dead());
    assert_ne!(on_terminal(&job), BTreeMap::new());
    let_go(&sandbox, &job);
    assert_is_let_go(&job);
    job.assert_descriptors(&[0, 1, 2]);
}

#[test]
fn output_on_the_terminal_by_its_other_name_goes_to_the_log() {
    requires!(bash);
    for redirection in ["> /dev/tty", "<> /dev/tty >&0"] {
        let sandbox = Sandbox::new();
        let mut terminal = Terminal::open_bash(&sandbox);
        sandbox.script("script", &format!("#!/bin/sh\necho $$ > pid.new; mv pid.new pid\n{TICKER}\n"));
        let job = terminal.start(&format!("./script {redirection} 3> /dev/tty &"), &sandbox.work("pid"));
        let_go(&sandbox, &job);
        let log = sandbox.log_file();
        await_growth(&log);
        assert_eq!([1, 2, 3].map(|fd| job.descriptors()[&fd].clone()), [&log; 3].map(Clone::clone), "{redirection}");
        assert_eq!(sandbox.only_record()["stdout"]["log"], log.to_str().unwrap());
    }
}

#[test]
fn output_option_names_the_file() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    sandbox.write("file", "before\n");
    let job = start_script(&sandbox, &mut terminal, TICKER);
    let pid = job.pid;
    let run = sandbox.detach(["-v", "--pid", "-o", "file", "-N", "ticker", &pid.to_string()]);
    run.warns(&format!("detach: 'ticker' (PID {pid}), output in {}", sandbox.work("file").display()));
    await_growth(&sandbox.work("file"));
    assert!(sandbox.read("file").starts_with("before\ntick "), "{}", sandbox.read("file"));
    assert_eq!(sandbox.logs(), [""; 0]);
    let discarded = terminal.background("sleep 60");
    let run = sandbox.detach(["-v", "--pid", "-o", "/dev/null", &discarded.pid.to_string()]);
    run.warns(&format!("detach: 'sleep' (PID {}), output discarded", discarded.pid));
    assert_is_let_go(&discarded);
}

#[test]
fn stream_on_another_terminal_is_left_as_it_is() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let (mut terminal, other) = (Terminal::open_bash(&sandbox), Terminal::open_bash(&sandbox));
    let file = sandbox.path("job.pid");
    let line = format!("sleep 60 > {} & echo $! > {}", other.name().display(), file.display());
    let job = terminal.start(&line, &file);
    job.wait_for_exec("sleep 60");
    let_go(&sandbox, &job);
    assert_eq!(job.descriptors()[&1], other.name());
    let record = sandbox.only_record();
    assert_eq!(
        (&record["stdout"], record["stderr"].get("log").is_some()),
        (&serde_json::Value::from("kept"), true),
        "{record}"
    );
}

#[test]
fn job_that_was_let_go_of_last_is_the_newest() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let older = start_script(&sandbox, &mut terminal, TICKER);
    sandbox.job(["sleep", "60"]);
    let_go(&sandbox, &older);
    let names: Vec<_> = sandbox.records().iter().map(|record| record["name"].clone()).collect();
    assert_eq!(names, ["sleep", "script"]);
    eventually(|| sandbox.detach(["--log"]).exits(0).stdout.starts_with("tick "));
}

#[test]
fn several_jobs_are_recorded_one_by_one_and_each_once() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let first = terminal.background("sleep 60");
    let child = sandbox.work("child");
    let second = start_script(&sandbox, &mut terminal, &format!("sh -c '{}' & wait", sleeper(&child)));
    let child = process_named_in(&child);
    let pids = [&first, &child, &second, &first].map(|process| process.pid.to_string());
    sandbox.detach(["--pid"].into_iter().chain(pids.iter().map(String::as_str))).succeeds_silently();
    for process in [&first, &second, &child] {
        assert_is_let_go(process);
    }
    let names: Vec<_> = sandbox.records().iter().map(|record| record["name"].clone()).collect();
    assert_eq!(names, ["sleep", "script"]);
}

#[test]
fn threads_signals_and_waits_are_undisturbed() {
    requires!(cc, bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let target = Target::start(&sandbox, &mut terminal, "threads");
    let process = &target.process;
    eventually(|| process.is_asleep());
    // It blocks this one; it must stay pending.
    process.signal(Signal::SIGUSR2);
    let read = || ["SigBlk", "SigCgt"].map(|name| process.status(name));
    let (before, ignored) = (read(), process.signals("SigIgn"));
    for round in 0..40 {
        let_go(&sandbox, process);
        target.await_blocks(1);
        assert_eq!(on_terminal(process), BTreeMap::new(), "{round}");
        process.signal(Signal::SIGUSR1);
        eventually(|| on_terminal(process).len() == 3);
    }
    assert_eq!(read(), before);
    assert!(process.signals("ShdPnd").contains(&12));
    let mut expected = ignored;
    expected.push(1);
    expected.sort_unstable();
    assert_eq!(process.signals("SigIgn"), expected);
    // Every signal that was queued has arrived.
    target.silence();
    await_result(|| {
        let board = target.board();
        if board.sent > 100 && board.sent == board.got { Ok(()) } else { Err(format!("{board:?}")) }
    });
    assert_eq!(target.board().wrong, 0);
}

#[test]
fn program_without_system_calls_computes_on_through_200_times() {
    requires!(cc, bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let target = Target::start(&sandbox, &mut terminal, "spin");
    for round in 0..200 {
        let_go(&sandbox, &target.process);
        assert_eq!(on_terminal(&target.process), BTreeMap::new(), "{round}");
        target.process.signal(Signal::SIGUSR1);
        eventually(|| on_terminal(&target.process).len() == 3);
    }
    target.await_blocks(10);
    assert_eq!(sandbox.records().len(), 1);
    assert_eq!(sandbox.logs().len(), 1);
}

#[test]
fn calls_that_wait_are_continued_and_end_in_time() {
    requires!(cc, bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let program = crate::support::target::target().display();
    let (board, file) = (sandbox.work("board"), sandbox.path("waits.pid"));
    let line = format!("{program} waits {} 9> ends & echo $! > {}", board.display(), file.display());
    let job = terminal.start(&line, &file);
    let target = Target::of(job.clone(), board);
    // Half of the time, 1.5 s of 3, has passed: a call that began anew would end after 4.5 s.
    eventually(|| target.board().blocks == 2);
    let begun = Instant::now();
    let_go(&sandbox, &job);
    let stopped = begun.elapsed().as_millis();
    eventually(|| job.is_dead());
    let ends = sandbox.read("ends");
    assert_eq!(ends.lines().count(), 8, "{ends}");
    for line in ends.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let time: u128 = words.last().unwrap().parse().unwrap();
        // Some calls do not count the time in which they stand still: they do the same after any SIGSTOP and SIGCONT.
        assert!(words[1] == "ok" && (2990..4450 + stopped).contains(&time), "{ends} {stopped}");
    }
}

#[test]
fn process_whose_first_thread_has_ended_is_let_go_of() {
    requires!(cc, bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let program = crate::support::target::target().display();
    let (board, file) = (sandbox.work("board"), sandbox.path("leader.pid"));
    let line = format!("{program} dead-leader {} & echo $! > {}", board.display(), file.display());
    let job = terminal.start(&line, &file);
    let target = Target::of(job.clone(), board);
    target.await_blocks(2);
    eventually(|| job.stat(3).as_deref() == Some("Z"));
    sandbox.detach(["--pid", &job.pid.to_string()]).succeeds_silently();
    target.await_blocks(2);
    assert_eq!(job.terminal(), 0);
    sandbox.detach(["--stop", &job.pid.to_string()]).succeeds_silently();
    eventually(|| job.stat(20).is_none_or(|threads| threads == "0" || threads == "1"));
}

#[test]
fn vfork_in_progress_is_waited_for() {
    requires!(cc, bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let target = Target::start(&sandbox, &mut terminal, "vfork");
    let_go(&sandbox, &target.process);
    assert_is_let_go(&target.process);
    eventually(|| target.board().blocks == 2);
    let children: Vec<Process> =
        sandbox.processes().into_iter().filter(|it| it.parent() == target.process.pid.as_raw()).collect();
    assert_eq!(children.len(), 1);
    assert_is_let_go(&children[0]);
    assert!(children[0].runs("sleep 60"));
}

#[test]
fn session_leader_is_let_go_of() {
    let sandbox = Sandbox::new();
    // As `ssh -t host COMMAND` starts it.
    let terminal = Terminal::open_with(&sandbox, &["sh", "-c", TICKER]);
    let job = terminal.shell.clone();
    assert!(job.leads_session());
    let_go(&sandbox, &job);
    assert_is_let_go(&job);
    let file = sandbox.log_file();
    let mut terminal = terminal;
    terminal.hang_up();
    await_growth(&file);
    assert!(job.is_alive());
    job.kill();
}

#[test]
fn second_time_finds_the_same_job() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let job = terminal.background("sleep 60");
    let_go(&sandbox, &job);
    let run = sandbox.detach(["-v", "--pid", &job.pid.to_string()]);
    run.warns(&format!("detach: 'sleep' (PID {}) no longer has a terminal", job.pid));
    assert_eq!(sandbox.records().len(), 1);
    assert_eq!(sandbox.logs().len(), 1);
}

#[test]
fn job_that_detach_has_started_on_the_terminal_keeps_its_record() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    let job = terminal.detach("-i - -o - sleep 60");
    job.wait_for_exec("sleep");
    assert_eq!(on_terminal(&job).keys().collect::<Vec<_>>(), [&0, &2]);
    let_go(&sandbox, &job);
    assert_is_let_go(&job);
    let record = sandbox.only_record();
    assert_eq!(record["pid"], job.pid.as_raw());
    assert_eq!(record["stdout"]["file"], sandbox.path("detached.pid").to_str().unwrap());
    assert_eq!(record["stderr"]["log"], sandbox.log_file().to_str().unwrap());
    sandbox.detach(["--stop", "sleep"]).succeeds_silently();
    assert!(job.is_dead());
}

#[test]
fn process_that_the_job_starts_later_belongs_to_it() {
    requires!(bash);
    let sandbox = Sandbox::new();
    for options in [&[][..], &["-o", "/dev/null"]] {
        for name in ["later", "go"] {
            sandbox.remove(name);
        }
        let mut terminal = Terminal::open_bash(&sandbox);
        let later = sandbox.work("later");
        let script = format!("until [ -e go ]; do sleep 0.01; done; sh -c '{}' & wait", sleeper(&later));
        let job = start_script(&sandbox, &mut terminal, &script);
        sandbox.detach(["--pid"].iter().chain(options).chain(&[job.pid.to_string().as_str()])).succeeds_silently();
        sandbox.write("go", "");
        let later = process_named_in(&later);
        later.wait_for_exec("sleep");
        job.kill();
        if options.is_empty() {
            // It has the log open.
            assert_eq!(sandbox.state_of(&job), "running (1 left)");
            sandbox.detach(["--stop", &job.pid.to_string()]).succeeds_silently();
            assert!(later.is_dead());
        } else {
            // Nothing shows any more whose it is: the number of the group may have been used again.
            assert_eq!(sandbox.state_of(&job), "ended");
            sandbox.detach(["--stop", &job.pid.to_string()]).succeeds_silently();
            assert!(later.is_alive());
            later.kill();
        }
    }
}

#[test]
fn group_number_that_was_used_again_is_not_the_job() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let job = terminal.background("sleep 60");
    sandbox.detach(["--pid", "-o", "/dev/null", &job.pid.to_string()]).succeeds_silently();
    assert_eq!(sandbox.state_of(&job), "running");
    // Same numbers, no terminal; but it is another process.
    storage::change_start_times(&sandbox);
    assert_eq!(sandbox.state_of(&job), "ended");
    sandbox.detach(["--stop", "sleep"]).succeeds_silently();
    sandbox.detach(["--stop", "--all"]).succeeds_silently();
    assert!(job.is_alive());
    job.kill();
}

#[test]
fn what_root_lets_go_of_for_a_user_is_recorded_for_that_user() {
    requires!(root, setpriv, bash);
    let sandbox = Sandbox::new();
    for name in ["home", "work"] {
        std::os::unix::fs::chown(sandbox.path(name), Some(54321), Some(54321)).unwrap();
    }
    let copy = sandbox.copy_of_detach();
    let setpriv = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "bash", "--norc", "-i"];
    let mut terminal = Terminal::open_with(&sandbox, &setpriv);
    let file = sandbox.work("job.pid");
    let job = terminal.start(&format!("sleep 60 & echo $! > {}", file.display()), &file);
    job.wait_for_exec("sleep");
    // The HOME of root is another.
    let mut command = sandbox.command(DETACH);
    let run = Run::of(command.args(["-v", "--pid", &job.pid.to_string()]).env("HOME", sandbox.path("")));
    let log = sandbox.log_file();
    run.warns(&format!(
        "detach: 'sleep' (PID {}), output in ~/{}",
        job.pid,
        log.strip_prefix(sandbox.path("")).unwrap().display()
    ));
    assert_is_let_go(&job);
    assert_eq!((fs::metadata(&log).unwrap().uid(), fs::metadata(&log).unwrap().gid()), (54321, 54321));
    let list = Run::of(sandbox.command_as(54321, &copy).arg("--list")).succeeds();
    assert!(list.starts_with(&format!("{}\tsleep\trunning\t", job.pid)), "{list}");
}
