//! The logout experiment: users log in by ssh, start the same program in several ways, ask `--check` what will become of
//! it, and log out, or lose the connection. What lives then?
//!
//! The tests compare that with what `--check` has said; the printer of the logout table (`benches/tables`) shows it.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::machine::Machine;
use super::sandbox::Sandbox;
use super::terminal::Terminal;
use super::wait::{await_result, eventually};

/// A command line of bash, in which COMMAND stands for the program.
pub type Launcher = &'static str;

pub const LAUNCHERS: [Launcher; 5] =
    ["COMMAND &", "nohup COMMAND &", "setsid -f COMMAND", "detach COMMAND", "detach --scope COMMAND"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Exit,
    /// The connection is lost.
    Drop,
}

/// The launchers whose job is in the session of logind, and the one whose job is not.
const IN_SESSION: &[Launcher] = LAUNCHERS.split_at(4).0;
const IN_SCOPE: &[Launcher] = LAUNCHERS.split_at(4).1;

/// A user of `tests/machine`.
struct User {
    name: &'static str,
    event: Event,
    lingers: bool,
    launchers: &'static [Launcher],
}

/// What is left of a session keeps the service manager of its user running, so the scopes have users of their own.
const USERS: [User; 8] = [
    User { name: "exits", event: Event::Exit, lingers: false, launchers: IN_SESSION },
    User { name: "drops", event: Event::Drop, lingers: false, launchers: IN_SESSION },
    User { name: "lingers-exits", event: Event::Exit, lingers: true, launchers: IN_SESSION },
    User { name: "lingers-drops", event: Event::Drop, lingers: true, launchers: IN_SESSION },
    User { name: "scope-exits", event: Event::Exit, lingers: false, launchers: IN_SCOPE },
    User { name: "scope-drops", event: Event::Drop, lingers: false, launchers: IN_SCOPE },
    User { name: "scope-lingers-exits", event: Event::Exit, lingers: true, launchers: IN_SCOPE },
    User { name: "scope-lingers-drops", event: Event::Drop, lingers: true, launchers: IN_SCOPE },
];

impl User {
    /// The file in the home directory that has the PID of the job of this launcher.
    fn pid_files(&self) -> Vec<String> {
        (0..self.launchers.len()).map(|number| format!("{number}.pid")).collect()
    }

    /// Starts the jobs in a terminal, and notes what `--check` says of each.
    #[track_caller]
    fn start(&self, machine: &Machine, terminal: &mut Terminal, fates: &mut Fates) {
        let Self { name, launchers, .. } = self;
        terminal.wait_for("$ ");
        for (launcher, file) in launchers.iter().zip(self.pid_files()) {
            terminal.type_line(&launcher.replace("COMMAND", &format!("program ~/{file}")));
        }
        await_result(|| {
            let files = machine.sh(&format!("cd /home/{name}; find . -name '*.pid'"));
            let count = files.lines().count();
            let end = terminal.screen_end();
            if count == launchers.len() { Ok(()) } else { Err(format!("{name} has {files:?} and sees {end:?}")) }
        });
        // nohup may have written behind the prompt.
        terminal.type_line("");
        terminal.run("echo $$ > shell");
        terminal.run(&format!("detach --check --json $(cat {}) > check.json", self.pid_files().join(" ")));
        let checks = machine.sh(&format!("cat /home/{name}/check.json"));
        let checks: Vec<Value> = checks.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(checks.len(), launchers.len(), "{checks:?}");
        for (launcher, check) in launchers.iter().zip(&checks) {
            let (predicted, reasons) = read_prediction(check);
            fates.insert((*launcher, self.event, self.lingers), Fate { predicted, reasons, lives: false });
        }
    }

    /// Waits until logind and the service manager have done all that they do at this logout.
    #[track_caller]
    fn await_logout(&self, machine: &Machine, kills: bool) {
        let name = self.name;
        let script = format!(
            "for session in $(loginctl list-sessions --no-legend 2> /dev/null | grep ' {name} ' | cut -c 1-8); do
                loginctl show-session --property=State --value $session 2> /dev/null || true
            done
            ! kill -0 $(cat /home/{name}/shell) 2> /dev/null || echo shell
            echo manager $(systemctl is-active user@$(id -u {name}) || true)"
        );
        let is_session_left = !kills && self.launchers == IN_SESSION;
        let manager = if self.lingers || is_session_left { "manager active\n" } else { "manager inactive\n" };
        let expected = format!("{}{manager}", if is_session_left { "closing\n" } else { "" });
        await_result(|| {
            let states = machine.sh(&script);
            if states == expected { Ok(()) } else { Err(format!("{name}: {states:?}, not {expected:?}")) }
        });
    }

    /// Which of the jobs live.
    fn look(&self, machine: &Machine) -> Vec<bool> {
        let files = self.pid_files().join(" ");
        let script = format!(
            "cd /home/{}; for pid in $(cat {files}); do head -c 5 /proc/$pid/cmdline | grep . || echo none; done",
            self.name
        );
        machine.sh(&format!("({script}) 2> /dev/null")).lines().map(|name| name == "sleep").collect()
    }
}

/// What was predicted, and what has happened.
#[derive(Debug)]
pub struct Fate {
    /// The worst of what `--check` says of what happens in such a logout: `survives`, `perhaps` or `ends`.
    pub predicted: String,
    /// Why, where it is not certain.
    pub reasons: String,
    pub lives: bool,
}

/// Launcher, event, and whether the user lingers.
pub type Case = (Launcher, Event, bool);

pub type Fates = BTreeMap<Case, Fate>;

/// Boots a machine with this value of KillUserProcesses, and observes every user and launcher. `None` where no machine can
/// be booted.
#[track_caller]
pub fn observe(kills: bool) -> Option<Fates> {
    let sandbox = Sandbox::new();
    let machine = Machine::boot(&sandbox, kills)?;
    // It writes its PID in one step.
    let program = "#!/bin/sh\\necho $$ > $1.new\\nmv $1.new $1\\nexec sleep 300\\n";
    machine.sh(&format!("printf '{program}' > /usr/bin/program; chmod 755 /usr/bin/program"));
    for user in USERS.iter().filter(|user| user.lingers) {
        machine.enable_lingering(user.name);
    }
    let mut terminals: Vec<Terminal> = USERS.iter().map(|user| machine.open_terminal(user.name)).collect();
    let mut fates = Fates::new();
    for (user, terminal) in USERS.iter().zip(&mut terminals) {
        user.start(&machine, terminal, &mut fates);
    }
    for (user, terminal) in USERS.iter().zip(&mut terminals) {
        match user.event {
            Event::Exit => terminal.type_line("exit"),
            Event::Drop => terminal.shell.signal(Signal::SIGKILL),
        }
        eventually(|| terminal.is_shell_dead());
    }
    for user in &USERS {
        user.await_logout(&machine, kills);
        for (launcher, lives) in user.launchers.iter().zip(user.look(&machine)) {
            fates.get_mut(&(*launcher, user.event, user.lingers)).unwrap().lives = lives;
        }
    }
    Some(fates)
}

/// The worst outcome of the three events that a logout by ssh consists of, and the facts behind it.
fn read_prediction(check: &Value) -> (String, String) {
    let events = ["shell_exit", "terminal_closing", "logout"];
    let outcomes = events.map(|event| check["verdict"][event].as_str().unwrap());
    let worst = ["ends", "perhaps", "survives"].into_iter().find(|outcome| outcomes.contains(outcome)).unwrap();
    let bad = check["findings"].as_array().unwrap().iter().filter(|finding| finding["grade"] != "good");
    let reasons = bad.map(|finding| format!("{}; ", finding["fact"].as_str().unwrap()));
    (worst.to_owned(), reasons.collect())
}
