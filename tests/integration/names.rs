//! What a job is called, and which job a word means.

use std::fs;

use crate::support::{Process, Run, Sandbox, Terminal, bytes, eventually, process_named_in};

#[test]
fn job_of_an_interpreter_is_named_after_its_script() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.work("src")).unwrap();
    sandbox.write("src/run.sh", "");
    sandbox.write("train.py", "");
    sandbox.write("x.js", "");
    sandbox.write("a.pl", "");
    sandbox.write("a.fish", "");
    for (command, program, name) in [
        (&["sh", "src/run.sh"][..], "sh", "run.sh"),
        (&["bash", "-x", "src/run.sh"], "bash", "run.sh"),
        (&["dash", "./src/run.sh", "-c"], "dash", "run.sh"),
        (&["zsh", "src/run.sh"], "zsh", "run.sh"),
        (&["fish", "a.fish"], "fish", "a.fish"),
        (&["/usr/bin/python3", "-u", "train.py"], "python3", "train.py"),
        (&["python3", "-m", "this"], "python3", "this"),
        (&["perl", "a.pl"], "perl", "a.pl"),
        (&["node", "x.js"], "node", "x.js"),
        (&["sh", "-c", "true", "src/run.sh"], "sh", "sh"),
        (&["bash", "-o", "posix", "src/run.sh"], "bash", "bash"),
        (&["python3", "-c", "", "train.py"], "python3", "python3"),
        (&["cat", "train.py"], "cat", "cat"),
    ] {
        requires!((program));
        let job = sandbox.job(["-w"].iter().chain(command));
        assert_eq!(sandbox.record_of(&job)["name"], name, "{command:?}");
        assert!(sandbox.state().join(format!("{name}-{}.log", job.pid)).exists(), "{command:?}");
    }
    let job = sandbox.job(["-w", "-N", "mine", "sh", "src/run.sh"]);
    assert_eq!(sandbox.record_of(&job)["name"], "mine");
}

#[test]
fn jar_gives_its_name_to_the_job() {
    let sandbox = Sandbox::new();
    sandbox.script("java", "#!/bin/sh\n");
    let job = sandbox.job(["-w", "./java", "-jar", "lib/x.jar", "--port", "1"]);
    assert_eq!(sandbox.record_of(&job)["name"], "x.jar");
}

#[test]
fn strange_names_are_shown_and_found() {
    let sandbox = Sandbox::new();
    let long = "x".repeat(300);
    for (number, (name, shown, log)) in [
        ("作业", "作业", "作业".to_owned()),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m", "a_b__31m".into()),
        ("..", "..", "_..".into()),
        ("it's", "it's", "it_s".into()),
        (&long, &long, "x".repeat(100)),
    ]
    .into_iter()
    .enumerate()
    {
        let job = sandbox.job(["-w", "-N", name, "echo", &number.to_string()]);
        let lines = sandbox.list(&[]);
        let line = lines.iter().find(|line| line[0] == job.pid.to_string()).unwrap();
        assert_eq!(line[1], shown);
        assert_eq!(sandbox.detach(["--log", name]).succeeds(), format!("{number}\n"));
        let logs = sandbox.logs();
        let is_its = |it: &&String| it.ends_with(&format!("-{}.log", job.pid));
        let stem = logs.iter().find(is_its).unwrap().strip_suffix(&format!("-{}.log", job.pid)).unwrap().to_owned();
        assert_eq!(stem, log);
    }
    let job = sandbox.job([bytes(b"-w"), bytes(b"-N"), bytes(b"\xff\xfe"), bytes(b"true")]);
    assert!(sandbox.logs().contains(&format!("__-{}.log", job.pid)), "{:?}", sandbox.logs());
}

#[test]
fn part_of_a_command_line_means_the_only_job_that_has_it() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["-t", "sh", "-c", "echo one; exec sleep 60 # first"]);
    let other = sandbox.job(["sleep", "61"]);
    eventually(|| sandbox.detach(["--log", "# first"]).succeeds() == "one\n");
    let stderr =
        format!("detach: warning: '# first' matches 'sh' (PID {}): sh -c 'echo one; exec sleep 60 # first'", job.pid);
    sandbox.detach(["--stop", "# first"]).warns(&stderr);
    assert!(job.is_dead() && other.is_alive());
    sandbox.detach(["-q", "--join", "# first"]).exits_silently(143);
    // A name comes before a part.
    let named = sandbox.job(["-N", "61", "sleep", "62"]);
    sandbox.detach(["--stop", "61"]).succeeds_silently();
    assert!(named.is_dead() && other.is_alive());
}

#[test]
fn number_is_not_part_of_a_command_line() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "2147483647"]);
    for number in ["147483647", "2147483647"] {
        let stderr = format!(
            "detach: cannot find job '{number}': no job has this PID, name or command line\n\
             detach: hint: see 'detach --list --all'"
        );
        sandbox.detach(["--stop", number]).fails(125, &stderr);
    }
    assert!(job.is_alive());
}

#[test]
fn part_of_several_command_lines_is_refused() {
    let sandbox = Sandbox::new();
    let jobs: Vec<Process> =
        (60..68).map(|seconds: i32| sandbox.job(["sleep".to_owned(), seconds.to_string()])).collect();
    let shown =
        jobs.iter().enumerate().rev().take(5).map(|(number, job)| format!("{} (sleep {})", job.pid, 60 + number));
    let shown = shown.collect::<Vec<_>>().join(", ");
    for (mode, verb) in [("--stop", "stop"), ("--join", "wait for"), ("--log", "show the output of")] {
        let stderr = format!(
            "detach: cannot {verb} 'leep 6': several jobs match: {shown} and 3 more\n\
             detach: hint: use the PID of one of them"
        );
        sandbox.detach([mode, "leep 6"]).fails(125, &stderr);
    }
    assert!(jobs.iter().all(Process::is_alive));
}

#[test]
fn mode_without_a_job_takes_the_newest() {
    let sandbox = Sandbox::new();
    sandbox.detach(["-w", "-N", "a", "echo", "first"]).succeeds_silently();
    sandbox.detach(["-qw", "-N", "b", "sh", "-c", "echo second; exit 5"]).exits_silently(5);
    assert_eq!(sandbox.detach(["--log"]).succeeds(), "second\n");
    sandbox.detach(["-q", "--join"]).exits_silently(5);
    let job = sandbox.job(["sleep", "60"]);
    let run = sandbox.detach(["--check", "--json"]).exits(0);
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(json["pid"], job.pid.as_raw());
}

#[test]
fn mode_without_any_job_is_125() {
    let sandbox = Sandbox::new();
    for mode in ["--log", "--join"] {
        sandbox.detach([mode]).fails(125, "detach: cannot find a job: none has been started yet");
    }
    sandbox.detach(["-v", "--stop", "--all"]).warns("detach: nothing to stop: no job has been started yet");
}

#[test]
fn all_jobs_are_stopped_or_all_of_a_name() {
    let sandbox = Sandbox::new();
    let job = |name: &str| sandbox.job(["-N", name, "sleep", "60"]);
    let [a, b, c, d] = ["one", "one", "two", "three"].map(job);
    let note = |job: &Process, name: &str| format!("detach: '{name}' (PID {}) ended", job.pid);
    let notes = [note(&a, "one"), note(&b, "one")].join("\n");
    sandbox.detach(["-v", "--stop", "--all", "one"]).warns(&notes);
    assert!(a.is_dead() && b.is_dead() && c.is_alive() && d.is_alive());
    let nothing = "detach: nothing to stop: no such job is running";
    sandbox.detach(["-v", "--stop", "--all", "one"]).warns(nothing);
    sandbox.detach(["-v", "--stop", "--all"]).warns(&[note(&c, "two"), note(&d, "three")].join("\n"));
    assert!(c.is_dead() && d.is_dead());
    sandbox.detach(["-v", "--stop", "--all"]).warns("detach: nothing to stop: no job is running");
}

#[test]
fn all_jobs_can_be_sent_a_signal() {
    let sandbox = Sandbox::new();
    let jobs = [sandbox.job(["sleep", "60"]), sandbox.job(["sleep", "61"])];
    sandbox.detach(["--stop", "--all", "--signal", "STOP"]).succeeds_silently();
    eventually(|| jobs.iter().all(Process::is_stopped));
    sandbox.detach(["--stop", "--all"]).succeeds_silently();
    assert!(jobs.iter().all(Process::is_dead));
}

#[test]
fn files_of_the_caller_are_recorded_by_their_paths() {
    let sandbox = Sandbox::new();
    let out = sandbox.work("out.txt").display().to_string();
    let file = serde_json::json!({ "file": out });
    let mut command = sandbox.command("sh");
    let run = Run::of(command.args(["-c", "detach -w sh -c 'echo one; echo two >&2' > out.txt 2>&1"]));
    run.succeeds_silently();
    let record = sandbox.only_record();
    assert_eq!((&record["stdout"], &record["stderr"]), (&file, &file));
    assert_eq!(sandbox.logs(), [""; 0]);
    assert_eq!(sandbox.detach(["--log"]).succeeds(), "one\ntwo\n");
    let listed = sandbox.list(&[]).remove(0);
    assert_eq!((listed[2].as_str(), listed[5].as_str()), ("exited 0", "8 B"));
    // The note names it as well; what detach says goes there, too.
    sandbox.sh("detach -v sleep 60 > out.txt 2>&1").succeeds_silently();
    let note = format!("detach: 'sleep' (PID {}), output in {out}\n", sandbox.only_job().pid);
    assert_eq!(sandbox.read("out.txt"), note);
    // A file that has no name any more has no path.
    sandbox.sh("exec > gone; rm gone; detach -o - true").succeeds_silently();
    assert_eq!(sandbox.records()[2]["stdout"], "kept");
}

#[test]
fn stderr_on_a_terminal_follows_stdout_that_is_a_file() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    let script = "sh -c 'echo words; echo errors >&2; exec sleep 60'";
    let screen = terminal.succeeds(&format!("detach {script} > build.log"));
    let path = sandbox.work("build.log").display().to_string();
    assert!(screen.contains(&format!("), output in {path}\r\n")), "{screen}");
    eventually(|| sandbox.read("build.log") == "words\nerrors\n");
    assert_eq!(sandbox.logs(), [""; 0]);
    // The other way round, stdout has no file that it could follow.
    terminal.succeeds(&format!("detach -N log {script} 2> errors.log"));
    eventually(|| sandbox.read("errors.log").ends_with("errors\n"));
    eventually(|| sandbox.log() == "words\n");
}

#[test]
fn process_of_a_job_is_not_its_name() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sh", "-c", "sleep 60 & echo $! > new; mv new child; wait"]);
    let child = process_named_in(&sandbox.work("child")).pid;
    for mode in ["--log", "--join", "--stop"] {
        sandbox.detach([mode, &child.to_string()]).fails(
            125,
            &format!(
                "detach: cannot find job '{child}': it is a process of 'sh' (PID {pid})\n\
                 detach: hint: use the PID of the job, {pid}",
                pid = job.pid
            ),
        );
    }
    assert!(job.is_alive());
}
