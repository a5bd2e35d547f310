//! The values of options: durations, signals, masks, descriptors, names.
//!
//! Each function reads one value. Its error is a reason, which ends a sentence of the form
//! `cannot use 'VALUE' for '--OPTION <VALUE>': REASON`.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::init::Shell;
use crate::jobs;
use crate::start::Target;
use crate::sys::signals::Disposition;
use crate::term::text::is_blank;

/// A duration with units, or a number of seconds, as for sleep(1) and timeout(1).
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let duration = if is_plain {
        text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    } else {
        let span = text.parse::<Span>().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
        span.ok().and_then(|duration| Duration::try_from(duration).ok())
    };
    duration.ok_or("not a duration like 500ms, 2s, 1m30s or 7d")
}

/// The number of a signal, given as a number or as a name that kill(1) accepts.
pub fn parse_signal(text: &str) -> Result<i32, &'static str> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |rest: &str, sign| if rest.is_empty() { Some(0) } else { parse_digits(rest.strip_prefix(sign)?) };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        offset(rest, '+').map(|offset: u8| libc::SIGRTMIN() + i32::from(offset))
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        offset(rest, '-').map(|offset: u8| libc::SIGRTMAX() - i32::from(offset))
    } else {
        parse_digits(name).or_else(|| format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32))
    };
    number.filter(|number| (1..=libc::SIGRTMAX()).contains(number)).ok_or("no such signal")
}

/// A file mode creation mask.
pub fn parse_umask(text: &str) -> Result<Mode, &'static str> {
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| is_digits(text) && *bits <= 0o777);
    bits.map(Mode::from_bits_truncate).ok_or("not an octal number from 0 to 777")
}

/// A descriptor that is not one of the standard streams.
pub fn parse_descriptor(text: &str) -> Result<RawFd, &'static str> {
    match text.parse::<RawFd>() {
        Ok(0..=2) => Err("for the standard streams, use -i, -o or -e"),
        Ok(descriptor) if descriptor > 2 => Ok(descriptor),
        _ => Err("not a descriptor number"),
    }
}

pub fn parse_disposition(text: &str) -> Result<Disposition, &'static str> {
    match text {
        "default" => Ok(Disposition::Default),
        "ignore" => Ok(Disposition::Ignored),
        _ => Err("neither 'default' nor 'ignore'"),
    }
}

pub fn parse_shell(text: &str) -> Result<Shell, &'static str> {
    match text {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        _ => Err("not 'bash', 'zsh' or 'fish'"),
    }
}

/// How many lines. Not `+5`: it means something else to tail(1).
pub fn parse_lines(text: &str) -> Result<u64, &'static str> {
    parse_digits(text).ok_or("not a number of lines")
}

/// The name of a job, which is listed, and becomes part of the name of its log.
pub fn parse_name(name: OsString) -> Result<OsString, &'static str> {
    let is_usable = !is_blank(&name) && !name.as_bytes().contains(&b'/');
    if is_usable { Ok(name) } else { Err("it must not be blank or contain a slash") }
}

#[allow(clippy::unnecessary_wraps)] // clap's interface
pub fn parse_target(value: OsString) -> Result<Target, &'static str> {
    Ok(if value == "-" { Target::Keep } else { Target::File(value.into()) })
}

/// A file, where nothing can be kept as it is.
pub fn parse_file(value: OsString) -> Result<PathBuf, &'static str> {
    if value == "-" { Err("the terminal cannot be kept") } else { Ok(value.into()) }
}

/// A process, or a process group.
pub fn parse_pid(text: &str) -> Result<Pid, &'static str> {
    jobs::parse_pid(text.as_ref()).ok_or("not a PID")
}

/// A number without a sign.
fn parse_digits<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| is_digits(text))
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_has_units_or_counts_seconds() {
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
    fn signal_is_a_name_or_a_number() {
        for (text, number) in [("TERM", 15), ("SIGTERM", 15), ("term", 15), ("9", 9), ("RTMIN", libc::SIGRTMIN())] {
            assert_eq!(parse_signal(text), Ok(number), "{text}");
        }
        assert_eq!(parse_signal("RTMIN+1"), Ok(libc::SIGRTMIN() + 1));
        assert_eq!(parse_signal("sigrtmax-2"), Ok(libc::SIGRTMAX() - 2));
        for text in ["", "0", "-9", "65", "999", "NONE", "SIG", "RTMIN+99", "RTMAX+1", "RTMIN1", "+15", "RTMIN++1"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn umask_is_octal() {
        for (text, expected) in [("022", Some(0o022)), ("0", Some(0)), ("777", Some(0o777)), ("0777", Some(0o777))] {
            assert_eq!(parse_umask(text).ok().map(|mode| mode.bits()), expected, "{text}");
        }
        for text in ["8", "1000", "u=rw", "", "+7", "-1", "0o22"] {
            assert_eq!(parse_umask(text), Err("not an octal number from 0 to 777"), "{text}");
        }
    }

    #[test]
    fn descriptor_is_not_a_standard_stream() {
        assert_eq!(parse_descriptor("3"), Ok(3));
        for text in ["0", "2", "-1", "x", "", "3.0", "99999999999"] {
            assert!(parse_descriptor(text).is_err(), "{text}");
        }
    }

    #[test]
    fn number_of_lines_has_no_sign() {
        assert_eq!(parse_lines("0"), Ok(0));
        assert_eq!(parse_lines("10"), Ok(10));
        for text in ["", "+5", "-5", "1k", "99999999999999999999"] {
            assert!(parse_lines(text).is_err(), "{text}");
        }
    }

    #[test]
    fn name_is_a_word_without_a_slash() {
        for (name, is_usable) in [
            ("a", true),
            ("a b", true),
            ("作业", true),
            ("", false),
            (" ", false),
            ("\t\n\u{a0}", false),
            ("\u{200b}\u{2060}\u{1b}", false),
            ("a/b", false),
            ("/", false),
        ] {
            assert_eq!(parse_name(name.into()).is_ok(), is_usable, "{}", name.escape_unicode());
        }
    }
}
