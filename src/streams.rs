//! Where the command's standard streams go: the rule, the files that the user names, and the redirection itself.
//!
//! The rule: a terminal is let go, because it goes away. A pipe or a socket on stdout or stderr is let go as well,
//! because its reader would wait for the command to end, and with it stdin if that is the same socket. What is let go
//! goes to /dev/null (stdin) or to the job's log, which `sequence` has made. Everything else stays. Of all other
//! descriptors, those stay that are asked for.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{FileStat, SFlag, fstat, makedev};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, isatty};

use crate::error::{Error, errno};
use crate::session::{self, standard_streams};

/// What an option says about a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `-`: leave it as it is.
    Keep,
    /// A file.
    File(PathBuf),
}

/// A file that the user named, open.
pub struct Opened {
    pub path: PathBuf,
    file: File,
    status: FileStat,
}

/// Where stdin comes from.
pub enum Input {
    Keep,
    Opened(Opened),
}

/// Where stdout or stderr goes.
pub enum Output {
    /// Where it went before.
    Keep(Option<FileStat>),
    Opened(Opened),
    /// The job's log, made when the PID is known.
    Log,
    /// For stderr: the same open file description as stdout, so that lines keep their order.
    WithStdout,
}

impl Input {
    fn opened(&self) -> Option<&Opened> {
        match self {
            Self::Opened(opened) => Some(opened),
            Self::Keep => None,
        }
    }
}

impl Output {
    fn opened(&self) -> Option<&Opened> {
        match self {
            Self::Opened(opened) => Some(opened),
            Self::Keep(_) | Self::Log | Self::WithStdout => None,
        }
    }

    /// How many bytes a file that the user named held before this start.
    pub fn length(&self) -> u64 {
        self.opened().and_then(|opened| opened.status.st_size.try_into().ok()).unwrap_or(0)
    }

    /// Whether what is written there is gone.
    pub fn is_discarded(&self) -> bool {
        self.status().is_some_and(is_null_device)
    }

    /// Where it goes, as far as that is known before there is a log.
    fn status(&self) -> Option<&FileStat> {
        match self {
            Self::Keep(status) => status.as_ref(),
            _ => self.opened().map(|opened| &opened.status),
        }
    }
}

/// The three standard streams of the command.
pub struct Streams {
    pub input: Input,
    pub output: Output,
    pub error: Output,
}

impl Streams {
    /// Applies the rule and opens the files named by `-i`, `-o` and `-e`, relative to the caller's directory.
    ///
    /// A file that is made here stays even if the start fails, as with a shell's redirection: another job may have
    /// opened it meanwhile.
    pub fn open(input: Option<&Target>, output: Option<&Target>, error: Option<&Target>) -> Result<Self, Error> {
        let [stdin, stdout, stderr] = standard_streams().map(look_at);
        let mut streams = Self {
            output: match output {
                Some(Target::Keep) => Output::Keep(stdout.status),
                Some(Target::File(path)) => Output::Opened(open_output(path)?),
                None if stdout.is_let_go_as_output() => Output::Log,
                None => Output::Keep(stdout.status),
            },
            error: match (error, output) {
                (Some(Target::Keep), _) | (None, Some(Target::Keep)) => Output::Keep(stderr.status),
                (Some(Target::File(path)), _) => Output::Opened(open_output(path)?),
                (None, Some(Target::File(_))) => Output::WithStdout,
                (None, None) if stderr.is_let_go_as_output() => Output::Log,
                (None, None) => Output::Keep(stderr.status),
            },
            input: Input::Keep,
        };
        // A socket that is stdin as well as stdout or stderr is let go as a whole, or its reader would wait all the
        // same.
        let is_let_go = |output: &Output, stream: &Stream| matches!(output, Output::Log) && stdin.is_same(stream);
        streams.input = match input {
            Some(Target::File(path)) => Input::Opened(open_input(path)?),
            None if stdin.is_terminal || is_let_go(&streams.output, &stdout) || is_let_go(&streams.error, &stderr) => {
                Input::Opened(open_input(Path::new("/dev/null"))?)
            }
            Some(Target::Keep) | None => Input::Keep,
        };
        if streams.are_one_place() {
            streams.error = Output::WithStdout;
        }
        Ok(streams)
    }

    /// Whether stdout and stderr go to one place, and not because the caller has made it so.
    fn are_one_place(&self) -> bool {
        match (&self.output, &self.error) {
            (Output::Log, Output::Log) => true,
            (Output::Keep(_), Output::Keep(_)) => false,
            (output, error) => output.status().zip(error.status()).is_some_and(|(one, other)| is_same(one, other)),
        }
    }

    /// Whether the job needs a log of its own.
    pub fn need_log(&self) -> bool {
        matches!(self.output, Output::Log) || matches!(self.error, Output::Log)
    }

    /// The descriptors of the files that were opened.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let opened = [self.input.opened(), self.output.opened(), self.error.opened()];
        opened.into_iter().flatten().map(|opened| opened.file.as_raw_fd()).collect()
    }

    /// Whether stdout, stderr or a file that was opened for stdin is the file of `status`.
    pub fn lead_to(&self, status: &Metadata) -> bool {
        let input = self.input.opened().map(|opened| &opened.status);
        let streams = [input, self.output.status(), self.error.status()];
        streams.into_iter().flatten().any(|stream| (stream.st_dev, stream.st_ino) == (status.dev(), status.ino()))
    }

    /// Puts the streams in place. Called in the child, with the log if one is needed.
    pub fn redirect(&self, log: Option<BorrowedFd>) -> nix::Result<()> {
        if let Input::Opened(opened) = &self.input {
            dup2_stdin(&opened.file)?;
        }
        match (&self.output, log) {
            (Output::Opened(opened), _) => dup2_stdout(&opened.file)?,
            (Output::Log, Some(log)) => dup2_stdout(log)?,
            _ => (),
        }
        match (&self.error, log) {
            (Output::Opened(opened), _) => dup2_stderr(&opened.file)?,
            (Output::Log, Some(log)) => dup2_stderr(log)?,
            (Output::WithStdout, _) => {
                let [_, stdout, _] = standard_streams();
                dup2_stderr(stdout)?;
            }
            _ => (),
        }
        Ok(())
    }
}

/// A standard stream of the caller.
struct Stream {
    status: Option<FileStat>,
    is_terminal: bool,
}

impl Stream {
    fn is_let_go_as_output(&self) -> bool {
        let is_pipe_or_socket = |status| matches!(file_type(status), SFlag::S_IFIFO | SFlag::S_IFSOCK);
        self.is_terminal || self.status.as_ref().is_some_and(is_pipe_or_socket)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.status.as_ref().zip(other.status.as_ref()).is_some_and(|(one, other)| is_same(one, other))
    }
}

fn look_at(stream: BorrowedFd) -> Stream {
    let status = fstat(stream).ok();
    let is_device = status.as_ref().is_some_and(|status| file_type(status) == SFlag::S_IFCHR);
    Stream { status, is_terminal: is_device && is_terminal(stream) }
}

/// Whether both are of one file.
pub fn is_same(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

fn file_type(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT
}

/// /dev/null is character device 1:3, see null(4).
fn is_null_device(status: &FileStat) -> bool {
    file_type(status) == SFlag::S_IFCHR && status.st_rdev == makedev(1, 3)
}

/// Whether `stream` is a terminal, one that has hung up included: that answers every question with EIO.
fn is_terminal(stream: BorrowedFd) -> bool {
    match isatty(stream) {
        Ok(answer) => answer,
        Err(errno) => errno == Errno::EIO,
    }
}

fn open_input(path: &Path) -> Result<Opened, Error> {
    open(OpenOptions::new().read(true), path).map_err(|errno| Error::path("read input from", path, errno))
}

/// /dev/null, for reading and writing.
pub fn open_null() -> Result<File, Error> {
    let path = Path::new("/dev/null");
    let opened = open(OpenOptions::new().read(true).write(true), path);
    opened.map(|opened| opened.file).map_err(|errno| Error::path("open", path, errno))
}

fn open_output(path: &Path) -> Result<Opened, Error> {
    let mut options = OpenOptions::new();
    open(options.append(true).create(true), path).map_err(|errno| Error::path("write output to", path, errno))
}

fn open(options: &mut OpenOptions, path: &Path) -> nix::Result<Opened> {
    let file = options.custom_flags(libc::O_NOCTTY).open(path).map_err(|error| errno(&error))?;
    let status = fstat(&file)?;
    // A directory can be opened for reading; the command would only learn of it when it reads.
    if file_type(&status) == SFlag::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    Ok(Opened { path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()), file, status })
}

/// The descriptors that stay open, sorted: those asked for, which must be open, and those that an argument names,
/// as a shell's process substitution does.
pub fn descriptors_to_keep(asked: &[RawFd], command: &[OsString]) -> Result<Vec<RawFd>, Error> {
    if let Some(fd) = asked.iter().find(|fd| !session::is_open(**fd)) {
        return Err(Error::KeepDescriptor { fd: *fd });
    }
    let named = command.iter().flat_map(|word| descriptors_named_in(word.as_bytes()));
    let named = named.filter(|fd| *fd > 2 && session::is_open(*fd));
    let mut keep: Vec<RawFd> = asked.iter().copied().chain(named).collect();
    keep.sort_unstable();
    keep.dedup();
    Ok(keep)
}

/// The numbers N of every `/dev/fd/N` and `/proc/self/fd/N` in `word`.
fn descriptors_named_in(word: &[u8]) -> Vec<RawFd> {
    let mut found = Vec::new();
    for prefix in [&b"/dev/fd/"[..], b"/proc/self/fd/"] {
        for start in 0..word.len() {
            let Some(rest) = word.get(start..).and_then(|rest| rest.strip_prefix(prefix)) else { continue };
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let number = rest.get(..digits).and_then(|digits| str::from_utf8(digits).ok());
            found.extend(number.and_then(|number| number.parse::<RawFd>().ok()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_found_wherever_an_argument_names_them() {
        for (word, expected) in [
            (&b"/dev/fd/63"[..], &[63][..]),
            (b"--from=/dev/fd/62 /dev/fd/61", &[62, 61]),
            (b"/proc/self/fd/11", &[11]),
            (b"/dev/fd/", &[]),
            (b"/dev/fd/99999999999999999999", &[]),
            (b"\xff/dev/fd/7\xff", &[7]),
            (b"/dev/fd", &[]),
        ] {
            assert_eq!(descriptors_named_in(word), expected, "{}", word.escape_ascii());
        }
    }
}
