//! Settling, `--wait`, the record of a start, and what the user sees of it.
//!
//! How an end is noticed and reported, how a wait is ended, what is printed on a terminal and elsewhere, and what a
//! record holds. Errors of detach itself are in `failures`.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{DETACH, Process, Run, Sandbox, Terminal, bytes, eventually, process_named_in, sleeper, storage};

/// `text` with every run of digits, such as a time or a PID, replaced by `#`.
fn without_numbers(text: &str) -> String {
    let mut result = String::new();
    for letter in text.chars() {
        match letter {
            '0'..='9' if result.ends_with('#') => (),
            '0'..='9' => result.push('#'),
            _ => result.push(letter),
        }
    }
    result
}

/// Waits until detach waits for `signal`: it has blocked that, and unblocked those that it does not wait for.
#[track_caller]
fn await_signal_wait(detach: &Process, signal: u32) {
    eventually(|| {
        let blocked = detach.signals("SigBlk");
        blocked.contains(&signal) && !blocked.contains(&(Signal::SIGTSTP as u32))
    });
}

#[test]
fn start_on_a_terminal_prints_one_line() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    for (options, destination) in [
        ("", "output in ~/.local/state/detach/sleep-#.log"),
        ("-o out", "output in /tmp/out"),
        ("-o /dev/null", "output discarded"),
        ("-o -", "output left as it is"),
        ("-e err", "stdout in ~/.local/state/detach/sleep-#.log, stderr in /tmp/err"),
    ] {
        let screen = terminal.succeeds(&format!("detach {options} sleep 60"));
        let work = sandbox.path("work").display().to_string();
        let screen = screen.replace(&work, "/tmp");
        let notes = screen.lines().filter(|line| line.starts_with("detach: "));
        let notes: Vec<String> = notes.map(|line| without_numbers(line.trim_end())).collect();
        assert_eq!(notes, [format!("detach: 'sleep' (PID #), {destination}")], "{screen}");
    }
}

#[test]
fn start_without_a_terminal_is_silent() {
    let sandbox = Sandbox::new();
    sandbox.detach(["sleep", "60"]).succeeds_silently();
}

#[test]
fn quiet_start_is_silent_even_on_a_terminal() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    let screen = terminal.succeeds("detach -q sleep 60; detach -vq true");
    assert!(!screen.contains("detach: "), "{screen}");
}

#[test]
fn notes_are_coloured_on_terminals_that_want_it() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    for (variables, is_coloured) in [("", false), ("TERM=dumb NO_COLOR=", false), ("NO_COLOR=", true)] {
        let screen = terminal.succeeds(&format!("{variables} detach --settle 20s true"));
        assert_eq!(screen.contains("\x1b[2mdetach:\x1b[0m 'true' succeeded"), is_coloured, "{screen:?}");
        assert_eq!(screen.contains("\ndetach: 'true' succeeded"), !is_coloured, "{screen:?}");
    }
}

#[test]
fn names_of_steps_are_coloured_on_terminals_that_want_it() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    for (variables, is_coloured) in [("", false), ("TERM=dumb NO_COLOR=", false), ("NO_COLOR=", true)] {
        let screen = terminal.succeeds(&format!("{variables} detach -vvF sleep 60"));
        assert_eq!(screen.contains("\x1b[1mchdir   \x1b[0m /"), is_coloured, "{screen:?}");
        assert_eq!(screen.contains(" 4 chdir    /"), !is_coloured, "{screen:?}");
    }
}

#[test]
fn verbose_start_prints_every_step() {
    let sandbox = Sandbox::new();
    let script = "exec 9>lock; detach -vv --keep-fd 9 -C / -m 027 -i /dev/null sleep 60";
    let run = sandbox.sh(script).exits(0);
    assert_eq!(run.stdout, "");
    let sleep = sandbox.sh("command -v sleep").succeeds();
    let expected = [
        "signals  SIGHUP ignored, all others blocked",
        "setsid   session #, no controlling terminal",
        "chdir    /",
        "umask    #",
        "close    descriptors from # on: #, kept #",
        "redirect stdin from /dev/null, output in ~/.local/state/detach/sleep-#.log",
        "sigchld  default",
        "record   written",
        "signals  SIGHUP ignored, none blocked",
        &format!("exec     {}", sleep.trim()),
    ]
    .map(|step| format!("detach: # {step}\n"));
    let expected = expected.concat() + "detach: 'sleep' (PID #), output in ~/.local/state/detach/sleep-#.log\n";
    assert_eq!(without_numbers(&run.stderr), expected);
    // The first step is taken by detach, the others by the job.
    let job = sandbox.only_job().pid.to_string();
    let pids: Vec<&str> = run.stderr.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_ne!(pids[0], job);
    assert!(pids[1..10].iter().all(|pid| *pid == job), "{pids:?}");
}

#[test]
fn pid_is_printed_on_stdout() {
    let sandbox = Sandbox::new();
    let stdout = sandbox.detach(["-P", "sleep", "60"]).succeeds();
    assert_eq!(stdout, format!("{}\n", sandbox.only_job().pid));
}

#[test]
fn record_and_steps_are_printed_as_json_on_stdout() {
    let sandbox = Sandbox::new();
    let stdout = sandbox.detach(["--json", "-N", "it's", "sleep", "60"]).succeeds();
    assert_eq!(stdout.lines().count(), 1);
    let mut printed: Value = serde_json::from_str(&stdout).unwrap();
    let steps = printed.as_object_mut().unwrap().remove("steps").unwrap();
    assert_eq!(steps[1]["name"], "setsid");
    assert_eq!(printed["name"], "it's");
    // --list prints the same and three more fields.
    let mut listed = sandbox.only_record();
    for name in ["state", "processes_left", "output_bytes"] {
        listed.as_object_mut().unwrap().remove(name).unwrap();
    }
    assert_eq!(printed, listed);
}

#[test]
fn record_of_a_start_is_complete() {
    let sandbox = Sandbox::new();
    let before = SystemTime::now();
    let job = sandbox.job([bytes(b"-N"), bytes(b"na\xffme"), bytes(b"-C"), bytes(b"/"), bytes(b"sleep"), bytes(b"60")]);
    let record = sandbox.only_record();
    assert_eq!(record["version"], 1);
    assert_eq!(record["pid"], job.pid.as_raw());
    assert_eq!(record["start_time"].to_string(), job.stat(22).unwrap());
    assert_eq!(record["boot_id"], storage::boot_id());
    assert_eq!(record["name"], json!([110, 97, 255, 109, 101]));
    assert_eq!(record["argv"], json!(["sleep", "60"]));
    assert_eq!(record["directory"], "/");
    let log = sandbox.state().join(format!("na_me-{}.log", job.pid));
    assert_eq!(record["stdout"], json!({ "log": log }));
    assert_eq!(record["stderr"], record["stdout"]);
    let started = UNIX_EPOCH + Duration::from_millis(record["started_at_ms"].as_u64().unwrap());
    assert!(started + Duration::from_millis(1) >= before && started <= SystemTime::now());
    assert_eq!(record["session"], job.session());
    assert_eq!(sandbox.files("").len(), 2, "a log and the journal");
}

#[test]
fn start_never_reads_the_state_directory() {
    requires!(strace);
    let sandbox = Sandbox::new();
    sandbox.job(["true"]);
    let trace = sandbox.path("trace");
    Run::of(sandbox.command("strace").args(["-f", "-o"]).arg(&trace).args([DETACH, "true"])).succeeds_silently();
    let calls = fs::read_to_string(trace).unwrap();
    // From the start of detach to that of its command.
    let calls = calls.split("execve(").nth(2).map(|_| calls.split("\"true\"]").nth(1).unwrap()).unwrap();
    assert!(calls.contains("openat("), "{calls}");
    assert!(!calls.contains("getdents"), "{calls}");
}

#[test]
fn failure_while_settling_is_reported_with_the_last_output() {
    let sandbox = Sandbox::new();
    let script =
        "sleep 0.01; for i in 1 2 3 4 5 6 7 8 9 10 11; do echo line $i; done; printf '\\033[31mred\\n' >&2; exit 3";
    let run = sandbox.detach(["--settle", "20s", "sh", "-c", script]);
    let lines = (3..=11).map(|i| format!("  | line {i}\n")).collect::<Vec<_>>().concat();
    let log = format!("~/.local/state/detach/{}", sandbox.logs()[0]);
    let lived = run.stderr.split("after ").nth(1).unwrap().split(':').next().unwrap().to_owned();
    assert!(lived.ends_with("ms"), "{lived}");
    let stderr =
        format!("detach: 'sh' failed with status 3 after {lived}:\n{lines}  | \\x1b[31mred\ndetach: output in {log}");
    run.fails(3, &stderr);
}

#[test]
fn command_killed_while_settling_leads_to_the_status_of_its_signal() {
    let sandbox = Sandbox::new();
    for (signal, status, sentence) in [
        ("TERM", 143, "was killed by SIGTERM"),
        ("KILL", 137, "was killed by SIGKILL"),
        ("35", 163, "was killed by SIGRTMIN+1"),
    ] {
        let run = sandbox.detach(["--settle=20", "sh", "-c", &format!("kill -{signal} $$")]).exits(status);
        assert!(run.stderr.starts_with(&format!("detach: 'sh' {sentence} after ")), "{run:?}");
    }
}

#[test]
fn success_while_settling_is_reported() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    for (command, note) in [
        ("sleep 0.01", "detach: 'sleep' succeeded after #ms\r\n"),
        (
            "sh -c 'echo hi; sleep 0.01'",
            "detach: 'sh' succeeded after #ms, output in ~/.local/state/detach/sh-#.log\r\n",
        ),
    ] {
        let screen = terminal.succeeds(&format!("detach --settle 20s {command}"));
        assert!(without_numbers(&screen).contains(note), "{screen}");
    }
}

#[test]
fn start_without_a_terminal_does_not_settle() {
    let sandbox = Sandbox::new();
    // A start that settled would nearly always see the end.
    for _ in 0..10 {
        sandbox.detach(["false"]).succeeds_silently();
    }
}

#[test]
fn interrupt_while_settling_leaves_the_command_running() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    terminal.type_line("detach --settle 6000s sleep 60");
    let job = sandbox.detached();
    let detach = sandbox.jobs(3).into_iter().find(|process| process.runs("detach")).unwrap();
    await_signal_wait(&detach, 2);
    terminal.press("\x03");
    terminal.wait_for(&format!("detach: stopped waiting; 'sleep' (PID {}) keeps running", job.pid));
    assert!(job.is_alive());
}

#[test]
fn settling_ends_at_its_limit_and_the_command_keeps_running() {
    let sandbox = Sandbox::new();
    let stdout = sandbox.detach(["--settle", "50ms", "-P", "sleep", "60"]).succeeds();
    assert!(Process::started(&stdout).is_alive());
}

#[test]
fn last_output_is_only_that_of_this_start() {
    let sandbox = Sandbox::new();
    sandbox.write("out", "old words\n");
    let run = sandbox.detach(["-w", "-o", "out", "sh", "-c", "echo new words; exit 1"]).exits(1);
    let end = format!(":\n  | new words\ndetach: output in {}\n", sandbox.work("out").display());
    assert!(run.stderr.ends_with(&end), "{run:?}");
}

#[test]
fn failure_without_output_is_reported_in_one_line() {
    let sandbox = Sandbox::new();
    sandbox.write("out", "old words\n");
    let run = sandbox.detach(["-w", "-o", "out", "false"]).exits(1);
    assert!(run.stderr.starts_with("detach: 'false' failed with status 1 after "), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1);
}

#[test]
fn failure_is_reported_with_the_places_of_both_streams() {
    let sandbox = Sandbox::new();
    let run = sandbox.detach(["-w", "-o", "one", "-e", "two", "sh", "-c", "echo a; echo b >&2; exit 1"]).exits(1);
    let [one, two] = ["one", "two"].map(|name| sandbox.work(name).display().to_string());
    let end = format!(":\n  | b\ndetach: stdout in {one}, stderr in {two}\n");
    assert!(run.stderr.ends_with(&end), "{run:?}");
}

#[test]
fn wait_returns_the_status_of_the_command() {
    let sandbox = Sandbox::new();
    for status in [0, 1, 42, 125, 126, 127, 255] {
        sandbox.detach(["-qw", "sh", "-c", &format!("echo words; exit {status}")]).exits_silently(status);
    }
    sandbox.detach(["-qw", "sh", "-c", "kill -9 $$"]).exits_silently(137);
}

#[test]
fn wait_returns_the_status_where_the_caller_ignores_sigchld() {
    requires!(perl);
    let sandbox = Sandbox::new();
    let mut command = sandbox.command("perl");
    command.args(["-e", "$SIG{CHLD} = 'IGNORE'; exec @ARGV", DETACH, "-qw", "sh", "-c", "exit 7"]);
    Run::of(&mut command).exits_silently(7);
}

#[test]
fn interrupt_ends_a_wait_and_the_command_keeps_running() {
    for (key, status) in [("\x03", 130), ("\x1c", 131)] {
        let sandbox = Sandbox::new();
        let mut terminal = Terminal::open(&sandbox);
        terminal.type_line("detach --wait sleep 60");
        terminal.wait_for("detach: 'sleep' (PID ");
        let job = sandbox.detached();
        terminal.press(key);
        terminal.wait_for(&format!("detach: stopped waiting; 'sleep' (PID {}) keeps running", job.pid));
        assert_eq!(terminal.run("(exit $?)").0, status);
        assert!(job.is_alive());
    }
}

#[test]
fn hangup_ends_a_wait_unless_the_caller_ignores_it() {
    let sandbox = Sandbox::new();
    for (trap, survives) in [("", false), ("trap '' HUP;", true)] {
        let pid = sandbox.work("pid");
        sandbox.remove("pid");
        let script = format!("{trap} exec detach --wait sh -c '{}'", sleeper(&pid));
        let mut waiting = sandbox.command("sh").args(["-c", &script]).spawn().unwrap();
        let job = process_named_in(&pid);
        let process = Process::new(waiting.id().cast_signed());
        await_signal_wait(&process, 17);
        process.signal(Signal::SIGHUP);
        if survives {
            process.signal(Signal::SIGTERM);
        }
        eventually(|| process.is_dead());
        assert_eq!(waiting.wait().unwrap().signal(), Some(if survives { 15 } else { 1 }));
        assert!(job.is_alive());
        job.signal(Signal::SIGKILL);
    }
}

#[test]
fn waiting_detach_can_be_stopped_and_continued() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    terminal.type_line("detach --wait sleep 60");
    terminal.wait_for("detach: 'sleep' (PID ");
    let job = sandbox.detached();
    terminal.press("\x1a");
    terminal.wait_for("Stopped");
    assert!(!job.is_stopped());
    terminal.type_line("fg");
    job.signal(Signal::SIGTERM);
    terminal.wait_for("detach: 'sleep' was killed by SIGTERM after ");
}

#[test]
fn command_keeps_running_when_a_waiting_detach_is_killed() {
    let sandbox = Sandbox::new();
    let pid = sandbox.work("pid");
    let mut waiting = sandbox.command(DETACH).args(["--wait", "sh", "-c", &sleeper(&pid)]).spawn().unwrap();
    let job = process_named_in(&pid);
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    assert!(job.is_alive());
    assert_eq!(sandbox.records().len(), 1);
    assert_eq!(job.parent(), std::process::id().cast_signed());
}

#[test]
fn wait_sees_an_end_that_comes_just_before_it() {
    requires!(strace);
    let sandbox = Sandbox::new();
    // The command ends after detach has looked for that, and before detach waits for signals.
    let script = "timeout 20 strace -f -o trace -e trace=wait4 -e inject=wait4:delay_exit=500000:when=1 \
        detach -w sleep 0.2";
    sandbox.sh(script).exits(0);
}

#[test]
fn start_that_is_not_watched_reports_no_end() {
    requires!(strace);
    let sandbox = Sandbox::new();
    for option in ["-P", "-P --settle 0"] {
        // The command has ended long before detach could look.
        let script = format!(
            "strace -o trace -e trace=write -e inject=write:delay_enter=300000 detach {option} -o /dev/null false"
        );
        sandbox.sh(&script).succeeds();
    }
}

#[test]
fn wait_has_no_limit_even_with_settle() {
    let sandbox = Sandbox::new();
    for options in [["--wait", "--settle=0"], ["--settle=0", "--wait"]] {
        sandbox.detach(options.into_iter().chain(["sh", "-c", "sleep 0.01; exit 7"])).exits(7);
    }
}

#[test]
fn last_output_is_the_last_ten_lines() {
    let sandbox = Sandbox::new();
    let run = sandbox.detach(["-w", "sh", "-c", "seq 1 9999; exit 1"]);
    let lines = (9990..=9999).map(|number| format!("  | {number}\n")).collect::<Vec<_>>().concat();
    assert!(run.stderr.contains(&format!(":\n{lines}detach: output in ")), "{run:?}");
}

#[test]
fn last_output_is_taken_from_stderr_unless_that_is_empty() {
    let sandbox = Sandbox::new();
    sandbox.write("err", "old words\n");
    let run = sandbox.detach(["-w", "-o", "out", "-e", "err", "sh", "-c", "echo new words; exit 1"]);
    assert!(run.stderr.contains(":\n  | new words\ndetach: "), "{run:?}");
    let run = sandbox.detach(["-w", "-o", "out", "-e", "err", "sh", "-c", "echo output; echo error >&2; exit 1"]);
    assert!(run.stderr.contains(":\n  | error\ndetach: "), "{run:?}");
}

#[test]
fn last_of_quiet_and_verbose_wins() {
    let sandbox = Sandbox::new();
    for (options, is_verbose) in [("-qv", true), ("-vq", false), ("-qvq", false), ("-vqv", true)] {
        let run = sandbox.detach([options, "true"]).exits(0);
        assert_eq!(!run.stderr.is_empty(), is_verbose, "{run:?}");
    }
}

#[test]
fn every_signal_that_ends_a_wait_is_reported() {
    let sandbox = Sandbox::new();
    let pid = sandbox.work("pid");
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        sandbox.remove("pid");
        // A signal that the test process ignores would be ignored by detach as well.
        let mut command = sandbox.command("env");
        command.args(["--default-signal", DETACH, "-vw", "sh", "-c"]);
        command.arg(sleeper(&pid)).stderr(Stdio::piped());
        let waiting = command.spawn().unwrap();
        let job = process_named_in(&pid);
        let process = Process::new(waiting.id().cast_signed());
        await_signal_wait(&process, 17);
        process.signal(signal);
        let run = Run::from(waiting.wait_with_output().unwrap()).exits(128 + signal as i32);
        let note = format!("detach: stopped waiting; 'sh' (PID {}) keeps running\n", job.pid);
        assert!(run.stderr.ends_with(&note), "{run:?}");
        assert!(job.is_alive());
    }
}

#[test]
fn home_that_is_the_root_directory_is_not_shortened() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(DETACH);
    command.env("HOME", "/").env("XDG_STATE_HOME", sandbox.path("state"));
    let run = Run::of(command.args(["-vo", "out", "true"])).exits(0);
    let out = sandbox.work("out").display().to_string();
    assert!(run.stderr.ends_with(&format!(", output in {out}\n")), "{run:?}");
}

#[test]
fn signals_that_end_nothing_do_not_end_a_wait() {
    let sandbox = Sandbox::new();
    let file = sandbox.work("pid");
    let mut waiting = sandbox.command(DETACH).args(["-qw", "sh", "-c"]).arg(sleeper(&file)).spawn().unwrap();
    let job = process_named_in(&file);
    let process = Process::new(waiting.id().cast_signed());
    await_signal_wait(&process, 17);
    for signal in [Signal::SIGWINCH, Signal::SIGCONT, Signal::SIGURG, Signal::SIGCHLD] {
        let before = process.switches();
        process.signal(signal);
        // A signal that wakes it up, or else nothing that it could notice.
        eventually(|| process.is_asleep() && process.switches() >= before);
    }
    process.signal(Signal::SIGSTOP);
    eventually(|| process.is_stopped());
    process.signal(Signal::SIGCONT);
    eventually(|| process.is_asleep());
    job.signal(Signal::SIGTERM);
    assert_eq!(waiting.wait().unwrap().code(), Some(143));
}

#[test]
fn child_that_was_there_before_detach_is_not_taken_for_the_command() {
    let sandbox = Sandbox::new();
    // The child of the shell becomes one of detach, and ends first.
    let script =
        "sh -c 'until [ -e go ]; do sleep 0.01; done; exit 9' & exec detach -qw sh -c ': > go; sleep 0.3; exit 4'";
    sandbox.sh(script).exits_silently(4);
    sandbox.remove("go");
    // A child that has ended already.
    sandbox.sh("sh -c 'exit 9' & sleep 0.1; exec detach -qw sh -c 'exit 5'").exits_silently(5);
    // And one that goes on.
    sandbox.sh("sleep 60 > /dev/null 2>&1 & exec detach -qw sh -c 'exit 6'").exits_silently(6);
    sandbox.only_job().kill();
}

#[test]
fn quiet_start_on_a_terminal_does_not_settle() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    // A start that settled would nearly always see the end.
    let screen = terminal.succeeds("for i in 1 2 3 4 5 6 7 8 9 10; do detach -q false || break; done");
    assert!(!screen.contains("detach: "), "{screen}");
    assert_eq!(sandbox.records().len(), 10);
}

#[test]
fn verbose_start_prints_the_line_of_a_terminal_anywhere() {
    let sandbox = Sandbox::new();
    let run = sandbox.detach(["-v", "-o", "/dev/null", "sleep", "60"]);
    run.warns(&format!("detach: 'sleep' (PID {}), output discarded", sandbox.only_job().pid));
}

#[test]
fn child_from_before_the_exec_of_detach_is_not_taken_for_the_tracking_process() {
    let sandbox = Sandbox::new();
    let file = sandbox.work("up");
    // The child ends while the command runs.
    let command = format!("until [ -e {0} ]; do sleep 0.01; done; exit 3", file.display());
    let script =
        format!("sh -c 'until [ -e job ]; do sleep 0.01; done; : > up' & exec detach -t -w sh -c ': > job; {command}'");
    for _ in 0..5 {
        sandbox.sh(&format!("rm -f up job; {script}")).exits(3);
    }
}
