//! The survival experiment: one shell, one event, the same programs started in several ways; which of them survive?
//!
//! The survival tests run it for detach and for plain `&`, the control. The printer of the survival table runs it for
//! every other way to start a program that is to survive.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use super::process::Process;
use super::sandbox::Sandbox;
use super::terminal::{Terminal, repeat_until_shell_ends};
use super::wait::eventually;

/// The programs. Each writes its PID to the file named by its argument as soon as it has set itself up, and ends by
/// itself after five minutes.
const PROGRAM: &str = r#"#!/usr/bin/perl
use strict;
my ($kind, $file) = @ARGV;
alarm 300;
$SIG{HUP} = 'DEFAULT' if $kind eq 'resetter';
my $is_terminal = -t STDIN; # a terminal that has hung up is none
open my $ready, '>', "$file.new" or die;
print $ready "$$\n";
close $ready;
rename "$file.new", $file or die;
if ($kind eq 'writer') {
    while (1) {
        syswrite STDOUT, "out\n" or exit 1;
        syswrite STDERR, "err\n" or exit 1;
        select undef, undef, undef, 0.01;
    }
}
if ($kind eq 'reader') {
    my ($got, $line);
    do { $got = sysread STDIN, $line, 100 } while $got;
    exit 1 if !defined $got || $is_terminal;
}
select undef, undef, undef, 0.02 while 1;
"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// Writes to stdout and stderr throughout; a failed write ends it.
    Writer,
    /// Reads stdin to its end. If that was a terminal it is gone then, and the program exits.
    Reader,
    /// Sets SIGHUP to default, as node, npm, vim and tmux do.
    Resetter,
}

/// The reader comes last: under `setsid -f` it takes everything that is typed from then on.
pub const PROGRAMS: [Program; 3] = [Program::Writer, Program::Resetter, Program::Reader];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Exit,
    Close,
    HangUpShell,
    KillShell,
    HangUpGroup,
    CtrlC,
    CtrlZ,
    CtrlBackslash,
    HangUpJob,
}

pub const EVENTS: [Event; 9] = [
    Event::Exit,
    Event::Close,
    Event::HangUpShell,
    Event::KillShell,
    Event::HangUpGroup,
    Event::CtrlC,
    Event::CtrlZ,
    Event::CtrlBackslash,
    Event::HangUpJob,
];

impl Event {
    pub fn title(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Close => "close",
            Self::HangUpShell => "HUP shell",
            Self::KillShell => "KILL shell",
            Self::HangUpGroup => "HUP group",
            Self::CtrlC => "^C",
            Self::CtrlZ => "^Z",
            Self::CtrlBackslash => "^\\",
            Self::HangUpJob => "HUP job",
        }
    }

    /// The key, if the event is one. Its control runs in the foreground.
    fn key(self) -> Option<&'static str> {
        match self {
            Self::CtrlC => Some("\x03"),
            Self::CtrlZ => Some("\x1a"),
            Self::CtrlBackslash => Some("\x1c"),
            _ => None,
        }
    }
}

pub struct Shell {
    pub name: &'static str,
    pub program: &'static [&'static str],
    /// Whether it passes on to its jobs a SIGHUP that ends it.
    pub passes_hangup_on: bool,
    /// Whether it sends its jobs SIGHUP when it exits.
    pub hangs_up_at_exit: bool,
}

const fn shell(
    name: &'static str,
    program: &'static [&'static str],
    passes_hangup_on: bool,
    hangs_up_at_exit: bool,
) -> Shell {
    Shell { name, program, passes_hangup_on, hangs_up_at_exit }
}

pub const SHELLS: [Shell; 9] = [
    shell("bash", &["bash", "--norc", "--noprofile", "-i"], true, false),
    shell("bash huponexit", &["bash", "--login"], true, true),
    shell("zsh", &["zsh", "-f", "-i"], true, true),
    shell("fish", &["fish", "--no-config", "-i"], true, true),
    shell("dash", &["dash", "-i"], false, false),
    shell("ksh93", &["ksh93", "-i", "+o", "emacs"], false, false),
    shell("mksh", &["mksh", "-i"], false, false),
    shell("tcsh", &["tcsh", "-f", "-i"], false, false),
    shell("busybox sh", &["busybox", "sh", "-i"], false, false),
];

/// What is typed to start a program, which COMMAND stands for.
pub type Launcher = &'static str;

pub const DETACH: Launcher = "detach COMMAND";
/// The control. For keys, the program runs in the foreground instead.
pub const PLAIN: Launcher = "COMMAND &";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Alive,
    Stopped,
    Dead,
}

/// What became of each program that each launcher started.
pub type Fates = BTreeMap<(Launcher, Program), Fate>;

/// Opens a terminal with `shell` in it, starts every program by every launcher, lets `event` happen, and looks.
pub fn observe(shell: &Shell, event: Event, launchers: &[Launcher]) -> Fates {
    let sandbox = Sandbox::new();
    // A login bash reads /etc/profile before, which sets PATH.
    let profile = format!("shopt -s huponexit; PATH='{}'\n", sandbox.environment()[OsStr::new("PATH")].display());
    fs::write(sandbox.path("home/.bash_profile"), profile).unwrap();
    sandbox.script("program", PROGRAM);
    let mut terminal = Terminal::open_with(&sandbox, shell.program);
    let command = |launcher: Launcher, program: Program| -> (String, PathBuf) {
        let number = launchers.iter().position(|it| *it == launcher).unwrap();
        let kind = format!("{program:?}").to_lowercase();
        let file = sandbox.path(&format!("{number}.{kind}.pid"));
        (format!("{} {kind} {}", sandbox.work("program").display(), file.display()), file)
    };
    let mut started = BTreeMap::new();
    for launcher in launchers.iter().filter(|it| **it != PLAIN || event.key().is_none()) {
        for program in PROGRAMS {
            let (command, file) = command(launcher, program);
            started.insert((*launcher, program), terminal.start(&launcher.replace("COMMAND", &command), &file));
        }
    }
    let mut fates = Fates::new();
    match event {
        Event::Exit => repeat_until_shell_ends(&mut terminal, |terminal| terminal.type_line("exit")),
        Event::Close => terminal.hang_up(),
        Event::HangUpShell => repeat_until_shell_ends(&mut terminal, |t| t.shell.signal(Signal::SIGHUP)),
        Event::KillShell => terminal.shell.signal(Signal::SIGKILL),
        Event::HangUpGroup => repeat_until_shell_ends(&mut terminal, |t| t.shell.signal_group(Signal::SIGHUP)),
        // A reader whose stdin cannot be read has ended already.
        Event::HangUpJob => {
            started.values().filter(|process| process.is_alive()).for_each(|process| process.signal(Signal::SIGHUP));
        }
        Event::CtrlC | Event::CtrlZ | Event::CtrlBackslash => {
            let key = event.key().unwrap();
            if !launchers.contains(&PLAIN) {
                terminal.press(key);
            }
            for program in PROGRAMS.into_iter().filter(|_| launchers.contains(&PLAIN)) {
                let (command, file) = command(PLAIN, program);
                let control = terminal.start(&command, &file);
                eventually(|| terminal.foreground() == control.group());
                terminal.press(key);
                eventually(|| fate(&control) != Fate::Alive);
                fates.insert((PLAIN, program), fate(&control));
            }
        }
    }
    if matches!(event, Event::Exit | Event::HangUpShell | Event::KillShell | Event::HangUpGroup) {
        // A terminal emulator closes its window when the shell has ended.
        eventually(|| terminal.is_shell_dead());
        terminal.hang_up();
    }
    eventually(|| event.key().is_some() || event == Event::HangUpJob || terminal.shell.is_dead());
    settle(&started);
    fates.extend(started.iter().map(|(key, process)| (*key, fate(process))));
    fates
}

fn fate(process: &Process) -> Fate {
    match (process.is_dead(), process.is_stopped()) {
        (true, _) => Fate::Dead,
        (_, true) => Fate::Stopped,
        _ => Fate::Alive,
    }
}

/// Waits until the event has had its effect on every process. The writer and the resetter wake up often: when their
/// count of context switches has grown, a signal has been delivered, and the writer has tried to write. The reader
/// sleeps until something wakes it up: it is done when it is found asleep many times in a row.
fn settle(started: &BTreeMap<(Launcher, Program), Process>) {
    let before: Vec<_> = started.iter().map(|((_, program), process)| (program, process, process.switches())).collect();
    let mut asleep = vec![0; before.len()];
    eventually(|| {
        let settled = before.iter().zip(&mut asleep).map(|((program, process, before), asleep)| {
            let is_asleep = process.stat(3).is_some_and(|state| state == "S");
            *asleep = if is_asleep { *asleep + 1 } else { 0 };
            match (fate(process), program) {
                (Fate::Alive, Program::Reader) => *asleep > 20,
                (Fate::Alive, _) => process.switches() > before.map(|count| count + 4),
                _ => true,
            }
        });
        // All are looked at each time, to count.
        settled.filter(|settled| !settled).count() == 0
    });
}
