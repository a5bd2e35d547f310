//! When a process is sent SIGHUP, and what SIGHUP does to it.
//!
//! The rules are those of termios(3), setsid(2), credentials(7) and signal(7), and of the kernel where these are
//! silent. The kernel sends SIGHUP to the leader of a session when its terminal closes; to the foreground process group
//! when that leader ends; and, with SIGCONT, to a process group that is orphaned while one of its processes is stopped.
//! Some shells send SIGHUP to their jobs as well.

use nix::libc;

use super::{Outcome, describe_process};
use crate::check::facts::{Facts, OtherProcess};
use crate::sys::proc::{Handling, terminal_name};

/// When the first process of a PID namespace ends, the kernel kills all others in it: pid_namespaces(7).
fn judge_foreign_namespace(facts: &Facts) -> Option<(Outcome, String)> {
    let fact = "it is in another PID namespace, and is killed when the first process of that namespace ends";
    (!facts.is_in_this_namespace).then(|| (Outcome::Perhaps, fact.into()))
}

/// What a signal that is sent to the process does to it.
fn judge_signal(facts: &Facts, signal: i32) -> Outcome {
    match facts.handling(signal) {
        Handling::Ignored => Outcome::Survives,
        Handling::Caught => Outcome::Perhaps,
        Handling::Default => Outcome::Ends,
    }
}

fn judge_hangup(facts: &Facts) -> Outcome {
    judge_signal(facts, libc::SIGHUP)
}

/// What SIGHUP does to the process, after "SIGHUP" and a comma.
fn describe_hangup(facts: &Facts) -> &'static str {
    match facts.handling(libc::SIGHUP) {
        Handling::Ignored => "which it ignores",
        Handling::Caught => "which it catches",
        Handling::Default => "which terminates it",
    }
}

/// The same as a clause of its own, for sentences whose subject is a shell.
fn state_hangup(facts: &Facts) -> &'static str {
    match facts.handling(libc::SIGHUP) {
        Handling::Ignored => "this process ignores SIGHUP",
        Handling::Caught => "this process catches SIGHUP",
        Handling::Default => "SIGHUP terminates this process",
    }
}

/// Whether the leader of the session ends when its terminal closes. These shells catch SIGHUP in order to exit, if they
/// do job control and so are not in the process group of the job; any other handler may do anything. A leader that
/// ignores SIGHUP may still end, because its input does.
fn judge_leader(leader: &OtherProcess, facts: &Facts) -> Outcome {
    let exits_on_hangup = [&b"bash"[..], b"fish", b"zsh"].contains(&leader.name.as_slice());
    match leader.hangup {
        Handling::Default => Outcome::Ends,
        Handling::Caught if exits_on_hangup && leader.group != facts.stat.group => Outcome::Ends,
        Handling::Caught | Handling::Ignored => Outcome::Perhaps,
    }
}

/// What happens to a stopped job when its shell ends and orphans its process group. bash sends SIGTERM as well. A shell
/// that does not lead the session may end in some other way, or not at all.
fn judge_orphaning(facts: &Facts, shell: &OtherProcess) -> (Outcome, String) {
    let mut outcome = judge_hangup(facts);
    let (name, hangup) = (describe_process(shell), describe_hangup(facts));
    let mut fact = format!("it is stopped; when {name} ends and orphans it, the kernel will send it SIGHUP, {hangup}");
    if shell.name == b"bash" && outcome == Outcome::Survives {
        outcome = judge_signal(facts, libc::SIGTERM);
        fact += ", and bash will send it SIGTERM";
    }
    (if shell.pid == facts.stat.session { outcome } else { outcome.min(Outcome::Perhaps) }, fact)
}

/// What happens to the process when its terminal closes, and why.
pub fn judge_terminal_closing(facts: &Facts) -> (Outcome, String) {
    judge_foreign_namespace(facts).unwrap_or_else(|| judge_terminal_closing_here(facts))
}

fn judge_terminal_closing_here(facts: &Facts) -> (Outcome, String) {
    if !facts.has_terminal() {
        return (Outcome::Survives, "it has no controlling terminal, so nothing sends it SIGHUP".into());
    }
    let hangup = describe_hangup(facts);
    let terminal = terminal_name(facts.stat.terminal);
    if facts.is_session_leader() {
        let fact = format!("it leads the session of {terminal}; the kernel will send it SIGHUP, {hangup}");
        return (judge_hangup(facts), fact);
    }
    let Some(leader) = &facts.leader else {
        let fact = format!("its terminal is {terminal}, but the leader of its session is not visible");
        return (Outcome::Perhaps, fact);
    };
    let leader_end = judge_leader(leader, facts);
    if facts.is_in_foreground() {
        let leader = describe_process(leader);
        let fact = format!(
            "it is in the foreground of {terminal}; when {leader} ends, the kernel will send it SIGHUP, {hangup}"
        );
        return (judge_hangup(facts).min(leader_end), fact);
    }
    match &facts.shell {
        Some(shell) if facts.is_group_stopped => {
            let (outcome, fact) = judge_orphaning(facts, shell);
            (outcome.min(leader_end), fact)
        }
        Some(shell) if may_forward_hangup(shell) => {
            let (name, hangup) = (describe_process(shell), state_hangup(facts));
            let fact = format!("{name} forwards SIGHUP to its jobs unless they are disowned; {hangup}");
            (judge_hangup(facts).min(Outcome::Perhaps), fact)
        }
        _ => (Outcome::Survives, format!("it is in the background of {terminal}, and nothing forwards SIGHUP to it")),
    }
}

/// Whether a shell sends its jobs the SIGHUP that it receives.
fn may_forward_hangup(shell: &OtherProcess) -> bool {
    !matches!(shell.name.as_slice(), b"busybox" | b"dash" | b"tcsh")
}

/// What happens to the process when its shell exits, and why.
pub fn judge_shell_exit(facts: &Facts) -> (Outcome, String) {
    judge_foreign_namespace(facts).unwrap_or_else(|| judge_shell_exit_here(facts))
}

fn judge_shell_exit_here(facts: &Facts) -> (Outcome, String) {
    let hangup = judge_hangup(facts);
    if facts.is_in_foreground() && !facts.is_session_leader() {
        let effect = describe_hangup(facts);
        let fact =
            format!("it is in the foreground; when its session leader ends, the kernel will send it SIGHUP, {effect}");
        // When a shell within another shell exits, the terminal stays.
        let is_job_of_leader = facts.shell.as_ref().is_some_and(|shell| shell.pid == facts.stat.session);
        return (if is_job_of_leader { hangup } else { hangup.min(Outcome::Perhaps) }, fact);
    }
    let Some(shell) = &facts.shell else {
        return (Outcome::Survives, "it is not a job of any shell".into());
    };
    if facts.is_group_stopped {
        return judge_orphaning(facts, shell);
    }
    let name = describe_process(shell);
    if !may_forward_hangup(shell) {
        return (Outcome::Survives, format!("{name} sends its jobs no signal when it exits"));
    }
    let action = match shell.name.as_slice() {
        b"bash" => "sends SIGHUP to its jobs on exit if it is a login shell with huponexit set",
        b"zsh" => "sends SIGHUP to its jobs on exit unless NO_HUP is set or they are disowned",
        b"fish" => "sends SIGHUP to its jobs on exit unless they are disowned",
        _ => "may send SIGHUP to its jobs on exit",
    };
    (hangup.min(Outcome::Perhaps), format!("{name} {action}; {}", state_hangup(facts)))
}
