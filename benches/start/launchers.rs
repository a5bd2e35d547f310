//! The launchers that are compared: the two floors, detach in its modes, and the peers, each with what it needs to run.
//!
//! All start the same `/bin/true`, with the same environment. How they are measured is in `measure`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, pipe};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::geteuid;

use crate::Result;

/// The program under test.
pub const DETACH: &str = env!("CARGO_BIN_EXE_detach");
/// What all launchers start.
pub const TRUE: &str = "/bin/true";
/// The sockets of the private servers, in the working directory: the path of a socket may be 107 bytes long.
const TMUX_SOCKET: &str = "tmux.socket";
const TSP_SOCKET: &str = "tsp.socket";
/// How long a server may still be busy with a job when its client has ended.
const REST: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Floor,
    /// The floor that also creates a file where detach makes its logs.
    FloorWithFile,
    Detach,
    Peer,
}

/// Where stdout and stderr of a launcher go. stdin is always /dev/null.
pub enum Output {
    Discarded(File),
    /// detach lets go of a pipe and makes a log.
    Pipe(PipeReader, PipeWriter),
}

/// A command line that starts `/bin/true`, or something else that it is given.
pub struct Launcher {
    pub name: String,
    pub kind: Kind,
    argv: Vec<OsString>,
    state_home: PathBuf,
    output: Output,
    /// How long to wait until the next start.
    pub rest: Duration,
}

impl Launcher {
    pub fn new(name: &str, kind: Kind, argv: &[&OsStr], state_home: &Path) -> Result<Self> {
        let output = Output::Discarded(OpenOptions::new().read(true).write(true).open("/dev/null")?);
        let argv = argv.iter().map(OsString::from).collect();
        Ok(Self { name: name.to_owned(), kind, argv, state_home: state_home.to_owned(), output, rest: Duration::ZERO })
    }

    /// The C program of a few lines that does the least.
    pub fn floor(floor: &Path, state_home: &Path) -> Result<Self> {
        Self::new("floor", Kind::Floor, &[copy_of(floor)?.as_os_str(), OsStr::new(TRUE)], state_home)
    }

    /// The same program, which also creates a file in the state directory of detach.
    pub fn floor_with_file(floor: &Path, state_home: &Path) -> Result<Self> {
        let file = state_home.join("detach").join(format!("floor-{}", "X".repeat(16)));
        let floor = copy_of(floor)?;
        let argv = [floor.as_os_str(), OsStr::new("-f"), file.as_os_str(), OsStr::new(TRUE)];
        Self::new("floor, with a file", Kind::FloorWithFile, &argv, state_home)
    }

    /// Whether the launcher creates a file where detach makes its logs.
    pub fn creates_file(&self) -> bool {
        self.kind == Kind::FloorWithFile || (self.kind == Kind::Detach && matches!(self.output, Output::Pipe(..)))
    }

    /// detach with these options, with output discarded.
    pub fn detach(name: &str, options: &[&str], state_home: &Path) -> Result<Self> {
        let program = copy_of(Path::new(DETACH))?;
        let argv = [&[program.as_os_str()], words(&[options, &[TRUE]].concat()).as_slice()].concat();
        Self::new(name, Kind::Detach, &argv, state_home)
    }

    /// detach with these options and a pipe on stdout and stderr.
    pub fn detach_with_log(name: &str, options: &[&str], state_home: &Path) -> Result<Self> {
        let (reader, writer) = pipe()?;
        // drain() must not wait for more.
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { output: Output::Pipe(reader, writer), ..Self::detach(name, options, state_home)? })
    }

    /// `setsid -f`, where it is installed.
    pub fn setsid(state_home: &Path) -> Result<Self> {
        Self::peer("setsid -f", "setsid", &["-f", TRUE], state_home)
    }

    fn peer(name: &str, program: &str, arguments: &[&str], state_home: &Path) -> Result<Self> {
        let program = copy_of(&find_program(program).ok_or_else(|| format!("{program} is not installed"))?)?;
        let argv = [&[program.as_os_str()], words(arguments).as_slice()].concat();
        Self::new(name, Kind::Peer, &argv, state_home)
    }

    /// The command, ready to be run again and again; `before` comes before its first word.
    ///
    /// The streams are open already, and the program has a path: so `Command` calls posix_spawn(3), and a start costs
    /// this process the same each time.
    pub fn command(&self, before: &[&OsStr]) -> Result<Command> {
        let mut words = before.iter().copied().chain(self.argv.iter().map(OsString::as_os_str));
        let mut command = Command::new(words.next().ok_or("no command")?);
        command.args(words);
        // With cargo's LD_LIBRARY_PATH the dynamic linker would search many places; with $TMUX, tmux would refuse.
        command.env_clear();
        for variable in ["PATH", "HOME", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"] {
            command.envs(env::var_os(variable).map(|value| (variable, value)));
        }
        command.env("XDG_STATE_HOME", &self.state_home);
        // Where tsp keeps what jobs write.
        command.env("TS_SOCKET", TSP_SOCKET).env("TS_MAXFINISHED", "10").env("TMPDIR", env::current_dir()?);
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        command.stdin(null);
        match &self.output {
            Output::Discarded(file) => command.stdout(file.try_clone()?).stderr(file.try_clone()?),
            Output::Pipe(_, writer) => command.stdout(writer.try_clone()?).stderr(writer.try_clone()?),
        };
        Ok(command)
    }

    /// Empties the pipe, so that the next start can write into it.
    pub fn drain(&self) -> Result<()> {
        let Output::Pipe(reader, _) = &self.output else { return Ok(()) };
        let (mut reader, mut buffer) = (reader, [0; 4096]);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                other => other?,
            };
        }
    }
}

/// All of them, and why some are missing.
pub fn all(floor: &Path, state_home: &Path, directory: &Path) -> Result<(Vec<Launcher>, Vec<String>)> {
    let file = directory.join("output").display().to_string();
    let mut launchers = vec![
        Launcher::floor(floor, state_home)?,
        Launcher::floor_with_file(floor, state_home)?,
        Launcher::detach("detach, discarded", &[], state_home)?,
        Launcher::detach("detach -o FILE", &["-o", &file], state_home)?,
        Launcher::detach_with_log("detach, new log", &[], state_home)?,
        Launcher::detach("detach --full", &["--full"], state_home)?,
        Launcher::detach("detach -t", &["-t"], state_home)?,
    ];
    let mut skipped = Vec::new();
    for peer in [
        Launcher::setsid(state_home),
        Launcher::peer("nohup … &", "sh", &["-c", "nohup /bin/true &"], state_home),
        Launcher::peer("daemonize", "daemonize", &[TRUE], state_home),
        Launcher::peer("daemon (libslack)", "daemon", &["--", TRUE], state_home),
        Launcher::peer("start-stop-daemon -b", "start-stop-daemon", &["-S", "-b", "-x", TRUE], state_home),
        Launcher::peer("tsp (task-spooler)", "tsp", &[TRUE], state_home).map(with_rest),
        Launcher::peer("tmux new -d", "tmux", &["-S", TMUX_SOCKET, "new", "-d", TRUE], state_home).map(with_rest),
        systemd_run(state_home).map(with_rest),
    ] {
        match peer {
            Ok(launcher) => launchers.push(launcher),
            Err(reason) => skipped.push(reason.to_string()),
        }
    }
    Ok((launchers, skipped))
}

fn with_rest(launcher: Launcher) -> Launcher {
    Launcher { rest: REST, ..launcher }
}

fn systemd_run(state_home: &Path) -> Result<Launcher> {
    if !Path::new("/run/systemd/system").exists() {
        return Err("systemd-run: no systemd runs here".into());
    }
    let whose = if geteuid().is_root() { "--system" } else { "--user" };
    Launcher::peer("systemd-run", "systemd-run", &[whose, "--quiet", "--collect", TRUE], state_home)
}

/// Starts the servers of tmux and tsp, which are reached through their sockets alone. That of tmux ends with this
/// process; that of tsp stays if this process is killed.
pub fn start_servers(state_home: &Path) -> Result<()> {
    let keep = format!("exec tail --pid={} -f /dev/null", std::process::id());
    let tmux = ["-S", TMUX_SOCKET, "-f", "/dev/null", "new", "-d", &keep];
    for (program, arguments) in [("tmux", &tmux[..]), ("tsp", &[TRUE])] {
        if let Ok(server) = Launcher::peer(program, program, arguments, state_home) {
            let status = server.command(&[])?.status()?;
            if !status.success() {
                return Err(format!("the server of {program} does not start: {status}").into());
            }
        }
    }
    Ok(())
}

/// Ends the servers that run. (`tsp -K` would start one if there was none.)
pub fn end_servers(state_home: &Path) {
    let tmux = ["-S", TMUX_SOCKET, "kill-server"];
    for (program, socket, arguments) in [("tmux", TMUX_SOCKET, &tmux[..]), ("tsp", TSP_SOCKET, &["-K"])] {
        if Path::new(socket).exists() {
            let client = Launcher::peer(program, program, arguments, state_home);
            let _ = client.and_then(|client| Ok(client.command(&[])?.status()?));
        }
    }
}

/// A copy of `program` in the working directory, made once; all launchers are such copies. How a file came into the
/// page cache, in pages as a linker writes it or in one piece, changes the time of a start by up to a tenth.
fn copy_of(program: &Path) -> Result<PathBuf> {
    let directory = env::current_dir()?.join("programs");
    fs::create_dir_all(&directory)?;
    let copy = directory.join(program.file_name().ok_or("a program without a name")?);
    if !copy.exists() {
        fs::write(&copy, fs::read(program)?)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    }
    Ok(copy)
}

/// Where `program` is: in PATH, or in directories that are often missing in the PATH of a user.
pub fn find_program(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.map(|directory: PathBuf| directory.join(program)).find(|path| path.is_file())
}

pub fn words<'w>(words: &[&'w str]) -> Vec<&'w OsStr> {
    words.iter().map(|word| OsStr::new(*word)).collect()
}
