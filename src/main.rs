//! detach starts a command in a session of its own and gives the prompt back.
//!
//! This file parses, runs, prints the error and chooses the exit status; nothing else.

// The C library calls `begin::main`: of a start, what the runtime of Rust does before would be 7 %.
#![cfg_attr(not(test), no_main)]

#[allow(unsafe_code)]
mod begin;
mod check;
mod cli;
mod command;
mod error;
mod facts;
mod human;
mod job;
mod join;
mod launch;
mod list;
mod logind;
mod notify;
mod options;
mod output;
mod pidfd;
mod pidfile;
mod proc;
mod prune;
mod record;
mod sequence;
#[allow(unsafe_code)]
mod session;
mod state;
mod stop;
mod streams;
mod table;
mod tracker;
mod ui;
mod verdict;
mod watch;

use std::ffi::OsString;

use cli::Action;
use error::Error;
use ui::{Ui, Verbosity, write_data};

/// The whole program, for the words behind its name. Returns the exit status.
fn detach(words: Vec<OsString>) -> u8 {
    if let Some(status) = tracker::run(&words) {
        return status;
    }
    let (action, verbosity) = match begin::prepare().and_then(|()| cli::parse(words)) {
        Ok(typed) => typed,
        Err(error) => return fail(&error, &Ui::new(Verbosity::Normal)),
    };
    let ui = Ui::new(verbosity);
    run(action, &ui).unwrap_or_else(|error| fail(&error, &ui))
}

fn run(action: Action, ui: &Ui) -> Result<u8, Error> {
    match action {
        Action::Print(text) => write_data(&text).map_err(|error| Error::stdout(&error)).map(|()| 0),
        Action::Start(start) => launch::start(&start, ui),
        Action::List { all, json } => list::list(all, json, ui).map(|()| 0),
        Action::Log { job, follow } => output::show(&job, follow, ui).map(|()| 0),
        Action::Join(jobs) => join::join(&jobs, ui),
        Action::Stop { jobs, how } => stop::stop(&jobs, how, ui),
        Action::Check { wanted, json } => verdict::check(&wanted, json, ui),
        Action::Prune(age) => prune::prune(age, ui).map(|()| 0),
    }
}

fn fail(error: &Error, ui: &Ui) -> u8 {
    ui.error(error);
    error.status()
}
