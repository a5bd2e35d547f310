//! The command line: what was typed (clap) and what it means.
//!
//! The first word that is not an option is somebody else's command, and everything after it belongs to that. So a
//! mistyped option of ours is an error, never the command.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use jiff::{Span, SpanRelativeTo};
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::error::{Error, quote};
use crate::launch::{Sequence, Start, Tracking, Watch};
use crate::output::Follow;
use crate::session::Disposition;
use crate::stop::How;
use crate::streams::Target;
use crate::ui::Verbosity;

/// What the user wants.
pub enum Action {
    /// To read this.
    Print(String),
    /// A command started.
    Start(Box<Start>),
    /// To know which jobs there are.
    List { all: bool, json: bool },
    /// To read the output of a job.
    Log { job: OsString, follow: Follow },
    /// To wait for jobs.
    Join(Vec<OsString>),
    /// Jobs ended, or a signal sent to them.
    Stop { jobs: Vec<OsString>, how: How },
    /// To know whether processes survive.
    Check { wanted: Vec<OsString>, json: bool },
    /// Removed what has ended, and has not been heard of for that long.
    Prune(Duration),
}

/// The options that say what is to be done, if it is not a start.
const MODES: [&str; 6] = ["list", "log", "join", "stop", "prune", "check"];
/// What `--stop` waits before SIGKILL: enough to save a file, less than a person's patience.
const GRACE: Duration = Duration::from_secs(5);

const SEE_HELP: &str = "see 'detach --help'";

const ABOUT: &str = "\
Start COMMAND in a session of its own, with SIGHUP ignored: it survives the end
of the shell, the terminal and the connection. Say whether the start worked, and
give the prompt back.";

const AFTER_HELP: &str = "\
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

/// The options, in the order of the help.
fn grammar() -> Command {
    // As with getopt(3), the word after an option that takes a value is that value, whatever it looks like.
    let value = |id: &'static str, name: &'static str| Arg::new(id).long(id).value_name(name).allow_hyphen_values(true);
    let file = |id| value(id, "FILE").value_parser(value_parser!(OsString));
    let flag = |id: &'static str| Arg::new(id).long(id).action(ArgAction::SetTrue);
    // Words behind the options are JOBs as well, so that '--log -f JOB' says what it seems to.
    let jobs = |id: &'static str| {
        let job = Arg::new(id).long(id).value_name("JOB").value_parser(value_parser!(OsString));
        job.num_args(0..).action(ArgAction::Append)
    };
    Command::new("detach")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(AFTER_HELP)
        .override_usage(
            "detach [OPTION]... [--] COMMAND [ARG]...\n       \
             detach --list | --log JOB | --join JOB... | --stop JOB... | --prune\n       \
             detach --check [PID|JOB]...",
        )
        .args_override_self(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args([
            flag("full").short('F').help("Perform the complete daemon sequence"),
            file("output").short('o').help("Append stdout and stderr to FILE; '-' keeps both"),
            file("error").short('e').help("Append stderr to FILE; '-' keeps it"),
            file("input").short('i').help("Read stdin from FILE; '-' keeps it"),
            value("chdir", "DIR").short('C').value_parser(value_parser!(OsString)).help("Start in DIR"),
            value("umask", "MODE")
                .short('m')
                .value_parser(parse_umask)
                .help("Set the file mode creation mask, in octal"),
            value("keep-fd", "N")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .value_parser(parse_fd)
                .help("Keep descriptor N open (repeatable, or N,N)"),
            value("sigchld", "HOW").value_parser(parse_sigchld).help("Disposition of SIGCHLD: 'default' or 'ignore'"),
            file("pidfile").help("Write the PID to FILE, locked while COMMAND lives"),
            value("name", "NAME")
                .short('N')
                .value_parser(value_parser!(OsString))
                .help("Name the job; else the base name of COMMAND"),
            flag("track").short('t').help("Keep a process that records how COMMAND ends"),
            flag("notify").help("As --track, and show a notification at the end"),
            flag("wait").short('w').help("Stay to the end, exit as COMMAND; Ctrl-C lets go"),
            value("settle", "DURATION")
                .value_parser(parse_duration)
                .help("Stay that long, to tell if COMMAND fails at once;\non a terminal 100ms unless given"),
            flag("print-pid").short('P').help("Print the PID alone on stdout"),
            flag("json").help("Print on stdout, as JSON, the record or the result"),
            flag("quiet").short('q').overrides_with("verbose").help("Say nothing but errors"),
            flag("verbose").short('v').overrides_with("quiet").help("Name every step"),
            Arg::new("help").short('h').long("help").action(ArgAction::Help).help("Print this help"),
            Arg::new("version").short('V').long("version").action(ArgAction::Version).help("Print the version"),
        ])
        .next_help_heading("Jobs")
        .args([
            flag("list").help("List what runs, and the last ten that ended"),
            flag("all").help("With --list: all that ended"),
            jobs("log").help("Write the output of JOB to stdout"),
            flag("follow").short('f').help("With --log: go on until JOB ends"),
            jobs("join").help("Wait until JOBs end, exit as the last of them"),
            jobs("stop").help("End JOBs: SIGTERM, and SIGKILL for what is left"),
            value("grace", "DURATION")
                .value_parser(parse_duration)
                .help("With --stop: the time before SIGKILL; else 5s"),
            value("signal", "SIG").value_parser(parse_signal).help("With --stop: send SIG, and nothing more"),
            value("prune", "DURATION")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("0")
                .value_parser(parse_duration)
                .help("Remove the records and logs of what ended,\n[that long ago or longer]"),
            jobs("check").value_name("PID").help("Tell whether a process would survive, and why"),
            Arg::new("command")
                .value_name("COMMAND")
                .value_parser(value_parser!(OsString))
                .num_args(0..)
                .trailing_var_arg(true)
                .hide(true),
        ])
}

/// Reads the command line of this process.
pub fn parse() -> Result<(Action, Verbosity), Error> {
    match grammar().try_get_matches() {
        Ok(mut typed) => {
            let verbosity = match (typed.get_flag("quiet"), typed.get_flag("verbose")) {
                (true, _) => Verbosity::Quiet,
                (_, true) => Verbosity::Verbose,
                _ => Verbosity::Normal,
            };
            Ok((mean(&mut typed)?, verbosity))
        }
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                // To clap, a JOB that may stand elsewhere is one that may be missing.
                let text = error.render().to_string().replace("--log [<JOB>...]", "--log <JOB>     ");
                let text = text.replace("[<JOB>...]", "<JOB>...  ").replace("[<PID>...]  ", "[PID|JOB]...");
                Ok((Action::Print(text), Verbosity::Normal))
            }
            _ => Err(explain(&error)),
        },
    }
}

/// What the options mean together.
fn mean(typed: &mut ArgMatches) -> Result<Action, Error> {
    let is_typed = |id: &str| typed.value_source(id) == Some(ValueSource::CommandLine);
    let options: Vec<String> = typed.ids().map(ToString::to_string).filter(|id| is_typed(id)).collect();
    let modes: Vec<&str> = MODES.into_iter().filter(|mode| is_typed(mode)).collect();
    let mode = match modes.as_slice() {
        [first, second, ..] => return Err(usage(format!("cannot use '--{first}' with '--{second}'"))),
        modes => modes.first().copied(),
    };
    for option in options.iter().filter(|option| *option != "command") {
        match (modes_of(option), mode) {
            ([], _) => (),
            (modes, Some(mode)) if modes.contains(&mode) => (),
            ([only, ..], None) if *only != "start" => {
                return Err(usage(format!("cannot use '--{option}' without '--{only}'")));
            }
            (_, None) => (),
            (_, Some(mode)) => return Err(usage(format!("cannot use '--{option}' with '--{mode}'"))),
        }
    }
    let Some(mode) = mode else { return Ok(Action::Start(Box::new(mean_start(typed)?))) };
    let mut words: Vec<OsString> = if matches!(mode, "list" | "prune") {
        Vec::new()
    } else {
        typed.remove_many(mode).unwrap_or_default().collect()
    };
    let behind: Vec<OsString> = typed.remove_many("command").unwrap_or_default().collect();
    // Options that follow a JOB like that are not read as such; behind '--' there are none.
    let is_option =
        |word: &&OsString| word.as_bytes().starts_with(b"-") && std::env::args_os().all(|word| word != "--");
    if let Some(option) = behind.iter().find(is_option) {
        return Err(usage(format!("cannot use {} here: options go before the first JOB", quote(option))));
    }
    words.extend(behind);
    match (mode, words.as_slice()) {
        ("list", []) => Ok(Action::List { all: typed.get_flag("all"), json: typed.get_flag("json") }),
        ("prune", []) => Ok(Action::Prune(typed.remove_one("prune").unwrap_or_default())),
        ("prune", [word, ..]) if word.to_str().is_some_and(|word| parse_duration(word).is_ok()) => {
            let sentence = format!("cannot use {} with '--prune'", quote(word));
            Err(Error::Usage { sentence, hint: Some(format!("did you mean '--prune={}'?", word.display())) })
        }
        ("list" | "prune", [word, ..]) => Err(usage(format!("cannot use {} with '--{mode}'", quote(word)))),
        ("log", [_, second, ..]) => Err(usage(format!("cannot use {} with '--log': it takes one JOB", quote(second)))),
        ("log" | "join" | "stop", []) => Err(usage(format!("cannot use '--{mode}': no JOB is given"))),
        ("log", [job]) => {
            let follow = if typed.get_flag("follow") { Follow::Yes } else { Follow::No };
            Ok(Action::Log { job: job.clone(), follow })
        }
        ("check", _) => Ok(Action::Check { wanted: words, json: typed.get_flag("json") }),
        ("join", _) => Ok(Action::Join(words)),
        _ => match (typed.remove_one("signal"), typed.remove_one("grace")) {
            (Some(_), Some(_)) => Err(usage("cannot use '--grace' with '--signal': nothing is sent after it".into())),
            (Some(signal), None) => Ok(Action::Stop { jobs: words, how: How::Signal(signal) }),
            (None, grace) => Ok(Action::Stop { jobs: words, how: How::End(grace.unwrap_or(GRACE)) }),
        },
    }
}

fn usage(sentence: String) -> Error {
    Error::Usage { sentence, hint: Some(SEE_HELP.into()) }
}

/// The modes that an option belongs to; none for those that go with all of them.
fn modes_of(option: &str) -> &'static [&'static str] {
    match option {
        "quiet" | "verbose" => &[],
        "list" | "all" => &["list"],
        "log" | "follow" => &["log"],
        "join" => &["join"],
        "stop" | "grace" | "signal" => &["stop"],
        "prune" => &["prune"],
        "check" => &["check"],
        "json" => &["start", "list", "check"],
        _ => &["start"],
    }
}

/// What the options of a start mean together.
fn mean_start(typed: &mut ArgMatches) -> Result<Start, Error> {
    let command: Vec<OsString> = typed.remove_many("command").unwrap_or_default().collect();
    let Some(first) = command.first() else {
        return Err(usage("cannot start anything: no COMMAND is given".into()));
    };
    let name: OsString = match typed.remove_one("name") {
        Some(name) => check_name(name)?,
        None => base_name(first).to_owned(),
    };
    let watch = match (typed.get_flag("wait"), typed.remove_one("settle")) {
        (true, _) => Watch::ToTheEnd,
        (false, Some(limit)) => Watch::For(limit),
        (false, None) => Watch::Default,
    };
    let tracking = match (typed.get_flag("track"), typed.get_flag("notify")) {
        (_, true) => Tracking::Notify,
        (true, false) => Tracking::Record,
        (false, false) => Tracking::No,
    };
    let sequence = if typed.get_flag("full") { Sequence::Daemon } else { Sequence::Leader };
    let mut start = Start {
        command,
        name,
        input: typed.remove_one("input").map(target),
        output: typed.remove_one("output").map(target),
        error: typed.remove_one("error").map(target),
        directory: typed.remove_one::<OsString>("chdir").map(PathBuf::from),
        umask: typed.remove_one("umask"),
        keep_fds: typed.remove_many("keep-fd").unwrap_or_default().collect(),
        sigchld: Disposition::Default,
        sequence,
        pidfile: typed.remove_one::<OsString>("pidfile").map(PathBuf::from),
        tracking,
        watch,
        print_pid: typed.get_flag("print-pid"),
        json: typed.get_flag("json"),
    };
    if sequence == Sequence::Daemon {
        // What the daemon sequence does unless an option says otherwise.
        let null = || Target::File("/dev/null".into());
        start.input.get_or_insert_with(null);
        start.output.get_or_insert_with(null);
        start.directory.get_or_insert_with(|| "/".into());
        start.umask.get_or_insert(Mode::empty());
        start.sigchld = Disposition::Ignored;
    }
    if let Some(sigchld) = typed.remove_one("sigchld") {
        start.sigchld = sigchld;
    }
    Ok(start)
}

/// A name becomes part of the name of a file, and is what a job is called by.
fn check_name(name: OsString) -> Result<OsString, Error> {
    if name.is_empty() || name.as_bytes().contains(&b'/') {
        let sentence = format!("cannot use {} for '--name <NAME>': it must be a word without a slash", quote(&name));
        return Err(Error::Usage { sentence, hint: None });
    }
    Ok(name)
}

fn target(value: OsString) -> Target {
    if value == "-" { Target::Keep } else { Target::File(value.into()) }
}

/// The last part of a path, as in basename(1).
fn base_name(command: &OsStr) -> &OsStr {
    Path::new(command).file_name().unwrap_or(command)
}

fn parse_sigchld(text: &str) -> Result<Disposition, String> {
    match text {
        "default" => Ok(Disposition::Default),
        "ignore" => Ok(Disposition::Ignored),
        _ => Err("neither 'default' nor 'ignore'".into()),
    }
}

fn parse_umask(text: &str) -> Result<Mode, String> {
    let is_octal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| is_octal && *bits <= 0o777);
    bits.map(Mode::from_bits_truncate).ok_or_else(|| "not an octal number from 0 to 777".into())
}

fn parse_fd(text: &str) -> Result<RawFd, String> {
    match text.parse::<RawFd>() {
        Ok(0..=2) => Err("the standard streams have options of their own: -i, -o, -e".into()),
        Ok(fd) if fd > 2 => Ok(fd),
        _ => Err("not the number of a descriptor".into()),
    }
}

/// The number of a signal: a number, or a name as kill(1) takes it.
fn parse_signal(text: &str) -> Result<i32, String> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |digits: &str| digits.parse::<u8>().ok().map(i32::from);
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        if rest.is_empty() {
            Some(libc::SIGRTMIN())
        } else {
            rest.strip_prefix('+').and_then(offset).map(|n| libc::SIGRTMIN() + n)
        }
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        if rest.is_empty() {
            Some(libc::SIGRTMAX())
        } else {
            rest.strip_prefix('-').and_then(offset).map(|n| libc::SIGRTMAX() - n)
        }
    } else {
        offset(name).or_else(|| format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32))
    };
    number.filter(|number| (1..=libc::SIGRTMAX()).contains(number)).ok_or_else(|| "there is no such signal".into())
}

/// A duration with units, or a number of seconds as sleep(1) and timeout(1) take it.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let duration = if plain {
        text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    } else {
        let span =
            text.parse::<Span>().ok().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
        span.and_then(|duration| Duration::try_from(duration).ok())
    };
    duration.ok_or_else(|| "not a duration like 500ms, 2s, 1m30s or 7d".into())
}

/// clap's error as one sentence of ours.
fn explain(error: &clap::Error) -> Error {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let option = context(ContextKind::InvalidArg).unwrap_or_default();
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    let suggestion = context(ContextKind::SuggestedArg).map(|option| format!("did you mean '{option}'?"));
    let sentence = match error.kind() {
        ErrorKind::UnknownArgument => format!("cannot use {}: there is no such option", quote(option.as_ref())),
        ErrorKind::InvalidValue if value.is_empty() => format!("cannot use '{option}': it needs a value"),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let reason = std::error::Error::source(error)
                .map_or_else(|| "not one of its values".to_owned(), ToString::to_string);
            format!("cannot use {} for '{option}': {reason}", quote(value.as_ref()))
        }
        ErrorKind::TooManyValues => format!("cannot use '{option}': it takes no value"),
        ErrorKind::InvalidUtf8 => "cannot use an option: its value is not UTF-8".to_owned(),
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            format!("cannot use the command line: {}", line.strip_prefix("error: ").unwrap_or(line))
        }
    };
    Error::Usage { sentence, hint: Some(suggestion.unwrap_or_else(|| SEE_HELP.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_consistent() {
        grammar().debug_assert();
    }

    #[test]
    fn durations_are_read_as_sleep_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("2", Some(2_000)),
            ("0.5", Some(500)),
            ("500ms", Some(500)),
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1_500)),
            ("7d", Some(604_800_000)),
            ("1w1d", Some(691_200_000)),
            ("1month", None),
            ("", None),
            ("-1s", None),
            ("1e400", None),
            ("99999999999999999999", None),
            ("soon", None),
            ("1.2.3", None),
        ] {
            assert_eq!(parse_duration(text).ok(), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn signals_are_read_as_kill_reads_them() {
        for (text, number) in [("TERM", 15), ("SIGTERM", 15), ("term", 15), ("9", 9), ("RTMIN", libc::SIGRTMIN())] {
            assert_eq!(parse_signal(text), Ok(number), "{text}");
        }
        assert_eq!(parse_signal("RTMIN+1"), Ok(libc::SIGRTMIN() + 1));
        assert_eq!(parse_signal("sigrtmax-2"), Ok(libc::SIGRTMAX() - 2));
        for text in ["", "0", "-9", "65", "999", "NONE", "SIG", "RTMIN+99", "RTMAX+1", "RTMIN1"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_option_belongs_to_a_mode() {
        for mode in MODES {
            assert_eq!(modes_of(mode), [mode]);
        }
    }

    #[test]
    fn umask_is_octal() {
        for (text, expected) in [("022", Some(0o022)), ("0", Some(0)), ("777", Some(0o777)), ("0777", Some(0o777))] {
            assert_eq!(parse_umask(text).ok().map(|mode| mode.bits()), expected, "{text}");
        }
        for text in ["8", "1000", "u=rw", "", "+7", "-1", "0o22"] {
            assert_eq!(parse_umask(text), Err("not an octal number from 0 to 777".to_owned()), "{text}");
        }
    }
}
