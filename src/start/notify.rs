//! The desktop notification at the end of a command, through notify-send(1) and the session bus.
//!
//! Both are checked for before the command starts; `tracker` sends the notification.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::error::Error;
use crate::jobs::record::End;
use crate::start::command::paths_to_try;
use crate::sys::exec::{execute_here, to_c_string};
use crate::sys::signals::{self, Disposition};
use crate::sys::spawn::{Borrower, Stack, spawn};
use crate::term::format::{describe_end, show_duration};
use crate::term::text::escape;

const PROGRAM: &str = "notify-send";

/// The program that shows notifications, if it is there and there is a bus.
pub fn find_program() -> Result<PathBuf, Error> {
    let paths = paths_to_try(OsStr::new(PROGRAM)).into_iter().filter(|path| path.is_file());
    let mut programs = paths.filter(|path| access(path, AccessFlags::X_OK).is_ok());
    let program = programs.next().ok_or_else(|| {
        Error::new(format!("cannot show a notification: '{PROGRAM}' is not in PATH"))
            .with_hint("install it (libnotify-bin on Debian), or use --track, which only records how the command ends")
    })?;
    if !has_session_bus() {
        return Err(Error::new("cannot show a notification: there is no session bus")
            .with_hint("use --track, which only records how the command ends"));
    }
    std::path::absolute(&program).map_err(|error| Error::io("use", program, &error))
}

/// Whether there is one: sd_bus_open_user(3). notify-send finds out whether it answers.
fn has_session_bus() -> bool {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
    variable("DBUS_SESSION_BUS_ADDRESS").is_some()
        || variable("XDG_RUNTIME_DIR").is_some_and(|directory| Path::new(&directory).join("bus").exists())
}

/// Shows how the command `name` has ended. Does not wait for the notification, and cannot report it if none appears.
pub fn send(program: &OsStr, name: &OsStr, end: &End) {
    let urgency = if end.status().success() { c"--urgency=normal" } else { c"--urgency=critical" };
    let title = format!("{} {}", escape(name.as_bytes(), ""), describe_end(end.status()));
    let body = format!("after {}", show_duration(end.wall()));
    let [program, title, body] = [program.to_owned(), OsString::from(title), OsString::from(body)].map(to_c_string);
    let words = [program.as_c_str(), c"--app-name=detach", urgency, c"--", &title, &body];
    let Ok(stack) = Stack::map() else { return };
    let _ = spawn(&stack, &Borrower::default(), &mut || {
        // This is the child.
        let _ = signals::reset_dispositions(Disposition::Default);
        let _ = signals::unblock(Disposition::Default);
        execute_here(&program, &words);
    });
}
