//! Quantities for people: durations, sizes, points in time, the end of a process.
//!
//! Each gives a text that stands in a sentence or a table of its own; what is said with it, and where, is left to
//! others.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::LazyLock;
use std::time::Duration;

use jiff::SignedDuration;
use nix::libc;
use nix::sys::signal::Signal;
use tz::{DateTime, TimeZone, TimeZoneSettings};

use crate::record::now_in_ms;

/// Bytes; ten times as much as the longest one has.
const LONGEST_ZONE: u64 = 64 * 1024;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The exit status by which a shell would tell of `status`: 128+N for signal N.
pub fn exit_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// How a command ended, as the predicate of a sentence.
pub fn describe_end(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended with success".to_owned(),
        (_, Some(number)) => {
            let name = Signal::try_from(number).map_or(format!("signal {number}"), |signal| signal.to_string());
            let core = if status.core_dumped() { " (core dumped)" } else { "" };
            format!("was killed by {name}{core}")
        }
        (code, None) => format!("failed with status {}", code.unwrap_or_default()),
    }
}

/// A lifetime for people: to the millisecond below a minute, then to the second.
pub fn show_duration(duration: Duration) -> String {
    let rounded = if duration < Duration::from_secs(60) {
        Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    } else {
        Duration::from_secs(duration.as_secs())
    };
    SignedDuration::try_from(rounded).map_or_else(|_| format!("{} s", rounded.as_secs()), |d| format!("{d:#}"))
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

/// Milliseconds since 1970 as a local time.
pub fn show_time(ms: u64) -> String {
    local_time(ms).map_or("?".into(), |time| {
        let (year, month, day) = (time.year(), time.month(), time.month_day());
        format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
    })
}

/// The same, as short as in ls(1).
pub fn show_day(ms: u64) -> String {
    let this_year = local_time(now_in_ms()).map(|now| now.year());
    local_time(ms).map_or("?".into(), |time| {
        let month = MONTHS.get(usize::from(time.month()) - 1).unwrap_or(&"?");
        let (year, day) = (time.year(), time.month_day());
        if Some(year) == this_year {
            format!("{month} {day:2} {:02}:{:02}", time.hour(), time.minute())
        } else {
            format!("{month} {day:2}  {year}")
        }
    })
}

/// In the time zone of `TZ` or of the machine, else UTC; `None` where the zone says nothing of that time.
fn local_time(ms: u64) -> Option<DateTime> {
    static ZONE: LazyLock<TimeZone> = LazyLock::new(|| {
        let directory = env::var("TZDIR").ok();
        let directories: Vec<&str> = match &directory {
            Some(directory) => vec![directory],
            None => TimeZoneSettings::DEFAULT_DIRECTORIES.to_vec(),
        };
        let settings = TimeZoneSettings::new(&directories, read_zone);
        // As in tzset(3): a zone with summer time but without its rules has those of the United States.
        let named = |name: String| {
            let zone = settings.parse_posix_tz(&name);
            zone.or_else(|_| settings.parse_posix_tz(&format!("{name},M3.2.0,M11.1.0")))
        };
        env::var("TZ").map_or_else(|_| settings.parse_local(), named).unwrap_or_else(|_| TimeZone::utc())
    });
    DateTime::from_timespec(i64::try_from(ms / 1000).ok()?, 0, ZONE.as_ref()).ok()
}

/// A file of a time zone. `TZ` may name anything, so what is no file of that size is not read.
fn read_zone(path: &str) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let mut zone = Vec::new();
    if fs::metadata(path)?.is_file() {
        File::open(path)?.take(LONGEST_ZONE).read_to_end(&mut zone)?;
    }
    Ok(zone)
}

/// `TERM` for 15, `RTMIN+1` for 35.
pub fn signal_name(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().trim_start_matches("SIG").to_owned(),
        Err(_) if number == libc::SIGRTMIN() => "RTMIN".to_owned(),
        Err(_) if number > libc::SIGRTMIN() => format!("RTMIN+{}", number - libc::SIGRTMIN()),
        Err(_) => number.to_string(),
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
        for (number, name) in [(15, "TERM"), (34, "RTMIN"), (35, "RTMIN+1"), (64, "RTMIN+30"), (32, "32")] {
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
            (0, 0, "ended with success"),
            (42 << 8, 42, "failed with status 42"),
            (255 << 8, 255, "failed with status 255"),
            (15, 143, "was killed by SIGTERM"),
            (0x80 | 0xb, 139, "was killed by SIGSEGV (core dumped)"),
            (35, 163, "was killed by signal 35"),
        ] {
            let end = ExitStatus::from_raw(raw);
            assert_eq!((exit_status(end), describe_end(end).as_str()), (status, sentence));
        }
    }

    #[test]
    fn duration_is_as_exact_as_it_is_useful() {
        for (millis, text) in [(0, "0s"), (41, "41ms"), (2_500, "2s 500ms"), (62_345, "1m 2s"), (3_600_000, "1h")] {
            assert_eq!(show_duration(Duration::from_millis(millis)), text);
        }
    }
}
