//! Jobs whose processes /proc does not show, or shows as others: `hidepid`, other namespaces, no /proc. Nothing that may
//! run is taken for ended.
//!
//! The scripts run as process 1 of a PID namespace, where dash waits for all that has ended, as init does.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use std::time::Duration;

use crate::support::{DETACH, Run, Sandbox, storage};

/// Runs a script of sh as root and process 1 of a PID namespace with a /proc of its own.
fn in_pid_namespace(sandbox: &Sandbox, script: &str) -> Run {
    let mut command = sandbox.command("unshare");
    Run::of(command.args(["--pid", "--fork", "--mount-proc", "sh", "-c", script]))
}

/// Runs a script as process 1 where an ordinary user sees only its own processes. `user COMMAND` runs a command as that user,
/// and `./setuid` is a copy of sleep that runs with the rights of root. PIDs in the output become `PID`.
fn with_hidden_processes(script: &str) -> impl Iterator<Item = (&'static str, String)> {
    ["noaccess", "invisible"].into_iter().map(move |hidepid| {
        let sandbox = Sandbox::new();
        sandbox.copy_of_detach();
        for name in ["home", "work"] {
            chown(sandbox.path(name), Some(54321), Some(54321)).unwrap();
        }
        let setuid = sandbox.work("setuid");
        sandbox.sh("cp \"$(command -v sleep)\" setuid").succeeds_silently();
        fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755)).unwrap();
        let number = if hidepid == "noaccess" { 1 } else { 2 };
        let prelude = "user() { setpriv --reuid=54321 --regid=54321 --clear-groups \"$@\"; }\n\
            detach() { user ../detach \"$@\"; }\n";
        let script = format!("mount -t proc -o hidepid={number} none /proc || exit 99\n{prelude}\n{script}");
        let run = in_pid_namespace(&sandbox, &format!("({script}) 2>&1 | sed -E 's/PID [0-9]+/PID/g'"));
        (hidepid, run.succeeds())
    })
}

#[test]
fn hidden_job_is_not_taken_for_ended() {
    requires!(root, unshare, setpriv);
    let script = "detach ./setuid 60
        detach --list | cut -f2,3
        for mode in '--stop setuid' '--stop --signal TERM setuid' '--join setuid' '--check setuid' '--log -f setuid' \
            '--prune 0'; do
            detach $mode; echo $?
        done
        detach --list | cut -f2,3";
    let reason = "'setuid' (PID): /proc does not show its processes to this user\n125\n";
    let errors = ["stop", "stop", "wait for", "check", "follow the output of", "remove"];
    let errors = errors.map(|verb| format!("detach: cannot {verb} {reason}")).concat();
    for (hidepid, output) in with_hidden_processes(script) {
        assert_eq!(output, format!("setuid\thidden\n{errors}setuid\thidden\n"), "{hidepid}");
    }
}

#[test]
fn hidden_process_that_a_job_has_left_is_not_taken_for_ended() {
    requires!(root, unshare, setpriv);
    // Which of the two seems to run is known only for a moment: the tracker waits for both.
    let script = "detach -N left sh -c './setuid 60 & echo'
        detach -w -t -N tracked sh -c './setuid 60 & echo'
        job=$(detach --list | awk '$2 == \"left\" { print $1 }')
        until [ -z \"$job\" ] || ! [ -e /proc/$job ]; do :; done
        detach --list | cut -f2,3
        detach --join left; echo $?
        detach --prune 0; echo $?
        detach --list | cut -f2,3";
    let jobs = "left\thidden\ntracked\thidden\n";
    let reason = "(PID): /proc does not show its processes to this user\n";
    let expected = format!(
        "{jobs}detach: cannot wait for 'left' {reason}125\n\
         detach: cannot remove 'left' {reason}detach: cannot remove 'tracked' {reason}125\n{jobs}"
    );
    for (hidepid, output) in with_hidden_processes(script) {
        assert_eq!(output, expected, "{hidepid}");
    }
}

#[test]
fn visible_job_is_managed_where_others_are_hidden() {
    requires!(root, unshare, setpriv);
    let script = "detach -t sleep 60
        detach sleep 61
        detach --list | cut -f2,3
        detach -v --stop --all
        detach --join 1; echo $?
        detach --check 1; echo $?
        detach --list | cut -f2,3
        detach -v --prune 0";
    let expected = "sleep\trunning\nsleep\trunning\n\
        detach: 'sleep' (PID) ended\n\
        detach: 'sleep' (PID) ended\n\
        detach: cannot find job '1': no job has this PID, name or command line\n\
        detach: hint: see 'detach --list --all'\n125\n\
        detach: cannot check process 1: /proc does not show it to this user\n125\n\
        sleep\tkilled by SIGTERM\nsleep\tended\n\
        detach: removed 2 ended jobs, 0 B\n";
    for (hidepid, output) in with_hidden_processes(script) {
        assert_eq!(output, expected, "{hidepid}");
    }
}

#[test]
fn hidden_command_that_is_watched_does_not_hold_up_the_start() {
    requires!(root, unshare, setpriv);
    let script = "detach -t --settle 10ms ./setuid 60; echo $?; detach --list | cut -f2,3";
    for (hidepid, output) in with_hidden_processes(script) {
        assert_eq!(output, "0\nsetuid\thidden\n", "{hidepid}");
    }
}

#[test]
fn what_cannot_be_seen_in_proc_is_reported() {
    requires!(root, unshare);
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let before = sandbox.files("");
    let foreign: &[&str] = &["--mount", "--pid", "--fork", DETACH];
    let missing: &[&str] = &["--mount", "sh", "-c", "mount -t tmpfs none /proc; exec detach \"$@\"", "sh"];
    for (how, reason) in [(foreign, "it belongs to another PID namespace"), (missing, "it is not mounted")] {
        for mode in [&["--list"][..], &["--stop", "sleep"], &["--join"], &["--prune", "0"], &["--check", "1"]] {
            let mut command: Command = sandbox.command("unshare");
            let run = Run::of(command.args(how).args(mode));
            run.fails(125, &format!("detach: cannot read '/proc': {reason}"));
        }
    }
    assert_eq!(sandbox.files(""), before);
    assert!(job.is_alive());
}

const ELSEWHERE: &str = "it was started on another machine or in another PID or time namespace";

#[test]
fn job_of_another_time_namespace_is_left_alone() {
    requires!(root, unshare);
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let pid = job.pid;
    let before = sandbox.files("");
    let script = "detach --list | cut -f3; detach --stop sleep 2>&1; detach --join sleep 2>&1; detach --prune
        detach -t sleep 61; detach --list | cut -f3; detach -v --stop 'sleep 61' 2>/dev/null; detach --list | cut -f3";
    let mut command = sandbox.command("unshare");
    let run = Run::of(command.args(["--time", "--boottime", "100000", "sh", "-c", script]));
    let expected = format!(
        "elsewhere\n\
         detach: cannot stop 'sleep' (PID {pid}): {ELSEWHERE}\n\
         detach: cannot wait for 'sleep' (PID {pid}): {ELSEWHERE}\n\
         elsewhere\nrunning\nelsewhere\nkilled by SIGTERM\n"
    );
    assert_eq!(run.succeeds(), expected);
    assert!(before.iter().all(|file| sandbox.files("").contains(file)));
    assert!(job.is_alive());
}

#[test]
fn record_without_a_time_namespace_is_understood() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    storage::remove_time_namespace(&sandbox);
    assert_eq!(sandbox.only_record()["time_namespace"], serde_json::Value::Null);
    assert_eq!(sandbox.state_of(&job), "running");
    sandbox.detach(["-v", "--stop", "sleep"]).warns(&format!("detach: 'sleep' (PID {}) ended", job.pid));
}

#[test]
fn jobs_with_one_pid_in_one_tick_are_two_jobs() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    storage::add_older_record_of_the_same_tick(&sandbox, Duration::from_millis(1));
    let states: Vec<String> = sandbox.list(&[]).into_iter().map(|line| line[2].clone()).collect();
    assert_eq!(states, ["ended", "running"]);
    sandbox.detach(["-q", "--prune", "0"]).succeeds_silently();
    assert_eq!(sandbox.only_record()["pid"], job.pid.as_raw());
}

#[test]
fn jobs_that_share_a_pid_share_no_record() {
    requires!(root, unshare);
    let sandbox = Sandbox::new();
    // Since Linux 6.14, a PID namespace can have that few PIDs; before, the jobs have different ones.
    let script = "echo 303 > /proc/sys/kernel/pid_max 2> /dev/null
        for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do detach -w -N job$i true || exit; done
        detach --list --all | cut -f2,3";
    let expected: Vec<String> = (1..=20).map(|number| format!("job{number}\texited 0\n")).collect();
    assert_eq!(in_pid_namespace(&sandbox, script).succeeds(), expected.concat());
}
