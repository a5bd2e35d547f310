//! The options: what they are called, what the help says of them, and which of them were typed.
//!
//! The first word that is not an option is somebody else's command, and everything after it belongs to that. So a
//! mistyped option of ours is an error, never the command. With an option that names a mode, words are JOBs, and
//! options may stand between them. Values stay as they were typed; what they mean is in `cli`.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display, Formatter};

use lexopt::{Arg, Parser};

use crate::error::{Error, quote};

/// What is to be done. All but a start are named by an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Start,
    List,
    Log,
    Join,
    Stop,
    Prune,
    Check,
}

use Mode::{Check, Join, List, Log, Prune, Start, Stop};

const ALL_MODES: &[Mode] = &[Start, List, Log, Join, Stop, Prune, Check];

/// What follows an option, with the name that the help has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Nothing,
    /// As with getopt(3), the next word, whatever it looks like.
    Value(&'static str),
    /// A value after `=` alone.
    Optional(&'static str),
    /// A word after `=`. Those behind the option count as well, wherever they stand.
    Words(&'static str),
}

use Takes::{Nothing, Optional, Value, Words};

/// An option.
#[derive(Debug)]
pub struct Opt {
    short: Option<char>,
    long: &'static str,
    takes: Takes,
    /// The modes that it goes with; where it names one, that alone.
    modes: &'static [Mode],
    names_mode: bool,
    help: &'static str,
}

const fn opt(short: char, long: &'static str, takes: Takes, modes: &'static [Mode], help: &'static str) -> Opt {
    Opt { short: Some(short), ..plain(long, takes, modes, help) }
}

const fn plain(long: &'static str, takes: Takes, modes: &'static [Mode], help: &'static str) -> Opt {
    Opt { short: None, long, takes, modes, names_mode: false, help }
}

const fn mode(long: &'static str, takes: Takes, modes: &'static [Mode], help: &'static str) -> Opt {
    Opt { names_mode: true, ..plain(long, takes, modes, help) }
}

/// The options of a start, and those that go with everything, in the order of the help.
const OPTIONS: [Opt; 20] = [
    opt('F', "full", Nothing, &[Start], "Perform the complete daemon sequence"),
    opt('o', "output", Value("FILE"), &[Start], "Append stdout and stderr to FILE; '-' keeps both"),
    opt('e', "error", Value("FILE"), &[Start], "Append stderr to FILE; '-' keeps it"),
    opt('i', "input", Value("FILE"), &[Start], "Read stdin from FILE; '-' keeps it"),
    opt('C', "chdir", Value("DIR"), &[Start], "Start in DIR"),
    opt('m', "umask", Value("MODE"), &[Start], "Set the file mode creation mask, in octal"),
    plain("keep-fd", Value("N"), &[Start], "Keep descriptor N open (repeatable, or N,N)"),
    plain("sigchld", Value("HOW"), &[Start], "Disposition of SIGCHLD: 'default' or 'ignore'"),
    plain("pidfile", Value("FILE"), &[Start], "Write the PID to FILE, locked while COMMAND lives"),
    opt('N', "name", Value("NAME"), &[Start], "Name the job; else the base name of COMMAND"),
    opt('t', "track", Nothing, &[Start], "Keep a process that records how COMMAND ends"),
    plain("notify", Nothing, &[Start], "As --track, and show a notification at the end"),
    opt('w', "wait", Nothing, &[Start], "Stay to the end, exit as COMMAND; Ctrl-C lets go"),
    plain(
        "settle",
        Value("DURATION"),
        &[Start],
        "Stay that long, to tell if COMMAND fails at once;\non a terminal 100ms unless given",
    ),
    opt('P', "print-pid", Nothing, &[Start], "Print the PID alone on stdout"),
    plain("json", Nothing, &[Start, List, Check], "Print on stdout, as JSON, the record or the result"),
    opt('q', "quiet", Nothing, ALL_MODES, "Say nothing but errors"),
    opt('v', "verbose", Nothing, ALL_MODES, "Name every step"),
    opt('h', "help", Nothing, ALL_MODES, "Print this help"),
    opt('V', "version", Nothing, ALL_MODES, "Print the version"),
];

/// The options that ask for, or do something with, what was started.
const JOB_OPTIONS: [Opt; 10] = [
    mode("list", Nothing, &[List], "List what runs, and the last ten that ended"),
    plain("all", Nothing, &[List], "With --list: all that ended"),
    mode("log", Words("<JOB>"), &[Log], "Write the output of JOB to stdout"),
    opt('f', "follow", Nothing, &[Log], "With --log: go on until JOB ends"),
    mode("join", Words("<JOB>..."), &[Join], "Wait until JOBs end, exit as the last of them"),
    mode("stop", Words("<JOB>..."), &[Stop], "End JOBs: SIGTERM, and SIGKILL for what is left"),
    plain("grace", Value("DURATION"), &[Stop], "With --stop: the time before SIGKILL; else 5s"),
    plain("signal", Value("SIG"), &[Stop], "With --stop: send SIG, and nothing more"),
    mode(
        "prune",
        Optional("DURATION"),
        &[Prune],
        "Remove the records and logs of what ended,\n[that long ago or longer]",
    ),
    mode("check", Words("[PID|JOB]..."), &[Check], "Tell whether a process would survive, and why"),
];

const ABOUT: &str = "\
Start COMMAND in a session of its own, with SIGHUP ignored: it survives the end
of the shell, the terminal and the connection. Say whether the start worked, and
give the prompt back.

Usage: detach [OPTION]... [--] COMMAND [ARG]...
       detach --list | --log JOB | --join JOB... | --stop JOB... | --prune
       detach --check [PID|JOB]...";

const AFTER_OPTIONS: &str = "\
A terminal is let go: stdin becomes /dev/null, stdout and stderr go to a log in
~/.local/state/detach. So do stdout and stderr that are a pipe or a socket, as
their reader would wait for COMMAND. Files stay. -i, -o and -e say otherwise.

DURATION is 500ms, 2s, 1m30s or 7d; a bare number counts seconds. JOB is the PID
or the name of what detach has started.

Exit status: 0 started, or done; 1 --check: it would not survive; 125 detach
failed; 126 COMMAND cannot be run; 127 it was not found. With --wait, --join, or
when COMMAND ends while it is watched: its status, or 128+N for signal N.

Examples: detach clion                   a window that outlives its terminal
          detach -o build.log make -j8   output to a file
          ssh host detach ./train.py     returns at once
          detach sh -c 'a && b | c'      what only a shell can do
          detach --list                  what runs, and how the rest ended
          detach --log -f make           its output, as it is written";

const SEE_HELP: &str = "see 'detach --help'";
/// How alike a mistyped option and the one that was meant must be, from 0 to 1.
const ALIKE: f64 = 0.7;

/// With its value, as in the help and in sentences.
impl Display for Opt {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let long = self.long;
        match self.takes {
            Nothing => write!(f, "--{long}"),
            Value(name) => write!(f, "--{long} <{name}>"),
            Optional(name) => write!(f, "--{long}[=<{name}>]"),
            Words(names) => write!(f, "--{long} {names}"),
        }
    }
}

/// The option that names it.
impl Display for Mode {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let mut names = options().filter(|option| option.names_mode && option.modes.contains(self));
        names.next().map_or(Ok(()), |option| write!(f, "--{}", option.long))
    }
}

fn options() -> impl Iterator<Item = &'static Opt> {
    static ALL: [&[Opt]; 2] = [&OPTIONS, &JOB_OPTIONS];
    ALL.into_iter().flatten()
}

/// The text of `--help`.
pub fn help() -> String {
    format!("{ABOUT}\n\nOptions:\n{}\nJobs:\n{}\n{AFTER_OPTIONS}\n", help_of(&OPTIONS), help_of(&JOB_OPTIONS))
}

/// The options in two columns.
fn help_of(options: &[Opt]) -> String {
    let width = options.iter().map(|option| option.to_string().len()).max().unwrap_or(0);
    let line = |option: &Opt| {
        let short = option.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
        let help = option.help.replace('\n', &format!("\n{:width$}", "", width = width + 8));
        format!("  {short}{:width$}  {help}\n", option.to_string())
    };
    options.iter().map(line).collect()
}

/// What was typed.
#[derive(Debug)]
pub struct Typed {
    /// The options in their order, each with its value.
    options: Vec<(&'static Opt, Option<OsString>)>,
    /// The command and its arguments, or JOBs.
    pub words: Vec<OsString>,
    pub mode: Mode,
}

impl Typed {
    /// Sorts the words behind the name of the program. The error is a sentence for people. Ends at `--help` and
    /// `--version`: nothing that follows matters then.
    pub fn parse(words: Vec<OsString>) -> Result<Self, Error> {
        let mut typed = Self { options: Vec::new(), words: Vec::new(), mode: Start };
        let mut parser = Parser::from_args(words);
        while let Some(argument) = parser.next().map_err(explain)? {
            let (option, is_long) = match argument {
                Arg::Short(name) => {
                    let option = options().find(|option| option.short == Some(name));
                    (option.ok_or_else(|| no_option(&format!("-{name}")))?, false)
                }
                Arg::Long(name) => {
                    let option = options().find(|option| option.long == name);
                    (option.ok_or_else(|| no_option(&format!("--{name}")))?, true)
                }
                Arg::Value(word) => {
                    typed.words.push(word);
                    if !typed.options.iter().any(|(option, _)| option.names_mode) {
                        typed.words.extend(parser.raw_args().map_err(explain)?);
                    }
                    continue;
                }
            };
            let value = match option.takes {
                // Behind a short option, a value would be the next of a cluster.
                Nothing if is_long && parser.optional_value().is_some() => return Err(takes_no_value(option)),
                Nothing => None,
                Value(_) => {
                    Some(parser.value().map_err(|_| usage(format!("cannot use '{option}': it needs a value")))?)
                }
                Optional(_) => parser.optional_value(),
                Words(_) => {
                    typed.words.extend(parser.optional_value());
                    None
                }
            };
            typed.options.push((option, value));
            if matches!(option.long, "help" | "version") {
                return Ok(typed);
            }
        }
        typed.mode = typed.find_mode()?;
        Ok(typed)
    }

    /// The mode that the options name. All of them must go with it.
    fn find_mode(&self) -> Result<Mode, Error> {
        let is_named =
            |mode: &&Mode| self.options.iter().any(|(option, _)| option.names_mode && option.modes == [**mode]);
        let mut named = ALL_MODES.iter().filter(is_named);
        let mode = match (named.next(), named.next()) {
            (Some(first), Some(second)) => return Err(usage(format!("cannot use '{first}' with '{second}'"))),
            (first, _) => *first.unwrap_or(&Start),
        };
        let stranger = self.options.iter().map(|(option, _)| option).find(|option| !option.modes.contains(&mode));
        match stranger {
            None => Ok(mode),
            Some(Opt { long, modes: [only, ..], .. }) if mode == Start => {
                Err(usage(format!("cannot use '--{long}' without '{only}'")))
            }
            Some(Opt { long, .. }) => Err(usage(format!("cannot use '--{long}' with '{mode}'"))),
        }
    }

    /// Whether the option was typed.
    pub fn has(&self, long: &str) -> bool {
        self.last_of(&[long]).is_some()
    }

    /// Which of these options, of which each takes the others back, was typed last.
    pub fn last_of(&self, longs: &[&str]) -> Option<&'static str> {
        self.options.iter().rev().map(|(option, _)| option.long).find(|long| longs.contains(long))
    }

    /// The value of the option; where it was typed several times, the last one.
    pub fn value(&self, long: &str) -> Option<&OsStr> {
        self.values(long).last()
    }

    /// The values of an option that may be typed several times.
    pub fn values(&self, long: &str) -> impl Iterator<Item = &OsStr> {
        self.options.iter().filter(move |(option, _)| option.long == long).filter_map(|(_, value)| value.as_deref())
    }

    /// What the value of the option means to `parse`, which gives a reason where it means nothing. Where it was typed
    /// several times, all must mean something; the last one counts.
    pub fn parse_value<T>(&self, long: &str, parse: fn(&str) -> Result<T, String>) -> Result<Option<T>, Error> {
        let values = self.values(long).map(|value| parse_value(long, value, parse));
        values.collect::<Result<Vec<T>, Error>>().map(|mut values| values.pop())
    }
}

/// What `value`, of the option `long`, means to `parse`. No parser takes a word that is not UTF-8.
pub fn parse_value<T>(long: &str, value: &OsStr, parse: fn(&str) -> Result<T, String>) -> Result<T, Error> {
    parse(&value.to_string_lossy()).map_err(|reason| {
        let option = options().find(|option| option.long == long).map_or(String::new(), ToString::to_string);
        usage(format!("cannot use {} for '{option}': {reason}", quote(value)))
    })
}

/// Wrong usage, in a sentence.
pub fn usage(sentence: String) -> Error {
    Error::Usage { sentence, hint: Some(SEE_HELP.into()) }
}

/// There is no option of this name; perhaps one was meant that is much like it.
fn no_option(typed: &str) -> Error {
    let name = typed.trim_start_matches('-');
    let likeness = |option: &&Opt| strsim::jaro(option.long, name);
    let closest = options().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    let closest = closest.filter(|option| typed.starts_with("--") && likeness(option) > ALIKE);
    let hint = closest.map_or(SEE_HELP.to_owned(), |option| format!("did you mean '--{}'?", option.long));
    Error::Usage {
        sentence: format!("cannot use {}: there is no such option", quote(typed.as_ref())),
        hint: Some(hint),
    }
}

fn takes_no_value(option: impl Display) -> Error {
    usage(format!("cannot use '{option}': it takes no value"))
}

/// The one fault that the parser finds by itself is `-q=x`.
fn explain(error: lexopt::Error) -> Error {
    match error {
        lexopt::Error::UnexpectedValue { option, .. } => takes_no_value(option),
        other => usage(format!("cannot use the command line: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_options_are_unique() {
        let mut names: Vec<String> = options().map(|option| option.long.to_owned()).collect();
        names.extend(options().filter_map(|option| option.short).map(String::from));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_mode_but_the_start_is_named_by_one_option() {
        for mode in ALL_MODES {
            let names = options().filter(|option| option.names_mode && option.modes == [*mode]).count();
            assert_eq!(names, usize::from(*mode != Start), "{mode:?}");
        }
        assert!(options().filter(|option| option.names_mode).all(|option| option.modes.len() == 1));
    }
}
