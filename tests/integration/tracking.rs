//! `--track` and `--notify`: the process that waits for the end of a command, what it costs, what it records, and
//! what becomes of the command when it is killed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::support::{
    DETACH, Process, Run, Sandbox, Terminal, await_result, eventually, is_installed, process_named_in, sleeper,
};

const WAYS: [&[&str]; 2] = [&["-t"], &["--track", "--full", "--sigchld=default", "-C", "."]];

/// The command line of a tracking process begins so.
pub const TRACKER: &str = "detach --tracking";

/// The end in the record of `job`, as soon as it is there.
#[track_caller]
pub fn end_of(sandbox: &Sandbox, job: &Process) -> Value {
    await_result(|| {
        let record = record_of(sandbox, job);
        if record["end"].is_null() { Err(record.to_string()) } else { Ok(record["end"].clone()) }
    })
}

#[track_caller]
fn record_of(sandbox: &Sandbox, job: &Process) -> Value {
    let mut records = sandbox.records().into_iter();
    records.find(|record| record["pid"] == job.pid.as_raw()).unwrap()
}

#[track_caller]
fn tracker_of(sandbox: &Sandbox, job: &Process) -> Process {
    let pid = record_of(sandbox, job)["tracker"]["pid"].as_i64().unwrap();
    let tracker = Process::new(pid.try_into().unwrap());
    // It is another program by now, or in the middle of becoming one.
    tracker.wait_for_exec(TRACKER);
    tracker
}

#[test]
fn end_is_recorded_as_it_was() {
    let sandbox = Sandbox::new();
    for options in WAYS {
        for (script, status, signal, word) in [
            ("exit 0", Some(0), None, "exited 0"),
            ("exit 1", Some(1), None, "exited 1"),
            ("exit 42", Some(42), None, "exited 42"),
            ("exit 255", Some(255), None, "exited 255"),
            ("kill -TERM $$", None, Some(15), "killed by TERM"),
            ("kill -KILL $$", None, Some(9), "killed by KILL"),
            ("ulimit -c 0; kill -SEGV $$", None, Some(11), "killed by SEGV"),
        ] {
            let job = sandbox.job(options.iter().chain(&["sh", "-c", script]));
            let end = end_of(&sandbox, &job);
            assert_eq!((end["status"].as_u64(), end["signal"].as_u64()), (status, signal), "{options:?} {script}");
            assert_eq!(end["core_dumped"], false);
            let list = sandbox.detach(["--list"]).stdout;
            let line = list.lines().find(|line| line.starts_with(&format!("{}\t", job.pid))).unwrap();
            assert_eq!(line.split('\t').nth(2), Some(word), "{options:?}");
        }
    }
    sandbox.jobs(0);
}

#[test]
fn time_and_memory_are_those_of_the_command() {
    if !is_installed("perl") {
        return;
    }
    let sandbox = Sandbox::new();
    // A child of its own, which it waits for, counts as well.
    let script =
        "system('perl', '-e', q(my $x = 'x' x 60_000_000; 1 while (times)[0] < 0.3)); select undef, undef, undef, 0.2";
    let job = sandbox.job(["-t", "perl", "-e", script]);
    let end = end_of(&sandbox, &job);
    let number = |name: &str| end[name].as_u64().unwrap();
    assert!((300..10_000).contains(&number("cpu_ms")), "{end}");
    assert!(number("wall_ms") >= 500, "{end}");
    assert!((60_000_000..400_000_000).contains(&number("peak_memory_bytes")), "{end}");
    let record = record_of(&sandbox, &job);
    let lifetime = number("ended_at_ms") - record["started_at_ms"].as_u64().unwrap();
    assert!(lifetime.abs_diff(number("wall_ms")) < 1000, "{record}");
}

#[test]
fn tracking_process_holds_next_to_nothing() {
    let sandbox = Sandbox::new();
    for options in WAYS {
        let script = "exec 9>lock; flock 9; exec detach -P \"$@\" sleep 60";
        let run = Run::of(sandbox.command("bash").args(["-c", script, "bash"]).args(options));
        let job = Process::started(&run.stdout);
        let tracker = tracker_of(&sandbox, &job);
        assert_eq!(job.parent(), tracker.pid.as_raw());
        assert_eq!((tracker.session(), tracker.group()), (tracker.pid.as_raw(), tracker.pid.as_raw()));
        assert_ne!(tracker.session(), job.session());
        assert_eq!(tracker.terminal(), 0);
        eventually(|| tracker.stat(3).is_some_and(|state| state == "S"));
        let descriptors = tracker.descriptors();
        let expected = [0, 1, 2].map(|fd| (fd, "/dev/null".into()));
        assert_eq!(descriptors, expected.into());
        assert_eq!(fs::read_to_string(tracker.file("comm")).unwrap(), "detach\n");
        job.assert_descriptors(&[0, 1, 2]);
        assert_eq!(job.signals("SigIgn"), [1]);
        assert_eq!(job.signals("SigBlk"), [0; 0]);
        // Kilobytes that it shares with nobody: what it has written to, and what of the program is in memory, which is
        // larger here than where it is used.
        let memory = fs::read_to_string(tracker.file("smaps_rollup")).unwrap();
        let kilobytes = |name: &str| -> u64 {
            let line = memory.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        assert!(kilobytes("Anonymous:") < 300, "{memory}");
        assert!(kilobytes("Rss:") < 1000, "{memory}");
    }
}

#[test]
fn tracking_process_survives_what_the_command_survives() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_with(&sandbox, &["bash", "--norc", "--noprofile", "-i"]);
    let control = terminal.background(&sandbox, "sleep 60");
    let job = terminal.detach(&sandbox, "-t sleep 61");
    let tracker = tracker_of(&sandbox, &job);
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGUSR1] {
        tracker.signal(signal);
    }
    terminal.hang_up();
    eventually(|| control.is_dead());
    assert!(job.is_alive() && tracker.is_alive());
    job.signal(Signal::SIGTERM);
    assert_eq!(end_of(&sandbox, &job)["signal"], 15);
    eventually(|| tracker.is_dead());
}

#[test]
fn command_goes_on_when_its_tracking_process_is_killed() {
    let sandbox = Sandbox::new();
    for options in WAYS {
        let job = sandbox.job(options.iter().chain(&["sleep", "60"]));
        let tracker = tracker_of(&sandbox, &job);
        tracker.signal(Signal::SIGKILL);
        eventually(|| tracker.is_dead());
        assert!(job.is_alive());
        let state = || {
            let list = sandbox.detach(["--list"]).stdout;
            let line = list.lines().find(|line| line.starts_with(&format!("{}\t", job.pid))).unwrap().to_owned();
            line.split('\t').nth(2).unwrap().to_owned()
        };
        assert_eq!(state(), "running");
        job.signal(Signal::SIGTERM);
        eventually(|| job.is_dead());
        assert_eq!(state(), "ended");
    }
}

#[test]
fn no_zombie_is_left() {
    let sandbox = Sandbox::new();
    for options in WAYS {
        // A child that outlives the command is nobody's business.
        let file = sandbox.path("work/child");
        let _ = fs::remove_file(&file);
        let script = format!("sh -c '{}' & until [ -e {} ]; do sleep 0.01; done", sleeper(&file), file.display());
        let job = sandbox.job(options.iter().chain(&["sh", "-c", &script]));
        let child = process_named_in(&file);
        let tracker = tracker_of_ended(&sandbox, &job);
        end_of(&sandbox, &job);
        // The command is gone, not only dead: its parent has waited for it. That is this process's to do for the rest.
        eventually(|| job.stat(3).is_none());
        eventually(|| tracker.is_dead());
        assert!(child.is_alive());
        assert_eq!(child.parent(), std::process::id().cast_signed());
        child.signal(Signal::SIGKILL);
    }
}

#[test]
fn end_is_that_of_the_command_and_of_no_orphan() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    // Until the tracking process is no subreaper any more, orphans of the command come to it: held back here.
    let script = "(exit 77 &); sleep 0.4; exit 3";
    let run = Run::of(sandbox.command("strace").args(["-f", "-o", "../trace", "-e", "trace=prctl"]).args([
        "-e",
        "inject=prctl:delay_enter=100000",
        "detach",
        "-P",
        "-t",
        "--full",
        "--sigchld=default",
        "sh",
        "-c",
        script,
    ]));
    let job = Process::new(run.stdout.trim().parse().unwrap());
    assert_eq!(end_of(&sandbox, &job)["status"], 3);
}

#[test]
fn command_that_was_killed_before_its_exec_was_not_started() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    for options in ["", "--full", "-t", "-t --full"] {
        for call in ["rt_sigpending", "renameat"] {
            let run = sandbox.sh(&format!(
                "strace -f -b execve -o ../trace -e trace={call} -e inject={call}:signal=KILL detach {options} -P touch ran"
            ));
            let what = format!("{options:?} {call}: {run:?}");
            assert_ne!(run.status, 0, "{what}");
            eventually(|| sandbox.processes().is_empty());
            if run.status == 125 {
                assert_eq!(sandbox.files(".json"), [""; 0], "{what}");
            }
            let _ = fs::remove_dir_all(sandbox.state());
        }
    }
}

#[test]
fn command_that_is_killed_in_its_exec_counts_as_started() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    let start = |options: &str| {
        // The exec of detach is the first of its process.
        let kill = "strace -f -o ../trace -e trace=execve -e inject=execve:signal=KILL:when=2+";
        sandbox.sh(&format!("{kill} sh -c 'detach {options} touch ran'"))
    };
    let run = start("-P");
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert_eq!(sandbox.records()[0]["pid"].to_string(), run.stdout.trim());
    let run = start("--settle 9s");
    let end = "detach: 'touch' was killed by SIGKILL after ";
    assert!(run.status == 137 && run.stderr.starts_with(end), "{run:?}");
    assert!(!sandbox.path("work/ran").exists());
    assert!(sandbox.processes().is_empty());
}

#[test]
fn word_of_the_tracking_process_is_no_option() {
    let sandbox = Sandbox::new();
    for words in [&["--tracking"][..], &["--tracking", "./train.py"], &["--tracking", "./train.py", "7"]] {
        let run = sandbox.detach(words);
        let sentence = "detach: cannot use '--tracking': there is no such option\n";
        assert_eq!((run.status, run.stderr.starts_with(sentence)), (125, true), "{run:?}");
    }
}

#[test]
fn status_that_was_not_recorded_is_an_error() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["-t", "sleep", "60"]);
    tracker_of(&sandbox, &job).signal(Signal::SIGKILL);
    job.signal(Signal::SIGTERM);
    let run = sandbox.detach(["--join", "sleep"]);
    let stderr = format!(
        "detach: cannot tell the status of 'sleep', PID {}: the process that tracked it has not recorded it\n",
        job.pid
    );
    assert_eq!((run.status, run.stderr), (125, stderr));
}

/// The tracking process, which may have ended.
fn tracker_of_ended(sandbox: &Sandbox, job: &Process) -> Process {
    let pid = record_of(sandbox, job)["tracker"]["pid"].as_i64().unwrap();
    Process::new(pid.try_into().unwrap())
}

#[test]
fn wait_knows_the_status_of_a_tracked_command() {
    let sandbox = Sandbox::new();
    for options in WAYS {
        for (script, status, words) in [
            ("exit 0", 0, "ended with success"),
            ("exit 42", 42, "failed with status 42"),
            ("kill -KILL $$", 137, "was killed by SIGKILL"),
        ] {
            let run = sandbox.detach(["-v", "-w"].iter().chain(options).chain(&["-o", "-", "sh", "-c", script]));
            assert_eq!(run.status, status, "{run:?}");
            assert!(run.stderr.contains(&format!("detach: 'sh' {words} after ")), "{run:?}");
        }
    }
    let run = sandbox.detach(["-t", "--settle", "30", "false"]);
    assert_eq!(run.status, 1, "{run:?}");
}

#[test]
fn wait_tells_of_a_tracking_process_that_was_killed() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("work/pid");
    let mut command = sandbox.command(DETACH);
    command.args(["-w", "-t", "sh", "-c", &sleeper(&file)]).stderr(Stdio::piped());
    let waiting = command.spawn().unwrap();
    let job = process_named_in(&file);
    tracker_of(&sandbox, &job).signal(Signal::SIGKILL);
    let run = Run::from(waiting.wait_with_output().unwrap());
    let stderr = "detach: warning: cannot tell how 'sh' ends: the process that tracked it has not recorded it\n";
    assert_eq!((run.status, run.stderr.as_str()), (125, stderr));
    assert!(job.is_alive());
}

#[test]
fn pidfile_is_held_by_a_tracked_command() {
    let sandbox = Sandbox::new();
    for options in WAYS {
        let arguments = || options.iter().chain(&["--pidfile", "pid", "sleep", "60"]);
        let job = sandbox.job(arguments());
        let file = fs::read_to_string(sandbox.path("work/pid")).unwrap();
        assert_eq!(file, format!("{}\n", job.pid));
        let run = sandbox.detach(arguments());
        let path = sandbox.path("work/pid");
        let stderr = format!("detach: cannot use pidfile '{}': process {} holds it\n", path.display(), job.pid);
        assert_eq!((run.status, run.stderr), (125, stderr));
        assert_eq!(sandbox.processes().len(), 2);
        job.signal(Signal::SIGKILL);
        eventually(|| sandbox.processes().is_empty());
    }
}

#[test]
fn failed_start_leaves_no_tracking_process() {
    let sandbox = Sandbox::new();
    for options in WAYS {
        for (command, status) in [("./missing", 127), ("/", 126)] {
            let run = sandbox.detach(options.iter().chain(&[command]));
            assert_eq!((run.status, run.stderr.lines().count()), (status, 1), "{run:?}");
            sandbox.assert_nothing_left();
        }
        let run = sandbox.detach(options.iter().chain(&["-C", "/missing", "true"]));
        assert_eq!(run.status, 125);
        sandbox.assert_nothing_left();
    }
}

#[test]
fn end_that_could_not_be_recorded_is_no_start() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("home/.local"), "").unwrap();
    for option in ["-t", "--track"] {
        let run = sandbox.detach([option, "-o", "/dev/null", "touch", "ran"]);
        assert_eq!(run.status, 125, "{run:?}");
        assert!(run.stderr.starts_with("detach: cannot use directory '"), "{run:?}");
    }
    fs::remove_file(sandbox.path("home/.local")).unwrap();
    if is_installed("strace") {
        let script = "strace -f -o ../trace -e trace=renameat,renameat2 \
             -e inject=renameat,renameat2:error=EIO detach -t -o /dev/null touch ran";
        let run = sandbox.sh(script);
        let stderr = "detach: cannot record job 'touch': I/O error\n";
        assert_eq!((run.status, run.stderr.as_str()), (125, stderr));
        sandbox.assert_nothing_left();
    }
    assert!(!sandbox.path("work/ran").exists());
}

#[test]
fn command_that_cannot_be_tracked_runs_and_says_so() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    // The second exec of that process, that of the tracking program.
    let script = "strace -f -b execve -o ../trace -e trace=fchdir -e inject=fchdir:error=EIO detach -P -t sleep 60";
    let run = sandbox.sh(script);
    let stderr = "detach: warning: cannot track 'sleep', which runs: I/O error\n";
    assert_eq!((run.status, run.stderr.as_str()), (0, stderr));
    let job = Process::started(&run.stdout);
    assert_eq!(sandbox.jobs(1)[0].pid, job.pid);
    assert!(job.is_alive());
    // What waits for it does so by itself then.
    let run = sandbox.sh(&script.replace("-P -t sleep 60", "-w -t sh -c 'exit 7'"));
    assert_eq!((run.status, run.stderr.contains("cannot track 'sh', which runs")), (7, true), "{run:?}");
}

#[test]
fn tracking_process_killed_on_its_way_leaves_nothing_that_lies() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    for options in WAYS {
        // Each of these is made by the tracking process or by one that it has started.
        for call in ["setsid", "fchmod", "prctl", "close_range", "fchdir"] {
            for number in 1..=3 {
                let _ = fs::remove_dir_all(sandbox.state());
                let script = format!(
                    "strace -f -b execve -o ../trace -e trace={call} -e inject={call}:signal=KILL:when={number} \
                     detach {} -P sleep 60",
                    options.join(" ")
                );
                let run = sandbox.sh(&script);
                let what = format!("{options:?} {call} {number}: {run:?}");
                assert!([0, 125, 137].contains(&run.status), "{what}");
                let is_job = |process: &Process| process.runs("sleep");
                eventually(|| sandbox.processes().iter().all(|process| is_job(process) || process.runs(TRACKER)));
                let jobs = sandbox.processes().into_iter().filter(is_job).count();
                if run.status == 125 {
                    assert_eq!((jobs, sandbox.files(".json").len()), (0, 0), "{what}");
                }
                if run.status == 0 {
                    assert_eq!(sandbox.files(".json").len(), 1, "{what}");
                }
                sandbox.processes().iter().for_each(|process| {
                    let _ = kill(process.pid, Signal::SIGKILL);
                });
                eventually(|| sandbox.processes().is_empty());
            }
        }
    }
}

/// A session bus, and on a display of its own a notification daemon that prints what it shows.
struct Desktop {
    bus: Child,
    display: Child,
    daemon: Child,
    address: String,
}

impl Desktop {
    fn open(sandbox: &Sandbox) -> Self {
        let mut bus = sandbox.command("dbus-daemon");
        let address = format!("unix:path={}", sandbox.path("bus").display());
        bus.args(["--session", "--nofork", &format!("--address={address}")]);
        let bus = bus.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually(|| sandbox.path("bus").exists());
        let mut display = sandbox.command("Xvfb");
        let number = sandbox.path("display");
        display.args(["-displayfd", "1", "-nolisten", "tcp"]).stderr(Stdio::null());
        let display = display.stdout(fs::File::create(&number).unwrap()).spawn().unwrap();
        let number = await_result(|| {
            let text = fs::read_to_string(&number).unwrap();
            text.strip_suffix('\n').map(str::to_owned).ok_or(text)
        });
        let mut daemon = sandbox.command("dunst");
        daemon.env("DISPLAY", format!(":{number}")).env("DBUS_SESSION_BUS_ADDRESS", &address).arg("-print");
        let shown = fs::File::create(sandbox.path("shown")).unwrap();
        let daemon = daemon.stdout(shown).stderr(Stdio::null()).spawn().unwrap();
        let desktop = Self { bus, display, daemon, address };
        eventually(|| {
            let mut asked = sandbox.command("notify-send");
            Run::of(asked.env("DBUS_SESSION_BUS_ADDRESS", &desktop.address).args(["--expire-time=1", "ready"])).status
                == 0
        });
        desktop
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        for child in [&mut self.daemon, &mut self.display, &mut self.bus] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn notification_is_shown_when_the_command_ends() {
    if !["dbus-daemon", "Xvfb", "dunst", "notify-send"].into_iter().all(is_installed) {
        return;
    }
    let sandbox = Sandbox::new();
    let desktop = Desktop::open(&sandbox);
    let shown = || fs::read_to_string(sandbox.path("shown")).unwrap();
    for (options, script, title, urgency) in [
        (&[][..], "sleep 0.1; exit 0", "a & <b> ended with success", "NORMAL"),
        (&["--track"], "exit 7", "a & <b> failed with status 7", "CRITICAL"),
        (&["--full"], "kill -KILL $$", "a & <b> was killed by SIGKILL", "CRITICAL"),
    ] {
        let mut command = sandbox.command(DETACH);
        command.env("DBUS_SESSION_BUS_ADDRESS", &desktop.address).args(["--notify", "-P", "-N", "a & <b>"]);
        let run = Run::of(command.args(options).args(["sh", "-c", script]));
        assert_eq!((run.status, run.stderr.as_str()), (0, ""));
        let text = await_result(|| {
            let text = shown();
            let is_whole = text.contains(&format!("summary: '{title}'")) && text.ends_with("}\n");
            if is_whole { Ok(text) } else { Err(text) }
        });
        let notification = text.rsplit("{\n").next().unwrap();
        let lines: Vec<&str> = notification.lines().map(str::trim).collect();
        assert!(lines.contains(&"appname: 'detach'"), "{text}");
        assert!(lines.contains(&format!("urgency: {urgency}").as_str()), "{text}");
        let body = lines.iter().find(|line| line.starts_with("body: 'after ")).expect(&text);
        assert!(body.ends_with("ms'"), "{body}");
        // It was recorded as well.
        let job = Process::new(run.stdout.trim().parse().unwrap());
        assert!(!end_of(&sandbox, &job).is_null());
    }
    eventually(|| sandbox.processes().len() == 3);
}

#[test]
fn notification_that_cannot_be_shown_is_told_before_the_start() {
    let sandbox = Sandbox::new();
    let hint = "detach: hint: --track alone records how the command ends\n";
    let run = Run::of(sandbox.command(DETACH).env("PATH", "/nowhere").args(["--notify", "/usr/bin/touch", "ran"]));
    let stderr = "detach: cannot show a notification: 'notify-send' is not in PATH\n\
        detach: hint: Debian has it in libnotify-bin; --track alone records how the command ends\n";
    assert_eq!((run.status, run.stderr.as_str()), (125, stderr));

    let bin = sandbox.path("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("notify-send"), "").unwrap();
    let refused = |set: &[(&str, &str)]| {
        let mut command = sandbox.command(DETACH);
        command.env("PATH", &bin).envs(set.iter().copied()).args(["--notify", "/usr/bin/touch", "ran"]);
        let run = Run::of(&mut command);
        assert_eq!(run.status, 125, "{run:?}");
        run.stderr
    };
    assert!(refused(&[]).contains("'notify-send' is not in PATH"), "it cannot be executed");
    fs::set_permissions(bin.join("notify-send"), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = sandbox.path("no bus").display().to_string();
    let escaped = format!("unix:path={},guid=0", socket.replace(' ', "%20"));
    let no_bus = "detach: cannot show a notification: there is no session bus: ";
    for (set, reason) in [
        (&[][..], "DBUS_SESSION_BUS_ADDRESS is not set".to_owned()),
        (&[("DBUS_SESSION_BUS_ADDRESS", "")], "DBUS_SESSION_BUS_ADDRESS is not set".to_owned()),
        (&[("DBUS_SESSION_BUS_ADDRESS", ";")], "DBUS_SESSION_BUS_ADDRESS names no address".to_owned()),
        (&[("DBUS_SESSION_BUS_ADDRESS", &escaped)], format!("'{socket}': no such file or directory")),
        (&[("DBUS_SESSION_BUS_ADDRESS", "unix:abstract=/no-bus")], "'/no-bus': connection refused".to_owned()),
        (&[("XDG_RUNTIME_DIR", "/nowhere")], "'/nowhere/bus': no such file or directory".to_owned()),
    ] {
        assert_eq!(refused(set), format!("{no_bus}{reason}\n{hint}"));
    }
    assert!(!sandbox.path("work/ran").exists());
    sandbox.assert_nothing_left();
    // A bus that can be reached is enough.
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut command = sandbox.command(DETACH);
    command.env("PATH", &bin).env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path=/nowhere;{escaped}"));
    let run = Run::of(command.args(["--notify", "-P", "/usr/bin/touch", "ran"]));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    end_of(&sandbox, &Process::new(run.stdout.trim().parse().unwrap()));
    assert!(sandbox.path("work/ran").exists());
}

#[test]
fn notification_is_sent_as_any_program_expects_and_nobody_waits_for_it() {
    let sandbox = Sandbox::new();
    let bin = sandbox.path("bin");
    fs::create_dir(&bin).unwrap();
    let script =
        "#!/bin/sh\ngrep -E '^Sig(Blk|Ign)' /proc/self/status > told; echo \"$@\" >> told; mv told got; sleep 60\n";
    sandbox.script("notify-send", script);
    fs::rename(sandbox.path("work/notify-send"), bin.join("notify-send")).unwrap();
    let socket = sandbox.path("bus");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut path = bin.into_os_string();
    path.push(":/usr/bin:/bin");
    let mut command = sandbox.command(DETACH);
    command.env("PATH", path).env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", socket.display()));
    let run = Run::of(command.args(["--notify", "-w", "-o", "/dev/null", "-N", "--help", "sh", "-c", "exit 3"]));
    assert_eq!(run.status, 3, "{run:?}");
    let told = sandbox.state().join("got");
    eventually(|| told.exists());
    let told = fs::read_to_string(told).unwrap();
    let none = "0000000000000000";
    let expected = format!(
        "SigBlk:\t{none}\nSigIgn:\t0000000000000001\n\
         --app-name=detach --urgency=critical -- --help failed with status 3 after "
    );
    assert!(told.starts_with(&expected), "{told}");
    assert_eq!(sandbox.detach(["--join", "--", "--help"]).status, 3);
    // The tracking process has ended, and notify-send alone goes on.
    eventually(|| sandbox.processes().iter().all(|it| !it.runs("detach")));
}

#[test]
fn join_waits_for_what_the_tracking_process_writes() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["-t", "sleep", "60"]);
    let tracker = tracker_of(&sandbox, &job);
    tracker.signal(Signal::SIGSTOP);
    eventually(|| tracker.is_stopped());
    job.signal(Signal::SIGTERM);
    eventually(|| job.is_dead());
    // It may get the end yet.
    assert_eq!(sandbox.detach(["--prune"]).status, 0);
    assert_eq!(sandbox.files(".json").len(), 1);
    let joining = sandbox.command(DETACH).args(["--join", "sleep"]).stderr(Stdio::piped()).spawn().unwrap();
    let process = Process::new(joining.id().cast_signed());
    let is_waiting = || fs::read_dir(process.file("fd")).is_ok_and(|fds| fds.count() > 4);
    eventually(|| is_waiting() && process.stat(3).is_some_and(|state| state == "S"));
    tracker.signal(Signal::SIGCONT);
    assert_eq!(Run::from(joining.wait_with_output().unwrap()).status, 143);
}
