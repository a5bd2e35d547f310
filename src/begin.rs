//! The beginning of the program: what the C library calls, and what Rust would do before `main`, as far as it is
//! wanted.
//!
//! Left out is the handler that tells of a stack overflow, for which /proc/self/maps is read: that ends a program
//! anyway.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::catch_unwind;
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::error::{Error, FAILED};
use crate::session;

/// Called by the C library: `main` of a C program.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
extern "C" fn main(count: c_int, words: *const *const c_char) -> ! {
    let word = |index| {
        // SAFETY: `index` is less than `count`, and that many pointers stand there.
        let word = unsafe { words.add(index) };
        // SAFETY: it is one of them.
        let word = unsafe { word.read() };
        // SAFETY: each points to a string that ends with a zero, which nobody changes or takes away.
        let word = unsafe { CStr::from_ptr(word) };
        OsStr::from_bytes(word.to_bytes()).to_owned()
    };
    let words: Vec<OsString> = (1..usize::try_from(count).unwrap_or(0)).map(word).collect();
    let status = catch_unwind(|| crate::detach(words)).unwrap_or(FAILED);
    // SAFETY: it only ends the process. Nothing is left to be done: `ui` flushes what it writes, and all else has no
    // buffer.
    unsafe { libc::_exit(status.into()) }
}

/// Opens /dev/null for each standard stream that is closed, lest another file gets its number. Ignores SIGPIPE: a pipe
/// that nobody reads is an error of write(2).
pub fn prepare() -> Result<(), Error> {
    for stream in 0..=2 {
        if !session::is_open(stream) {
            let path = Path::new("/dev/null");
            let null = open(path, OFlag::O_RDWR, Mode::empty()).map_err(|errno| Error::path("open", path, errno))?;
            // It has the lowest free number, which is that of the stream, and stays open to the end.
            let _ = null.into_raw_fd();
        }
    }
    session::ignore(Signal::SIGPIPE).map_err(|errno| Error::Step { step: "ignore SIGPIPE", errno })
}
