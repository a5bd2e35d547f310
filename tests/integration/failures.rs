//! What goes wrong, to the letter: the sentence, the exit status, and nothing left behind.
//!
//! Commands that cannot be run, directories and files that cannot be used, limits, full disks, wrong usage, messages
//! that cannot be written, and processes killed in between.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use nix::libc;

use crate::support::{DETACH, Run, Sandbox, eventually, is_installed, is_root};

/// Runs detach, which must fail with this status and this stderr, say nothing on stdout, and leave nothing behind.
#[track_caller]
fn assert_fails<S: AsRef<OsStr>>(sandbox: &Sandbox, args: impl IntoIterator<Item = S>, status: i32, stderr: &str) {
    assert_command_fails(sandbox, sandbox.command(DETACH).args(args), status, stderr);
}

#[track_caller]
fn assert_command_fails(sandbox: &Sandbox, command: &mut Command, status: i32, stderr: &str) {
    let run = Run::of(command);
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (status, "", stderr));
    sandbox.assert_nothing_left();
}

/// Runs `$1…` and says whether it leaves a child, a zombie included, to whoever is its reaper then. 36 is
/// PR_SET_CHILD_SUBREAPER, see prctl(2).
const REAPER: &str = r"use POSIX ':sys_wait_h';
my $prctl = shift;
syscall($prctl, 36, 1, 0, 0, 0) == 0 or die;
system @ARGV;
print waitpid(-1, WNOHANG) == -1 ? 'none' : 'some';";

#[test]
fn failed_start_leaves_no_zombie() {
    let sandbox = Sandbox::new();
    let left = |args: &[&str]| {
        let mut command = sandbox.command("perl");
        Run::of(command.args(["-e", REAPER, &libc::SYS_prctl.to_string()]).args(args)).stdout
    };
    assert_eq!(left(&["sh", "-c", "sleep 0 & exec true"]), "some", "the control");
    for args in [&["./missing"][..], &["-C", "missing", "true"], &["-o", "/dev/null", "/"], &["-w", "true"]] {
        assert_eq!(left(&[&[DETACH], args].concat()), "none", "{args:?}");
    }
}

#[test]
fn command_that_does_not_exist_is_127() {
    let sandbox = Sandbox::new();
    for (command, stderr) in [
        (
            "no-such-command",
            "detach: cannot run 'no-such-command': not found in PATH\n\
             detach: hint: if it is an alias, first type: alias detach='detach '\n",
        ),
        ("./nothing", "detach: cannot run './nothing': no such file or directory\n"),
        ("/no/such/file", "detach: cannot run '/no/such/file': no such file or directory\n"),
        ("/opt/My App/run.sh", "detach: cannot run '/opt/My App/run.sh': no such file or directory\n"),
        ("", "detach: cannot run '': not found in PATH\n"),
        (
            "cd",
            "detach: cannot run 'cd': not found in PATH\n\
             detach: hint: a shell can run it: detach sh -c 'cd …'\n",
        ),
        (
            "sleep 5; echo it's over",
            "detach: cannot run 'sleep 5; echo it\\'s over': not found in PATH\n\
             detach: hint: a shell can run it: detach sh -c 'sleep 5; echo it'\\''s over'\n",
        ),
        (
            "LANG=C",
            "detach: cannot run 'LANG=C': not found in PATH\n\
             detach: hint: to set a variable for the command: detach env NAME=VALUE COMMAND\n",
        ),
    ] {
        assert_fails(&sandbox, [command], 127, stderr);
    }
    let strange = OsStr::from_bytes(b"./\x1b[31m\n\xff");
    assert_fails(&sandbox, [strange], 127, "detach: cannot run './\\e[31m\\n\\xff': no such file or directory\n");
}

#[test]
fn file_that_cannot_be_executed_is_126() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("work/plain"), "text").unwrap();
    fs::create_dir(sandbox.path("work/directory")).unwrap();
    for (command, stderr) in [
        ("./plain", "detach: cannot run './plain': permission denied\n"),
        ("./directory", "detach: cannot run './directory': is a directory\n"),
        ("./plain/inside", "detach: cannot run './plain/inside': not a directory\n"),
        ("/", "detach: cannot run '/': is a directory\n"),
        ("../..", "detach: cannot run '../..': is a directory\n"),
    ] {
        assert_fails(&sandbox, [command], 126, stderr);
    }
    // Found in PATH, not executable, and nothing behind it in PATH.
    let mut command = sandbox.command(DETACH);
    let stderr = "detach: cannot run 'plain': './plain': permission denied\n";
    assert_command_fails(&sandbox, command.env("PATH", ":/nowhere").arg("plain"), 126, stderr);
    // A directory of PATH that may not be searched is no place where it was found.
    if is_root() && is_installed("setpriv") {
        fs::create_dir(sandbox.path("closed")).unwrap();
        fs::set_permissions(sandbox.path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
        let program = sandbox.path("detach");
        assert_eq!(Run::of(sandbox.command("cp").args([DETACH.as_ref(), program.as_os_str()])).status, 0);
        let mut command = sandbox.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "env"]);
        command.arg(format!("PATH={}", sandbox.path("closed").display())).arg(&program);
        let stderr = "detach: cannot run 'no': not found in PATH\n\
                      detach: hint: if it is an alias, first type: alias detach='detach '\n";
        assert_command_fails(&sandbox, command.args(["-o", "/dev/null", "no"]), 127, stderr);
    }
    // With something behind it.
    fs::write(sandbox.path("work/true"), "text").unwrap();
    let run = Run::of(sandbox.command(DETACH).env("PATH", ":/bin:/usr/bin").args(["-w", "true"]));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
}

#[test]
fn bad_interpreter_is_127_and_named() {
    let sandbox = Sandbox::new();
    sandbox.script("script", "#! /no/such/interpreter -x\n");
    sandbox.script("dos", "#!/bin/sh\r\nexit\r\n");
    sandbox.script("refused", "#!/etc/passwd\n");
    let chained = sandbox.script("chained", &format!("#!{}\n", sandbox.path("work/script").display()));
    let stderr =
        format!("detach: cannot run '{}': its interpreter '/no/such/interpreter' does not exist\n", chained.display());
    assert_fails(&sandbox, [&chained], 127, &stderr);
    let script = "detach: cannot run './script': its interpreter '/no/such/interpreter' does not exist\n";
    assert_fails(&sandbox, ["./script"], 127, script);
    let dos = "detach: cannot run './dos': its interpreter '/bin/sh\\r' does not exist\n";
    assert_fails(&sandbox, ["./dos"], 127, dos);
    let refused = "detach: cannot run './refused': its interpreter '/etc/passwd': permission denied\n";
    assert_fails(&sandbox, ["./refused"], 126, refused);
}

#[test]
fn too_long_a_command_line_is_126() {
    let sandbox = Sandbox::new();
    // The interpreter and its argument are more than what was left for detach itself. How much that is depends on
    // the environment: look for the most with which detach can still be run.
    sandbox.script("long", &format!("#!/bin/sh -{}\n", "e".repeat(200)));
    let run = |size: usize| {
        let mut command = sandbox.command("sh");
        // The kernel takes a quarter of the stack's limit; one argument is never longer than 128 KiB.
        let script = "ulimit -s 1024; exec detach ./long \"$@\"";
        let words = (0..size / 1000).map(|_| "x".repeat(1000 - 1 - 8)).chain([("y").repeat(size % 1000)]);
        Run::of(command.args(["-c", script, "sh"]).args(words))
    };
    let (mut possible, mut impossible) = (100_000, 300_000);
    while impossible - possible > 1 {
        let middle = usize::midpoint(possible, impossible);
        // 126 of sh, which could not run detach, or of detach, which could not run the script.
        if run(middle).stderr.starts_with("sh:") { impossible = middle } else { possible = middle }
    }
    let run = run(possible);
    let stderr = "detach: cannot run './long': argument list too long\n";
    assert_eq!((run.status, run.stderr.as_str()), (126, stderr));
    assert!(sandbox.files(".log").len() == sandbox.files(".json").len());
}

#[test]
fn directory_that_cannot_be_entered_is_125() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("work/file"), "").unwrap();
    let missing = "detach: cannot change directory to 'missing': no such file or directory\n";
    assert_fails(&sandbox, ["-C", "missing", "sleep", "60"], 125, missing);
    let empty = "detach: cannot change directory to '': no such file or directory\n";
    assert_fails(&sandbox, ["-C", "", "sleep", "60"], 125, empty);
    let file = "detach: cannot change directory to 'file': not a directory\n";
    assert_fails(&sandbox, ["-C", "file", "sleep", "60"], 125, file);
}

#[test]
fn file_for_a_stream_that_cannot_be_opened_is_125() {
    let sandbox = Sandbox::new();
    for (args, stderr) in [
        (["-o", "no/out"], "detach: cannot write output to 'no/out': no such file or directory\n"),
        (["-e", "/"], "detach: cannot write output to '/': is a directory\n"),
        (["-i", "missing"], "detach: cannot read input from 'missing': no such file or directory\n"),
        (["-i", "/"], "detach: cannot read input from '/': is a directory\n"),
        (["--keep-fd", "77"], "detach: cannot keep descriptor 77: it is not open\n"),
    ] {
        assert_fails(&sandbox, args.into_iter().chain(["sleep", "60"]), 125, stderr);
    }
}

#[test]
fn file_that_the_user_named_stays_after_a_start_that_fails() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("work/old"), "old\n").unwrap();
    let missing = "detach: cannot run './missing': no such file or directory\n";
    // As with a shell's redirection: another job may have opened it meanwhile, and would write into nothing.
    assert_fails(&sandbox, ["-o", "old", "-e", "new", "./missing"], 127, missing);
    assert_eq!(fs::read_to_string(sandbox.path("work/old")).unwrap(), "old\n");
    assert_eq!(fs::read_to_string(sandbox.path("work/new")).unwrap(), "");
}

#[test]
fn missing_home_matters_only_for_a_log() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(DETACH);
    let stderr = "detach: cannot find a place for logs and records: HOME is not set to an absolute path\n\
                  detach: hint: set HOME or XDG_STATE_HOME, or name a file: detach -o FILE COMMAND\n";
    assert_command_fails(&sandbox, command.env_remove("HOME").args(["sleep", "60"]), 125, stderr);

    let run = Run::of(sandbox.command(DETACH).env_remove("HOME").args(["-P", "-o", "/dev/null", "sleep", "60"]));
    let stderr = "detach: warning: cannot record job 'sleep': cannot find a place for logs and records: \
                  HOME is not set to an absolute path\n";
    assert_eq!((run.status, run.stderr.as_str()), (0, stderr));
    sandbox.jobs(1);
    let run = Run::of(sandbox.command(DETACH).env_remove("HOME").args(["-q", "-o", "/dev/null", "true"]));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
}

#[test]
fn state_directory_that_is_not_ours_alone_is_refused() {
    let sandbox = Sandbox::new();
    let state = sandbox.state();
    let hint = format!("detach: hint: logs and records of jobs are kept there: chmod 700 {}\n", state.display());
    let shown = state.display();
    fs::create_dir_all(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    let stderr = format!("detach: cannot use directory '{shown}': others may use it: its mode is 755, not 700\n{hint}");
    assert_fails(&sandbox, ["sleep", "60"], 125, &stderr);
    let run = sandbox.detach(["-o", "/dev/null", "true"]);
    let stderr = format!(
        "detach: warning: cannot record job 'true': cannot use directory '{shown}': \
         others may use it: its mode is 755, not 700\n"
    );
    assert_eq!((run.status, run.stderr.as_str()), (0, stderr.as_str()));
    sandbox.jobs(0);

    fs::remove_dir(&state).unwrap();
    fs::create_dir(sandbox.path("other")).unwrap();
    symlink(sandbox.path("other"), &state).unwrap();
    assert_fails(&sandbox, ["true"], 125, &format!("detach: cannot use directory '{shown}': it is a symbolic link\n"));
    fs::remove_file(&state).unwrap();

    fs::write(&state, "").unwrap();
    let run = sandbox.detach(["true"]);
    let stderr = format!("detach: cannot use directory '{shown}': not a directory\n");
    assert_eq!((run.status, run.stderr.as_str()), (125, stderr.as_str()));
    fs::remove_file(&state).unwrap();

    if is_root() {
        fs::create_dir(&state).unwrap();
        std::os::unix::fs::chown(&state, Some(65534), None).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
        let stderr = format!("detach: cannot use directory '{shown}': it belongs to user 65534\n");
        assert_fails(&sandbox, ["true"], 125, &stderr);
    }
}

#[test]
fn fifo_in_the_place_of_a_command_is_not_waited_for() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.sh("mkfifo fifo && chmod 755 fifo").status, 0);
    assert_fails(&sandbox, ["./fifo"], 126, "detach: cannot run './fifo': permission denied\n");
}

#[test]
fn circle_of_interpreters_is_126() {
    let sandbox = Sandbox::new();
    let circle = sandbox.path("work/circle");
    sandbox.script("circle", &format!("#!{}\n", circle.display()));
    assert_fails(&sandbox, ["./circle"], 126, "detach: cannot run './circle': too many levels of interpreters\n");
}

#[test]
fn root_does_not_make_directories_in_the_home_of_another() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    std::os::unix::fs::chown(sandbox.path("home"), Some(65534), None).unwrap();
    let [state, home] = [sandbox.state(), sandbox.path("home")].map(|path| path.display().to_string());
    let stderr = format!("detach: cannot make directory '{state}': '{home}' belongs to user 65534\n");
    assert_fails(&sandbox, ["true"], 125, &stderr);
    assert!(!sandbox.path("home/.local").exists());
}

#[test]
fn wait_that_is_not_possible_is_no_success() {
    let sandbox = Sandbox::new();
    let run = sandbox.sh("ulimit -n 4; detach -w -o - false");
    let stderr = "detach: warning: cannot record job 'false': /proc does not tell its identity\n\
                  detach: warning: cannot watch 'false': too many open files\n";
    assert_eq!((run.status, run.stderr.as_str()), (125, stderr));
}

#[test]
fn process_1_is_warned_that_its_command_ends_with_it() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut command = sandbox.command("unshare");
    let run = Run::of(command.args(["--pid", "--fork", "--mount-proc", DETACH, "sleep", "60"]));
    let stderr = "detach: warning: 'sleep' ends with detach, which is process 1 here: use --wait\n";
    assert_eq!((run.status, run.stderr.as_str()), (0, stderr));
    sandbox.jobs(0);
}

#[test]
fn program_whose_loader_is_missing_is_127() {
    let sandbox = Sandbox::new();
    // An ELF file of this machine, with the path of its loader made one that does not exist.
    let mut bytes = fs::read(Run::of(sandbox.command("sh").args(["-c", "command -v sleep"])).stdout.trim()).unwrap();
    let begin = bytes.windows(5).position(|window| window == b"/lib/" || window == b"/lib6").unwrap();
    bytes[begin + 1] = b'X';
    fs::write(sandbox.path("work/bytes"), bytes).unwrap();
    assert_eq!(sandbox.sh("cp bytes program && chmod 755 program").status, 0);
    let stderr = "detach: cannot run './program': the dynamic loader that it needs does not exist\n";
    assert_fails(&sandbox, ["./program", "60"], 127, stderr);
}

#[test]
fn unwritable_log_is_125() {
    if !is_root() || !is_installed("setpriv") {
        return;
    }
    let sandbox = Sandbox::new();
    // A read-only mount refuses root as well.
    let script = r#"mkdir -p "$HOME/.local/state/detach" && chmod 700 "$HOME/.local/state/detach"
        mount -t tmpfs -o ro,mode=700 none "$HOME/.local/state/detach" || exit 99
        detach sleep 60 2>&1 | sed 's/-[0-9]*\.log/-PID.log/'; exec detach -qw sleep 60"#;
    let run = Run::of(sandbox.command("unshare").args(["--mount", "sh", "-c", script]));
    let log = sandbox.state().join("sleep-PID.log").display().to_string();
    let stdout = format!("detach: cannot create log '{log}': read-only file system\n");
    assert_eq!((run.status, run.stdout.as_str()), (125, stdout.as_str()));
    sandbox.assert_nothing_left();
}

#[test]
fn home_that_cannot_be_written_is_125() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(DETACH);
    let stderr = "detach: cannot use directory '/dev/null/.local/state/detach': not a directory\n";
    assert_command_fails(&sandbox, command.env("HOME", "/dev/null").args(["sleep", "60"]), 125, stderr);
}

/// A file system of a few pages, mounted in a mount namespace of the command's own, filled up.
#[test]
fn full_disk_is_125_where_a_log_is_needed() {
    if !is_root() || !is_installed("unshare") {
        return;
    }
    let sandbox = Sandbox::new();
    let script = r#"
        mount -t tmpfs -o size=4k,mode=755 none "$HOME" || exit 99
        mkdir -p "$HOME/.local/state/detach" && chmod 700 "$HOME/.local/state/detach"
        cat /dev/zero > "$HOME/full" 2> /dev/null
        detach sleep 60; echo $?
        detach -o /dev/null sleep 60; echo $?
        ls -A "$HOME/.local/state/detach""#;
    let run = Run::of(sandbox.command("unshare").args(["--mount", "sh", "-c", script]));
    let stderr = "detach: cannot record job 'sleep': no space left on device\n\
                  detach: warning: cannot record job 'sleep': no space left on device\n";
    assert_eq!((run.stderr.as_str(), run.stdout.as_str()), (stderr, "125\n0\n"));
    sandbox.jobs(1);
}

#[test]
fn no_more_processes_is_125() {
    if !is_root() || !is_installed("setpriv") || !is_installed("prlimit") {
        return;
    }
    let sandbox = Sandbox::new();
    let program = sandbox.path("detach");
    assert_eq!(Run::of(sandbox.command("cp").args([DETACH.as_ref(), program.as_os_str()])).status, 0);
    std::os::unix::fs::chown(sandbox.path("home"), Some(54321), Some(54321)).unwrap();
    let mut command = sandbox.command("setpriv");
    command.args(["--reuid=54321", "--regid=54321", "--clear-groups", "prlimit", "--nproc=1"]);
    let stderr = "detach: cannot start 'sleep': no more processes are allowed\n";
    assert_command_fails(&sandbox, command.arg(&program).args(["sleep", "60"]), 125, stderr);
}

#[test]
fn file_size_limit_does_not_kill_the_command() {
    let sandbox = Sandbox::new();
    // The record meets the limit; the SIGXFSZ that comes with it is not for the command.
    let run = sandbox.sh("ulimit -f 0; detach -P -o /dev/null sleep 60");
    let stderr = "detach: warning: cannot record job 'sleep': file too large\n";
    assert_eq!((run.status, run.stderr.as_str()), (0, stderr));
    assert_eq!(sandbox.jobs(1)[0].pid.to_string(), run.stdout.trim());
}

#[test]
fn wrong_usage_is_125() {
    let sandbox = Sandbox::new();
    let help = "detach: hint: see 'detach --help'\n";
    for (args, sentence, hint) in [
        (&[][..], "cannot start anything: no COMMAND is given", help),
        (&["--"], "cannot start anything: no COMMAND is given", help),
        (
            &["--outptu", "x", "sleep"],
            "cannot use '--outptu': there is no such option",
            "detach: hint: did you mean '--output'?\n",
        ),
        (&["-Z", "sleep", "60"], "cannot use '-Z': there is no such option", help),
        (&["-qZ", "sleep", "60"], "cannot use '-Z': there is no such option", help),
        (&["-o"], "cannot use '--output <FILE>': it needs a value", help),
        (
            &["--settle", "-1", "true"],
            "cannot use '-1' for '--settle <DURATION>': not a duration like 500ms, 2s, 1m30s or 7d",
            help,
        ),
        (&["--wait=5", "true"], "cannot use '--wait': it takes no value", help),
        (
            &["-m", "9", "-m", "0", "true"],
            "cannot use '9' for '--umask <MODE>': not an octal number from 0 to 777",
            help,
        ),
        (&["-m", "9", "true"], "cannot use '9' for '--umask <MODE>': not an octal number from 0 to 777", help),
        (
            &["--settle", "x", "true"],
            "cannot use 'x' for '--settle <DURATION>': not a duration like 500ms, 2s, 1m30s or 7d",
            help,
        ),
        (&["--keep-fd", "x", "true"], "cannot use 'x' for '--keep-fd <N>': not the number of a descriptor", help),
        (
            &["--keep-fd=3,1", "true"],
            "cannot use '1' for '--keep-fd <N>': the standard streams have options of their own: -i, -o, -e",
            help,
        ),
        (&["--sigchld", "no", "true"], "cannot use 'no' for '--sigchld <HOW>': neither 'default' nor 'ignore'", help),
        (&["-N", "", "true"], "cannot use '' for '--name <NAME>': it must be a word without a slash", ""),
        (&["-N", "a/b", "true"], "cannot use 'a/b' for '--name <NAME>': it must be a word without a slash", ""),
    ] {
        assert_fails(&sandbox, args, 125, &format!("detach: {sentence}\n{hint}"));
    }
}

#[test]
fn message_that_cannot_be_written_does_not_break_the_start() {
    let sandbox = Sandbox::new();
    for redirection in ["2>/dev/full", "2>&-", ">/dev/full 2>/dev/full", ">&- 2>&-"] {
        let run = sandbox.sh(&format!("detach -v -P --json -o /dev/null sleep 60 {redirection}"));
        assert_eq!(run.status, 0, "{redirection}: {run:?}");
    }
    sandbox.jobs(4);
    let run = sandbox.sh("detach -P sleep 60 > /dev/full");
    assert_eq!(
        (run.status, run.stderr.as_str()),
        (0, "detach: warning: cannot write the PID: no space left on device\n")
    );
    let run = sandbox.sh("detach no-such-command 2>/dev/full; echo $?");
    assert_eq!(run.stdout, "127\n");
}

#[test]
fn closed_pipe_on_stdout_ends_quietly() {
    let sandbox = Sandbox::new();
    let script = "{ detach $0; echo $? >&2; } | true";
    for arguments in ["--help", "--version", "-P --json sleep 60"] {
        let script = script.replace("$0", arguments);
        let run = Run::of(sandbox.command("bash").args(["-c", &script]));
        assert_eq!(run.stderr, "0\n", "{arguments}");
    }
}

#[test]
fn strange_surroundings_are_no_reason_to_panic() {
    let sandbox = Sandbox::new();
    for script in [
        "env -i $0 -o /dev/null true",
        "env -i $0 true",
        "HOME= detach true",
        "mkdir gone && cd gone && rmdir ../gone && detach true",
        "mkdir gone2 && cd gone2 && rmdir ../gone2 && detach -C / ./x",
        "ulimit -n 3; detach true",
        "ulimit -n 4; detach true",
        "ulimit -n 5; detach true",
        "PATH= $0 true",
        "unset PATH; $0 true",
    ] {
        let run = Run::of(sandbox.command("sh").args(["-c", script, DETACH]));
        assert!([0, 125, 126, 127].contains(&run.status), "{script}: {run:?}");
        assert!(!run.stderr.contains("panicked"), "{script}: {run:?}");
        let sentences = run.stderr.lines().all(|line| line.starts_with("detach: "));
        assert!(sentences, "{script}: {run:?}");
        eventually(|| sandbox.processes().is_empty());
    }
}

#[test]
fn command_killed_before_it_runs_is_125_and_leaves_nothing() {
    if !is_installed("strace") {
        return;
    }
    // The second call is made on the record that is being written.
    for call in ["setsid", "fchmod"] {
        let sandbox = Sandbox::new();
        let run =
            sandbox.sh(&format!("strace -f -o ../trace -e trace={call} -e inject={call}:signal=KILL detach sleep 60"));
        let stderr = "detach: cannot start 'sleep': its process was killed before it ran\n";
        assert_eq!((run.status, run.stderr.as_str()), (125, stderr), "{call}");
        assert!(fs::read_to_string(sandbox.path("trace")).unwrap().contains("killed by SIGKILL"), "{call}");
        assert_eq!(sandbox.files(".log"), [""; 0], "{call}");
        assert_eq!(sandbox.files(".json"), [""; 0], "{call}");
        sandbox.jobs(0);
    }
}

#[test]
fn used_up_quota_is_125_where_a_log_is_needed() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    for (error, reason) in [("ENOSPC", "no space left on device"), ("EDQUOT", "quota exceeded")] {
        let script =
            "strace -f -o trace -e trace=renameat,renameat2 -e inject=renameat,renameat2:error=$0 detach $1 true";
        for (option, status, kind) in [("", 125, ""), ("-o/dev/null", 0, "warning: ")] {
            let run = Run::of(sandbox.command("sh").args(["-c", script, error, option]));
            let stderr = format!("detach: {kind}cannot record job 'true': {reason}\n");
            assert_eq!((run.status, run.stderr), (status, stderr));
            sandbox.jobs(0);
            sandbox.assert_nothing_left();
        }
    }
}

#[test]
fn state_directory_that_anybody_else_may_use_is_refused() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.state()).unwrap();
    for mode in [0o740, 0o720, 0o710, 0o704, 0o702, 0o701] {
        fs::set_permissions(sandbox.state(), fs::Permissions::from_mode(mode)).unwrap();
        let run = sandbox.detach(["true"]);
        assert_eq!(run.status, 125, "{mode:o}");
        assert!(run.stderr.contains(&format!("others may use it: its mode is {mode:o}, not 700\n")), "{run:?}");
    }
}

#[test]
fn relative_home_is_not_used() {
    let sandbox = Sandbox::new();
    let run = Run::of(sandbox.command(DETACH).env("HOME", "relative").arg("true"));
    assert_eq!(run.status, 125);
    assert!(!sandbox.path("work/relative").exists());
}

#[test]
fn help_that_cannot_be_written_is_125() {
    let sandbox = Sandbox::new();
    let run = sandbox.sh("detach --help > /dev/full");
    let stderr = "detach: cannot write to 'stdout': no space left on device\n";
    assert_eq!((run.status, run.stderr.as_str()), (125, stderr));
}

#[test]
fn quiet_start_still_tells_of_errors() {
    let sandbox = Sandbox::new();
    assert_fails(&sandbox, ["-q", "./missing"], 127, "detach: cannot run './missing': no such file or directory\n");
}
