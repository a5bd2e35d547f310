//! Where the command's standard streams go: the rule, the files that the user names, and the redirection itself.
//!
//! The rule: a terminal is let go, because it goes away. A pipe or a socket on stdout or stderr is let go as well,
//! because its reader would wait for the command to end. What is let go goes to /dev/null (stdin) or to the job's
//! log. Everything else stays. The log is made by `job`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{FileStat, SFlag, fstat, makedev};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, isatty};

use crate::error::{Error, errno};

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
    is_new: bool,
}

impl Opened {
    /// Whether what is written there is gone: /dev/null is character device 1:3, as in null(4).
    pub fn is_null_device(&self) -> bool {
        is_null_device(&self.status)
    }
}

/// Where stdin comes from.
pub enum Input {
    Keep,
    Opened(Opened),
}

/// Where stdout or stderr goes.
pub enum Output {
    /// Where it went before. `is_null_device` tells whether that is nowhere.
    Keep {
        is_null_device: bool,
    },
    Opened(Opened),
    /// The job's log, made when the PID is known.
    Log,
    /// For stderr: the same open file description as stdout, so that lines keep their order.
    WithStdout,
}

impl Output {
    /// How many bytes a file that the user named held before this start.
    pub fn length(&self) -> u64 {
        match self {
            Self::Opened(opened) => opened.status.st_size.try_into().unwrap_or(0),
            _ => 0,
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
    pub fn open(input: Option<&Target>, output: Option<&Target>, error: Option<&Target>) -> Result<Self, Error> {
        let mut streams = Self {
            input: Input::Keep,
            output: Output::Keep { is_null_device: false },
            error: Output::Keep { is_null_device: false },
        };
        streams.open_all(input, output, error).inspect_err(|_| streams.remove_new_files())?;
        Ok(streams)
    }

    fn open_all(
        &mut self,
        input: Option<&Target>,
        output: Option<&Target>,
        error: Option<&Target>,
    ) -> Result<(), Error> {
        self.input = match input {
            Some(Target::File(path)) => Input::Opened(open_input(path)?),
            None if is_terminal(io::stdin().as_fd()) => Input::Opened(open_input(Path::new("/dev/null"))?),
            Some(Target::Keep) | None => Input::Keep,
        };
        self.output = match output {
            Some(Target::Keep) => keep(io::stdout().as_fd()),
            Some(Target::File(path)) => Output::Opened(open_output(path)?),
            None => keep_or_log(io::stdout().as_fd()),
        };
        self.error = match (error, output) {
            (Some(Target::Keep), _) | (None, Some(Target::Keep)) => keep(io::stderr().as_fd()),
            (Some(Target::File(path)), _) => Output::Opened(open_output(path)?),
            (None, Some(Target::File(_))) => Output::WithStdout,
            (None, None) => keep_or_log(io::stderr().as_fd()),
        };
        if self.are_one_place() {
            self.error = Output::WithStdout;
        }
        Ok(())
    }

    fn are_one_place(&self) -> bool {
        match (&self.output, &self.error) {
            (Output::Log, Output::Log) => true,
            (Output::Opened(one), Output::Opened(other)) => {
                (one.status.st_dev, one.status.st_ino) == (other.status.st_dev, other.status.st_ino)
            }
            _ => false,
        }
    }

    /// Whether the job needs a log of its own.
    pub fn need_log(&self) -> bool {
        matches!(self.output, Output::Log) || matches!(self.error, Output::Log)
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
            (Output::WithStdout, _) => dup2_stderr(io::stdout())?,
            _ => (),
        }
        Ok(())
    }

    /// Takes back the files that [`Streams::open`] made: a start that failed leaves nothing behind.
    pub fn remove_new_files(&self) {
        for output in [&self.output, &self.error] {
            if let Output::Opened(Opened { path, is_new: true, .. }) = output {
                // Whoever removed it first has done what was to be done.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

fn keep(stream: BorrowedFd) -> Output {
    Output::Keep { is_null_device: fstat(stream).is_ok_and(|status| is_null_device(&status)) }
}

fn keep_or_log(stream: BorrowedFd) -> Output {
    match fstat(stream) {
        Ok(status) => match file_type(&status) {
            SFlag::S_IFIFO | SFlag::S_IFSOCK => Output::Log,
            SFlag::S_IFCHR if is_null_device(&status) => Output::Keep { is_null_device: true },
            SFlag::S_IFCHR if is_terminal(stream) => Output::Log,
            _ => Output::Keep { is_null_device: false },
        },
        // Not open: the Rust runtime has put /dev/null in the place of a closed stream, so this does not happen.
        Err(_) => Output::Log,
    }
}

fn file_type(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT
}

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
    let mut options = OpenOptions::new();
    let opened = options.read(true).custom_flags(libc::O_NOCTTY).open(path);
    let file = opened.map_err(|error| Error::path("read input from", path, errno(&error)))?;
    finish_open(path, file, false).map_err(|errno| Error::path("read input from", path, errno))
}

fn open_output(path: &Path) -> Result<Opened, Error> {
    let mut options = OpenOptions::new();
    options.append(true).custom_flags(libc::O_NOCTTY);
    // First as a new file, to know whether it is ours to remove again.
    let opened = match options.clone().create_new(true).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            options.create(true).open(path).map(|file| (file, false))
        }
        Err(error) => Err(error),
    };
    let (file, is_new) = opened.map_err(|error| Error::path("write output to", path, errno(&error)))?;
    finish_open(path, file, is_new).map_err(|errno| Error::path("write output to", path, errno))
}

fn finish_open(path: &Path, file: File, is_new: bool) -> nix::Result<Opened> {
    let status = fstat(&file)?;
    // A directory can be opened for reading; the command would only learn of it when it reads.
    if file_type(&status) == SFlag::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    Ok(Opened { path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()), file, status, is_new })
}
