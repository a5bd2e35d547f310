//! The survival matrix: every shell, every event, every program. Each job has a control, the same program started by
//! plain `&` (or, for keys, in the foreground), which must die where POSIX and the manual of the shell say so.
//!
//! `support::survival` runs the experiment; `cargo bench --bench tables` runs it for every other
//! way to start a program.

use crate::support::survival::{DETACH, EVENTS, Event, Fate, PLAIN, PROGRAMS, Program, SHELLS, Shell, observe};
use crate::support::{Process, Sandbox, Terminal, eventually};

/// Whether plain `&` (for keys: the foreground) must die or stop.
///
/// A program that reads or writes the terminal dies with it, and a key or a signal ends what it is sent to. Every other
/// program can only die of the shell: of the SIGHUP that some shells send their jobs, unless SIGKILL leaves them no
/// time. `None`: when the terminal closes, zsh may find the end of its input first, and then it sends no SIGHUP.
fn control_dies(shell: &Shell, event: Event, program: Program) -> Option<bool> {
    match (program, event) {
        (Program::Writer | Program::Reader, _) => Some(true),
        (_, Event::Exit) => Some(shell.hangs_up_at_exit),
        (_, Event::Close) if shell.name == "zsh" => None,
        (_, Event::Close | Event::HangUpShell | Event::HangUpGroup) => Some(shell.passes_hangup_on),
        (_, Event::KillShell) => Some(false),
        (_, Event::CtrlC | Event::CtrlZ | Event::CtrlBackslash | Event::HangUpJob) => Some(true),
    }
}

fn assert_survives(shell: &Shell) {
    requires!((shell.program[0]), perl);
    for event in EVENTS {
        let fates = observe(shell, event, &[DETACH, PLAIN]);
        for program in PROGRAMS {
            let cell = format!("{} / {} / {program:?}: {fates:?}", shell.name, event.title());
            // A program that sets SIGHUP to default and is sent one dies of it.
            let is_intended = event == Event::HangUpJob && program == Program::Resetter;
            let expected = if is_intended { Fate::Dead } else { Fate::Alive };
            assert_eq!(fates[&(DETACH, program)], expected, "{cell}");
            let control = fates[&(PLAIN, program)];
            if let Some(dies) = control_dies(shell, event, program) {
                assert_eq!(control != Fate::Alive, dies, "the control: {cell}");
            }
        }
    }
}

macro_rules! survival_tests {
    ($($test:ident: $shell:literal,)*) => {$(
        #[test]
        fn $test() {
            assert_survives(SHELLS.iter().find(|shell| shell.name == $shell).unwrap());
        }
    )*};
}

survival_tests! {
    job_of_bash_survives_every_event: "bash",
    job_of_bash_with_huponexit_survives_every_event: "bash huponexit",
    job_of_zsh_survives_every_event: "zsh",
    job_of_fish_survives_every_event: "fish",
    job_of_dash_survives_every_event: "dash",
    job_of_ksh93_survives_every_event: "ksh93",
    job_of_mksh_survives_every_event: "mksh",
    job_of_tcsh_survives_every_event: "tcsh",
    job_of_busybox_sh_survives_every_event: "busybox sh",
}

/// Shells that ask before they exit while jobs run, and how that is switched on.
const ASKING: [(&[&str], &str); 3] = [
    (&["bash", "--norc", "--noprofile", "-i"], "shopt -s checkjobs"),
    (&["zsh", "-f", "-i"], "setopt check_jobs check_running_jobs"),
    (&["fish", "--no-config", "-i"], "true"),
];

#[test]
fn shell_that_asks_before_it_exits_does_not_ask_for_a_job() {
    for (program, option) in ASKING {
        requires!((program[0]));
        for (launcher, asks) in [("detach -P sleep 60 > PID", false), ("sleep 60 & echo $last > PID", true)] {
            let sandbox = Sandbox::new();
            let mut terminal = Terminal::open_with(&sandbox, program);
            let file = sandbox.path("pid");
            let last = if program[0] == "fish" { "$last_pid" } else { "$!" };
            let line = launcher.replace("PID", &file.display().to_string()).replace("$last", last);
            let job: Process = terminal.start(&format!("{option}; {line}"), &file);
            terminal.type_line("exit");
            if asks {
                // The control.
                eventually(|| terminal.screen_end().to_lowercase().contains("jobs"));
                assert!(!terminal.is_shell_dead(), "{program:?}");
            } else {
                eventually(|| terminal.is_shell_dead());
                assert!(job.is_alive(), "{program:?}");
            }
        }
    }
}
