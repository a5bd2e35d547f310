//! The survival matrix: shells, events and programs, each cell with the same program started by plain `&` (or, for
//! keys, in the foreground), which must die where POSIX and the shell's manual say so.
//!
//! `cargo test survival_table -- --ignored --nocapture` prints the whole table, with a row for each other way to
//! start a program that is to survive.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Process, Sandbox, Terminal, await_result, eventually, is_installed};

/// The programs. Each writes its PID to the file named by its argument as soon as it is what it claims to be, and
/// ends by itself after five minutes.
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
enum Program {
    /// Writes to stdout and stderr throughout; a failed write ends it.
    Writer,
    /// Reads stdin to its end, and goes on unless that was a terminal, which is gone then.
    Reader,
    /// Sets SIGHUP to default, as node, npm, vim and tmux do.
    Resetter,
}

/// The reader last: under `setsid -f` it takes what is typed from then on.
const PROGRAMS: [Program; 3] = [Program::Writer, Program::Resetter, Program::Reader];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
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

const EVENTS: [Event; 9] = [
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
    fn title(self) -> &'static str {
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

    /// The key that is the event, where it is one. Its control runs in the foreground.
    fn key(self) -> Option<&'static str> {
        match self {
            Self::CtrlC => Some("\x03"),
            Self::CtrlZ => Some("\x1a"),
            Self::CtrlBackslash => Some("\x1c"),
            _ => None,
        }
    }
}

struct Shell {
    name: &'static str,
    program: &'static [&'static str],
    /// Whether it passes a SIGHUP that ends it on to its jobs.
    passes_hangup_on: bool,
    /// Whether it sends its jobs SIGHUP when it exits.
    hangs_up_at_exit: bool,
}

const fn shell(
    name: &'static str,
    program: &'static [&'static str],
    passes_hangup_on: bool,
    hangs_up_at_exit: bool,
) -> Shell {
    Shell { name, program, passes_hangup_on, hangs_up_at_exit }
}

const SHELLS: [Shell; 9] = [
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Launcher {
    Detach,
    /// `&`, and in the foreground for keys
    Plain,
    Nohup,
    Setsid,
    Disown,
    Daemonize,
}

const LAUNCHERS: [Launcher; 6] =
    [Launcher::Detach, Launcher::Plain, Launcher::Nohup, Launcher::Setsid, Launcher::Disown, Launcher::Daemonize];

impl Launcher {
    fn title(self) -> &'static str {
        match self {
            Self::Detach => "detach",
            Self::Plain => "&",
            Self::Nohup => "nohup &",
            Self::Setsid => "setsid -f",
            Self::Disown => "& disown",
            Self::Daemonize => "daemonize",
        }
    }

    /// What is typed to start `command`; `None` where the shell has no such thing.
    fn line(self, shell: &Shell, command: &str) -> Option<String> {
        let has_disown = ["bash", "bash huponexit", "zsh", "fish", "ksh93"].contains(&shell.name);
        match self {
            Self::Detach => Some(format!("detach {command}")),
            Self::Plain => Some(format!("{command} &")),
            Self::Nohup => Some(format!("nohup {command} &")),
            Self::Setsid => Some(format!("setsid -f {command}")),
            Self::Disown if has_disown => Some(format!("{command} & disown")),
            Self::Disown => None,
            Self::Daemonize => Some(format!("daemonize {command}")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Alive,
    Stopped,
    Dead,
}

/// What became of the programs that `launcher` started in `shell` when `event` happened.
type Fates = BTreeMap<(Launcher, Program), Fate>;

/// One terminal, one shell, one event: starts every program by every launcher, lets the event happen, and looks.
fn observe(shell: &Shell, event: Event, launchers: &[Launcher]) -> Fates {
    let sandbox = Sandbox::new();
    // /etc/profile has set PATH by then.
    let profile = format!("shopt -s huponexit; PATH='{}'\n", sandbox.environment()[OsStr::new("PATH")].display());
    fs::write(sandbox.path("home/.bash_profile"), profile).unwrap();
    sandbox.script("program", PROGRAM);
    let mut terminal = Terminal::open_with(&sandbox, shell.program);
    let command = |launcher: Launcher, program: Program| -> (String, PathBuf) {
        let kind = format!("{program:?}").to_lowercase();
        let file = sandbox.path(&format!("{launcher:?}.{kind}.pid"));
        (format!("{} {kind} {}", sandbox.path("work/program").display(), file.display()), file)
    };
    let mut started = BTreeMap::new();
    for launcher in launchers {
        for program in PROGRAMS {
            let (command, file) = command(*launcher, program);
            let in_foreground = *launcher == Launcher::Plain && event.key().is_some();
            if let (Some(line), false) = (launcher.line(shell, &command), in_foreground) {
                started.insert((*launcher, program), terminal.start(&line, &file));
            }
        }
    }
    let mut fates = Fates::new();
    match event {
        Event::Exit => repeat_until_shell_ends(&mut terminal, |terminal| terminal.type_line("exit")),
        Event::Close => terminal.hang_up(),
        Event::HangUpShell => repeat_until_shell_ends(&mut terminal, |t| t.shell.signal(Signal::SIGHUP)),
        Event::KillShell => terminal.shell.signal(Signal::SIGKILL),
        Event::HangUpGroup => repeat_until_shell_ends(&mut terminal, |t| t.shell.signal_group(Signal::SIGHUP)),
        // What has ended already, as a reader whose stdin cannot be read, is not there to be signalled.
        Event::HangUpJob => {
            started.values().filter(|process| process.is_alive()).for_each(|process| process.signal(Signal::SIGHUP));
        }
        Event::CtrlC | Event::CtrlZ | Event::CtrlBackslash => {
            let key = event.key().unwrap();
            if !launchers.contains(&Launcher::Plain) {
                terminal.press(key);
            }
            for program in PROGRAMS.into_iter().filter(|_| launchers.contains(&Launcher::Plain)) {
                let (command, file) = command(Launcher::Plain, program);
                let control = terminal.start(&command, &file);
                eventually(|| terminal.foreground() == control.group());
                terminal.press(key);
                eventually(|| fate(&control) != Fate::Alive);
                fates.insert((Launcher::Plain, program), fate(&control));
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

/// Asks the shell to end until it does: some warn first that there are jobs.
pub fn repeat_until_shell_ends(terminal: &mut Terminal, ask: impl Fn(&mut Terminal)) {
    let mut asked = None::<Instant>;
    await_result(|| {
        if terminal.is_shell_dead() {
            return Ok(());
        }
        if asked.is_none_or(|asked| asked.elapsed() > Duration::from_millis(500)) {
            ask(terminal);
            asked = Some(Instant::now());
        }
        Err(format!("the screen is {:?}", terminal.screen_end()))
    });
}

fn fate(process: &Process) -> Fate {
    match (process.is_dead(), process.is_stopped()) {
        (true, _) => Fate::Dead,
        (_, true) => Fate::Stopped,
        _ => Fate::Alive,
    }
}

/// Waits until every process has met what the event had for it. The writer and the resetter wake up often: each has
/// been scheduled some more times since, which its count of context switches shows, or is stopped, or has ended. A
/// signal that was sent is delivered by then, and the writer has tried to write. The reader sleeps until it is woken:
/// it has met everything when it is found asleep many times in a row.
fn settle(started: &BTreeMap<(Launcher, Program), Process>) {
    let before: Vec<_> = started.iter().map(|((_, program), process)| (program, process, switches(process))).collect();
    let mut asleep = vec![0; before.len()];
    eventually(|| {
        let settled = before.iter().zip(&mut asleep).map(|((program, process, before), asleep)| {
            let is_asleep = process.stat(3).is_some_and(|state| state == "S");
            *asleep = if is_asleep { *asleep + 1 } else { 0 };
            match (fate(process), program) {
                (Fate::Alive, Program::Reader) => *asleep > 20,
                (Fate::Alive, _) => switches(process) > before.map(|count| count + 4),
                _ => true,
            }
        });
        // All are looked at each time, to count.
        settled.filter(|settled| !settled).count() == 0
    });
}

pub fn switches(process: &Process) -> Option<u64> {
    let status = fs::read_to_string(process.file("status")).ok()?;
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    count.trim().parse().ok()
}

/// Whether plain `&` (for keys: the foreground) must die or stop.
///
/// The terminal takes whoever reads or writes it with it, and a key or a signal whoever it is sent to. A program
/// that does neither dies of the shell alone: of the SIGHUP that some shells send their jobs. SIGKILL gives a shell
/// no time for that. `None`: zsh may find the end of its input first when the terminal closes, and then sends none.
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
    if !is_installed(shell.program[0]) || !is_installed("perl") {
        return;
    }
    for event in EVENTS {
        let fates = observe(shell, event, &[Launcher::Detach, Launcher::Plain]);
        for program in PROGRAMS {
            let cell = format!("{} / {} / {program:?}: {fates:?}", shell.name, event.title());
            // Whoever sets SIGHUP to default and is sent one has asked for it.
            let is_own_wish = event == Event::HangUpJob && program == Program::Resetter;
            let expected = if is_own_wish { Fate::Dead } else { Fate::Alive };
            assert_eq!(fates[&(Launcher::Detach, program)], expected, "{cell}");
            let control = fates[&(Launcher::Plain, program)];
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
    job_of_a_login_bash_with_huponexit_survives_every_event: "bash huponexit",
    job_of_zsh_survives_every_event: "zsh",
    job_of_fish_survives_every_event: "fish",
    job_of_dash_survives_every_event: "dash",
    job_of_ksh93_survives_every_event: "ksh93",
    job_of_mksh_survives_every_event: "mksh",
    job_of_tcsh_survives_every_event: "tcsh",
    job_of_busybox_sh_survives_every_event: "busybox sh",
}

#[test]
#[ignore = "prints the survival table with all peers"]
fn survival_table() {
    let peers: Vec<Launcher> = LAUNCHERS.into_iter().collect();
    let table = Mutex::new(BTreeMap::new());
    let cells: Vec<_> = SHELLS
        .iter()
        .enumerate()
        .flat_map(|(number, _)| peers.iter().map(move |launcher| (number, *launcher)))
        .collect();
    let next = Mutex::new(cells.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some((number, launcher)) = next.lock().unwrap().next() else { return };
                    for event in EVENTS {
                        let fates = observe(&SHELLS[number], event, &[launcher]);
                        let cell: String = PROGRAMS
                            .iter()
                            .map(|program| match fates.get(&(launcher, *program)) {
                                Some(Fate::Alive) => '+',
                                Some(Fate::Stopped) => 's',
                                Some(Fate::Dead) => '-',
                                None => ' ',
                            })
                            .collect();
                        table.lock().unwrap().insert((number, launcher, event.title()), cell);
                    }
                }
            });
        }
    });
    println!("{}", render(&table.into_inner().unwrap()));
}

fn render(table: &BTreeMap<(usize, Launcher, &str), String>) -> String {
    let mut text = String::from("| shell | started by |");
    for event in EVENTS {
        let _ = write!(text, " {} |", event.title());
    }
    text.push_str("\n|---|---|");
    text.push_str(&"---|".repeat(EVENTS.len()));
    for (number, shell) in SHELLS.iter().enumerate() {
        for launcher in LAUNCHERS {
            let _ = write!(text, "\n| {} | `{}` |", shell.name, launcher.title());
            for event in EVENTS {
                let cell = table.get(&(number, launcher, event.title())).map_or("", String::as_str);
                let _ = write!(text, " {} |", cell.trim());
            }
        }
    }
    text
}
