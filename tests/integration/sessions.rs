//! A job is a session: it runs as long as a process of its session lives. Real launchers, and what is recorded of their
//! ends.

use std::fs;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::support::{DETACH, Process, Run, Sandbox, Terminal, await_result, eventually, process_named_in, sleeper};

/// A launcher that starts its program in the background, waits until it runs, and exits with status 3.
fn write_launcher(sandbox: &Sandbox) {
    let program = format!("#!/bin/sh\n{}\n", sleeper(&sandbox.work("program.pid")));
    sandbox.script("program", &program);
    let directory = sandbox.path("work").display().to_string();
    let script = format!(
        "#!/bin/sh\n{directory}/program &\nuntil [ -e {directory}/program.pid ]; do sleep 0.01; done\nexit 3\n"
    );
    sandbox.script("launcher", &script);
}

const WAYS: [&[&str]; 4] = [&[], &["-t"], &["--full"], &["-t", "--full"]];

#[test]
fn launcher_that_backgrounds_its_program_keeps_its_job_running() {
    for options in WAYS {
        let sandbox = Sandbox::new();
        write_launcher(&sandbox);
        let job = sandbox.job(options.iter().chain(&["./launcher"]));
        let program = process_named_in(&sandbox.work("program.pid"));
        eventually(|| job.is_dead());
        assert_eq!(sandbox.state_of(&job), "running (1 left)", "{options:?}");
        let record = sandbox.record_of(&job);
        assert_eq!((&record["state"], &record["processes_left"]), (&"running".into(), &1.into()), "{options:?}");

        let joining = sandbox.command(DETACH).args(["--join", "launcher"]).stderr(Stdio::piped()).spawn().unwrap();
        let process = Process::new(joining.id().cast_signed());
        eventually(|| process.is_asleep());
        assert!(program.is_alive());
        sandbox.detach(["-v", "--stop", "launcher"]).warns(&format!("detach: 'launcher' (PID {}) ended", job.pid));
        assert!(program.is_dead(), "{options:?}");
        let is_tracked = options.contains(&"-t");
        // The status is that of the launcher.
        Run::from(joining.wait_with_output().unwrap()).exits(if is_tracked { 3 } else { 125 });
        assert_eq!(sandbox.state_of(&job), if is_tracked { "exited 3" } else { "ended" }, "{options:?}");
        // The tracking process records it a moment later.
        let has_end = || sandbox.record_of(&job)["session_ended_at_ms"].is_u64();
        if is_tracked {
            eventually(has_end);
        } else {
            assert!(!has_end(), "{options:?}");
        }
    }
}

#[test]
fn launcher_that_is_replaced_by_its_program_is_one_job() {
    let sandbox = Sandbox::new();
    sandbox.script("launcher", "#!/bin/sh\nexec sleep 60\n");
    let job = sandbox.job(["-t", "./launcher"]);
    job.wait_for_exec("sleep");
    assert_eq!(sandbox.state_of(&job), "running");
    sandbox.detach(["-v", "--stop", "launcher"]).warns(&format!("detach: 'launcher' (PID {}) ended", job.pid));
    assert_eq!(sandbox.end_of(&job)["signal"], 15);
}

#[test]
fn program_that_makes_a_session_of_its_own_has_left_the_job() {
    for options in [&[][..], &["-t"], &["--full"]] {
        let sandbox = Sandbox::new();
        let file = sandbox.work("left");
        let launcher = format!(
            "#!/bin/sh\nsetsid sh -c '{}' &\nuntil [ -e {} ]; do sleep 0.01; done\n",
            sleeper(&file),
            file.display()
        );
        sandbox.script("launcher", &launcher);
        let job = sandbox.job(options.iter().chain(&["./launcher"]));
        let left = process_named_in(&file);
        eventually(|| job.is_dead());
        let ended = if options.contains(&"-t") { "exited 0" } else { "ended" };
        await_result(|| {
            let state = sandbox.state_of(&job);
            if state == ended { Ok(()) } else { Err(state) }
        });
        let note = format!("detach: 'launcher' (PID {}) has already ended", job.pid);
        let departed = format!("{note}; process {}, which it started, keeps running in another session", left.pid);
        sandbox.detach(["-v", "--stop", "launcher"]).warns(&departed);
        sandbox.detach(["--stop", "launcher"]).succeeds_silently();
        assert!(left.is_alive(), "{options:?}");
        left.kill();
        sandbox.detach(["-v", "--stop", "launcher"]).warns(&note);
    }
}

#[test]
fn environment_of_the_command_names_its_job() {
    let sandbox = Sandbox::new();
    for options in WAYS {
        let mut command = sandbox.command(DETACH);
        command.env("DETACH_JOB", "1-1").env("DETACH_JOBS", "kept").arg("-P").args(options).args(["sleep", "60"]);
        let job = Process::started(&Run::of(&mut command).succeeds());
        let variables = job.words("environ");
        let variables: Vec<&[u8]> =
            variables.iter().map(Vec::as_slice).filter(|it| it.starts_with(b"DETACH_JOB")).collect();
        let own = format!("DETACH_JOB={}-{}", job.pid, job.stat(22).unwrap());
        assert_eq!(variables, [b"DETACH_JOBS=kept", own.as_bytes()], "{options:?}");
    }
}

#[test]
fn job_that_a_job_has_started_is_a_job_of_its_own() {
    let sandbox = Sandbox::new();
    sandbox.script("outer", "#!/bin/sh\ndetach -P -N inner sleep 60 > new; mv new inner\n exec sleep 61\n");
    let outer = sandbox.job(["./outer"]);
    let inner = process_named_in(&sandbox.work("inner"));
    sandbox.detach(["--stop", "outer"]).succeeds_silently();
    assert!(outer.is_dead() && inner.is_alive());
    assert_eq!([sandbox.state_of(&outer), sandbox.state_of(&inner)], ["ended", "running"]);
}

#[test]
fn number_of_a_session_that_is_used_again_is_not_the_job() {
    requires!(root, unshare);
    let sandbox = Sandbox::new();
    // The next process of the namespace gets the number that stands there, and one more: proc_sys_kernel(5).
    let script = r"
        last=/proc/sys/kernel/ns_last_pid
        echo 999 > $last || exit 99
        job=$(detach -P true)
        while [ -e /proc/$job ]; do sleep 0.01; done
        detach --list | cut -f1-3
        # Another session with this number, whose leader has ended, as that of a launcher.
        echo $((job - 1)) > $last
        setsid sh -c 'sleep 60 & echo $$ $! > pids' &
        wait
        read again left < pids
        [ $again = $job ] || exit 98
        # And one whose leader lives.
        detach --list | cut -f1-3
        detach -v --stop true 2>&1
        detach --prune 0
        [ -e /proc/$left ] && echo alive; detach -v --list 2>&1";
    let mut command = sandbox.command("unshare");
    let run = Run::of(command.args(["--pid", "--fork", "--mount-proc", "sh", "-c", script]));
    let stdout = run.succeeds();
    let job = stdout.split('\t').next().unwrap();
    let line = format!("{job}\ttrue\tended\n");
    let expected =
        format!("{line}{line}detach: 'true' (PID {job}) has already ended\nalive\ndetach: there are no jobs\n");
    assert_eq!(stdout, expected);
}

#[test]
fn end_that_detach_has_seen_is_known_afterwards() {
    for option in ["--wait", "--settle=20s"] {
        let sandbox = Sandbox::new();
        for (script, status, state) in
            [("exit 0", 0, "exited 0"), ("exit 4", 4, "exited 4"), ("kill -KILL $$", 137, "killed by SIGKILL")]
        {
            let run = sandbox.detach(["-P", option, "sh", "-c", script]).exits(status);
            let job = Process::new(run.stdout.trim().parse().unwrap());
            assert_eq!(sandbox.state_of(&job), state, "{option}");
            sandbox.detach(["--join", &job.pid.to_string()]).exits(status);
            sandbox.detach(["--join"]).exits(status);
        }
    }
}

#[test]
fn end_within_the_first_moment_on_a_terminal_is_known_afterwards() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    // The time to settle may be over before a busy machine has run the command.
    let (status, _) = terminal.run("detach sh -c 'exit 9'");
    let record = sandbox.only_record();
    assert_eq!(status, if record["end"].is_null() { 0 } else { 9 });
    let (joined, _) = terminal.run("detach --join");
    assert_eq!(joined, if status == 9 { 9 } else { 125 });
}

#[test]
fn end_of_a_wait_that_was_interrupted_is_unknown() {
    let sandbox = Sandbox::new();
    let file = sandbox.work("pid");
    let waiting = sandbox.command(DETACH).args(["--wait", "sh", "-c", &sleeper(&file)]).spawn();
    let mut waiting = waiting.unwrap();
    let job = process_named_in(&file);
    let detach = Process::new(waiting.id().cast_signed());
    eventually(|| detach.signals("SigBlk").contains(&17) && !detach.signals("SigBlk").contains(&20));
    detach.signal(Signal::SIGTERM);
    waiting.wait().unwrap();
    job.kill();
    let stderr = format!(
        "detach: 'sh' (PID {}) has ended; its exit status is unknown (start it with --track to record it)",
        job.pid
    );
    sandbox.detach(["--join"]).fails(125, &stderr);
}

#[test]
fn join_of_a_list_deploys_nothing_after_an_unknown_status() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["-N", "build", "true"]);
    eventually(|| job.is_dead());
    let run = sandbox.sh("detach --join build && echo deployed").exits(125);
    assert_eq!(run.stdout, "");
    assert!(fs::read_dir(sandbox.state()).unwrap().count() == 2);
}

#[test]
fn job_whose_program_replaces_itself_all_the_time_keeps_running() {
    let sandbox = Sandbox::new();
    // In the middle of an exec a process shows no environment.
    sandbox.script("program", "#!/bin/sh\n: > up\nexec \"$0\"\n");
    sandbox.script("launcher", "#!/bin/sh\n./program &\n");
    let job = sandbox.job(["-o", "/dev/null", "./launcher"]);
    eventually(|| job.is_dead() && sandbox.work("up").exists());
    for _ in 0..100 {
        assert_eq!(sandbox.state_of(&job), "running (1 left)");
    }
    sandbox.detach(["--stop", "launcher"]).succeeds_silently();
    assert_eq!(sandbox.state_of(&job), "ended");
    sandbox.jobs(0);
}

#[test]
fn job_that_forks_and_exits_all_the_time_keeps_running() {
    requires!(perl);
    let sandbox = Sandbox::new();
    let job = sandbox.chain("", "open F, '>', 'off'");
    let joining = sandbox.command(DETACH).args(["--join", "chain"]).stderr(Stdio::piped()).spawn().unwrap();
    let joining_process = Process::new(joining.id().cast_signed());
    // Each look may miss a process by chance.
    for _ in 0..40 {
        sandbox.detach(["--prune", "0"]).succeeds_silently();
        // It may be overlooked for long, but is never taken for one that has ended.
        let state = sandbox.state_of(&job);
        assert!(state == "ending" || state.starts_with("running"), "{state}");
        assert!(joining_process.is_alive());
    }
    assert!(!sandbox.work("off").exists());
    sandbox.remove("on");
    Run::from(joining.wait_with_output().unwrap()).exits(125);
    assert!(sandbox.work("off").exists());
    assert_eq!(sandbox.state_of(&job), "ended");
}
