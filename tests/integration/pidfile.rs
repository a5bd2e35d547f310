//! `--pidfile`: it holds the PID of the command, and is locked while the command lives.
//!
//! The lock alone decides whether a pidfile is in use, never the number in it.

use std::os::unix::fs::{chown, symlink};
use std::process::Stdio;

use crate::support::{DETACH, Process, Run, Sandbox, mode, process_named_in, sleeper};

/// The content of a pidfile of `job`, and the error of a start that finds it locked.
fn content_and_error(sandbox: &Sandbox, job: &Process) -> (String, String) {
    let path = sandbox.work("pid").display().to_string();
    (format!("{}\n", job.pid), format!("detach: cannot use pidfile '{path}': process {} has locked it", job.pid))
}

#[test]
fn pidfile_holds_the_pid_and_is_locked_while_the_command_lives() {
    for option in ["--full", "-q"] {
        let sandbox = Sandbox::new();
        let start = || sandbox.detach([option, "--pidfile", "pid", "sleep", "60"]);
        start().succeeds_silently();
        let job = sandbox.only_job();
        let (content, error) = content_and_error(&sandbox, &job);
        assert_eq!(sandbox.read("pid"), content);

        start().fails(125, &error);
        assert_eq!(sandbox.only_job().pid, job.pid);
        assert_eq!(sandbox.read("pid"), content);
    }
}

#[test]
fn pidfile_of_a_killed_command_needs_no_clean_up() {
    for option in ["--full", "-q"] {
        let sandbox = Sandbox::new();
        let start = || sandbox.job([option, "--pidfile", "pid", "sleep", "60"]);
        start().kill();
        let job = start();
        assert_eq!(sandbox.read("pid"), format!("{}\n", job.pid));
    }
}

#[test]
fn stale_pidfile_is_taken_over() {
    let sandbox = Sandbox::new();
    // Longer than the new content, and with the PID of a process that lives: the lock counts, not the number.
    sandbox.write("pid", format!("{}\n\n   \n", std::process::id()));
    let job = sandbox.job(["--pidfile", "pid", "sleep", "60"]);
    assert_eq!(sandbox.read("pid"), format!("{}\n", job.pid));
}

#[test]
fn lock_of_a_pidfile_is_not_passed_on_to_children() {
    let sandbox = Sandbox::new();
    let child = sandbox.path("child");
    let script = format!("sh -c '{}' & wait", sleeper(&child));
    let job = sandbox.job(["--pidfile", "pid", "sh", "-c", &script]);
    let child = process_named_in(&child);
    job.kill();
    assert!(child.is_alive());
    let next = sandbox.job(["--pidfile", "pid", "sleep", "60"]);
    assert_eq!(sandbox.read("pid"), format!("{}\n", next.pid));
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
    let runs = starts.into_iter().map(|start| Run::from(start.wait_with_output().unwrap()));
    let (mut winners, losers): (Vec<Run>, Vec<Run>) = runs.partition(|run| run.status == 0);
    assert_eq!(winners.len(), 1, "{winners:?}");
    let job = Process::started(&winners.remove(0).succeeds());
    let (content, error) = content_and_error(&sandbox, &job);
    assert_eq!(sandbox.read("pid"), content);
    for loser in losers {
        loser.fails(125, &error);
    }
    sandbox.jobs(1);
    assert_eq!((sandbox.records().len(), sandbox.logs().len()), (1, 1), "the losers have left something");
}

/// A process loses its lock on a file (fcntl(2)) when it closes any descriptor of that file.
#[test]
fn pidfile_stays_locked_when_other_descriptors_are_closed() {
    // One of the caller, and those that a script uses.
    let script = "for n in 3 4 5 6 7 8 9; do eval \"exec $n>/dev/null $n>&-\"; done; exec sleep 60";
    for (before, command) in [("exec 9>>pid", "sleep 60"), (":", &format!("sh -c '{script}'"))] {
        let sandbox = Sandbox::new();
        let start = format!("{before}; detach --pidfile pid {command}");
        sandbox.sh(&start).succeeds_silently();
        let job = sandbox.only_job();
        job.wait_for_exec("sleep");
        sandbox.sh(&start).fails(125, &content_and_error(&sandbox, &job).1);
    }
}

#[test]
fn pidfile_cannot_be_a_standard_stream_as_well() {
    let sandbox = Sandbox::new();
    let path = sandbox.work("pid").display().to_string();
    let stderr = format!("detach: cannot use pidfile '{path}': it is also open as a standard stream");
    for option in ["-o", "-e", "-i"] {
        sandbox.write("pid", "");
        sandbox.detach([option, "pid", "--pidfile", "./pid", "sleep", "60"]).fails(125, &stderr);
    }
}

#[test]
fn failing_starts_do_not_disturb_one_that_succeeds() {
    let sandbox = Sandbox::new();
    // The failing ones create and remove the file all the time. Only a lock is a reason to refuse it.
    let run = sandbox.sh("for i in 1 2 3 4 5 6 7 8 9 10; do
        for j in 1 2 3 4 5; do detach -q --pidfile pid ./missing 2> /dev/null & done
        detach --pidfile pid true 2>> errors; wait; done; grep -v 'has locked it$' errors");
    // grep finds nothing.
    run.exits_silently(1);
}

#[test]
fn failing_start_empties_an_older_pidfile_and_does_not_remove_it() {
    let sandbox = Sandbox::new();
    sandbox.write("pid", "99999999\n");
    let stderr = "detach: cannot run './missing': no such file or directory";
    sandbox.detach(["--pidfile", "pid", "./missing"]).fails(127, stderr);
    assert_eq!(sandbox.read("pid"), "");
}

#[test]
fn start_that_fails_before_it_takes_the_pidfile_leaves_it_alone() {
    let sandbox = Sandbox::new();
    sandbox.write("pid", "99999999\n");
    let stderr = "detach: cannot change directory to 'missing': no such file or directory";
    sandbox.detach(["--pidfile", "pid", "-C", "missing", "true"]).fails(125, stderr);
    assert_eq!(sandbox.read("pid"), "99999999\n");
}

#[test]
fn pidfile_that_is_not_a_regular_file_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("target", "target\n");
    symlink("target", sandbox.work("link")).unwrap();
    sandbox.sh("mkfifo fifo").succeeds_silently();
    for (path, reason) in [
        ("link", "it is a symbolic link"),
        ("fifo", "it is not a regular file"),
        ("/dev/null", "it is not a regular file"),
        ("/", "is a directory"),
        ("no/pid", "no such file or directory"),
    ] {
        let run = sandbox.detach(["--pidfile", path, "sleep", "60"]);
        let path = sandbox.work(path);
        run.fails(125, &format!("detach: cannot use pidfile '{}': {reason}", path.display()));
    }
    let stderr = "error: a value is required for '--pidfile <FILE>' but none was supplied\n\n\
                  For more information, try '--help'.";
    sandbox.detach(["--pidfile", "", "sleep", "60"]).fails(125, stderr);
    assert_eq!(sandbox.read("target"), "target\n");
    sandbox.jobs(0);
}

#[test]
fn file_with_other_content_is_refused_as_pidfile() {
    let sandbox = Sandbox::new();
    let path = sandbox.work("notes");
    for content in ["precious\n".to_owned(), "1".repeat(32), "1".repeat(30), "12\n34\n".to_owned(), "12 34".to_owned()]
    {
        sandbox.write("notes", &content);
        let stderr = format!("detach: cannot use pidfile '{}': it contains something other than a PID", path.display());
        sandbox.detach(["--pidfile", "notes", "sleep", "60"]).fails(125, &stderr);
        assert_eq!(sandbox.read("notes"), content);
    }
    sandbox.jobs(0);
}

#[test]
fn permissions_of_a_pidfile_follow_the_umask_of_the_caller_and_let_its_owner_use_it_again() {
    let sandbox = Sandbox::new();
    for options in ["", "--full", "-m 022"] {
        for (umask, expected) in [("0", 0o644), ("022", 0o644), ("027", 0o640), ("077", 0o600), ("0777", 0o600)] {
            sandbox.remove("pid");
            sandbox.sh(&format!("umask {umask}; detach {options} --pidfile pid true")).succeeds_silently();
            assert_eq!(mode(&sandbox.work("pid")), expected, "{options} {umask}");
        }
    }
}

#[test]
fn failed_start_leaves_no_pidfile() {
    let sandbox = Sandbox::new();
    for (arguments, status) in
        [(&["./missing"][..], 127), (&["-C", "missing", "true"], 125), (&["-F", "./missing"], 127)]
    {
        sandbox.detach(["--pidfile", "pid"].iter().chain(arguments)).exits(status);
        assert!(!sandbox.work("pid").exists(), "{arguments:?}");
    }
    Run::of(sandbox.command(DETACH).env_remove("HOME").args(["--pidfile", "pid", "true"])).exits(125);
    assert!(!sandbox.work("pid").exists());
}

#[test]
fn new_pidfile_that_cannot_be_locked_or_written_is_taken_back() {
    requires!(strace);
    let sandbox = Sandbox::new();
    let path = sandbox.work("pid").display().to_string();
    for (call, fault, sentence) in [
        // Once, or always. In a debug build, every descriptor that is closed is looked at with fcntl(2) before.
        ("fcntl", "error=ENOLCK:when=3", format!("cannot use pidfile '{path}': no record locks available")),
        ("fcntl", "error=ENOLCK:when=2+", format!("cannot use pidfile '{path}': no record locks available")),
        ("fcntl", "error=EMFILE:when=1", format!("cannot use pidfile '{path}': too many open files")),
        ("fchmod", "error=EIO", format!("cannot use pidfile '{path}': I/O error")),
        ("ftruncate", "error=EIO", format!("cannot write pidfile '{path}': I/O error")),
        ("pwrite64", "error=ENOSPC", format!("cannot write pidfile '{path}': no space left on device")),
        ("pwrite64", "retval=1", format!("cannot write pidfile '{path}': no space left on device")),
    ] {
        let trace = format!("strace -f -o trace -P {path} -e trace={call} -e inject={call}:{fault}");
        sandbox
            .sh(&format!("{trace} detach -o /dev/null --pidfile pid sleep 60"))
            .fails(125, &format!("detach: {sentence}"));
        assert!(!sandbox.work("pid").exists(), "{call} {fault}");
        sandbox.assert_nothing_left();
    }
}

#[test]
fn pidfile_relative_to_a_directory_that_is_gone_is_refused() {
    let sandbox = Sandbox::new();
    // It would be made in the directory of the command.
    let run = sandbox.sh("mkdir gone && cd gone && rmdir ../gone && detach --full -C .. --pidfile pid sleep 60");
    run.fails(125, "detach: cannot use pidfile 'pid': no such file or directory");
    assert!(!sandbox.work("pid").exists());
    sandbox.assert_nothing_left();
}

#[test]
fn pidfile_of_another_user_is_refused_by_root() {
    requires!(root);
    let sandbox = Sandbox::new();
    let path = sandbox.work("pid");
    sandbox.write("pid", "7\n");
    chown(&path, Some(54321), None).unwrap();
    let stderr = format!("detach: cannot use pidfile '{}': it belongs to user 54321", path.display());
    sandbox.detach(["--pidfile", "pid", "sleep", "60"]).fails(125, &stderr);
    assert_eq!(sandbox.read("pid"), "7\n");
    sandbox.assert_nothing_left();
}

#[test]
fn failed_start_leaves_the_pidfile_of_another_command_alone() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["--pidfile", "pid", "sleep", "60"]);
    let (content, error) = content_and_error(&sandbox, &job);
    sandbox.detach(["--pidfile", "pid", "./missing"]).fails(125, &error);
    assert_eq!(sandbox.read("pid"), content);
}

#[test]
fn pidfile_that_is_deleted_while_it_is_held_can_be_taken_anew() {
    let sandbox = Sandbox::new();
    let first = sandbox.job(["--pidfile", "pid", "sleep", "60"]);
    sandbox.remove("pid");
    // The first one holds a file that has no name any more, so nothing tells of it.
    let second = sandbox.job(["--pidfile", "pid", "sleep", "61"]);
    let (content, error) = content_and_error(&sandbox, &second);
    assert_eq!(sandbox.read("pid"), content);
    first.kill();
    assert_eq!(sandbox.read("pid"), content);
    sandbox.detach(["--pidfile", "pid", "sleep", "62"]).fails(125, &error);
}
