//! Processes, hazard by hazard, and how they are judged.

use std::path::PathBuf;

use nix::unistd::Pid;

use super::*;
use crate::check::facts::{Child, ServiceManager};
use crate::check::table::JobTable;
use crate::sys::proc::{SignalSet, Status, parse_stat};
use crate::systemd::logind::LogoutSettings;

const HUP: u64 = 1;
const TERM: u64 = 1 << 14;
const PTS: u32 = 0x8803;

/// A process that nothing can harm.
fn safe() -> Facts {
    let pid = Pid::from_raw(100);
    let line = b"100 (x) S 1 100 100 0 -1 0 0 0 0 0 0 0 0 0 0 20 0 1 0 5";
    let stat = parse_stat(line).unwrap_or_else(|| unreachable!());
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
        table: None,
        is_group_stopped: false,
        is_in_this_namespace: true,
        descriptors: Some(Vec::new()),
        control_group: Some(b"/user.slice/session-2.scope".to_vec()),
        emulators: Vec::new(),
        manager: ServiceManager::default(),
        children: Vec::new(),
        obstacle: None,
    }
}

fn process(name: &str, hangup: Disposition) -> OtherProcess {
    OtherProcess { pid: Pid::from_raw(50), name: name.into(), group: Pid::from_raw(50), hangup }
}

/// A background job of a shell.
fn job_of(shell: &str) -> Facts {
    let mut facts = safe();
    facts.stat.session = Pid::from_raw(50);
    facts.stat.terminal = PTS;
    facts.stat.foreground = Pid::from_raw(50);
    let hangup = if shell == "dash" { Disposition::Default } else { Disposition::Caught };
    facts.leader = Some(process(shell, hangup));
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

/// The job belongs to a shell that another shell has started.
fn nested(mut facts: Facts) -> Facts {
    facts.shell = Some(OtherProcess { pid: Pid::from_raw(60), ..process("bash", Disposition::Caught) });
    facts
}

/// It is in the process group of a shell that leads the session and runs a script.
fn of_script(mut facts: Facts) -> Facts {
    facts.leader = Some(OtherProcess { group: facts.stat.group, ..process("dash", Disposition::Caught) });
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

fn led_by(mut facts: Facts, leader: Option<OtherProcess>) -> Facts {
    facts.leader = leader;
    facts
}

fn with_open(mut facts: Facts, fd: i32, endpoint: Endpoint) -> Facts {
    facts.descriptors.get_or_insert_default().push(Descriptor { fd, endpoint, path: PathBuf::new() });
    facts
}

/// The shell says that its jobs are these, that it sends them SIGHUP on these events, and whether it may spare some.
fn told(mut facts: Facts, groups: &[i32], [hangs_up_on_close, hangs_up_on_exit, is_exact]: [bool; 3]) -> Facts {
    let groups = groups.iter().copied().map(Pid::from_raw).collect();
    let shell = Pid::from_raw(50);
    facts.table = Some(JobTable { shell, groups, hangs_up_on_close, hangs_up_on_exit, is_exact });
    facts
}

#[test]
fn what_the_shell_says_makes_the_outcome_certain() {
    use Outcome::{Ends, Perhaps, Survives};
    let all = [true; 3];
    for (what, facts, closing, exit) in [
        ("job", told(job_of("fish"), &[100], all), Ends, Ends),
        ("disowned", told(job_of("fish"), &[99], all), Survives, Survives),
        ("no huponexit", told(job_of("bash"), &[100], [true, false, true]), Ends, Survives),
        ("perhaps marked", told(job_of("bash"), &[100], [true, true, false]), Perhaps, Perhaps),
        ("NO_HUP", told(job_of("zsh"), &[100], [false, false, true]), Survives, Survives),
        ("ignores", told(with_signals(job_of("fish"), HUP, 0, 0), &[100], all), Survives, Survives),
        ("catches", told(with_signals(job_of("fish"), 0, HUP, 0), &[100], all), Perhaps, Perhaps),
        ("nested", told(nested(job_of("bash")), &[100], all), Perhaps, Ends),
        ("stopped and disowned", told(stopped(job_of("bash")), &[], all), Ends, Ends),
        ("stopped, ignores", told(stopped(with_signals(job_of("bash"), HUP, 0, 0)), &[100], all), Ends, Ends),
        (
            "stopped, ignores, disowned",
            told(stopped(with_signals(job_of("bash"), HUP, 0, 0)), &[], all),
            Survives,
            Survives,
        ),
        ("foreground", told(in_foreground(job_of("bash")), &[100], [true, false, true]), Ends, Ends),
    ] {
        let verdict = judge(&facts).verdict;
        assert_eq!((verdict.terminal_closing, verdict.shell_exit), (closing, exit), "{what}");
    }
}

#[test]
fn terminal_closing_and_shell_exit_depend_on_what_sends_hangups() {
    use Outcome::{Ends, Perhaps, Survives};
    let leader = || {
        let mut facts = safe();
        facts.stat.terminal = PTS;
        facts
    };
    for (what, facts, closing, exit) in [
        ("no terminal", safe(), Survives, Survives),
        ("session leader", leader(), Ends, Survives),
        ("session leader that ignores", with_signals(leader(), HUP, 0, 0), Survives, Survives),
        ("session leader that catches", with_signals(leader(), 0, HUP, 0), Perhaps, Survives),
        ("session leader that blocks", with_signals(leader(), 0, 0, HUP), Perhaps, Survives),
        ("job of bash", job_of("bash"), Perhaps, Perhaps),
        ("job of zsh", job_of("zsh"), Perhaps, Perhaps),
        ("job of fish", job_of("fish"), Perhaps, Perhaps),
        ("job of nu", job_of("nu"), Perhaps, Perhaps),
        ("job of an unknown shell", job_of("mybash"), Perhaps, Perhaps),
        ("job of ksh", job_of("ksh93"), Perhaps, Perhaps),
        ("stopped job of bash that ignores SIGHUP", stopped(with_signals(job_of("bash"), HUP, 0, 0)), Ends, Ends),
        (
            "stopped job that ignores SIGHUP and SIGTERM",
            stopped(with_signals(job_of("bash"), HUP | TERM, 0, 0)),
            Survives,
            Survives,
        ),
        (
            "stopped job that ignores SIGHUP and catches SIGTERM",
            stopped(with_signals(job_of("bash"), HUP, TERM, 0)),
            Perhaps,
            Perhaps,
        ),
        ("stopped, already orphaned", Facts { shell: None, ..stopped(job_of("bash")) }, Survives, Survives),
        ("stopped job of a nested shell", stopped(nested(job_of("bash"))), Perhaps, Perhaps),
        ("foreground of a nested shell", in_foreground(nested(job_of("bash"))), Ends, Perhaps),
        ("foreground of a script", in_foreground(of_script(job_of("dash"))), Perhaps, Perhaps),
        ("job of dash", job_of("dash"), Survives, Survives),
        ("job of bash that ignores", with_signals(job_of("bash"), HUP, 0, 0), Survives, Survives),
        ("job of bash that catches", with_signals(job_of("bash"), 0, HUP, 0), Perhaps, Perhaps),
        ("stopped job", stopped(job_of("dash")), Ends, Ends),
        ("stopped job that ignores", stopped(with_signals(job_of("dash"), HUP, 0, 0)), Survives, Survives),
        ("foreground", in_foreground(job_of("dash")), Ends, Ends),
        ("foreground, ignores", in_foreground(with_signals(job_of("dash"), HUP, 0, 0)), Survives, Survives),
        (
            "foreground of a leader that ignores",
            in_foreground(led_by(job_of("bash"), Some(process("bash", Disposition::Ignored)))),
            Perhaps,
            Ends,
        ),
        (
            "foreground of a program that catches",
            in_foreground(led_by(job_of("bash"), Some(process("make", Disposition::Caught)))),
            Perhaps,
            Ends,
        ),
        ("in another namespace", Facts { is_in_this_namespace: false, ..safe() }, Perhaps, Perhaps),
        (
            "foreground of a dash with a trap",
            in_foreground(led_by(job_of("dash"), Some(process("dash", Disposition::Caught)))),
            Perhaps,
            Ends,
        ),
        ("leader is not visible", led_by(job_of("bash"), None), Perhaps, Perhaps),
    ] {
        let verdict = judge(&facts).verdict;
        assert_eq!((verdict.terminal_closing, verdict.shell_exit), (closing, exit), "{what}");
        assert_eq!(verdict.is_safe(), (closing, exit) == (Survives, Survives), "{what}");
    }
}

fn grade(facts: &Facts, hazard: Hazard) -> (Grade, String) {
    let finding = judge(facts).findings.into_iter().find(|finding| finding.hazard == hazard);
    finding.map_or((Grade::Unknown, "no finding".into()), |finding| (finding.grade, finding.fact))
}

#[test]
fn sentences_name_the_process_that_matters() {
    for (hazard, facts, sentence) in [
        (
            Hazard::Terminal,
            job_of("bash"),
            "bash (PID 50) forwards SIGHUP to its jobs unless they are disowned; SIGHUP terminates this process",
        ),
        (Hazard::Terminal, job_of("dash"), "it is in the background of pts/3, and nothing forwards SIGHUP to it"),
        (
            Hazard::Terminal,
            in_foreground(job_of("dash")),
            "it is in the foreground of pts/3; when dash (PID 50) ends, the kernel will send it SIGHUP, which \
            terminates it",
        ),
        (
            Hazard::Terminal,
            stopped(with_signals(job_of("bash"), HUP, 0, 0)),
            "it is stopped; when bash (PID 50) ends and orphans it, the kernel will send it SIGHUP, which it ignores, \
            and bash will send it SIGTERM",
        ),
        (
            Hazard::Shell,
            with_signals(job_of("zsh"), 0, HUP, 0),
            "zsh (PID 50) sends SIGHUP to its jobs on exit unless NO_HUP is set or they are disowned; this process \
            catches SIGHUP",
        ),
        (Hazard::Shell, job_of("dash"), "dash (PID 50) does not signal its jobs when it exits"),
        (
            Hazard::Keys,
            in_foreground(job_of("dash")),
            "it is in the foreground, unprotected from Ctrl-C, Ctrl-\\ and Ctrl-Z",
        ),
    ] {
        assert_eq!(grade(&facts, hazard).1, sentence);
    }
}

#[test]
fn long_lists_of_descriptors_are_cut() {
    let on_terminal = |count| (0..count).fold(safe(), |facts, fd| with_open(facts, fd, Endpoint::Terminal));
    for (count, start) in [
        (1, "stdin is on a terminal; "),
        (4, "stdin, stdout, stderr and fd 3 are on a terminal; "),
        (12, "stdin, stdout, stderr, fd 3, fd 4, fd 5, fd 6, fd 7, fd 8, fd 9 and 2 more are on a terminal; "),
    ] {
        let fact = grade(&on_terminal(count), Hazard::Streams).1;
        assert!(fact.starts_with(start), "{fact}");
    }
}

#[test]
fn streams_depend_on_what_holds_the_other_end() {
    let pipe = |other_end: &[Option<u32>]| Endpoint::Pipe { other_end: other_end.to_vec(), is_complete: true };
    let uncertain = |other_end: &[Option<u32>]| Endpoint::Pipe { other_end: other_end.to_vec(), is_complete: false };
    for (endpoint, expected) in [
        (uncertain(&[]), Grade::Unknown),
        (uncertain(&[Some(PTS)]), Grade::Unknown),
        (uncertain(&[Some(PTS), None]), Grade::Good),
        (Endpoint::Terminal, Grade::Bad),
        (Endpoint::Other, Grade::Good),
        (Endpoint::Socket, Grade::Good),
        (pipe(&[]), Grade::Good),
        (pipe(&[None]), Grade::Good),
        (pipe(&[Some(PTS), None]), Grade::Good),
        (pipe(&[Some(PTS), Some(PTS)]), Grade::Bad),
    ] {
        let facts = with_open(safe(), 7, endpoint.clone());
        let (grade, fact) = grade(&facts, Hazard::Streams);
        assert_eq!(grade, expected, "{endpoint:?}");
        assert_eq!(fact.starts_with("fd 7 is on a "), grade != Grade::Good, "{fact}");
        let outcome = if grade == Grade::Good { Outcome::Survives } else { Outcome::Perhaps };
        assert_eq!(judge(&facts).verdict.terminal_closing, outcome);
    }
    assert_eq!(grade(&with_open(safe(), 1, Endpoint::Socket), Hazard::Streams).0, Grade::Unknown);
    let unreadable = Facts { descriptors: None, ..safe() };
    assert_eq!(grade(&unreadable, Hazard::Streams).0, Grade::Unknown);
    assert!(!judge(&unreadable).verdict.is_safe());
}

#[test]
fn background_access_stops_jobs_that_use_the_terminal() {
    let on_terminal = |fd| with_open(job_of("dash"), fd, Endpoint::Terminal);
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
        assert_eq!(grade(&facts, Hazard::Background).0, expected, "{:?}", grade(&facts, Hazard::Background));
    }
}

#[test]
fn keys_reach_the_foreground_unless_ignored() {
    let keys = 1 << (libc::SIGINT - 1) | 1 << (libc::SIGQUIT - 1) | 1 << (libc::SIGTSTP - 1);
    for (facts, expected) in [
        (safe(), Grade::Good),
        (job_of("dash"), Grade::Good),
        (in_foreground(job_of("dash")), Grade::Bad),
        (with_signals(in_foreground(job_of("dash")), keys, 0, 0), Grade::Good),
        (with_signals(in_foreground(job_of("dash")), 0, keys, 0), Grade::Unknown),
        (with_signals(in_foreground(job_of("dash")), 0, 1 << 1, 0), Grade::Bad),
    ] {
        assert_eq!(grade(&facts, Hazard::Keys).0, expected);
    }
}

#[test]
fn logout_depends_on_control_group_and_settings() {
    use Outcome::{Ends, Perhaps, Survives};
    let manager = |kills, lingers| ServiceManager {
        is_systemd_running: true,
        logout: LogoutSettings { kills_user_processes: kills, lingers },
        ..ServiceManager::default()
    };
    let session = b"/user.slice/user-1000.slice/session-2.scope".to_vec();
    let user = b"/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope".to_vec();
    let service = b"/system.slice/cron.service".to_vec();
    for (group, manager, expected) in [
        (Some(session.clone()), ServiceManager::default(), Survives),
        (Some(session.clone()), ServiceManager { is_elogind_running: true, ..ServiceManager::default() }, Perhaps),
        (Some(session.clone()), manager(Some(true), None), Ends),
        (Some(session.clone()), manager(Some(false), None), Survives),
        (Some(session), manager(None, Some(true)), Perhaps),
        (Some(user.clone()), manager(Some(true), Some(true)), Survives),
        (Some(user.clone()), manager(Some(true), Some(false)), Ends),
        (Some(user.clone()), manager(Some(false), Some(false)), Perhaps),
        (Some(user), manager(None, None), Perhaps),
        (Some(service), manager(Some(true), Some(false)), Survives),
        (None, manager(Some(true), Some(false)), Perhaps),
    ] {
        let facts = Facts { control_group: group.clone(), manager: manager.clone(), ..safe() };
        let verdict = judge(&facts).verdict;
        assert_eq!(verdict.logout, expected, "{group:?} {manager:?}");
        // It is reported, but does not count for the exit status.
        assert!(verdict.is_safe());
    }
}

#[test]
fn sharing_a_control_group_with_a_terminal_emulator_is_bad_under_oomd() {
    let manager = ServiceManager { is_systemd_running: true, is_oomd_running: true, ..ServiceManager::default() };
    let with_oomd = || Facts { manager: manager.clone(), ..safe() };
    let shared = Facts { emulators: vec![process("xterm", Disposition::Default)], ..with_oomd() };
    for (facts, expected) in [
        (safe(), Grade::Good),
        (with_oomd(), Grade::Good),
        (shared, Grade::Bad),
        (Facts { control_group: None, ..with_oomd() }, Grade::Unknown),
    ] {
        assert_eq!(grade(&facts, Hazard::Memory).0, expected);
    }
}

#[test]
fn zombies_and_ignored_sigchld_are_bad() {
    let with_child = |is_zombie| Facts { children: vec![Child { pid: Pid::from_raw(200), is_zombie }], ..safe() };
    let sigchld = 1 << (libc::SIGCHLD - 1);
    for (facts, expected, fact) in [
        (safe(), Grade::Good, "0 running, no zombies"),
        (with_child(false), Grade::Good, "1 running, no zombies"),
        (with_child(true), Grade::Bad, "1 zombie: ended children that it has not waited for"),
        (
            with_signals(safe(), sigchld, 0, 0),
            Grade::Bad,
            "0 running; it ignores SIGCHLD, so exit statuses of children are lost",
        ),
    ] {
        assert_eq!(grade(&facts, Hazard::Children), (expected, fact.to_owned()));
    }
}
