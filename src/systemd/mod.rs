//! systemd: whether it runs, what it does with the processes of a user at logout, and a scope for a job.
//!
//! `logind` reads the settings, `logout` says what follows from them (`--check` and a start on a terminal ask it),
//! `scope` makes a scope (`--scope`).

pub mod logind;
pub mod logout;
pub mod scope;

use std::path::Path;

/// Whether systemd is the init system of this machine: sd_booted(3).
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}
