//! The result of a check in words: lines for people, or one line of JSON.
//!
//! Scripts rely on the names, order and meaning of the JSON fields. The structs `Printed…` define that form where it
//! differs from the model, so that the model can change without it.

use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use nix::unistd::Pid;
use nu_ansi_term::{Color, Style};
use serde::Serialize;

use super::facts::{Child, Descriptor, Endpoint, Facts, OtherProcess};
use super::judge::{Finding, Grade, Hazard, Judgement, Outcome, Verdict, enumerate};
use crate::jobs::record::{Number, Text, to_line};
use crate::sys::descriptors::columns;
use crate::sys::proc::{SignalSet, terminal_name};
use crate::term::format::signal_name;
use crate::term::text::{escape, quote, wrap};
use crate::term::ui::{Ui, wants_colour};

/// The width of lines where stdout is not a terminal, and the largest on a terminal.
const WIDTH: usize = 80;
/// On a narrower terminal, the terminal breaks the lines.
const SMALLEST_WIDTH: usize = 30;

/// The check for people: the process, with `--verbose` what is known of it, the findings, the verdict.
pub fn show(facts: &Facts, judgement: &Judgement, ui: &Ui) -> String {
    let stdout = io::stdout();
    let has_colour = stdout.is_terminal() && wants_colour();
    let width = columns(stdout.as_fd()).map_or(WIDTH, |columns| columns.clamp(SMALLEST_WIDTH, WIDTH));
    let paint = |style: Style, text: &str| {
        if has_colour { style.paint(text).to_string() } else { text.to_owned() }
    };
    let mut text = format!("{} (PID {})\n", quote(name(facts)), facts.pid);
    if ui.is_verbose() {
        for (title, value) in list_raw_facts(facts) {
            text += &indent_under(&format!("  {title:<10} "), &value, width);
        }
    }
    let widest = judgement.findings.iter().map(|finding| title(finding.hazard).len()).max().unwrap_or(0);
    for finding in &judgement.findings {
        let (mark, style) = match finding.grade {
            Grade::Good => ("+", Color::Green.bold()),
            Grade::Bad => ("-", Color::Red.bold()),
            Grade::Unknown => ("?", Color::Yellow.bold()),
        };
        let remedy = finding.remedy.as_ref().map_or(String::new(), |remedy| format!("; remedy: {remedy}"));
        let title = format!("{mark} {:widest$}  ", title(finding.hazard));
        let lines = indent_under(&title, &format!("{}{remedy}", finding.fact), width);
        text += &lines.replacen(mark, &paint(style, mark), 1);
    }
    let sentence = wrap(&summarise(judgement), width).join("\n");
    text + &paint(Style::new().bold(), &sentence) + "\n"
}

/// The name of a hazard in the list.
fn title(hazard: Hazard) -> &'static str {
    match hazard {
        Hazard::Terminal => "terminal closing",
        Hazard::Shell => "shell exit",
        Hazard::Keys => "keys",
        Hazard::Streams => "open terminals",
        Hazard::Background => "background access",
        Hazard::Logout => "logout",
        Hazard::Memory => "memory pressure",
        Hazard::Children => "children",
    }
}

/// The verdict in one sentence. Where an event by itself would do no harm, it says which hazard is the reason.
fn summarise(judgement: &Judgement) -> String {
    let verdict = judgement.verdict;
    let is_harmless = |hazard, outcome| {
        let is_it = |finding: &Finding| finding.hazard == hazard && finding.grade == Grade::Good;
        outcome != Outcome::Survives && judgement.findings.iter().any(is_it)
    };
    let is_due_to_streams =
        is_harmless(Hazard::Terminal, verdict.terminal_closing) || is_harmless(Hazard::Shell, verdict.shell_exit);
    let reason = if is_due_to_streams { format!(" (see {})", title(Hazard::Streams)) } else { String::new() };
    let events = [
        ("shell exit", verdict.shell_exit),
        ("terminal closing", verdict.terminal_closing),
        ("logout", verdict.logout),
    ];
    let clause = |verb: &str, wanted, conjunction: &str| {
        let names = events.iter().filter(|(_, outcome)| *outcome == wanted).map(|(name, _)| (*name).to_owned());
        let names: Vec<String> = names.collect();
        if names.is_empty() { None } else { Some(format!("{verb} {}", enumerate(&names, conjunction))) }
    };
    let clauses = [
        clause("survives", Outcome::Survives, "and"),
        clause("might not survive", Outcome::Perhaps, "or").map(|clause| clause + &reason),
        clause("does not survive", Outcome::Ends, "or"),
    ];
    clauses.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// `value` after `title`, wrapped at `width` and indented.
fn indent_under(title: &str, value: &str, width: usize) -> String {
    let mut lines = wrap(value, width.saturating_sub(title.len())).into_iter();
    let first = format!("{title}{}\n", lines.next().unwrap_or_default());
    lines.fold(first, |text, line| text + &" ".repeat(title.len()) + &line + "\n")
}

/// The name that the process shows in /proc.
fn name(facts: &Facts) -> &OsStr {
    OsStr::from_bytes(&facts.stat.name)
}

/// What the kernel says, by the names that ps(1) and /proc use.
fn list_raw_facts(facts: &Facts) -> Vec<(&'static str, String)> {
    const UNREADABLE: &str = "cannot be read";
    let stat = &facts.stat;
    let of_terminal = |value: String| if facts.has_terminal() { value } else { "none".to_owned() };
    let mut raw = vec![
        ("PID", facts.pid.to_string()),
        ("PPID", facts.parent.as_ref().map_or(stat.parent.to_string(), describe_process)),
        ("PGID", stat.group.to_string()),
        ("SID", facts.leader.as_ref().map_or(format!("{} (not visible)", stat.session), describe_process)),
        ("TTY", of_terminal(terminal_name(stat.terminal))),
        ("TPGID", of_terminal(stat.foreground.to_string())),
        ("STATE", char::from(stat.state).to_string()),
    ];
    if let Some(status) = &facts.status {
        raw.extend([
            ("SigIgn", list_signals(status.ignored)),
            ("SigCgt", list_signals(status.caught)),
            ("SigBlk", list_signals(status.blocked)),
            ("UID", status.user.to_string()),
            ("umask", status.umask.map_or("unknown".into(), |umask| format!("{umask:03o}"))),
        ]);
    }
    let show = |bytes: Option<&[u8]>| bytes.map_or(UNREADABLE.to_owned(), |bytes| escape(bytes, ""));
    raw.push(("cwd", show(facts.directory.as_ref().map(|path| path.as_os_str().as_bytes()))));
    raw.push(("cgroup", show(facts.control_group.as_deref())));
    raw.push(("let go", facts.obstacle.clone().unwrap_or_else(|| "possible".to_owned())));
    match &facts.descriptors {
        Some(descriptors) => raw.extend(descriptors.iter().map(|descriptor| {
            ("descriptor", format!("{} {}", descriptor.fd, escape(descriptor.path.as_os_str().as_bytes(), "")))
        })),
        None => raw.push(("descriptor", UNREADABLE.to_owned())),
    }
    raw
}

fn list_signals(set: SignalSet) -> String {
    let names: Vec<String> = set.numbers().map(signal_name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

/// `4242 (bash)`
fn describe_process(process: &OtherProcess) -> String {
    format!("{} ({})", process.pid, escape(process.name.as_bytes(), ""))
}

/// The check for scripts: one line of JSON.
pub fn to_json(facts: &Facts, judgement: &Judgement) -> String {
    to_line(&PrintedCheck {
        pid: facts.pid,
        name: Text::from(name(facts)),
        verdict: PrintedVerdict { survives: judgement.verdict.is_safe(), outcomes: judgement.verdict },
        findings: &judgement.findings,
        facts: facts.into(),
    })
}

#[derive(Serialize)]
struct PrintedCheck<'f> {
    #[serde(with = "Number")]
    pid: Pid,
    name: Text,
    verdict: PrintedVerdict,
    findings: &'f [Finding],
    facts: PrintedFacts<'f>,
}

#[derive(Serialize)]
struct PrintedVerdict {
    survives: bool,
    #[serde(flatten)]
    outcomes: Verdict,
}

#[derive(Serialize)]
#[allow(clippy::struct_excessive_bools)] // it is a list of independent facts
struct PrintedFacts<'f> {
    state: char,
    argv: Vec<Text>,
    ppid: i32,
    pgid: i32,
    sid: i32,
    tty: Option<String>,
    tpgid: Option<i32>,
    parent: Option<&'f OtherProcess>,
    session_leader: Option<&'f OtherProcess>,
    shell: Option<&'f OtherProcess>,
    is_in_this_pid_namespace: bool,
    is_group_stopped: bool,
    ignored_signals: Option<Vec<i32>>,
    caught_signals: Option<Vec<i32>>,
    blocked_signals: Option<Vec<i32>>,
    uid: Option<u32>,
    umask: Option<u32>,
    cwd: Option<Text>,
    descriptors: Option<Vec<PrintedDescriptor>>,
    cgroup: Option<Text>,
    terminals_in_cgroup: &'f [OtherProcess],
    start_time: u64,
    threads: u32,
    elogind_runs: bool,
    systemd_runs: bool,
    systemd_oomd_runs: bool,
    kill_user_processes: Option<bool>,
    lingers: Option<bool>,
    children: &'f [Child],
    can_be_let_go: bool,
    obstacle: Option<&'f str>,
}

impl<'f> From<&'f Facts> for PrintedFacts<'f> {
    fn from(facts: &'f Facts) -> Self {
        let Facts { stat, manager, .. } = facts;
        let status = facts.status.as_ref();
        let numbers = |set: SignalSet| set.numbers().collect();
        Self {
            state: stat.state.into(),
            argv: facts.argv.iter().map(Text::from).collect(),
            ppid: stat.parent.as_raw(),
            pgid: stat.group.as_raw(),
            sid: stat.session.as_raw(),
            tty: facts.has_terminal().then(|| terminal_name(stat.terminal)),
            tpgid: facts.has_terminal().then_some(stat.foreground.as_raw()),
            parent: facts.parent.as_ref(),
            session_leader: facts.leader.as_ref(),
            shell: facts.shell.as_ref(),
            is_in_this_pid_namespace: facts.is_in_this_namespace,
            is_group_stopped: facts.is_group_stopped,
            ignored_signals: status.map(|status| numbers(status.ignored)),
            caught_signals: status.map(|status| numbers(status.caught)),
            blocked_signals: status.map(|status| numbers(status.blocked)),
            uid: status.map(|status| status.user),
            umask: status.and_then(|status| status.umask),
            cwd: facts.directory.as_ref().map(Text::from),
            descriptors: facts.descriptors.as_ref().map(|list| list.iter().map(Into::into).collect()),
            cgroup: facts.control_group.as_ref().map(|group| Text::from(OsStr::from_bytes(group))),
            terminals_in_cgroup: &facts.emulators,
            start_time: stat.start_time,
            threads: stat.threads,
            elogind_runs: manager.is_elogind_running,
            systemd_runs: manager.is_systemd_running,
            systemd_oomd_runs: manager.is_oomd_running,
            kill_user_processes: manager.logout.kills_user_processes,
            lingers: manager.logout.lingers,
            children: &facts.children,
            can_be_let_go: facts.obstacle.is_none(),
            obstacle: facts.obstacle.as_deref(),
        }
    }
}

/// The last two fields are those of a pipe.
#[derive(Serialize)]
struct PrintedDescriptor {
    fd: i32,
    path: Text,
    is_terminal: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    other_end_terminals: Option<Vec<Option<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_other_end_complete: Option<bool>,
}

impl From<&Descriptor> for PrintedDescriptor {
    fn from(descriptor: &Descriptor) -> Self {
        let (other_end_terminals, is_other_end_complete) = match &descriptor.endpoint {
            Endpoint::Pipe { other_end, is_complete } => {
                (Some(other_end.iter().map(|terminal| terminal.map(terminal_name)).collect()), Some(*is_complete))
            }
            _ => (None, None),
        };
        Self {
            fd: descriptor.fd,
            path: Text::from(&descriptor.path),
            is_terminal: descriptor.endpoint == Endpoint::Terminal,
            other_end_terminals,
            is_other_end_complete,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn verdict_is_one_sentence() {
        use Outcome::{Ends, Perhaps, Survives};
        for (verdict, sentence) in [
            ([Survives, Survives, Survives], "survives shell exit, terminal closing and logout"),
            ([Survives, Survives, Ends], "survives shell exit and terminal closing; does not survive logout"),
            (
                [Survives, Perhaps, Ends],
                "survives shell exit; might not survive terminal closing; does not survive logout",
            ),
            ([Ends, Ends, Ends], "does not survive shell exit, terminal closing or logout"),
        ] {
            let [shell_exit, terminal_closing, logout] = verdict;
            let verdict = Verdict { shell_exit, terminal_closing, logout };
            assert_eq!(summarise(&Judgement { findings: Vec::new(), verdict }), sentence);
        }
    }

    #[test]
    fn descriptor_of_a_pipe_has_two_more_fields() {
        let pipe = Endpoint::Pipe { other_end: vec![Some(0x8803), None], is_complete: true };
        for (endpoint, rest) in [
            (Endpoint::Terminal, r#""is_terminal":true}"#),
            (Endpoint::Other, r#""is_terminal":false}"#),
            (pipe, r#""is_terminal":false,"other_end_terminals":["pts/3",null],"is_other_end_complete":true}"#),
        ] {
            let descriptor = Descriptor { fd: 1, endpoint, path: PathBuf::from("/x") };
            let json = serde_json::to_string(&PrintedDescriptor::from(&descriptor)).unwrap_or_default();
            assert_eq!(json, format!(r#"{{"fd":1,"path":"/x",{rest}"#));
        }
    }
}
