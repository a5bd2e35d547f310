//! Where stdin, stdout and stderr of a job go, and the log.
//!
//! Terminals, pipes, sockets, files and devices, by the rule and by the options; who may read the log, and where it
//! is. What is said about it is in `watching`.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;

use crate::support::{DETACH, Process, Run, Sandbox, Terminal, await_result, eventually, mode, sleeper};

fn null() -> PathBuf {
    PathBuf::from("/dev/null")
}

#[test]
fn terminal_is_let_go() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    let control = terminal.background(&sandbox, "sleep 60");
    terminal.type_line("detach -N named sleep 60");
    terminal.wait_for("output in ~/.local/state/detach/named-");
    let job = sandbox.detached();
    let log = sandbox.state().join(format!("named-{}.log", job.pid));
    let expected = [(0, null()), (1, log.clone()), (2, log)];
    assert_eq!(job.assert_descriptors(&[0, 1, 2]).into_iter().collect::<Vec<_>>(), expected);
    assert!(control.descriptors()[&1].starts_with("/dev/pts"));
}

#[test]
fn other_side_of_the_terminal_sees_the_end_while_the_job_runs() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    let job = terminal.detach(&sandbox, "sleep 60");
    terminal.type_line("exit");
    terminal.wait_for_end();
    assert!(job.is_alive());

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
    // Each would wait for the sleep if it held the pipe, and the sleep is longer than any patience.
    let run = sandbox.sh("out=$(detach -P sleep 6000); detach sleep 6000 | cat; echo $out");
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    sandbox.jobs(2);
    assert_eq!(sandbox.files(".log").len(), 2);

    // The control: the same with nohup waits, as its command holds the pipe.
    let control = sandbox.sh("timeout 0.5 sh -c 'out=$(nohup sleep 6000 &)'; echo $?");
    assert_eq!(control.stdout, "124\n");
}

#[test]
fn socket_is_let_go() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = sandbox.command(DETACH);
    command.args(["-o-", "sleep", "60"]).stdout(Stdio::from(OwnedFd::from(theirs.try_clone().unwrap())));
    assert!(command.status().unwrap().success());
    let kept = sandbox.jobs(1)[0].descriptors()[&1].clone();
    assert!(kept.to_string_lossy().starts_with("socket:"), "the control keeps it: {kept:?}");
    sandbox.jobs(1)[0].signal(Signal::SIGKILL);
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
fn socket_that_is_stdin_as_well_is_let_go_as_a_whole() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = sandbox.command(DETACH);
    let [input, output] = [theirs.try_clone().unwrap(), theirs].map(|socket| Stdio::from(OwnedFd::from(socket)));
    assert!(command.args(["sleep", "60"]).stdin(input).stdout(output).status().unwrap().success());
    drop(command);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut &ours, &mut text).unwrap();
    assert_eq!((text.as_str(), &sandbox.jobs(1)[0].descriptors()[&0]), ("", &null()));
}

#[test]
fn pipe_on_stdin_stays() {
    let sandbox = Sandbox::new();
    let run = sandbox.sh("echo hi | detach cat");
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    eventually(|| sandbox.log() == "hi\n");
}

#[test]
fn file_and_null_device_stay_and_make_no_log() {
    let sandbox = Sandbox::new();
    let run = sandbox.sh("detach sleep 60 < /etc/passwd > out 2> /dev/null");
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let job = &sandbox.jobs(1)[0];
    let expected = [(0, PathBuf::from("/etc/passwd")), (1, sandbox.path("work/out")), (2, null())];
    assert_eq!(job.assert_descriptors(&[0, 1, 2]).into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(sandbox.files(".log"), [""; 0]);
    assert_eq!(sandbox.records()[0]["stdout"], "kept");
    assert_eq!(sandbox.records()[0]["stderr"], "discarded");
}

#[test]
fn output_option_appends_both_streams_to_one_file() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("work/out"), "before\n").unwrap();
    let run = sandbox.detach(["-w", "-o", "out", "sh", "-c", "echo one; echo two >&2; echo three"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(sandbox.path("work/out")).unwrap(), "before\none\ntwo\nthree\n");
    assert_eq!(sandbox.files(".log"), [""; 0]);
    let file = sandbox.path("work/out").display().to_string();
    assert_eq!(sandbox.records()[0]["stdout"]["file"], file.as_str());
}

#[test]
fn error_option_parts_stderr_from_stdout() {
    let sandbox = Sandbox::new();
    for (options, out, err) in [
        (&["-o", "out", "-e", "err"][..], "one\n", "two\n"),
        (&["-e", "err", "-o", "out"], "one\n", "two\n"),
        (&["-o", "out", "-e", "./out"], "one\ntwo\n", ""),
    ] {
        let run = sandbox.detach(["-w"].iter().chain(options).chain(&["sh", "-c", "echo one; echo two >&2"]));
        assert_eq!((run.status, run.stderr.as_str()), (0, ""));
        let read = |name: &str| fs::read_to_string(sandbox.path("work").join(name)).unwrap_or_default();
        assert_eq!((read("out").as_str(), read("err").as_str()), (out, err), "{options:?}");
        let _ = fs::remove_file(sandbox.path("work/out"));
        let _ = fs::remove_file(sandbox.path("work/err"));
    }
    // The same file by the shell's redirection and by an option.
    let run = sandbox.sh("detach -w -e out sh -c 'echo one; echo two >&2; echo three' > out");
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(sandbox.path("work/out")).unwrap(), "one\ntwo\nthree\n");
    // stdout alone needs the log.
    let run = sandbox.detach(["-w", "-e", "err", "sh", "-c", "echo one; echo two >&2"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert_eq!(
        (sandbox.log().as_str(), fs::read_to_string(sandbox.path("work/err")).unwrap().as_str()),
        ("one\n", "two\n")
    );
}

#[test]
fn dash_leaves_a_stream_as_it_is() {
    let sandbox = Sandbox::new();
    let script = "echo out; echo err >&2; cat";
    let run = sandbox.sh(&format!("echo in | detach -w -o - sh -c '{script}'"));
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (0, "out\nin\n", "err\n"));
    let run = sandbox.sh(&format!("echo in | detach -w -e - -o out sh -c '{script}'"));
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (0, "", "err\n"));

    let mut terminal = Terminal::open(&sandbox);
    let job = terminal.start(&format!("detach -i - -o - sh -c '{}'", sleeper(&sandbox.path("p"))), &sandbox.path("p"));
    job.wait_for_exec("sleep");
    let descriptors = job.assert_descriptors(&[0, 1, 2]);
    assert!(descriptors.values().all(|path| path.starts_with("/dev/pts")), "{descriptors:?}");
    assert_eq!(sandbox.files(".log"), [""; 0]);
}

#[test]
fn input_option_reads_a_file() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("work/in"), "input\n").unwrap();
    let run = sandbox.sh("echo ignored | detach -w -i in cat");
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert_eq!(sandbox.log(), "input\n");
}

#[test]
fn both_streams_share_one_open_file_description() {
    for options in [&[][..], &["-o", "out"], &["-o", "out", "-e", "./out"]] {
        let sandbox = Sandbox::new();
        let job = sandbox.job(options.iter().chain(&["sh", "-c", "printf 12345; exec sleep 60"]));
        // What was written to stdout has moved the position of stderr.
        let position = |fd: i32| {
            let info = fs::read_to_string(job.file(&format!("fdinfo/{fd}"))).unwrap();
            info.lines().find_map(|line| line.strip_prefix("pos:\t").map(str::to_owned)).unwrap()
        };
        eventually(|| position(1) == "5");
        assert_eq!(position(2), "5", "{options:?}");
    }
}

#[test]
fn terminal_named_as_a_file_does_not_become_the_controlling_one() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    let (_, device) = terminal.run("tty");
    let device = device.lines().last().unwrap().trim().to_owned();
    // The terminal has lost its session: whoever leads another may get it.
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
fn device_that_is_no_terminal_stays() {
    let sandbox = Sandbox::new();
    let run = sandbox.sh("detach sleep 60 > /dev/zero 2> /dev/full");
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let descriptors = sandbox.jobs(1)[0].descriptors();
    assert_eq!([&descriptors[&1], &descriptors[&2]], [Path::new("/dev/zero"), Path::new("/dev/full")]);
    assert_eq!(sandbox.files(".log"), [""; 0]);
    assert_eq!((&sandbox.records()[0]["stdout"], &sandbox.records()[0]["stderr"]), (&"kept".into(), &"kept".into()));
}

#[test]
fn log_and_record_are_the_users_alone_whatever_the_umask() {
    for umask in ["0", "022", "0777"] {
        let sandbox = Sandbox::new();
        let run = sandbox.sh(&format!("umask {umask}; detach sleep 60"));
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "umask {umask}");
        let job = &sandbox.jobs(1)[0];
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
fn link_in_the_place_of_a_log_is_not_followed() {
    let sandbox = Sandbox::new();
    let target = sandbox.path("work/victim");
    fs::write(&target, "untouched").unwrap();
    fs::create_dir_all(sandbox.state()).unwrap();
    fs::set_permissions(sandbox.state(), fs::Permissions::from_mode(0o700)).unwrap();
    // One of the next PIDs will be the job's, whatever else this machine starts meanwhile.
    let most = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap().trim().parse::<i32>().unwrap();
    let last = fs::read_to_string("/proc/loadavg").unwrap().split_whitespace().last().unwrap().parse::<i32>().unwrap();
    for next in 1..=10_000 {
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
    let run = Run::of(sandbox.command(DETACH).env("XDG_STATE_HOME", &place).args(["sleep", "60"]));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert_eq!(fs::read_dir(place.join("detach")).unwrap().count(), 2);
    assert!(!sandbox.state().exists());
    // The specification: a relative path is to be ignored.
    let run = Run::of(sandbox.command(DETACH).env("XDG_STATE_HOME", "relative").args(["sleep", "60"]));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert_eq!(sandbox.files("").len(), 2);
    assert!(!Path::new(&sandbox.path("work/relative")).exists());
}

#[test]
fn terminal_that_has_hung_up_is_let_go() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_with(&sandbox, &["bash", "--norc", "--noprofile", "-i"]);
    // A shell that ignores the hangup starts a job when the terminal is gone already.
    let script = "trap '' HUP; while true > /dev/tty; do :; done 2>/dev/null; detach -P sleep 60 > \"$1\"";
    sandbox.script("late", script);
    let pid = sandbox.path("late.pid");
    terminal.type_line(&format!("sh ./late {}", pid.display()));
    eventually(|| {
        sandbox.processes().iter().any(|process| process.runs("sh ./late") && process.signals("SigIgn").contains(&1))
    });
    terminal.hang_up();
    let job = crate::support::process_named_in(&pid);
    job.wait_for_exec("sleep");
    let descriptors = job.descriptors();
    assert_eq!(descriptors[&0], null());
    assert!(descriptors[&2].starts_with(sandbox.state()), "{descriptors:?}");
}
