//! The state in which a command starts: the same wherever detach was called, and that of the caller where it should be.
//!
//! Sessions, signals, descriptors, directory, umask, arguments and environment, read from /proc. Where the streams lead
//! is tested in `streams`, what survives in `survival` and `remote`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::libc;
use nix::sys::signal::Signal;

use crate::support::{
    DETACH, Process, Run, Sandbox, Terminal, await_result, bytes, eventually, process_named_in, sleeper, storage,
};

const NULL: &str = "/dev/null";

#[test]
fn job_leads_a_session_without_a_terminal() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open(&sandbox);
    let control = terminal.background("sleep 60");
    let job = terminal.detach("sleep 60");
    assert_eq!((job.group(), job.session()), (job.pid.as_raw(), job.pid.as_raw()));
    assert_eq!(job.terminal(), 0);
    assert_ne!(control.terminal(), 0);
    assert_eq!(control.session(), terminal.shell.pid.as_raw());
}

#[test]
fn no_process_of_detach_stays() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    assert_eq!(sandbox.only_job().pid, job.pid);
    // The test process is a subreaper: it takes the place of init.
    assert_eq!(job.parent(), std::process::id().cast_signed());
}

#[test]
fn job_survives_hangup_of_its_terminal() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_bash(&sandbox);
    let control = terminal.background("sleep 60");
    let job = terminal.detach("sleep 60");
    terminal.hang_up();
    eventually(|| control.is_dead());
    assert!(job.is_alive());
}

/// Runs `$1…` with signals ignored and blocked: ordinary ones, real-time signals, and 32 and 33, which the C library
/// hides.
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
    requires!(perl);
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
fn sigchld_option_sets_the_disposition() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["--sigchld", "ignore", "sleep", "60"]);
    assert_eq!(job.signals("SigIgn"), [1, 17]);
    let job = sandbox.job(["--sigchld=ignore", "--sigchld", "default", "sleep", "60"]);
    assert_eq!(job.signals("SigIgn"), [1]);
}

#[test]
fn hangup_is_ignored_before_the_child_exists() {
    requires!(strace);
    let sandbox = Sandbox::new();
    let script = "strace -f -o trace -e trace=rt_sigaction,clone,clone3,vfork,fork detach -o /dev/null true";
    sandbox.sh(script).succeeds();
    let trace = sandbox.read("trace");
    let ignores = trace.find("rt_sigaction(SIGHUP, {sa_handler=SIG_IGN").expect(&trace);
    let forks = trace.find("CLONE_VFORK").expect(&trace);
    assert!(ignores < forks, "{trace}");
}

#[test]
fn signal_to_the_group_of_the_caller_does_not_reach_the_job() {
    requires!(strace);
    let sandbox = Sandbox::new();
    for signal in ["INT", "HUP", "TERM", "USR1"] {
        // The signal comes as late as it can reach the child with its group: when the child enters setsid.
        let script = "strace -f -o trace -e trace=setsid -e inject=setsid:signal=$0 \
            detach -w grep -E '^(Sig|Shd)(Ign|Pnd|Blk)' /proc/self/status";
        Run::of(sandbox.command("sh").args(["-c", script, signal])).exits(0);
        let none = "0000000000000000";
        let expected = format!("SigPnd:\t{none}\nShdPnd:\t{none}\nSigBlk:\t{none}\nSigIgn:\t0000000000000001\n");
        assert_eq!(sandbox.log(), expected, "{signal}");
        fs::remove_file(sandbox.log_file()).unwrap();
    }
}

#[test]
fn search_of_path_continues_after_what_does_not_run() {
    let sandbox = Sandbox::new();
    sandbox.script("true", "#!/no/such/interpreter\n");
    sandbox.write("file", "");
    fs::create_dir(sandbox.work("directory")).unwrap();
    fs::create_dir(sandbox.work("directory/true")).unwrap();
    for path in ["file:/bin:/usr/bin", ":/bin:/usr/bin", "directory:/bin:/usr/bin"] {
        Run::of(sandbox.command(DETACH).env("PATH", path).args(["-w", "true"])).succeeds();
    }
}

#[test]
fn search_without_path_uses_that_of_execvp() {
    let sandbox = Sandbox::new();
    Run::of(sandbox.command(DETACH).env_remove("PATH").args(["-w", "true"])).succeeds_silently();
}

#[test]
fn search_that_finds_nothing_to_run_reports_the_first_match() {
    let sandbox = Sandbox::new();
    sandbox.script("true", "#!/no/such/interpreter\n");
    fs::create_dir_all(sandbox.work("directory/true")).unwrap();
    let mut command = sandbox.command(DETACH);
    Run::of(command.env("PATH", "directory:").arg("true")).fails(126, "detach: cannot run 'true': is a directory");
}

#[test]
fn inherited_descriptors_are_closed() {
    let sandbox = Sandbox::new();
    let run = sandbox.sh("exec 9>lock 7<&0; flock 9; detach -P sleep 60; sleep 60 > /dev/null 2>&1 & echo $!");
    let pids: Vec<&str> = run.stdout.lines().collect();
    let [job, control] = [Process::started(pids[0]), Process::started(pids[1])];
    job.assert_descriptors(&[0, 1, 2]);
    // The control alone holds the lock.
    assert!(control.descriptors().contains_key(&9));
    sandbox.sh("flock -n lock true").exits(1);
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
        Process::started(&sandbox.bash(&script).succeeds()).assert_descriptors(expected);
    }
}

#[test]
fn process_substitution_reaches_the_job() {
    let sandbox = Sandbox::new();
    sandbox.bash("detach --wait cat <(echo from a substitution)").succeeds();
    assert_eq!(sandbox.log(), "from a substitution\n");
}

#[test]
fn descriptors_are_closed_without_close_range() {
    requires!(strace);
    let sandbox = Sandbox::new();
    // ls has one descriptor of its own open, that of the directory it lists.
    let script = "exec 9>lock 8>other; strace -f -o trace -e trace=close_range \
        -e inject=close_range:error=ENOSYS detach -w --keep-fd 8 ls -1 /proc/self/fd";
    sandbox.sh(script).exits(0);
    assert!(sandbox.read("trace").contains("INJECTED"));
    assert_eq!(sandbox.log(), "0\n1\n2\n3\n8\n");
}

#[test]
fn descriptors_are_closed_before_the_exec() {
    requires!(strace);
    let sandbox = Sandbox::new();
    // detach continues when the exec begins, so descriptors that the exec itself closes may stay open a little longer.
    // strace holds back the second exec, that of the child.
    let script = "exec 9>lock; flock 9; exec strace -f -o /dev/null -e trace=execve \
        -e inject=execve:delay_enter=3600s:when=2+ \"$0\" sleep 60";
    let mut traced = sandbox.command("bash").args(["-c", script, DETACH]).spawn().unwrap();
    let child = await_result(|| {
        let processes = sandbox.processes().into_iter();
        let mut leaders = processes.filter(Process::leads_session);
        leaders.next().ok_or_else(String::new)
    });
    eventually(|| child.signals("SigBlk").is_empty());
    assert!(!child.descriptors().contains_key(&9), "{:?}", child.descriptors());
    traced.kill().unwrap();
    traced.wait().unwrap();
}

#[test]
fn directory_umask_niceness_and_limits_are_kept() {
    let sandbox = Sandbox::new();
    let script = "cd ..; mkdir here; cd here; umask 031; ulimit -n 99; ulimit -c 0; exec nice -n 5 detach -P sleep 60";
    let job = Process::started(&sandbox.sh(script).succeeds());
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
    fs::create_dir(sandbox.work("sub")).unwrap();
    for (arguments, directory, umask) in [
        (["-C", "/", "-m", "027"], PathBuf::from("/"), "0027"),
        (["--chdir=sub", "--umask=0", "--sigchld=default", "--"], sandbox.work("sub"), "0000"),
    ] {
        let job = sandbox.job(arguments.into_iter().chain(["sleep", "60"]));
        assert_eq!(fs::read_link(job.file("cwd")).unwrap(), directory);
        assert_eq!(job.status("Umask"), umask);
    }
}

#[test]
fn paths_are_relative_to_the_directory_of_the_caller() {
    let sandbox = Sandbox::new();
    sandbox.script("server", "#!/bin/sh\nread line; echo \"$0 $line\"; pwd\n");
    sandbox.write("in", "input\n");
    for command in ["./server", "../work/server"] {
        sandbox.detach(["-w", "-C", "/", "-i", "in", "-o", "out", command]).succeeds();
        let out = sandbox.read("out");
        let script = sandbox.work(command);
        assert_eq!(out, format!("{} input\n/\n", script.display()));
        fs::remove_file(sandbox.work("out")).unwrap();
    }
    // PATH may hold relative directories as well.
    Run::of(sandbox.command(DETACH).env("PATH", "nowhere::/bin:/usr/bin").args(["-wC/", "-iin", "server"])).succeeds();
}

#[test]
fn command_sees_its_name_as_it_was_typed() {
    let sandbox = Sandbox::new();
    symlink(which("sleep"), sandbox.work("nap")).unwrap();
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
    let file = sandbox.work("pid");
    let mut command = sandbox.command(DETACH);
    command.args(["sh", "-c", "echo $$ > pid.new; mv pid.new pid; sleep 60; :"]);
    command.args(words.iter().map(|word| bytes(word)));
    command.env(bytes(b"STRANGE\xff"), bytes(b"\xfe=\n")).env("EMPTY", "");
    Run::of(&mut command).succeeds();
    let job = process_named_in(&file);
    assert_eq!(&job.words("cmdline")[3..], words);
    let expected: BTreeSet<Vec<u8>> = sandbox
        .environment()
        .into_iter()
        .chain([(bytes(b"STRANGE\xff").into(), bytes(b"\xfe=\n").into()), ("EMPTY".into(), OsString::new())])
        .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
        .chain([format!("DETACH_JOB={}-{}", job.pid, job.stat(22).unwrap()).into_bytes()])
        .collect();
    assert_eq!(job.words("environ").into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn options_end_at_the_command() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["-w", "-o", "out", "printf", "%s\n", "-P", "--json", "--no-such-option", "--", "-v"][..],
        &["-w", "-o", "out", "--", "printf", "%s\n", "-P", "--json", "--no-such-option", "--", "-v"],
        &["-wo", "out", "printf", "%s\n", "-P", "--json", "--no-such-option", "--", "-v"],
    ] {
        sandbox.detach(arguments).succeeds_silently();
        let out = sandbox.read("out");
        assert_eq!(out, "-P\n--json\n--no-such-option\n--\n-v\n");
        fs::remove_file(sandbox.work("out")).unwrap();
    }
}

#[test]
fn script_without_interpreter_line_runs_through_sh() {
    let sandbox = Sandbox::new();
    sandbox.script("plain", "echo \"$0 $*\"\n");
    sandbox.detach(["-w", "./plain", "a", "-b"]).succeeds();
    assert_eq!(sandbox.log(), "./plain a -b\n");
}

#[test]
fn closed_standard_streams_do_no_harm() {
    let sandbox = Sandbox::new();
    for (number, script) in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"].into_iter().enumerate() {
        let pid = sandbox.path(&format!("pid{number}"));
        let inner = sleeper(&pid);
        let run = sandbox.sh(&format!("exec detach sh -c '{inner}' {script}"));
        assert_eq!(run.status, 0, "{script}: {run:?}");
        let job = process_named_in(&pid);
        job.wait_for_exec("sleep");
        let descriptors = job.assert_descriptors(&[0, 1, 2]);
        // A closed descriptor becomes /dev/null, and never a file that is opened later.
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

/// Starts a job in this shell. It must not be in the shell's job table, unlike a program started with `&`.
fn assert_not_in_job_table(shell: &[&str]) {
    requires!((shell[0]));
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open_with(&sandbox, shell);
    let job = terminal.detach("sleep 60");
    let seen = |file: &Path| {
        let text = fs::read_to_string(file).unwrap_or_default();
        if text.ends_with("seen\n") { Ok(text) } else { Err(text) }
    };
    let file = sandbox.work("jobs");
    let listed = terminal.type_until("jobs > jobs; echo seen >> jobs", || seen(&file));
    // fish prints on stdout that there are none.
    assert_eq!(listed.replace("jobs: There are no jobs\n", ""), "seen\n");
    assert!(job.is_alive());

    let file = sandbox.work("control");
    let listed = terminal.type_until("sleep 60 & jobs > control; echo seen >> control", || seen(&file));
    assert!(listed.contains("sleep"), "the control: {listed:?}");
}

#[test]
fn job_is_not_in_the_job_table_of_bash() {
    assert_not_in_job_table(&["bash", "--norc", "--noprofile", "-i"]);
}

#[test]
fn job_is_not_in_the_job_table_of_zsh() {
    assert_not_in_job_table(&["zsh", "-f", "-i"]);
}

#[test]
fn job_is_not_in_the_job_table_of_fish() {
    assert_not_in_job_table(&["fish", "--no-config", "-i"]);
}

#[test]
fn two_hundred_starts_at_once_lose_nothing() {
    let sandbox = Sandbox::new();
    let starts: Vec<_> = (0..200)
        .map(|number| {
            let number = format!("{number}");
            let mut command = sandbox.command(DETACH);
            command.args(["-P", "sh", "-c", "echo output of $0; exec sleep 600", &number]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            (number, command.spawn().unwrap())
        })
        .collect();
    let mut expected = BTreeSet::new();
    for (number, start) in starts {
        let stdout = Run::from(start.wait_with_output().unwrap()).succeeds();
        expected.insert((stdout.trim().parse::<i64>().unwrap(), number));
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
    assert_eq!(sandbox.logs().len(), 200);
}

/// Most start times are computed from the clock, the others read from /proc. Both must be what /proc has.
#[test]
fn start_time_in_a_record_is_that_of_the_process() {
    let sandbox = Sandbox::new();
    let mut starts = vec![vec![]; 100];
    starts.extend([vec!["--full"], vec!["-t"], vec!["-t", "--full"]].into_iter().cycle().take(30));
    for options in starts {
        let run = sandbox.detach(options.into_iter().chain(["--json", "-o", "/dev/null", "sleep", "60"]));
        let record: serde_json::Value = serde_json::from_str(&run.succeeds()).unwrap();
        for (name, identity) in [("the job", &record), ("its tracker", &record["tracker"])] {
            if let Some(pid) = identity["pid"].as_i64() {
                let start_time = Process::new(pid.try_into().unwrap()).stat(22);
                assert_eq!(start_time, Some(identity["start_time"].to_string()), "{name}: {record}");
            }
        }
    }
}

/// Every start pays for each file it opens: none but these, no locale, and no directory is read.
#[test]
fn start_opens_only_what_it_needs() {
    requires!(strace);
    let sandbox = Sandbox::new();
    // The first start makes the directory.
    sandbox.detach(["true"]);
    let calls = "open,openat,readlink,readlinkat,getdents64,clone,clone3,fork,vfork,execve";
    sandbox.sh(&format!("strace -f -b execve -o ../trace -e trace={calls} detach -o /dev/null sleep 60")).exits(0);
    let job = sandbox.only_job();
    let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
    // Up to the exec of the command.
    let begin = trace.lines().take_while(|line| !line.contains("execve(") || !line.contains("[\"sleep\""));
    let calls = begin.skip(1).filter_map(call_with_path);
    // Read only after a tick of the clock, which strace makes likely.
    let calls: Vec<String> = calls.filter(|call| call != "openat /proc/self/stat").collect();
    let state = sandbox.state().display().to_string();
    let expected = [
        // Read by the C library, for libraries that a static program may load later.
        "readlink /proc/self/exe",
        "openat /dev/null",
        &format!("openat {state}"),
        "openat /proc/sys/kernel/random/boot_id",
        &format!("openat {}", storage::record_file_of(&job)),
        "readlink /proc/self/ns/pid",
        "readlink /proc/self/ns/time",
        "clone",
    ];
    assert_eq!(calls, expected, "{trace}");
}

/// The system call and the path in a line of strace, if it has one.
fn call_with_path(line: &str) -> Option<String> {
    let (_, call) = line.split_once(' ')?;
    let (name, arguments) = call.trim_start().split_once('(')?;
    // Which of the two is called depends on the architecture.
    let name = if name == "readlinkat" { "readlink" } else { name };
    match arguments.split('"').nth(1).filter(|_| name != "clone") {
        Some(path) => Some(format!("{name} {path}")),
        None => name.bytes().all(|byte| byte.is_ascii_alphanumeric()).then(|| name.to_owned()),
    }
}

#[test]
fn job_of_another_user_starts_in_the_same_state() {
    requires!(root, setpriv);
    let sandbox = Sandbox::new();
    let home = sandbox.path("other");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(65534), Some(65534)).unwrap();
    let mut command = sandbox.command_as(65534, sandbox.copy_of_detach());
    let job = Process::started(&Run::of(command.args(["-P", "sleep", "60"]).env("HOME", &home)).succeeds());
    assert_eq!((job.session(), job.terminal(), job.signals("SigIgn")), (job.pid.as_raw(), 0, vec![1]));
    job.assert_descriptors(&[0, 1, 2]);
    assert_eq!(fs::read_dir(home.join(".local/state/detach")).unwrap().count(), 2);
}

#[test]
fn name_of_a_file_need_not_be_utf8() {
    let sandbox = Sandbox::new();
    let name = OsString::from_vec(b"out\xff".to_vec());
    sandbox.detach(["-w".as_ref(), "-o".as_ref(), name.as_os_str(), "echo".as_ref(), "hi".as_ref()]).succeeds();
    assert_eq!(fs::read_to_string(sandbox.work(name)).unwrap(), "hi\n");
}
