//! `--prune`: it removes jobs that have ended, and keeps everything that may still be in use.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::storage::set_age;
use crate::support::{DETACH, Run, Sandbox, Terminal, eventually, process_named_in, sleeper, storage};

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn prune_removes_jobs_that_have_ended_and_nothing_else() {
    let sandbox = Sandbox::new();
    let running = sandbox.job(["sleep", "60"]);
    let tracked = sandbox.job(["-t", "sleep", "61"]);
    let kept = sandbox.logs();
    assert_eq!(kept.len(), 2);
    sandbox.detach(["-w", "-o", "named.log", "echo", "word"]).succeeds_silently();
    sandbox.detach(["-w", "sh", "-c", "head -c 5000 /dev/zero"]).succeeds_silently();
    let ended = sandbox.job(["--full", "-t", "true"]);
    sandbox.end_of(&ended);
    // The two jobs and a tracking process.
    sandbox.jobs(3);

    let mut terminal = Terminal::open(&sandbox);
    let screen = terminal.succeeds("detach --prune 0");
    assert!(screen.contains("detach: removed 3 ended jobs, "), "{screen:?}");
    assert!(screen.contains(" KiB\r\n"), "{screen:?}");
    let left: Vec<i64> = sandbox.records().iter().map(|record| record["pid"].as_i64().unwrap()).collect();
    assert_eq!(left, [&running, &tracked].map(|job| i64::from(job.pid.as_raw())));
    assert_eq!(sandbox.logs(), kept);
    assert_eq!(sandbox.read("named.log"), "word\n");
    assert!(running.is_alive() && tracked.is_alive());
    let screen = terminal.succeeds("detach --prune 0");
    assert!(screen.contains("detach: nothing to remove: no job ended\r\n"), "{screen:?}");
}

#[test]
fn prune_keeps_a_file_named_by_the_user_that_looks_like_a_log() {
    let sandbox = Sandbox::new();
    // The first start makes the directory.
    sandbox.detach(["-w", "true"]).succeeds_silently();
    let named = sandbox.state().join("named-99999999.log");
    sandbox.detach(["-w", "-o", named.to_str().unwrap(), "echo", "word"]).succeeds_silently();
    sandbox.detach(["--prune", "0"]).succeeds_silently();
    assert_eq!(fs::read_to_string(&named).unwrap(), "word\n");
    // It must stay as well: nothing else shows that the file is no log.
    assert_eq!(sandbox.records().len(), 1);
}

/// The path of the log of the job with this name.
fn log_of(sandbox: &Sandbox, name: &str) -> PathBuf {
    let log = sandbox.logs().into_iter().find(|log| log.starts_with(name)).unwrap();
    sandbox.state().join(log)
}

/// The names of all jobs, sorted.
fn job_names(sandbox: &Sandbox) -> Vec<String> {
    let mut names: Vec<String> =
        sandbox.records().iter().map(|record| record["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn prune_keeps_jobs_that_were_active_lately() {
    let sandbox = Sandbox::new();
    for name in ["old", "talker", "tracked"] {
        sandbox.detach(["-w", "-N", name, "true"]).succeeds_silently();
    }
    for name in sandbox.logs() {
        set_age(&sandbox.state().join(name), "3 hours");
    }
    storage::make_older(&sandbox, 3 * HOUR);
    // One has written to its log since, and another has ended since.
    set_age(&log_of(&sandbox, "talker"), "1 hour");
    storage::make_end_later(&sandbox, "tracked", 2 * HOUR);
    for (age, expected) in [("4h", &["old", "talker", "tracked"][..]), ("2h", &["talker", "tracked"]), ("0.5h", &[])] {
        sandbox.detach(["--prune", age]).succeeds_silently();
        assert_eq!(job_names(&sandbox), expected, "{age}");
        assert_eq!(sandbox.logs().len(), expected.len(), "{age}");
    }
}

#[test]
fn prune_keeps_an_ended_job_whose_session_has_processes() {
    let sandbox = Sandbox::new();
    let file = sandbox.work("child");
    let job = sandbox.job(["sh", "-c", &format!("sh -c '{}' &", sleeper(&file))]);
    let child = process_named_in(&file);
    eventually(|| job.is_dead());
    let before = sandbox.files("");
    // The child may still write to the log.
    sandbox.detach(["--prune", "0"]).succeeds_silently();
    assert_eq!(sandbox.files(""), before);
    child.kill();
    sandbox.detach(["--prune", "0"]).succeeds_silently();
    assert_eq!((sandbox.records().len(), sandbox.logs().len()), (0, 0));
}

#[test]
fn prune_keeps_a_job_of_another_machine_until_it_is_old() {
    for move_elsewhere in [storage::move_to_other_machine, storage::move_to_other_pid_namespace] {
        let sandbox = Sandbox::new();
        let job = sandbox.job(["sleep", "60"]);
        storage::make_older(&sandbox, 72 * HOUR);
        set_age(&sandbox.log_file(), "3 days");
        move_elsewhere(&sandbox);
        let before = sandbox.files("");
        assert_eq!(sandbox.sh("detach --list | cut -f3").succeeds(), "elsewhere\n");
        // It may run, however long ago it was started. So it is a matter of a time that somebody has chosen.
        for age in ["0", "4d"] {
            sandbox.detach(["--prune", age]).succeeds_silently();
            assert_eq!(sandbox.files(""), before, "{age}");
        }
        job.kill();
        sandbox.detach(["--prune", "2d"]).succeeds_silently();
        assert_eq!((sandbox.records().len(), sandbox.logs().len()), (0, 0));
    }
}

#[test]
fn prune_that_cannot_see_the_processes_is_125() {
    requires!(root, unshare);
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let before = sandbox.files("");
    // /proc shows no processes, or those of another PID namespace.
    for script in ["mount -t tmpfs none /proc; detach --prune 0", "exec unshare --pid --fork detach --prune 0"] {
        let run = Run::of(sandbox.command("unshare").args(["--mount", "sh", "-c", script])).exits(125);
        assert!(run.stderr.starts_with("detach: cannot read '/proc': "), "{run:?}");
    }
    assert_eq!(sandbox.files(""), before);
    assert!(job.is_alive());
}

#[test]
fn prune_removes_files_that_killed_starts_have_left() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let kept = sandbox.files("");
    let ended = sandbox.job(["true"]);
    eventually(|| ended.is_dead());
    let make = |name: &str, age: &str| {
        fs::write(sandbox.state().join(name), "x").unwrap();
        set_age(&sandbox.state().join(name), age);
    };
    // The process of these logs lives; its record could not be written.
    make(&format!("lives-{}.log", job.pid), "1 hour");
    make(&format!("lives-{}-2.log", job.pid), "1 hour");
    make(&format!("dead-{}.log", ended.pid), "1 hour");
    make("no-number.log", "1 hour");
    make("notes.txt", "1 hour");
    // A directory is neither removed nor an obstacle.
    fs::create_dir(sandbox.state().join(format!("a-{}.log", ended.pid))).unwrap();
    sandbox.detach(["--prune", "0"]).succeeds_silently();
    let mut expected = kept.clone();
    expected.push(format!("a-{}.log", ended.pid));
    expected.extend(["no-number.log".into(), "notes.txt".into()]);
    expected.extend([format!("lives-{}.log", job.pid), format!("lives-{}-2.log", job.pid)]);
    expected.sort();
    assert_eq!(sandbox.files(""), expected);
}

#[test]
fn prune_keeps_a_log_in_use_that_an_older_record_names_as_well() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let before = sandbox.files("");
    // The older log has been removed, and its name used again.
    storage::add_older_record(&sandbox);
    sandbox.detach(["--prune", "0"]).succeeds_silently();
    assert_eq!(sandbox.files(""), before);
    assert!(job.is_alive());
}

#[test]
fn prune_removes_damaged_lines_and_keeps_those_of_other_versions() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let line = storage::only_line(&sandbox);
    let later = line.replace("\"version\":1", "\"version\":2");
    storage::append(&sandbox, format!("\ngarbage\n{later}\n{}\n", &line[..line.len() / 2]));
    // A file of the user's own, which only has the ending of a journal.
    let own = sandbox.state().join("notes.jsonl");
    fs::write(&own, "garbage\n").unwrap();
    let journal = storage::journal(&sandbox);
    let numbers = |word: &str| {
        let text = fs::read_to_string(&journal).unwrap();
        text.lines().position(|line| line == word).map(|place| place + 1)
    };
    let warning = |path: &Path, number: usize, reason: &str| {
        format!("detach: warning: cannot read line {number} of '{}': {reason}\n", path.display())
    };
    let of_own = warning(&own, 1, "it is not JSON");
    let version = "it has version 2, but only version 1 is supported";
    let garbage = numbers("garbage").unwrap();
    let before = warning(&journal, garbage, "it is not JSON")
        + &warning(&journal, garbage + 1, version)
        + &warning(&journal, garbage + 2, "it is cut short")
        + &of_own;
    let content = fs::read(&journal).unwrap();
    sandbox
        .detach(["-v", "--prune", "--dry-run"])
        .warns(&format!("{before}detach: would remove 0 ended jobs, 0 B, and 2 damaged lines"));
    assert_eq!(fs::read(&journal).unwrap(), content);
    sandbox.detach(["-v", "--prune"]).warns(&format!("{before}detach: removed 0 ended jobs, 0 B, and 2 damaged lines"));
    assert_eq!(fs::read_to_string(&own).unwrap(), "garbage\n");
    let after = warning(&journal, numbers(&later).unwrap(), version) + &of_own;
    sandbox
        .detach(["-v", "--prune"])
        .warns(&format!("{after}detach: nothing to remove: no job ended more than 7d ago"));
    let list = sandbox.detach(["--list"]).warns(after.trim_end());
    assert!(list.starts_with(&format!("{}\tsleep\trunning\t", job.pid)) && list.lines().count() == 1, "{list}");
}

#[test]
fn prune_keeps_the_log_of_a_record_that_cannot_be_read() {
    let sandbox = Sandbox::new();
    sandbox.detach(["-w", "true"]).succeeds_silently();
    let before = sandbox.files("");
    storage::set_unknown_version(&sandbox);
    sandbox.detach(["-q", "--prune", "0"]).exits(0);
    assert_eq!(sandbox.files(""), before);
}

#[test]
fn prune_keeps_a_job_of_another_namespace_whose_first_process_has_ended() {
    let sandbox = Sandbox::new();
    sandbox.detach(["-w", "sh", "-c", "sleep 60 & exit 3"]).exits(3);
    storage::move_to_other_pid_namespace(&sandbox);
    let before = sandbox.files("");
    assert_eq!(sandbox.sh("detach --list | cut -f3").succeeds(), "elsewhere\n");
    sandbox.detach(["--prune", "0"]).succeeds_silently();
    assert_eq!(sandbox.files(""), before);
}

#[test]
fn prune_behind_another_one_works_on_what_that_has_left() {
    requires!(flock);
    let sandbox = Sandbox::new();
    sandbox.detach(["-w", "true"]).succeeds_silently();
    // As another prune.
    let script = ": > locked; until [ -e go ]; do sleep 0.01; done";
    let mut other = sandbox.command("flock").arg(sandbox.state()).args(["sh", "-c", script]).spawn().unwrap();
    eventually(|| sandbox.work("locked").exists());
    assert_eq!(sandbox.sh("detach -v --prune 0 --dry-run 2>&1 | wc -l").succeeds(), "2\n");
    let stderr = fs::File::create(sandbox.work("stderr")).unwrap();
    let mut waiting = sandbox.command(DETACH).args(["-v", "--prune", "0"]).stderr(stderr).spawn().unwrap();
    let waits = "detach: waiting for another 'detach --prune'\n";
    eventually(|| sandbox.read("stderr") == waits);
    sandbox.detach(["-w", "true"]).succeeds_silently();
    sandbox.write("go", "");
    other.wait().unwrap();
    assert!(waiting.wait().unwrap().success());
    assert_eq!(sandbox.read("stderr"), format!("{waits}detach: removed 2 ended jobs, 0 B\n"));
}
