//! What may be typed, in the terms of clap, and the help.
//!
//! The modes are subcommands whose names begin with dashes: `detach --list` is a mode, `detach list` starts a command
//! called list. `mod.rs` says what the typed words mean, `values.rs` what a value means.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, Args, Command, CommandFactory as _, Parser, Subcommand};
use nix::sys::stat::Mode as FileMode;
use nix::unistd::Pid;

use super::values::{
    parse_descriptor, parse_disposition, parse_duration, parse_file, parse_lines, parse_name, parse_pid, parse_shell,
    parse_signal, parse_target, parse_umask,
};
use crate::init::Shell;
use crate::start::Target;
use crate::sys::signals::Disposition;

const ABOUT: &str = "\
Start COMMAND so that it keeps running when the shell exits, the terminal closes
or the connection is lost. Return as soon as the start has succeeded or failed.";

const USAGE: &str = "\
detach [OPTION]... [--] COMMAND [ARG]...
       detach MODE [OPTION]... [ARG]...";

const AFTER_HELP: &str = "\
Examples:
  detach clion                  Start a program that outlives its terminal
  detach -o build.log make -j8  Append the output of make to a file
  detach --log -f make          Follow the output of the job called make

Output that would go to a terminal, a pipe or a socket goes to the job's log.
DURATION is, for example, 500ms, 2s or 1m30s; a bare number means seconds.

Exit status: 0 started or done, 1 not safe (--check), 125 detach itself failed,
126 COMMAND cannot be run, 127 COMMAND was not found. With --wait and --join, or
if COMMAND ends within --settle: its own status, or 128+N after signal N.";

const JOB: &str = "\
JOB is a PID or a name, or else text found in only one job's command line.
A number is always a PID or a name, never a part of a command line.";
const DURATION: &str = "DURATION is, for example, 500ms, 2s, 1m30s or 7d; a bare number means seconds.";

/// A parser for text. clap's own string parser does not name the option if the value is not UTF-8.
fn of_text<T: Clone + Send + Sync + 'static>(
    parse: fn(&str) -> Result<T, &'static str>,
) -> impl TypedValueParser<Value = T> {
    OsStringValueParser::new().try_map(move |value| parse(&value.to_string_lossy()))
}

/// The whole command line: a start, or one of the modes.
#[derive(Debug, Parser)]
#[command(
    name = "detach",
    version,
    about = ABOUT,
    override_usage = USAGE,
    after_help = AFTER_HELP,
    no_binary_name = true,
    args_override_self = true,
    disable_help_subcommand = true,
    subcommand_negates_reqs = true,
    subcommand_help_heading = "Modes (each has its own --help)"
)]
pub struct Typed {
    #[command(flatten)]
    pub line: StartLine,

    #[command(subcommand)]
    pub mode: Option<Mode>,
}

/// What may be typed before a mode, or without one. It is also a grammar of its own: that of a start.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, args_override_self = true)]
pub struct StartLine {
    #[command(flatten)]
    pub start: Start,

    /// Print the record of the job on stdout, as JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub volume: Volume,

    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, hide = true)]
    pub command: Vec<OsString>,
}

// The options of a start, and of nothing else.
#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a flag as typed; `Request` has enums
pub struct Start {
    /// Perform the complete daemon sequence
    #[arg(short = 'F', long)]
    pub full: bool,

    /// Append stdout and stderr to FILE; '-' inherits both
    #[arg(short, long, value_name = "FILE", value_parser = OsStringValueParser::new().try_map(parse_target))]
    pub output: Option<Target>,

    /// Append stderr to FILE; '-' inherits it
    #[arg(short, long, value_name = "FILE", value_parser = OsStringValueParser::new().try_map(parse_target))]
    pub error: Option<Target>,

    /// Read stdin from FILE; '-' inherits it
    #[arg(short, long, value_name = "FILE", value_parser = OsStringValueParser::new().try_map(parse_target))]
    pub input: Option<Target>,

    /// Start in DIR
    #[arg(short = 'C', long, value_name = "DIR")]
    pub chdir: Option<PathBuf>,

    /// Set the file mode creation mask, in octal
    #[arg(short = 'm', long, value_name = "MODE", value_parser = of_text(parse_umask))]
    pub umask: Option<FileMode>,

    /// Keep descriptor N open (repeatable, or N,N)
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = of_text(parse_descriptor))]
    pub keep_fd: Vec<RawFd>,

    /// Set the disposition of SIGCHLD: 'default' or 'ignore'
    #[arg(long, value_name = "HOW", value_parser = of_text(parse_disposition))]
    pub sigchld: Option<Disposition>,

    /// Write the PID to FILE; lock it while COMMAND lives
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,

    /// Name the job; the default is its program or script
    #[arg(short = 'N', long, value_name = "NAME", value_parser = OsStringValueParser::new().try_map(parse_name))]
    pub name: Option<OsString>,

    /// Keep a small process that records how COMMAND ended
    #[arg(short, long)]
    pub track: bool,

    /// Like --track, and show a desktop notification
    #[arg(long)]
    pub notify: bool,

    /// Wait until COMMAND ends, and exit with its status
    #[arg(short, long)]
    pub wait: bool,

    /// Wait this long for a failure (100ms on a terminal)
    #[arg(long, value_name = "DURATION", value_parser = of_text(parse_duration))]
    pub settle: Option<Duration>,

    /// Run COMMAND in its own systemd scope
    #[arg(long)]
    pub scope: bool,

    /// Print the PID on stdout
    #[arg(short = 'P', long)]
    pub print_pid: bool,
}

// Allowed before a mode and after it.
#[derive(Args, Debug, Default)]
pub struct Volume {
    /// Suppress all messages except errors
    #[arg(short, long, overrides_with = "verbose")]
    pub quiet: bool,

    /// Print notes even without a terminal; -vv: every step
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Mode {
    /// List the running jobs and the last ten that ended
    #[command(name = "--list", override_usage = "detach --list [OPTION]...")]
    List {
        /// List all jobs, not only the last ten that ended
        #[arg(long)]
        all: bool,

        /// Print the jobs as JSON, one object per line
        #[arg(long)]
        json: bool,

        #[command(flatten)]
        volume: Volume,
    },

    /// Print the output of a job
    #[command(name = "--log", override_usage = "detach --log [OPTION]... [JOB]", after_help = JOB)]
    Log {
        /// Job whose output to print; the default is the newest
        job: Option<OsString>,

        /// Keep printing what is appended, until the job ends
        #[arg(short, long)]
        follow: bool,

        /// Begin with the last N lines
        #[arg(short = 'n', long, value_name = "N", value_parser = of_text(parse_lines))]
        lines: Option<u64>,

        #[command(flatten)]
        volume: Volume,
    },

    /// Wait for jobs; exit with the status of the first that failed
    #[command(name = "--join", override_usage = "detach --join [OPTION]... [JOB]...", after_help = JOB)]
    Join {
        /// Jobs to wait for; the default is the newest
        #[arg(value_name = "JOB")]
        jobs: Vec<OsString>,

        #[command(flatten)]
        volume: Volume,
    },

    /// Stop jobs: send SIGTERM, then SIGKILL if they keep running
    #[command(
        name = "--stop",
        override_usage = "detach --stop [OPTION]... JOB...\n       detach --stop --all [OPTION]... [NAME]...",
        after_help = format!("{JOB}\n{DURATION}")
    )]
    Stop {
        /// Jobs to stop
        #[arg(value_name = "JOB", required_unless_present = "all")]
        jobs: Vec<OsString>,

        /// Stop all jobs, or all that are called NAME
        #[arg(long)]
        all: bool,

        /// Send SIGKILL after this time
        #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = of_text(parse_duration))]
        grace: Duration,

        /// Send only SIG, to the command's process group
        #[arg(long, value_name = "SIG", conflicts_with = "grace", value_parser = of_text(parse_signal))]
        signal: Option<i32>,

        #[command(flatten)]
        volume: Volume,
    },

    /// Remove the records and logs of jobs that ended
    #[command(
        name = "--prune",
        override_usage = "detach --prune [OPTION]... [DURATION]",
        after_help = format!("Running jobs are kept; '--prune 0' removes all jobs that ended.\n{DURATION}")
    )]
    Prune {
        /// Remove only jobs that ended at least this long ago
        #[arg(value_name = "DURATION", default_value = "7d", value_parser = of_text(parse_duration))]
        older_than: Duration,

        /// Print what would be removed, but remove nothing
        #[arg(long)]
        dry_run: bool,

        #[command(flatten)]
        volume: Volume,
    },

    /// Detach a job that is already running
    #[command(
        name = "--pid",
        override_usage = "detach --pid [OPTION]... PID...",
        after_help = "The job is the process group of PID, the rest of its pipeline, and all\n\
            descendants, except those on another terminal; PID may also be a process group\n\
            ID. Reads from the terminal then return end of file."
    )]
    Pid {
        /// Processes of the jobs to detach
        #[arg(value_name = "PID", required = true, value_parser = parse_pid)]
        wanted: Vec<Pid>,

        /// Append the output to FILE, not to a log
        #[arg(short, long, value_name = "FILE", value_parser = OsStringValueParser::new().try_map(parse_file))]
        output: Option<PathBuf>,

        /// Name the job; the default is its program or script
        #[arg(short = 'N', long, value_name = "NAME", value_parser = OsStringValueParser::new().try_map(parse_name))]
        name: Option<OsString>,

        /// Leave the job stopped
        #[arg(long)]
        stay_stopped: bool,

        #[command(flatten)]
        volume: Volume,
    },

    /// Predict whether a process would survive, and explain why
    #[command(
        name = "--check",
        override_usage = "detach --check [OPTION]... [PID|JOB]...",
        after_help = format!("{JOB}\nThe exit status is 1 unless all survive shell exit and terminal closing.\n\
            -v adds the facts behind the result.")
    )]
    Check {
        /// Processes to check; the default is the newest running job
        #[arg(value_name = "PID|JOB")]
        wanted: Vec<OsString>,

        /// Print the result as JSON
        #[arg(long)]
        json: bool,

        #[command(flatten)]
        volume: Volume,
    },

    /// Print the shell function that makes 'detach %1' work
    #[command(
        name = "--init",
        override_usage = "detach --init [OPTION]... SHELL",
        after_help = "\
Load it in ~/.bashrc or ~/.zshrc, or in ~/.config/fish/config.fish:
  eval \"$(detach --init bash)\"
  eval \"$(detach --init zsh)\"
  detach --init fish | source

Then 'detach %1' lets go of job 1 of the shell: it keeps running when the shell
exits or the terminal closes, and its output goes to a log. The function accepts
the options of --pid. The shell also tells --check about its jobs, so that fewer
results are '?'."
    )]
    Init {
        /// bash, zsh or fish
        #[arg(value_name = "SHELL", value_parser = parse_shell)]
        shell: Shell,

        #[command(flatten)]
        volume: Volume,
    },
}

/// Everything that can be typed; tests compare it with the documents.
pub fn command() -> Command {
    let command = with_values_as_getopt(Typed::command());
    command.mut_subcommands(with_values_as_getopt)
}

/// What can be typed for a start.
pub fn start_line() -> Command {
    with_values_as_getopt(StartLine::command())
}

/// As with getopt(3), the word after an option that takes a value is its value, whatever it looks like.
fn with_values_as_getopt(command: Command) -> Command {
    command.mut_args(|arg| {
        let takes_value = !arg.is_positional() && arg.get_action().takes_values();
        arg.allow_hyphen_values(takes_value)
    })
}

/// The modes that clap may suggest for a misspelled word: none that ends or removes anything. clap searches only
/// options for suggestions, so these stand in for the modes; they are never parsed, because subcommands are matched
/// first.
const SUGGESTED: [&str; 5] = ["list", "log", "join", "check", "init"];

pub fn with_suggestions(command: Command) -> Command {
    command.args(SUGGESTED.map(|mode| Arg::new(mode).long(mode).hide(true).action(ArgAction::SetTrue)))
}
