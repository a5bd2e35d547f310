//! What the standard library does before `main`, reduced to what is needed here.
//!
//! The program begins at the C library's `main` (main.rs). The standard library's own start code reads /proc/self/maps
//! to be able to report a stack overflow, which takes 7 % of a start. The two other things that it does are done here.

use std::os::fd::IntoRawFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, fstat};

use crate::sys::{descriptors, signals};

/// Whether the caller has left stdout open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdout {
    Open,
    /// It is /dev/null by now, so a write to it does not fail.
    Closed,
}

/// Opens /dev/null for each standard stream that is closed, so that no other file gets its number. Ignores SIGPIPE, so
/// that writing to a pipe without a reader is an error of write(2).
pub fn prepare() -> nix::Result<Stdout> {
    let stdout = if descriptors::is_open(1) { Stdout::Open } else { Stdout::Closed };
    for stream in 0..=2 {
        if !descriptors::is_open(stream) {
            // It gets the lowest free number, which is that of the stream, and stays open to the end.
            let null = open("/dev/null", OFlag::O_RDWR, Mode::empty())?;
            if !descriptors::is_null_device(&fstat(&null)?) {
                return Err(Errno::ENODEV);
            }
            let _ = null.into_raw_fd();
        }
    }
    signals::ignore(Signal::SIGPIPE)?;
    Ok(stdout)
}

/// Ends the process at once: nothing is left to be done, since all output has been written.
pub fn exit(status: u8) -> ! {
    // SAFETY: it only ends the process.
    unsafe { libc::_exit(status.into()) }
}
