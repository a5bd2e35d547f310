//! Connections and windows that are really lost: ssh to an sshd that the test starts, a window of tmux, an xterm.
//!
//! Each test runs the same program twice in the same shell: in the foreground, where it must die, and through detach.
//! `survival` tests the shells and their events; this module tests what stands between them and the user.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::support::{
    Process, Run, Sandbox, Terminal, all_pids, are_met, await_prediction, await_result, eventually, process_named_in,
    skip,
};

/// Writes its PID to the file named by its argument, then a line every few milliseconds. It ends by itself after some
/// minutes, in case the test is killed.
const TICKER: &str = r#"
echo $$ > "$1.new"
mv "$1.new" "$1"
tick=0
while [ $tick -lt 15000 ]; do
    echo tick
    sleep 0.02
    tick=$((tick + 1))
done
"#;

fn sandbox_with_ticker() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.script("ticker", TICKER);
    sandbox
}

/// The command line of a ticker, and the file that it writes its PID to.
fn ticker(sandbox: &Sandbox, name: &str) -> (String, PathBuf) {
    let file = sandbox.path(&format!("{name}.pid"));
    (format!("sh {} {}", sandbox.work("ticker").display(), file.display()), file)
}

/// The job has no part in the session of the control. This must be tested before that session ends as well: a hangup
/// takes the terminal away from all processes of a session.
#[track_caller]
fn assert_is_detached(job: &Process) {
    assert_eq!((job.terminal(), job.session()), (0, job.pid.as_raw()), "terminal and session");
    assert_eq!(job.signals("SigIgn"), [1], "ignored signals");
}

/// The job, a ticker, keeps writing.
#[track_caller]
fn assert_keeps_writing(job: &Process) {
    assert!(job.is_alive(), "the job has died");
    assert_is_detached(job);
    // Two more lines: the first may have been on its way when the connection was lost.
    let output = &job.descriptors()[&1];
    let length = || fs::metadata(output).expect("what the job writes to is gone").len();
    let before = length();
    eventually(|| job.is_dead() || length() >= before + 2 * "tick\n".len() as u64);
    assert!(job.is_alive(), "the job has died after the control");
}

/// `--check` predicts the fate of the control, which runs in the foreground, and of the job.
#[track_caller]
fn assert_predicted(sandbox: &Sandbox, control: &Process, job: &Process) {
    await_prediction(sandbox, control, ["ends", "ends"], "control");
    await_prediction(sandbox, job, ["survives", "survives"], "job");
}

/// An sshd on the loopback device that lets in the user of the test and passes on the environment of the sandbox.
struct Sshd {
    listener: Child,
    key: PathBuf,
    port: u16,
}

impl Sshd {
    /// `None` where a program is missing, or where the user may not log in.
    #[track_caller]
    fn start(sandbox: &Sandbox) -> Option<Self> {
        let sshd = find_sshd()?;
        if !are_met(&["ssh", "ssh-keygen"]) {
            return None;
        }
        if geteuid().is_root() {
            // Its privilege separation changes its root to this directory, which only an init script creates.
            DirBuilder::new().recursive(true).mode(0o755).create("/run/sshd").unwrap();
        }
        let [host_key, key] = ["host_key", "key"].map(|name| generate_key(sandbox, name));
        let variable = |(name, value): (_, _)| format!(" \"{}={}\"", OsStr::display(name), OsStr::display(value));
        let environment: String =
            sandbox.environment().iter().map(|(name, value)| variable((name.as_os_str(), value.as_os_str()))).collect();
        let config = sandbox.path("sshd_config");
        let text = format!(
            "HostKey {}\nAuthorizedKeysFile {}.pub\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n\
             PrintMotd no\nPrintLastLog no\nSetEnv{environment}\n",
            host_key.display(),
            key.display(),
        );
        fs::write(&config, text).unwrap();
        let log = sandbox.path("sshd.log");
        let read_log = || fs::read_to_string(&log).unwrap();
        let sshd = await_result(|| {
            let port = find_free_port();
            let mut command = sandbox.command(&sshd);
            command.args(["-D", "-e", "-o", &format!("ListenAddress=127.0.0.1:{port}"), "-f"]).arg(&config);
            let listener = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
            let mut sshd = Self { listener, key: key.clone(), port };
            let is_listening = || read_log().contains("Server listening on");
            eventually(|| is_listening() || sshd.listener.try_wait().unwrap().is_some());
            // It has ended if the port has been taken meanwhile.
            if is_listening() { Ok(sshd) } else { Err(read_log()) }
        });
        let login = Run::of(&mut sshd.run(sandbox, "true"));
        if login.status != 0 {
            // Without PAM it refuses a user whose password is locked, as root's often is.
            skip(&format!("sshd does not let this user in: {login:?}, {}", read_log()));
            return None;
        }
        Some(sshd)
    }

    /// The command line of a client, to which a command may be added.
    fn client(&self) -> Vec<String> {
        let mut words: Vec<_> = ["ssh", "-F", "none", "-i"].map(String::from).into();
        words.push(self.key.to_str().unwrap().to_owned());
        for option in ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"] {
            words.extend([String::from("-o"), option.to_owned()]);
        }
        words.extend([String::from("-p"), self.port.to_string(), String::from("127.0.0.1")]);
        words
    }

    /// `ssh HOST COMMAND`.
    fn run(&self, sandbox: &Sandbox, command: &str) -> Command {
        let words = self.client();
        let mut ssh = sandbox.command(&words[0]);
        ssh.args(&words[1..]).arg(command);
        ssh
    }
}

impl Drop for Sshd {
    /// sshd writes its title over its environment, so the sandbox does not find it by its mark.
    fn drop(&mut self) {
        let listener = Pid::from_raw(self.listener.id().try_into().unwrap());
        let connections = all_pids().into_iter().map(Process::new);
        let connections: Vec<_> = connections.filter(|process| process.stat(4) == Some(listener.to_string())).collect();
        for pid in connections.iter().map(|process| process.pid).chain([listener]) {
            // It may have ended by itself.
            let _ = kill(pid, Signal::SIGTERM);
        }
        let _ = self.listener.wait();
    }
}

/// sshd must be called by its full path, and lies in a directory that only root has in PATH.
fn find_sshd() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = directories.map(|directory| directory.join("sshd")).find(|sshd| sshd.is_file());
    if found.is_none() {
        skip("sshd is not installed (tests/run installs it)");
    }
    found
}

fn generate_key(sandbox: &Sandbox, name: &str) -> PathBuf {
    let file = sandbox.path(name);
    Run::of(sandbox.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file)).exits(0);
    file
}

fn find_free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn script_that_ssh_passes_on_stdin_is_not_eaten() {
    let sandbox = Sandbox::new();
    let Some(sshd) = Sshd::start(&sandbox) else { return };
    let directory = sandbox.path("work").display().to_string();
    for shell in ["bash -s", "dash -s", "zsh -f -s", "fish --no-config", "ksh93 -s", "mksh -s", "busybox sh -s"] {
        // Longer than any shell reads at once, but for fish, which reads all of it first.
        let padding = "true the padding of a script\n".repeat(10_000);
        for input in ["", "-i -"] {
            let begin = format!("cd {directory}; detach -w {input} -o out cat; true\n");
            sandbox.write("script", format!("{begin}{padding}echo end >> lines\n"));
            let mut client = sshd.run(&sandbox, shell);
            // Its status depends on where the shell has stopped to read: the last line may be half a word.
            let _ = Run::of(client.stdin(File::open(sandbox.work("script")).unwrap()));
            let read = |name| fs::read_to_string(sandbox.work(name)).unwrap_or_default();
            // The control: with `-i -` the command eats the rest.
            let is_eaten = input == "-i -" && !shell.starts_with("fish");
            assert_eq!(read("lines"), if is_eaten { "" } else { "end\n" }, "{shell} {input}");
            assert_eq!(read("out").ends_with("echo end >> lines\n"), is_eaten, "{shell} {input}");
            assert_eq!(read("out").is_empty(), !is_eaten, "{shell} {input}");
            sandbox.remove("out");
            sandbox.remove("lines");
        }
    }
}

#[test]
fn data_that_ssh_passes_to_the_command_arrives() {
    let sandbox = Sandbox::new();
    let Some(sshd) = Sshd::start(&sandbox) else { return };
    let out = sandbox.work("out").display().to_string();
    sandbox.write("data", "given\n");
    for line in [format!("detach -w -o {out} cat"), format!("exec detach -w -o {out} cat")] {
        let mut client = sshd.run(&sandbox, &line);
        Run::of(client.stdin(File::open(sandbox.work("data")).unwrap())).succeeds_silently();
        assert_eq!(sandbox.read("out"), "given\n", "{line}");
        sandbox.remove("out");
    }
}

#[test]
fn job_survives_a_dropped_ssh_connection() {
    let sandbox = sandbox_with_ticker();
    let Some(sshd) = Sshd::start(&sandbox) else { return };
    let client = sshd.client();
    let mut words: Vec<&str> = client.iter().map(String::as_str).collect();
    // Not the login shell, which would take PATH from /etc/profile.
    words.extend(["-tt", "exec sh -i"]);
    let mut terminal = Terminal::open_with(&sandbox, &words);
    let (command, file) = ticker(&sandbox, "job");
    let job = terminal.start(&format!("detach {command}"), &file);
    let (command, file) = ticker(&sandbox, "control");
    let control = terminal.start(&command, &file);
    assert_ne!(control.terminal(), 0, "there is no terminal to lose");
    assert_is_detached(&job);
    assert_predicted(&sandbox, &control, &job);
    terminal.shell.signal(Signal::SIGKILL);
    eventually(|| control.is_dead());
    assert_keeps_writing(&job);
}

/// What `ssh -t HOST COMMAND` runs leads the session of its terminal.
#[test]
fn job_that_is_let_go_of_survives_a_dropped_ssh_connection() {
    let sandbox = sandbox_with_ticker();
    let Some(sshd) = Sshd::start(&sandbox) else { return };
    let client = sshd.client();
    let mut started = ["job", "control"].map(|name| {
        let (command, file) = ticker(&sandbox, name);
        let command = format!("exec {command}");
        let words: Vec<&str> = client.iter().map(String::as_str).chain(["-tt", &command]).collect();
        let terminal = Terminal::open_with(&sandbox, &words);
        let process = process_named_in(&file);
        eventually(|| process.leads_session());
        assert_ne!(process.terminal(), 0, "there is no terminal to lose");
        (terminal, process)
    });
    let [(_, job), (_, control)] = &started;
    let (job, control) = (job.clone(), control.clone());
    sandbox.detach(["--pid", &job.pid.to_string()]).succeeds_silently();
    for (terminal, _) in &mut started {
        terminal.shell.signal(Signal::SIGKILL);
    }
    eventually(|| control.is_dead());
    assert!(job.is_alive(), "the job has died");
    // make starts its commands with posix_spawn(3), which may leave 32 and 33 ignored: glibc uses them itself.
    let ignored: Vec<u32> = job.signals("SigIgn").into_iter().filter(|signal| !(32..34).contains(signal)).collect();
    assert_eq!((job.terminal(), ignored), (0, vec![1]));
    let output = &job.descriptors()[&1];
    let length = || fs::metadata(output).unwrap().len();
    let before = length();
    eventually(|| job.is_dead() || length() >= before + 2 * "tick\n".len() as u64);
    assert!(job.is_alive(), "the job has died after the control");
}

#[test]
fn ssh_command_with_detach_returns_at_once() {
    let sandbox = Sandbox::new();
    let Some(sshd) = Sshd::start(&sandbox) else { return };
    // The control keeps the pipe open that sshd reads from.
    let output = sandbox.path("control.pid");
    let mut ssh = sshd.run(&sandbox, "sh -c 'nohup sleep 60 & echo $!'").stdout(File::create(&output).unwrap()).spawn();
    let ssh = ssh.as_mut().unwrap();
    let control = process_named_in(&output);
    // The shell has ended, and the test process, a subreaper, is the new parent.
    eventually(|| control.parent().cast_unsigned() == std::process::id());

    let stdout = Run::of(&mut sshd.run(&sandbox, "detach -P sleep 60")).succeeds();
    let job = Process::started(&stdout);
    assert!(job.is_alive(), "ssh has returned only when the job had ended");
    assert_is_detached(&job);

    assert!(
        ssh.try_wait().unwrap().is_none(),
        "ssh does not wait for a command in the background, so this shows nothing"
    );
    control.signal(Signal::SIGKILL);
    eventually(|| ssh.try_wait().unwrap().is_some());
    assert!(job.is_alive());
}

/// A server of tmux with a session in it.
struct Tmux<'sandbox> {
    sandbox: &'sandbox Sandbox,
}

impl<'sandbox> Tmux<'sandbox> {
    #[track_caller]
    fn start(sandbox: &'sandbox Sandbox) -> Self {
        let tmux = Self { sandbox };
        tmux.run(&["new-session", "-d", "sh", "-i"]);
        tmux
    }

    #[track_caller]
    fn run(&self, args: &[&str]) {
        self.try_run(args).succeeds();
    }

    fn try_run(&self, args: &[&str]) -> Run {
        let mut tmux = self.sandbox.command("tmux");
        Run::of(tmux.arg("-S").arg(self.sandbox.path("tmux")).args(["-f", "/dev/null"]).args(args))
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        self.try_run(&["kill-server"]);
    }
}

#[test]
fn job_survives_a_killed_tmux_window() {
    requires!(tmux);
    let sandbox = sandbox_with_ticker();
    let tmux = Tmux::start(&sandbox);
    // Not the only window: with that one the server would end too.
    tmux.run(&["new-window", "-n", "doomed", "sh", "-i"]);
    let (command, file) = ticker(&sandbox, "job");
    tmux.run(&["send-keys", "-t", "doomed", &format!("detach {command}"), "Enter"]);
    let job = process_named_in(&file);
    let (command, file) = ticker(&sandbox, "control");
    tmux.run(&["send-keys", "-t", "doomed", &command, "Enter"]);
    let control = process_named_in(&file);
    assert_ne!(control.terminal(), 0, "there is no terminal to lose");
    assert_is_detached(&job);
    assert_predicted(&sandbox, &control, &job);
    tmux.run(&["kill-window", "-t", "doomed"]);
    eventually(|| control.is_dead());
    assert_keeps_writing(&job);
    // Only the window is gone, not the server.
    tmux.run(&["has-session"]);
}

/// An X server without a screen, and without a window manager.
struct Display {
    server: Child,
    number: String,
}

impl Display {
    #[track_caller]
    fn open(sandbox: &Sandbox) -> Self {
        let [file, log] = ["display", "Xvfb.log"].map(|name| sandbox.path(name));
        // It looks for a free number itself, and writes it when it is ready.
        let mut command = sandbox.command("Xvfb");
        command.args(["-displayfd", "1", "-ac", "-noreset", "-screen", "0", "640x480x24"]);
        command.stdout(File::create(&file).unwrap()).stderr(File::create(&log).unwrap());
        let mut display = Self { server: command.spawn().unwrap(), number: String::new() };
        display.number = await_result(|| {
            let text = fs::read_to_string(&file).unwrap();
            let number = text.strip_suffix('\n').map(str::to_owned);
            number.ok_or_else(|| format!("Xvfb says {:?}", fs::read_to_string(&log)))
        });
        display
    }

    /// Starts an xterm in which `script` of sh runs.
    #[track_caller]
    fn open_xterm(&self, sandbox: &Sandbox, script: &str) -> Child {
        let mut xterm = sandbox.command("xterm");
        xterm.env("DISPLAY", format!(":{}", self.number)).args(["-e", "sh", "-c", script]);
        // It warns about fonts.
        xterm.stderr(File::create(sandbox.path("xterm.log")).unwrap()).spawn().unwrap()
    }

    /// Sends the message of a window manager whose close button is clicked (ICCCM 4.2.8.1). No common tool sends it
    /// alone, so this speaks the X protocol, little-endian.
    #[track_caller]
    fn ask_to_close(&self, window: u32) {
        let mut server = UnixStream::connect(format!("/tmp/.X11-unix/X{}", self.number)).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // Version 11.0, no authorization.
        server.write_all(b"l\0\x0b\0\0\0\0\0\0\0\0\0").unwrap();
        let mut head = [0; 8];
        server.read_exact(&mut head).unwrap();
        assert_eq!(head[0], 1, "the X server refuses the connection");
        let mut rest = vec![0; 4 * usize::from(u16::from_le_bytes([head[6], head[7]]))];
        server.read_exact(&mut rest).unwrap();

        let protocols = intern_atom(&mut server, b"WM_PROTOCOLS");
        let delete_window = intern_atom(&mut server, b"WM_DELETE_WINDOW");
        // SendEvent to the client that created the window, and in it a ClientMessage of 32-bit values.
        let mut request = vec![25, 0, 11, 0];
        request.extend([window, 0].map(u32::to_le_bytes).concat());
        request.extend([33, 32, 0, 0]);
        request.extend([window, protocols, delete_window, 0, 0, 0, 0].map(u32::to_le_bytes).concat());
        server.write_all(&request).unwrap();
        // The answer to any further request shows that this one has been carried out.
        intern_atom(&mut server, b"WM_PROTOCOLS");
    }
}

impl Drop for Display {
    /// SIGTERM, so that it removes its socket and its lock from /tmp.
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.server.id().try_into().unwrap()), Signal::SIGTERM);
        let _ = self.server.wait();
    }
}

/// The number of an atom of the X server, by an InternAtom request. The length of the name must be a multiple of 4.
#[track_caller]
fn intern_atom(server: &mut UnixStream, name: &[u8]) -> u32 {
    let length = u16::try_from(name.len()).unwrap();
    let mut request = vec![16, 0];
    request.extend([2 + length / 4, length, 0].map(u16::to_le_bytes).concat());
    request.extend(name);
    server.write_all(&request).unwrap();
    let mut reply = [0; 32];
    server.read_exact(&mut reply).unwrap();
    assert_eq!(reply[0], 1, "the X server reports an error: {reply:?}");
    u32::from_le_bytes([reply[8], reply[9], reply[10], reply[11]])
}

/// Opens an xterm with a job and, in the foreground, its control, and closes it by `close`, which is given the number
/// of the window. The control must die, and the job keep writing.
#[track_caller]
fn assert_survives_xterm(close: impl FnOnce(&Display, &mut Child, u32)) {
    requires!(Xvfb, xterm);
    let sandbox = sandbox_with_ticker();
    let display = Display::open(&sandbox);
    let (job, job_file) = ticker(&sandbox, "job");
    let (control, control_file) = ticker(&sandbox, "control");
    let window_file = sandbox.path("window");
    let script = format!("echo $WINDOWID > {}; detach {job}; {control}", window_file.display());
    let mut xterm = display.open_xterm(&sandbox, &script);
    let [job, control] = [job_file, control_file].map(|file: PathBuf| process_named_in(&file));
    assert_ne!(control.terminal(), 0, "there is no terminal to lose");
    assert_is_detached(&job);
    close(&display, &mut xterm, read_number(&window_file));
    eventually(|| xterm.try_wait().unwrap().is_some());
    eventually(|| control.is_dead());
    assert_keeps_writing(&job);
}

fn read_number(file: &Path) -> u32 {
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

#[test]
fn job_survives_an_xterm_closed_by_its_window_manager_message() {
    assert_survives_xterm(|display, _, window| display.ask_to_close(window));
}

#[test]
fn job_survives_a_killed_xterm() {
    assert_survives_xterm(|_, xterm, _| xterm.kill().unwrap());
}
