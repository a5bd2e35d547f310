//! Quantities for people: durations, sizes, times, the end of a process.
//!
//! Each becomes text for a sentence or a table. The sentences and tables are made elsewhere.

use std::env;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};
use nix::libc;
use nix::sys::signal::Signal;

/// In bytes: ten times as much as the longest one.
const LONGEST_ZONE: u64 = 64 * 1024;

/// The exit status with which a shell reports `status`: 128+N for signal N.
pub fn exit_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// How a command ended, as the predicate of a sentence.
pub fn describe_end(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "succeeded".to_owned(),
        (_, Some(number)) => {
            let core = if status.core_dumped() { " (core dumped)" } else { "" };
            format!("was killed by {}{core}", signal_name(number))
        }
        (code, None) => format!("failed with status {}", code.unwrap_or_default()),
    }
}

/// A lifetime: to the millisecond below a minute, to the second below a day, then to the hour.
pub fn show_duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    let days = i32::try_from(seconds / 86_400).unwrap_or(i32::MAX);
    let of_day = i64::try_from(seconds % 86_400).unwrap_or(0);
    let span = match seconds {
        0 if millis == 0 => return "0ms".to_owned(),
        0..60 => Span::new().seconds(of_day).milliseconds(millis),
        60..86_400 => Span::new().hours(of_day / 3600).minutes(of_day / 60 % 60).seconds(of_day % 60),
        _ => Span::new().try_days(days).unwrap_or_default().hours(of_day / 3600),
    };
    format!("{span:#}")
}

/// A number of bytes, with three digits at most.
pub fn show_size(bytes: u64) -> String {
    let mut unit = "B";
    let mut tenths = u128::from(bytes) * 10;
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        if tenths < 10_000 {
            break;
        }
        tenths /= 1024;
        unit = larger;
    }
    match tenths {
        0..100 if unit != "B" => format!("{}.{} {unit}", tenths / 10, tenths % 10),
        _ => format!("{} {unit}", tenths / 10),
    }
}

/// A lifetime for a table: its two largest units.
pub fn show_lifetime(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// Milliseconds since 1970-01-01 00:00 UTC as a local time.
pub fn show_time(ms: u64) -> String {
    local_time(ms).map_or("?".into(), |time| time.strftime("%F %T").to_string())
}

/// Like [`show_time`], as short as in ls(1).
pub fn show_day(ms: u64) -> String {
    let this_year = local_time(now_in_ms()).map(|now| now.year());
    local_time(ms).map_or("?".into(), |time| {
        let is_this_year = Some(time.year()) == this_year;
        time.strftime(if is_this_year { "%b %e %H:%M" } else { "%b %e  %Y" }).to_string()
    })
}

/// Milliseconds since 1970-01-01 00:00 UTC, or 0 before.
pub fn now_in_ms() -> u64 {
    in_ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub fn in_ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// In the time zone of `TZ` or of the machine, else UTC.
fn local_time(ms: u64) -> Option<Zoned> {
    static ZONE: LazyLock<TimeZone> = LazyLock::new(|| find_zone().unwrap_or(TimeZone::UTC));
    Some(Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?.to_zoned(ZONE.clone()))
}

/// The zone that tzset(3) would choose: `TZ` names a file, or is a rule. The file is read here, because `TZ` may name
/// anything, and some files never end or make their reader wait.
fn find_zone() -> Option<TimeZone> {
    let Some(zone) = env::var_os("TZ") else { return read_zone(Path::new("/etc/localtime")) };
    let zone = zone.to_str()?;
    let name = zone.strip_prefix(':').unwrap_or(zone);
    let directory = env::var_os("TZDIR").map_or("/usr/share/zoneinfo".into(), PathBuf::from);
    // An absolute name replaces the directory.
    read_zone(&directory.join(name)).or_else(|| {
        // As in tzset(3): a rule that names summer time, but not when it is, has the dates of the United States.
        let rule = TimeZone::posix(name);
        rule.or_else(|_| TimeZone::posix(&format!("{name},M3.2.0,M11.1.0"))).ok()
    })
}

/// A file as tzfile(5) describes it.
fn read_zone(path: &Path) -> Option<TimeZone> {
    let mut zone = Vec::new();
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    file.take(LONGEST_ZONE).read_to_end(&mut zone).ok()?;
    TimeZone::tzif("", &zone).ok()
}

/// `SIGTERM` for 15, `SIGRTMIN+1` for 35.
pub fn signal_name(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) if number == libc::SIGRTMIN() => "SIGRTMIN".to_owned(),
        Err(_) if number > libc::SIGRTMIN() => format!("SIGRTMIN+{}", number - libc::SIGRTMIN()),
        Err(_) => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetime_has_two_units() {
        for (seconds, text) in [
            (0, "0ms"),
            (59, "59s"),
            (60, "1m 0s"),
            (3599, "59m 59s"),
            (3600, "1h 0m"),
            (7500, "2h 5m"),
            (97_200, "1d 3h"),
        ] {
            assert_eq!(show_lifetime(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn day_is_as_short_as_the_year_allows() {
        let now = show_day(now_in_ms());
        assert!(now.len() == 12 && now.contains(':'), "{now}");
        assert!(show_day(1_000_000_000_000).ends_with("  2001"));
    }

    #[test]
    fn signals_have_names() {
        for (number, name) in
            [(15, "SIGTERM"), (34, "SIGRTMIN"), (35, "SIGRTMIN+1"), (64, "SIGRTMIN+30"), (32, "signal 32")]
        {
            assert_eq!(signal_name(number), name);
        }
    }

    #[test]
    fn size_has_three_digits_at_most() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.9 KiB"),
            (10_240, "10 KiB"),
            (1_048_576, "1.0 MiB"),
            (131_072_000, "125 MiB"),
            (u64::MAX, "15 EiB"),
        ] {
            assert_eq!(show_size(bytes), text);
        }
    }

    #[test]
    fn status_of_a_signal_is_that_of_a_shell() {
        for (raw, status, sentence) in [
            (0, 0, "succeeded"),
            (42 << 8, 42, "failed with status 42"),
            (255 << 8, 255, "failed with status 255"),
            (15, 143, "was killed by SIGTERM"),
            (0x80 | 0xb, 139, "was killed by SIGSEGV (core dumped)"),
            (35, 163, "was killed by SIGRTMIN+1"),
        ] {
            let end = ExitStatus::from_raw(raw);
            assert_eq!((exit_status(end), describe_end(end).as_str()), (status, sentence));
        }
    }

    #[test]
    fn duration_is_as_exact_as_it_is_useful() {
        for (millis, text) in [
            (0, "0ms"),
            (41, "41ms"),
            (2_500, "2s 500ms"),
            (62_345, "1m 2s"),
            (3_600_000, "1h"),
            (604_800_000, "7d"),
            (90_000_000, "1d 1h"),
        ] {
            assert_eq!(show_duration(Duration::from_millis(millis)), text);
        }
    }
}
