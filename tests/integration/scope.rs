//! `--scope`, and the warning of a logout, beside a real systemd: see `support::machine`.

use serde_json::Value;

use crate::support::machine::Machine;
use crate::support::{DETACH, Run, Sandbox, eventually};

/// The user of `tests/machine` that has no part in the logout experiment.
const USER: &str = "user";

/// The records in the output of `detach --list --json`.
fn records(list: &str) -> Vec<Value> {
    list.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn unit(record: &Value) -> String {
    record["unit"].as_str().unwrap_or_else(|| panic!("no unit in {record}")).to_owned()
}

#[test]
fn scope_holds_the_job_and_not_its_caller() {
    let sandbox = Sandbox::new();
    let Some(machine) = Machine::boot(&sandbox, false) else { return };
    machine.enable_lingering(USER);
    // The second job starts a third one, from a scope that is its own already. Shows the control groups of the shell,
    // of the tracker of the first job, and of the jobs.
    let script = "groups() { sed -n 's/^0:://p' /proc/$1/cgroup; }
        first=$(detach --scope -t -P -N first sleep 60)
        detach --scope -P -N second sh -c 'detach --scope -P -N third -o - sleep 62 > third; exec sleep 61' > second
        until [ -s third ]; do sleep 0.02; done
        for pid in $$ $(ps -o ppid= $first) $first $(cat second) $(cat third); do groups $pid; done
        detach --list --json";
    let run = machine.log_in_for(USER, script).exits(0);
    let (groups, list): (Vec<&str>, Vec<&str>) = run.stdout.lines().partition(|line| line.starts_with('/'));
    let records = records(&list.join("\n"));
    let [shell, tracker, first, second, third] = groups[..] else { panic!("{run:?}") };
    let user = machine.sh(&format!("id -u {USER}"));
    let slice = format!("/user.slice/user-{0}.slice/user@{0}.service/app.slice/", user.trim());
    assert!(shell.contains("/session-"), "{shell}");
    assert_eq!(tracker, first);
    for (name, group) in [("first", first), ("second", second), ("third", third)] {
        let unit = unit(records.iter().find(|record| record["name"] == name).unwrap());
        assert!(unit.starts_with(&format!("app-detach-{name}-")), "{unit}");
        assert_eq!(group, format!("{slice}{unit}"), "{run:?}");
    }
    // Once the job has ended, nothing is left of the scope.
    let run = machine.log_in_for(USER, "detach --stop first second; detach --list --json").exits(0);
    let ended = units_of(&run.stdout, &["first", "second"]);
    let count = format!(
        "XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user list-units --all | grep -c '{}\\|{}'",
        ended[0], ended[1]
    );
    eventually(|| machine.log_in_for(USER, &count).stdout == "0\n");
    // Root's are those of the system, which outlive every login.
    let root = machine.sh("pid=$(detach --scope -P sleep 63); sed -n 's/^0:://p' /proc/$pid/cgroup; kill $pid");
    assert!(root.starts_with("/system.slice/app-detach-sleep-"), "{root}");
}

/// The units of the jobs with these names.
fn units_of(list: &str, names: &[&str]) -> Vec<String> {
    let records = records(list);
    names.iter().map(|name| unit(records.iter().find(|record| record["name"] == *name).unwrap())).collect()
}

#[test]
fn job_in_a_scope_is_otherwise_the_same() {
    let sandbox = Sandbox::new();
    let Some(machine) = Machine::boot(&sandbox, false) else { return };
    machine.enable_lingering(USER);
    let both = |script: &str| {
        let [plain, scoped] = ["detach", "detach --scope"].map(|detach| {
            let script =
                format!("rm -rf out dir; mkdir dir; echo in > dir/in; cd dir; {}", script.replace("RUN", detach));
            machine.sh_as(USER, &script)
        });
        let of_run = |run: &Run| (run.status, run.stdout.clone(), run.stderr.clone());
        assert_eq!(of_run(&plain), of_run(&scoped), "{script}");
        of_run(&plain)
    };
    // Environment, variables that systemd-run(1) would set or need included.
    let (status, environment, _) =
        both("A='$HOME %n' RUN -w -o ../out env; grep -v '^DETACH_JOB=\\|^XDG_SESSION_ID=\\|^SSH_' ../out");
    assert!(status == 0 && environment.starts_with("A=$HOME %n\n"), "{environment}");
    assert!(!environment.contains("INVOCATION_ID"), "{environment}");
    let (_, environment, _) = both("env -i PATH=$PATH HOME=$HOME RUN -w -o ../out env; grep -v DETACH_JOB= ../out");
    assert_eq!(environment, "PATH=/usr/sbin:/usr/bin:/sbin:/bin\nHOME=/home/user\n");
    // Statuses and messages.
    assert_eq!(both("RUN ./nothing").0, 127);
    assert_eq!(both("RUN ./in").0, 126);
    assert_eq!(both("RUN -q -w sh -c 'exit 7'").0, 7);
    assert_eq!(both("RUN -w -q sh -c 'kill -9 $$'").0, 137);
    assert_eq!(both("RUN -C nowhere true").0, 125);
    assert_eq!(both("perl -e '$SIG{CHLD} = q(IGNORE); exec @ARGV' RUN -w true"), (0, String::new(), String::new()));
    // Relative paths, the daemon sequence, streams, and words as they are.
    let words = "cp /bin/cat here; RUN --full -w -i in -o ../out ./here; cat ../out";
    assert_eq!(both(words), (0, "in\n".into(), String::new()));
    assert_eq!(
        both("RUN -w printf '<%s>' '$HOME' '${x}' '%n' '' '--' > ../out; cat ../out").1,
        "<$HOME><${x}><%n><><-->"
    );
    assert_eq!(both("RUN -w -o - cat < in 2>&1 | cat").1, "in\n");
    let with_list = "printf 'a\\nb\\n' | while read x; do RUN -w -o ../out cat; echo $x; done; cat ../out";
    assert_eq!(both(with_list).1, "a\nb\n");
    assert_eq!(both("exec 7< in; RUN -w --keep-fd 7 -o ../out cat /dev/fd/7; cat ../out").1, "in\n");
    // `--json` shows the scope as a step.
    let run = machine.sh_as(USER, "detach --scope --json true").exits(0);
    let record = &records(&run.stdout)[0];
    assert_eq!((record["steps"][0]["name"].as_str(), &record["steps"][0]["result"]), (Some("scope"), &record["unit"]));
    // Any name.
    for (typed, escaped) in [("a-b c", r"a\x2db\x20c"), ("$'\\xff\\n%'", r"\xff\x0a\x25"), ("-", r"\x2d")] {
        let typed = if typed.starts_with('$') { typed.to_owned() } else { format!("'{typed}'") };
        let run = machine.sh_as(USER, &format!("detach --scope --json -N {typed} -w true")).exits(0);
        assert!(unit(&records(&run.stdout)[0]).starts_with(&format!("app-detach-{escaped}-")), "{run:?}");
    }
}

#[test]
fn scope_that_cannot_be_made_starts_nothing() {
    let sandbox = Sandbox::new();
    let Some(machine) = Machine::boot(&sandbox, false) else { return };
    machine.enable_lingering(USER);
    // A user who is not logged in, and does not linger.
    let id = machine.sh("id -u exits").trim().to_owned();
    let mut command = machine.inside("setpriv");
    command.args([&format!("--reuid={id}"), "--regid=1", "--clear-groups", "env", "HOME=/home/exits"]);
    Run::of(command.args(["detach", "--scope", "touch", "/tmp/started"])).fails(
        125,
        &format!(
            "detach: cannot create a scope: this user has no service manager with a bus at '/run/user/{id}/bus'\n\
             detach: hint: loginctl enable-linger starts the manager, and keeps it running"
        ),
    );
    let script = "PATH=/nowhere /usr/bin/detach --scope /usr/bin/touch /tmp/started";
    machine
        .log_in_for(USER, script)
        .fails(125, "detach: cannot create a scope: 'busctl' is not in PATH\ndetach: hint: it is part of systemd");
    // The manager refuses: what it was asked for is not allowed to begin with.
    let script =
        "mkdir bin; printf '#!/bin/sh\necho Call failed: Refused. >&2; exit 1\n' > bin/busctl; chmod +x bin/busctl
        PATH=~/bin:$PATH detach --scope touch /tmp/started";
    machine.sh_as(USER, script).fails(125, "detach: cannot create a scope: Refused.");
    // It agrees, and does nothing.
    let script = "ln -sf /bin/true bin/busctl; PATH=~/bin:$PATH detach --scope touch /tmp/started";
    let run = machine.sh_as(USER, script).exits(125);
    let begin = "detach: cannot create a scope: systemd did not move this process into 'app-detach-touch-";
    assert!(run.stderr.starts_with(begin), "{run:?}");
    machine.sh("test ! -e /tmp/started");
    let left = "ls .local/state/detach | grep log; detach --list --all";
    assert_eq!(machine.sh_as(USER, left).stdout, "");
}

#[test]
fn scope_without_systemd_is_refused() {
    requires!(root, unshare);
    let sandbox = Sandbox::new();
    // Nothing that is in /run/systemd is visible.
    let script = "mount -t tmpfs tmpfs /run && exec \"$0\" --scope true";
    let run = Run::of(sandbox.command("unshare").args(["--mount", "sh", "-c", script, DETACH]));
    run.fails(125, "detach: cannot create a scope: systemd is not running");
    sandbox.assert_nothing_left();
}

#[test]
fn start_on_a_terminal_warns_of_a_logout_that_ends_the_job() {
    let sandbox = Sandbox::new();
    let Some(machine) = Machine::boot(&sandbox, true) else { return };
    let mut terminal = machine.open_terminal(USER);
    terminal.succeeds("PS1='$ '; clear() { detach --stop --all > /dev/null 2>&1; }");
    let mut warning = |line: &str| {
        let screen = terminal.succeeds(line);
        terminal.succeeds("clear");
        let lines: Vec<&str> = screen.lines().filter(|line| line.starts_with("detach: ")).collect();
        lines.iter().map(|line| line.replace("detach: warning: ", "! ")).collect::<Vec<_>>()
    };
    let id = machine.sh(&format!("id -u {USER}")).trim().to_owned();
    let lines = warning("detach sleep 60");
    let [note, killed] = &lines[..] else { panic!("{lines:?}") };
    assert!(note.starts_with("detach: 'sleep' (PID "), "{note}");
    let (begin, rest) = killed.split_once("session-").unwrap();
    let (_, end) = rest.split_once(".scope").unwrap();
    assert_eq!(begin, "! 'sleep' will not survive logout: it is in ");
    assert_eq!(
        end,
        ", which logind kills at logout (KillUserProcesses); run loginctl enable-linger, then start it with detach --scope"
    );
    let stops = format!(
        "! 'sleep' will not survive logout: it is in user@{id}.service, which is stopped at the last logout (lingering is \
         disabled); run loginctl enable-linger"
    );
    assert_eq!(warning("detach --scope sleep 60")[1..], [stops]);
    for quiet in
        ["detach -q sleep 60", "detach sleep 60 2> file; cat file", "detach -v sleep 60 2> file; cat file > /dev/null"]
    {
        assert_eq!(warning(quiet), [""; 0], "{quiet}");
    }
    machine.enable_lingering(USER);
    assert_eq!(warning("detach --scope sleep 60").len(), 1);
    let end = "; start it with detach --scope";
    assert!(warning("detach sleep 60")[1].ends_with(end));
    // Off a terminal, nothing is read for it.
    requires!(strace);
    let script =
        "strace -f -o trace -e trace=%file detach -v -o /dev/null true 2> /dev/null; grep -c 'systemd\\|cgroup' trace";
    assert_eq!(machine.log_in_for(USER, script).stdout, "0\n");
}

#[test]
fn scope_stays_as_long_as_anything_of_a_session() {
    let sandbox = Sandbox::new();
    let Some(machine) = Machine::boot(&sandbox, false) else { return };
    let mut terminal = machine.open_terminal(USER);
    terminal.succeeds("setsid -f sleep 61 < /dev/null > /dev/null 2>&1");
    let screen = terminal.succeeds("detach --scope -P sleep 60 > pid");
    let id = machine.sh(&format!("id -u {USER}")).trim().to_owned();
    let warning = format!(
        "detach: warning: 'sleep' might not survive logout: it is in user@{id}.service, which is stopped when nothing is \
         left of its user's sessions (lingering is disabled); run loginctl enable-linger\r\n"
    );
    assert!(screen.contains(&warning), "{screen}");
    let check = terminal.succeeds("detach --check --json $(cat pid) | grep -o '\"logout\":\"[a-z]*\"'");
    assert!(check.contains("\"logout\":\"perhaps\""), "{check}");
    terminal.type_line("exit");
    eventually(|| terminal.is_shell_dead());
    let sleeps = || {
        machine.sh("for file in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $file || true; echo; done 2> /dev/null | grep ^sleep | sort")
    };
    eventually(|| {
        machine.sh(
            "loginctl list-sessions --no-legend 2> /dev/null | cut -c 1-8 | xargs -rn 1 loginctl show-session -p State 2> /dev/null || true",
        ) == "State=closing\n"
    });
    assert_eq!(sleeps(), "sleep 60 \nsleep 61 \n");
    machine.sh("kill $(grep -lz '^61$' /proc/[0-9]*/cmdline 2> /dev/null | cut -d / -f 3)");
    eventually(|| sleeps().is_empty());
}
