//! The command line: from the words that were typed to what they mean.
//!
//! `grammar.rs` says what may be typed, `values.rs` reads single values. clap reports wrong usage in its own words;
//! invalid values are reported like all other errors of the program.

mod grammar;
#[cfg(test)]
mod tests;
mod values;

use std::error::Error as _;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::unix::ffi::OsStrExt;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command, FromArgMatches as _, Id};

use crate::error::{Error, FAILED};
use crate::init::Shell;
use crate::jobs::{list, log, prune, stop};
use crate::rescue;
use crate::start::{Request, Scope, Sequence, Tracking, Watch};
use crate::term::text::quote;
use crate::term::ui::{Ui, Verbosity, wants_colour, write_data};
use grammar::{Mode, Start, StartLine, Typed, Volume};

pub use grammar::command;

/// What the user wants.
#[derive(Debug)]
pub enum Action {
    /// The help, the version or a usage error: see `print`.
    Print(clap::Error),
    Start(Box<Request>),
    List(list::Options),
    Log(log::Options),
    Join(Vec<OsString>),
    Stop(stop::Options),
    Prune(prune::Options),
    LetGo(rescue::Request),
    Check {
        wanted: Vec<OsString>,
        json: bool,
    },
    Init(Shell),
}

impl Action {
    /// Whether something is to be written to stdout.
    pub fn prints_data(&self) -> bool {
        match self {
            Self::Print(message) => !message.use_stderr(),
            Self::Start(request) => request.print_pid || request.json,
            Self::List(_) | Self::Log(_) | Self::Check { .. } | Self::Init(_) => true,
            Self::Prune(options) => options.dry_run,
            Self::Join(_) | Self::Stop(_) | Self::LetGo(_) => false,
        }
    }
}

/// What the words after the name of the program mean.
pub fn parse(words: Vec<OsString>) -> Result<(Action, Verbosity), Error> {
    // No option to parse: every option has its default. clap would cost a tenth of a start.
    if words.first().is_some_and(|word| !word.as_bytes().starts_with(b"-")) {
        return Ok((Action::Start(Box::new(Request::new(words))), Verbosity::default()));
    }
    // clap takes twice as long if it also builds the modes. Whatever parses without them is a start in the full grammar
    // as well.
    if let Ok(line) = read_start(&words) {
        return Ok(interpret(Typed { line, mode: None }));
    }
    match read(&words) {
        Ok(typed) => Ok(interpret(typed)),
        Err(error) if error.kind() == ErrorKind::ValueValidation => Err(invalid_value(&error, &words)),
        Err(error) => {
            let message = attached_value(&error, &words).unwrap_or_else(|| without_dashes_tip(error));
            Ok((Action::Print(message), Verbosity::default()))
        }
    }
}

/// Prints help and version on stdout, usage errors on stderr. Returns the exit status.
pub fn print(message: &clap::Error, ui: &Ui) -> Result<u8, Error> {
    let text = message.render();
    if message.use_stderr() {
        ui.usage_error(&text.to_string(), &text.ansi().to_string());
        return Ok(FAILED);
    }
    let has_colour = io::stdout().is_terminal() && wants_colour();
    let text = if has_colour { text.ansi().to_string() } else { text.to_string() };
    write_data(&text).map_err(|error| Error::stdout(&error))?;
    Ok(0)
}

/// Fails for everything that is not a valid start: `read` has the error for it.
fn read_start(words: &[OsString]) -> Result<StartLine, clap::Error> {
    StartLine::from_arg_matches(&grammar::start_line().try_get_matches_from(words)?)
}

fn read(words: &[OsString]) -> Result<Typed, clap::Error> {
    let mut command = grammar::with_suggestions(command());
    let matches = command.try_get_matches_from_mut(words)?;
    let typed = Typed::from_arg_matches(&matches)?;
    refuse_before_mode(&command, &matches, &typed)?;
    Ok(typed)
}

/// Options of a start are errors before a mode, and so is `--json` unless the mode has it.
fn refuse_before_mode(command: &Command, matches: &ArgMatches, typed: &Typed) -> Result<(), clap::Error> {
    let Some(mode) = matches.subcommand_name() else { return Ok(()) };
    let takes_json =
        command.find_subcommand(mode).is_some_and(|mode| mode.get_arguments().any(|arg| arg.get_id() == "json"));
    let of_start = matches.get_many::<Id>("Start").into_iter().flatten().next();
    let of_start = command.get_arguments().find(|option| Some(option.get_id()) == of_start).map(ToString::to_string);
    let json = (typed.line.json && !takes_json).then(|| "--json".to_owned());
    let Some(option) = of_start.or(json) else { return Ok(()) };
    let mut error = clap::Error::new(ErrorKind::ArgumentConflict).with_cmd(command);
    error.insert(ContextKind::InvalidArg, ContextValue::String(option));
    error.insert(ContextKind::PriorArg, ContextValue::String(mode.to_owned()));
    Err(error)
}

/// Translates what was typed into the terms of the rest of the program.
fn interpret(typed: Typed) -> (Action, Verbosity) {
    let Typed { line: StartLine { start, json: is_json, volume: before, command }, mode } = typed;
    let (action, volume) = match mode {
        None => (Action::Start(Box::new(to_request(start, command, is_json))), Volume::default()),
        Some(Mode::List { all, json, volume }) => (Action::List(list::Options { all, json: json || is_json }), volume),
        Some(Mode::Log { job, follow, lines, volume }) => (Action::Log(log::Options { job, follow, lines }), volume),
        Some(Mode::Join { jobs, volume }) => (Action::Join(jobs), volume),
        Some(Mode::Stop { jobs, all, grace, signal, volume }) => {
            let which = if all { stop::Which::All(jobs) } else { stop::Which::Jobs(jobs) };
            let how = signal.map_or(stop::How::End(grace), stop::How::Signal);
            (Action::Stop(stop::Options { which, how }), volume)
        }
        Some(Mode::Prune { older_than, dry_run, volume }) => {
            (Action::Prune(prune::Options { older_than, dry_run }), volume)
        }
        Some(Mode::Pid { wanted, output, name, stay_stopped, volume }) => {
            let after = if stay_stopped { rescue::After::StayStopped } else { rescue::After::Continue };
            (Action::LetGo(rescue::Request { wanted, output, name, after }), volume)
        }
        Some(Mode::Check { wanted, json, volume }) => (Action::Check { wanted, json: json || is_json }, volume),
        Some(Mode::Init { shell, volume }) => (Action::Init(shell), volume),
    };
    (action, to_verbosity(&volume).or_else(|| to_verbosity(&before)).unwrap_or_default())
}

fn to_request(start: Start, command: Vec<OsString>, json: bool) -> Request {
    Request {
        command,
        name: start.name,
        sequence: if start.full { Sequence::Daemon } else { Sequence::Leader },
        input: start.input,
        output: start.output,
        error: start.error,
        directory: start.chdir,
        umask: start.umask,
        keep: start.keep_fd,
        sigchld: start.sigchld,
        pidfile: start.pidfile,
        tracking: match (start.notify, start.track) {
            (true, _) => Tracking::Notify,
            (false, true) => Tracking::Record,
            (false, false) => Tracking::No,
        },
        watch: match (start.wait, start.settle) {
            (true, _) => Watch::ToTheEnd,
            (false, Some(time)) => Watch::For(time),
            (false, None) => Watch::Default,
        },
        scope: if start.scope { Scope::Own } else { Scope::OfCaller },
        print_pid: start.print_pid,
        json,
    }
}

/// `None` if neither `-q` nor `-v` was typed.
fn to_verbosity(volume: &Volume) -> Option<Verbosity> {
    match (volume.quiet, volume.verbose) {
        (true, _) => Some(Verbosity::Quiet),
        (false, 0) => None,
        (false, 1) => Some(Verbosity::Verbose),
        (false, 2..) => Some(Verbosity::Steps),
    }
}

/// clap's error about a value, as a sentence of our own.
fn invalid_value(error: &clap::Error, words: &[OsString]) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let value = quote(text(ContextKind::InvalidValue).as_ref());
    let argument = text(ContextKind::InvalidArg);
    let reason = error.source().map(ToString::to_string).unwrap_or_default();
    let mut command = command();
    command.build();
    let takes_it = |mode: &&Command| mode.get_arguments().any(|known| known.to_string() == argument);
    let mode = words.iter().find_map(|word| command.find_subcommand(word).filter(takes_it));
    let mode = mode.map_or(String::new(), |mode| format!("{} ", mode.get_name()));
    let option = argument.trim_end_matches("...").trim_matches(['[', ']']);
    // A required positional argument.
    let option = option.strip_prefix('<').map_or(option, |name| name.trim_end_matches('>'));
    Error::new(format!("cannot use {value} for '{option}': {reason}")).with_hint(format!("see 'detach {mode}--help'"))
}

/// An error for `--prune=30d`: to clap that word is an unknown option.
fn attached_value(error: &clap::Error, words: &[OsString]) -> Option<clap::Error> {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else { return None };
    let command = command();
    let mode = command.find_subcommand(option)?;
    let value = words.iter().find_map(|word| word.to_str()?.strip_prefix(option)?.strip_prefix('='))?;
    let mut error = clap::Error::new(ErrorKind::UnknownArgument).with_cmd(&command);
    error.insert(ContextKind::InvalidArg, ContextValue::String(format!("{option}={value}")));
    if mode.get_positionals().next().is_some() && !value.is_empty() {
        let tip = format!("the value must be a separate word: {}", quote(format!("{option} {value}").as_ref()));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    Some(error)
}

/// Removes clap's tip to write `-- --lst` where `--list` is misspelled: that would start a command of that name.
fn without_dashes_tip(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::StyledStrs(mut tips)) = error.remove(ContextKind::Suggested) {
        tips.retain(|tip| !tip.to_string().contains("'-- "));
        if !tips.is_empty() {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
        }
    }
    error
}
