//! What decides whether a process survives: collected from /proc, and for the logout from the files of logind.
//!
//! Nothing is changed, and nothing is opened but files of the kernel and configuration. What may not be read is absent.
//! The parsers of single files are in `proc`; what the facts mean is in `check`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::error::Error;
use crate::proc::{self, Handling, Stat, Status};

/// All that is known of a process.
pub struct Facts {
    pub pid: Pid,
    pub stat: Stat,
    pub status: Option<Status>,
    pub argv: Vec<OsString>,
    pub directory: Option<PathBuf>,
    /// Absent where it is not to be seen from here.
    pub parent: Option<Relative>,
    /// The leader of its session; absent when that has ended.
    pub leader: Option<Relative>,
    /// The shell whose job it is: its nearest ancestor in the session that is a shell and not in its process group.
    pub shell: Option<Relative>,
    /// Whether a process of its group is stopped, itself included.
    pub is_group_stopped: bool,
    /// Absent where they may not be read.
    pub descriptors: Option<Vec<Descriptor>>,
    pub control_group: Option<Vec<u8>>,
    /// The terminals in the same control group: processes that hold the other side of a pseudo-terminal.
    pub terminals: Vec<Relative>,
    pub manager: Manager,
    pub children: Vec<Child>,
}

/// Another process, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relative {
    pub pid: Pid,
    /// The name of its program.
    pub name: Vec<u8>,
    pub hangup: Handling,
}

/// A child of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    pub pid: Pid,
    /// It has ended, and has not been waited for.
    pub is_zombie: bool,
}

/// An open descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub fd: RawFd,
    pub target: Target,
    /// As /proc shows it.
    pub path: PathBuf,
}

/// What a descriptor leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Terminal,
    /// With the controlling terminals of the processes that hold the other end, 0 for none.
    Pipe {
        other_end: Vec<u32>,
    },
    Other,
}

/// What is known of systemd on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manager {
    pub runs: bool,
    pub has_oomd: bool,
    /// What `KillUserProcesses` in logind.conf means for the user of the process; absent where nothing says.
    pub kills_user_processes: Option<bool>,
    /// Whether the user's manager goes on after logout.
    pub lingers: Option<bool>,
}

impl Facts {
    /// Reads everything about the process `pid`.
    pub fn of(pid: Pid) -> Result<Self, Error> {
        let gone = || Error::NoSuchProcess { pid };
        let table = read_table()?;
        let stat = table.get(&pid).filter(|stat| !stat.is_dead()).cloned().ok_or_else(gone)?;
        let status = proc::status(pid);
        let descriptors = list_descriptors(pid);
        let holders = Holders::find(&table);
        let control_group = proc::control_group(pid);
        let is_in_group = |other: &Pid| control_group.is_some() && proc::control_group(*other) == control_group;
        let facts = Self {
            pid,
            status,
            argv: read_argv(pid),
            directory: fs::read_link(format!("/proc/{pid}/cwd")).ok(),
            parent: relative(&table, stat.parent),
            leader: relative(&table, stat.session)
                .filter(|leader| table.get(&leader.pid).is_some_and(|l| !l.is_dead())),
            shell: find_shell(&table, pid),
            is_group_stopped: table.values().any(|other| other.group == stat.group && other.is_stopped()),
            descriptors: descriptors.map(|list| list.into_iter().map(|open| holders.describe(pid, open)).collect()),
            terminals: holders
                .masters
                .iter()
                .filter(|pid| is_in_group(pid))
                .filter_map(|pid| relative(&table, *pid))
                .collect(),
            control_group,
            manager: Manager::of(status.map(|status| status.user), &table),
            children: children_of(&table, pid),
            stat,
        };
        // If it has ended meanwhile, what was read may be of nobody, or of another process.
        let is_same = |now: Stat| !now.is_dead() && now.start_time == facts.stat.start_time;
        if proc::stat(pid).is_ok_and(|now| now.is_some_and(is_same)) { Ok(facts) } else { Err(gone()) }
    }

    /// The descriptors that lead to `wanted`, as a list for people.
    pub fn descriptors_on(&self, is_wanted: impl Fn(&Target) -> bool) -> Vec<&Descriptor> {
        self.descriptors.iter().flatten().filter(|descriptor| is_wanted(&descriptor.target)).collect()
    }
}

fn read_table() -> Result<BTreeMap<Pid, Stat>, Error> {
    let failed = |errno| Error::path("read", "/proc", errno);
    let mut table = BTreeMap::new();
    for pid in proc::all_pids().map_err(failed)? {
        table.extend(proc::stat(pid).map_err(failed)?.map(|stat| (pid, stat)));
    }
    Ok(table)
}

fn relative(table: &BTreeMap<Pid, Stat>, pid: Pid) -> Option<Relative> {
    let stat = table.get(&pid)?;
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok();
    let program = program.as_deref().and_then(Path::file_name).map(|name| name.as_bytes().to_owned());
    let name = program.unwrap_or_else(|| stat.name.clone());
    let hangup = proc::status(pid).map_or(Handling::Caught, |status| status.disposition(nix::libc::SIGHUP));
    Some(Relative { pid, name, hangup })
}

/// The shell that has started the job in which `pid` is.
///
/// Job control gives each job a process group of its own; a shell in the same group runs a script.
fn find_shell(table: &BTreeMap<Pid, Stat>, pid: Pid) -> Option<Relative> {
    let stat = table.get(&pid)?;
    let mut ancestor = stat.parent;
    while let Some(parent) = table.get(&ancestor).filter(|parent| parent.session == stat.session) {
        if parent.group != stat.group {
            return relative(table, ancestor).filter(|shell| is_shell(&shell.name));
        }
        ancestor = parent.parent;
    }
    None
}

/// Whether this is the name of a shell with job control.
pub fn is_shell(name: &[u8]) -> bool {
    let known: [&[u8]; 16] = [
        b"ash", b"bash", b"busybox", b"csh", b"dash", b"elvish", b"fish", b"ksh", b"ksh93", b"mksh", b"nu", b"sh",
        b"tcsh", b"xonsh", b"yash", b"zsh",
    ];
    known.contains(&name)
}

fn children_of(table: &BTreeMap<Pid, Stat>, pid: Pid) -> Vec<Child> {
    let children = table.iter().filter(|(_, stat)| stat.parent == pid);
    children.map(|(pid, stat)| Child { pid: *pid, is_zombie: stat.is_dead() }).collect()
}

fn read_argv(pid: Pid) -> Vec<OsString> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = line.strip_suffix(b"\0").unwrap_or(&line);
    if line.is_empty() {
        Vec::new()
    } else {
        line.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.into())).collect()
    }
}

/// The open descriptors of `pid` and what they lead to; `None` where that may not be read.
fn list_descriptors(pid: Pid) -> Option<Vec<(RawFd, PathBuf)>> {
    let mut list = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()? {
        let entry = entry.ok()?;
        let fd = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // One that has been closed meanwhile is no descriptor.
        list.extend(fd.zip(fs::read_link(entry.path()).ok()));
    }
    list.sort_unstable();
    Some(list)
}

/// Who holds pipes and pseudo-terminals, as far as that may be read.
struct Holders {
    /// By the name that /proc gives a pipe: process, its controlling terminal, and whether it can read and write.
    pipes: BTreeMap<PathBuf, Vec<(Pid, u32, Access)>>,
    /// The processes that hold the other side of a pseudo-terminal.
    masters: Vec<Pid>,
}

/// What an end of a pipe is open for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Access {
    reads: bool,
    writes: bool,
}

impl Holders {
    fn find(table: &BTreeMap<Pid, Stat>) -> Self {
        let mut holders = Self { pipes: BTreeMap::new(), masters: Vec::new() };
        for (pid, stat) in table {
            for (fd, path) in list_descriptors(*pid).unwrap_or_default() {
                if path.as_os_str().as_bytes().starts_with(b"pipe:[") {
                    if let Some(access) = read_access(*pid, fd) {
                        holders.pipes.entry(path).or_default().push((*pid, stat.terminal, access));
                    }
                } else if matches!(path.to_str(), Some("/dev/ptmx" | "/dev/pts/ptmx")) && !holders.masters.contains(pid)
                {
                    holders.masters.push(*pid);
                }
            }
        }
        holders
    }

    fn describe(&self, pid: Pid, (fd, path): (RawFd, PathBuf)) -> Descriptor {
        let target = match (self.pipes.get(&path), read_access(pid, fd)) {
            (Some(ends), Some(own)) => {
                let others = ends.iter().filter(|(other, _, access)| {
                    *other != pid && (own.writes && access.reads || own.reads && access.writes)
                });
                Target::Pipe { other_end: others.map(|(_, terminal, _)| *terminal).collect() }
            }
            _ if is_terminal_path(&path) => Target::Terminal,
            _ => Target::Other,
        };
        Descriptor { fd, target, path }
    }
}

/// The access mode of a descriptor: /proc/PID/fdinfo/FD, see proc_pid_fdinfo(5).
fn read_access(pid: Pid, fd: RawFd) -> Option<Access> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let mode = i32::from_str_radix(flags.trim(), 8).ok()? & nix::libc::O_ACCMODE;
    Some(Access { reads: mode != nix::libc::O_WRONLY, writes: mode != nix::libc::O_RDONLY })
}

/// Whether this is the name of a terminal, gone or not: a device of its own, no controller of others.
fn is_terminal_path(path: &Path) -> bool {
    let Some(name) = path.as_os_str().as_bytes().strip_prefix(b"/dev/") else { return false };
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    let is_number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    name == b"tty"
        || name == b"console"
        || [&b"pts/"[..], b"tty", b"ttyS", b"hvc"].iter().any(|kind| name.strip_prefix(*kind).is_some_and(is_number))
}

impl Manager {
    /// What systemd does with the processes of `user`.
    fn of(user: Option<u32>, table: &BTreeMap<Pid, Stat>) -> Self {
        // As sd_booted(3) finds out.
        if !Path::new("/run/systemd/system").is_dir() {
            return Self::default();
        }
        let name = user.and_then(name_of_user);
        Self {
            runs: true,
            has_oomd: table.values().any(|stat| stat.name == b"systemd-oomd"),
            kills_user_processes: LogindSettings::read().kills(name.as_deref()),
            lingers: name.map(|name| Path::new("/var/lib/systemd/linger").join(OsString::from_vec(name)).exists()),
        }
    }
}

fn name_of_user(user: u32) -> Option<Vec<u8>> {
    parse_user_name(&fs::read("/etc/passwd").ok()?, user)
}

/// passwd(5)
fn parse_user_name(passwd: &[u8], user: u32) -> Option<Vec<u8>> {
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next()?;
        let number: u32 = str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
        (number == user).then(|| name.to_owned())
    })
}

/// The settings of logind.conf(5) that end processes.
#[derive(Debug, Default, PartialEq, Eq)]
struct LogindSettings {
    kill: Option<bool>,
    only: Vec<Vec<u8>>,
    exclude: Option<Vec<Vec<u8>>>,
}

impl LogindSettings {
    /// The main file, the first that there is, then all drop-ins by their names; one in /etc hides one of its name in
    /// /run, and so on: systemd.syntax(7), logind.conf(5).
    fn read() -> Self {
        let directories = ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"].map(Path::new);
        let mut settings = Self::default();
        let main = directories.iter().find_map(|directory| fs::read(directory.join("logind.conf")).ok());
        settings.apply(&main.unwrap_or_default());
        let mut drop_ins = BTreeMap::new();
        for directory in directories.iter().rev() {
            for entry in fs::read_dir(directory.join("logind.conf.d")).into_iter().flatten().flatten() {
                drop_ins.insert(entry.file_name(), entry.path());
            }
        }
        for (_, path) in drop_ins.iter().filter(|(name, _)| name.as_bytes().ends_with(b".conf")) {
            settings.apply(&fs::read(path).unwrap_or_default());
        }
        settings
    }

    /// Takes over what a file sets. The main file that distributions ship shows the defaults in comments.
    fn apply(&mut self, file: &[u8]) {
        let mut is_login = false;
        for line in file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            if line.starts_with(b"[") {
                is_login = line == b"[Login]";
            }
            let (line, is_default) = line.strip_prefix(b"#").map_or((line, false), |rest| (rest, true));
            let Some(place) = line.iter().position(|byte| *byte == b'=').filter(|_| is_login) else { continue };
            let (key, value) = (line.get(..place), line.get(place + 1..).unwrap_or_default().trim_ascii());
            let users = || value.split(u8::is_ascii_whitespace).filter(|name| !name.is_empty()).map(<[u8]>::to_owned);
            match (key.map(<[u8]>::trim_ascii), is_default) {
                (Some(b"KillUserProcesses"), true) => self.kill = self.kill.or(parse_boolean(value)),
                (Some(b"KillUserProcesses"), false) => self.kill = parse_boolean(value),
                (Some(b"KillOnlyUsers"), false) => self.only = users().collect(),
                (Some(b"KillExcludeUsers"), false) => self.exclude = Some(users().collect()),
                _ => (),
            }
        }
    }

    /// Whether the processes of a session of this user end with it; `None` where nothing says.
    fn kills(&self, user: Option<&[u8]>) -> Option<bool> {
        let lists = |names: &[Vec<u8>]| user.is_some_and(|user| names.iter().any(|name| name == user));
        let is_excluded = self.exclude.as_deref().map_or(user == Some(b"root"), lists);
        Some(self.kill? && !is_excluded && (self.only.is_empty() || lists(&self.only)))
    }
}

/// systemd.syntax(7)
fn parse_boolean(value: &[u8]) -> Option<bool> {
    match value.to_ascii_lowercase().as_slice() {
        b"1" | b"yes" | b"y" | b"true" | b"t" | b"on" => Some(true),
        b"0" | b"no" | b"n" | b"false" | b"f" | b"off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_known_by_name() {
        for name in ["/dev/pts/3", "/dev/tty", "/dev/tty2", "/dev/ttyS0", "/dev/console", "/dev/pts/3 (deleted)"] {
            assert!(is_terminal_path(Path::new(name)), "{name}");
        }
        for name in ["/dev/null", "/dev/ptmx", "/dev/pts/ptmx", "/dev/pts/", "/tmp/pts/3", "pipe:[3]"] {
            assert!(!is_terminal_path(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn user_has_the_name_of_passwd() {
        let passwd = b"root:x:0:0::/root:/bin/sh\nbroken\n\xff:x:7:7:::\njo:x:1000:1000:a:b:c\n";
        assert_eq!(parse_user_name(passwd, 1000).as_deref(), Some(&b"jo"[..]));
        assert_eq!(parse_user_name(passwd, 7).as_deref(), Some(&b"\xff"[..]));
        assert_eq!(parse_user_name(passwd, 2), None);
    }

    #[test]
    fn logind_settings_are_those_of_the_last_file_that_has_them() {
        let settings = |files: &[&str]| {
            let mut settings = LogindSettings::default();
            for file in files {
                settings.apply(file.as_bytes());
            }
            settings
        };
        for (files, kills) in [
            (&[][..], None),
            (&["[Login]\n#KillUserProcesses=no\n"], Some(false)),
            (&["[Login]\n#KillUserProcesses=yes\n"], Some(true)),
            (&["[Login]\n#KillUserProcesses=no\nKillUserProcesses = yes\n"], Some(true)),
            (&["[Other]\nKillUserProcesses=yes\n"], None),
            (&["[Login]\nKillUserProcesses=yes", "[Login]\nKillUserProcesses=off"], Some(false)),
            (&["[Login]\nKillUserProcesses=1\nKillExcludeUsers=ann jo"], Some(false)),
            (&["[Login]\nKillUserProcesses=1\nKillOnlyUsers=ann"], Some(false)),
            (&["[Login]\nKillUserProcesses=1\nKillOnlyUsers=ann jo\nKillExcludeUsers="], Some(true)),
            (&["\0[Login\n=\n[Login]\n=\nKillUserProcesses"], None),
        ] {
            assert_eq!(settings(files).kills(Some(b"jo")), kills, "{files:?}");
        }
        let yes = settings(&["[Login]\nKillUserProcesses=yes"]);
        assert_eq!((yes.kills(Some(b"root")), yes.kills(None)), (Some(false), Some(true)));
    }
}
