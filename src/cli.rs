//! The command line: what the options mean together. Which options there are is in `options`.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode as FileMode;

use crate::error::{Error, quote};
use crate::launch::{Sequence, Start, Tracking, Watch};
use crate::options::{Mode, Typed, help, parse_value, usage};
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

/// What `--stop` waits before SIGKILL: enough to save a file, less than a person's patience.
const GRACE: Duration = Duration::from_secs(5);

/// What the words behind the name of the program mean.
pub fn parse(words: Vec<OsString>) -> Result<(Action, Verbosity), Error> {
    let mut typed = Typed::parse(words)?;
    let verbosity = match typed.last_of(&["quiet", "verbose"]) {
        Some("quiet") => Verbosity::Quiet,
        Some(_) => Verbosity::Verbose,
        None => Verbosity::Normal,
    };
    let action = match typed.last_of(&["help", "version"]) {
        Some("help") => Action::Print(help()),
        Some(_) => Action::Print(format!("detach {}\n", env!("CARGO_PKG_VERSION"))),
        None => mean(&mut typed)?,
    };
    Ok((action, verbosity))
}

/// What the options mean together.
fn mean(typed: &mut Typed) -> Result<Action, Error> {
    let words = std::mem::take(&mut typed.words);
    let mode = typed.mode;
    match (mode, words.as_slice()) {
        (Mode::Start, _) => mean_start(typed, words).map(|start| Action::Start(Box::new(start))),
        (Mode::List, []) => Ok(Action::List { all: typed.has("all"), json: typed.has("json") }),
        (Mode::Prune, []) => Ok(Action::Prune(typed.parse_value("prune", parse_duration)?.unwrap_or_default())),
        (Mode::Prune, [word, ..]) if word.to_str().is_some_and(|word| parse_duration(word).is_ok()) => {
            let sentence = format!("cannot use {} with '--prune'", quote(word));
            Err(Error::Usage { sentence, hint: Some(format!("did you mean '--prune={}'?", word.display())) })
        }
        (Mode::List | Mode::Prune, [word, ..]) => Err(usage(format!("cannot use {} with '{mode}'", quote(word)))),
        (Mode::Log, [_, second, ..]) => {
            Err(usage(format!("cannot use {} with '--log': it takes one JOB", quote(second))))
        }
        (Mode::Log | Mode::Join | Mode::Stop, []) => Err(usage(format!("cannot use '{mode}': no JOB is given"))),
        (Mode::Log, [job]) => {
            let follow = if typed.has("follow") { Follow::Yes } else { Follow::No };
            Ok(Action::Log { job: job.clone(), follow })
        }
        (Mode::Check, _) => Ok(Action::Check { wanted: words, json: typed.has("json") }),
        (Mode::Join, _) => Ok(Action::Join(words)),
        (Mode::Stop, _) => {
            let signal = typed.parse_value("signal", parse_signal)?;
            let grace = typed.parse_value("grace", parse_duration)?;
            let how = match (signal, grace) {
                (Some(_), Some(_)) => {
                    return Err(usage("cannot use '--grace' with '--signal': nothing is sent after it".into()));
                }
                (Some(signal), None) => How::Signal(signal),
                (None, grace) => How::End(grace.unwrap_or(GRACE)),
            };
            Ok(Action::Stop { jobs: words, how })
        }
    }
}

/// What the options of a start mean together.
fn mean_start(typed: &Typed, command: Vec<OsString>) -> Result<Start, Error> {
    let Some(first) = command.first() else {
        return Err(usage("cannot start anything: no COMMAND is given".into()));
    };
    let name = match typed.value("name") {
        Some(name) => check_name(name)?,
        None => base_name(first),
    };
    let watch = match (typed.has("wait"), typed.parse_value("settle", parse_duration)?) {
        (true, _) => Watch::ToTheEnd,
        (false, Some(limit)) => Watch::For(limit),
        (false, None) => Watch::Default,
    };
    let tracking = match (typed.has("track"), typed.has("notify")) {
        (_, true) => Tracking::Notify,
        (true, false) => Tracking::Record,
        (false, false) => Tracking::No,
    };
    let sequence = if typed.has("full") { Sequence::Daemon } else { Sequence::Leader };
    let mut start = Start {
        name: name.to_owned(),
        command,
        input: typed.value("input").map(target),
        output: typed.value("output").map(target),
        error: typed.value("error").map(target),
        directory: typed.value("chdir").map(PathBuf::from),
        umask: typed.parse_value("umask", parse_umask)?,
        keep_fds: parse_fds(typed)?,
        sigchld: Disposition::Default,
        sequence,
        pidfile: typed.value("pidfile").map(PathBuf::from),
        tracking,
        watch,
        print_pid: typed.has("print-pid"),
        json: typed.has("json"),
    };
    if sequence == Sequence::Daemon {
        // What the daemon sequence does unless an option says otherwise.
        let null = || Target::File("/dev/null".into());
        start.input.get_or_insert_with(null);
        start.output.get_or_insert_with(null);
        start.directory.get_or_insert_with(|| "/".into());
        start.umask.get_or_insert(FileMode::empty());
        start.sigchld = Disposition::Ignored;
    }
    if let Some(sigchld) = typed.parse_value("sigchld", parse_sigchld)? {
        start.sigchld = sigchld;
    }
    Ok(start)
}

/// A name becomes part of the name of a file, and is what a job is called by.
fn check_name(name: &OsStr) -> Result<&OsStr, Error> {
    if name.is_empty() || name.as_bytes().contains(&b'/') {
        let sentence = format!("cannot use {} for '--name <NAME>': it must be a word without a slash", quote(name));
        return Err(Error::Usage { sentence, hint: None });
    }
    Ok(name)
}

fn target(value: &OsStr) -> Target {
    if value == "-" { Target::Keep } else { Target::File(value.into()) }
}

/// The last part of a path, as in basename(1).
fn base_name(command: &OsStr) -> &OsStr {
    let last = command.as_bytes().rsplit(|byte| *byte == b'/').find(|part| !part.is_empty());
    last.map_or(command, OsStr::from_bytes)
}

fn parse_sigchld(text: &str) -> Result<Disposition, String> {
    match text {
        "default" => Ok(Disposition::Default),
        "ignore" => Ok(Disposition::Ignored),
        _ => Err("neither 'default' nor 'ignore'".into()),
    }
}

fn parse_umask(text: &str) -> Result<FileMode, String> {
    let is_octal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| is_octal && *bits <= 0o777);
    bits.map(FileMode::from_bits_truncate).ok_or_else(|| "not an octal number from 0 to 777".into())
}

/// The descriptors of all `--keep-fd`.
fn parse_fds(typed: &Typed) -> Result<Vec<RawFd>, Error> {
    let numbers = typed.values("keep-fd").flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    numbers.map(|number| parse_value("keep-fd", OsStr::from_bytes(number), parse_fd)).collect()
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
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let duration = if is_plain {
        text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    } else {
        let span = text.parse::<Span>().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
        span.ok().and_then(|duration| Duration::try_from(duration).ok())
    };
    duration.ok_or_else(|| "not a duration like 500ms, 2s, 1m30s or 7d".into())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (".5", Some(500)),
            ("5.", Some(5_000)),
            ("0.50000000000", Some(500)),
            ("1m30", None),
            (".", None),
            ("s", None),
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
    fn umask_is_octal() {
        for (text, expected) in [("022", Some(0o022)), ("0", Some(0)), ("777", Some(0o777)), ("0777", Some(0o777))] {
            assert_eq!(parse_umask(text).ok().map(|mode| mode.bits()), expected, "{text}");
        }
        for text in ["8", "1000", "u=rw", "", "+7", "-1", "0o22"] {
            assert_eq!(parse_umask(text), Err("not an octal number from 0 to 777".to_owned()), "{text}");
        }
    }
}
