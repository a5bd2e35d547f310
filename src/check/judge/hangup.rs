//! When a process is sent SIGHUP, and what SIGHUP does to it.
//!
//! The rules are those of termios(3), setsid(2), credentials(7) and signal(7), and of the kernel where these are
//! silent. The kernel sends SIGHUP to the leader of a session when its terminal closes; to the foreground process group
//! when that leader ends; and, with SIGCONT, to a process group that is orphaned while one of its processes is stopped.
//! Some shells send SIGHUP to their jobs as well.

use nix::libc;

use super::{Outcome, describe_process};
use crate::check::facts::{Facts, OtherProcess};
use crate::check::table::JobTable;
use crate::sys::proc::{Disposition, terminal_name};

/// When the first process of a PID namespace ends, the kernel kills all others in it: pid_namespaces(7).
const FOREIGN_NAMESPACE: &str =
    "it is in another PID namespace, and is killed when the first process of that namespace ends";

/// What a signal that is sent to the process does to it.
fn judge_signal(facts: &Facts, signal: i32) -> Outcome {
    match facts.disposition(signal) {
        Disposition::Ignored => Outcome::Survives,
        Disposition::Caught => Outcome::Perhaps,
        Disposition::Default => Outcome::Ends,
    }
}

fn judge_hangup(facts: &Facts) -> Outcome {
    judge_signal(facts, libc::SIGHUP)
}

/// What SIGHUP does to the process, after "SIGHUP" and a comma.
fn describe_hangup(facts: &Facts) -> &'static str {
    match facts.disposition(libc::SIGHUP) {
        Disposition::Ignored => "which it ignores",
        Disposition::Caught => "which it catches",
        Disposition::Default => "which terminates it",
    }
}

/// The same as a clause of its own, for sentences whose subject is a shell.
fn state_hangup(facts: &Facts) -> &'static str {
    match facts.disposition(libc::SIGHUP) {
        Disposition::Ignored => "this process ignores SIGHUP",
        Disposition::Caught => "this process catches SIGHUP",
        Disposition::Default => "SIGHUP terminates this process",
    }
}

/// Whether the leader of the session ends when its terminal closes. These shells catch SIGHUP in order to exit, if they
/// do job control and so are not in the process group of the job; any other handler may do anything. A leader that
/// ignores SIGHUP may still end, because its input does.
fn judge_leader(leader: &OtherProcess, facts: &Facts) -> Outcome {
    let exits_on_hangup = matches!(leader.name.as_bytes(), b"bash" | b"fish" | b"zsh");
    match leader.hangup {
        Disposition::Default => Outcome::Ends,
        Disposition::Caught if exits_on_hangup && leader.group != facts.stat.group => Outcome::Ends,
        Disposition::Caught | Disposition::Ignored => Outcome::Perhaps,
    }
}

/// What happens to the process when its shell, which is called `name`, sends SIGHUP to its jobs. `None` if the shell
/// has said nothing. `event` is when it does so, and `hangs_up` whether it says that it does; `setting` is what spares
/// the jobs.
fn judge_as_said(
    facts: &Facts,
    hangs_up: fn(&JobTable) -> bool,
    name: &str,
    event: &str,
    setting: &str,
) -> Option<(Outcome, String)> {
    let table = facts.table.as_ref()?;
    let (outcome, hangup) = (judge_hangup(facts), state_hangup(facts));
    Some(if !table.has_job(facts.stat.group) {
        // It was disowned, or is a job of no shell.
        (Outcome::Survives, format!("{name} sends SIGHUP only to its jobs, and this is not one of them"))
    } else if !hangs_up(table) {
        (Outcome::Survives, format!("{name} does not send SIGHUP to its jobs {event}: {setting}"))
    } else if !table.is_exact {
        let fact = format!("{name} sends SIGHUP to this job {event}, unless 'disown -h' has marked it; {hangup}");
        (outcome.min(Outcome::Perhaps), fact)
    } else {
        (outcome, format!("{name} sends SIGHUP to this job {event}; {hangup}"))
    })
}

/// What happens to a stopped job when its shell ends and orphans its process group. bash sends SIGTERM as well. A shell
/// that does not lead the session may end in some other way, or not at all.
fn judge_orphaning(facts: &Facts, shell: &OtherProcess) -> (Outcome, String) {
    let mut outcome = judge_hangup(facts);
    let (name, hangup) = (describe_process(shell), describe_hangup(facts));
    let mut fact = format!("it is stopped; when {name} ends and orphans it, the kernel will send it SIGHUP, {hangup}");
    let is_job = facts.table.as_ref().is_none_or(|table| table.has_job(facts.stat.group));
    if shell.name.as_bytes() == b"bash" && is_job && outcome == Outcome::Survives {
        outcome = judge_signal(facts, libc::SIGTERM);
        fact += ", and bash will send it SIGTERM";
    }
    (if shell.pid == facts.stat.session { outcome } else { outcome.min(Outcome::Perhaps) }, fact)
}

/// What happens to the process when its terminal closes, and why.
pub fn judge_terminal_closing(facts: &Facts) -> (Outcome, String) {
    if !facts.is_in_this_namespace {
        return (Outcome::Perhaps, FOREIGN_NAMESPACE.into());
    }
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
            let event = "when the terminal closes";
            let said = judge_as_said(facts, |table| table.hangs_up_on_close, &name, event, "NO_HUP is set");
            if let Some((outcome, fact)) = said {
                // Another shell, which leads the session, need not end, or not end this one.
                let most = if shell.pid == facts.stat.session { leader_end } else { Outcome::Perhaps };
                return (outcome.min(most), fact);
            }
            let fact = format!("{name} forwards SIGHUP to its jobs unless they are disowned; {hangup}");
            (judge_hangup(facts).min(Outcome::Perhaps), fact)
        }
        _ => (Outcome::Survives, format!("it is in the background of {terminal}, and nothing forwards SIGHUP to it")),
    }
}

/// Whether a shell sends its jobs the SIGHUP that it receives.
fn may_forward_hangup(shell: &OtherProcess) -> bool {
    !matches!(shell.name.as_bytes(), b"busybox" | b"dash" | b"tcsh")
}

/// What happens to the process when its shell exits, and why.
pub fn judge_shell_exit(facts: &Facts) -> (Outcome, String) {
    if !facts.is_in_this_namespace {
        return (Outcome::Perhaps, FOREIGN_NAMESPACE.into());
    }
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
        return (Outcome::Survives, format!("{name} does not signal its jobs when it exits"));
    }
    let setting =
        if shell.name.as_bytes() == b"bash" { "it is not a login shell with huponexit set" } else { "NO_HUP is set" };
    let said = judge_as_said(facts, |table| table.hangs_up_on_exit, &name, "when it exits", setting);
    if let Some(judgement) = said {
        return judgement;
    }
    let action = match shell.name.as_bytes() {
        b"bash" => "sends SIGHUP to its jobs on exit if it is a login shell with huponexit set",
        b"zsh" => "sends SIGHUP to its jobs on exit unless NO_HUP is set or they are disowned",
        b"fish" => "sends SIGHUP to its jobs on exit unless they are disowned",
        _ => "may send SIGHUP to its jobs on exit",
    };
    (hangup.min(Outcome::Perhaps), format!("{name} {action}; {}", state_hangup(facts)))
}
