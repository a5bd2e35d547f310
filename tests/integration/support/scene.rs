//! A shell on a terminal, programs that it has started, and an event that ends it: what `--check` predicts must come
//! true.

use nix::sys::signal::Signal;

use super::process::Process;
use super::sandbox::Sandbox;
use super::terminal::{Terminal, repeat_until_shell_ends};
use super::wait::{await_result, eventually};

/// Writes its PID to the file named by its argument and wakes up often. As `catcher` it has a handler for SIGHUP.
pub const PROGRAM: &str = r#"#!/usr/bin/perl
my ($kind, $file) = @ARGV;
alarm 300;
$SIG{HUP} = sub { } if $kind eq 'catcher';
open my $ready, '>', "$file.new" or die;
print $ready "$$\n";
close $ready;
rename "$file.new", $file or die;
select undef, undef, undef, 0.02 while 1;
"#;

/// Takes the streams of a program away from the terminal.
pub const QUIET: &str = "< /dev/null > /dev/null 2>&1";

/// Asserts that the predicted outcome has happened.
#[track_caller]
pub fn assert_came_true(outcome: &str, process: &Process, what: &str) {
    match outcome {
        "ends" => await_result(|| if process.is_dead() { Ok(()) } else { Err(format!("{what} lives")) }),
        "survives" => {
            // It has to wake up a few times, unless it has ended.
            let before = process.switches();
            eventually(|| process.is_dead() || process.switches() > before.map(|count| count + 4));
            assert!(process.is_alive(), "{what} has ended");
        }
        _ => assert_eq!(outcome, "perhaps", "{what}"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Close,
    Exit,
    /// Kills the shell: no `exit` can be typed while a job is in the foreground.
    Kill,
}

pub struct Scene {
    pub sandbox: Sandbox,
    pub terminal: Terminal,
}

impl Scene {
    /// Opens a terminal with this shell.
    pub fn open(program: &[&str]) -> Self {
        let sandbox = Sandbox::new();
        sandbox.script("program", PROGRAM);
        let terminal = Terminal::open_with(&sandbox, program);
        Self { sandbox, terminal }
    }

    /// Runs the command line `line`, in which `{}` stands for the program and `{file}` for the file with its PID.
    #[track_caller]
    pub fn start(&mut self, name: &str, line: &str) -> Process {
        let file = self.sandbox.path(&format!("{}.pid", name.replace([' ', '&'], "_")));
        let program = self.sandbox.path("work/program");
        let command = |kind: &str| format!("{} {kind} {}", program.display(), file.display());
        let line = line.replace("{catcher}", &command("catcher")).replace("{}", &command("plain"));
        let line = line.replace("{file}", &file.display().to_string());
        self.terminal.start(&line, &file)
    }

    /// Loads the function `detach` into a shell of this name.
    #[track_caller]
    pub fn load_function(&mut self, shell: &str) {
        let file = self.sandbox.path("loaded");
        let load = match shell {
            "fish" => "detach --init fish | source".to_owned(),
            shell => format!("eval \"$(detach --init {shell})\""),
        };
        let is_loaded = || if file.exists() { Ok(()) } else { Err(format!("{} is missing", file.display())) };
        self.terminal.type_until(&format!("{load}; echo > {}", file.display()), is_loaded);
    }

    #[track_caller]
    pub fn let_happen(&mut self, event: Event) {
        match event {
            Event::Close => {
                // While a job is in the foreground, there is no prompt to wait for.
                if self.terminal.foreground() == self.terminal.shell.group() {
                    self.terminal.wait_for_prompt();
                }
                self.terminal.hang_up();
            }
            Event::Exit => repeat_until_shell_ends(&mut self.terminal, |terminal| terminal.type_line("exit")),
            Event::Kill => self.terminal.shell.signal(Signal::SIGKILL),
        }
        eventually(|| self.terminal.is_shell_dead());
        if event != Event::Close {
            // A terminal emulator closes its window when the shell has ended.
            self.terminal.hang_up();
        }
    }
}
