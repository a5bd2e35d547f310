//! The system calls that make a command independent of the terminal, and what /proc says about processes.
//!
//! Unsafe code is confined to this folder and `rescue/tracee.rs`: one operation per block, each with the reason why it
//! is sound. The order of the calls is left to `start`, where it can be read at a glance.

#[cfg(debug_assertions)]
mod allocator;
pub mod census;
pub mod descriptors;
pub mod entry;
pub mod exec;
pub mod fixed;
pub mod mishap;
pub mod once;
pub mod proc;
pub mod process;
pub mod shared;
pub mod signals;
pub mod spawn;

use std::io;

use nix::errno::Errno;

/// The error number of a failed call of the standard library.
pub fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
