//! `--notify`: a desktop notification when the command ends, or an error before the start when none could be shown.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::support::{DETACH, Process, Run, Sandbox, await_result, eventually};

/// A session bus, and a notification daemon on a display of its own that prints the notifications it shows.
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
    requires!("dbus-daemon", Xvfb, dunst, "notify-send");
    let sandbox = Sandbox::new();
    let desktop = Desktop::open(&sandbox);
    let shown = || fs::read_to_string(sandbox.path("shown")).unwrap();
    for (options, script, title, urgency) in [
        (&[][..], "sleep 0.1; exit 0", "a & <b> succeeded", "NORMAL"),
        (&["--track"], "exit 7", "a & <b> failed with status 7", "CRITICAL"),
        (&["--full"], "kill -KILL $$", "a & <b> was killed by SIGKILL", "CRITICAL"),
    ] {
        let mut command = sandbox.command(DETACH);
        command.env("DBUS_SESSION_BUS_ADDRESS", &desktop.address).args(["--notify", "-P", "-N", "a & <b>"]);
        let stdout = Run::of(command.args(options).args(["sh", "-c", script])).succeeds();
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
        assert!(body.ends_with("ms'") || *body == "body: 'after 0s'", "{body}");
        // The end is recorded as well.
        let job = Process::new(stdout.trim().parse().unwrap());
        assert!(!sandbox.end_of(&job).is_null());
    }
    eventually(|| sandbox.processes().len() == 3);
}

/// A directory with a notify-send in it that does nothing.
fn directory_with_notify_send(sandbox: &Sandbox) -> PathBuf {
    let bin = sandbox.path("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("notify-send"), "").unwrap();
    fs::set_permissions(bin.join("notify-send"), fs::Permissions::from_mode(0o755)).unwrap();
    bin
}

#[test]
fn notification_without_notify_send_is_125() {
    let sandbox = Sandbox::new();
    let stderr = "detach: cannot show a notification: 'notify-send' is not in PATH\n\
        detach: hint: install it (libnotify-bin on Debian), or use --track, which only records how the command ends";
    let bin = directory_with_notify_send(&sandbox);
    // One that cannot be executed is none.
    fs::set_permissions(bin.join("notify-send"), fs::Permissions::from_mode(0o644)).unwrap();
    for path in ["/nowhere".into(), bin] {
        let mut command = sandbox.command(DETACH);
        Run::of(command.env("PATH", path).args(["--notify", "/usr/bin/touch", "ran"])).fails(125, stderr);
    }
    assert!(!sandbox.work("ran").exists());
    sandbox.assert_nothing_left();
}

#[test]
fn notification_without_a_session_bus_is_125() {
    let sandbox = Sandbox::new();
    let bin = directory_with_notify_send(&sandbox);
    for set in [&[][..], &[("DBUS_SESSION_BUS_ADDRESS", "")], &[("XDG_RUNTIME_DIR", "/nowhere")]] {
        let mut command = sandbox.command(DETACH);
        command.env("PATH", &bin).envs(set.iter().copied()).args(["--notify", "/usr/bin/touch", "ran"]);
        let stderr = "detach: cannot show a notification: there is no session bus\n\
                      detach: hint: use --track, which only records how the command ends";
        Run::of(&mut command).fails(125, stderr);
    }
    assert!(!sandbox.work("ran").exists());
    sandbox.assert_nothing_left();
}

#[test]
fn session_bus_of_the_environment_or_of_the_runtime_directory_is_enough() {
    let sandbox = Sandbox::new();
    let bin = directory_with_notify_send(&sandbox);
    let runtime = sandbox.path("runtime");
    fs::create_dir(&runtime).unwrap();
    let socket = runtime.join("bus");
    let _listener = UnixListener::bind(&socket).unwrap();
    let address = format!("unix:path={}", socket.display());
    for (name, value) in [("DBUS_SESSION_BUS_ADDRESS", address), ("XDG_RUNTIME_DIR", runtime.display().to_string())] {
        sandbox.remove("ran");
        let mut command = sandbox.command(DETACH);
        command.env("PATH", &bin).env(name, value);
        let stdout = Run::of(command.args(["--notify", "-P", "/usr/bin/touch", "ran"])).succeeds();
        sandbox.end_of(&Process::new(stdout.trim().parse().unwrap()));
        assert!(sandbox.work("ran").exists(), "{name}");
    }
}

#[test]
fn notify_send_runs_with_clean_signals_and_is_not_waited_for() {
    let sandbox = Sandbox::new();
    let bin = sandbox.path("bin");
    fs::create_dir(&bin).unwrap();
    let script = "#!/bin/sh\n\
        grep -E '^Sig(Blk|Ign)' /proc/self/status > new; echo \"$@\" >> new; mv new received; sleep 60\n";
    sandbox.script("notify-send", script);
    fs::rename(sandbox.work("notify-send"), bin.join("notify-send")).unwrap();
    let socket = sandbox.path("bus");
    let _listener = UnixListener::bind(&socket).unwrap();
    let mut path = bin.into_os_string();
    path.push(":/usr/bin:/bin");
    let mut command = sandbox.command(DETACH);
    command.env("PATH", path).env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", socket.display()));
    Run::of(command.args(["--notify", "-w", "-o", "/dev/null", "-N", "--help", "sh", "-c", "exit 3"])).exits(3);
    let received = sandbox.state().join("received");
    eventually(|| received.exists());
    let received = fs::read_to_string(received).unwrap();
    let none = "0000000000000000";
    let expected = format!(
        "SigBlk:\t{none}\nSigIgn:\t0000000000000001\n\
         --app-name=detach --urgency=critical -- --help failed with status 3 after "
    );
    assert!(received.starts_with(&expected), "{received}");
    sandbox.detach(["--join", "--", "--help"]).exits(3);
    // The tracking process ends while notify-send still runs.
    eventually(|| sandbox.processes().iter().all(|it| !it.runs("detach")));
}

#[test]
fn notification_is_shown_even_if_the_end_cannot_be_recorded() {
    let sandbox = Sandbox::new();
    let bin = sandbox.path("bin");
    fs::create_dir(&bin).unwrap();
    let shown = sandbox.path("shown");
    sandbox.script("notify-send", &format!("#!/bin/sh\n: > {}\n", shown.display()));
    fs::rename(sandbox.work("notify-send"), bin.join("notify-send")).unwrap();
    let mut path = bin.into_os_string();
    path.push(":/usr/bin:/bin");
    let mut command = sandbox.command(DETACH);
    command.env("PATH", path).env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere");
    let script = "until [ -e go ]; do sleep 0.01; done";
    Run::of(command.args(["--notify", "-o", "/dev/null", "sh", "-c", script])).succeeds_silently();
    fs::remove_dir_all(sandbox.state()).unwrap();
    sandbox.write("go", "");
    eventually(|| shown.exists());
}
