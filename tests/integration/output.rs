//! `--log`: the output of a job, byte for byte, now or until it ends; and wrong usage of all modes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};

use nix::sys::signal::Signal;

use crate::support::{DETACH, Process, Run, Sandbox, Terminal, bytes, eventually};

fn follow(sandbox: &Sandbox, job: &str) -> Child {
    let mut command = sandbox.command(DETACH);
    command.args(["--log", "-f", job]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Follows the job "sh" until it has written a line.
fn follow_to_first_line(sandbox: &Sandbox) -> (Child, BufReader<ChildStdout>, String) {
    let mut following = follow(sandbox, "sh");
    let mut output = BufReader::new(following.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    (following, output, line)
}

/// A job that writes "first", and "second" when the file `go` is there.
const IN_TWO_PARTS: &str = "echo first; until [ -e go ]; do sleep 0.01; done; echo second";

#[test]
fn output_is_shown_byte_for_byte() {
    let sandbox = Sandbox::new();
    let script = r"printf 'a\0\377\n'; printf 'no newline' >&2";
    sandbox.detach(["-w", "-N", "odd\n", "sh", "-c", script]).succeeds_silently();
    let output = sandbox.command(DETACH).arg("--log").arg(bytes(b"odd\n")).output().unwrap();
    assert_eq!(output.stdout, b"a\0\xff\nno newline");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn newest_job_of_a_name_is_shown() {
    let sandbox = Sandbox::new();
    let first = sandbox.job(["-N", "it", "sh", "-c", "echo first; exec sleep 60"]);
    sandbox.detach(["-wN", "it", "echo", "second"]).succeeds();
    sandbox.detach(["-wN", "other", "echo", "third"]).succeeds();
    let newest = sandbox.records().into_iter().rfind(|record| record["name"] == "it").unwrap();
    let [newest, running] = [newest["pid"].to_string(), first.pid.to_string()];
    let stderr =
        format!("detach: warning: showing 'it' (PID {newest}), which has ended; 'it' (PID {running}) is still running");
    assert_eq!(sandbox.detach(["--log", "it"]).warns(&stderr), "second\n");
    eventually(|| sandbox.detach(["--log", &first.pid.to_string()]).succeeds() == "first\n");
    first.kill();
    sandbox.detach(["-wN", "it", "echo", "fourth"]).succeeds();
    assert_eq!(sandbox.detach(["--log", "it"]).succeeds(), "fourth\n");
}

#[test]
fn newest_job_is_the_one_that_was_started_last() {
    let sandbox = Sandbox::new();
    let long = sandbox.job(["-t", "-N", "it", "sh", "-c", "echo long; exec sleep 60"]);
    sandbox.detach(["-wN", "it", "echo", "short"]).succeeds();
    // Its end is recorded last.
    long.signal(Signal::SIGKILL);
    assert_eq!(sandbox.end_of(&long)["signal"], 9);
    assert_eq!(sandbox.detach(["--log", "it"]).succeeds(), "short\n");
}

#[test]
fn number_is_a_name_where_no_job_has_that_pid() {
    let sandbox = Sandbox::new();
    sandbox.detach(["-wN", "2147483647", "echo", "number"]).succeeds();
    assert_eq!(sandbox.detach(["--log", "2147483647"]).succeeds(), "number\n");
}

#[test]
fn output_in_files_named_by_the_user_is_shown() {
    let sandbox = Sandbox::new();
    let script = "echo to stdout; echo to stderr >&2";
    for (options, stdout, stderr) in [
        (&["-o", "out"][..], "to stdout\nto stderr\n", ""),
        (&["-o", "o", "-e", "e"], "to stdout\n", "detach: this is stdout; stderr goes to WORK/e"),
        (&["-o", "out", "-e", "/dev/null"], "to stdout\n", "detach: this is stdout; stderr is discarded"),
        (&["-o", "/dev/null", "-e", "only"], "to stderr\n", "detach: this is stderr; stdout is discarded"),
    ] {
        sandbox.remove("out");
        sandbox.detach(["-w", "-C", "/"].iter().chain(options).chain(&["sh", "-c", script])).succeeds_silently();
        let stderr = stderr.replace("WORK", &sandbox.path("work").display().to_string());
        assert_eq!(sandbox.detach(["-v", "--log", "sh"]).warns(&stderr), stdout);
    }
}

#[test]
fn output_that_is_stored_nowhere_is_125() {
    let sandbox = Sandbox::new();
    for (options, reason) in [
        (&["-o", "/dev/null"][..], "stdout is discarded"),
        (&["--full"], "stdout is discarded"),
        (&["-o", "-"], "stdout is inherited from the caller"),
    ] {
        let job = sandbox.job(options.iter().chain(&["true"]));
        let stderr = format!("detach: cannot show the output of 'true' (PID {}): {reason}", job.pid);
        sandbox.detach(["--log", "true"]).fails(125, &stderr);
    }
}

#[test]
fn log_that_was_removed_is_125() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["true"]);
    let log = sandbox.log_file();
    fs::remove_file(&log).unwrap();
    let stderr = format!("detach: cannot read '{}': no such file or directory", log.display());
    sandbox.detach(["--log", &job.pid.to_string()]).fails(125, &stderr);
    // Nothing is shown, so nothing is said about what is shown.
    let running = sandbox.job(["-N", "it", "-o", "/dev/null", "sleep", "60"]);
    sandbox.detach(["-w", "-N", "it", "-o", "out", "-e", "err", "true"]).succeeds_silently();
    sandbox.remove("out");
    let stderr = format!("detach: cannot read '{}': no such file or directory", sandbox.work("out").display());
    sandbox.detach(["-v", "--log", "it"]).fails(125, &stderr);
    assert!(running.is_alive());
}

#[test]
fn output_is_not_copied_onto_itself() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["-o", "out", "sh", "-c", "echo word; exec sleep 60"]);
    eventually(|| fs::read(sandbox.work("out")).is_ok_and(|bytes| bytes == b"word\n"));
    let stderr = format!("detach: cannot show the output of 'sh' (PID {}): stdout is the same file", job.pid);
    sandbox.sh("timeout 20 detach --log -f sh >> out").fails(125, &stderr);
    assert_eq!(sandbox.read("out"), "word\n");
}

#[test]
fn output_in_a_fifo_is_125() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["-o", "out", "true"]);
    sandbox.sh("rm out; mkfifo out").succeeds_silently();
    let out = sandbox.work("out").display().to_string();
    let reason = format!("'{out}' is not a regular file");
    let stderr = format!("detach: cannot show the output of 'true' (PID {}): {reason}", job.pid);
    sandbox.sh("timeout 20 detach --log true").fails(125, &stderr);
}

#[test]
fn slow_reader_gets_everything() {
    requires!(perl);
    let sandbox = Sandbox::new();
    sandbox.detach(["-w", "seq", "1", "100000"]).succeeds();
    // The write end of the pipe does not wait.
    let script = r"use Fcntl; pipe(my $r, my $w); fcntl($w, F_SETFL, O_NONBLOCK | O_WRONLY);
        if (!fork) { close $r; open STDOUT, '>&', $w; exec 'detach', '--log', 'seq' }
        close $w; select undef, undef, undef, 0.2; my $n = 0; $n += length while <$r>; wait; print $n, ' ', $?";
    let run = Run::of(sandbox.command("perl").args(["-e", script]));
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("588895 0", ""));
}

#[test]
fn word_that_is_not_a_job_is_125() {
    let sandbox = Sandbox::new();
    for is_first in [true, false] {
        for (job, reason) in [
            ("nope", "no job has this PID, name or command line"),
            ("", "no job has this PID, name or command line"),
            ("-7", "no job has this PID, name or command line"),
            ("99999999999999999999", "no job has this PID, name or command line"),
            ("1", "it was not started by detach"),
        ] {
            for mode in ["--log", "--join", "--stop"] {
                let stderr =
                    format!("detach: cannot find job '{job}': {reason}\ndetach: hint: see 'detach --list --all'");
                sandbox.detach([mode, "--", job]).fails(125, &stderr);
            }
        }
        if is_first {
            sandbox.job(["true"]);
        }
    }
}

#[test]
fn output_is_followed_until_the_job_ends() {
    let sandbox = Sandbox::new();
    for start in [&["sh"][..], &["-t", "sh"], &["--full", "-C", ".", "-o", "out", "sh"]] {
        sandbox.remove("go");
        let mut options = start.to_vec();
        let command = options.pop().unwrap();
        sandbox.job(options.into_iter().chain([command, "-c", IN_TWO_PARTS]));
        let (following, mut output, line) = follow_to_first_line(&sandbox);
        assert_eq!(line, "first\n");
        sandbox.write("go", "");
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "second\n");
        Run::from(following.wait_with_output().unwrap()).succeeds();
    }
    // The output of a job that has ended is shown at once.
    assert_eq!(sandbox.detach(["--log", "sh", "--follow"]).succeeds(), "first\nsecond\n");
}

#[test]
fn output_is_followed_while_the_job_runs() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sh", "-c", &format!("{IN_TWO_PARTS}; exec sleep 60")]);
    let (mut following, mut output, mut line) = follow_to_first_line(&sandbox);
    sandbox.write("go", "");
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "first\nsecond\n");
    assert!(job.is_alive());
    following.kill().unwrap();
    following.wait().unwrap();
}

#[test]
fn following_waits_without_polling() {
    requires!(strace);
    let sandbox = Sandbox::new();
    sandbox.job(["sh", "-c", "echo begin; sleep 0.3; echo more; sleep 0.3; echo end"]);
    let run = sandbox.sh("strace -o ../trace -e trace=poll,write detach --log -f sh");
    assert_eq!(run.succeeds(), "begin\nmore\nend\n");
    let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
    assert!(trace.lines().count() < 60, "{trace}");
}

#[test]
fn hundred_megabytes_are_followed_as_they_are_written() {
    let sandbox = Sandbox::new();
    let script = "until [ -e go ]; do sleep 0.01; done; seq 1 12700000";
    sandbox.job(["sh", "-c", script]);
    let mut following = follow(&sandbox, "sh");
    let counting = sandbox.command("cksum").stdin(following.stdout.take().unwrap()).stdout(Stdio::piped()).spawn();
    sandbox.write("go", "");
    let followed = Run::from(counting.unwrap().wait_with_output().unwrap());
    assert_eq!(following.wait().unwrap().code(), Some(0));
    let direct = sandbox.sh("seq 1 12700000 | cksum");
    assert_eq!(followed.stdout, direct.stdout);
    let size: u64 = direct.stdout.split(' ').nth(1).unwrap().trim().parse().unwrap();
    assert!(size > 100_000_000, "{direct:?}");
}

#[test]
fn following_ends_quietly_when_its_reader_has_ended() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sh", "-c", "echo line; exec sleep 60"]);
    // Nothing more is ever written, so no write could fail.
    assert_eq!(sandbox.bash("set -o pipefail; detach --log -f sh | head -n 1").succeeds(), "line\n");
    assert!(job.is_alive());
}

#[test]
fn log_ends_quietly_when_its_reader_has_ended() {
    let sandbox = Sandbox::new();
    sandbox.job(["sh", "-c", "echo line; exec sleep 60"]);
    sandbox.bash("set -o pipefail; detach --log sh | true").succeeds_silently();
}

#[test]
fn log_on_a_full_disk_is_125() {
    let sandbox = Sandbox::new();
    sandbox.detach(["-w", "echo", "line"]).succeeds_silently();
    let run = sandbox.sh("detach --log echo > /dev/full").exits(125);
    assert!(run.stderr.ends_with(": no space left on device\n"), "{run:?}");
}

#[test]
fn interrupt_ends_following_quietly() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sh", "-c", "echo line; exec sleep 60"]);
    let mut terminal = Terminal::open(&sandbox);
    terminal.type_line("detach --log -f sh");
    terminal.wait_for("line\r\n");
    let count = |screen: &str| screen.matches("detach:").count();
    terminal.press("\x03");
    let (status, screen) = terminal.run("(exit $?)");
    assert_eq!((status, count(&screen)), (130, 0), "{screen:?}");
    assert!(job.is_alive());
}

#[test]
fn truncated_output_is_followed_from_its_beginning() {
    let sandbox = Sandbox::new();
    let script = "echo a long first line; until [ -e go ]; do sleep 0.01; done; echo new";
    sandbox.job(["-o", "out", "sh", "-c", script]);
    let (mut following, mut output, line) = follow_to_first_line(&sandbox);
    sandbox.write("out", "");
    sandbox.write("go", "");
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!((line.as_str(), rest.as_str()), ("a long first line\n", "new\n"));
    assert_eq!(following.wait().unwrap().code(), Some(0));
}

#[test]
fn output_is_followed_until_nothing_is_left_of_the_job() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sh", "-c", "(until [ -e go ]; do sleep 0.01; done; echo late) & echo line"]);
    eventually(|| job.is_dead());
    let following = follow(&sandbox, "sh");
    let process = Process::new(following.id().cast_signed());
    eventually(|| process.is_asleep());
    sandbox.write("go", "");
    assert_eq!(Run::from(following.wait_with_output().unwrap()).succeeds(), "line\nlate\n");
    sandbox.jobs(0);
}

/// The usage of a mode, as clap writes it after an error.
fn usage(mode: &str) -> &str {
    match mode {
        "--list" => "detach --list [OPTION]...",
        "--log" => "detach --log [OPTION]... [JOB]",
        "--join" => "detach --join [OPTION]... [JOB]...",
        "--stop" => "detach --stop [OPTION]... JOB...\n       detach --stop --all [OPTION]... [NAME]...",
        "--prune" => "detach --prune [OPTION]... [DURATION]",
        "--check" => "detach --check [OPTION]... [PID|JOB]...",
        _ => "detach [OPTION]... [--] COMMAND [ARG]...\n       detach MODE [OPTION]... [ARG]...",
    }
}

#[test]
fn wrong_usage_of_modes_is_125() {
    let sandbox = Sandbox::new();
    let conflict = |option: &str, mode: &str| format!("the argument '{option}' cannot be used with '{mode}'");
    let unexpected = |word: &str| format!("unexpected argument '{word}' found");
    for (line, mode, error) in [
        ("--stop", "--stop", "the following required arguments were not provided:\n  <JOB>...".to_owned()),
        ("--stop --grace 1s", "--stop", "the following required arguments were not provided:\n  <JOB>...".to_owned()),
        ("--stop --grace 1s a --signal KILL", "--stop", conflict("--grace <DURATION>", "--signal <SIG>")),
        ("--stop a --signal TERM --grace 1s", "--stop", conflict("--signal <SIG>", "--grace <DURATION>")),
        ("--log a b", "--log", unexpected("b")),
        ("--list a", "--list", unexpected("a")),
        ("--list --log a", "--list", unexpected("--log")),
        ("--stop a --join b", "--stop", unexpected("--join")),
        ("--list -f", "--list", unexpected("-f")),
        ("--log a --json", "--log", unexpected("--json")),
        ("--list -o x", "--list", unexpected("-o")),
        ("--prune --full", "--prune", unexpected("--full")),
        ("-f true", "", unexpected("-f")),
        ("--all true", "", unexpected("--all") + "\n\n  tip: a similar argument exists: '--full'"),
        ("--signal TERM true", "", unexpected("--signal") + "\n\n  tip: a similar argument exists: '--sigchld'"),
    ] {
        let stderr = format!("error: {error}\n\nUsage: {}\n\nFor more information, try '--help'.", usage(mode));
        sandbox.detach(line.split(' ')).fails(125, &stderr);
    }
    assert!(!sandbox.state().exists());
}

#[test]
fn option_of_a_start_before_a_mode_is_125() {
    let sandbox = Sandbox::new();
    for (line, option, mode) in [
        ("-o x --list", "--output <FILE>", "--list"),
        ("--json --log a", "--json", "--log"),
        ("--full --prune", "--full", "--prune"),
        ("-P --stop a", "--print-pid", "--stop"),
    ] {
        let error = format!("error: the argument '{option}' cannot be used with '{mode}'");
        let stderr = format!("{error}\n\nFor more information, try '--help'.");
        sandbox.detach(line.split(' ')).fails(125, &stderr);
    }
    assert!(!sandbox.state().exists());
}

#[test]
fn invalid_value_of_a_mode_is_125() {
    let sandbox = Sandbox::new();
    for (args, sentence) in [
        (&["--stop", "a", "--signal", "NO"][..], "cannot use 'NO' for '--signal <SIG>': no such signal"),
        (
            &["--stop", "a", "--grace", "-1"],
            "cannot use '-1' for '--grace <DURATION>': not a duration like 500ms, 2s, 1m30s or 7d",
        ),
        (&["--log", "-n", "+5", "a"], "cannot use '+5' for '--lines <N>': not a number of lines"),
        (&["--prune", "soon"], "cannot use 'soon' for 'DURATION': not a duration like 500ms, 2s, 1m30s or 7d"),
        (&["--prune", ""], "cannot use '' for 'DURATION': not a duration like 500ms, 2s, 1m30s or 7d"),
    ] {
        let stderr = format!("detach: {sentence}\ndetach: hint: see 'detach {} --help'", args[0]);
        sandbox.detach(args).fails(125, &stderr);
    }
    assert!(!sandbox.state().exists());
}

#[test]
fn help_and_usage_errors_have_no_colour_in_a_pipe() {
    let sandbox = Sandbox::new();
    let run = |word: &str| Run::of(sandbox.command(DETACH).env("CLICOLOR_FORCE", "1").env_remove("NO_COLOR").arg(word));
    assert_eq!(run("--help").succeeds(), sandbox.detach(["--help"]).succeeds());
    let error = "error: unexpected argument '--xyz' found\n\nUsage: detach [OPTION]... [--] COMMAND [ARG]...";
    let run = run("--xyz").exits(125);
    assert!(run.stderr.starts_with(error), "{}", run.stderr);
}

#[test]
fn value_attached_to_a_mode_is_125() {
    let sandbox = Sandbox::new();
    for (word, tip) in [
        ("--prune=7d", "\n  tip: the value must be a separate word: '--prune 7d'\n"),
        ("--log=make", "\n  tip: the value must be a separate word: '--log make'\n"),
        ("--prune=", ""),
        ("--list=all", ""),
    ] {
        let stderr = format!("error: unexpected argument '{word}' found\n{tip}\nFor more information, try '--help'.");
        sandbox.detach([word]).fails(125, &stderr);
    }
    assert!(!sandbox.state().exists());
}

#[test]
fn options_of_a_mode_stand_after_it() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sh", "-c", "echo out"]);
    eventually(|| job.is_dead());
    // Those that a start has as well may stand before it.
    for line in
        ["--log sh -f", "--log -f sh", "--log -- sh", "-q --log sh", "--log sh -q -f", "-q --log -f sh", "--log"]
    {
        assert_eq!(sandbox.detach(line.split(' ')).succeeds(), "out\n");
    }
}

#[test]
fn words_after_the_command_are_not_modes() {
    let sandbox = Sandbox::new();
    sandbox.detach(["-w", "-o", "out", "printf", "%s ", "--log", "--list", "-f", "--stop"]).succeeds_silently();
    assert_eq!(sandbox.read("out"), "--log --list -f --stop ");
}

#[test]
fn last_lines_are_shown_by_their_number() {
    let sandbox = Sandbox::new();
    sandbox.detach(["-w", "-N", "three", "printf", "one\ntwo\nthree\n"]).succeeds_silently();
    sandbox.detach(["-w", "-N", "open", "printf", "one\n\nno newline"]).succeeds_silently();
    sandbox.detach(["-w", "-N", "empty", "true"]).succeeds_silently();
    // More than is read at once.
    sandbox.detach(["-w", "-N", "long", "seq", "1", "100000"]).succeeds_silently();
    let rest: Vec<String> = (20_001..=100_000).map(|number| format!("{number}\n")).collect();
    let rest = rest.concat();
    for (job, lines, expected) in [
        ("three", "0", ""),
        ("three", "1", "three\n"),
        ("three", "2", "two\nthree\n"),
        ("three", "3", "one\ntwo\nthree\n"),
        ("three", "18446744073709551615", "one\ntwo\nthree\n"),
        ("open", "1", "no newline"),
        ("open", "2", "\nno newline"),
        ("empty", "5", ""),
        ("long", "80000", &rest),
    ] {
        assert_eq!(sandbox.detach(["--log", "-n", lines, job]).succeeds(), expected, "{job} {lines}");
        assert_eq!(sandbox.detach(["--log", job, "-f", "--lines", lines]).succeeds(), expected, "{job} {lines}");
    }
}

#[test]
fn following_on_a_terminal_begins_with_the_last_ten_lines() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sh", "-c", "seq 101 130; exec sleep 60"]);
    eventually(|| sandbox.log().ends_with("130\n"));
    let mut terminal = Terminal::open(&sandbox);
    terminal.type_line("detach --log -f");
    terminal.wait_for("130\r\n");
    let screen = terminal.screen();
    assert!(screen.contains("121\r\n") && !screen.contains("120\r\n"), "{screen:?}");
    job.kill();
    // Without -f everything is shown, and -n has its way.
    let screen = terminal.succeeds("detach --log; detach --log -f -n 1 | wc -l");
    assert!(screen.contains("101\r\n") && screen.ends_with("\r\n1\r\n"), "{screen:?}");
}

#[test]
fn output_is_followed_to_its_end_while_the_job_is_killed_and_pruned() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sh", "-c", &format!("{IN_TWO_PARTS}; exec sleep 60")]);
    let (following, mut output, line) = follow_to_first_line(&sandbox);
    let process = Process::new(following.id().cast_signed());
    eventually(|| process.is_asleep());
    process.signal(Signal::SIGSTOP);
    eventually(|| process.is_stopped());
    sandbox.write("go", "");
    job.wait_for_exec("sleep");
    job.kill();
    sandbox.detach(["--prune", "0"]).succeeds_silently();
    assert_eq!(sandbox.records(), [""; 0]);
    process.signal(Signal::SIGCONT);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!((line.as_str(), rest.as_str()), ("first\n", "second\n"));
    Run::from(following.wait_with_output().unwrap()).succeeds();
}
