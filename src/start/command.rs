//! The command: which files its name may mean, the exec, and the reason if that fails.
//!
//! The search is that of execvp(3), except that it is prepared before the new process exists, relative to the caller's
//! directory: `detach -C / ./server` runs the server that the caller sees.

use std::env;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, stat};
use nix::sys::uio::pread;
use nix::unistd::{AccessFlags, Pid, access};

use crate::error::{Error, reason};
use crate::start::hints;
use crate::sys::exec::{Arguments, Environment, execute, to_c_string};
use crate::term::text::quote;

/// Where execvp(3) looks when PATH is not set.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// What runs a script without `#!`.
const SHELL: &CStr = c"/bin/sh";
/// In bytes: as much as the kernel reads of a script's first line: execve(2).
const FIRST_LINE: usize = 256;

/// A command, ready to be executed.
pub struct Command {
    name: OsString,
    files: Vec<CString>,
    arguments: Arguments,
    environment: Environment,
}

/// Why no file was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is none.
    NotFound,
    /// The file of this number is there, but cannot be run.
    File(usize, Errno),
    /// A file has no `#!`, and there is no shell.
    NoShell,
}

impl Command {
    /// The command `words`, its name first. `leaves_directory` says whether it will start in another directory than the
    /// one to which its name is relative.
    pub fn find(words: &[OsString], leaves_directory: bool) -> Result<Self, Error> {
        let name = words.first().cloned().unwrap_or_default();
        let mut paths = paths_to_try(&name);
        if leaves_directory && paths.iter().any(|path| path.is_relative()) {
            let here = env::current_dir().map_err(|error| Error::io("find the current directory", ".", &error))?;
            for path in &mut paths {
                *path = here.join(&*path);
            }
        }
        let files: Vec<CString> = paths.into_iter().map(|path| to_c_string(path.into_os_string())).collect();
        let arguments = Arguments::new(SHELL, words.iter().cloned().map(to_c_string).collect());
        Ok(Self { name, files, arguments, environment: Environment::of_this_process() })
    }

    /// The file of this number, as it was tried.
    pub fn file(&self, number: usize) -> &Path {
        self.files.get(number).map_or(Path::new(""), |file| as_path(file))
    }

    /// Becomes the command. Returns only when that failed. `note` is called with the number of each file before it is
    /// tried. Called by the new process: allocates nothing.
    pub fn execute(&self, pid: Pid, start_time: u64, note: impl Fn(usize)) -> Refusal {
        self.environment.name_job(pid, start_time);
        // As execvp(3): the first file that can be run. One that exists but cannot be run is remembered, and reported
        // if no later one can. A script without `#!` is given to the shell. Unlike execvp, and like a shell, a
        // directory of PATH that may not be searched counts as empty.
        let mut refusal = Refusal::NotFound;
        for (number, file) in self.files.iter().enumerate() {
            note(number);
            let mut errno = execute(file, self.arguments.of_command(), self.environment.array());
            if errno == Errno::ENOEXEC && !has_interpreter_line(file) {
                errno = execute(SHELL, self.arguments.of_shell(file), self.environment.array());
                if errno == Errno::ENOENT {
                    return Refusal::NoShell;
                }
            }
            let is_missing = || stat(file.as_c_str()).is_err();
            match errno {
                Errno::ENOENT if is_missing() => (),
                Errno::ENOTDIR if !is_path(&self.name) => (),
                Errno::EACCES if !is_path(&self.name) && is_missing() => (),
                Errno::ENOENT | Errno::EACCES | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {
                    if refusal == Refusal::NotFound {
                        refusal = Refusal::File(number, errno);
                    }
                }
                _ => return Refusal::File(number, errno),
            }
        }
        refusal
    }

    /// The sentence for it.
    pub fn explain(&self, refusal: Refusal) -> Error {
        let name = quote(&self.name);
        match refusal {
            Refusal::NotFound if is_path(&self.name) => {
                Error::not_found(format!("cannot run {name}: {}", reason(Errno::ENOENT)))
            }
            Refusal::NotFound => Error::not_found(format!("cannot run {name}: not found in PATH"))
                .with_hint_if_any(hints::for_missing(&self.name)),
            Refusal::NoShell => self.explain_missing_interpreter(Some(as_path(SHELL).as_os_str().to_owned())),
            Refusal::File(number, errno) => self.explain_refused_file(self.file(number), errno),
        }
    }

    fn explain_missing_interpreter(&self, interpreter: Option<OsString>) -> Error {
        let name = quote(&self.name);
        Error::not_found(match interpreter {
            Some(interpreter) => format!("cannot run {name}: its interpreter {} does not exist", quote(&interpreter)),
            None => format!("cannot run {name}: the dynamic loader that it needs does not exist"),
        })
    }

    fn explain_refused_file(&self, path: &Path, errno: Errno) -> Error {
        let refuse = |reason: &str| Error::not_executable(format!("cannot run {}: {reason}", quote(&self.name)));
        match errno {
            // The file is there, so what is missing is what it names.
            Errno::ENOENT => self.explain_missing_interpreter(find_missing_interpreter(path)),
            Errno::EACCES if path.is_dir() => refuse(&reason(Errno::EISDIR)),
            Errno::EACCES => match read_interpreter(path) {
                Some(interpreter) if access(path, AccessFlags::X_OK).is_ok() => {
                    refuse(&format!("its interpreter {}: {}", quote(&interpreter), reason(errno)))
                }
                interpreter => {
                    let error = if is_path(&self.name) {
                        refuse(&reason(errno))
                    } else {
                        refuse(&format!("{}: {}", quote(path.as_os_str()), reason(errno)))
                    };
                    error.with_hint_if_any(hints::for_not_executable(path, interpreter.as_deref()))
                }
            },
            // execve(2) gives up after some scripts whose interpreter is a script.
            Errno::ELOOP if read_interpreter(path).is_some() => refuse("too many levels of interpreters"),
            Errno::ENOEXEC => match read_interpreter(path) {
                Some(interpreter) if Path::new(&interpreter).is_file() => {
                    refuse(&format!("its interpreter {}: {}", quote(&interpreter), reason(errno)))
                }
                Some(_) => refuse("its first line is too long for the kernel"),
                None => refuse(&reason(errno)),
            },
            _ => refuse(&reason(errno)),
        }
    }
}

/// Whether the file begins with `#!`. Allocates nothing.
fn has_interpreter_line(file: &CStr) -> bool {
    let mut start = [0; 2];
    let opened = open(file, OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty());
    opened.is_ok_and(|file| pread(&file, &mut start, 0) == Ok(2) && start == *b"#!")
}

/// The first interpreter that does not exist: that of `script`, or, where that is a script itself, the next one.
fn find_missing_interpreter(script: &Path) -> Option<OsString> {
    let mut script = script.to_owned();
    // execve(2) follows four.
    for _ in 0..5 {
        let interpreter = read_interpreter(&script)?;
        script = PathBuf::from(&interpreter);
        if !script.exists() {
            return Some(interpreter);
        }
    }
    None
}

fn as_path(file: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(file.to_bytes()))
}

/// execvp(3) searches PATH for a name only when it has no slash.
pub fn is_path(command: &OsStr) -> bool {
    command.as_bytes().contains(&b'/')
}

/// The paths under which execvp(3) would look for `name`, in its order.
pub fn paths_to_try(name: &OsStr) -> Vec<PathBuf> {
    if name.is_empty() {
        return Vec::new();
    }
    // A shell that is given a script must not take its name for an option.
    let not_an_option = |path: &OsStr| match path.as_bytes() {
        [b'-', ..] => Path::new(".").join(path),
        _ => PathBuf::from(path),
    };
    if is_path(name) {
        return vec![not_an_option(name)];
    }
    let search = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let directories = search.as_bytes().split(|byte| *byte == b':').map(|entry| match entry {
        // An empty entry means the current directory: POSIX.1-2024 XBD 8.3.
        b"" => PathBuf::from("."),
        _ => not_an_option(OsStr::from_bytes(entry)),
    });
    directories.map(|directory| directory.join(name)).collect()
}

/// The interpreter that the first line of a script names: `#!`, blanks, a path up to the next blank.
pub fn read_interpreter(script: &Path) -> Option<OsString> {
    // Opening anything but a regular file could wait, or have an effect.
    if !script.metadata().ok()?.is_file() {
        return None;
    }
    let mut start = Vec::new();
    File::open(script).ok()?.take(FIRST_LINE as u64).read_to_end(&mut start).ok()?;
    parse_interpreter(&start)
}

fn parse_interpreter(start: &[u8]) -> Option<OsString> {
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t'));
    words.find(|word| !word.is_empty()).map(|word| OsStr::from_bytes(word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreter_ends_at_a_blank_or_at_the_line() {
        for (start, interpreter) in [
            (&b"#!/bin/sh\nexit"[..], Some("/bin/sh")),
            (b"#! \t/usr/bin/env python\n", Some("/usr/bin/env")),
            (b"#!/bin/sh\r\n", Some("/bin/sh\r")),
            (b"#!", None),
            (b"#!\n/bin/sh", None),
            (b"\x7fELF", None),
            (b"", None),
        ] {
            assert_eq!(parse_interpreter(start), interpreter.map(OsString::from), "{start:?}");
        }
    }

    #[test]
    fn name_with_a_slash_is_not_searched_for() {
        assert_eq!(paths_to_try(OsStr::new("./server")), [PathBuf::from("./server")]);
        assert!(paths_to_try(OsStr::new("")).is_empty());
    }
}
