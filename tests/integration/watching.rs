//! Settling, `--wait`, the record, and what the user sees.
//!
//! How an end is noticed and told, how a wait is ended, what is said on a terminal and elsewhere, and what a record
//! holds. Errors of detach itself are in `failures`.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::{DETACH, Process, Run, Sandbox, Terminal, eventually, is_installed, process_named_in, sleeper};

/// `text` with every run of digits that a time or a PID could be replaced by `#`.
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

#[test]
fn start_on_a_terminal_is_told_in_one_line() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    for (options, destination) in [
        ("", "output in ~/.local/state/detach/sleep-#.log"),
        ("-o out", "output in /tmp/out"),
        ("-o /dev/null", "output discarded"),
        ("-o -", "output left as it is"),
        ("-e err", "stdout in ~/.local/state/detach/sleep-#.log, stderr in /tmp/err"),
    ] {
        let (status, screen) = terminal.run(&format!("detach {options} sleep 60"));
        let work = sandbox.path("work").display().to_string();
        let screen = screen.replace(&work, "/tmp");
        let notes = screen.lines().filter(|line| line.starts_with("detach: "));
        let notes: Vec<String> = notes.map(|line| without_numbers(line.trim_end())).collect();
        assert_eq!(status, 0);
        assert_eq!(notes, [format!("detach: 'sleep', PID #, {destination}")], "{screen}");
    }
}

#[test]
fn start_without_a_terminal_is_silent() {
    let sandbox = Sandbox::new();
    let run = sandbox.detach(["sleep", "60"]);
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""));
}

#[test]
fn quiet_start_is_silent_even_on_a_terminal() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    let (status, screen) = terminal.run("detach -q sleep 60; detach -vq true");
    assert_eq!(status, 0);
    assert!(!screen.contains("detach: "), "{screen}");
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    for (variables, is_coloured) in [("", false), ("TERM=dumb NO_COLOR=", false), ("NO_COLOR=", true)] {
        let (_, screen) = terminal.run(&format!("{variables} detach --settle 20s true"));
        assert_eq!(screen.contains("\x1b[2mdetach:\x1b[0m 'true' ended"), is_coloured, "{screen:?}");
        assert_eq!(screen.contains("\ndetach: 'true' ended"), !is_coloured, "{screen:?}");
        // The PID and the name of each step stand out.
        let (_, screen) = terminal.run(&format!("{variables} detach -vF sleep 60"));
        assert_eq!(screen.contains("\x1b[1mchdir   \x1b[0m /"), is_coloured, "{screen:?}");
        assert_eq!(screen.contains(" 4 chdir    /"), !is_coloured, "{screen:?}");
    }
}

#[test]
fn verbose_start_names_every_step() {
    let sandbox = Sandbox::new();
    let script = "exec 9>lock; detach -v --keep-fd 9 -C / -m 027 -i /dev/null sleep 60";
    let run = sandbox.sh(script);
    assert_eq!((run.status, run.stdout.as_str()), (0, ""));
    let sleep = Run::of(sandbox.command("sh").args(["-c", "command -v sleep"])).stdout;
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
    let expected = expected.concat() + "detach: 'sleep', PID #, output in ~/.local/state/detach/sleep-#.log\n";
    assert_eq!(without_numbers(&run.stderr), expected);
    // The first step is of detach, the others of the job.
    let job = sandbox.jobs(1)[0].pid.to_string();
    let pids: Vec<&str> = run.stderr.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_ne!(pids[0], job);
    assert!(pids[1..10].iter().all(|pid| *pid == job), "{pids:?}");
}

#[test]
fn pid_and_record_are_data_on_stdout() {
    let sandbox = Sandbox::new();
    let run = sandbox.detach(["-P", "sleep", "60"]);
    let job = Process::started(run.stdout.strip_suffix('\n').unwrap());
    assert!(job.is_alive());

    let run = sandbox.detach(["--json", "-N", "it's", "sleep", "60"]);
    assert_eq!((run.stdout.lines().count(), run.stderr.as_str()), (1, ""));
    let mut printed: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    // The steps are printed, not stored.
    let steps = printed.as_object_mut().unwrap().remove("steps").unwrap();
    assert_eq!(steps[1]["name"], "setsid");
    assert!(sandbox.records().contains(&printed));
    assert_eq!(printed["name"], "it's");
}

#[test]
fn record_tells_everything_without_loss() {
    let sandbox = Sandbox::new();
    let before = std::time::SystemTime::now();
    let name = crate::support::bytes(b"na\xffme");
    let words = ["-N".as_ref(), name, "-C".as_ref(), "/".as_ref(), "sleep".as_ref(), "60".as_ref()];
    let job = sandbox.job(words);
    let records = sandbox.records();
    let record = &records[0];
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(record["version"], 1);
    assert_eq!(record["pid"], job.pid.as_raw());
    assert_eq!(record["start_time"].to_string(), job.stat(22).unwrap());
    assert_eq!(record["boot_id"], boot.trim());
    assert_eq!(record["name"], serde_json::json!([110, 97, 255, 109, 101]));
    assert_eq!(record["argv"], serde_json::json!(["sleep", "60"]));
    assert_eq!(record["directory"], "/");
    let log = sandbox.state().join(format!("na_me-{}.log", job.pid));
    assert_eq!(record["stdout"], serde_json::json!({ "log": log }));
    assert_eq!(record["stderr"], record["stdout"]);
    let started = std::time::UNIX_EPOCH + std::time::Duration::from_millis(record["started_at_ms"].as_u64().unwrap());
    assert!(started + std::time::Duration::from_millis(1) >= before && started <= std::time::SystemTime::now());
    let name = format!("{}-{}-{}.json", job.pid, job.stat(22).unwrap(), boot.trim());
    assert_eq!(sandbox.files(".json"), [name]);
}

#[test]
fn start_never_reads_the_state_directory() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.job(["true"]);
    let trace = sandbox.path("trace");
    let run = Run::of(sandbox.command("strace").args(["-f", "-o"]).arg(&trace).args([DETACH, "true"]));
    assert_eq!(run.status, 0);
    let calls = fs::read_to_string(trace).unwrap();
    // From the start of detach to that of its command.
    let calls = calls.split("execve(").nth(2).map(|_| calls.split("\"true\"]").nth(1).unwrap()).unwrap();
    assert!(calls.contains("openat("), "{calls}");
    assert!(!calls.contains("getdents"), "{calls}");
}

#[test]
fn command_that_fails_while_settling_is_told_with_its_last_words() {
    let sandbox = Sandbox::new();
    let script =
        "sleep 0.01; for i in 1 2 3 4 5 6 7 8 9 10 11; do echo line $i; done; printf '\\033[31mred\\n' >&2; exit 3";
    let run = sandbox.detach(["--settle", "20s", "sh", "-c", script]);
    let lines = (3..=11).map(|i| format!("  | line {i}\n")).collect::<Vec<_>>().concat();
    let log = format!("~/.local/state/detach/{}", sandbox.files(".log")[0]);
    let lived = run.stderr.split("after ").nth(1).unwrap().split(':').next().unwrap();
    let expected =
        format!("detach: 'sh' failed with status 3 after {lived}:\n{lines}  | \\e[31mred\ndetach: output in {log}\n");
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (3, "", expected.as_str()));
    assert!(lived.ends_with("ms"), "{lived}");
}

#[test]
fn command_killed_while_settling_gives_the_status_of_its_signal() {
    let sandbox = Sandbox::new();
    for (signal, status, sentence) in [
        ("TERM", 143, "was killed by SIGTERM"),
        ("KILL", 137, "was killed by SIGKILL"),
        ("35", 163, "was killed by signal 35"),
    ] {
        let run = sandbox.detach(["--settle=20", "sh", "-c", &format!("kill -{signal} $$")]);
        assert_eq!(run.status, status);
        assert!(run.stderr.starts_with(&format!("detach: 'sh' {sentence} after ")), "{run:?}");
    }
}

#[test]
fn command_that_ends_well_while_settling_is_a_success() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    for (command, note) in [
        ("sleep 0.01", "detach: 'sleep' ended with success after #ms\r\n"),
        (
            "sh -c 'echo hi; sleep 0.01'",
            "detach: 'sh' ended with success after #ms, output in ~/.local/state/detach/sh-#.log\r\n",
        ),
    ] {
        let (status, screen) = terminal.run(&format!("detach --settle 20s {command}"));
        assert_eq!(status, 0);
        assert!(without_numbers(&screen).contains(note), "{screen}");
    }
}

#[test]
fn start_without_a_terminal_does_not_settle() {
    let sandbox = Sandbox::new();
    // It waits for the test to be over with detach, and fails then.
    let run = sandbox.sh("mkfifo gate; detach sh -c 'read line < gate; exit 3'; echo $? > gate");
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
}

#[test]
fn interrupt_while_settling_lets_go_at_once() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    terminal.type_line("detach --settle 6000s sleep 60");
    let job = sandbox.detached();
    // It listens as soon as it has let the other signals through again.
    let detach = sandbox.jobs(3).into_iter().find(|process| process.runs("detach")).unwrap();
    eventually(|| detach.signals("SigBlk").contains(&2) && !detach.signals("SigBlk").contains(&20));
    terminal.press("\x03");
    terminal.wait_for(&format!("detach: let go of 'sleep', PID {}, which goes on", job.pid));
    assert!(job.is_alive());
}

#[test]
fn settling_ends_at_its_limit_while_the_command_goes_on() {
    let sandbox = Sandbox::new();
    let run = sandbox.detach(["--settle", "50ms", "-P", "sleep", "60"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert!(Process::started(&run.stdout).is_alive());
}

#[test]
fn last_words_are_those_of_this_job_alone() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("work/out"), "old words\n").unwrap();
    let run = sandbox.detach(["-w", "-o", "out", "sh", "-c", "echo new words; exit 1"]);
    assert_eq!(run.status, 1);
    let place = sandbox.path("work/out").display().to_string();
    let end = format!(":\n  | new words\ndetach: output in {place}\n");
    assert!(run.stderr.ends_with(&end), "{run:?}");
    // Where the streams part, both places are named.
    let run = sandbox.detach(["-w", "-o", "one", "-e", "two", "sh", "-c", "echo a; echo b >&2; exit 1"]);
    let [one, two] = ["one", "two"].map(|name| sandbox.path("work").join(name).display().to_string());
    let end = format!(":\n  | b\ndetach: stdout in {one}, stderr in {two}\n");
    assert!(run.stderr.ends_with(&end), "{run:?}");
    let run = sandbox.detach(["-w", "-o", "out", "false"]);
    assert!(run.stderr.starts_with("detach: 'false' failed with status 1 after "), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1);
}

#[test]
fn wait_gives_the_status_of_the_command() {
    let sandbox = Sandbox::new();
    for status in [0, 1, 42, 125, 126, 127, 255] {
        let run = sandbox.detach(["-qw", "sh", "-c", &format!("echo words; exit {status}")]);
        assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (status, "", ""));
    }
    assert_eq!(sandbox.detach(["--wait", "sh", "-c", "kill -9 $$"]).status, 137);
    if !is_installed("perl") {
        return;
    }
    // Even where the caller throws the statuses of its children away.
    let run = Run::of(
        sandbox
            .command("perl")
            .args(["-e", "$SIG{CHLD} = 'IGNORE'; exec @ARGV", DETACH])
            .args(["-qw", "sh", "-c", "exit 7"]),
    );
    assert_eq!(run.status, 7);
}

#[test]
fn interrupt_lets_go_of_a_command_that_is_waited_for() {
    for (key, status) in [("\x03", 130), ("\x1c", 131)] {
        let sandbox = Sandbox::new();
        let mut terminal = Terminal::open(&sandbox);
        terminal.type_line("detach --wait sleep 60");
        terminal.wait_for("detach: 'sleep', PID ");
        let job = sandbox.detached();
        terminal.press(key);
        terminal.wait_for(&format!("detach: let go of 'sleep', PID {}, which goes on", job.pid));
        assert_eq!(terminal.run("(exit $?)").0, status);
        assert!(job.is_alive());
    }
}

#[test]
fn hangup_ends_a_wait_unless_the_caller_ignores_it() {
    let sandbox = Sandbox::new();
    for (trap, survives) in [("", false), ("trap '' HUP;", true)] {
        let pid = sandbox.path("work/pid");
        let _ = fs::remove_file(&pid);
        let inner = sleeper(&pid);
        let script = format!("{trap} exec detach --wait sh -c '{inner}'");
        let mut waiting = sandbox.command("sh").args(["-c", &script]).spawn().unwrap();
        let job = process_named_in(&pid);
        let process = Process::new(waiting.id().cast_signed());
        // It listens as soon as it has let the other signals through again.
        eventually(|| process.signals("SigBlk").contains(&17) && !process.signals("SigBlk").contains(&20));
        process.signal(Signal::SIGHUP);
        if survives {
            process.signal(Signal::SIGTERM);
        }
        eventually(|| process.is_dead());
        let status = std::os::unix::process::ExitStatusExt::signal(&waiting.wait().unwrap());
        assert_eq!(status, Some(if survives { 15 } else { 1 }));
        assert!(job.is_alive());
        job.signal(Signal::SIGKILL);
    }
}

#[test]
fn waiting_detach_can_be_stopped_and_continued() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_with(&sandbox, &["bash", "--norc", "--noprofile", "-i"]);
    terminal.type_line("detach --wait sleep 60");
    terminal.wait_for("detach: 'sleep', PID ");
    let job = sandbox.detached();
    terminal.press("\x1a");
    terminal.wait_for("Stopped");
    assert!(!job.is_stopped());
    terminal.type_line("fg");
    job.signal(Signal::SIGTERM);
    terminal.wait_for("detach: 'sleep' was killed by SIGTERM after ");
}

#[test]
fn killed_detach_leaves_the_job_alone() {
    let sandbox = Sandbox::new();
    let pid = sandbox.path("work/pid");
    let mut waiting = sandbox.command(DETACH).args(["--wait", "sh", "-c", &sleeper(&pid)]).spawn().unwrap();
    let job = process_named_in(&pid);
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    assert!(job.is_alive());
    assert_eq!(sandbox.records().len(), 1);
    assert_eq!(job.parent(), std::process::id().cast_signed());
}

#[test]
fn end_of_the_command_is_seen_whenever_it_comes() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    // It comes after detach has looked for it, and before detach waits for signals.
    let script = "timeout 20 strace -f -o trace -e trace=wait4 -e inject=wait4:delay_exit=500000:when=1 \
        detach -w sleep 0.2";
    assert_eq!(sandbox.sh(script).status, 0);
}

#[test]
fn start_that_is_not_watched_tells_of_no_end() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    for option in ["-P", "-P --settle 0"] {
        // The command has ended long before detach could look.
        let script = format!(
            "strace -o trace -e trace=write -e inject=write:delay_enter=300000 detach {option} -o /dev/null false"
        );
        let run = sandbox.sh(&script);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{option}");
    }
}

#[test]
fn wait_has_no_limit_even_with_one_for_settling() {
    let sandbox = Sandbox::new();
    for options in [["--wait", "--settle=0"], ["--settle=0", "--wait"]] {
        let run = sandbox.detach(options.into_iter().chain(["sh", "-c", "sleep 0.01; exit 7"]));
        assert_eq!(run.status, 7);
    }
}

#[test]
fn last_words_are_the_last_of_many() {
    let sandbox = Sandbox::new();
    let run = sandbox.detach(["-w", "sh", "-c", "seq 1 9999; exit 1"]);
    let lines = (9990..=9999).map(|number| format!("  | {number}\n")).collect::<Vec<_>>().concat();
    assert!(run.stderr.contains(&format!(":\n{lines}detach: output in ")), "{run:?}");
}

#[test]
fn last_words_come_from_the_stream_that_has_some() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("work/err"), "old words\n").unwrap();
    let run = sandbox.detach(["-w", "-o", "out", "-e", "err", "sh", "-c", "echo new words; exit 1"]);
    assert!(run.stderr.contains(":\n  | new words\ndetach: "), "{run:?}");
    let run = sandbox.detach(["-w", "-o", "out", "-e", "err", "sh", "-c", "echo output; echo error >&2; exit 1"]);
    assert!(run.stderr.contains(":\n  | error\ndetach: "), "{run:?}");
}

#[test]
fn last_of_quiet_and_verbose_counts() {
    let sandbox = Sandbox::new();
    for (options, is_verbose) in [("-qv", true), ("-vq", false), ("-qvq", false), ("-vqv", true)] {
        let run = sandbox.detach([options, "true"]);
        assert_eq!((run.status, !run.stderr.is_empty()), (0, is_verbose), "{options}");
    }
}

#[test]
fn every_interrupt_lets_go_and_says_so() {
    let sandbox = Sandbox::new();
    let pid = sandbox.path("work/pid");
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        let _ = fs::remove_file(&pid);
        // Whatever the test process ignores, which detach would ignore as well.
        let mut command = sandbox.command("env");
        command.args(["--default-signal", DETACH, "-vw", "sh", "-c"]);
        command.arg(sleeper(&pid)).stderr(std::process::Stdio::piped());
        let waiting = command.spawn().unwrap();
        let job = process_named_in(&pid);
        let process = Process::new(waiting.id().cast_signed());
        eventually(|| process.signals("SigBlk").contains(&17) && !process.signals("SigBlk").contains(&20));
        process.signal(signal);
        let run = Run::from(waiting.wait_with_output().unwrap());
        let note = format!("detach: let go of 'sh', PID {}, which goes on\n", job.pid);
        assert_eq!((run.status, run.stderr.ends_with(&note)), (128 + signal as i32, true), "{signal}: {run:?}");
        assert!(job.is_alive());
    }
}

#[test]
fn root_as_home_is_not_shortened() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(DETACH);
    command.env("HOME", "/").env("XDG_STATE_HOME", sandbox.path("state"));
    let run = Run::of(command.args(["-vo", "out", "true"]));
    let out = sandbox.path("work/out").display().to_string();
    assert!(run.stderr.ends_with(&format!(", output in {out}\n")), "{run:?}");
}
