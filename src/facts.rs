//! What decides whether a process survives: collected from /proc, and for the logout from the files of logind.
//!
//! Nothing is changed, and nothing is opened but files of the kernel and configuration. What may not be read is absent.
//! The parsers of single files are in `proc`; what the facts mean is in `check`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{major, minor};
use nix::unistd::Pid;

use crate::error::{Error, errno};
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
    /// The shell whose job it is: its nearest ancestor in the session of its terminal that is not in its process group.
    /// Absent where there is none: its group is orphaned, or leads the session.
    pub shell: Option<Relative>,
    /// Whether a signal has stopped a process of its group, itself included.
    pub is_group_stopped: bool,
    /// Whether it is in the PID namespace of the caller, as far as that may be read.
    pub is_in_this_namespace: bool,
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
    pub group: Pid,
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
    Pipe {
        /// The controlling terminals of the processes that hold the other end, 0 for none.
        other_end: Vec<u32>,
        /// Whether all processes could be asked.
        is_complete: bool,
    },
    /// Nothing tells who holds the other end.
    Socket,
    Other,
}

/// What is known of systemd on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manager {
    pub runs: bool,
    /// elogind, which has the settings of logind, but none of the rest.
    pub has_elogind: bool,
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
        // A process whose first thread has ended shows none.
        let descriptors = if stat.state == b'Z' { None } else { list_descriptors(pid) };
        let control_group = proc::control_group(pid);
        let manager = Manager::of(user_of(control_group.as_deref(), status.as_ref()), &table);
        let holders = Holders::find(pid, &table, descriptors.as_deref().unwrap_or_default(), manager.has_oomd);
        let is_in_group = |other: &Pid| control_group.is_some() && proc::control_group(*other) == control_group;
        let facts = Self {
            pid,
            status,
            argv: read_argv(pid),
            directory: fs::read_link(format!("/proc/{pid}/cwd")).ok(),
            parent: relative(&table, stat.parent),
            leader: relative(&table, stat.session)
                .filter(|leader| table.get(&leader.pid).is_some_and(|l| !l.is_dead())),
            shell: find_shell(&table, &stat),
            is_in_this_namespace: is_in_this_namespace(pid),
            is_group_stopped: table.values().any(|other| other.group == stat.group && other.state == b'T'),
            descriptors: descriptors.map(|list| list.into_iter().map(|open| holders.describe(pid, open)).collect()),
            terminals: holders
                .masters
                .iter()
                .filter(|master| **master != pid && is_in_group(master))
                .filter_map(|master| relative(&table, *master))
                .collect(),
            control_group,
            manager,
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
    let program = program.as_deref().and_then(Path::file_name).map(OsStrExt::as_bytes);
    // What has been replaced by an update is the same program still: proc_pid_exe(5).
    let program = program.map(|name| name.strip_suffix(b" (deleted)").unwrap_or(name).to_owned());
    let name = program.unwrap_or_else(|| stat.name.clone());
    let hangup = proc::status(pid).map_or(Handling::Caught, |status| status.disposition(libc::SIGHUP));
    Some(Relative { pid, name, group: stat.group, hangup })
}

/// Whether `pid` is in the PID namespace of this process. Of processes of others that may not be read.
fn is_in_this_namespace(pid: Pid) -> bool {
    let namespace = |name: &str| fs::read_link(format!("/proc/{name}/ns/pid")).ok();
    namespace(&pid.to_string()).is_none_or(|its| Some(its) == namespace("self"))
}

/// The shell that has started the job of a process: an ancestor of some process of its group. Job control gives each job
/// a process group of its own; a shell in the same group runs a script. Without a terminal there is no job control.
fn find_shell(table: &BTreeMap<Pid, Stat>, stat: &Stat) -> Option<Relative> {
    if stat.terminal == 0 {
        return None;
    }
    let group = table.values().filter(|member| (member.group, member.session) == (stat.group, stat.session));
    group.filter(|member| !member.is_dead()).find_map(|member| find_shell_of(table, member))
}

fn find_shell_of(table: &BTreeMap<Pid, Stat>, stat: &Stat) -> Option<Relative> {
    let mut ancestor = stat.parent;
    // The table is no snapshot: bounded, in case it has a circle.
    for _ in 0..table.len() {
        let parent = table.get(&ancestor).filter(|parent| parent.session == stat.session && !parent.is_dead())?;
        if parent.group != stat.group {
            return relative(table, ancestor);
        }
        ancestor = parent.parent;
    }
    None
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
        match fs::read_link(entry.path()) {
            Ok(path) => list.push((entry.file_name().to_str()?.parse().ok()?, path)),
            // It has been closed meanwhile.
            Err(error) if errno(&error) == Errno::ENOENT => (),
            Err(_) => return None,
        }
    }
    list.sort_unstable();
    Some(list)
}

/// Who holds the pipes of a process, and the other sides of pseudo-terminals.
struct Holders {
    /// By the name that /proc gives a pipe: process, its controlling terminal, and whether it can read and write.
    pipes: BTreeMap<PathBuf, Vec<(Pid, u32, Access)>>,
    masters: Vec<Pid>,
    /// Whether all processes could be asked.
    is_complete: bool,
}

/// What an end of a pipe is open for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Access {
    reads: bool,
    writes: bool,
}

impl Holders {
    /// Asks all processes about the pipes among `descriptors`, and, if that `matters`, about pseudo-terminals.
    fn find(pid: Pid, table: &BTreeMap<Pid, Stat>, descriptors: &[(RawFd, PathBuf)], masters_matter: bool) -> Self {
        let pipes = descriptors.iter().filter(|(fd, path)| is_pipe(pid, *fd, path));
        let pipes: BTreeMap<_, _> = pipes.map(|(_, path)| (path.clone(), Vec::new())).collect();
        let mut holders = Self { pipes, masters: Vec::new(), is_complete: true };
        if holders.pipes.is_empty() && !masters_matter {
            return holders;
        }
        for (pid, stat) in table {
            let descriptors = list_descriptors(*pid);
            holders.is_complete &= descriptors.is_some() || stat.is_dead();
            for (fd, path) in descriptors.unwrap_or_default() {
                if let Some(ends) = holders.pipes.get_mut(&path) {
                    ends.extend(read_access(*pid, fd).map(|access| (*pid, stat.terminal, access)));
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
                let other_end = others.map(|(_, terminal, _)| *terminal).collect();
                Target::Pipe { other_end, is_complete: self.is_complete }
            }
            _ if is_terminal(pid, fd, &path) => Target::Terminal,
            _ if path.as_os_str().as_bytes().starts_with(b"socket:[") => Target::Socket,
            _ => Target::Other,
        };
        Descriptor { fd, target, path }
    }
}

/// Whether a descriptor leads to a pipe, be it one with a name.
fn is_pipe(pid: Pid, fd: RawFd, path: &Path) -> bool {
    let is_fifo = || fs::metadata(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|metadata| metadata.file_type().is_fifo());
    path.as_os_str().as_bytes().starts_with(b"pipe:[") || path.is_absolute() && is_fifo()
}

/// Whether a descriptor leads to a terminal, gone or not. That is asked of its device, without opening it.
fn is_terminal(pid: Pid, fd: RawFd, path: &Path) -> bool {
    match fs::metadata(format!("/proc/{pid}/fd/{fd}")) {
        Ok(metadata) => metadata.file_type().is_char_device() && is_terminal_device(metadata.rdev()),
        Err(_) => is_terminal_path(path),
    }
}

/// The character devices that are terminals: Documentation/admin-guide/devices.txt of the kernel.
fn is_terminal_device(device: u64) -> bool {
    match (major(device), minor(device)) {
        // ptmx, which is the other side.
        (5, 2) => false,
        // Virtual terminals and serial lines; tty and console; pseudo-terminals; USB modems and serial lines; small
        // computers' serial lines; hypervisor consoles.
        (4 | 5 | 136..=143 | 166 | 188 | 204 | 229, _) => true,
        _ => false,
    }
}

/// The access mode of a descriptor: /proc/PID/fdinfo/FD, see proc_pid_fdinfo(5).
fn read_access(pid: Pid, fd: RawFd) -> Option<Access> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let mode = i32::from_str_radix(flags.trim(), 8).ok()? & libc::O_ACCMODE;
    Some(Access { reads: mode != libc::O_WRONLY, writes: mode != libc::O_RDONLY })
}

/// Whether this is the name of a terminal, where its device may not be asked.
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
        let has_elogind = table.values().any(|stat| stat.name.starts_with(b"elogind"));
        if !Path::new("/run/systemd/system").is_dir() {
            return Self { has_elogind, ..Self::default() };
        }
        let name = user.and_then(name_of_user);
        Self {
            runs: true,
            has_elogind,
            has_oomd: table.values().any(|stat| stat.name == b"systemd-oomd"),
            kills_user_processes: LogindSettings::read().kills(name.as_deref()),
            lingers: name.map(|name| Path::new("/var/lib/systemd/linger").join(OsString::from_vec(name)).exists()),
        }
    }
}

/// The user to whom a control group of logind belongs, whatever user a process in it has become; else that of the process.
fn user_of(control_group: Option<&[u8]>, status: Option<&Status>) -> Option<u32> {
    let number = |part: &[u8]| {
        let number = part.strip_prefix(b"user-").and_then(|rest| rest.strip_suffix(b".slice"));
        let number = number.or_else(|| part.strip_prefix(b"user@").and_then(|rest| rest.strip_suffix(b".service")));
        str::from_utf8(number?).ok()?.parse().ok()
    };
    let of_group = control_group.and_then(|group| group.split(|byte| *byte == b'/').find_map(number));
    of_group.or_else(|| status.map(|status| status.user))
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
    exclude: Vec<Vec<u8>>,
    /// An empty list: whether root is still excluded then, the manual and the program say differently.
    is_exclude_reset: bool,
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

    /// Takes over what a file sets. The main file, as systemd ships it, shows the defaults in comments and says so.
    fn apply(&mut self, file: &[u8]) {
        let shows_defaults = file.windows(21).any(|words| words == b"compile time defaults");
        let mut is_login = false;
        for line in file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            if line.starts_with(b"[") {
                is_login = line == b"[Login]";
            }
            let (line, is_default) = line.strip_prefix(b"#").map_or((line, false), |rest| (rest, true));
            let Some(place) = line.iter().position(|byte| *byte == b'=').filter(|_| is_login) else { continue };
            let key = line.get(..place).unwrap_or_default().trim_ascii();
            let value = line.get(place + 1..).unwrap_or_default().trim_ascii();
            let users = value.split(u8::is_ascii_whitespace).filter(|name| !name.is_empty()).map(<[u8]>::to_owned);
            match (key, is_default) {
                (b"KillUserProcesses", true) if shows_defaults => self.kill = self.kill.or(parse_boolean(value)),
                // A line that makes no sense is passed over.
                (b"KillUserProcesses", false) => self.kill = parse_boolean(value).or(self.kill),
                (b"KillOnlyUsers", false) if value.is_empty() => self.only.clear(),
                (b"KillOnlyUsers", false) => self.only.extend(users),
                (b"KillExcludeUsers", false) if value.is_empty() => {
                    self.exclude.clear();
                    self.is_exclude_reset = true;
                }
                (b"KillExcludeUsers", false) => self.exclude.extend(users),
                _ => (),
            }
        }
    }

    /// Whether the processes of a session of this user end with it; `None` where nothing says. Who is excluded is not
    /// asked about further, and a list of those who are meant decides alone.
    fn kills(&self, user: Option<&[u8]>) -> Option<bool> {
        let Some(user) = user else {
            // Of whom no name is known, only that can be said which holds for all.
            return self.kill.filter(|_| self.only.is_empty() && (self.exclude.is_empty() || self.kill == Some(false)));
        };
        let lists = |names: &[Vec<u8>]| names.iter().any(|name| name == user);
        if lists(&self.exclude) || user == b"root" && !self.is_exclude_reset {
            Some(false)
        } else if user == b"root" {
            None
        } else if self.only.is_empty() {
            self.kill
        } else {
            Some(lists(&self.only))
        }
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
    use nix::sys::stat::makedev;

    use super::*;
    use crate::proc::SignalSet;

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
            (&["# show the compile time defaults.\n[Login]\n#KillUserProcesses=no\n"], Some(false)),
            (&["# show the compile time defaults.\n[Login]\n#KillUserProcesses=yes\n"], Some(true)),
            (&["[Login]\n#KillUserProcesses=yes\n"], None),
            (&["# compile time defaults\n[Login]\n#KillUserProcesses=no\nKillUserProcesses = yes\n"], Some(true)),
            (&["[Login]\nKillUserProcesses=yes\nKillUserProcesses=perhaps\n"], Some(true)),
            (&["[Login]\nKillUserProcesses=no\nKillOnlyUsers=jo\n"], Some(true)),
            (&["[Login]\nKillOnlyUsers=jo\n", "[Login]\nKillOnlyUsers=ann\n"], Some(true)),
            (&["[Login]\nKillUserProcesses=no\nKillOnlyUsers=jo\nKillOnlyUsers=\n"], Some(false)),
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
        let other = settings(&["[Login]\nKillUserProcesses=yes\nKillExcludeUsers=ann"]);
        assert_eq!((other.kills(Some(b"root")), other.kills(None)), (Some(false), None));
        let reset = settings(&["[Login]\nKillUserProcesses=yes\nKillExcludeUsers="]);
        assert_eq!(reset.kills(Some(b"root")), None);
    }

    #[test]
    fn user_is_that_of_the_login() {
        let status =
            Status { user: 0, umask: None, blocked: SignalSet(0), ignored: SignalSet(0), caught: SignalSet(0) };
        for (group, user) in [
            (Some(&b"/user.slice/user-1000.slice/session-2.scope"[..]), Some(1000)),
            (Some(b"/user.slice/user@1001.service/app.slice"), Some(1001)),
            (Some(b"/system.slice/cron.service"), Some(0)),
            (None, Some(0)),
        ] {
            assert_eq!(user_of(group, Some(&status)), user);
        }
    }

    #[test]
    fn terminals_are_known_by_device() {
        for (major, minor) in [(136, 3), (4, 1), (4, 64), (5, 0), (5, 1), (188, 0), (204, 64)] {
            assert!(is_terminal_device(makedev(major, minor)), "{major}:{minor}");
        }
        for (major, minor) in [(1, 3), (5, 2), (10, 200)] {
            assert!(!is_terminal_device(makedev(major, minor)), "{major}:{minor}");
        }
    }
}
