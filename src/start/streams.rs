//! Where the command's standard streams go, and which other descriptors it keeps.
//!
//! A terminal is replaced, because it may close. So are a pipe and a socket on stdout or stderr, because their reader
//! would wait for the command to end; and so is stdin if the calling shell is itself reading it, because the command
//! would take the rest of a script or a list. stdin is replaced by /dev/null, stdout and stderr by the job's log. Every
//! other stream is kept.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{FileStat, SFlag, fstat};
use nix::unistd::{Whence, isatty, lseek};

use crate::error::Error;
use crate::jobs::record::{Stream, Text};
use crate::start::request::{Request, Sequence, Target};
use crate::sys::descriptors::{is_null_device, is_open, standard_streams};
use crate::sys::errno;
use crate::sys::proc::{descriptor_flags, list_descriptors};

const NULL: &str = "/dev/null";
const STDOUT: RawFd = 1;
/// Shells that redirect after they have forked: descriptor 0 of such a shell is what it reads itself.
const SHELLS: [&str; 5] = ["bash", "fish", "rbash", "yash", "zsh"];
/// Shells that redirect before they fork, and meanwhile keep the old stream in a close-on-exec descriptor from 10 on.
/// If there is no such descriptor, descriptor 0 is what the shell itself reads.
const SHELLS_THAT_SAVE: [&str; 6] = ["busybox", "dash", "ksh", "ksh93", "lksh", "mksh"];

/// A file that was opened for the command.
pub struct Opened {
    pub path: PathBuf,
    file: File,
    status: FileStat,
}

/// Where stdin comes from.
pub enum Input {
    Keep,
    Opened(Opened),
    /// /dev/null, and why.
    Null(Opened, &'static str),
}

/// Where stdout or stderr goes.
pub enum Output {
    /// Where it went before; the path is that of a regular file.
    Keep(Option<FileStat>, Option<PathBuf>),
    Opened(Opened),
    /// To the job's log, which the new process makes.
    Log,
    /// For stderr: to the same open file description as stdout, so that lines keep their order.
    WithStdout,
}

/// The three standard streams of the command.
pub struct Streams {
    pub input: Input,
    pub output: Output,
    pub error: Output,
}

impl Input {
    fn opened(&self) -> Option<&Opened> {
        match self {
            Self::Opened(opened) | Self::Null(opened, _) => Some(opened),
            Self::Keep => None,
        }
    }
}

impl Output {
    fn opened(&self) -> Option<&Opened> {
        match self {
            Self::Opened(opened) => Some(opened),
            Self::Keep(..) | Self::Log | Self::WithStdout => None,
        }
    }

    /// How many bytes its file held before this start.
    pub fn length(&self) -> u64 {
        self.status().and_then(|status| status.st_size.try_into().ok()).unwrap_or(0)
    }

    /// What is at the other end, as far as that is known before there is a log.
    fn status(&self) -> Option<&FileStat> {
        match self {
            Self::Keep(status, _) => status.as_ref(),
            _ => self.opened().map(|opened| &opened.status),
        }
    }

    /// For the record.
    fn destination(&self) -> Stream {
        match self {
            _ if self.status().is_some_and(is_null_device) => Stream::Discarded,
            Self::Opened(opened) => Stream::File(Text::from(&opened.path)),
            Self::Keep(_, Some(path)) => Stream::File(Text::from(path)),
            Self::Log => Stream::Log,
            Self::Keep(_, None) | Self::WithStdout => Stream::Kept,
        }
    }
}

impl Streams {
    /// Applies the rule and opens the files that `-i`, `-o` and `-e` name, relative to the caller's directory. In the
    /// daemon sequence, /dev/null stands for each missing option.
    ///
    /// A file that is made here stays even if the start fails, as with a shell's redirection: another job may have
    /// opened it meanwhile.
    pub fn open(request: &Request) -> Result<Self, Error> {
        let null = Target::File(NULL.into());
        let default = (request.sequence == Sequence::Daemon).then_some(&null);
        let wanted_output = request.output.as_ref().or(default);
        let [stdin, stdout, stderr] = standard_streams().map(Caller::look);
        let output = match wanted_output {
            Some(Target::File(path)) => Output::Opened(open_output(path)?),
            None if stdout.is_let_go_as_output() => Output::Log,
            Some(Target::Keep) | None => stdout.kept(),
        };
        let error = match (&request.error, wanted_output) {
            (Some(Target::Keep), _) | (None, Some(Target::Keep)) => stderr.kept(),
            (Some(Target::File(path)), _) => Output::Opened(open_output(path)?),
            (None, Some(Target::File(_))) => Output::WithStdout,
            // As nohup(1) does: errors belong beside the output that was redirected.
            (None, None) if stderr.is_terminal && !stdout.is_let_go_as_output() => Output::WithStdout,
            (None, None) if stderr.is_let_go_as_output() => Output::Log,
            (None, None) => stderr.kept(),
        };
        // A socket that is stdin as well as a replaced stdout or stderr is replaced on stdin too, or its reader would
        // still wait.
        let is_let_go = |output: &Output, stream: &Caller| matches!(output, Output::Log) && stdin.is_same(stream);
        let null = |why| Ok(Input::Null(open_input(Path::new(NULL))?, why));
        let input = match request.input.as_ref().or(default) {
            Some(Target::File(path)) => Input::Opened(open_input(path)?),
            Some(Target::Keep) => Input::Keep,
            None if stdin.is_terminal => null("stdin is a terminal")?,
            None if is_let_go(&output, &stdout) || is_let_go(&error, &stderr) => {
                null("stdin is the same socket as stdout or stderr")?
            }
            None => stdin.find_reader().map_or(Ok(Input::Keep), null)?,
        };
        let mut streams = Self { input, output, error };
        if streams.are_one_place() {
            streams.error = Output::WithStdout;
        }
        Ok(streams)
    }

    /// Whether stdout and stderr go to one place, although the caller has not made it so.
    fn are_one_place(&self) -> bool {
        match (&self.output, &self.error) {
            (Output::Log, Output::Log) => true,
            (Output::Keep(..), Output::Keep(..)) => false,
            (output, error) => output.status().zip(error.status()).is_some_and(|(one, other)| is_same(one, other)),
        }
    }

    /// Whether the job needs a log of its own.
    pub fn need_log(&self) -> bool {
        matches!(self.output, Output::Log) || matches!(self.error, Output::Log)
    }

    /// The descriptor that takes the place of stdin, of stdout and of stderr, in this order, where one does. `log` is
    /// that of the job's log.
    pub fn replacements(&self, log: Option<RawFd>) -> [Option<RawFd>; 3] {
        let of_file = |opened: &Opened| opened.file.as_raw_fd();
        let of_output = |output: &Output| match output {
            Output::Keep(..) => None,
            Output::Opened(opened) => Some(of_file(opened)),
            Output::Log => log,
            // It has been replaced by then.
            Output::WithStdout => Some(STDOUT),
        };
        [self.input.opened().map(of_file), of_output(&self.output), of_output(&self.error)]
    }

    /// Where stdout and stderr go, for the record.
    pub fn destinations(&self) -> [Stream; 2] {
        let stdout = self.output.destination();
        let stderr = match &self.error {
            Output::WithStdout => stdout.clone(),
            other => other.destination(),
        };
        [stdout, stderr]
    }

    /// The descriptors of the files that were opened.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let opened = [self.input.opened(), self.output.opened(), self.error.opened()];
        opened.into_iter().flatten().map(|opened| opened.file.as_raw_fd())
    }

    /// Device and inode of stdout, stderr and a file that was opened for stdin.
    pub fn files(&self) -> Vec<(u64, u64)> {
        let input = self.input.opened().map(|opened| &opened.status);
        let streams = [input, self.output.status(), self.error.status()];
        streams.into_iter().flatten().map(|status| (status.st_dev, status.st_ino)).collect()
    }
}

/// A standard stream of the caller.
struct Caller {
    stream: BorrowedFd<'static>,
    status: Option<FileStat>,
    kind: Option<SFlag>,
    is_terminal: bool,
}

impl Caller {
    fn look(stream: BorrowedFd<'static>) -> Self {
        let status = fstat(stream).ok();
        let kind = status.as_ref().map(file_type);
        // A terminal that has hung up answers every question with EIO.
        let is_terminal = || matches!(isatty(stream), Ok(true) | Err(Errno::EIO));
        Self { stream, status, kind, is_terminal: kind == Some(SFlag::S_IFCHR) && is_terminal() }
    }

    fn is_pipe_or_socket(&self) -> bool {
        matches!(self.kind, Some(SFlag::S_IFIFO | SFlag::S_IFSOCK))
    }

    fn is_regular(&self) -> bool {
        self.kind == Some(SFlag::S_IFREG)
    }

    fn is_let_go_as_output(&self) -> bool {
        self.is_terminal || self.is_pipe_or_socket()
    }

    fn is_same(&self, other: &Self) -> bool {
        self.status.as_ref().zip(other.status.as_ref()).is_some_and(|(one, other)| is_same(one, other))
    }

    fn is_file(&self, file: &Metadata) -> bool {
        self.status.is_some_and(|status| (status.st_dev, status.st_ino) == (file.dev(), file.ino()))
    }

    fn kept(&self) -> Output {
        Output::Keep(self.status, self.path_of_file())
    }

    /// The path of a regular file that still has a name.
    fn path_of_file(&self) -> Option<PathBuf> {
        if !self.is_regular() {
            return None;
        }
        let path = fs::read_link(format!("/proc/self/fd/{}", self.stream.as_raw_fd())).ok()?;
        fs::metadata(&path).is_ok_and(|named| self.is_file(&named)).then_some(path)
    }

    /// Why stdin belongs to the calling shell, if it does. A file that a program has read from is being read by that
    /// program: a shell's script, or the list of its loop. So is a pipe that is stdin of the shell as well.
    fn find_reader(&self) -> Option<&'static str> {
        if self.is_regular() {
            let has_been_read = lseek(self.stream, 0, Whence::SeekCur).is_ok_and(|offset| offset > 0);
            return has_been_read.then_some("stdin is a file that the caller is reading");
        }
        let is_shared = self.is_pipe_or_socket() && self.is_stdin_of_shell();
        is_shared.then_some("the calling shell is reading stdin")
    }

    /// Whether the parent is a shell with the same stdin, and one that cannot have redirected it for this command
    /// alone. With any other, data that is meant for the command would look the same.
    fn is_stdin_of_shell(&self) -> bool {
        let parent = parent_id();
        let program = fs::read_link(format!("/proc/{parent}/exe")).unwrap_or_default();
        let shell = program.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let saves = SHELLS_THAT_SAVE.contains(&shell);
        if !saves && !SHELLS.contains(&shell) {
            return false;
        }
        let is_shared = fs::metadata(format!("/proc/{parent}/fd/0")).is_ok_and(|theirs| self.is_file(&theirs));
        is_shared && !(saves && has_saved_descriptor(parent))
    }
}

/// Whether a shell has a descriptor from 10 on that an exec closes, or whether that cannot be seen.
fn has_saved_descriptor(shell: u32) -> bool {
    let Ok(descriptors) = list_descriptors(shell) else { return true };
    let closes_on_exec = |fd| descriptor_flags(shell, fd).is_none_or(|flags| flags & libc::O_CLOEXEC != 0);
    descriptors.into_iter().filter(|fd| *fd >= 10).any(closes_on_exec)
}

/// Whether both are of one file.
fn is_same(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

fn file_type(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT
}

fn open_input(path: &Path) -> Result<Opened, Error> {
    open(OpenOptions::new().read(true), path).map_err(|errno| Error::path("read input from", path, errno))
}

/// /dev/null, for reading and writing.
pub fn open_null() -> Result<File, Error> {
    let path = Path::new(NULL);
    let opened = open(OpenOptions::new().read(true).write(true), path);
    opened.map(|opened| opened.file).map_err(|errno| Error::path("open", path, errno))
}

fn open_output(path: &Path) -> Result<Opened, Error> {
    let mut options = OpenOptions::new();
    // /dev/null is never made.
    options.append(true).create(path != Path::new(NULL));
    open(&mut options, path).map_err(|errno| Error::path("write output to", path, errno))
}

fn open(options: &mut OpenOptions, path: &Path) -> nix::Result<Opened> {
    let file = options.custom_flags(libc::O_NOCTTY).open(path).map_err(|error| errno(&error))?;
    let status = fstat(&file)?;
    // Something else in its place would keep what is to be discarded.
    if path == Path::new(NULL) && !is_null_device(&status) {
        return Err(Errno::ENODEV);
    }
    // A directory can be opened for reading; the command would only learn that when it reads.
    if file_type(&status) == SFlag::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    Ok(Opened { path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()), file, status })
}

/// The descriptors that stay open, sorted: those asked for, which must be open, and those that an argument names,
/// as a shell's process substitution does.
pub fn descriptors_to_keep(asked: &[RawFd], command: &[OsString]) -> Result<Vec<RawFd>, Error> {
    if let Some(fd) = asked.iter().find(|fd| !is_open(**fd)) {
        return Err(Error::new(format!("cannot keep descriptor {fd}: it is not open")));
    }
    let named = command.iter().flat_map(|word| descriptors_named_in(word.as_bytes()));
    let named = named.filter(|fd| *fd > 2 && is_open(*fd));
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
