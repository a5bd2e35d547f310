//! The desktop notification at the end of a command, through notify-send(1) and the session bus.
//!
//! Whether there are both is found out before the command is started; `tracker` sends it.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;

use nix::unistd::{AccessFlags, access, execv};

use crate::command::paths_to_try;
use crate::error::{Error, errno, escape, quote, reason};
use crate::human::{describe_end, show_duration};
use crate::record::End;
use crate::session::{self, Disposition};

const PROGRAM: &str = "notify-send";

/// The program that shows notifications, if it is there and the bus can be reached.
pub fn find_program() -> Result<PathBuf, Error> {
    let paths = paths_to_try(OsStr::new(PROGRAM)).into_iter().filter(|path| path.is_file());
    let mut programs = paths.filter(|path| access(path, AccessFlags::X_OK).is_ok());
    let program = programs.next().ok_or_else(|| Error::CannotNotify {
        reason: format!("'{PROGRAM}' is not in PATH"),
        hint: "Debian has it in libnotify-bin; --track alone records how the command ends".into(),
    })?;
    reach_bus().map_err(|reason| Error::CannotNotify {
        reason: format!("there is no session bus: {reason}"),
        hint: "--track alone records how the command ends".into(),
    })?;
    std::path::absolute(&program).map_err(|error| Error::path("use", program, errno(&error)))
}

/// Tells of the command `name`. Does not wait until it is shown, and nobody is told if it is not.
pub fn send(program: OsString, name: &OsStr, end: &End) {
    let urgency = if end.status.success() { "--urgency=normal" } else { "--urgency=critical" };
    let title = format!("{} {}", escape(name.as_bytes(), ""), describe_end(end.status));
    let body = format!("after {}", show_duration(end.wall));
    let words = [program, "--app-name=detach".into(), urgency.into(), "--".into(), title.into(), body.into()];
    let words: Vec<CString> = words.into_iter().filter_map(|word| CString::new(word.into_vec()).ok()).collect();
    let Some(program) = words.first() else { return };
    let _ = session::spawn(|| {
        // This is the child.
        let _ = session::reset_dispositions(Disposition::Default);
        let _ = session::unblock_signals(Disposition::Default);
        let _ = execv(program, &words);
    });
}

/// Connects to the session bus, once. The error is a reason for people.
///
/// Where it is: `DBUS_SESSION_BUS_ADDRESS`, a list of addresses, else `$XDG_RUNTIME_DIR/bus`, as in the D-Bus
/// specification and sd_bus_open_user(3).
fn reach_bus() -> Result<(), String> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
    let Some(addresses) = variable("DBUS_SESSION_BUS_ADDRESS") else {
        let directory = variable("XDG_RUNTIME_DIR").ok_or("DBUS_SESSION_BUS_ADDRESS is not set")?;
        let path = PathBuf::from(directory).join("bus");
        return connect(SocketAddr::from_pathname(&path), path.as_os_str());
    };
    let mut result = Err("DBUS_SESSION_BUS_ADDRESS names no address".to_owned());
    for address in addresses.as_bytes().split(|byte| *byte == b';').filter(|address| !address.is_empty()) {
        result = reach(address);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Connects to one address: `unix:path=/run/user/1000/bus,guid=…`. Other transports are taken on trust.
fn reach(address: &[u8]) -> Result<(), String> {
    let Some(keys) = address.strip_prefix(b"unix:") else { return Ok(()) };
    let value = |key: &[u8]| keys.split(|byte| *byte == b',').find_map(|pair| pair.strip_prefix(key)).map(unescape);
    if let Some(path) = value(b"path=") {
        let path = OsString::from_vec(path);
        connect(SocketAddr::from_pathname(&path), &path)
    } else if let Some(name) = value(b"abstract=") {
        connect(SocketAddr::from_abstract_name(&name), OsStr::from_bytes(&name))
    } else {
        Ok(())
    }
}

fn connect(address: std::io::Result<SocketAddr>, name: &OsStr) -> Result<(), String> {
    let connected = address.and_then(|address| UnixStream::connect_addr(&address));
    connected.map(drop).map_err(|error| format!("{}: {}", quote(name), reason(errno(&error))))
}

/// In an address, `%20` stands for a byte.
fn unescape(value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = value;
    while let Some((first, others)) = rest.split_first() {
        let digits = others.get(..2).filter(|_| *first == b'%').and_then(|digits| str::from_utf8(digits).ok());
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            rest = others.get(2..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = others;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_bytes_of_an_address_come_back() {
        for (value, bytes) in [("/run/bus", "/run/bus"), ("/a%20b", "/a b"), ("%", "%"), ("%zz%2f", "%zz/")] {
            assert_eq!(unescape(value.as_bytes()), bytes.as_bytes());
        }
    }
}
