//! Notes and errors on stderr, data on stdout. Nothing else writes to either.
//!
//! A message is written with one call, and a full or closed stderr never makes a start fail. Color appears only on a
//! terminal, and only if the user wants it: <https://no-color.org>.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::env;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use nu_ansi_term::{Color, Style};

/// How much is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Only errors of detach.
    Quiet,
    /// One line on a terminal, else nothing.
    #[default]
    Normal,
    /// The line that a terminal would get, wherever stderr goes.
    Verbose,
    /// Every step as well.
    Steps,
}

/// Writes to stdout and stderr.
pub struct Ui {
    verbosity: Verbosity,
    is_terminal: bool,
    has_colour: bool,
    /// The warnings that were given.
    warnings: RefCell<BTreeSet<String>>,
}

impl Ui {
    /// Looks at stderr and the environment.
    pub fn new(verbosity: Verbosity) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let has_colour = is_terminal && wants_colour();
        Self { verbosity, is_terminal, has_colour, warnings: RefCell::default() }
    }

    /// Whether stderr is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Whether only errors of detach are shown.
    pub fn is_quiet(&self) -> bool {
        self.verbosity == Verbosity::Quiet
    }

    /// Whether the user asked for more than is usual.
    pub fn is_verbose(&self) -> bool {
        self.verbosity >= Verbosity::Verbose
    }

    /// Whether every step is shown.
    pub fn shows_steps(&self) -> bool {
        self.verbosity == Verbosity::Steps
    }

    /// Whether notes are shown, for those that cost something to put together.
    pub fn shows_notes(&self) -> bool {
        self.is_verbose() || self.is_terminal && self.verbosity == Verbosity::Normal
    }

    /// For a person at a terminal. Scripts get it only if they ask for it.
    pub fn note(&self, text: impl Display) {
        if self.shows_notes() {
            self.write(Style::new().dimmed(), &text.to_string());
        }
    }

    /// What went wrong, although the request was carried out. The same text is printed only once: a damaged file may be
    /// read again.
    pub fn warn(&self, text: impl Display) {
        let text = format!("warning: {text}");
        if self.verbosity > Verbosity::Quiet && self.warnings.borrow_mut().insert(text.clone()) {
            self.write(Color::Yellow.bold(), &text);
        }
    }

    /// How the command itself failed.
    pub fn complain(&self, text: impl Display) {
        if self.verbosity > Verbosity::Quiet {
            self.write(Color::Red.bold(), &text.to_string());
        }
    }

    /// Lines that a command has written, set off from those of detach.
    pub fn quote_output(&self, lines: &[String]) {
        if self.verbosity == Verbosity::Quiet {
            return;
        }
        let bar = if self.has_colour { Color::Red.paint("|").to_string() } else { "|".to_owned() };
        let lines: Vec<String> = lines.iter().map(|line| format!("  {bar} {line}\n")).collect();
        write_stderr(&lines.concat());
    }

    /// Why something was not done, and what the user can do about it.
    pub fn failure(&self, sentence: impl Display, hint: Option<&str>) {
        self.write(Color::Red.bold(), &sentence.to_string());
        if let Some(hint) = hint {
            self.write(Color::Cyan.bold(), &format!("hint: {hint}"));
        }
    }

    /// An error that is laid out already, without colors and with them.
    pub fn usage_error(&self, plain: &str, coloured: &str) {
        write_stderr(if self.has_colour { coloured } else { plain });
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

/// Whether colors may be shown on a terminal.
pub fn wants_colour() -> bool {
    let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    !no_colour && !is_dumb
}

/// Writes data to stdout, all or an error. A reader that has closed the pipe is no error.
pub fn write_data(data: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(data.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn write_stderr(text: &str) {
    // There is nowhere to report that a message could not be written.
    let _ = io::stderr().write_all(text.as_bytes());
}
