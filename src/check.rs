//! Facts to findings to a verdict: what would happen to a process when its terminal closes, its shell exits, its user
//! logs out. Pure: it reads nothing and writes nothing; the facts come from `facts`, the printing is in `verdict`.
//!
//! The rules are those of termios(3), setsid(2), credentials(7), signal(7), and of the kernel where these are silent:
//! the leader of a session is sent SIGHUP when its terminal closes, the foreground process group when the leader ends,
//! and a process group that becomes orphaned while a process of it is stopped is sent SIGHUP and SIGCONT.

use nix::libc;

use crate::error::escape;
use crate::facts::{Descriptor, Facts, Relative, Target};
use crate::proc::{Handling, terminal_name};

/// Whether the process outlives an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Survives,
    /// That depends on what cannot be seen: on the program, on the settings of a shell.
    Perhaps,
    Ends,
}

/// The outcome of each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub shell_exit: Outcome,
    pub terminal_closing: Outcome,
    pub logout: Outcome,
}

/// How a hazard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    Good,
    Bad,
    Unknown,
}

/// One hazard, and how this process stands to it.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// A stable name.
    pub hazard: &'static str,
    /// The name for people.
    pub title: &'static str,
    pub grade: Grade,
    pub fact: String,
    pub remedy: Option<&'static str>,
}

const DETACH: &str = "start it with detach";

/// Judges all hazards, in the order in which they are told.
pub fn judge(facts: &Facts) -> (Vec<Finding>, Verdict) {
    let (terminal, terminal_fact) = in_namespace(facts, on_terminal_closing(facts));
    let (shell, shell_fact) = in_namespace(facts, on_shell_exit(facts));
    let (logout, logout_fact, logout_remedy) = on_logout(facts);
    let streams = look_at_streams(facts);
    // Where a terminal is gone, every read ends and every write fails with EIO: some programs end of that.
    let hung_up = if streams.grade == Grade::Good { Outcome::Survives } else { Outcome::Perhaps };
    let verdict = Verdict { shell_exit: shell.max(hung_up), terminal_closing: terminal.max(hung_up), logout };
    let of_outcome = |hazard, title, outcome, fact, remedy| {
        let grade = match outcome {
            Outcome::Survives => Grade::Good,
            Outcome::Perhaps => Grade::Unknown,
            Outcome::Ends => Grade::Bad,
        };
        Finding { hazard, title, grade, fact, remedy: if outcome == Outcome::Survives { None } else { remedy } }
    };
    let findings = vec![
        of_outcome("terminal", "terminal closing", terminal, terminal_fact, Some(DETACH)),
        of_outcome("shell", "shell's exit", shell, shell_fact, Some(DETACH)),
        look_at_keys(facts),
        streams,
        look_at_background(facts),
        of_outcome("logout", "logout", logout, logout_fact, logout_remedy),
        look_at_memory(facts),
        look_at_children(facts),
    ];
    (findings, verdict)
}

/// A PID namespace ends with its first process, which itself ignores what it does not catch: pid_namespaces(7).
fn in_namespace(facts: &Facts, judged: (Outcome, String)) -> (Outcome, String) {
    if facts.is_in_this_namespace {
        judged
    } else {
        (Outcome::Perhaps, "it is in another PID namespace, and ends with the first process of that".into())
    }
}

fn handling_of(facts: &Facts, signal: i32) -> Handling {
    facts.status.as_ref().map_or(Handling::Caught, |status| status.disposition(signal))
}

/// What a signal, when it is sent, does to the process.
fn on_signal(facts: &Facts, signal: i32) -> Outcome {
    match handling_of(facts, signal) {
        Handling::Ignored => Outcome::Survives,
        Handling::Caught => Outcome::Perhaps,
        Handling::Default => Outcome::Ends,
    }
}

fn on_hangup(facts: &Facts) -> Outcome {
    on_signal(facts, libc::SIGHUP)
}

fn describe_hangup(facts: &Facts) -> &'static str {
    match handling_of(facts, libc::SIGHUP) {
        Handling::Ignored => "which it ignores",
        Handling::Caught => "which it catches",
        Handling::Default => "which ends it",
    }
}

fn is_leader(facts: &Facts) -> bool {
    facts.stat.session == facts.pid
}

fn is_in_foreground(facts: &Facts) -> bool {
    facts.stat.terminal != 0 && facts.stat.foreground == facts.stat.group
}

/// Whether the leader of the session ends when its terminal closes. These shells catch SIGHUP by themselves and end of
/// it, where they do job control and so are not in the group of their jobs; another handler may do anything. And a leader
/// that ignores SIGHUP may end as its input does.
fn leader_ends(leader: &Relative, facts: &Facts) -> Outcome {
    let catches_to_end = [&b"bash"[..], b"fish", b"zsh"].contains(&leader.name.as_slice());
    match leader.hangup {
        Handling::Default => Outcome::Ends,
        Handling::Caught if catches_to_end && leader.group != facts.stat.group => Outcome::Ends,
        Handling::Caught | Handling::Ignored => Outcome::Perhaps,
    }
}

/// What becomes of a job that is stopped when its shell ends: its process group is orphaned, and the kernel sends it
/// SIGHUP and SIGCONT. bash sends SIGTERM as well. A shell that does not lead the session may end in another way.
fn on_orphaning(facts: &Facts, shell: &Relative) -> (Outcome, String) {
    let mut outcome = on_hangup(facts);
    let mut fact = format!(
        "it is stopped, and orphaned when {} ends: the kernel sends it SIGHUP, {}",
        name(shell),
        describe_hangup(facts)
    );
    if shell.name == b"bash" && outcome == Outcome::Survives {
        outcome = on_signal(facts, libc::SIGTERM);
        fact += ", and bash sends it SIGTERM";
    }
    (if shell.pid == facts.stat.session { outcome } else { outcome.min(Outcome::Perhaps) }, fact)
}

fn name(relative: &Relative) -> String {
    format!("{} (PID {})", escape(&relative.name, ""), relative.pid)
}

fn on_terminal_closing(facts: &Facts) -> (Outcome, String) {
    let stat = &facts.stat;
    let how = describe_hangup(facts);
    if stat.terminal == 0 {
        return (Outcome::Survives, "it has no controlling terminal, so nobody sends it SIGHUP".into());
    }
    let terminal = terminal_name(stat.terminal);
    if is_leader(facts) {
        return (on_hangup(facts), format!("it leads the session of {terminal}: the kernel sends it SIGHUP, {how}"));
    }
    let Some(leader) = &facts.leader else {
        return (Outcome::Perhaps, format!("it is in a session of {terminal} whose leader cannot be seen"));
    };
    let leader_end = leader_ends(leader, facts);
    if is_in_foreground(facts) {
        let leader = name(leader);
        let fact =
            format!("it is in the foreground of {terminal}: when {leader} ends, the kernel sends it SIGHUP, {how}");
        return (on_hangup(facts).min(leader_end), fact);
    }
    if let Some(shell) = facts.shell.as_ref().filter(|_| facts.is_group_stopped) {
        let (outcome, fact) = on_orphaning(facts, shell);
        return (outcome.min(leader_end), fact);
    }
    match &facts.shell {
        Some(shell) if passes_hangup_on(shell) != Outcome::Survives => {
            let fact = format!("{} passes SIGHUP, {how}, on to jobs that are not disowned", name(shell));
            (on_hangup(facts).min(Outcome::Perhaps), fact)
        }
        _ => (Outcome::Survives, format!("it is in the background of {terminal}, and nobody passes SIGHUP on to it")),
    }
}

/// Whether a shell sends its jobs the SIGHUP that it gets.
fn passes_hangup_on(shell: &Relative) -> Outcome {
    match shell.name.as_slice() {
        b"busybox" | b"dash" | b"tcsh" => Outcome::Survives,
        _ => Outcome::Perhaps,
    }
}

fn on_shell_exit(facts: &Facts) -> (Outcome, String) {
    let how = describe_hangup(facts);
    if is_in_foreground(facts) && !is_leader(facts) {
        let fact =
            format!("it is in the foreground: when the leader of its session ends, the kernel sends it SIGHUP, {how}");
        // A shell within a shell does not take the terminal with it.
        let is_of_leader = facts.shell.as_ref().is_some_and(|shell| shell.pid == facts.stat.session);
        return (if is_of_leader { on_hangup(facts) } else { on_hangup(facts).min(Outcome::Perhaps) }, fact);
    }
    let Some(shell) = &facts.shell else {
        return (Outcome::Survives, "it is no job of a shell".into());
    };
    if facts.is_group_stopped {
        return on_orphaning(facts, shell);
    }
    let (outcome, condition) = match shell.name.as_slice() {
        b"bash" => (Outcome::Perhaps, "on exit if it is a login shell with huponexit"),
        b"zsh" => (Outcome::Perhaps, "on exit unless NO_HUP is set or they are disowned"),
        b"fish" => (Outcome::Perhaps, "on exit unless they are disowned"),
        _ => (passes_hangup_on(shell), "on exit, perhaps"),
    };
    if outcome == Outcome::Survives {
        return (outcome, format!("{} leaves its jobs alone when it exits", name(shell)));
    }
    (on_hangup(facts).min(outcome), format!("{} sends SIGHUP, {how}, to its jobs {condition}", name(shell)))
}

fn look_at_keys(facts: &Facts) -> Finding {
    let finding = |grade, fact: String| Finding { hazard: "keys", title: "keys", grade, fact, remedy: None };
    let keys = [(libc::SIGINT, "Ctrl-C"), (libc::SIGQUIT, "Ctrl-\\"), (libc::SIGTSTP, "Ctrl-Z")];
    if facts.stat.terminal == 0 {
        finding(Grade::Good, "without a controlling terminal, no key reaches it".into())
    } else if !is_in_foreground(facts) {
        finding(Grade::Good, "it is in the background: keys go to the foreground process group".into())
    } else {
        let of = |wanted| {
            let keys = keys.iter().filter(|(signal, _)| handling_of(facts, *signal) == wanted).map(|(_, key)| *key);
            keys.collect::<Vec<_>>().join(", ")
        };
        match (of(Handling::Default), of(Handling::Caught)) {
            (default, _) if !default.is_empty() => {
                finding(Grade::Bad, format!("it is in the foreground, and does nothing against {default}"))
            }
            (_, caught) if !caught.is_empty() => {
                finding(Grade::Unknown, format!("it is in the foreground, and catches {caught}"))
            }
            _ => finding(Grade::Good, "it is in the foreground, and ignores the signals of all keys".into()),
        }
    }
}

fn look_at_streams(facts: &Facts) -> Finding {
    let finding = |grade, fact, remedy| Finding { hazard: "streams", title: "open terminals", grade, fact, remedy };
    if facts.descriptors.is_none() {
        return finding(Grade::Unknown, "its descriptors may not be read".into(), None);
    }
    let list = |descriptors: &[&Descriptor]| {
        let more = descriptors.len().saturating_sub(10);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let numbers = descriptors.iter().take(10).map(|descriptor| match descriptor.fd {
            0 => "stdin".to_owned(),
            1 => "stdout".to_owned(),
            2 => "stderr".to_owned(),
            fd => fd.to_string(),
        });
        numbers.collect::<Vec<_>>().join(", ") + &more
    };
    let terminals = facts.descriptors_on(|target| *target == Target::Terminal);
    if !terminals.is_empty() {
        let fact = format!("{} on a terminal: once that is gone, reads end and writes fail with EIO", list(&terminals));
        return finding(Grade::Bad, fact, Some("start it with detach, or with its streams redirected"));
    }
    // Of pipes that nobody without a terminal is seen to hold.
    let pipes = |is_wanted: fn(&[u32], bool) -> bool| {
        facts.descriptors_on(|target| match target {
            Target::Pipe { other_end, is_complete } => {
                other_end.iter().all(|terminal| *terminal != 0) && is_wanted(other_end, *is_complete)
            }
            _ => false,
        })
    };
    let doubtful = pipes(|_, is_complete| !is_complete);
    if !doubtful.is_empty() {
        let fact =
            format!("{} on a pipe, and not all processes that may hold its other end can be read", list(&doubtful));
        return finding(Grade::Unknown, fact, None);
    }
    let held = pipes(|other_end, _| !other_end.is_empty());
    if !held.is_empty() {
        let fact = format!("{} on a pipe whose other end only processes of a terminal hold", list(&held));
        return finding(Grade::Bad, fact, Some("start it with detach, or with its streams redirected"));
    }
    let sockets = facts.descriptors_on(|target| *target == Target::Socket);
    let sockets: Vec<&Descriptor> = sockets.into_iter().filter(|descriptor| descriptor.fd <= 2).collect();
    if !sockets.is_empty() {
        let fact = format!("{} on a socket, and nothing tells who holds its other end", list(&sockets));
        return finding(Grade::Unknown, fact, None);
    }
    finding(Grade::Good, "no descriptor leads to a terminal, or to a pipe that ends with one".into(), None)
}

fn look_at_background(facts: &Facts) -> Finding {
    let finding = |grade, fact: &str| {
        let (hazard, title) = ("background", "background access");
        Finding { hazard, title, grade, fact: fact.into(), remedy: None }
    };
    let has_terminal = !facts.descriptors_on(|target| *target == Target::Terminal).is_empty();
    let stops = |signal| handling_of(facts, signal) == Handling::Default;
    if facts.stat.terminal == 0 {
        finding(Grade::Good, "without a controlling terminal, neither SIGTTIN nor SIGTTOU stops it")
    } else if is_in_foreground(facts) {
        finding(Grade::Good, "it is in the foreground, where it may read and write")
    } else if facts.descriptors.is_none() {
        finding(Grade::Unknown, "its descriptors may not be read")
    } else if !has_terminal {
        finding(Grade::Good, "none of its descriptors is on a terminal")
    } else if facts.shell.is_none() {
        finding(Grade::Good, "its process group is orphaned: a read fails instead of stopping it")
    } else if stops(libc::SIGTTIN) {
        finding(Grade::Bad, "a read from the terminal stops it (SIGTTIN), with 'stty tostop' also a write (SIGTTOU)")
    } else if stops(libc::SIGTTOU) {
        finding(Grade::Unknown, "a write to the terminal stops it (SIGTTOU) if 'stty tostop' is set")
    } else {
        finding(Grade::Good, "it does not let SIGTTIN and SIGTTOU stop it")
    }
}

fn on_logout(facts: &Facts) -> (Outcome, String, Option<&'static str>) {
    let manager = &facts.manager;
    let service = Some("systemd-run --user, with loginctl enable-linger");
    if !manager.runs && manager.has_elogind {
        return (Outcome::Perhaps, "elogind runs, whose settings are not read".into(), None);
    }
    if !manager.runs {
        return (Outcome::Survives, "no systemd here: nobody ends processes at logout".into(), None);
    }
    let Some(group) = &facts.control_group else {
        return (Outcome::Perhaps, "its control group may not be read".into(), None);
    };
    let part = group.split(|byte| *byte == b'/').find(|part| {
        part.starts_with(b"session-") && part.ends_with(b".scope")
            || part.starts_with(b"user@") && part.ends_with(b".service")
    });
    let unit = part.map(|part| escape(part, "")).unwrap_or_default();
    match part {
        None => (Outcome::Survives, "its control group belongs to no login".into(), None),
        Some(part) if part.starts_with(b"session-") => match manager.kills_user_processes {
            Some(true) => {
                (Outcome::Ends, format!("it is in {unit}, and KillUserProcesses=yes ends all of that"), service)
            }
            Some(false) => {
                (Outcome::Survives, format!("it is in {unit}, which is not ended (KillUserProcesses=no)"), None)
            }
            None => (Outcome::Perhaps, format!("it is in {unit}, and no file says what KillUserProcesses is"), service),
        },
        Some(_) => match manager.lingers {
            Some(true) => (Outcome::Survives, format!("it is in {unit}, which goes on (lingering is enabled)"), None),
            Some(false) => {
                let fact = format!("it is in {unit}, which ends with the last login (lingering is off)");
                (Outcome::Ends, fact, Some("loginctl enable-linger"))
            }
            None => (Outcome::Perhaps, format!("it is in {unit}, and its user has no name here"), service),
        },
    }
}

fn look_at_memory(facts: &Facts) -> Finding {
    let finding = |grade, fact, remedy| Finding { hazard: "memory", title: "memory pressure", grade, fact, remedy };
    match (facts.manager.has_oomd, &facts.control_group, facts.terminals.first()) {
        (false, ..) => {
            finding(Grade::Good, "systemd-oomd does not run, which would end whole control groups".into(), None)
        }
        (true, None, _) => finding(Grade::Unknown, "its control group may not be read".into(), None),
        (true, Some(_), Some(terminal)) => {
            let fact = format!("it shares its control group with {}: systemd-oomd would end both", name(terminal));
            finding(Grade::Bad, fact, Some("systemd-run --user --scope"))
        }
        (true, Some(_), None) => finding(Grade::Good, "no terminal is in its control group".into(), None),
    }
}

fn look_at_children(facts: &Facts) -> Finding {
    let finding = |grade, fact, remedy| Finding { hazard: "children", title: "children", grade, fact, remedy };
    let zombies = facts.children.iter().filter(|child| child.is_zombie).count();
    let living = facts.children.len() - zombies;
    if zombies > 0 {
        let plural = if zombies == 1 { "zombie" } else { "zombies" };
        return finding(Grade::Bad, format!("{zombies} {plural}: children that it has not waited for"), None);
    }
    match handling_of(facts, libc::SIGCHLD) {
        Handling::Ignored => {
            let fact = format!("{living}; it ignores SIGCHLD, so it may not learn how they end");
            finding(Grade::Bad, fact, Some("--sigchld default"))
        }
        _ => finding(Grade::Good, format!("{living}, and no zombies"), None),
    }
}

impl Verdict {
    /// In one line.
    pub fn sentence(self) -> String {
        let events = [
            ("the shell's exit", self.shell_exit),
            ("the terminal closing", self.terminal_closing),
            ("logout", self.logout),
        ];
        let part = |word: &str, wanted| {
            let names = events.iter().filter(|(_, outcome)| *outcome == wanted).map(|(name, _)| *name);
            let names = names.collect::<Vec<_>>().join(", ");
            if names.is_empty() { None } else { Some(format!("{word}: {names}")) }
        };
        let parts =
            [part("survives", Outcome::Survives), part("perhaps", Outcome::Perhaps), part("not", Outcome::Ends)];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    /// Whether it outlives what ends most programs.
    pub fn survives(self) -> bool {
        self.shell_exit == Outcome::Survives && self.terminal_closing == Outcome::Survives
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use nix::unistd::Pid;

    use super::*;
    use crate::facts::Child;
    use crate::logind::Manager;
    use crate::proc::{self, SignalSet, Status};

    const HUP: u64 = 1;
    const TERM: u64 = 1 << 14;
    const PTS: u32 = 0x8803;

    /// A process that nothing can harm.
    fn safe() -> Facts {
        let pid = Pid::from_raw(100);
        let line = b"100 (x) S 1 100 100 0 -1 0 0 0 0 0 0 0 0 0 0 20 0 1 0 5";
        let stat = proc::parse_stat(line).unwrap_or_else(|| unreachable!());
        let set = SignalSet(0);
        let status = Status { user: 1000, umask: Some(0o22), blocked: set, ignored: set, caught: set };
        Facts {
            pid,
            stat,
            status: Some(status),
            argv: Vec::new(),
            directory: None,
            parent: None,
            leader: None,
            shell: None,
            is_group_stopped: false,
            is_in_this_namespace: true,
            descriptors: Some(Vec::new()),
            control_group: Some(b"/user.slice/session-2.scope".to_vec()),
            terminals: Vec::new(),
            manager: Manager::default(),
            children: Vec::new(),
        }
    }

    fn relative(name: &str, hangup: Handling) -> Relative {
        Relative { pid: Pid::from_raw(50), name: name.into(), group: Pid::from_raw(50), hangup }
    }

    /// The job of a shell, in the background.
    fn job_of(shell: &str) -> Facts {
        let mut facts = safe();
        facts.stat.session = Pid::from_raw(50);
        facts.stat.terminal = PTS;
        facts.stat.foreground = Pid::from_raw(50);
        let hangup = if shell == "dash" { Handling::Default } else { Handling::Caught };
        facts.leader = Some(relative(shell, hangup));
        facts.shell = facts.leader.clone();
        facts
    }

    fn in_foreground(mut facts: Facts) -> Facts {
        facts.stat.foreground = facts.stat.group;
        facts
    }

    fn stopped(mut facts: Facts) -> Facts {
        facts.is_group_stopped = true;
        facts
    }

    /// Of a shell that another shell has started.
    fn nested(mut facts: Facts) -> Facts {
        facts.shell = Some(Relative { pid: Pid::from_raw(60), ..relative("bash", Handling::Caught) });
        facts
    }

    /// In the process group of a shell that leads the session and runs a script.
    fn of_script(mut facts: Facts) -> Facts {
        facts.leader = Some(Relative { group: facts.stat.group, ..relative("dash", Handling::Caught) });
        facts.shell = None;
        facts
    }

    fn with_signals(mut facts: Facts, ignored: u64, caught: u64, blocked: u64) -> Facts {
        if let Some(status) = &mut facts.status {
            status.ignored = SignalSet(ignored);
            status.caught = SignalSet(caught);
            status.blocked = SignalSet(blocked);
        }
        facts
    }

    fn led_by(mut facts: Facts, leader: Option<Relative>) -> Facts {
        facts.leader = leader;
        facts
    }

    fn with_open(mut facts: Facts, fd: i32, target: Target) -> Facts {
        facts.descriptors.get_or_insert_default().push(Descriptor { fd, target, path: PathBuf::new() });
        facts
    }

    #[test]
    fn hangups_are_judged() {
        use Outcome::{Ends, Perhaps, Survives};
        let leader = || {
            let mut facts = safe();
            facts.stat.terminal = PTS;
            facts
        };
        for (what, facts, closing, exit) in [
            ("no terminal", safe(), Survives, Survives),
            ("leader", leader(), Ends, Survives),
            ("leader that ignores", with_signals(leader(), HUP, 0, 0), Survives, Survives),
            ("leader that catches", with_signals(leader(), 0, HUP, 0), Perhaps, Survives),
            ("leader that blocks", with_signals(leader(), 0, 0, HUP), Perhaps, Survives),
            ("job of bash", job_of("bash"), Perhaps, Perhaps),
            ("job of zsh", job_of("zsh"), Perhaps, Perhaps),
            ("job of fish", job_of("fish"), Perhaps, Perhaps),
            ("job of nu", job_of("nu"), Perhaps, Perhaps),
            ("job of an unknown shell", job_of("mybash"), Perhaps, Perhaps),
            ("job of ksh", job_of("ksh93"), Perhaps, Perhaps),
            ("stopped deaf job of bash", stopped(with_signals(job_of("bash"), HUP, 0, 0)), Ends, Ends),
            ("stopped job deaf to all", stopped(with_signals(job_of("bash"), HUP | TERM, 0, 0)), Survives, Survives),
            ("stopped job that catches all", stopped(with_signals(job_of("bash"), HUP, TERM, 0)), Perhaps, Perhaps),
            ("stopped, orphaned already", Facts { shell: None, ..stopped(job_of("bash")) }, Survives, Survives),
            ("stopped, in a nested shell", stopped(nested(job_of("bash"))), Perhaps, Perhaps),
            ("foreground of a nested shell", in_foreground(nested(job_of("bash"))), Ends, Perhaps),
            ("foreground of a script", in_foreground(of_script(job_of("dash"))), Perhaps, Perhaps),
            ("job of dash", job_of("dash"), Survives, Survives),
            ("deaf job of bash", with_signals(job_of("bash"), HUP, 0, 0), Survives, Survives),
            ("catching job of bash", with_signals(job_of("bash"), 0, HUP, 0), Perhaps, Perhaps),
            ("stopped job", stopped(job_of("dash")), Ends, Ends),
            ("stopped deaf job", stopped(with_signals(job_of("dash"), HUP, 0, 0)), Survives, Survives),
            ("foreground", in_foreground(job_of("dash")), Ends, Ends),
            ("deaf foreground", in_foreground(with_signals(job_of("dash"), HUP, 0, 0)), Survives, Survives),
            (
                "foreground of a leader that ignores",
                in_foreground(led_by(job_of("bash"), Some(relative("bash", Handling::Ignored)))),
                Perhaps,
                Ends,
            ),
            (
                "foreground of a program that catches",
                in_foreground(led_by(job_of("bash"), Some(relative("make", Handling::Caught)))),
                Perhaps,
                Ends,
            ),
            ("elsewhere", Facts { is_in_this_namespace: false, ..safe() }, Perhaps, Perhaps),
            (
                "foreground of a dash with a trap",
                in_foreground(led_by(job_of("dash"), Some(relative("dash", Handling::Caught)))),
                Perhaps,
                Ends,
            ),
            ("leader not to be seen", led_by(job_of("bash"), None), Perhaps, Perhaps),
        ] {
            let (_, verdict) = judge(&facts);
            assert_eq!((verdict.terminal_closing, verdict.shell_exit), (closing, exit), "{what}");
            assert_eq!(verdict.survives(), (closing, exit) == (Survives, Survives), "{what}");
        }
    }

    fn grade(facts: &Facts, hazard: &str) -> (Grade, String) {
        let findings = judge(facts).0.into_iter().find(|finding| finding.hazard == hazard);
        findings.map_or((Grade::Unknown, "not told".into()), |finding| (finding.grade, finding.fact))
    }

    #[test]
    fn streams_are_judged() {
        let pipe = |other_end: &[u32]| Target::Pipe { other_end: other_end.to_vec(), is_complete: true };
        let doubtful = |other_end: &[u32]| Target::Pipe { other_end: other_end.to_vec(), is_complete: false };
        for (target, expected) in [
            (doubtful(&[]), Grade::Unknown),
            (doubtful(&[PTS]), Grade::Unknown),
            (doubtful(&[PTS, 0]), Grade::Good),
            (Target::Terminal, Grade::Bad),
            (Target::Other, Grade::Good),
            (Target::Socket, Grade::Good),
            (pipe(&[]), Grade::Good),
            (pipe(&[0]), Grade::Good),
            (pipe(&[PTS, 0]), Grade::Good),
            (pipe(&[PTS, PTS]), Grade::Bad),
        ] {
            let facts = with_open(safe(), 7, target.clone());
            let (grade, fact) = grade(&facts, "streams");
            assert_eq!(grade, expected, "{target:?}");
            assert_eq!(fact.starts_with("7 on a "), grade != Grade::Good, "{fact}");
            let outcome = if grade == Grade::Good { Outcome::Survives } else { Outcome::Perhaps };
            assert_eq!(judge(&facts).1.terminal_closing, outcome);
        }
        assert_eq!(grade(&with_open(safe(), 1, Target::Socket), "streams").0, Grade::Unknown);
        let unreadable = Facts { descriptors: None, ..safe() };
        assert_eq!(grade(&unreadable, "streams").0, Grade::Unknown);
        assert!(!judge(&unreadable).1.survives());
    }

    #[test]
    fn background_access_is_judged() {
        let on_terminal = |fd| with_open(job_of("dash"), fd, Target::Terminal);
        let [ttin, ttou] = [1 << (libc::SIGTTIN - 1), 1 << (libc::SIGTTOU - 1)];
        for (facts, expected) in [
            (safe(), Grade::Good),
            (job_of("dash"), Grade::Good),
            (on_terminal(0), Grade::Bad),
            (on_terminal(7), Grade::Bad),
            (with_signals(on_terminal(0), ttin, 0, 0), Grade::Unknown),
            (with_signals(on_terminal(0), ttou, ttin, 0), Grade::Good),
            (with_signals(on_terminal(2), ttin, ttou, 0), Grade::Good),
            (Facts { shell: None, ..on_terminal(0) }, Grade::Good),
            (in_foreground(on_terminal(0)), Grade::Good),
            (Facts { descriptors: None, ..job_of("dash") }, Grade::Unknown),
        ] {
            assert_eq!(grade(&facts, "background").0, expected, "{:?}", grade(&facts, "background"));
        }
    }

    #[test]
    fn keys_are_judged() {
        let keys = 1 << (libc::SIGINT - 1) | 1 << (libc::SIGQUIT - 1) | 1 << (libc::SIGTSTP - 1);
        for (facts, expected) in [
            (safe(), Grade::Good),
            (job_of("dash"), Grade::Good),
            (in_foreground(job_of("dash")), Grade::Bad),
            (with_signals(in_foreground(job_of("dash")), keys, 0, 0), Grade::Good),
            (with_signals(in_foreground(job_of("dash")), 0, keys, 0), Grade::Unknown),
            (with_signals(in_foreground(job_of("dash")), 0, 1 << 1, 0), Grade::Bad),
        ] {
            assert_eq!(grade(&facts, "keys").0, expected);
        }
    }

    #[test]
    fn logout_is_judged() {
        use Outcome::{Ends, Perhaps, Survives};
        let manager =
            |kills, lingers| Manager { runs: true, kills_user_processes: kills, lingers, ..Manager::default() };
        let session = b"/user.slice/user-1000.slice/session-2.scope".to_vec();
        let user = b"/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope".to_vec();
        let service = b"/system.slice/cron.service".to_vec();
        for (group, manager, expected) in [
            (Some(session.clone()), Manager::default(), Survives),
            (Some(session.clone()), Manager { has_elogind: true, ..Manager::default() }, Perhaps),
            (Some(session.clone()), manager(Some(true), None), Ends),
            (Some(session.clone()), manager(Some(false), None), Survives),
            (Some(session), manager(None, Some(true)), Perhaps),
            (Some(user.clone()), manager(Some(true), Some(true)), Survives),
            (Some(user.clone()), manager(Some(false), Some(false)), Ends),
            (Some(user), manager(None, None), Perhaps),
            (Some(service), manager(Some(true), Some(false)), Survives),
            (None, manager(Some(true), Some(false)), Perhaps),
        ] {
            let facts = Facts { control_group: group.clone(), manager: manager.clone(), ..safe() };
            let verdict = judge(&facts).1;
            assert_eq!(verdict.logout, expected, "{group:?} {manager:?}");
            // It is told, but it is not what the exit status is about.
            assert!(verdict.survives());
        }
    }

    #[test]
    fn memory_and_children_are_judged() {
        let with_oomd = || Facts { manager: Manager { runs: true, has_oomd: true, ..Manager::default() }, ..safe() };
        let shared = Facts { terminals: vec![relative("xterm", Handling::Default)], ..with_oomd() };
        for (facts, expected) in [
            (safe(), Grade::Good),
            (with_oomd(), Grade::Good),
            (shared, Grade::Bad),
            (Facts { control_group: None, ..with_oomd() }, Grade::Unknown),
        ] {
            assert_eq!(grade(&facts, "memory").0, expected);
        }
        let children = |is_zombie| vec![Child { pid: Pid::from_raw(200), is_zombie }];
        for (facts, grade_expected, fact) in [
            (safe(), Grade::Good, "0, and no zombies"),
            (Facts { children: children(false), ..safe() }, Grade::Good, "1, and no zombies"),
            (Facts { children: children(true), ..safe() }, Grade::Bad, "1 zombie: children that it has not waited for"),
            (
                with_signals(safe(), 1 << (libc::SIGCHLD - 1), 0, 0),
                Grade::Bad,
                "0; it ignores SIGCHLD, so it may not learn how they end",
            ),
        ] {
            assert_eq!(grade(&facts, "children"), (grade_expected, fact.to_owned()));
        }
    }

    #[test]
    fn verdict_is_one_line() {
        use Outcome::{Ends, Perhaps, Survives};
        for (verdict, sentence) in [
            ([Survives, Survives, Ends], "survives: the shell's exit, the terminal closing; not: logout"),
            ([Survives, Perhaps, Ends], "survives: the shell's exit; perhaps: the terminal closing; not: logout"),
            ([Ends, Ends, Ends], "not: the shell's exit, the terminal closing, logout"),
        ] {
            let [shell_exit, terminal_closing, logout] = verdict;
            assert_eq!(Verdict { shell_exit, terminal_closing, logout }.sentence(), sentence);
        }
    }
}
