//! What people and scripts see: notes and errors on stderr, data on stdout. The only writer to either.
//!
//! A message is written with one call, and when that fails nothing else does: a full or closed stderr never breaks a
//! start. Colour only on a terminal that wants it: <https://no-color.org>.

use std::env;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use nu_ansi_term::{Color, Style};

use crate::error::{Error, show};
use crate::record::Destination;
use crate::sequence::Step;

/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors of detach alone.
    Quiet,
    /// On a terminal one line, else nothing.
    #[default]
    Normal,
    /// Every step.
    Verbose,
}

/// Writes to stdout and stderr.
pub struct Ui {
    verbosity: Verbosity,
    is_terminal: bool,
    has_colour: bool,
}

impl Ui {
    /// Looks at stderr and the environment.
    pub fn new(verbosity: Verbosity) -> Self {
        let is_terminal = io::stderr().is_terminal();
        Self { verbosity, is_terminal, has_colour: is_terminal && wants_colour() }
    }

    /// Whether somebody sees what is written to stderr at once.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Whether every step is to be named.
    pub fn is_verbose(&self) -> bool {
        self.verbosity == Verbosity::Verbose
    }

    /// What a person at a terminal wants to know. Scripts do not, unless they ask for every step.
    pub fn note(&self, text: impl Display) {
        if self.shows_notes() {
            self.write(Style::new().dimmed(), &text.to_string());
        }
    }

    /// Whether notes are shown, for those that cost something to put together.
    pub fn shows_notes(&self) -> bool {
        self.is_verbose() || self.is_terminal && self.verbosity == Verbosity::Normal
    }

    /// Every step of a start, in columns, if steps are asked for.
    pub fn note_steps(&self, steps: &[Step]) {
        let width = |text: &dyn Fn(&Step) -> usize| steps.iter().map(text).max().unwrap_or(0);
        let pid_width = width(&|step| step.pid.to_string().len());
        let name_width = width(&|step| step.name.len());
        let are_numbered = steps.iter().any(|step| step.number.is_some());
        for step in steps.iter().filter(|_| self.is_verbose()) {
            let number = match step.number {
                Some(number) => format!("{number} "),
                None if are_numbered => "  ".to_owned(),
                None => String::new(),
            };
            let pid = self.strong(format_args!("{:pid_width$}", step.pid.as_raw()));
            let name = self.strong(format_args!("{:name_width$}", step.name));
            self.note(format_args!("{pid} {number}{name} {}", step.result));
        }
    }

    /// What went wrong beside the start itself.
    pub fn warn(&self, text: impl Display) {
        if self.verbosity > Verbosity::Quiet {
            self.write(Color::Yellow.bold(), &format!("warning: {text}"));
        }
    }

    /// How the command itself went wrong.
    pub fn complain(&self, text: impl Display) {
        if self.verbosity > Verbosity::Quiet {
            self.write(Color::Red.bold(), &text.to_string());
        }
    }

    /// Some lines that a command has written, set off from detach's own.
    pub fn quote_output(&self, lines: &[String]) {
        if self.verbosity == Verbosity::Quiet {
            return;
        }
        let bar = if self.has_colour { Color::Red.paint("|").to_string() } else { "|".to_owned() };
        let lines: Vec<String> = lines.iter().map(|line| format!("  {bar} {line}\n")).collect();
        write_stderr(&lines.concat());
    }

    /// Why something was not done, and what to do about it.
    pub fn error(&self, error: &Error) {
        self.write(Color::Red.bold(), &error.to_string());
        if let Some(hint) = error.hint() {
            self.write(Color::Cyan.bold(), &format!("hint: {hint}"));
        }
    }

    /// `text` in the style of what matters in a note.
    pub fn strong(&self, text: impl Display) -> String {
        let style = if self.has_colour { Style::new().bold() } else { Style::new() };
        style.paint(text.to_string()).to_string()
    }

    fn write(&self, style: Style, text: &str) {
        let style = if self.has_colour { style } else { Style::new() };
        write_stderr(&format!("{} {text}\n", style.paint("detach:")));
    }
}

/// Whether a terminal is to show colours.
pub fn wants_colour() -> bool {
    let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    !no_colour && !is_dumb
}

/// Writes data to stdout, all or an error. A reader that has gone away is no error.
pub fn write_data(data: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(data.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn write_stderr(text: &str) {
    // There is nowhere to say that a message could not be said.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// `path` for people: the home directory shortened to `~`, control bytes escaped.
pub fn shorten_home(path: &Path) -> String {
    let home = env::var_os("HOME").filter(|home| home.len() > 1);
    match home.as_ref().and_then(|home| path.strip_prefix(home).ok()) {
        Some(rest) => format!("~/{}", show(rest)),
        None => show(path),
    }
}

/// Where the output goes, as the end of a sentence.
pub fn describe_output(output: &[Destination; 2]) -> String {
    let place = |destination: &Destination| match destination {
        Destination::Log(path) | Destination::File(path) => format!("in {}", shorten_home(path.as_path())),
        Destination::Discarded => "discarded".to_owned(),
        Destination::Kept => "left as it is".to_owned(),
    };
    let [stdout, stderr] = output;
    if stdout == stderr {
        format!("output {}", place(stdout))
    } else {
        format!("stdout {}, stderr {}", place(stdout), place(stderr))
    }
}
