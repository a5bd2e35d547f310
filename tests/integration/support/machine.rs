//! A machine with systemd, logind and sshd, in namespaces of its own: `tests/machine` boots it; it ends with its value.
//!
//! Its users log in by real ssh, so that each has a session of logind and a service manager. Its files are a throw-away
//! copy of those of this machine, except for what it has of its own in /home, /run and /tmp.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::DETACH;
use super::requirements::{are_met, skip};
use super::run::Run;
use super::sandbox::Sandbox;
use super::terminal::Terminal;
use super::wait::await_result;

/// What it needs of this machine: programs, and files of systemd, libpam-systemd and dbus-user-session.
const NEEDS: [&str; 11] = [
    "root",
    "setsid",
    "setpriv",
    "unshare",
    "nsenter",
    "ssh",
    "ssh-keygen",
    "/usr/sbin/sshd",
    "/lib/systemd/systemd",
    "/usr/share/pam-configs/systemd",
    "/usr/lib/systemd/user/dbus.socket",
];

pub struct Machine<'sandbox> {
    sandbox: &'sandbox Sandbox,
    /// It ends, and the machine with it, when its stdin does.
    script: Child,
    /// Its process 1, as seen from here.
    init: String,
    key: PathBuf,
}

impl<'sandbox> Machine<'sandbox> {
    /// `None` where a program is missing, or where namespaces or mounts are not allowed. `kills` is the value of
    /// KillUserProcesses.
    #[track_caller]
    pub fn boot(sandbox: &'sandbox Sandbox, kills: bool) -> Option<Self> {
        if !are_met(&NEEDS) {
            return None;
        }
        let key = sandbox.path("key");
        Run::of(sandbox.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key)).exits(0);
        let directory = sandbox.path("machine");
        std::fs::create_dir(&directory).unwrap();
        let log = sandbox.path("machine.log");
        // In a session of its own, it survives the signals that end a test run, and cleans up.
        let mut command = sandbox.command("setsid");
        command.arg("sh").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine")).arg(directory).arg(DETACH);
        command.arg(key.with_extension("pub")).arg(if kills { "yes" } else { "no" });
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap());
        let mut script = command.spawn().unwrap();
        let mut init = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut init).unwrap();
        let machine = Self { sandbox, script, init: init.trim().to_owned(), key };
        let has_booted = !machine.init.is_empty() && await_result(|| machine.look_for_services());
        if !has_booted {
            skip(&format!("systemd does not boot in namespaces here: {:?}", std::fs::read_to_string(log)));
            return None;
        }
        Some(machine)
    }

    /// Whether its services run; false if it has ended.
    fn look_for_services(&self) -> Result<bool, String> {
        // sshd counts as active before it listens: proc_pid_net(5).
        let script = "systemctl is-active test-sshd systemd-logind dbus && grep ' 0100007F:0016 00000000:0000 0A ' /proc/net/tcp";
        let run = Run::of(self.inside("sh").args(["-c", script]));
        if run.status == 0 {
            return Ok(true);
        }
        if PathBuf::from(format!("/proc/{}", self.init)).exists() { Err(format!("{run:?}")) } else { Ok(false) }
    }

    /// A program that root runs in the machine, in no session of logind.
    pub fn inside(&self, program: &str) -> Command {
        let mut command = self.sandbox.command("nsenter");
        command.args(["--target", &self.init, "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--"]);
        command.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", program]);
        command
    }

    /// Runs a script of sh as root, in no session of logind. Returns its stdout.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        Run::of(self.inside("sh").args(["-ec", script])).succeeds()
    }

    /// Runs a script of bash as `user`, in no session of logind: much quicker than a login.
    #[track_caller]
    pub fn sh_as(&self, user: &str, script: &str) -> Run {
        let id = format!("$(id -u {user})");
        let become_user =
            format!("setpriv --reuid={id} --regid={id} --init-groups env HOME=/home/{user} bash -c \"$0\"");
        Run::of(self.inside("sh").args(["-c", &format!("cd /home/{user}; exec {become_user}"), script]))
    }

    /// Runs a script of bash in a login of `user`, without a terminal.
    #[track_caller]
    pub fn log_in_for(&self, user: &str, script: &str) -> Run {
        let words = self.client(user);
        Run::of(self.sandbox.command(&words[0]).args(&words[1..]).arg(script))
    }

    /// A terminal in which `user` logs in. Its `shell` is the client: when that is killed, the connection is lost.
    pub fn open_terminal(&self, user: &str) -> Terminal {
        let mut words = self.client(user);
        words.push("-tt".to_owned());
        Terminal::open_with(self.sandbox, &words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Makes the service manager of `user` start now, and stay.
    #[track_caller]
    pub fn enable_lingering(&self, user: &str) {
        // The second command waits until it has started.
        self.sh(&format!("loginctl enable-linger {user}; systemctl start user@$(id -u {user})"));
    }

    /// Of the client, which runs on this side, only the network is that of the machine: no process stands between it and
    /// its terminal.
    fn client(&self, user: &str) -> Vec<String> {
        // A dumb terminal, on which bash shows its prompt and nothing more.
        let mut words: Vec<_> = ["env", "TERM=dumb", "nsenter"].map(str::to_owned).into();
        words.push(format!("--net=/proc/{}/ns/net", self.init));
        words.extend(["ssh", "-F", "none", "-i"].map(str::to_owned));
        words.push(self.key.display().to_string());
        for option in ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"] {
            words.extend(["-o".to_owned(), option.to_owned()]);
        }
        words.push(format!("{user}@127.0.0.1"));
        words
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}
