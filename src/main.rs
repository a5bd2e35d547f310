//! detach starts a command in a session of its own and gives the prompt back.
//!
//! This file parses, runs, prints the error and chooses the exit status; nothing else.

mod cli;
mod command;
mod error;
mod job;
mod launch;
mod pidfile;
mod proc;
mod sequence;
#[allow(unsafe_code)]
mod session;
mod streams;
mod ui;
mod watch;

use std::process::ExitCode;

use cli::Action;
use error::{Error, errno};
use ui::{Ui, Verbosity};

fn main() -> ExitCode {
    let action = match cli::parse() {
        Ok(action) => action,
        Err(error) => return fail(&error, &Ui::new(Verbosity::Normal)),
    };
    match action {
        Action::Print(text) => match ui::write_data(&text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&Error::path("write to", "stdout", errno(&error)), &Ui::new(Verbosity::Normal)),
        },
        Action::Start(start, verbosity) => {
            let ui = Ui::new(verbosity);
            match launch::start(&start, &ui) {
                Ok(status) => ExitCode::from(status),
                Err(error) => fail(&error, &ui),
            }
        }
    }
}

fn fail(error: &Error, ui: &Ui) -> ExitCode {
    ui.error(error);
    ExitCode::from(error.status())
}
