//! What the tests are built on.
//!
//! A `Sandbox` is a home directory for one test and ends everything started in it. A `Terminal` has a shell in it and
//! can hang up. A `Process` is read from /proc, a `Run` is a program that has ended, `eventually` takes the place of
//! sleep, and `requires!` skips a test that cannot run here. `Survival`, `peers`, `Prediction` and `Scene` hold the
//! experiments that several test modules and the table printer (`benches/tables`) share.

#[macro_use]
mod requirements;
#[cfg(target_arch = "x86_64")]
pub mod faults;
pub mod help;
mod jobs;
pub mod killing;
mod loaded_shell;
pub mod logout;
pub mod machine;
pub mod peers;
mod prediction;
mod process;
mod run;
mod sandbox;
pub mod scene;
pub mod storage;
pub mod survival;
pub mod target;
mod terminal;
#[cfg(target_arch = "x86_64")]
pub mod tracer;
mod wait;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub use jobs::TRACKER;
pub use loaded_shell::{BASH, FISH, LoadedShell, Shell, ZSH};
pub use prediction::{await_prediction, predict};
pub use process::{Process, all_pids, process_named_in, sleeper};
pub use requirements::{are_met, skip};
pub use run::Run;
pub use sandbox::Sandbox;
pub use scene::{Event, QUIET, Scene, assert_came_true};
pub use terminal::Terminal;
pub use wait::{await_result, eventually};

/// The program under test.
pub const DETACH: &str = env!("CARGO_BIN_EXE_detach");

/// A byte string as an argument.
pub fn bytes(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// The permission bits of a file.
#[track_caller]
pub fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}
