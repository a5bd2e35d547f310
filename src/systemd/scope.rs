//! A scope of its own for a job: systemd.scope(5).
//!
//! The service manager makes it, at the request of busctl(1), and moves this process into it; all that is started from
//! then on is in it as well. So nothing but the control group of this process changes: neither its PID nor its parent,
//! its streams or its environment. (systemd-run(1) would set INVOCATION_ID, merge variables of the same name, and exit
//! with 1 if it is refused.) A user's manager makes the scopes of a user, the system's manager those of root.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::{Pid, geteuid};

use crate::error::{Error, reason};
use crate::sys::signals::{self, Disposition};
use crate::sys::{errno, proc};
use crate::systemd;
use crate::term::text::{escape, quote};

const PROGRAM: &str = "busctl";
const RANDOM: &str = "/dev/urandom";
/// The longest name of a unit, in bytes: UNIT_NAME_MAX of systemd, without the zero.
const LONGEST_NAME: usize = 255;
/// The move comes after the answer. A manager that takes longer has failed.
const TIME_TO_MOVE: Duration = Duration::from_secs(5);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(1);

/// A new name for the scope of a job: `app-detach-NAME-RANDOM.scope`, as the desktop specifications have it.
pub fn name_unit(job: &OsStr) -> Result<String, Error> {
    let mut random = [0; 8];
    let read = File::open(RANDOM).and_then(|mut file| file.read_exact(&mut random));
    read.map_err(|error| Error::io("read", RANDOM, &error))?;
    let end = format!("-{:016x}.scope", u64::from_ne_bytes(random));
    Ok(unit_name(job.as_bytes(), &end))
}

/// systemd.unit(5): what is no letter, digit, `:`, `_` or `.`, a dash included, is escaped. A long name is cut.
fn unit_name(job: &[u8], end: &str) -> String {
    let mut name = String::from("app-detach-");
    for byte in job {
        let letter = char::from(*byte);
        let is_plain = letter.is_ascii_alphanumeric() || matches!(letter, ':' | '_' | '.');
        let escaped = if is_plain { letter.to_string() } else { format!("\\x{byte:02x}") };
        if name.len() + escaped.len() + end.len() > LONGEST_NAME {
            break;
        }
        name += &escaped;
    }
    name + end
}

/// Moves this process into a new scope called `unit`.
pub fn enter(unit: &str, job: &OsStr) -> Result<(), Error> {
    if !systemd::is_running() {
        return Err(refuse("systemd is not running"));
    }
    let mut request = make_request(&find_manager()?, unit, job);
    // A caller that ignores SIGCHLD would have the kernel discard the status: wait(2).
    let reset = signals::set_sigchld(Disposition::Default);
    reset.map_err(|errno| Error::step("prepare signals", errno))?;
    match request.output() {
        Ok(output) if output.status.success() => wait_until_in(unit),
        Ok(output) => Err(refuse(&find_reason(&output.stderr))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(refuse(&format!("'{PROGRAM}' is not in PATH")).with_hint("it is part of systemd"))
        }
        Err(error) => Err(refuse(&format!("'{PROGRAM}': {}", reason(errno(&error))))),
    }
}

/// The call of `StartTransientUnit`: org.freedesktop.systemd1(5).
fn make_request(manager: &Manager, unit: &str, job: &OsStr) -> Command {
    let mut command = Command::new(PROGRAM);
    let slice = match manager {
        Manager::System => &[][..],
        Manager::User(bus) => {
            command.arg(format!("--address=unix:path={bus}"));
            &["Slice", "s", "app.slice"]
        }
    };
    let object = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];
    command.args(["--quiet", "call"]).args(object).args(["StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail"]);
    // How many properties there are, then these; and no other units.
    command.arg(if slice.is_empty() { "3" } else { "4" });
    command.args(["PIDs", "au", "1", &Pid::this().to_string()]).args(slice);
    // A scope that has failed is removed as well.
    command.args(["CollectMode", "s", "inactive-or-failed"]);
    command.args(["Description", "s", &format!("detach: {}", escape(job.as_bytes(), ""))]).arg("0");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The service manager that makes the scope.
enum Manager {
    System,
    /// That of the user, on this bus.
    User(String),
}

/// A scope of the system is not tied to any login, so root gets one, unless this process runs under root's own user
/// manager.
fn find_manager() -> Result<Manager, Error> {
    let user = geteuid();
    let own = format!("user@{user}.service");
    let group = proc::control_group(Pid::this()).unwrap_or_default();
    let is_in_own = group.split(|byte| *byte == b'/').any(|part| part == own.as_bytes());
    if user.is_root() && !is_in_own {
        return Ok(Manager::System);
    }
    // Not by XDG_RUNTIME_DIR or DBUS_SESSION_BUS_ADDRESS: after su(1), and in a job of cron(8), they are not set.
    let bus = format!("/run/user/{user}/bus");
    if Path::new(&bus).exists() {
        Ok(Manager::User(bus))
    } else {
        let error = refuse(&format!("this user has no service manager with a bus at {}", quote(bus.as_ref())));
        Err(error.with_hint("loginctl enable-linger starts the manager, and keeps it running"))
    }
}

/// The last line that busctl has written.
fn find_reason(stderr: &[u8]) -> String {
    let mut lines = stderr.trim_ascii().rsplit(|byte| *byte == b'\n');
    let line = lines.next().filter(|line| !line.is_empty()).unwrap_or(b"busctl failed");
    escape(line.strip_prefix(b"Call failed: ").unwrap_or(line), "")
}

fn wait_until_in(unit: &str) -> Result<(), Error> {
    let until = Instant::now() + TIME_TO_MOVE;
    while !is_in(unit) {
        if Instant::now() > until {
            return Err(refuse(&format!("systemd did not move this process into {}", quote(unit.as_ref()))));
        }
        sleep(INTERVAL);
    }
    Ok(())
}

fn is_in(unit: &str) -> bool {
    proc::control_group(Pid::this())
        .is_some_and(|group| group.rsplit(|byte| *byte == b'/').next() == Some(unit.as_bytes()))
}

fn refuse(reason: &str) -> Error {
    Error::new(format!("cannot create a scope: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_escaped_as_in_the_names_of_units() {
        for (job, escaped) in [
            ("make", "make"),
            ("train.py", "train.py"),
            ("my-job", r"my\x2djob"),
            ("a b\\c", r"a\x20b\x5cc"),
            ("é", r"\xc3\xa9"),
            ("a@b%n$x", r"a\x40b\x25n\x24x"),
            (".x", ".x"),
            ("-", r"\x2d"),
        ] {
            assert_eq!(unit_name(job.as_bytes(), "-1.scope"), format!("app-detach-{escaped}-1.scope"));
        }
    }

    #[test]
    fn long_name_is_cut_between_characters() {
        for job in ["a".repeat(300), "-".repeat(300), "a-".repeat(150)] {
            let name = unit_name(job.as_bytes(), "-0123456789abcdef.scope");
            assert!((LONGEST_NAME - 3..=LONGEST_NAME).contains(&name.len()), "{name}");
            assert!(
                name.ends_with("a-0123456789abcdef.scope") || name.ends_with("\\x2d-0123456789abcdef.scope"),
                "{name}"
            );
        }
    }

    #[test]
    fn reason_is_the_last_line() {
        for (stderr, reason) in [
            ("Call failed: Unit x.scope already exists.\n", "Unit x.scope already exists."),
            ("a\nb\n", "b"),
            ("\n", "busctl failed"),
            ("\x1b[2J", "\\x1b[2J"),
        ] {
            assert_eq!(find_reason(stderr.as_bytes()), reason);
        }
    }
}
