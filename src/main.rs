//! detach starts a command that keeps running without its terminal, and gives the prompt back.
//!
//! Words in, exit status out: this file parses the command line, runs what was asked for, and prints the error if that
//! failed.

// The C library calls `main`: see `sys::entry`.
#![cfg_attr(not(test), no_main)]

mod check;
mod cli;
mod error;
mod init;
mod jobs;
mod rescue;
mod start;
#[allow(unsafe_code)]
mod sys;
mod systemd;
mod term;

use std::ffi::{OsString, c_char, c_int};
use std::panic::catch_unwind;

use nix::errno::Errno;

use cli::Action;
use error::{Error, FAILED};
use sys::entry::{self, Stdout};
use term::ui::{Ui, Verbosity};

#[cfg(not(target_env = "gnu"))]
compile_error!("detach needs glibc, whose start code passes the arguments to the standard library: see `main`");

/// Called by the C library, whose start code has already passed the arguments to the standard library.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
#[allow(unsafe_code)] // `no_mangle`: no other symbol is named `main`
extern "C" fn main(_count: c_int, _words: *const *const c_char) -> c_int {
    let status = catch_unwind(|| detach(std::env::args_os().skip(1).collect())).unwrap_or(FAILED);
    entry::exit(status)
}

/// The whole program, for the words after its name. Returns the exit status.
fn detach(words: Vec<OsString>) -> u8 {
    if let Some(status) = start::tracker::run(&words) {
        return status;
    }
    let prepared = entry::prepare().map_err(|errno| Error::step("open /dev/null for a closed stream", errno));
    let typed = prepared.and_then(|stdout| Ok((stdout, cli::parse(words)?)));
    let (stdout, (action, verbosity)) = match typed {
        Ok(typed) => typed,
        Err(error) => return fail(&error, &Ui::new(Verbosity::Normal)),
    };
    let ui = Ui::new(verbosity);
    // Before anything is done: nothing is started whose PID or record cannot be printed.
    let result = match stdout {
        Stdout::Closed if action.prints_data() => Err(Error::step("write to stdout", Errno::EBADF)),
        Stdout::Open | Stdout::Closed => run(action, &ui),
    };
    result.unwrap_or_else(|error| fail(&error, &ui))
}

fn run(action: Action, ui: &Ui) -> Result<u8, Error> {
    match action {
        Action::Print(message) => cli::print(&message, ui),
        Action::Start(request) => start::start(&request, ui),
        Action::List(options) => jobs::list::list(options, ui),
        Action::Log(options) => jobs::log::show(&options, ui),
        Action::Join(jobs) => jobs::join::join(&jobs, ui),
        Action::Stop(options) => jobs::stop::stop(&options, ui),
        Action::Prune(options) => jobs::prune::prune(&options, ui),
        Action::LetGo(request) => rescue::let_go(&request, ui),
        Action::Check { wanted, json } => check::check(&wanted, json, rescue::find_obstacle, ui),
        Action::Init(shell) => init::init(shell),
    }
}

fn fail(error: &Error, ui: &Ui) -> u8 {
    ui.failure(error, error.hint());
    error.status()
}
