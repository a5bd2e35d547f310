//! The state in which a command starts: the same wherever detach was called, and the caller's where it should be.
//!
//! Sessions, signals, descriptors, directory, umask, arguments and environment, read from /proc. Where the streams go
//! is in `streams`, what survives in `survival` and `remote`.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::signal::Signal;

use crate::support::{
    DETACH, Process, Run, Sandbox, Terminal, await_result, bytes, eventually, is_installed, process_named_in, sleeper,
};

const NULL: &str = "/dev/null";

#[test]
fn job_leads_a_session_without_a_terminal() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    let control = terminal.background(&sandbox, "sleep 60");
    let job = terminal.detach(&sandbox, "sleep 60");
    assert_eq!((job.group(), job.session()), (job.pid.as_raw(), job.pid.as_raw()));
    assert_eq!(job.terminal(), 0);
    assert_ne!(control.terminal(), 0);
    assert_eq!(control.session(), terminal.shell.pid.as_raw());
}

#[test]
fn no_process_of_detach_stays() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let all: Vec<_> = sandbox.jobs(1).iter().map(|process| process.pid).collect();
    assert_eq!(all, [job.pid]);
    // The test process is a subreaper: it takes the place of init.
    assert_eq!(job.parent(), std::process::id().cast_signed());
}

#[test]
fn job_survives_hangup_of_its_terminal() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_with(&sandbox, &["bash", "--norc", "--noprofile", "-i"]);
    let control = terminal.background(&sandbox, "sleep 60");
    let job = terminal.detach(&sandbox, "sleep 60");
    terminal.hang_up();
    eventually(|| control.is_dead());
    assert!(job.is_alive());
}

/// Runs `$1…` with TERM, USR1 and a real-time signal ignored, signals 32 and 33 ignored, which the C library hides,
/// INT and TERM and the real-time signals blocked, and SIGCHLD ignored.
const DIRTY: &str = r"use POSIX;
my $rt_sigaction = shift;
$SIG{$_} = 'IGNORE' for qw(INT QUIT TERM USR1 PIPE TSTP CHLD NUM40 RTMAX);
my $ignore = pack('Q4', 1, 0, 0, 0);
syscall($rt_sigaction, $_, $ignore, 0, 8) == 0 or die for 32, 33;
my $set = POSIX::SigSet->new(2, 12, 15, 17, 34, 50, 64);
sigprocmask(SIG_BLOCK, $set) or die;
exec @ARGV or die;";

#[test]
fn job_has_clean_signals_wherever_detach_was_called() {
    if !is_installed("perl") {
        return;
    }
    let sandbox = Sandbox::new();
    let number = libc::SYS_rt_sigaction.to_string();
    let run = Run::of(sandbox.command("perl").args(["-e", DIRTY, &number, DETACH, "-P", "sleep", "60"]));
    let job = Process::started(&run.stdout);
    let mut control = sandbox.command("perl").args(["-e", DIRTY, &number, "sleep", "60"]).spawn().unwrap();
    let dirty = Process::new(control.id().cast_signed());
    dirty.wait_for_exec("sleep");
    assert_eq!(dirty.signals("SigIgn"), [2, 3, 10, 13, 15, 17, 20, 32, 33, 40, 64]);
    assert_eq!(dirty.signals("SigBlk"), [2, 12, 15, 17, 34, 50, 64]);
    control.kill().unwrap();
    control.wait().unwrap();

    assert_eq!(job.signals("SigIgn"), [1]);
    assert_eq!(job.signals("SigBlk"), [0; 0]);
    assert_eq!(job.signals("SigCgt"), [0; 0]);
    assert_eq!((job.signals("SigPnd"), job.signals("ShdPnd")), (vec![], vec![]));
}

#[test]
fn job_of_a_background_list_of_a_script_can_be_interrupted() {
    let sandbox = Sandbox::new();
    // POSIX: an asynchronous list of a shell without job control ignores SIGINT and SIGQUIT.
    let run = sandbox.sh("detach -P sleep 60 & wait; sleep 60 > /dev/null 2>&1 & echo $!");
    let pids: Vec<&str> = run.stdout.lines().collect();
    let [job, control] = [Process::started(pids[0]), Process::started(pids[1])];
    control.wait_for_exec("sleep");
    assert_eq!(control.signals("SigIgn")[..2], [2, 3]);
    assert_eq!(job.signals("SigIgn"), [1]);
    job.signal(Signal::SIGINT);
    eventually(|| job.is_dead());
}

#[test]
fn sigchld_is_default_unless_asked() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["--sigchld", "ignore", "sleep", "60"]);
    assert_eq!(job.signals("SigIgn"), [1, 17]);
    let job = sandbox.job(["--sigchld=ignore", "--sigchld", "default", "sleep", "60"]);
    assert_eq!(job.signals("SigIgn"), [1]);
}

#[test]
fn hangup_is_ignored_before_there_is_a_child() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    let script = "strace -f -o trace -e trace=rt_sigaction,clone,clone3,vfork,fork detach -o /dev/null true";
    assert_eq!(sandbox.sh(script).status, 0);
    let trace = fs::read_to_string(sandbox.path("work/trace")).unwrap();
    let ignores = trace.find("rt_sigaction(SIGHUP, {sa_handler=SIG_IGN").expect(&trace);
    let forks = trace.find("CLONE_VFORK").expect(&trace);
    assert!(ignores < forks, "{trace}");
}

#[test]
fn signal_for_the_callers_group_leaves_no_trace_in_the_job() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    for signal in ["INT", "HUP", "TERM", "USR1"] {
        // The signal comes as late as it can come for the whole group: while the child enters setsid.
        let script = "strace -f -o trace -e trace=setsid -e inject=setsid:signal=$0 \
            detach -w grep -E '^(Sig|Shd)(Ign|Pnd|Blk)' /proc/self/status";
        let run = Run::of(sandbox.command("sh").args(["-c", script, signal]));
        assert_eq!(run.status, 0, "{signal}: {run:?}");
        let none = "0000000000000000";
        let expected = format!("SigPnd:\t{none}\nShdPnd:\t{none}\nSigBlk:\t{none}\nSigIgn:\t0000000000000001\n");
        assert_eq!(sandbox.log(), expected, "{signal}");
        fs::remove_file(sandbox.state().join(&sandbox.files(".log")[0])).unwrap();
    }
}

#[test]
fn search_goes_on_behind_what_does_not_run() {
    let sandbox = Sandbox::new();
    sandbox.script("true", "#!/no/such/interpreter\n");
    fs::write(sandbox.path("work/file"), "").unwrap();
    fs::create_dir(sandbox.path("work/directory")).unwrap();
    fs::create_dir(sandbox.path("work/directory/true")).unwrap();
    for path in ["file:/bin:/usr/bin", ":/bin:/usr/bin", "directory:/bin:/usr/bin"] {
        let run = Run::of(sandbox.command(DETACH).env("PATH", path).args(["-w", "true"]));
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{path}");
    }
    // Where PATH is not set, it is that of execvp(3).
    let run = Run::of(sandbox.command(DETACH).env_remove("PATH").args(["-w", "true"]));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    // Where nothing runs, the first that was found is told of.
    let run = Run::of(sandbox.command(DETACH).env("PATH", "directory:").args(["true"]));
    assert_eq!((run.status, run.stderr.as_str()), (126, "detach: cannot run 'true': is a directory\n"));
}

#[test]
fn inherited_descriptors_are_closed() {
    let sandbox = Sandbox::new();
    let run = sandbox.sh("exec 9>lock 7<&0; flock 9; detach -P sleep 60; sleep 60 > /dev/null 2>&1 & echo $!");
    let pids: Vec<&str> = run.stdout.lines().collect();
    let [job, control] = [Process::started(pids[0]), Process::started(pids[1])];
    job.assert_descriptors(&[0, 1, 2]);
    // The control holds the lock, and nobody else.
    assert!(control.descriptors().contains_key(&9));
    assert_eq!(sandbox.sh("flock -n lock true").status, 1);
    control.signal(Signal::SIGKILL);
    eventually(|| sandbox.sh("flock -n lock true").status == 0);
    assert!(job.is_alive());
}

#[test]
fn descriptors_asked_for_stay_open() {
    let sandbox = Sandbox::new();
    for (arguments, expected) in [
        ("--keep-fd 9 sleep 60", &[0, 1, 2, 9][..]),
        ("--keep-fd 9,4 --keep-fd=3 sleep 60", &[0, 1, 2, 3, 4, 9]),
        ("sh -c 'exec sleep 60' /dev/fd/63", &[0, 1, 2, 63]),
        ("--keep-fd 5 sh -c 'exec sleep 60' --in=/proc/self/fd/4", &[0, 1, 2, 4, 5]),
        ("sh -c 'exec sleep 60' /dev/fd/62 /dev/fd/2147483647", &[0, 1, 2]),
    ] {
        let script = format!("exec 3>a 4>b 5>c 9>d 63>e; detach -P {arguments}");
        let run = Run::of(sandbox.command("bash").args(["-c", &script]));
        Process::started(&run.stdout).assert_descriptors(expected);
    }
}

#[test]
fn process_substitution_reaches_the_job() {
    let sandbox = Sandbox::new();
    let run = Run::of(sandbox.command("bash").args(["-c", "detach --wait cat <(echo from a substitution)"]));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert_eq!(sandbox.log(), "from a substitution\n");
}

#[test]
fn descriptors_are_closed_without_close_range() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    // ls needs one descriptor of its own, for the directory that it lists.
    let script = "exec 9>lock 8>other; strace -f -o trace -e trace=close_range \
        -e inject=close_range:error=ENOSYS detach -w --keep-fd 8 ls -1 /proc/self/fd";
    let run = sandbox.sh(script);
    assert_eq!(run.status, 0, "{run:?}");
    assert!(fs::read_to_string(sandbox.path("work/trace")).unwrap().contains("INJECTED"));
    assert_eq!(sandbox.log(), "0\n1\n2\n3\n8\n");
}

#[test]
fn descriptors_are_closed_before_the_exec() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    // detach goes on when the exec has begun: what the exec itself closes may be open a little longer. The trace
    // holds the second exec back, that of the child.
    let script = "exec 9>lock; flock 9; exec strace -f -o /dev/null -e trace=execve \
        -e inject=execve:delay_enter=3600s:when=2+ \"$0\" sleep 60";
    let mut traced = sandbox.command("bash").args(["-c", script, DETACH]).spawn().unwrap();
    let child = await_result(|| {
        let processes = sandbox.processes().into_iter();
        let mut leaders = processes.filter(|process| process.stat(6) == Some(process.pid.to_string()));
        leaders.next().ok_or_else(String::new)
    });
    eventually(|| child.signals("SigBlk").is_empty());
    assert!(!child.descriptors().contains_key(&9), "{:?}", child.descriptors());
    traced.kill().unwrap();
    traced.wait().unwrap();
}

#[test]
fn surroundings_are_those_of_the_caller() {
    let sandbox = Sandbox::new();
    let script = "cd ..; mkdir here; cd here; umask 031; ulimit -n 99; ulimit -c 0; exec nice -n 5 detach -P sleep 60";
    let job = Process::started(&sandbox.sh(script).stdout);
    assert_eq!(fs::read_link(job.file("cwd")).unwrap(), sandbox.path("here"));
    assert_eq!(job.status("Umask"), "0031");
    assert_eq!(job.number(19), 5);
    let limits = fs::read_to_string(job.file("limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("99"));
}

#[test]
fn directory_and_umask_can_be_chosen() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("work/sub")).unwrap();
    for (arguments, directory, umask) in [
        (["-C", "/", "-m", "027"], PathBuf::from("/"), "0027"),
        (["--chdir=sub", "--umask=0", "--sigchld=default", "--"], sandbox.path("work/sub"), "0000"),
    ] {
        let job = sandbox.job(arguments.into_iter().chain(["sleep", "60"]));
        assert_eq!(fs::read_link(job.file("cwd")).unwrap(), directory);
        assert_eq!(job.status("Umask"), umask);
    }
}

#[test]
fn command_and_files_are_found_from_the_callers_directory() {
    let sandbox = Sandbox::new();
    sandbox.script("server", "#!/bin/sh\nread line; echo \"$0 $line\"; pwd\n");
    fs::write(sandbox.path("work/in"), "input\n").unwrap();
    for command in ["./server", "../work/server"] {
        let run = sandbox.detach(["-w", "-C", "/", "-i", "in", "-o", "out", command]);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""));
        let out = fs::read_to_string(sandbox.path("work/out")).unwrap();
        let script = sandbox.path("work").join(command);
        assert_eq!(out, format!("{} input\n/\n", script.display()));
        fs::remove_file(sandbox.path("work/out")).unwrap();
    }
    // PATH may hold relative directories as well.
    let run = Run::of(sandbox.command(DETACH).env("PATH", "nowhere::/bin:/usr/bin").args(["-wC/", "-iin", "server"]));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
}

#[test]
fn name_of_the_command_stays_as_typed() {
    let sandbox = Sandbox::new();
    std::os::unix::fs::symlink(which("sleep"), sandbox.path("work/nap")).unwrap();
    let job = sandbox.job(["-C", "/", "./nap", "60"]);
    assert_eq!(job.words("cmdline"), [&b"./nap"[..], b"60"]);
    let job = sandbox.job(["sleep", "60"]);
    assert_eq!(job.words("cmdline"), [&b"sleep"[..], b"60"]);
}

fn which(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file()).unwrap()
}

#[test]
fn arguments_and_environment_arrive_byte_for_byte() {
    let sandbox = Sandbox::new();
    let words: [&[u8]; 7] = [b"", b"-o", b"--", b"\xff\xfe/\x01", b"a b\n", "naïve".as_bytes(), b"--help"];
    let file = sandbox.path("work/pid");
    let mut command = sandbox.command(DETACH);
    command.args(["sh", "-c", "echo $$ > pid.new; mv pid.new pid; sleep 60; :"]);
    command.args(words.iter().map(|word| bytes(word)));
    command.env(bytes(b"STRANGE\xff"), bytes(b"\xfe=\n")).env("EMPTY", "");
    assert_eq!(Run::of(&mut command).status, 0);
    let job = process_named_in(&file);
    assert_eq!(&job.words("cmdline")[3..], words);
    let expected: BTreeSet<Vec<u8>> = sandbox
        .environment()
        .into_iter()
        .chain([(bytes(b"STRANGE\xff").into(), bytes(b"\xfe=\n").into()), ("EMPTY".into(), OsString::new())])
        .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
        .collect();
    assert_eq!(job.words("environ").into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn options_end_at_the_first_word_that_is_none() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["-w", "-o", "out", "printf", "%s\n", "-P", "--json", "--no-such-option", "--", "-v"][..],
        &["-w", "-o", "out", "--", "printf", "%s\n", "-P", "--json", "--no-such-option", "--", "-v"],
        &["-wo", "out", "printf", "%s\n", "-P", "--json", "--no-such-option", "--", "-v"],
    ] {
        let run = sandbox.detach(arguments);
        assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""));
        let out = fs::read_to_string(sandbox.path("work/out")).unwrap();
        assert_eq!(out, "-P\n--json\n--no-such-option\n--\n-v\n");
        fs::remove_file(sandbox.path("work/out")).unwrap();
    }
}

#[test]
fn script_without_interpreter_line_runs_through_sh() {
    let sandbox = Sandbox::new();
    sandbox.script("plain", "echo \"$0 $*\"\n");
    let run = sandbox.detach(["-w", "./plain", "a", "-b"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert_eq!(sandbox.log(), "./plain a -b\n");
}

#[test]
fn closed_standard_streams_do_no_harm() {
    let sandbox = Sandbox::new();
    for (number, script) in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"].into_iter().enumerate() {
        let pid = sandbox.path(&format!("pid{number}"));
        let inner = sleeper(&pid);
        let run = Run::of(sandbox.command("sh").args(["-c", &format!("exec detach sh -c '{inner}' {script}")]));
        assert_eq!(run.status, 0, "{script}: {run:?}");
        let job = process_named_in(&pid);
        job.wait_for_exec("sleep");
        let descriptors = job.assert_descriptors(&[0, 1, 2]);
        // Whatever was closed leads nowhere, and not to a file that was opened later.
        if script == "<&- >&- 2>&-" {
            assert!(descriptors.values().all(|path| path == Path::new(NULL)), "{descriptors:?}");
        }
    }
}

#[test]
fn start_without_any_terminal_works() {
    let sandbox = Sandbox::new();
    let run = Run::of(sandbox.command("setsid").args(["--wait", DETACH, "-P", "sleep", "60"]));
    let job = Process::started(&run.stdout);
    assert_eq!((job.session(), job.terminal()), (job.pid.as_raw(), 0));
}

#[test]
fn jobs_of_the_shell_are_empty_afterwards() {
    for shell in [&["bash", "--norc", "--noprofile", "-i"][..], &["zsh", "-f", "-i"], &["fish", "--no-config", "-i"]] {
        if !is_installed(shell[0]) {
            continue;
        }
        let sandbox = Sandbox::new();
        let mut terminal = Terminal::open_with(&sandbox, shell);
        let job = terminal.detach(&sandbox, "sleep 60");
        let file = sandbox.path("work/jobs");
        let seen = |file: &Path| {
            let text = fs::read_to_string(file).unwrap_or_default();
            if text.ends_with("seen\n") { Ok(text) } else { Err(text) }
        };
        // fish says on stdout that there are none.
        let listed = terminal.type_until("jobs > jobs; echo seen >> jobs", || seen(&file));
        let listed = listed.replace("jobs: There are no jobs\n", "");
        assert_eq!(listed, "seen\n", "{shell:?}");
        assert!(job.is_alive());

        let file = sandbox.path("work/control");
        let listed = terminal.type_until("sleep 60 & jobs > control; echo seen >> control", || seen(&file));
        assert!(listed.contains("sleep"), "the control of {shell:?}");
    }
}

#[test]
fn two_hundred_starts_at_once_lose_nothing() {
    let sandbox = Sandbox::new();
    let starts: Vec<_> = (0..200)
        .map(|number| {
            let number = format!("{number}");
            let mut command = sandbox.command(DETACH);
            command.args(["-P", "sh", "-c", "echo output of $0; exec sleep 600", &number]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            (number, command.spawn().unwrap())
        })
        .collect();
    let mut expected = BTreeSet::new();
    for (number, start) in starts {
        let run = Run::from(start.wait_with_output().unwrap());
        assert_eq!((run.status, run.stderr.as_str()), (0, ""));
        expected.insert((run.stdout.trim().parse::<i64>().unwrap(), number));
    }
    let records = sandbox.records();
    let recorded: BTreeSet<_> = records
        .iter()
        .map(|record| (record["pid"].as_i64().unwrap(), record["argv"][3].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(recorded, expected);
    for record in &records {
        let log = record["stdout"]["log"].as_str().unwrap();
        let expected = format!("output of {}\n", record["argv"][3].as_str().unwrap());
        eventually(|| fs::read_to_string(log).unwrap() == expected);
    }
    sandbox.jobs(200);
    assert_eq!(sandbox.files("").len(), 400);
}

/// Most start times come from the clock, the others from /proc: both must be what /proc tells.
#[test]
fn start_time_in_a_record_is_that_of_the_process() {
    let sandbox = Sandbox::new();
    let mut starts = vec![vec![]; 100];
    starts.extend([vec!["--full"], vec!["-t"], vec!["-t", "--full"]].into_iter().cycle().take(30));
    for options in starts {
        let run = sandbox.detach(options.into_iter().chain(["--json", "-o", "/dev/null", "sleep", "60"]));
        let record: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        for (name, identity) in [("the job", &record), ("its tracker", &record["tracker"])] {
            if let Some(pid) = identity["pid"].as_i64() {
                let start_time = Process::new(pid.try_into().unwrap()).stat(22);
                assert_eq!(start_time, Some(identity["start_time"].to_string()), "{name}: {run:?}");
            }
        }
    }
}

/// Whatever else a start did, every start would pay for: it reads no directory, asks for no locale, and looks at
/// nothing in /proc but where it is.
#[test]
fn start_opens_what_it_needs() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    // The first start makes the directory.
    sandbox.detach(["true"]);
    let calls = "open,openat,readlink,readlinkat,getdents64,clone,clone3,fork,vfork,execve";
    let run = sandbox.sh(&format!("strace -f -b execve -o ../trace -e trace={calls} detach -o /dev/null sleep 60"));
    assert_eq!(run.status, 0, "{run:?}");
    let job = sandbox.jobs(1).remove(0);
    let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
    // Up to the exec of the command; what sleep does itself comes after it.
    let begin = trace.lines().take_while(|line| !line.contains("execve(") || !line.contains("[\"sleep\""));
    let calls = begin.skip(1).filter_map(|line| call_with_path(line, job.pid.as_raw()));
    // Asked where a tick of the clock has come between, as strace makes likely.
    let calls: Vec<String> = calls.filter(|call| call != "openat /proc/self/stat").collect();
    let state = sandbox.state().display().to_string();
    let expected = [
        // The C library, for the libraries that a static program may load later.
        "readlink /proc/self/exe",
        "openat /dev/null",
        &format!("openat {state}"),
        "clone",
        "openat /proc/sys/kernel/random/boot_id",
        "readlink /proc/self/ns/pid",
        "openat PID-START-BOOT.tmp",
    ];
    assert_eq!(calls, expected, "{trace}");
}

/// A line of strace as the call and the path in it, if it is one.
fn call_with_path(line: &str, pid: i32) -> Option<String> {
    let (_, call) = line.split_once(' ')?;
    let (name, arguments) = call.trim_start().split_once('(')?;
    // Which of the two, depends on the architecture.
    let name = if name == "readlinkat" { "readlink" } else { name };
    let path = arguments.split('"').nth(1).filter(|_| name != "clone");
    let is_draft = |path: &&str| path.starts_with(&format!("{pid}-")) && Path::new(path).extension().is_some();
    match path {
        Some(path) if is_draft(&path) => Some(format!("{name} PID-START-BOOT.tmp")),
        Some(path) => Some(format!("{name} {path}")),
        None => name.bytes().all(|byte| byte.is_ascii_alphanumeric()).then(|| name.to_owned()),
    }
}

#[test]
fn ordinary_user_and_root_get_the_same() {
    let sandbox = Sandbox::new();
    let program = sandbox.path("detach");
    assert_eq!(Run::of(sandbox.command("cp").args([DETACH.as_ref(), program.as_os_str()])).status, 0);
    let mut users = vec![Vec::new()];
    if crate::support::is_root() && is_installed("setpriv") {
        users.push(vec!["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    for user in users {
        let home = sandbox.path(&format!("home{}", user.len()));
        fs::create_dir(&home).unwrap();
        if !user.is_empty() {
            std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
        }
        let words = user.iter().map(OsStr::new).chain([program.as_os_str(), "-P".as_ref()]);
        let mut words = words.chain(["sleep".as_ref(), "60".as_ref()]);
        let run = Run::of(sandbox.command(words.next().unwrap()).args(words).env("HOME", &home));
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{user:?}");
        let job = Process::started(&run.stdout);
        assert_eq!((job.session(), job.terminal(), job.signals("SigIgn")), (job.pid.as_raw(), 0, vec![1]));
        job.assert_descriptors(&[0, 1, 2]);
        assert_eq!(fs::read_dir(home.join(".local/state/detach")).unwrap().count(), 2);
    }
}

#[test]
fn name_of_a_file_need_not_be_utf8() {
    let sandbox = Sandbox::new();
    let name = OsString::from_vec(b"out\xff".to_vec());
    let run = sandbox.detach(["-w".as_ref(), "-o".as_ref(), name.as_os_str(), "echo".as_ref(), "hi".as_ref()]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(sandbox.path("work").join(name)).unwrap(), "hi\n");
}
