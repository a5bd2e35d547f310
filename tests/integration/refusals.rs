//! `--pid`: what detach does not let go of, why, and that nothing is changed then.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::support::target::{Target, target};
use crate::support::{DETACH, Process, Run, Sandbox, Terminal, eventually, skip, sleeper};

/// What letting go of a process changes.
fn look(process: &Process) -> (i32, Vec<u32>, Vec<(i32, PathBuf)>) {
    (process.terminal(), process.signals("SigIgn"), process.descriptors().into_iter().collect())
}

/// Asserts that detach does not let go of `process`, says why, and changes nothing.
#[track_caller]
fn assert_refused(sandbox: &Sandbox, process: &Process, message: &str) {
    let before = look(process);
    let run = sandbox.detach(["--pid", &process.pid.to_string()]);
    run.fails(125, message);
    assert_eq!(look(process), before);
    assert!(!process.is_stopped());
    sandbox.assert_no_job_recorded();
}

/// A program of `target.c` in the background of bash.
fn start(kind: &str) -> (Sandbox, Terminal, Process) {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let target = Target::start(&sandbox, &mut terminal, kind);
    (sandbox, terminal, target.process)
}

#[test]
fn process_with_a_tracer_is_refused() {
    requires!(strace, bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let job = terminal.background("sleep 60");
    job.assert_descriptors(&[0, 1, 2]);
    let tracer = sandbox.command("strace").args(["-qq", "-o", "/dev/null", "-p", &job.pid.to_string()]).spawn();
    let tracer = Process::new(tracer.unwrap().id().cast_signed());
    eventually(|| job.status("TracerPid") != "0");
    let (pid, by) = (job.pid, tracer.pid);
    let reason = format!("it is already being traced by 'strace' (PID {by}); nothing was changed");
    assert_refused(&sandbox, &job, &format!("detach: cannot let go of 'sleep' (PID {pid}): {reason}"));
    assert_eq!(job.status("TracerPid"), by.to_string());
    tracer.kill();
}

#[test]
fn process_with_a_seccomp_filter_is_refused() {
    requires!(cc, bash);
    let (sandbox, _terminal, job) = start("seccomp");
    let reason = "it has a seccomp filter of its own, which could kill it for a system call that detach needs";
    let message = format!("detach: cannot let go of 'target' (PID {}): {reason}; nothing was changed", job.pid);
    assert_refused(&sandbox, &job, &message);
}

#[test]
fn process_without_a_free_descriptor_is_refused() {
    requires!(cc, bash);
    let (sandbox, _terminal, job) = start("full");
    let reason = "it cannot open /dev/null: too many open files; nothing was changed";
    assert_refused(&sandbox, &job, &format!("detach: cannot let go of 'target' (PID {}): {reason}", job.pid));
}

#[test]
fn process_that_does_not_stop_is_refused() {
    requires!(cc, bash);
    let (sandbox, _terminal, job) = start("slow-vfork");
    let reason = "it does not stop: it is in uninterruptible sleep (state D); nothing was changed";
    assert_refused(&sandbox, &job, &format!("detach: cannot let go of 'target' (PID {}): {reason}", job.pid));
    let child = sandbox.processes().into_iter().find(|it| it.parent() == job.pid.as_raw()).unwrap();
    eventually(|| child.is_asleep());
}

#[test]
fn program_of_32_bits_is_refused() {
    requires!(bash);
    let sandbox = Sandbox::new();
    // An ELF file for the 80386 that calls pause(2) again and again.
    let header = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0\x54\x80\x04\x08\x34\0\0\0\0\0\0\0\0\0\0\0\x34\0\x20\0\x01\0\0\0\0\0\0\0";
    let segment = b"\x01\0\0\0\0\0\0\0\0\x80\x04\x08\0\x80\x04\x08\x60\0\0\0\x60\0\0\0\x05\0\0\0\0\x10\0\0";
    let code = b"\xb8\x1d\0\0\0\xcd\x80\xeb\xf7\x90\x90\x90";
    sandbox.write("new", [&header[..], segment, code].concat());
    sandbox.sh("cp new pause32 && chmod 755 pause32").succeeds_silently();
    if sandbox.sh("timeout 0.1 ./pause32").status != 124 {
        skip("this kernel runs no 32-bit programs");
        return;
    }
    let mut terminal = Terminal::open_bash(&sandbox);
    let job = terminal.background("./pause32");
    let reason = "it is a 32-bit program, which is not supported; nothing was changed";
    assert_refused(&sandbox, &job, &format!("detach: cannot let go of 'pause32' (PID {}): {reason}", job.pid));
}

#[test]
fn process_with_other_files_is_refused() {
    requires!(root, cc, bash, unshare, chroot);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let file = sandbox.path("unshare.pid");
    let job = terminal.start(&format!("unshare -m sleep 60 & echo $! > {}", file.display()), &file);
    job.wait_for_exec("sleep");
    job.assert_descriptors(&[0, 1, 2]);
    let reason = "it is in another mount namespace (a container); run detach inside it; nothing was changed";
    assert_refused(&sandbox, &job, &format!("detach: cannot let go of 'sleep' (PID {}): {reason}", job.pid));
    fs::create_dir(sandbox.work("root")).unwrap();
    sandbox.sh(&format!("cp {} root/target", target().display())).succeeds_silently();
    let file = sandbox.path("chroot.pid");
    let job = terminal.start(&format!("chroot root /target idle /board & echo $! > {}", file.display()), &file);
    job.wait_for_exec("/target");
    eventually(|| job.is_asleep());
    let reason = "it has another root directory (chroot), so it cannot open the log; nothing was changed";
    assert_refused(&sandbox, &job, &format!("detach: cannot let go of 'target' (PID {}): {reason}", job.pid));
}

#[test]
fn process_of_another_user_is_refused_with_a_hint() {
    requires!(root, setpriv, cc, bash);
    let sandbox = Sandbox::new();
    for name in ["home", "work"] {
        std::os::unix::fs::chown(sandbox.path(name), Some(54321), Some(54321)).unwrap();
    }
    let copy = sandbox.copy_of_detach();
    let mut of_root = Terminal::open_bash(&sandbox);
    let others = of_root.background("sleep 60");
    let setpriv = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "bash", "--norc", "-i"];
    let mut terminal = Terminal::open_with(&sandbox, &setpriv);
    sandbox.sh(&format!("cp {} setuid && chmod 4755 setuid", target().display())).succeeds_silently();
    let mut start = |name: &str, command: &str| {
        let file = sandbox.work(name);
        terminal.start(&format!("{command} & echo $! > {}", file.display()), &file)
    };
    let with_rights = start("setuid.pid", "./setuid idle board");
    let hidden = start("hidden.pid", &format!("{} hidden board.hidden", target().display()));
    eventually(|| fs::read(sandbox.work("board.hidden")).is_ok_and(|board| board.first() == Some(&1)));
    // One of them is enough.
    let last = start("mixed.pid", "sleep 61 | ./setuid idle board");
    let mixed = Process::new(last.group());
    mixed.wait_for_exec("sleep 61");
    for process in [&others, &mixed] {
        eventually(|| process.is_asleep());
    }
    for process in [&with_rights, &last] {
        process.wait_for_exec("./setuid");
    }
    for (name, job, refused, reason) in [
        ("sleep", &others, others.pid, "it belongs to user 0"),
        ("setuid", &with_rights, with_rights.pid, "it runs with the rights of user 0 (setuid)"),
        ("target", &hidden, hidden.pid, "it cannot be traced: permission denied"),
        ("setuid", &mixed, last.pid, "it runs with the rights of user 0 (setuid)"),
    ] {
        let before = look(job);
        let run = Run::of(sandbox.command_as(54321, &copy).args(["--pid", &job.pid.to_string()]));
        run.fails(
            125,
            &format!(
                "detach: cannot let go of '{name}' (PID {refused}): {reason}; nothing was changed\n\
                 detach: hint: as root: sudo detach --pid {refused}"
            ),
        );
        assert_eq!(look(job), before);
    }
    sandbox.assert_no_job_recorded();
}

#[test]
fn process_that_may_not_open_the_output_is_refused() {
    requires!(root, setpriv, bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let file = sandbox.path("job.pid");
    let other = "setpriv --reuid=54321 --regid=54321 --clear-groups sleep 60";
    let last = terminal.start(&format!("sleep 61 | {other} & echo $! > {}", file.display()), &file);
    last.wait_for_exec("sleep 60");
    let first = Process::new(last.group());
    first.wait_for_exec("sleep 61");
    first.wait_for_sleep();
    last.wait_for_sleep();
    let before = [&first, &last].map(look);
    sandbox.detach(["--pid", &first.pid.to_string()]).fails(
        125,
        &format!(
            "detach: cannot let go of 'sleep' (PID {}): it cannot open its output: permission denied; nothing was changed\n\
             detach: hint: with -o, name a file that all processes of the job may write",
            last.pid
        ),
    );
    assert_eq!([&first, &last].map(look), before);
    sandbox.assert_no_job_recorded();
    // /dev/null is such a file.
    sandbox.detach(["--pid", "-o", "/dev/null", &first.pid.to_string()]).succeeds_silently();
    assert_eq!([&first, &last].map(Process::terminal), [0, 0]);
}

#[test]
fn sudo_that_passes_the_terminal_on_is_refused_and_its_command_is_not() {
    requires!(root, sudo, bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let file = sandbox.path("command.pid");
    sandbox.script("command", &format!("#!/bin/sh\n{}\n", sleeper(&file)));
    let command = terminal.start("sudo -n ./command", &file);
    command.wait_for_exec("sleep");
    let job = Process::new(terminal.foreground());
    if command.terminal() == job.terminal() {
        return skip("sudo does not use a terminal of its own here");
    }
    command.wait_for_sleep();
    let (pid, hint) = (job.pid, format!("let go of that command: sudo detach --pid {}", command.pid));
    let reason = "it would end its command, to which it passes the terminal on; nothing was changed";
    let message = format!("detach: cannot let go of 'sudo' (PID {pid}): {reason}\ndetach: hint: {hint}");
    assert_refused(&sandbox, &job, &message);
    let advice = sandbox.detach(["--check", "--json", &pid.to_string()]).stdout;
    assert!(advice.contains("\"can_be_let_go\":false"), "{advice}");
    sandbox.detach(["--pid", &command.pid.to_string()]).succeeds_silently();
    let mut other = Terminal::open_bash(&sandbox);
    let file = sandbox.path("control.pid");
    sandbox.script("control", &format!("#!/bin/sh\n{}\n", sleeper(&file)));
    let control = other.start("sudo -n ./control", &file);
    control.wait_for_exec("sleep");
    for terminal in [&mut terminal, &mut other] {
        terminal.hang_up();
    }
    // sudo passes SIGHUP on.
    eventually(|| control.is_dead());
    assert!(command.is_alive());
    assert_eq!(command.terminal(), 0);
    command.kill();
    eventually(|| job.is_dead());
}

#[test]
fn nothing_is_changed_if_one_of_several_jobs_is_refused() {
    requires!(root, setpriv, bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let first = terminal.background("sleep 60");
    first.wait_for_sleep();
    let file = sandbox.path("job.pid");
    let other = "setpriv --reuid=54321 --regid=54321 --clear-groups sleep 60";
    let last = terminal.start(&format!("sleep 61 | {other} & echo $! > {}", file.display()), &file);
    last.wait_for_exec("sleep 60");
    let before = look(&first);
    let run = sandbox.detach(["--pid", &first.pid.to_string(), &last.pid.to_string()]).exits(125);
    assert!(run.stderr.contains("it cannot open its output: permission denied; nothing was changed"), "{run:?}");
    assert_eq!(look(&first), before);
    sandbox.assert_no_job_recorded();
}

#[test]
fn file_for_the_output_is_left_alone_where_it_cannot_be_used() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let job = terminal.background("sleep 60");
    let fifo = sandbox.work("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let run = sandbox.detach(["--pid", "-o", "fifo", &job.pid.to_string()]);
    run.fails(125, "detach: cannot write output to 'fifo': it is a FIFO");
    for (name, reason) in
        [(terminal.name().to_str().unwrap(), "the terminal cannot be kept"), ("", "no such file or directory")]
    {
        let run = sandbox.detach(["--pid", "-o", name, &job.pid.to_string()]);
        run.fails(125, &format!("detach: cannot write output to '{name}': {reason}"));
    }
    let without_terminal = sandbox.job(["-o", "/dev/null", "sleep", "60"]);
    sandbox.detach(["--pid", "-o", "new", &without_terminal.pid.to_string()]).exits(0);
    assert!(!sandbox.work("new").exists());
}

/// Somebody else sends SIGCONT all the time.
#[test]
fn process_that_does_not_stay_stopped_is_let_go_of_or_refused() {
    requires!(bash, perl);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let job = terminal.background("sleep 600");
    let continues = format!("kill CONT => {} and select undef, undef, undef, 0.0003 while 1", job.pid);
    let other = Process::new(sandbox.command("perl").args(["-e", &continues]).spawn().unwrap().id().cast_signed());
    // Each may take the three seconds in which a process has to stop.
    for _ in 0..4 {
        let run = sandbox.detach(["--pid", &job.pid.to_string()]);
        if run.status == 0 {
            assert_eq!(job.terminal(), 0);
        } else {
            let reason = "it does not stay stopped: another process continues it; nothing was changed";
            run.fails(125, &format!("detach: cannot let go of 'sleep' (PID {}): {reason}", job.pid));
            assert_ne!(job.terminal(), 0);
        }
    }
    other.kill();
}

#[test]
fn detach_and_its_ancestors_are_refused() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let shell = terminal.shell.pid;
    let (status, screen) = terminal.run("detach --pid $$");
    let message = format!("detach: cannot let go of 'bash' (PID {shell}): detach is one of its descendants");
    assert_eq!(status, 125);
    assert!(screen.trim_end().ends_with(&message), "{screen:?}");
    let run = sandbox.sh("sleep 60 & detach --pid $!; kill $!").exits(0);
    assert!(run.stderr.starts_with("detach: cannot let go of 'sleep' (PID "), "{run:?}");
    let rest = "): detach is in its process group\ndetach: hint: in a script, start it with 'detach COMMAND' instead\n";
    assert!(run.stderr.ends_with(rest), "{run:?}");
}

#[test]
fn what_is_no_process_with_a_terminal_is_refused() {
    let sandbox = Sandbox::new();
    sandbox
        .detach(["--pid", "4194303"])
        .fails(125, "detach: cannot let go of process 4194303: there is no such process or process group");
    for word in ["make", "0", "-1x", "1.5", "99999999999"] {
        let run = sandbox.detach(["--pid", "--", word]);
        run.fails(
            125,
            &format!("detach: cannot use '{word}' for 'PID': not a PID\ndetach: hint: see 'detach --pid --help'"),
        );
    }
    sandbox.detach(["--pid", "-o", "-", "1"]).fails(
        125,
        "detach: cannot use '-' for '--output <FILE>': the terminal cannot be kept\ndetach: hint: see 'detach --pid --help'",
    );
    let mut command = sandbox.command("setsid");
    let job = Process::new(command.args(["sleep", "60"]).spawn().unwrap().id().cast_signed());
    eventually(|| job.leads_session() && job.runs("sleep"));
    job.wait_for_sleep();
    // Its stdout is that of the tests, which may be a terminal.
    if !job.descriptors().values().any(|path| path.starts_with("/dev/pts")) {
        assert_refused(
            &sandbox,
            &job,
            &format!("detach: cannot let go of 'sleep' (PID {}): it has no terminal", job.pid),
        );
    }
    if fs::read("/proc/2/comm").is_ok_and(|name| name == b"kthreadd\n") {
        let reason = "it is a kernel thread; nothing was changed";
        sandbox.detach(["--pid", "2"]).fails(125, &format!("detach: cannot let go of 'kthreadd' (PID 2): {reason}"));
    }
}

#[test]
fn output_that_cannot_be_written_is_found_out_before_anything_is_changed() {
    requires!(bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let job = terminal.background("sleep 60");
    let before = look(&job);
    let pid = job.pid.to_string();
    sandbox
        .detach(["--pid", "-o", "no/file", &pid])
        .fails(125, "detach: cannot write output to 'no/file': no such file or directory");
    fs::create_dir_all(sandbox.state()).unwrap();
    fs::set_permissions(sandbox.state(), fs::Permissions::from_mode(0o755)).unwrap();
    let run = sandbox.detach(["--pid", &pid]).exits(125);
    assert!(run.stderr.starts_with("detach: cannot use directory '"), "{run:?}");
    assert_eq!(look(&job), before);
    // With a file, it goes without a record.
    let run = sandbox.detach(["--pid", "-o", "file", &pid]).exits(0);
    assert!(run.stderr.starts_with("detach: warning: cannot record job 'sleep': cannot use directory '"), "{run:?}");
    assert_eq!(job.terminal(), 0);
}

#[test]
fn job_may_be_let_go_of_once_its_tracer_is_gone() {
    requires!(strace, bash);
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let job = terminal.background("sleep 60");
    let strace = sandbox.command("strace").args(["-qq", "-o", "/dev/null", "-p", &job.pid.to_string()]).spawn();
    let strace = Process::new(strace.unwrap().id().cast_signed());
    eventually(|| job.status("TracerPid") != "0");
    let checked = sandbox.detach(["-v", "--check", &job.pid.to_string()]).exits(1).stdout;
    assert!(checked.contains("cannot let go of it: it is already"), "{checked}");
    strace.signal(Signal::SIGTERM);
    eventually(|| job.status("TracerPid") == "0");
    let checked = sandbox.detach(["--check", &job.pid.to_string()]).exits(1).stdout;
    let checked = checked.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(checked.contains(&format!("remedy: detach --pid {}", job.pid)), "{checked}");
    sandbox.detach(["--pid", &job.pid.to_string()]).succeeds_silently();
    let checked = sandbox.detach(["--check", &job.pid.to_string()]).exits(0).stdout;
    assert!(!checked.contains("remedy"), "{checked}");
    let mut again = sandbox.command(DETACH);
    Run::of(again.args(["--stop", "sleep"])).succeeds_silently();
}
