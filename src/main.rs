//! detach starts a command in a session of its own and gives the prompt back.
//!
//! This file parses, runs, prints the error and chooses the exit status; nothing else.

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

use std::process::ExitCode;

use cli::Action;
use error::Error;
use ui::{Ui, Verbosity, write_data};

fn main() -> ExitCode {
    if let Some(status) = tracker::run() {
        return status;
    }
    let (action, verbosity) = match cli::parse() {
        Ok(typed) => typed,
        Err(error) => return fail(&error, &Ui::new(Verbosity::Normal)),
    };
    let ui = Ui::new(verbosity);
    match run(action, &ui) {
        Ok(status) => ExitCode::from(status),
        Err(error) => fail(&error, &ui),
    }
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

fn fail(error: &Error, ui: &Ui) -> ExitCode {
    ui.error(error);
    ExitCode::from(error.status())
}
