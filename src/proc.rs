//! Facts from /proc. Parsers take bytes and touch no file, so that every odd content can be tested.
//!
//! The identity of a process is its PID, its start time and the boot it belongs to: a PID alone is used again.

use std::fs;

use nix::unistd::Pid;

/// What tells one process from every other that ever had its PID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The process.
    pub pid: Pid,
    /// Clock ticks after boot: field 22 of /proc/PID/stat, see proc_pid_stat(5).
    pub start_time: u64,
    /// /proc/sys/kernel/random/boot_id, see random(4).
    pub boot_id: String,
}

impl Identity {
    /// The identity of the calling process; `None` where /proc does not tell.
    pub fn of_this_process() -> Option<Self> {
        let start_time = parse_start_time(&fs::read("/proc/self/stat").ok()?)?;
        let boot_id = parse_boot_id(&fs::read("/proc/sys/kernel/random/boot_id").ok()?)?;
        Some(Self { pid: Pid::this(), start_time, boot_id })
    }
}

/// Field 22 of /proc/PID/stat. The command name, field 2, may itself hold parentheses, spaces and newlines:
/// the fields are counted from the last `)`.
fn parse_start_time(stat: &[u8]) -> Option<u64> {
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = str::from_utf8(stat.get(end_of_name + 1..)?).ok()?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// The boot id, as the kernel writes it: hexadecimal digits in five groups, and a newline.
fn parse_boot_id(bytes: &[u8]) -> Option<String> {
    let id = str::from_utf8(bytes).ok()?.trim_end();
    let is_plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_plain.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_counted_from_the_last_parenthesis() {
        let rest = "S 1 4242 4242 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 100";
        for name in ["sleep", "a) S 1 2 3", "line\nbreak", ") ) )", ""] {
            assert_eq!(parse_start_time(format!("4242 ({name}) {rest}\n").as_bytes()), Some(987_654), "{name:?}");
        }
        let mut foreign = b"4242 (\xff\xfe) ".to_vec();
        foreign.extend_from_slice(rest.as_bytes());
        assert_eq!(parse_start_time(&foreign), Some(987_654));
    }

    #[test]
    fn start_time_of_a_damaged_stat_is_unknown() {
        for stat in [&b""[..], b"4242", b"4242 (sleep)", b"4242 (sleep) S 1 2 3", b")\xff"] {
            assert_eq!(parse_start_time(stat), None, "{stat:?}");
        }
    }

    #[test]
    fn boot_id_cannot_leave_its_directory() {
        assert_eq!(parse_boot_id(b"0b1c-22\n").as_deref(), Some("0b1c-22"));
        assert_eq!(parse_boot_id(b"../../etc\n"), None);
        assert_eq!(parse_boot_id(b"\n"), None);
    }
}
