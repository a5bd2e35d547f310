//! `--check`: says what `check` has found, for people or as JSON.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::unistd::Pid;
use nu_ansi_term::{Color, Style};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::check::{Finding, Grade, Outcome, Verdict, judge};
use crate::error::{Error, FAILED, escape, quote};
use crate::facts::{Child, Descriptor, Facts, Relative, Target};
use crate::human::signal_name;
use crate::job::{Choice, ELSEWHERE, Jobs, State, parse_pid};
use crate::proc::{Handling, SignalSet, terminal_name};
use crate::record::{Text, to_line};
use crate::session;
use crate::table::wrap;
use crate::ui::{Ui, wants_colour, write_data};

/// The exit status when a process would not survive.
const WOULD_NOT_SURVIVE: u8 = 1;
/// Of lines that go nowhere in particular, and at most.
const WIDTH: usize = 80;

/// Checks the processes or jobs `wanted`, or the newest job. Returns the exit status.
pub fn check(wanted: &[OsString], json: bool, ui: &Ui) -> Result<u8, Error> {
    let pids =
        if wanted.is_empty() { vec![newest_job(ui)] } else { wanted.iter().map(|wanted| find(wanted, ui)).collect() };
    let mut status = 0;
    let mut gap = "";
    for pid in pids {
        let facts = match pid.and_then(Facts::of) {
            Ok(facts) => facts,
            Err(error) => {
                ui.error(&error);
                status = FAILED;
                continue;
            }
        };
        let (findings, verdict) = judge(&facts);
        let report = Report { facts: &facts, findings: &findings, verdict };
        let text = if json { to_line(&report) } else { format!("{gap}{}", report.for_people(ui)) };
        write_data(&text).map_err(|error| Error::stdout(&error))?;
        gap = "\n";
        if !verdict.survives() {
            status = status.max(WOULD_NOT_SURVIVE);
        }
    }
    Ok(status)
}

/// Any process, or a job by its name.
fn find(wanted: &OsStr, ui: &Ui) -> Result<Pid, Error> {
    if let Some(pid) = parse_pid(wanted) {
        return Ok(pid);
    }
    let job = Jobs::find_for(wanted, ui)?.choose(wanted, Choice::Newest)?;
    match job.state {
        State::Elsewhere => Err(job.error("check", ELSEWHERE)),
        State::Ended => Err(job.error("check", "it has ended")),
        State::Running | State::Stopped => Ok(job.pid()),
    }
}

fn newest_job(ui: &Ui) -> Result<Pid, Error> {
    let jobs = Jobs::find(ui)?;
    let newest = jobs.and_then(|jobs| jobs.living().max_by_key(|job| job.record.started_at_ms));
    newest.map(|job| job.pid()).ok_or(Error::NothingToCheck)
}

struct Report<'a> {
    facts: &'a Facts,
    findings: &'a [Finding],
    verdict: Verdict,
}

impl Report<'_> {
    fn for_people(&self, ui: &Ui) -> String {
        let stdout = io::stdout();
        let has_colour = stdout.is_terminal() && wants_colour();
        let width = session::columns(stdout.as_fd()).map_or(WIDTH, |columns| columns.clamp(30, WIDTH));
        let paint = |style: Style, text: &str| {
            if has_colour { style.paint(text).to_string() } else { text.to_owned() }
        };
        let mut text = format!("{}, PID {}\n", quote(&name(self.facts)), self.facts.pid);
        if ui.is_verbose() {
            for (title, value) in raw_facts(self.facts) {
                text += &in_column(&format!("  {title:<10} "), &value, width);
            }
        }
        let indent = self.findings.iter().map(|finding| finding.title.len()).max().unwrap_or(0);
        for finding in self.findings {
            let (mark, style) = match finding.grade {
                Grade::Good => ("+", Color::Green.bold()),
                Grade::Bad => ("-", Color::Red.bold()),
                Grade::Unknown => ("?", Color::Yellow.bold()),
            };
            let remedy = finding.remedy.map_or(String::new(), |remedy| format!("; remedy: {remedy}"));
            let title = format!("{mark} {:indent$}  ", finding.title);
            let lines = in_column(&title, &format!("{}{remedy}", finding.fact), width);
            text += &lines.replacen(mark, &paint(style, mark), 1);
        }
        let sentence = wrap(&self.verdict.sentence(), width).join("\n");
        text + &paint(Style::new().bold(), &sentence) + "\n"
    }
}

/// `value` behind `title`, wrapped at `width`.
fn in_column(title: &str, value: &str, width: usize) -> String {
    let mut lines = wrap(value, width.saturating_sub(title.len())).into_iter();
    let first = format!("{title}{}\n", lines.next().unwrap_or_default());
    lines.fold(first, |text, line| text + &" ".repeat(title.len()) + &line + "\n")
}

/// The name of the process, as it calls itself.
fn name(facts: &Facts) -> OsString {
    OsString::from_vec(facts.stat.name.clone())
}

fn raw_facts(facts: &Facts) -> Vec<(&'static str, String)> {
    let stat = &facts.stat;
    let mut raw = vec![
        ("PID", facts.pid.to_string()),
        ("PPID", facts.parent.as_ref().map_or(stat.parent.to_string(), with_name)),
        ("PGID", stat.group.to_string()),
        ("SID", facts.leader.as_ref().map_or(format!("{} (not to be seen)", stat.session), with_name)),
        ("TTY", if stat.terminal == 0 { "none".into() } else { terminal_name(stat.terminal) }),
        ("TPGID", if stat.terminal == 0 { "none".into() } else { stat.foreground.to_string() }),
        ("STATE", char::from(stat.state).to_string()),
    ];
    if let Some(status) = &facts.status {
        let umask = status.umask.map_or("unknown".into(), |umask| format!("{umask:03o}"));
        let names = |set: SignalSet| {
            if set.0 == 0 { "none".to_owned() } else { set.numbers().map(signal_name).collect::<Vec<_>>().join(" ") }
        };
        raw.extend([
            ("SigIgn", names(status.ignored)),
            ("SigCgt", names(status.caught)),
            ("SigBlk", names(status.blocked)),
        ]);
        raw.extend([("UID", status.user.to_string()), ("umask", umask)]);
    }
    let unreadable = || "may not be read".to_owned();
    raw.push((
        "cwd",
        facts.directory.as_ref().map_or_else(unreadable, |path| escape(path.as_os_str().as_encoded_bytes(), "")),
    ));
    raw.push(("cgroup", facts.control_group.as_ref().map_or_else(unreadable, |group| escape(group, ""))));
    let show = |descriptor: &Descriptor| {
        format!("{} {}", descriptor.fd, escape(descriptor.path.as_os_str().as_encoded_bytes(), ""))
    };
    match &facts.descriptors {
        Some(descriptors) => raw.extend(descriptors.iter().map(|descriptor| ("descriptor", show(descriptor)))),
        None => raw.push(("descriptor", unreadable())),
    }
    raw
}

fn with_name(relative: &Relative) -> String {
    format!("{} ({})", relative.pid, escape(&relative.name, ""))
}

impl Serialize for Report<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("pid", &self.facts.pid.as_raw())?;
        map.serialize_entry("name", &Text::from(&name(self.facts)))?;
        map.serialize_entry("verdict", &self.verdict)?;
        map.serialize_entry("findings", self.findings)?;
        map.serialize_entry("facts", self.facts)?;
        map.end()
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let word = |outcome| match outcome {
            Outcome::Survives => "survives",
            Outcome::Perhaps => "perhaps",
            Outcome::Ends => "ends",
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("survives", &self.survives())?;
        map.serialize_entry("shell_exit", word(self.shell_exit))?;
        map.serialize_entry("terminal_closing", word(self.terminal_closing))?;
        map.serialize_entry("logout", word(self.logout))?;
        map.end()
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let grade = match self.grade {
            Grade::Good => "good",
            Grade::Bad => "bad",
            Grade::Unknown => "unknown",
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("hazard", self.hazard)?;
        map.serialize_entry("grade", grade)?;
        map.serialize_entry("fact", &self.fact)?;
        map.serialize_entry("remedy", &self.remedy)?;
        map.end()
    }
}

impl Serialize for Facts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let stat = &self.stat;
        map.serialize_entry("state", &char::from(stat.state))?;
        map.serialize_entry("argv", &self.argv.iter().map(Text::from).collect::<Vec<_>>())?;
        map.serialize_entry("ppid", &stat.parent.as_raw())?;
        map.serialize_entry("pgid", &stat.group.as_raw())?;
        map.serialize_entry("sid", &stat.session.as_raw())?;
        map.serialize_entry("tty", &(stat.terminal != 0).then(|| terminal_name(stat.terminal)))?;
        map.serialize_entry("tpgid", &(stat.terminal != 0).then_some(stat.foreground.as_raw()))?;
        map.serialize_entry("parent", &self.parent)?;
        map.serialize_entry("session_leader", &self.leader)?;
        map.serialize_entry("shell", &self.shell)?;
        map.serialize_entry("is_in_this_pid_namespace", &self.is_in_this_namespace)?;
        map.serialize_entry("is_group_stopped", &self.is_group_stopped)?;
        let status = self.status.as_ref();
        let numbers = |set: SignalSet| set.numbers().collect::<Vec<_>>();
        map.serialize_entry("ignored_signals", &status.map(|status| numbers(status.ignored)))?;
        map.serialize_entry("caught_signals", &status.map(|status| numbers(status.caught)))?;
        map.serialize_entry("blocked_signals", &status.map(|status| numbers(status.blocked)))?;
        map.serialize_entry("uid", &status.map(|status| status.user))?;
        map.serialize_entry("umask", &status.and_then(|status| status.umask))?;
        map.serialize_entry("cwd", &self.directory.as_ref().map(|path| Text::from(path.as_os_str())))?;
        map.serialize_entry("descriptors", &self.descriptors)?;
        map.serialize_entry("cgroup", &self.control_group.as_ref().map(|group| Text::from(OsStr::from_bytes(group))))?;
        map.serialize_entry("terminals_in_cgroup", &self.terminals)?;
        map.serialize_entry("start_time", &stat.start_time)?;
        map.serialize_entry("threads", &stat.threads)?;
        map.serialize_entry("elogind_runs", &self.manager.has_elogind)?;
        map.serialize_entry("systemd_runs", &self.manager.runs)?;
        map.serialize_entry("systemd_oomd_runs", &self.manager.has_oomd)?;
        map.serialize_entry("kill_user_processes", &self.manager.kills_user_processes)?;
        map.serialize_entry("lingers", &self.manager.lingers)?;
        map.serialize_entry("children", &self.children)?;
        map.end()
    }
}

impl Serialize for Relative {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("pid", &self.pid.as_raw())?;
        map.serialize_entry("name", &Text::from(OsStr::from_bytes(&self.name)))?;
        let hangup = match self.hangup {
            Handling::Default => "default",
            Handling::Ignored => "ignored",
            Handling::Caught => "caught",
        };
        map.serialize_entry("sighup", hangup)?;
        map.end()
    }
}

impl Serialize for Child {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("pid", &self.pid.as_raw())?;
        map.serialize_entry("is_zombie", &self.is_zombie)?;
        map.end()
    }
}

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("fd", &self.fd)?;
        map.serialize_entry("path", &Text::from(self.path.as_os_str()))?;
        map.serialize_entry("is_terminal", &(self.target == Target::Terminal))?;
        if let Target::Pipe { other_end, is_complete } = &self.target {
            let terminals = other_end.iter().map(|terminal| (*terminal != 0).then(|| terminal_name(*terminal)));
            map.serialize_entry("other_end_terminals", &terminals.collect::<Vec<_>>())?;
            map.serialize_entry("is_other_end_complete", is_complete)?;
        }
        map.end()
    }
}
