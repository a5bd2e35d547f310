//! `--log`: the output of a job, byte for byte, now or until it ends.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use nix::sys::signal::Signal;

use crate::support::{DETACH, Run, Sandbox, Terminal, bytes, eventually, is_installed};

fn follow(sandbox: &Sandbox, job: &str) -> Child {
    let mut command = sandbox.command(DETACH);
    command.args(["--log", "-f", job]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A job that writes "first", and "second" when the file `go` is there.
const IN_TWO_PARTS: &str = "echo first; until [ -e go ]; do sleep 0.01; done; echo second";

#[test]
fn output_is_shown_byte_for_byte() {
    let sandbox = Sandbox::new();
    let script = r"printf 'a\0\377\n'; printf 'no newline' >&2";
    let run = Run::of(sandbox.command(DETACH).args(["-w", "-N", "odd\n", "sh", "-c", script]));
    assert_eq!(run.status, 0);
    let output = sandbox.command(DETACH).arg("--log").arg(bytes(b"odd\n")).output().unwrap();
    assert_eq!(output.stdout, b"a\0\xff\nno newline");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn newest_of_a_name_is_shown() {
    let sandbox = Sandbox::new();
    let first = sandbox.job(["-N", "it", "sh", "-c", "echo first; exec sleep 60"]);
    assert_eq!(sandbox.detach(["-wN", "it", "echo", "second"]).status, 0);
    assert_eq!(sandbox.detach(["-wN", "other", "echo", "third"]).status, 0);
    assert_eq!(sandbox.detach(["--log", "it"]).stdout, "second\n");
    eventually(|| sandbox.detach(["--log", &first.pid.to_string()]).stdout == "first\n");
    assert_eq!(sandbox.detach(["-wN", "it", "echo", "fourth"]).status, 0);
    assert_eq!(sandbox.detach(["--log=it"]).stdout, "fourth\n");
}

#[test]
fn newest_is_the_one_that_was_started_last() {
    let sandbox = Sandbox::new();
    let long = sandbox.job(["-t", "-N", "it", "sh", "-c", "echo long; exec sleep 60"]);
    assert_eq!(sandbox.detach(["-wN", "it", "echo", "short"]).status, 0);
    // Its record is written last.
    long.signal(Signal::SIGKILL);
    eventually(|| sandbox.records().iter().any(|record| record["end"]["signal"] == 9));
    assert_eq!(sandbox.detach(["--log", "it"]).stdout, "short\n");
}

#[test]
fn name_that_is_a_number_is_found_where_no_job_has_that_pid() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.detach(["-wN", "2147483647", "echo", "number"]).status, 0);
    assert_eq!(sandbox.detach(["--log", "2147483647"]).stdout, "number\n");
}

#[test]
fn files_of_the_user_are_shown() {
    let sandbox = Sandbox::new();
    let script = "echo to stdout; echo to stderr >&2";
    for (options, stdout, stderr) in [
        (&["-o", "out"][..], "to stdout\nto stderr\n", ""),
        (&["-o", "o", "-e", "e"], "to stdout\n", "detach: its stderr is in ~/../work/e\n"),
        (&["-o", "/dev/null", "-e", "only"], "to stderr\n", ""),
    ] {
        let run = sandbox.detach(["-w", "-C", "/"].iter().chain(options).chain(&["sh", "-c", script]));
        assert_eq!(run.status, 0);
        let run = sandbox.detach(["-v", "--log", "sh"]);
        let stderr = stderr.replace("~/..", sandbox.path("").display().to_string().trim_end_matches('/'));
        assert_eq!((run.status, run.stdout.as_str(), run.stderr), (0, stdout, stderr), "{options:?}");
    }
}

#[test]
fn output_that_is_nowhere_is_told() {
    let sandbox = Sandbox::new();
    for (options, reason) in [
        (&["-o", "/dev/null"][..], "it is discarded"),
        (&["--full"], "it is discarded"),
        (&["-o", "-"], "it was left to go where that of its caller went"),
    ] {
        let job = sandbox.job(options.iter().chain(&["true"]));
        let run = sandbox.detach(["--log", "true"]);
        let stderr = format!("detach: cannot show the output of 'true', PID {}: {reason}\n", job.pid);
        assert_eq!((run.status, run.stdout.as_str(), run.stderr), (125, "", stderr));
    }
    let job = sandbox.job(["true"]);
    let log = sandbox.state().join(&sandbox.files(".log")[0]);
    fs::remove_file(&log).unwrap();
    let run = sandbox.detach(["--log", &job.pid.to_string()]);
    let stderr = format!("detach: cannot read '{}': no such file or directory\n", log.display());
    assert_eq!((run.status, run.stderr), (125, stderr));
}

#[test]
fn output_that_cannot_be_copied_is_told() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["-o", "out", "sh", "-c", "echo word; exec sleep 60"]);
    eventually(|| fs::read(sandbox.path("work/out")).is_ok_and(|bytes| bytes == b"word\n"));
    let run = sandbox.sh("timeout 20 detach --log -f sh >> out");
    let stderr = format!("detach: cannot show the output of 'sh', PID {}: stdout is that file as well\n", job.pid);
    assert_eq!((run.status, run.stderr), (125, stderr));
    assert_eq!(fs::read(sandbox.path("work/out")).unwrap(), b"word\n");
    let run = sandbox.sh("rm out; mkfifo out; timeout 20 detach --log sh");
    assert_eq!((run.status, run.stderr.ends_with("/work/out' is not a regular file\n")), (125, true), "{run:?}");
}

#[test]
fn slow_reader_gets_everything() {
    if !is_installed("perl") {
        return;
    }
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.detach(["-w", "seq", "1", "100000"]).status, 0);
    // The write end of the pipe does not wait.
    let script = r"use Fcntl; pipe(my $r, my $w); fcntl($w, F_SETFL, O_NONBLOCK | O_WRONLY);
        if (!fork) { close $r; open STDOUT, '>&', $w; exec 'detach', '--log', 'seq' }
        close $w; select undef, undef, undef, 0.2; my $n = 0; $n += length while <$r>; wait; print $n, ' ', $?";
    let run = Run::of(sandbox.command("perl").args(["-e", script]));
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("588895 0", ""));
}

#[test]
fn job_that_is_none_is_told() {
    let sandbox = Sandbox::new();
    let hint = "detach: hint: see 'detach --list --all'\n";
    for is_first in [true, false] {
        for (job, reason) in [
            ("nope", "none has this PID or name"),
            ("", "none has this PID or name"),
            ("-7", "none has this PID or name"),
            ("99999999999999999999", "none has this PID or name"),
            ("1", "detach has not started this process"),
        ] {
            for mode in ["--log", "--join", "--stop"] {
                let run = sandbox.detach([format!("{mode}={job}")]);
                let stderr = format!("detach: cannot find job '{job}': {reason}\n{hint}");
                assert_eq!((run.status, run.stdout.as_str(), run.stderr), (125, "", stderr), "{mode} {job}");
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
        let _ = fs::remove_file(sandbox.path("work/go"));
        let mut options = start.to_vec();
        let command = options.pop().unwrap();
        sandbox.job(options.into_iter().chain([command, "-c", IN_TWO_PARTS]));
        let mut following = follow(&sandbox, "sh");
        let mut output = BufReader::new(following.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "first\n");
        fs::write(sandbox.path("work/go"), "").unwrap();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "second\n");
        let run = Run::from(following.wait_with_output().unwrap());
        assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    }
    // One that has ended is followed to its end at once.
    assert_eq!(sandbox.detach(["--log", "sh", "--follow"]).stdout, "first\nsecond\n");
}

#[test]
fn output_is_followed_while_the_job_runs() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sh", "-c", &format!("{IN_TWO_PARTS}; exec sleep 60")]);
    let mut following = follow(&sandbox, "sh");
    let mut output = BufReader::new(following.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    fs::write(sandbox.path("work/go"), "").unwrap();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "first\nsecond\n");
    assert!(job.is_alive());
    following.kill().unwrap();
    following.wait().unwrap();
}

#[test]
fn following_waits_without_work() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.job(["sh", "-c", "echo begin; sleep 0.3; echo more; sleep 0.3; echo end"]);
    let run = sandbox.sh("strace -o ../trace -e trace=poll,read,write detach --log -f sh");
    assert_eq!((run.status, run.stdout.as_str()), (0, "begin\nmore\nend\n"));
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
    fs::write(sandbox.path("work/go"), "").unwrap();
    let followed = Run::from(counting.unwrap().wait_with_output().unwrap());
    assert_eq!(following.wait().unwrap().code(), Some(0));
    let direct = sandbox.sh("seq 1 12700000 | cksum");
    assert_eq!(followed.stdout, direct.stdout);
    let size: u64 = direct.stdout.split(' ').nth(1).unwrap().trim().parse().unwrap();
    assert!(size > 100_000_000, "{direct:?}");
}

#[test]
fn following_ends_quietly_when_nobody_reads() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sh", "-c", "echo line; exec sleep 60"]);
    // Nothing more is ever written, so no write could fail.
    let run = Run::of(sandbox.command("bash").args(["-c", "set -o pipefail; detach --log -f sh | head -n 1"]));
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (0, "line\n", ""));
    assert!(job.is_alive());
    let run = Run::of(sandbox.command("bash").args(["-c", "set -o pipefail; detach --log sh | true"]));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let run = sandbox.sh("detach --log sh > /dev/full");
    assert_eq!(run.status, 125);
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
fn truncated_output_is_followed_from_its_new_begin() {
    let sandbox = Sandbox::new();
    let script = "echo a long first line; until [ -e go ]; do sleep 0.01; done; echo new";
    sandbox.job(["-o", "out", "sh", "-c", script]);
    let mut following = follow(&sandbox, "sh");
    let mut output = BufReader::new(following.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    fs::write(sandbox.path("work/out"), "").unwrap();
    fs::write(sandbox.path("work/go"), "").unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!((line.as_str(), rest.as_str()), ("a long first line\n", "new\n"));
    assert_eq!(following.wait().unwrap().code(), Some(0));
}

#[test]
fn child_that_goes_on_does_not_hold_up_following() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sh", "-c", "echo line; sleep 60 & until [ -e go ]; do sleep 0.01; done"]);
    let following = follow(&sandbox, "sh");
    fs::write(sandbox.path("work/go"), "").unwrap();
    let run = Run::from(following.wait_with_output().unwrap());
    assert_eq!((run.status, run.stdout.as_str()), (0, "line\n"));
    assert!(job.is_dead());
    sandbox.jobs(1)[0].wait_for_exec("sleep");
}

#[test]
fn wrong_use_of_modes_is_told() {
    let sandbox = Sandbox::new();
    for (line, sentence) in [
        ("--log", "cannot use '--log': no JOB is given"),
        ("--log -f", "cannot use '--log': no JOB is given"),
        ("--join", "cannot use '--join': no JOB is given"),
        ("--stop --grace 1s", "cannot use '--stop': no JOB is given"),
        ("--stop --grace 1s a --signal KILL", "cannot use '--grace' with '--signal': nothing is sent after it"),
        ("--log a b", "cannot use 'b' with '--log': it takes one JOB"),
        ("--list a", "cannot use 'a' with '--list'"),
        ("--list --log a", "cannot use '--list' with '--log'"),
        ("--stop a --join b", "cannot use '--join' with '--stop'"),
        ("--list -f", "cannot use '--follow' with '--list'"),
        ("--log a --json", "cannot use '--json' with '--log'"),
        ("--list -o x", "cannot use '--output' with '--list'"),
        ("--prune --full", "cannot use '--full' with '--prune'"),
        ("-f true", "cannot use '--follow' without '--log'"),
        ("--all true", "cannot use '--all' without '--list'"),
        ("--signal TERM true", "cannot use '--signal' without '--stop'"),
        ("--stop a --signal TERM --grace 1s", "cannot use '--grace' with '--signal': nothing is sent after it"),
        ("--stop a --signal NO", "cannot use 'NO' for '--signal <SIG>': there is no such signal"),
        ("--prune=", "cannot use '' for '--prune[=<DURATION>]': not a duration like 500ms, 2s, 1m30s or 7d"),
        (
            "--prune=soon --prune",
            "cannot use 'soon' for '--prune[=<DURATION>]': not a duration like 500ms, 2s, 1m30s or 7d",
        ),
        ("--help=1", "cannot use '--help': it takes no value"),
        ("-q=1 true", "cannot use '-q': it takes no value"),
        ("--prune=soon", "cannot use 'soon' for '--prune[=<DURATION>]': not a duration like 500ms, 2s, 1m30s or 7d"),
    ] {
        let run = sandbox.detach(line.split(' '));
        let stderr = format!("detach: {sentence}\ndetach: hint: see 'detach --help'\n");
        assert_eq!((run.status, run.stdout.as_str(), run.stderr), (125, "", stderr), "{line}");
    }
    let run = sandbox.detach(["--prune", "7d"]);
    let stderr = "detach: cannot use '7d' with '--prune'\ndetach: hint: did you mean '--prune=7d'?\n";
    assert_eq!((run.status, run.stderr.as_str()), (125, stderr));
    assert!(!sandbox.state().exists());
}

#[test]
fn options_of_a_mode_stand_where_they_like() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sh", "-c", "echo out"]);
    eventually(|| job.is_dead());
    for line in
        ["--log sh -f", "--log -f sh", "-f --log sh", "-f --log=sh", "--log -- sh", "-q --log sh", "--log sh -q -f"]
    {
        let run = sandbox.detach(line.split(' '));
        assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (0, "out\n", ""), "{line}");
    }
    // The mode does not reach into the command.
    let run = sandbox.detach(["-w", "-o", "out", "printf", "%s ", "--log", "--list", "-f", "--stop"]);
    assert_eq!(run.status, 0);
    assert_eq!(fs::read_to_string(sandbox.path("work/out")).unwrap(), "--log --list -f --stop ");
}
