//! From facts to findings to a verdict: what happens to a process when its terminal closes, its shell exits or its user
//! logs out. This module reads nothing and prints nothing: the facts come from `facts`, and `report` shows the
//! findings.
//!
//! `hangup` judges what SIGHUP does, this file everything else.

mod hangup;

use nix::libc;
use serde::Serialize;

use super::facts::{Descriptor, Endpoint, Facts, OtherProcess};
use crate::sys::proc::Disposition;
use crate::systemd::logout::{self, Fate};
use crate::term::text::escape;

/// Whether the process outlives an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Survives,
    /// That depends on what cannot be seen: what a program does on SIGHUP, how a shell is configured.
    Perhaps,
    Ends,
}

/// The outcome of each event. The fields are those of `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub shell_exit: Outcome,
    pub terminal_closing: Outcome,
    pub logout: Outcome,
}

impl Verdict {
    /// Whether the process survives both the exit of its shell and the closing of its terminal.
    pub fn is_safe(self) -> bool {
        self.shell_exit == Outcome::Survives && self.terminal_closing == Outcome::Survives
    }
}

/// What endangers a process, or what it can damage by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hazard {
    Terminal,
    Shell,
    Keys,
    Streams,
    Background,
    Logout,
    Memory,
    Children,
}

/// How much of a danger a hazard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    Good,
    Bad,
    Unknown,
}

/// A hazard and how the process is exposed to it. The fields are those of `--json`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub hazard: Hazard,
    pub grade: Grade,
    /// Why: a clause, mostly about "it", the process.
    pub fact: String,
    pub remedy: Option<String>,
}

impl Finding {
    fn new(hazard: Hazard, grade: Grade, fact: impl Into<String>) -> Self {
        Self { hazard, grade, fact: fact.into(), remedy: None }
    }

    fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    fn of_outcome(hazard: Hazard, outcome: Outcome, fact: String, remedy: Option<String>) -> Self {
        let grade = match outcome {
            Outcome::Survives => Grade::Good,
            Outcome::Perhaps => Grade::Unknown,
            Outcome::Ends => Grade::Bad,
        };
        Self { hazard, grade, fact, remedy: remedy.filter(|_| outcome != Outcome::Survives) }
    }
}

/// All findings, in the order in which they are shown, and what follows from them.
#[derive(Debug, PartialEq, Eq)]
pub struct Judgement {
    pub findings: Vec<Finding>,
    pub verdict: Verdict,
}

const START: &str = "start it with detach";
const REDIRECT: &str = "start it with detach, or redirect its streams";
const SCOPE: &str = "start it with detach --scope";

/// Judges all hazards.
pub fn judge(facts: &Facts) -> Judgement {
    let (terminal_closing, terminal_fact) = hangup::judge_terminal_closing(facts);
    let (shell_exit, shell_fact) = hangup::judge_shell_exit(facts);
    let (logout, logout_fact, logout_remedy) = judge_logout(facts);
    let streams = judge_streams(facts);
    // Some programs end on the end of file or the EIO that they get from a terminal that is gone.
    let on_lost_streams = if streams.grade == Grade::Good { Outcome::Survives } else { Outcome::Perhaps };
    let findings = vec![
        Finding::of_outcome(Hazard::Terminal, terminal_closing, terminal_fact, Some(let_go_or(facts, START))),
        Finding::of_outcome(Hazard::Shell, shell_exit, shell_fact, Some(let_go_or(facts, START))),
        judge_keys(facts),
        streams,
        judge_background(facts),
        Finding::of_outcome(Hazard::Logout, logout, logout_fact, logout_remedy.map(Into::into)),
        judge_memory(facts),
        judge_children(facts),
    ];
    let verdict = Verdict {
        shell_exit: shell_exit.max(on_lost_streams),
        terminal_closing: terminal_closing.max(on_lost_streams),
        logout,
    };
    Judgement { findings, verdict }
}

/// The remedy for a process that is on a terminal: to let go of it, where that can be done.
fn let_go_or(facts: &Facts, otherwise: &str) -> String {
    match &facts.obstacle {
        None => format!("detach --pid {}", facts.pid),
        Some(obstacle) => format!("{otherwise} ('detach --pid {}' cannot let go of it: {obstacle})", facts.pid),
    }
}

/// `bash (PID 4242)`
fn describe_process(process: &OtherProcess) -> String {
    format!("{} (PID {})", escape(process.name.as_bytes(), ""), process.pid)
}

fn judge_keys(facts: &Facts) -> Finding {
    let finding = |grade, fact: &str| Finding::new(Hazard::Keys, grade, fact);
    if !facts.has_terminal() {
        return finding(Grade::Good, "it has no controlling terminal, so no key reaches it");
    }
    if !facts.is_in_foreground() {
        return finding(Grade::Good, "it is in the background; keys signal only the foreground process group");
    }
    let keys = [(libc::SIGINT, "Ctrl-C"), (libc::SIGQUIT, "Ctrl-\\"), (libc::SIGTSTP, "Ctrl-Z")];
    let keys_with = |wanted| {
        let keys = keys.iter().filter(|(signal, _)| facts.disposition(*signal) == wanted);
        keys.map(|(_, key)| (*key).to_owned()).collect::<Vec<_>>()
    };
    let (unprotected, caught) = (keys_with(Disposition::Default), keys_with(Disposition::Caught));
    if !unprotected.is_empty() {
        finding(Grade::Bad, &format!("it is in the foreground, unprotected from {}", enumerate(&unprotected, "and")))
    } else if !caught.is_empty() {
        finding(Grade::Unknown, &format!("it is in the foreground and catches {}", enumerate(&caught, "and")))
    } else {
        finding(Grade::Good, "it is in the foreground and ignores Ctrl-C, Ctrl-\\ and Ctrl-Z")
    }
}

fn judge_streams(facts: &Facts) -> Finding {
    let finding = |grade, fact: String| Finding::new(Hazard::Streams, grade, fact);
    if facts.descriptors.is_none() {
        return finding(Grade::Unknown, "its descriptors cannot be read; one may be on a terminal".into());
    }
    let terminals = facts.descriptors_on(|endpoint| *endpoint == Endpoint::Terminal);
    if !terminals.is_empty() {
        let subject = describe_descriptors(&terminals);
        let fact =
            format!("{subject} on a terminal; once it closes, reads return end of file and writes fail with EIO");
        return finding(Grade::Bad, fact).with_remedy(let_go_or(facts, REDIRECT));
    }
    // Pipes whose other end is not held by any process without a terminal, as far as can be seen.
    let have_terminals = |other_end: &[Option<u32>]| other_end.iter().all(Option::is_some);
    let uncertain = facts.descriptors_on(
        |endpoint| matches!(endpoint, Endpoint::Pipe { other_end, is_complete: false } if have_terminals(other_end)),
    );
    if !uncertain.is_empty() {
        let subject = describe_descriptors(&uncertain);
        let fact = format!("{subject} on a pipe, and not every process that may hold its other end can be inspected");
        return finding(Grade::Unknown, fact);
    }
    let held = facts.descriptors_on(|endpoint| {
        matches!(endpoint, Endpoint::Pipe { other_end, .. } if !other_end.is_empty() && have_terminals(other_end))
    });
    if !held.is_empty() {
        let subject = describe_descriptors(&held);
        let fact = format!("{subject} on a pipe whose other end is held only by processes that have a terminal");
        return finding(Grade::Bad, fact).with_remedy(REDIRECT);
    }
    let sockets = facts.descriptors_on(|endpoint| *endpoint == Endpoint::Socket);
    let sockets: Vec<&Descriptor> = sockets.into_iter().filter(|descriptor| descriptor.fd <= 2).collect();
    if !sockets.is_empty() {
        let subject = describe_descriptors(&sockets);
        return finding(Grade::Unknown, format!("{subject} on a socket; what holds its other end cannot be seen"));
    }
    finding(Grade::Good, "no descriptor is on a terminal, or on a pipe that depends on one".into())
}

/// `stdin, stdout and fd 7 are`
fn describe_descriptors(descriptors: &[&Descriptor]) -> String {
    const MOST: usize = 10;
    let names = descriptors.iter().take(MOST).map(|descriptor| match descriptor.fd {
        0 => "stdin".to_owned(),
        1 => "stdout".to_owned(),
        2 => "stderr".to_owned(),
        fd => format!("fd {fd}"),
    });
    let mut names: Vec<String> = names.collect();
    let others = descriptors.len() - names.len();
    if others > 0 {
        names.push(format!("{others} more"));
    }
    format!("{} {}", enumerate(&names, "and"), if descriptors.len() == 1 { "is" } else { "are" })
}

/// `a, b and c`
pub fn enumerate(items: &[String], conjunction: &str) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} {conjunction} {last}", first.join(", ")),
    }
}

fn judge_background(facts: &Facts) -> Finding {
    let finding = |grade, fact: &str| Finding::new(Hazard::Background, grade, fact);
    let is_on_terminal = !facts.descriptors_on(|endpoint| *endpoint == Endpoint::Terminal).is_empty();
    let is_stopped_by = |signal| facts.disposition(signal) == Disposition::Default;
    if !facts.has_terminal() {
        finding(Grade::Good, "it has no controlling terminal, so it gets neither SIGTTIN nor SIGTTOU")
    } else if facts.is_in_foreground() {
        finding(Grade::Good, "it is in the foreground and may read from and write to the terminal")
    } else if facts.descriptors.is_none() {
        finding(Grade::Unknown, "its descriptors cannot be read")
    } else if !is_on_terminal {
        finding(Grade::Good, "none of its descriptors is on a terminal")
    } else if facts.shell.is_none() {
        finding(Grade::Good, "its process group is orphaned, so a read from the terminal fails and does not stop it")
    } else if is_stopped_by(libc::SIGTTIN) {
        let fact = "a read from the terminal stops it (SIGTTIN); so does a write if 'stty tostop' is set (SIGTTOU)";
        finding(Grade::Bad, fact)
    } else if is_stopped_by(libc::SIGTTOU) {
        finding(Grade::Unknown, "a write to the terminal stops it (SIGTTOU) if 'stty tostop' is set")
    } else {
        finding(Grade::Good, "it ignores, catches or blocks both SIGTTIN and SIGTTOU")
    }
}

fn judge_logout(facts: &Facts) -> (Outcome, String, Option<&'static str>) {
    let manager = &facts.manager;
    if !manager.is_systemd_running && manager.is_elogind_running {
        return (Outcome::Perhaps, "elogind is running, and its settings are not checked".into(), None);
    }
    if !manager.is_systemd_running {
        return (Outcome::Survives, "systemd is not running, so nothing kills processes at logout".into(), None);
    }
    let Some(control_group) = &facts.control_group else {
        return (Outcome::Perhaps, "its control group cannot be read".into(), None);
    };
    let user = facts.status.as_ref().map(|status| status.user);
    let Some(at_logout) = logout::judge(control_group, user, manager.logout) else {
        return (Outcome::Survives, "its control group does not belong to a login".into(), None);
    };
    let outcome = match at_logout.fate {
        Fate::Survives => Outcome::Survives,
        Fate::Ends => Outcome::Ends,
        Fate::EndsWithTheLast | Fate::Unknown => Outcome::Perhaps,
    };
    (outcome, at_logout.fact, Some(at_logout.remedy))
}

fn judge_memory(facts: &Facts) -> Finding {
    let finding = |grade, fact: &str| Finding::new(Hazard::Memory, grade, fact);
    if !facts.manager.is_oomd_running {
        return finding(Grade::Good, "systemd-oomd, which kills whole control groups, is not running");
    }
    match (&facts.control_group, facts.emulators.first()) {
        (None, _) => finding(Grade::Unknown, "its control group cannot be read"),
        (Some(_), Some(emulator)) => {
            let emulator = describe_process(emulator);
            finding(Grade::Bad, &format!("it shares a control group with {emulator}; systemd-oomd would kill both"))
                .with_remedy(SCOPE)
        }
        (Some(_), None) => finding(Grade::Good, "it shares its control group with no terminal emulator"),
    }
}

fn judge_children(facts: &Facts) -> Finding {
    let finding = |grade, fact: String| Finding::new(Hazard::Children, grade, fact);
    let zombies = facts.children.iter().filter(|child| child.is_zombie).count();
    let living = facts.children.len() - zombies;
    let noun = if zombies == 1 { "zombie" } else { "zombies" };
    if zombies > 0 {
        finding(Grade::Bad, format!("{zombies} {noun}: ended children that it has not waited for"))
    } else if facts.disposition(libc::SIGCHLD) == Disposition::Ignored {
        let fact = format!("{living} running; it ignores SIGCHLD, so exit statuses of children are lost");
        finding(Grade::Bad, fact).with_remedy("start it with detach --sigchld default")
    } else {
        finding(Grade::Good, format!("{living} running, no zombies"))
    }
}

#[cfg(test)]
mod tests;
