//! What can go wrong, to the letter: the sentence, the exit status, and nothing left behind.
//!
//! Commands that cannot be run, directories and files that cannot be used, limits, full disks, wrong usage, messages
//! that cannot be written, and processes killed in between.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Command;

use nix::libc;

use crate::support::{DETACH, Run, Sandbox, eventually, storage};

/// Runs detach, which must fail with this status and these lines on stderr, and leave nothing behind.
#[track_caller]
fn assert_fails<S: AsRef<OsStr>>(sandbox: &Sandbox, args: impl IntoIterator<Item = S>, status: i32, stderr: &str) {
    assert_command_fails(sandbox, sandbox.command(DETACH).args(args), status, stderr);
}

#[track_caller]
fn assert_command_fails(sandbox: &Sandbox, command: &mut Command, status: i32, stderr: &str) {
    Run::of(command).fails(status, stderr);
    sandbox.assert_nothing_left();
}

/// Runs `$1…` and reports whether it leaves a child, a zombie included, to the process that reaps its orphans. 36 is
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
             detach: hint: if it is an alias, first type: alias detach='detach '",
        ),
        ("./nothing", "detach: cannot run './nothing': no such file or directory"),
        ("/no/such/file", "detach: cannot run '/no/such/file': no such file or directory"),
        ("/opt/My App/run.sh", "detach: cannot run '/opt/My App/run.sh': no such file or directory"),
        ("", "detach: cannot run '': not found in PATH"),
        (
            "cd",
            "detach: cannot run 'cd': not found in PATH\n\
             detach: hint: cd only affects the shell that it runs in; use -C DIR",
        ),
        (
            "sleep 5; echo it's over",
            "detach: cannot run 'sleep 5; echo it\\'s over': not found in PATH\n\
             detach: hint: a shell can run it: detach sh -c 'sleep 5; echo it'\\''s over'",
        ),
        (
            "LANG=C",
            "detach: cannot run 'LANG=C': not found in PATH\n\
             detach: hint: to set a variable for the command: detach env NAME=VALUE COMMAND",
        ),
    ] {
        assert_fails(&sandbox, [command], 127, stderr);
    }
    let strange = OsStr::from_bytes(b"./\x1b[31m\n\xff");
    assert_fails(&sandbox, [strange], 127, "detach: cannot run './\\x1b[31m\\n\\xff': no such file or directory");
}

#[test]
fn file_that_cannot_be_executed_is_126() {
    let sandbox = Sandbox::new();
    sandbox.write("plain", "text");
    fs::create_dir(sandbox.work("directory")).unwrap();
    for (command, stderr) in [
        ("./plain", "detach: cannot run './plain': permission denied"),
        ("./directory", "detach: cannot run './directory': is a directory"),
        ("./plain/inside", "detach: cannot run './plain/inside': not a directory"),
        ("/", "detach: cannot run '/': is a directory"),
        ("../..", "detach: cannot run '../..': is a directory"),
    ] {
        assert_fails(&sandbox, [command], 126, stderr);
    }
}

#[test]
fn file_of_path_that_cannot_be_executed_is_126() {
    let sandbox = Sandbox::new();
    sandbox.write("plain", "text");
    let mut command = sandbox.command(DETACH);
    let stderr = "detach: cannot run 'plain': './plain': permission denied";
    assert_command_fails(&sandbox, command.env("PATH", ":/nowhere").arg("plain"), 126, stderr);
}

#[test]
fn search_of_path_continues_after_a_file_that_cannot_be_executed() {
    let sandbox = Sandbox::new();
    sandbox.write("true", "text");
    Run::of(sandbox.command(DETACH).env("PATH", ":/bin:/usr/bin").args(["-w", "true"])).succeeds_silently();
}

#[test]
fn command_behind_a_directory_that_may_not_be_searched_is_not_found() {
    requires!(root, setpriv);
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("closed")).unwrap();
    fs::set_permissions(sandbox.path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    let program = sandbox.copy_of_detach();
    let mut command = sandbox.command_as(65534, "env");
    command.arg(format!("PATH={}", sandbox.path("closed").display())).arg(&program);
    let stderr = "detach: cannot run 'no': not found in PATH\n\
                  detach: hint: if it is an alias, first type: alias detach='detach '";
    assert_command_fails(&sandbox, command.args(["-o", "/dev/null", "no"]), 127, stderr);
}

#[test]
fn bad_interpreter_is_127_and_named() {
    let sandbox = Sandbox::new();
    sandbox.script("script", "#! /no/such/interpreter -x\n");
    sandbox.script("dos", "#!/bin/sh\r\nexit\r\n");
    sandbox.script("refused", "#!/etc/passwd\n");
    let chained = sandbox.script("chained", &format!("#!{}\n", sandbox.work("script").display()));
    let stderr =
        format!("detach: cannot run '{}': its interpreter '/no/such/interpreter' does not exist", chained.display());
    assert_fails(&sandbox, [&chained], 127, &stderr);
    let script = "detach: cannot run './script': its interpreter '/no/such/interpreter' does not exist";
    assert_fails(&sandbox, ["./script"], 127, script);
    let dos = "detach: cannot run './dos': its interpreter '/bin/sh\\r' does not exist";
    assert_fails(&sandbox, ["./dos"], 127, dos);
    let refused = "detach: cannot run './refused': its interpreter '/etc/passwd': permission denied";
    assert_fails(&sandbox, ["./refused"], 126, refused);
}

#[test]
fn command_line_that_is_too_long_is_126() {
    let sandbox = Sandbox::new();
    // The script needs more room than detach itself, for its interpreter and an argument. How much room there is
    // depends on the environment: search for the longest command line with which detach can still be run.
    sandbox.script("long", &format!("#!/bin/sh -{}\n", "e".repeat(200)));
    let run = |size: usize| {
        let mut command = sandbox.command("sh");
        // The kernel allows a quarter of the stack's limit, and 128 KiB for one argument.
        let script = "ulimit -s 1024; exec detach ./long \"$@\"";
        let words = (0..size / 1000).map(|_| "x".repeat(1000 - 1 - 8)).chain([("y").repeat(size % 1000)]);
        Run::of(command.args(["-c", script, "sh"]).args(words))
    };
    let (mut possible, mut impossible) = (100_000, 300_000);
    while impossible - possible > 1 {
        let middle = usize::midpoint(possible, impossible);
        // Status 126 comes from sh, which cannot run detach, or from detach, which cannot run the script.
        if run(middle).stderr.starts_with("sh:") { impossible = middle } else { possible = middle }
    }
    run(possible).fails(126, "detach: cannot run './long': argument list too long");
    assert_eq!(sandbox.logs().len(), sandbox.records().len());
}

#[test]
fn directory_that_cannot_be_entered_is_125() {
    let sandbox = Sandbox::new();
    sandbox.write("file", "");
    let missing = "detach: cannot change directory to 'missing': no such file or directory";
    assert_fails(&sandbox, ["-C", "missing", "sleep", "60"], 125, missing);
    let empty = "error: a value is required for '--chdir <DIR>' but none was supplied\n\n\
                 For more information, try '--help'.";
    assert_fails(&sandbox, ["-C", "", "sleep", "60"], 125, empty);
    let file = "detach: cannot change directory to 'file': not a directory";
    assert_fails(&sandbox, ["-C", "file", "sleep", "60"], 125, file);
}

#[test]
fn file_for_a_stream_that_cannot_be_opened_is_125() {
    let sandbox = Sandbox::new();
    for (args, stderr) in [
        (["-o", "no/out"], "detach: cannot write output to 'no/out': no such file or directory"),
        (["-e", "/"], "detach: cannot write output to '/': is a directory"),
        (["-i", "missing"], "detach: cannot read input from 'missing': no such file or directory"),
        (["-i", "/"], "detach: cannot read input from '/': is a directory"),
        (["--keep-fd", "77"], "detach: cannot keep descriptor 77: it is not open"),
    ] {
        assert_fails(&sandbox, args.into_iter().chain(["sleep", "60"]), 125, stderr);
    }
}

#[test]
fn file_named_by_the_user_stays_after_a_failed_start() {
    let sandbox = Sandbox::new();
    sandbox.write("old", "old\n");
    let missing = "detach: cannot run './missing': no such file or directory";
    // As with a redirection by a shell. Another job may have opened the file meanwhile, and its output would be lost.
    assert_fails(&sandbox, ["-o", "old", "-e", "new", "./missing"], 127, missing);
    assert_eq!(sandbox.read("old"), "old\n");
    assert_eq!(sandbox.read("new"), "");
}

#[test]
fn missing_home_is_125_where_a_log_is_needed() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(DETACH);
    let stderr = "detach: cannot find a place for logs and records: HOME is not set to an absolute path\n\
                  detach: hint: set HOME or XDG_STATE_HOME, or name a file: detach -o FILE COMMAND";
    assert_command_fails(&sandbox, command.env_remove("HOME").args(["sleep", "60"]), 125, stderr);
}

#[test]
fn missing_home_is_a_warning_where_no_log_is_needed() {
    let sandbox = Sandbox::new();
    let start =
        |options| Run::of(sandbox.command(DETACH).env_remove("HOME").args([options, "-o/dev/null", "sleep", "60"]));
    let stderr = "detach: warning: cannot record job 'sleep': cannot find a place for logs and records: \
                  HOME is not set to an absolute path";
    start("-P").warns(stderr);
    start("-q").succeeds_silently();
    sandbox.jobs(2);
}

/// Creates the state directory with this mode, and returns its path as messages show it.
fn make_state(sandbox: &Sandbox, mode: u32) -> String {
    fs::create_dir_all(sandbox.state()).unwrap();
    fs::set_permissions(sandbox.state(), fs::Permissions::from_mode(mode)).unwrap();
    sandbox.state().display().to_string()
}

#[test]
fn state_directory_that_others_may_use_is_refused() {
    for mode in [0o755, 0o740, 0o720, 0o710, 0o704, 0o702, 0o701] {
        let sandbox = Sandbox::new();
        let state = make_state(&sandbox, mode);
        let stderr = format!(
            "detach: cannot use directory '{state}': other users have access to it: its mode is {mode:o}, not 700\n\
             detach: hint: it contains the output of jobs; run: chmod 700 {state}"
        );
        assert_fails(&sandbox, ["sleep", "60"], 125, &stderr);
    }
}

#[test]
fn state_directory_that_others_may_use_is_a_warning_where_no_log_is_needed() {
    let sandbox = Sandbox::new();
    let state = make_state(&sandbox, 0o755);
    let stderr = format!(
        "detach: warning: cannot record job 'true': cannot use directory '{state}': \
         other users have access to it: its mode is 755, not 700"
    );
    sandbox.detach(["-o", "/dev/null", "true"]).warns(&stderr);
    sandbox.jobs(0);
}

#[test]
fn state_directory_that_is_a_link_is_refused() {
    let sandbox = Sandbox::new();
    let state = make_state(&sandbox, 0o700);
    fs::remove_dir(&state).unwrap();
    fs::create_dir(sandbox.path("other")).unwrap();
    symlink(sandbox.path("other"), &state).unwrap();
    assert_fails(&sandbox, ["true"], 125, &format!("detach: cannot use directory '{state}': it is a symbolic link"));
}

#[test]
fn state_directory_that_is_a_file_is_refused() {
    let sandbox = Sandbox::new();
    let state = make_state(&sandbox, 0o700);
    fs::remove_dir(&state).unwrap();
    fs::write(&state, "").unwrap();
    sandbox.detach(["true"]).fails(125, &format!("detach: cannot use directory '{state}': not a directory"));
    sandbox.jobs(0);
}

#[test]
fn state_directory_of_another_user_is_refused() {
    requires!(root);
    let sandbox = Sandbox::new();
    let state = make_state(&sandbox, 0o700);
    chown(&state, Some(65534), None).unwrap();
    assert_fails(&sandbox, ["true"], 125, &format!("detach: cannot use directory '{state}': it belongs to user 65534"));
}

#[test]
fn command_that_is_a_fifo_is_126() {
    let sandbox = Sandbox::new();
    sandbox.sh("mkfifo fifo && chmod 755 fifo").succeeds_silently();
    assert_fails(&sandbox, ["./fifo"], 126, "detach: cannot run './fifo': permission denied");
}

#[test]
fn interpreters_that_need_each_other_are_126() {
    let sandbox = Sandbox::new();
    let circle = sandbox.work("circle");
    sandbox.script("circle", &format!("#!{}\n", circle.display()));
    assert_fails(&sandbox, ["./circle"], 126, "detach: cannot run './circle': too many levels of interpreters");
}

#[test]
fn root_creates_no_directory_in_the_home_of_another_user() {
    requires!(root);
    let sandbox = Sandbox::new();
    chown(sandbox.path("home"), Some(65534), None).unwrap();
    let [state, home] = [sandbox.state(), sandbox.path("home")].map(|path| path.display().to_string());
    let stderr = format!("detach: cannot create directory '{state}': '{home}' belongs to user 65534");
    assert_fails(&sandbox, ["true"], 125, &stderr);
    assert!(!sandbox.path("home/.local").exists());
}

#[test]
fn wait_that_fails_is_125() {
    let sandbox = Sandbox::new();
    let stderr = "detach: warning: cannot record job 'false': too many open files\n\
                  detach: warning: cannot watch 'false': too many open files";
    sandbox.sh("ulimit -n 4; detach -w -o - false").fails(125, stderr);
}

#[test]
fn process_1_warns_that_its_command_ends_with_it() {
    requires!(root);
    let sandbox = Sandbox::new();
    let mut command = sandbox.command("unshare");
    let stderr = "detach: warning: 'sleep' will be killed when detach exits, because detach is PID 1 here; use --wait";
    Run::of(command.args(["--pid", "--fork", "--mount-proc", DETACH, "sleep", "60"])).warns(stderr);
    sandbox.jobs(0);
}

#[test]
fn program_whose_loader_is_missing_is_127() {
    let sandbox = Sandbox::new();
    // An ELF file of this machine, in which the path of its loader is changed to one that does not exist.
    let mut bytes = fs::read(sandbox.sh("command -v sleep").stdout.trim()).unwrap();
    let path = bytes.windows(5).position(|window| window == b"/lib/" || window == b"/lib6").unwrap();
    bytes[path + 1] = b'X';
    sandbox.write("bytes", bytes);
    sandbox.sh("cp bytes program && chmod 755 program").succeeds_silently();
    let stderr = "detach: cannot run './program': the dynamic loader that it needs does not exist";
    assert_fails(&sandbox, ["./program", "60"], 127, stderr);
}

#[test]
fn unwritable_log_is_125() {
    requires!(root, unshare);
    let sandbox = Sandbox::new();
    // Root, too, cannot write to a read-only mount.
    let script = r#"mkdir -p "$HOME/.local/state/detach" && chmod 700 "$HOME/.local/state/detach"
        mount -t tmpfs -o ro,mode=700 none "$HOME/.local/state/detach" || exit 99
        exec detach sleep 60"#;
    let run = Run::of(sandbox.command("unshare").args(["--mount", "sh", "-c", script])).exits(125);
    let log = sandbox.state().join("sleep-").display().to_string();
    let (pid, reason) =
        run.stderr.strip_prefix(&format!("detach: cannot create log '{log}")).unwrap().split_once('.').unwrap();
    assert!(pid.parse::<u32>().is_ok(), "{run:?}");
    let expected = "log': read-only file system\n\
                    detach: hint: name a file elsewhere with -o FILE, or discard the output with -o /dev/null\n";
    assert_eq!((run.stdout.as_str(), reason), ("", expected));
    sandbox.assert_nothing_left();
}

#[test]
fn home_that_cannot_be_written_is_125() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(DETACH);
    let stderr = "detach: cannot use directory '/dev/null/.local/state/detach': not a directory";
    assert_command_fails(&sandbox, command.env("HOME", "/dev/null").args(["sleep", "60"]), 125, stderr);
}

#[test]
fn full_disk_is_125_where_a_log_is_needed() {
    requires!(root, unshare);
    let sandbox = Sandbox::new();
    // A file system of one page, filled up, which only this command sees.
    let script = r#"
        mount -t tmpfs -o size=4k,mode=755 none "$HOME" || exit 99
        mkdir -p "$HOME/.local/state/detach" && chmod 700 "$HOME/.local/state/detach"
        cat /dev/zero > "$HOME/full" 2> /dev/null
        detach sleep 60; echo $?
        detach -o /dev/null sleep 60; echo $?
        ls -A "$HOME/.local/state/detach""#;
    let run = Run::of(sandbox.command("unshare").args(["--mount", "sh", "-c", script]));
    let stderr = "detach: cannot record job 'sleep': no space left on device\n\
                  detach: hint: name a file elsewhere with -o FILE, or discard the output with -o /dev/null\n\
                  detach: warning: cannot record job 'sleep': no space left on device\n";
    // The journal is there, and empty.
    let stdout = format!("125\n0\n{}.jsonl\n", storage::boot_id());
    assert_eq!((run.stderr, run.stdout), (stderr.to_owned(), stdout));
    sandbox.jobs(1);
}

#[test]
fn no_more_processes_is_125() {
    requires!(root, setpriv, prlimit);
    let sandbox = Sandbox::new();
    let program = sandbox.copy_of_detach();
    chown(sandbox.path("home"), Some(54321), Some(54321)).unwrap();
    let mut command = sandbox.command_as(54321, "prlimit");
    command.arg("--nproc=1");
    let stderr = "detach: cannot start 'sleep': the limit on the number of processes is reached";
    Run::of(command.arg(&program).args(["sleep", "60"])).fails(125, stderr);
    // Only that user may read the state directory.
    let jobs = Run::of(sandbox.command_as(54321, &program).args(["--list", "--all", "--json"])).succeeds();
    assert_eq!(jobs, "");
    assert_eq!(sandbox.logs(), [""; 0]);
    sandbox.jobs(0);
}

#[test]
fn file_size_limit_does_not_kill_the_command() {
    let sandbox = Sandbox::new();
    // Writing the record exceeds the limit; the SIGXFSZ that follows must not reach the command.
    let stderr = "detach: warning: cannot record job 'sleep': file too large";
    let stdout = sandbox.sh("ulimit -f 0; detach -P -o /dev/null sleep 60").warns(stderr);
    assert_eq!(sandbox.only_job().pid.to_string(), stdout.trim());
}

/// What clap writes after a usage error.
const USAGE: &str = "\n\
    Usage: detach [OPTION]... [--] COMMAND [ARG]...\n       \
    detach MODE [OPTION]... [ARG]...\n";

#[test]
fn wrong_usage_is_125() {
    let sandbox = Sandbox::new();
    let missing = format!("error: the following required arguments were not provided:\n  <COMMAND>...\n{USAGE}");
    let similar =
        format!("error: unexpected argument '--outptu' found\n\n  tip: a similar argument exists: '--output'\n{USAGE}");
    let unknown = format!("error: unexpected argument '-Z' found\n{USAGE}");
    let takes_none = |option: &str, value: &str| {
        format!("error: unexpected value '{value}' for '{option}' found; no more were expected\n{USAGE}")
    };
    let wait = takes_none("--wait", "5");
    // To clap, this is -q and -=.
    let quiet = format!("error: unexpected argument '-=' found\n{USAGE}");
    let help = takes_none("--help", "1");
    for (args, error) in [
        (&[][..], missing.as_str()),
        (&["--"], &missing),
        (&["-q"], &missing),
        (&["--outptu", "x", "sleep"], &similar),
        (&["-Z", "sleep", "60"], &unknown),
        (&["-qZ", "sleep", "60"], &unknown),
        (&["-o"], "error: a value is required for '--output <FILE>' but none was supplied\n"),
        (&["--wait=5", "true"], &wait),
        (&["-q=1", "true"], &quiet),
        (&["--help=1"], &help),
    ] {
        assert_fails(&sandbox, args, 125, &format!("{error}\nFor more information, try '--help'."));
    }
}

#[test]
fn invalid_value_is_125() {
    let sandbox = Sandbox::new();
    for (args, sentence) in [
        (
            &["--settle", "-1", "true"][..],
            "cannot use '-1' for '--settle <DURATION>': not a duration like 500ms, 2s, 1m30s or 7d",
        ),
        (&["-m", "9", "-m", "0", "true"], "cannot use '9' for '--umask <MODE>': not an octal number from 0 to 777"),
        (&["-m", "9", "true"], "cannot use '9' for '--umask <MODE>': not an octal number from 0 to 777"),
        (
            &["--settle", "x", "true"],
            "cannot use 'x' for '--settle <DURATION>': not a duration like 500ms, 2s, 1m30s or 7d",
        ),
        (&["--keep-fd", "x", "true"], "cannot use 'x' for '--keep-fd <N>': not a descriptor number"),
        (&["--keep-fd=3,1", "true"], "cannot use '1' for '--keep-fd <N>': for the standard streams, use -i, -o or -e"),
        (&["--sigchld", "no", "true"], "cannot use 'no' for '--sigchld <HOW>': neither 'default' nor 'ignore'"),
        (&["-N", "", "true"], "cannot use '' for '--name <NAME>': it must not be blank or contain a slash"),
        (&["-N", " ", "true"], "cannot use ' ' for '--name <NAME>': it must not be blank or contain a slash"),
        (
            &["-N", "\u{200b}", "true"],
            "cannot use '\\u{200b}' for '--name <NAME>': it must not be blank or contain a slash",
        ),
        (&["-N", "a/b", "true"], "cannot use 'a/b' for '--name <NAME>': it must not be blank or contain a slash"),
    ] {
        assert_fails(&sandbox, args, 125, &format!("detach: {sentence}\ndetach: hint: see 'detach --help'"));
    }
}

#[test]
fn value_that_is_not_utf8_is_125_and_its_option_is_named() {
    let sandbox = Sandbox::new();
    for (words, option) in [
        (&["--settle"][..], "--settle <DURATION>"),
        (&["--umask"], "--umask <MODE>"),
        (&["--keep-fd"], "--keep-fd <N>"),
        (&["--sigchld"], "--sigchld <HOW>"),
        (&["--stop", "x", "--grace"], "--grace <DURATION>"),
        (&["--stop", "x", "--signal"], "--signal <SIG>"),
        (&["--log", "-n"], "--lines <N>"),
        (&["--prune"], "DURATION"),
    ] {
        let words = words.iter().map(OsStr::new).chain([OsStr::from_bytes(b"\xff")]);
        let run = sandbox.detach(words).exits(125);
        let sentence = format!("detach: cannot use '\u{fffd}' for '{option}': ");
        assert!(run.stderr.starts_with(&sentence) && run.stdout.is_empty(), "{run:?}");
    }
}

#[test]
fn message_that_cannot_be_written_does_not_prevent_the_start() {
    let sandbox = Sandbox::new();
    for redirection in ["2>/dev/full", "2>&-", ">/dev/full 2>/dev/full"] {
        sandbox.sh(&format!("detach -v -P --json -o /dev/null sleep 60 {redirection}")).exits(0);
    }
    sandbox.sh("detach -v -o /dev/null sleep 60 >&- 2>&-").exits(0);
    sandbox.jobs(4);
}

#[test]
fn data_for_a_closed_stdout_is_125_and_nothing_is_done() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["-o", "/dev/null", "sleep", "60"]);
    let stderr = "detach: cannot write to stdout: bad file descriptor";
    let prints =
        ["-P true", "--json true", "--list", "--log", "--check", "--prune --dry-run", "--help", "--list --help", "-V"];
    for words in prints {
        sandbox.sh(&format!("detach {words} >&-")).fails(125, stderr);
    }
    assert_eq!(sandbox.records().len(), 1);
    // Other modes and starts have nothing to print there.
    for words in ["-o /dev/null sleep 60", "--stop --all", "--prune 0"] {
        sandbox.sh(&format!("detach {words} >&-")).succeeds_silently();
    }
    assert!(job.is_dead());
}

#[test]
fn pid_that_cannot_be_written_is_a_warning() {
    let sandbox = Sandbox::new();
    let stderr = "detach: warning: cannot write the PID: no space left on device";
    sandbox.sh("detach -P sleep 60 > /dev/full").warns(stderr);
    sandbox.jobs(1);
}

#[test]
fn error_that_cannot_be_written_leaves_the_status() {
    Sandbox::new().sh("detach no-such-command 2>/dev/full").exits_silently(127);
}

#[test]
fn closed_pipe_on_stdout_ends_quietly() {
    let sandbox = Sandbox::new();
    let script = "{ detach $0; echo $? >&2; } | true";
    for arguments in ["--help", "--version", "-P --json sleep 60"] {
        let script = script.replace("$0", arguments);
        sandbox.bash(&script).warns("0");
    }
}

#[test]
fn unusual_environments_cause_no_panic() {
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
        assert!(run.stderr.lines().all(|line| line.starts_with("detach: ")), "{script}: {run:?}");
        eventually(|| sandbox.processes().is_empty());
    }
}

#[test]
fn command_killed_before_it_runs_is_125_and_leaves_nothing() {
    requires!(strace);
    // The second call is made on the record while it is written.
    for call in ["setsid", storage::CALL_WHILE_RECORDING] {
        let sandbox = Sandbox::new();
        let script = format!("strace -f -o ../trace -e trace={call} -e inject={call}:signal=KILL detach sleep 60");
        sandbox
            .sh(&script)
            .fails(125, "detach: cannot start 'sleep': its process was killed before it ran the command");
        assert!(fs::read_to_string(sandbox.path("trace")).unwrap().contains("killed by SIGKILL"), "{call}");
        assert_eq!(sandbox.logs(), [""; 0], "{call}");
        assert_eq!(sandbox.records(), [""; 0], "{call}");
        sandbox.jobs(0);
    }
}

#[test]
fn used_up_quota_is_125_where_a_log_is_needed() {
    requires!(strace);
    let sandbox = Sandbox::new();
    for (error, reason) in [("ENOSPC", "no space left on device"), ("EDQUOT", "quota exceeded")] {
        let calls = storage::CALLS_THAT_RECORD;
        let strace = format!("strace -f -o trace -e trace={calls} -e inject={calls}:error={error}");
        let start = |option| sandbox.sh(&format!("{strace} detach {option} true"));
        let stderr = format!(
            "detach: cannot record job 'true': {reason}\n\
             detach: hint: name a file elsewhere with -o FILE, or discard the output with -o /dev/null"
        );
        start("").fails(125, &stderr);
        sandbox.assert_nothing_left();
        start("-o/dev/null").warns(&format!("detach: warning: cannot record job 'true': {reason}"));
        sandbox.jobs(0);
        sandbox.assert_nothing_left();
    }
}

#[test]
fn relative_home_is_not_used() {
    let sandbox = Sandbox::new();
    Run::of(sandbox.command(DETACH).env("HOME", "relative").arg("true")).exits(125);
    assert!(!sandbox.work("relative").exists());
}

#[test]
fn help_that_cannot_be_written_is_125() {
    let sandbox = Sandbox::new();
    let stderr = "detach: cannot write to stdout: no space left on device";
    sandbox.sh("detach --help > /dev/full").fails(125, stderr);
}

#[test]
fn quiet_start_reports_errors() {
    let sandbox = Sandbox::new();
    assert_fails(&sandbox, ["-q", "./missing"], 127, "detach: cannot run './missing': no such file or directory");
}

#[test]
fn script_whose_first_line_is_too_long_is_126() {
    let sandbox = Sandbox::new();
    // The shell would run what follows.
    sandbox.script("long", &format!("#!/{}\ntouch ran\n", "x".repeat(300)));
    let stderr = "detach: cannot run './long': its first line is too long for the kernel";
    assert_fails(&sandbox, ["./long"], 126, stderr);
    assert!(!sandbox.work("ran").exists());
}

#[test]
fn script_whose_interpreter_has_no_known_format_is_126() {
    let sandbox = Sandbox::new();
    let interpreter = sandbox.script("interpreter", "no format that the kernel knows\n");
    sandbox.script("script", &format!("#!{}\ntouch ran\n", interpreter.display()));
    let stderr =
        format!("detach: cannot run './script': its interpreter '{}': exec format error", interpreter.display());
    assert_fails(&sandbox, ["./script"], 126, &stderr);
    assert!(!sandbox.work("ran").exists());
}

#[test]
fn script_in_a_directory_that_begins_with_a_dash_runs() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.work("-e")).unwrap();
    for (name, begin) in [("without", ""), ("with", "#!/bin/sh\n")] {
        sandbox.script(&format!("-e/{name}"), &format!("{begin}echo \"$0\" \"$1\"\n"));
        let mut command = sandbox.command(DETACH);
        command.env("PATH", "-e:/usr/bin:/bin").args(["-w", "-o", name, name, "-x"]);
        Run::of(&mut command).succeeds_silently();
        let text = sandbox.read(name);
        assert_eq!(text, format!("./-e/{name} -x\n"));
        // Its path as well.
        sandbox.remove(name);
        sandbox.detach(["-w", "-o", name, "--", &format!("-e/{name}"), "-x"]).succeeds_silently();
        assert_eq!(sandbox.read(name), text);
    }
}
