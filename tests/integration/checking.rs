//! `--check`: what it says about a process, and whether it is right.
//!
//! A test asks for a prediction first. Then it really closes the terminal, or ends the shell.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::scene::PROGRAM;
use crate::support::{
    DETACH, Event, Process, QUIET, Run, Sandbox, Scene, Terminal, assert_came_true, await_prediction, eventually,
    predict, process_named_in, sleeper,
};

/// A way to start a program: its name, a command line in which `{}` stands for the program, and the predictions.
type Way = (&'static str, String, [&'static str; 2]);

/// The ways to start it in the background.
fn ways(shell: &str) -> Vec<Way> {
    let passes_on = shell != "dash";
    let plain = if passes_on { "perhaps" } else { "survives" };
    let mut ways: Vec<Way> = vec![
        ("&", "{} &".into(), ["perhaps", "perhaps"]),
        ("quiet &", format!("{{}} {QUIET} &"), [plain, plain]),
        ("nohup &", "nohup {} &".into(), ["survives", "survives"]),
        ("setsid -f", "setsid -f {}".into(), ["perhaps", "perhaps"]),
        ("quiet setsid -f", format!("setsid -f {{}} {QUIET}"), ["survives", "survives"]),
        ("detach", "detach {}".into(), ["survives", "survives"]),
        ("detach --track", "detach -t {}".into(), ["survives", "survives"]),
        ("detach --full", "detach --full {}".into(), ["survives", "survives"]),
        ("daemonize", "daemonize {}".into(), ["survives", "survives"]),
        ("descriptor 7", "detach --keep-fd 7 {} 7> /dev/tty".into(), ["perhaps", "perhaps"]),
        ("catcher", format!("{{catcher}} {QUIET} &"), [plain, plain]),
    ];
    if passes_on {
        ways.push(("& disown", "{} & disown".into(), ["perhaps", "perhaps"]));
    }
    if shell != "fish" {
        ways.push(("ignoring &", format!("(trap '' HUP; exec {{}}) {QUIET} &"), ["survives", "survives"]));
        ways.push(("pipe", "{} 2>&1 < /dev/null | cat &".into(), ["perhaps", "perhaps"]));
    }
    ways
}

fn assert_predictions_come_true(shell: &str, program: &[&str]) {
    requires!((program[0]), perl, daemonize);
    for event in [Event::Close, Event::Exit] {
        let mut scene = Scene::open(program);
        let mut predicted = Vec::new();
        for (name, line, expected) in ways(shell) {
            let process = scene.start(name, &line);
            let what = format!("{shell} / {name}");
            await_prediction(&scene.sandbox, &process, expected, &what);
            predicted.push((what, process, expected));
        }
        scene.let_happen(event);
        for (what, process, [closing, exit]) in &predicted {
            let outcome = if event == Event::Close { closing } else { exit };
            assert_came_true(outcome, process, &format!("{what} / {event:?}"));
        }
    }
    assert_stopped_job_that_ignores_hangups(shell, program);
    for event in [Event::Close, Event::Kill] {
        // A stopped job and a job in the foreground, each in a terminal of its own.
        for (name, key) in [("stopped", "\x1a"), ("foreground", "")] {
            let mut scene = Scene::open(program);
            let process = scene.start(name, "{}");
            eventually(|| scene.terminal.foreground() == process.group());
            scene.terminal.press(key);
            eventually(|| key.is_empty() || process.is_stopped() && scene.terminal.foreground() != process.group());
            let what = format!("{shell} / {name} / {event:?}");
            await_prediction(&scene.sandbox, &process, ["ends", "ends"], &what);
            scene.let_happen(event);
            assert_came_true("ends", &process, &what);
        }
    }
}

/// A stopped job that ignores SIGHUP: bash terminates it with SIGTERM, the other shells do not.
#[track_caller]
fn assert_stopped_job_that_ignores_hangups(shell: &str, program: &[&str]) {
    for event in [Event::Close, Event::Exit] {
        let mut scene = Scene::open(program);
        let line = if shell == "fish" {
            "sh -c \"trap '' HUP; exec {} < /dev/null > /dev/null 2>&1\""
        } else {
            "(trap '' HUP; exec {} < /dev/null > /dev/null 2>&1)"
        };
        let process = scene.start("stopped and ignoring", line);
        eventually(|| scene.terminal.foreground() == process.group());
        scene.terminal.press("\x1a");
        eventually(|| process.is_stopped() && scene.terminal.foreground() != process.group());
        let expected = if shell == "bash" { "ends" } else { "survives" };
        await_prediction(&scene.sandbox, &process, [expected, expected], shell);
        scene.let_happen(event);
        if expected == "ends" {
            assert_came_true("ends", &process, shell);
        } else {
            process.signal(Signal::SIGCONT);
            assert_came_true("survives", &process, shell);
        }
    }
}

#[test]
fn predictions_in_unusual_situations_come_true() {
    requires!(bash, dash, perl);
    let bash: &[&str] = &["bash", "--norc", "--noprofile", "-i"];
    let replaced: &[&str] = &["bash", "-c", "cp $(command -v bash) mine; exec ./mine --norc --noprofile -i"];
    for (name, program, line, expected) in [
        // Its parent has ended, but other processes of its job run.
        ("orphan in a job", bash, format!("{{ {{}} {QUIET} & }} | sleep 60 &"), "perhaps"),
        (
            "stopped orphan",
            bash,
            format!("({{}} {QUIET} &); until kill -STOP $(cat {{file}}); do sleep 0.1; done"),
            "survives",
        ),
        ("fifo", &["dash", "-i"], "mkfifo f; {} < f > /dev/null 2>&1 & exec 3> f".to_owned(), "perhaps"),
        ("replaced shell", replaced, format!("rm -f mine; {{}} {QUIET} &"), "perhaps"),
    ] {
        let mut scene = Scene::open(program);
        let process = scene.start(name, &line);
        await_prediction(&scene.sandbox, &process, [expected, expected], name);
        scene.let_happen(Event::Close);
        if expected == "survives" {
            process.signal(Signal::SIGCONT);
        }
        assert_came_true(expected, &process, name);
    }
}

#[test]
fn child_of_a_script_that_traps_hangups_may_survive() {
    requires!(perl);
    let sandbox = Sandbox::new();
    let program = sandbox.script("program", PROGRAM);
    let file = sandbox.path("child.pid");
    let script = format!("trap : HUP; {} plain {} {QUIET}; :", program.display(), file.display());
    let mut terminal = Terminal::open_with(&sandbox, &["dash", "-c", &script]);
    let process = process_named_in(&file);
    eventually(|| predict(&sandbox, &process).0 == "perhaps");
    terminal.hang_up();
    // The script waits for it, and so does not end.
    assert_came_true("survives", &process, "child of a script");
}

#[test]
fn exit_of_a_nested_shell_does_not_end_its_foreground_job() {
    requires!(perl);
    let mut scene = Scene::open(&["bash", "--norc", "--noprofile", "-i"]);
    let inner = scene.sandbox.path("inner.pid");
    let nested = scene.terminal.start(
        &format!("bash --norc --noprofile -i -c 'echo $$ > {0}; exec bash --norc --noprofile -i'", inner.display()),
        &inner,
    );
    let process = scene.start("foreground", &format!("{{}} {QUIET}"));
    eventually(|| scene.terminal.foreground() == process.group());
    await_prediction(&scene.sandbox, &process, ["ends", "perhaps"], "foreground");
    nested.signal(Signal::SIGKILL);
    eventually(|| nested.is_dead());
    assert_came_true("survives", &process, "job of a nested shell");
    // The setting huponexit is not visible from outside, and it decides: "perhaps" is right.
    for (option, lives) in [("-u", true), ("-s", false)] {
        let mut scene = Scene::open(&["bash", "--noprofile", "--login", "-i"]);
        let process = scene.start("job", &format!("shopt {option} huponexit; {{}} {QUIET} &"));
        assert_eq!(predict(&scene.sandbox, &process).1, "perhaps");
        scene.let_happen(Event::Exit);
        assert_came_true(if lives { "survives" } else { "ends" }, &process, option);
    }
}

#[test]
fn predictions_in_bash_come_true() {
    assert_predictions_come_true("bash", &["bash", "--norc", "--noprofile", "-i"]);
}

#[test]
fn predictions_in_zsh_come_true() {
    assert_predictions_come_true("zsh", &["zsh", "-f", "-i"]);
}

#[test]
fn predictions_in_fish_come_true() {
    assert_predictions_come_true("fish", &["fish", "--no-config", "-i"]);
}

#[test]
fn predictions_in_dash_come_true() {
    assert_predictions_come_true("dash", &["dash", "-i"]);
}

#[test]
fn session_leader_ends_when_its_terminal_closes() {
    requires!(perl);
    for (kind, expected) in [("plain", "ends"), ("catcher", "perhaps")] {
        let sandbox = Sandbox::new();
        let program = sandbox.script("program", PROGRAM);
        let file = sandbox.path("leader.pid");
        let mut terminal = Terminal::open_with(&sandbox, &[program.to_str().unwrap(), kind, file.to_str().unwrap()]);
        let process = process_named_in(&file);
        await_prediction(&sandbox, &process, [expected, "perhaps"], kind);
        terminal.hang_up();
        assert_came_true(expected, &process, kind);
    }
}

/// Hazard, grade and fact of each finding.
fn findings(sandbox: &Sandbox, process: &Process) -> Vec<(String, String, String)> {
    let run = sandbox.detach(["--check", "--json", &process.pid.to_string()]);
    let json: Value = serde_json::from_str(&run.stdout).unwrap();
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let list = json["findings"].as_array().unwrap().clone();
    list.iter().map(|it| (text(it, "hazard"), text(it, "grade"), text(it, "fact"))).collect()
}

#[test]
fn every_hazard_is_listed_with_its_fact() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let findings = findings(&sandbox, &job);
    let hazards: Vec<&str> = findings.iter().map(|(hazard, ..)| hazard.as_str()).collect();
    assert_eq!(hazards, ["terminal", "shell", "keys", "streams", "background", "logout", "memory", "children"]);
    assert!(findings[..5].iter().all(|(_, grade, _)| grade == "good"), "{findings:?}");
    let run = sandbox.detach(["--check", "sleep"]);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!((run.status, lines[0]), (0, format!("'sleep' (PID {})", job.pid).as_str()));
    let fact = "+ terminal closing   it has no controlling terminal, so nothing sends it SIGHUP";
    assert_eq!(lines[1], fact);
    assert!(lines.last().unwrap().starts_with("survives shell exit"), "{lines:?}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:?}");
    // Without a JOB, the newest running job is checked.
    sandbox.job(["-N", "newer", "sleep", "61"]);
    assert!(sandbox.detach(["--check"]).stdout.contains("PID"));
    let run = sandbox.detach(["--check", "newer", "sleep"]);
    assert_eq!((run.status, run.stdout.matches("survives shell exit").count()), (0, 2));
}

#[test]
fn children_and_zombies_are_counted() {
    requires!(perl);
    let sandbox = Sandbox::new();
    let script = "fork or exit for 1..3; if (!fork) { sleep 60 } open my $f, '>', 'up.new'; print $f \"$$\\n\"; close $f; \
        rename 'up.new', 'up'; sleep 60";
    let job = sandbox.job(["perl", "-e", script]);
    process_named_in(&sandbox.path("work/up"));
    eventually(|| findings(&sandbox, &job)[7].2 == "3 zombies: ended children that it has not waited for");
    assert_eq!(findings(&sandbox, &job)[7].1, "bad");
    let job = sandbox.job(["--sigchld", "ignore", "sleep", "60"]);
    assert_eq!(findings(&sandbox, &job)[7].2, "0 running; it ignores SIGCHLD, so exit statuses of children are lost");
}

#[test]
fn keys_reach_the_foreground() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_with(&sandbox, &["bash", "--norc", "--noprofile", "-i"]);
    let file = sandbox.path("pid");
    for (trap, grade, fact) in [
        ("", "bad", r"it is in the foreground, unprotected from Ctrl-C, Ctrl-\ and Ctrl-Z"),
        ("trap '' INT QUIT TSTP;", "good", r"it is in the foreground and ignores Ctrl-C, Ctrl-\ and Ctrl-Z"),
    ] {
        let _ = fs::remove_file(&file);
        let process = terminal.start(&format!("sh -c \"{trap} {}\"", sleeper(&file).replace('$', "\\$")), &file);
        process.wait_for_exec("sleep");
        eventually(|| terminal.foreground() == process.group());
        let keys = findings(&sandbox, &process).remove(2);
        assert_eq!((keys.1.as_str(), keys.2.as_str()), (grade, fact));
        process.signal(Signal::SIGKILL);
    }
}

#[test]
fn background_job_on_the_terminal_is_bad() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_with(&sandbox, &["bash", "--norc", "--noprofile", "-i"]);
    let process = terminal.background("sleep 60");
    let background = findings(&sandbox, &process).remove(4);
    assert_eq!(background.1, "bad", "{background:?}");
    let process = terminal.background(&format!("sleep 60 {QUIET}"));
    assert_eq!(findings(&sandbox, &process)[4].1, "good");
}

#[test]
fn verbose_check_shows_what_the_kernel_says() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["-m", "027", "-C", "/", "sleep", "60"]);
    let run = sandbox.detach(["-v", "--check", &job.pid.to_string()]);
    let line = |title: &str| {
        let lines = run.stdout.lines().map(str::trim_start);
        let mut lines = lines.filter_map(|line| line.strip_prefix(title)?.strip_prefix(' '));
        lines.next().unwrap_or_else(|| panic!("no {title} in {}", run.stdout)).trim().to_owned()
    };
    let pid = job.pid.to_string();
    assert_eq!([line("PID"), line("PGID")], [pid.clone(), pid.clone()]);
    assert_eq!(line("SID"), format!("{pid} (sleep)"));
    assert_eq!([line("TTY"), line("TPGID")], ["none", "none"]);
    assert_eq!([line("SigIgn"), line("SigCgt"), line("SigBlk")], ["SIGHUP", "none", "none"]);
    assert_eq!([line("umask"), line("cwd")], ["027", "/"]);
    assert_eq!(line("descriptor"), "0 /dev/null");
    assert!(line("PPID").starts_with(&std::process::id().to_string()), "{}", line("PPID"));
}

#[test]
fn control_characters_in_names_are_escaped() {
    let sandbox = Sandbox::new();
    for name in ["a) S 1 2", "line\nbreak", "\u{1b}[2J"] {
        let path = sandbox.script(name, "#!/bin/sh\necho $$ > $1.new; mv $1.new $1; while :; do sleep 1; done\n");
        let file = sandbox.path("work/pid");
        let _ = fs::remove_file(&file);
        sandbox.job([path.as_os_str(), file.as_os_str()]);
        let job = process_named_in(&file);
        let run = sandbox.detach(["--check", &job.pid.to_string()]);
        assert_eq!(run.status, 0, "{run:?}");
        let shown = name.replace('\n', "\\n").replace('\u{1b}', "\\x1b");
        assert_eq!(run.stdout.lines().next(), Some(format!("'{shown}' (PID {})", job.pid).as_str()));
    }
}

#[test]
fn check_of_a_missing_process_or_job_fails() {
    let sandbox = Sandbox::new();
    let run = sandbox.detach(["--check"]);
    let stderr = "detach: cannot check anything: no PID or JOB is given, and no job is running\n";
    assert_eq!((run.status, run.stderr.as_str()), (125, stderr));
    let run = sandbox.detach(["--check", "2147483647"]);
    let stderr = "detach: cannot check process 2147483647: no such process\n";
    assert_eq!((run.status, run.stderr.as_str()), (125, stderr));
    let job = sandbox.job(["true"]);
    eventually(|| job.is_dead());
    let run = sandbox.detach(["--check", "true"]);
    let stderr = format!("detach: cannot check 'true' (PID {}): it has ended\n", job.pid);
    assert_eq!((run.status, run.stderr), (125, stderr));
    let run = sandbox.detach(["--check", "nope"]);
    assert!(
        run.stderr.starts_with("detach: cannot find job 'nope': no job has this PID, name or command line\n"),
        "{run:?}"
    );
    // The other processes are checked nevertheless.
    let other = sandbox.job(["sleep", "60"]);
    let run = sandbox.detach(["--check", "nope", &other.pid.to_string()]);
    assert_eq!((run.status, run.stdout.contains("survives shell exit")), (125, true), "{run:?}");
}

#[test]
fn what_is_left_of_a_job_is_checked() {
    let sandbox = Sandbox::new();
    sandbox.script("launcher", "#!/bin/sh\nsleep 60 &\nsleep 61 &\n");
    let job = sandbox.job(["-o", "/dev/null", "./launcher"]);
    eventually(|| job.is_dead() && sandbox.processes().iter().all(|process| process.runs("sleep")));
    let mut left: Vec<i64> = sandbox.jobs(2).iter().map(|process| i64::from(process.pid.as_raw())).collect();
    left.sort_unstable();
    for word in [None, Some("launcher".to_owned()), Some(job.pid.to_string())] {
        let words = ["--check", "--json"].map(str::to_owned).into_iter().chain(word.clone());
        let run = sandbox.detach(words).exits(0);
        let pid = |line: &str| serde_json::from_str::<Value>(line).unwrap()["pid"].as_i64().unwrap();
        let mut checked: Vec<i64> = run.stdout.lines().map(pid).collect();
        checked.sort_unstable();
        assert_eq!((checked, run.stderr.as_str()), (left.clone(), ""), "{word:?}");
    }
    sandbox.detach(["--stop", "launcher"]).succeeds_silently();
    let stderr = format!("detach: cannot check 'launcher' (PID {}): it has ended", job.pid);
    sandbox.detach(["--check", "launcher"]).fails(125, &stderr);
    let stderr = format!("detach: cannot check process {}: no such process", job.pid);
    sandbox.detach(["--check", &job.pid.to_string()]).fails(125, &stderr);
}

#[test]
fn process_that_ends_during_the_check_is_reported_as_missing() {
    let sandbox = Sandbox::new();
    // Many short-lived processes.
    let script = "while :; do true & true & true & wait; done";
    let job = sandbox.job(["-o", "/dev/null", "sh", "-c", script]);
    for _ in 0..50 {
        let child = crate::support::all_pids().into_iter().max().unwrap();
        let run = sandbox.detach(["--check", &child.to_string()]);
        assert!([0, 1, 125].contains(&run.status), "{run:?}");
        assert!(!run.stderr.contains("panicked"), "{run:?}");
    }
    job.signal(Signal::SIGKILL);
}

#[test]
fn unreadable_facts_of_other_users_processes_are_unknown() {
    requires!(root, setpriv);
    let sandbox = Sandbox::new();
    let copy = sandbox.path("detach");
    assert_eq!(Run::of(sandbox.command("cp").arg(DETACH).arg(&copy)).status, 0);
    let job = sandbox.job(["sleep", "60"]);
    let as_nobody = |pid: i32| {
        let mut command = sandbox.command("setpriv");
        command.args(["--reuid=54321", "--regid=54321", "--clear-groups"]).arg(&copy);
        Run::of(command.args(["-v", "--check", &pid.to_string()]))
    };
    let run = as_nobody(job.pid.as_raw());
    assert_eq!((run.status, run.stderr.as_str()), (1, ""), "{run:?}");
    assert!(
        run.stdout.contains("? open terminals     its descriptors cannot be read; one may be on a terminal\n"),
        "{run:?}"
    );
    // The reason, as the terminal closing and the shell exit by themselves do no harm.
    let verdict = "survives logout; might not survive shell exit or terminal closing (see open\nterminals)\n";
    assert!(run.stdout.ends_with(verdict), "{run:?}");
    // Process 1, and a kernel thread if there is one.
    assert!([0, 1].contains(&as_nobody(1).status));
    let run = sandbox.detach(["--check", "1"]);
    assert!([0, 1].contains(&run.status), "{run:?}");
    if fs::read("/proc/2/comm").is_ok_and(|name| name == b"kthreadd\n") {
        let run = sandbox.detach(["--check", "2"]);
        assert!(run.stdout.starts_with("'kthreadd' (PID 2)\n+ terminal closing "), "{run:?}");
    }
}

#[test]
fn check_changes_nothing() {
    requires!(strace);
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let script = format!("strace -f -o ../trace -e trace=file,process,signal,ptrace detach --check {}", job.pid);
    assert_eq!(sandbox.sh(&script).status, 0);
    let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
    for call in ["O_WRONLY", "O_RDWR", "O_CREAT", "kill(", "unlink", "ptrace(", "clone("] {
        assert!(!trace.contains(call), "{call} in {trace}");
    }
    let opened = trace.lines().filter(|line| line.contains("open")).find(|line| line.contains("\"/dev/"));
    assert_eq!(opened, None);
}
