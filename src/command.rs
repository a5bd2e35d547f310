//! The command: which files its name can mean, the exec, and the reason when there is none.
//!
//! The search is that of execvp(3), except that it is made ready before the fork, relative to the caller's
//! directory: `detach -C / ./server` runs the server that the caller sees.

use std::env;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, execv};

use crate::error::{Error, errno, is_path, quote, reason};

/// Where execvp(3) looks when PATH is not set.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// What runs a script without `#!`.
const SHELL: &CStr = c"/bin/sh";
/// As much as the kernel reads of a script's first line: execve(2).
const FIRST_LINE: u64 = 256;

/// A command, ready to be executed.
pub struct Command {
    name: OsString,
    files: Vec<CString>,
    arguments: Vec<CString>,
    tried: usize,
}

impl Command {
    /// The command `words`, its name first. `leaves_directory` tells whether it will start in another directory
    /// than the one its name is relative to.
    pub fn find(words: &[OsString], leaves_directory: bool) -> Result<Self, Error> {
        let name = words.first().cloned().unwrap_or_default();
        let mut paths = paths_to_try(&name);
        if leaves_directory && paths.iter().any(|path| path.is_relative()) {
            let here = env::current_dir()
                .map_err(|error| Error::Step { step: "find the current directory", errno: errno(&error) })?;
            for path in &mut paths {
                *path = here.join(&*path);
            }
        }
        let files = paths.into_iter().filter_map(|path| CString::new(path.into_os_string().into_vec()).ok()).collect();
        let arguments = words.iter().filter_map(|word| CString::new(word.as_bytes()).ok()).collect();
        Ok(Self { name, files, arguments, tried: 0 })
    }

    /// The file that [`Command::execute`] has tried last: after a success, the one that runs.
    pub fn file(&self) -> &Path {
        self.files.get(self.tried).map_or(Path::new(""), |file| as_path(file))
    }

    /// Becomes the command. Returns only when that failed, with the reason.
    pub fn execute(&mut self) -> Error {
        // As execvp(3): the first file that runs. One that is there but does not run is remembered, and told of
        // when no later one runs. A script without `#!` is given to the shell. Unlike execvp, and like a shell, a
        // directory of PATH that may not be searched counts as empty.
        let mut refusal = None;
        for (index, file) in self.files.iter().enumerate() {
            self.tried = index;
            let Err(errno) = execv(file, &self.arguments);
            let errno = match errno {
                Errno::ENOEXEC => match self.execute_by_shell(file) {
                    Errno::ENOENT => return self.without_interpreter(Some(as_path(SHELL).as_os_str().to_owned())),
                    errno => errno,
                },
                errno => errno,
            };
            match errno {
                Errno::ENOENT if !as_path(file).exists() => (),
                Errno::ENOTDIR if !is_path(&self.name) => (),
                Errno::EACCES if !is_path(&self.name) && !as_path(file).exists() => (),
                Errno::ENOENT | Errno::EACCES | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {
                    refusal = refusal.or_else(|| Some(self.explain_refusal(as_path(file), errno)));
                }
                _ => return self.explain_refusal(as_path(file), errno),
            }
        }
        refusal.unwrap_or_else(|| Error::NotFound { command: self.name.clone() })
    }

    fn execute_by_shell(&self, file: &CStr) -> Errno {
        let mut arguments = vec![SHELL, file];
        arguments.extend(self.arguments.iter().skip(1).map(CString::as_c_str));
        let Err(errno) = execv(SHELL, &arguments);
        errno
    }

    fn without_interpreter(&self, interpreter: Option<OsString>) -> Error {
        Error::NoInterpreter { command: self.name.clone(), interpreter }
    }

    fn explain_refusal(&self, path: &Path, errno: Errno) -> Error {
        let refusal = |reason: String| Error::NotExecutable { command: self.name.clone(), reason };
        match errno {
            // The file is there, so what is missing is what it names.
            Errno::ENOENT => self.without_interpreter(find_missing_interpreter(path)),
            Errno::EACCES if path.is_dir() => refusal(reason(Errno::EISDIR)),
            Errno::EACCES => match read_interpreter(path) {
                Some(interpreter) if access(path, AccessFlags::X_OK).is_ok() => {
                    refusal(format!("its interpreter {}: {}", quote(&interpreter), reason(errno)))
                }
                _ if is_path(&self.name) => refusal(reason(errno)),
                _ => refusal(format!("{}: {}", quote(path.as_os_str()), reason(errno))),
            },
            // execve(2) gives up after some scripts whose interpreter is a script.
            Errno::ELOOP if read_interpreter(path).is_some() => refusal("too many levels of interpreters".into()),
            _ => refusal(reason(errno)),
        }
    }
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

/// The paths under which execvp(3) would look for `name`, in its order.
pub fn paths_to_try(name: &OsStr) -> Vec<PathBuf> {
    if name.is_empty() {
        return Vec::new();
    }
    if is_path(name) {
        return vec![PathBuf::from(name)];
    }
    let search = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    // An empty entry means the current directory, POSIX.1-2024 XBD 8.3.
    let directories = search.as_bytes().split(|byte| *byte == b':').map(|entry| match entry {
        b"" => Path::new("."),
        _ => Path::new(OsStr::from_bytes(entry)),
    });
    directories.map(|directory| directory.join(name)).collect()
}

/// The interpreter that the first line of a script names: `#!`, blanks, a path up to the next blank.
fn read_interpreter(script: &Path) -> Option<OsString> {
    // Anything else than a file could make the open wait, or do something.
    if !script.metadata().ok()?.is_file() {
        return None;
    }
    let mut start = Vec::new();
    File::open(script).ok()?.take(FIRST_LINE).read_to_end(&mut start).ok()?;
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
