//! Where stdin, stdout and stderr of a job go, and the log.
//!
//! Terminals, pipes, sockets, files and devices, by default and by option; the place of the log and its permissions.
//! What is printed about them is tested in `watching`.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;

use crate::support::{
    DETACH, Process, Run, Sandbox, Terminal, await_result, eventually, mode, process_named_in, sleeper,
};

fn null() -> PathBuf {
    PathBuf::from("/dev/null")
}

#[test]
fn terminal_becomes_null_device_and_log() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    let control = terminal.background("sleep 60");
    terminal.type_line("detach -N named sleep 60");
    terminal.wait_for("output in ~/.local/state/detach/named-");
    let job = sandbox.detached();
    let log = sandbox.state().join(format!("named-{}.log", job.pid));
    let expected = [(0, null()), (1, log.clone()), (2, log)];
    assert_eq!(job.assert_descriptors(&[0, 1, 2]).into_iter().collect::<Vec<_>>(), expected);
    assert!(control.descriptors()[&1].starts_with("/dev/pts"));
}

#[test]
fn terminal_reports_its_end_while_the_job_runs() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    let job = terminal.detach("sleep 60");
    terminal.type_line("exit");
    terminal.wait_for_end();
    assert!(job.is_alive());

    // The control keeps the terminal open.
    let mut terminal = Terminal::open(&sandbox);
    let control = terminal.start(&format!("setsid -f sh -c '{}'", sleeper(&sandbox.path("c"))), &sandbox.path("c"));
    terminal.type_line("exit");
    eventually(|| terminal.is_shell_dead());
    assert!(!terminal.has_ended(), "the control holds the terminal");
    control.signal(Signal::SIGKILL);
    terminal.wait_for_end();
}

#[test]
fn command_substitution_and_pipeline_return_while_the_job_runs() {
    let sandbox = Sandbox::new();
    // Each would wait for a sleep that held the pipe.
    let stdout = sandbox.sh("out=$(detach -P sleep 6000); detach sleep 6000 | cat; echo $out").succeeds();
    Process::started(&stdout);
    sandbox.jobs(2);
    assert_eq!(sandbox.logs().len(), 2);

    // The control: with nohup the command holds the pipe.
    let control = sandbox.sh("timeout 0.5 sh -c 'out=$(nohup sleep 6000 &)'; echo $?");
    assert_eq!(control.stdout, "124\n");
}

#[test]
fn socket_on_stdout_becomes_the_log() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = sandbox.command(DETACH);
    command.args(["-o-", "sleep", "60"]).stdout(Stdio::from(OwnedFd::from(theirs.try_clone().unwrap())));
    assert!(command.status().unwrap().success());
    let kept = sandbox.only_job().descriptors()[&1].clone();
    assert!(kept.to_string_lossy().starts_with("socket:"), "the control keeps it: {kept:?}");
    sandbox.only_job().signal(Signal::SIGKILL);
    drop(command);

    let mut command = sandbox.command(DETACH);
    command.args(["sh", "-c", "echo said; exec sleep 60"]).stdout(Stdio::from(OwnedFd::from(theirs)));
    assert!(command.status().unwrap().success());
    drop(command);
    eventually(|| sandbox.log() == "said\n");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut &ours, &mut text).unwrap();
    assert_eq!(text, "");
}

#[test]
fn socket_on_stdin_and_stdout_is_closed() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = sandbox.command(DETACH);
    let [input, output] = [theirs.try_clone().unwrap(), theirs].map(|socket| Stdio::from(OwnedFd::from(socket)));
    assert!(command.args(["sleep", "60"]).stdin(input).stdout(output).status().unwrap().success());
    drop(command);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut &ours, &mut text).unwrap();
    assert_eq!((text.as_str(), &sandbox.only_job().descriptors()[&0]), ("", &null()));
}

#[test]
fn pipe_on_stdin_is_kept() {
    let sandbox = Sandbox::new();
    sandbox.sh("echo hi | detach cat").succeeds();
    eventually(|| sandbox.log() == "hi\n");
}

#[test]
fn file_and_null_device_are_kept_without_a_log() {
    let sandbox = Sandbox::new();
    sandbox.sh("detach sleep 60 < /etc/passwd > out 2> /dev/null").succeeds();
    let job = sandbox.only_job();
    let expected = [(0, PathBuf::from("/etc/passwd")), (1, sandbox.work("out")), (2, null())];
    assert_eq!(job.assert_descriptors(&[0, 1, 2]).into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(sandbox.logs(), [""; 0]);
    let out = sandbox.work("out").display().to_string();
    assert_eq!(sandbox.only_record()["stdout"], serde_json::json!({ "file": out }));
    assert_eq!(sandbox.only_record()["stderr"], "discarded");
}

#[test]
fn output_option_appends_both_streams_to_one_file() {
    let sandbox = Sandbox::new();
    sandbox.write("out", "before\n");
    sandbox.detach(["-w", "-o", "out", "sh", "-c", "echo one; echo two >&2; echo three"]).succeeds();
    assert_eq!(sandbox.read("out"), "before\none\ntwo\nthree\n");
    assert_eq!(sandbox.logs(), [""; 0]);
    let file = sandbox.work("out").display().to_string();
    assert_eq!(sandbox.only_record()["stdout"]["file"], file.as_str());
}

#[test]
fn error_option_separates_stderr_from_stdout() {
    let sandbox = Sandbox::new();
    for (options, out, err) in [
        (&["-o", "out", "-e", "err"][..], "one\n", "two\n"),
        (&["-e", "err", "-o", "out"], "one\n", "two\n"),
        (&["-o", "out", "-e", "./out"], "one\ntwo\n", ""),
    ] {
        sandbox.detach(["-w"].iter().chain(options).chain(&["sh", "-c", "echo one; echo two >&2"])).succeeds();
        let read = |name: &str| fs::read_to_string(sandbox.work(name)).unwrap_or_default();
        assert_eq!((read("out").as_str(), read("err").as_str()), (out, err), "{options:?}");
        sandbox.remove("out");
        sandbox.remove("err");
    }
}

#[test]
fn file_named_by_a_redirection_and_by_an_option_gets_both_streams() {
    let sandbox = Sandbox::new();
    sandbox.sh("detach -w -e out sh -c 'echo one; echo two >&2; echo three' > out").succeeds();
    assert_eq!(sandbox.read("out"), "one\ntwo\nthree\n");
}

#[test]
fn error_option_leaves_the_log_to_stdout() {
    let sandbox = Sandbox::new();
    sandbox.detach(["-w", "-e", "err", "sh", "-c", "echo one; echo two >&2"]).succeeds_silently();
    assert_eq!((sandbox.log().as_str(), sandbox.read("err").as_str()), ("one\n", "two\n"));
}

#[test]
fn dash_leaves_a_stream_as_it_is() {
    let sandbox = Sandbox::new();
    let script = "echo out; echo err >&2; cat";
    assert_eq!(sandbox.sh(&format!("echo in | detach -w -o - sh -c '{script}'")).warns("err"), "out\nin\n");
    assert_eq!(sandbox.sh(&format!("echo in | detach -w -e - -o out sh -c '{script}'")).warns("err"), "");
    assert_eq!(sandbox.read("out"), "out\nin\n");
}

#[test]
fn dash_leaves_a_terminal_as_it_is() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    let job = terminal.start(&format!("detach -i - -o - sh -c '{}'", sleeper(&sandbox.path("p"))), &sandbox.path("p"));
    job.wait_for_exec("sleep");
    let descriptors = job.assert_descriptors(&[0, 1, 2]);
    assert!(descriptors.values().all(|path| path.starts_with("/dev/pts")), "{descriptors:?}");
    assert_eq!(sandbox.logs(), [""; 0]);
}

#[test]
fn input_option_reads_a_file() {
    let sandbox = Sandbox::new();
    sandbox.write("in", "input\n");
    sandbox.sh("echo ignored | detach -w -i in cat").succeeds();
    assert_eq!(sandbox.log(), "input\n");
}

#[test]
fn both_streams_share_one_open_file_description() {
    for options in [&[][..], &["-o", "out"], &["-o", "out", "-e", "./out"]] {
        let sandbox = Sandbox::new();
        let job = sandbox.job(options.iter().chain(&["sh", "-c", "printf 12345; exec sleep 60"]));
        // A write to stdout moves the position of stderr.
        let position = |fd: i32| {
            let info = fs::read_to_string(job.file(&format!("fdinfo/{fd}"))).unwrap();
            info.lines().find_map(|line| line.strip_prefix("pos:\t").map(str::to_owned)).unwrap()
        };
        eventually(|| position(1) == "5");
        assert_eq!(position(2), "5", "{options:?}");
    }
}

#[test]
fn terminal_named_as_a_file_does_not_become_the_controlling_terminal() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    let (_, device) = terminal.run("tty");
    let device = device.lines().last().unwrap().trim().to_owned();
    // The terminal has lost its session, so the leader of another session may get it.
    let keeper = terminal.start(&format!("setsid -f sh -c '{}'", sleeper(&sandbox.path("k"))), &sandbox.path("k"));
    terminal.type_line("exit");
    eventually(|| terminal.is_shell_dead());
    for option in ["-i", "-o", "-e"] {
        // A session leader without a terminal gets the first that it opens, unless it refuses: open(2).
        let mut command = sandbox.command("setsid");
        let mut waiting = command.args([DETACH, "-w", option, &device, "sleep", "60"]).spawn().unwrap();
        let job = await_result(|| {
            let jobs = sandbox.processes().into_iter();
            let mut jobs = jobs.filter(|job| job.pid != keeper.pid && job.runs("sleep"));
            jobs.next().ok_or_else(String::new)
        });
        let leader = Process::new(waiting.id().cast_signed());
        assert_eq!(leader.session(), leader.pid.as_raw());
        assert_eq!((leader.terminal(), job.terminal()), (0, 0), "{option}");
        job.signal(Signal::SIGKILL);
        waiting.wait().unwrap();
    }
}

#[test]
fn device_that_is_no_terminal_is_kept() {
    let sandbox = Sandbox::new();
    sandbox.sh("detach sleep 60 > /dev/zero 2> /dev/full").succeeds();
    let descriptors = sandbox.only_job().descriptors();
    assert_eq!([&descriptors[&1], &descriptors[&2]], [Path::new("/dev/zero"), Path::new("/dev/full")]);
    assert_eq!(sandbox.logs(), [""; 0]);
    assert_eq!((&sandbox.only_record()["stdout"], &sandbox.only_record()["stderr"]), (&"kept".into(), &"kept".into()));
}

#[test]
fn log_and_record_belong_to_the_user_alone_whatever_the_umask() {
    for umask in ["0", "022", "0777"] {
        let sandbox = Sandbox::new();
        sandbox.sh(&format!("umask {umask}; detach sleep 60")).succeeds();
        let job = sandbox.only_job();
        assert_eq!(mode(&sandbox.state()), 0o700);
        for file in sandbox.files("") {
            assert_eq!(mode(&sandbox.state().join(file)), 0o600);
        }
        let flags = job.descriptor_flags(1).unwrap();
        assert!(flags.contains(OFlag::O_APPEND | OFlag::O_WRONLY), "{flags:?}");
        assert_eq!(u32::from_str_radix(&job.status("Umask"), 8), u32::from_str_radix(umask, 8));
    }
}

#[test]
fn link_with_the_name_of_a_log_is_not_followed() {
    let sandbox = Sandbox::new();
    let target = sandbox.work("victim");
    fs::write(&target, "untouched").unwrap();
    fs::create_dir_all(sandbox.state()).unwrap();
    fs::set_permissions(sandbox.state(), fs::Permissions::from_mode(0o700)).unwrap();
    // One of the next PIDs will be that of the job, whatever else is started meanwhile.
    let most = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap().trim().parse::<i32>().unwrap();
    let last = fs::read_to_string("/proc/loadavg").unwrap().split_whitespace().last().unwrap().parse::<i32>().unwrap();
    for next in 1..=30_000 {
        symlink(&target, sandbox.state().join(format!("sh-{}.log", (last + next) % most))).unwrap();
    }
    let job = sandbox.job(["sh", "-c", "echo text; exec sleep 60"]);
    let log = sandbox.state().join(format!("sh-{}-2.log", job.pid));
    eventually(|| fs::read_to_string(&log).is_ok_and(|text| text == "text\n"));
    assert_eq!(job.descriptors()[&1], log);
    assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
}

#[test]
fn state_home_of_the_environment_is_used() {
    let sandbox = Sandbox::new();
    let place = sandbox.path("elsewhere");
    Run::of(sandbox.command(DETACH).env("XDG_STATE_HOME", &place).args(["sleep", "60"])).succeeds();
    assert_eq!(fs::read_dir(place.join("detach")).unwrap().count(), 2);
    assert!(!sandbox.state().exists());
    // The XDG specification has relative paths ignored.
    Run::of(sandbox.command(DETACH).env("XDG_STATE_HOME", "relative").args(["sleep", "60"])).succeeds();
    assert_eq!(sandbox.files("").len(), 2);
    assert!(!Path::new(&sandbox.work("relative")).exists());
}

#[test]
fn terminal_that_has_hung_up_becomes_null_device_and_log() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    // A shell that ignores the hangup starts a job after the terminal is gone.
    let script = "trap '' HUP; while true > /dev/tty; do :; done 2>/dev/null; detach -P sleep 60 | cat > \"$1\"";
    sandbox.script("late", script);
    let pid = sandbox.path("late.pid");
    terminal.type_line(&format!("sh ./late {}", pid.display()));
    eventually(|| {
        sandbox.processes().iter().any(|process| process.runs("sh ./late") && process.signals("SigIgn").contains(&1))
    });
    terminal.hang_up();
    let job = process_named_in(&pid);
    job.wait_for_exec("sleep");
    let descriptors = job.descriptors();
    assert_eq!(descriptors[&0], null());
    assert!(descriptors[&2].starts_with(sandbox.state()), "{descriptors:?}");
}
