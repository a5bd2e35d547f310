//! `--init`: the function `detach` for a shell.
//!
//! What only the shell can do is done there: it finds the process group of a job, lets `--pid` take the job from its
//! terminal, and removes it from the job table. The function tells `--check` about the job table as well (see
//! `check/table.rs`). The functions are files of their own, one for each shell.

use crate::error::Error;
use crate::term::ui::write_data;

/// The shells that have such a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the function for `shell`. Returns the exit status.
pub fn init(shell: Shell) -> Result<u8, Error> {
    let function = match shell {
        Shell::Bash => include_str!("detach.bash"),
        Shell::Zsh => include_str!("detach.zsh"),
        Shell::Fish => include_str!("detach.fish"),
    };
    write_data(function).map_err(|error| Error::stdout(&error))?;
    Ok(0)
}
