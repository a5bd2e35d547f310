//! What decides whether a process survives, as read from /proc (and by `systemd` from the configuration of logind).
//!
//! Nothing is changed, and only files in /proc and configuration files are opened. What cannot be read is absent.
//! `sys::proc` parses single files; `judge` decides what the facts mean.

mod descriptors;

pub use descriptors::{Descriptor, Endpoint};

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::{Pid, getsid};
use serde::Serialize;

use descriptors::{Holders, Search, list_descriptors};

use super::table::JobTable;
use crate::error::Error;
use crate::jobs::record::{Number, Text};
use crate::sys::proc::{self, Disposition, Stat, Status};
use crate::systemd;
use crate::systemd::logind::{LogoutSettings, login_user};

/// All that is known of a process.
pub struct Facts {
    pub pid: Pid,
    pub stat: Stat,
    pub status: Option<Status>,
    pub argv: Vec<OsString>,
    pub directory: Option<PathBuf>,
    /// Absent where it is not visible from this PID namespace.
    pub parent: Option<OtherProcess>,
    /// The leader of its session. Absent when that has ended.
    pub leader: Option<OtherProcess>,
    /// The shell whose job it is: its nearest ancestor in its session and outside its process group. Absent where there
    /// is none, because its process group is orphaned or it leads the session.
    pub shell: Option<OtherProcess>,
    /// What that shell says about its jobs. Absent if it says nothing.
    pub table: Option<JobTable>,
    /// Whether a signal has stopped a process of its process group, itself included.
    pub is_group_stopped: bool,
    /// Whether it is in the PID namespace of this process, as far as that can be read.
    pub is_in_this_namespace: bool,
    /// Absent where they cannot be read.
    pub descriptors: Option<Vec<Descriptor>>,
    pub control_group: Option<Vec<u8>>,
    /// The terminal emulators in its control group: processes that hold the master side of a pseudo-terminal.
    pub emulators: Vec<OtherProcess>,
    pub manager: ServiceManager,
    pub children: Vec<Child>,
    /// Why it cannot be let go of; absent if it can be.
    pub obstacle: Option<String>,
}

/// What is known of the service manager of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceManager {
    pub is_systemd_running: bool,
    /// elogind is logind without the rest of systemd.
    pub is_elogind_running: bool,
    /// systemd-oomd(8)
    pub is_oomd_running: bool,
    /// Those for the user of the process; empty where systemd does not run.
    pub logout: LogoutSettings,
}

impl ServiceManager {
    fn read(user: Option<u32>, table: &BTreeMap<Pid, Stat>) -> Self {
        let is_systemd_running = systemd::is_running();
        Self {
            is_systemd_running,
            is_elogind_running: table.values().any(|stat| stat.name.starts_with(b"elogind")),
            is_oomd_running: is_systemd_running && table.values().any(|stat| stat.name == b"systemd-oomd"),
            logout: if is_systemd_running { LogoutSettings::read(user) } else { LogoutSettings::default() },
        }
    }
}

/// What matters about another process. The fields are those of `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OtherProcess {
    #[serde(with = "Number")]
    pub pid: Pid,
    /// That of its program.
    pub name: Text,
    #[serde(skip)]
    pub group: Pid,
    #[serde(rename = "sighup")]
    pub hangup: Disposition,
}

/// A child of the process. The fields are those of `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Child {
    #[serde(with = "Number")]
    pub pid: Pid,
    /// It has ended and has not been waited for.
    pub is_zombie: bool,
}

impl Facts {
    /// Reads everything about the process `pid`. `said` is what the calling shell says about its jobs.
    pub fn read(
        pid: Pid,
        said: Option<&JobTable>,
        find_obstacle: impl Fn(Pid) -> Option<String>,
    ) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::new(format!("cannot check process {pid}: {reason}"));
        let is_hidden = |pid: Pid| !proc::shows_all() && proc::exists(pid);
        let gone = || refuse(if is_hidden(pid) { "/proc does not show it to this user" } else { "no such process" });
        // In another PID namespace, the same PID means another process.
        proc::visible_pid_namespace().map_err(Error::proc)?;
        let table: BTreeMap<Pid, Stat> = proc::processes().and_then(Iterator::collect).map_err(Error::proc)?;
        let shell_says = |shell: &OtherProcess| said.filter(|said| said.shell == shell.pid).cloned();
        let stat = table.get(&pid).filter(|stat| !stat.is_dead()).cloned().ok_or_else(gone)?;
        // Without them, it would seem to be an orphan.
        let is_in_session = |other: &Pid| getsid(Some(*other)) == Ok(stat.session);
        let relatives = [stat.parent, stat.session].into_iter().filter(|other| !table.contains_key(other));
        if let Some(other) = relatives.filter(is_in_session).find(|other| is_hidden(*other)) {
            return Err(refuse(&format!("/proc does not show process {other} of its session to this user")));
        }
        let status = proc::status(pid);
        // Nothing can be read of a process whose first thread has ended.
        let descriptors = if stat.state == b'Z' { None } else { list_descriptors(pid) };
        let control_group = proc::control_group(pid);
        let user = status.as_ref().map(|status| status.user);
        let manager = ServiceManager::read(login_user(control_group.as_deref(), user), &table);
        let search = if manager.is_oomd_running { Search::PipesAndMasters } else { Search::Pipes };
        let holders = Holders::find(pid, &table, descriptors.as_deref().unwrap_or_default(), search);
        let is_in_group = |other: &Pid| control_group.is_some() && proc::control_group(*other) == control_group;
        let shell = find_shell(&table, &stat);
        let facts = Self {
            pid,
            status,
            argv: read_argv(pid),
            directory: fs::read_link(format!("/proc/{pid}/cwd")).ok(),
            parent: read_other(&table, stat.parent),
            leader: read_other(&table, stat.session)
                .filter(|leader| table.get(&leader.pid).is_some_and(|stat| !stat.is_dead())),
            table: shell.as_ref().and_then(shell_says),
            shell,
            is_in_this_namespace: is_in_this_namespace(pid),
            is_group_stopped: table.values().any(|other| other.group == stat.group && other.state == b'T'),
            descriptors: descriptors.map(|list| list.into_iter().map(|open| holders.describe(pid, open)).collect()),
            emulators: holders
                .masters
                .iter()
                .filter(|master| **master != pid && is_in_group(master))
                .filter_map(|master| read_other(&table, *master))
                .collect(),
            control_group,
            manager,
            children: list_children(&table, pid),
            obstacle: find_obstacle(pid),
            stat,
        };
        // If it has ended meanwhile, some of this may be about another process with its PID.
        let is_same = |now: Stat| !now.is_dead() && now.start_time == facts.stat.start_time;
        if proc::stat(pid).is_ok_and(|now| now.is_some_and(is_same)) { Ok(facts) } else { Err(gone()) }
    }

    /// What it does with a signal. Where that cannot be read, nothing is certain, as with a handler.
    pub fn disposition(&self, signal: i32) -> Disposition {
        self.status.as_ref().map_or(Disposition::Caught, |status| status.disposition(signal))
    }

    /// Whether it has a controlling terminal.
    pub fn has_terminal(&self) -> bool {
        self.stat.terminal != 0
    }

    pub fn is_session_leader(&self) -> bool {
        self.stat.session == self.pid
    }

    /// Whether it is in the foreground process group of its controlling terminal.
    pub fn is_in_foreground(&self) -> bool {
        self.has_terminal() && self.stat.foreground == self.stat.group
    }

    /// Its descriptors whose endpoint is wanted; none where they cannot be read.
    pub fn descriptors_on(&self, is_wanted: impl Fn(&Endpoint) -> bool) -> Vec<&Descriptor> {
        self.descriptors.iter().flatten().filter(|descriptor| is_wanted(&descriptor.endpoint)).collect()
    }
}

fn read_other(table: &BTreeMap<Pid, Stat>, pid: Pid) -> Option<OtherProcess> {
    let stat = table.get(&pid)?;
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok();
    let program = program.as_deref().and_then(Path::file_name).map(OsStrExt::as_bytes);
    // A program whose file has been replaced by an update is still that program: proc_pid_exe(5).
    let program = program.map(|name| name.strip_suffix(b" (deleted)").unwrap_or(name));
    let name = Text::from(OsStr::from_bytes(program.unwrap_or(&stat.name)));
    let hangup = proc::status(pid).map_or(Disposition::Caught, |status| status.disposition(libc::SIGHUP));
    Some(OtherProcess { pid, name, group: stat.group, hangup })
}

/// Whether `pid` is in the PID namespace of this process. The namespace of other users' processes cannot be read.
fn is_in_this_namespace(pid: Pid) -> bool {
    let namespace = |name: &str| fs::read_link(format!("/proc/{name}/ns/pid")).ok();
    namespace(&pid.to_string()).is_none_or(|its| Some(its) == namespace("self"))
}

/// The shell that has started the job of a process: an ancestor of any process of its process group. Job control puts
/// each job into a process group of its own, so a shell in the same group runs a script. Without a terminal there is no
/// job control.
fn find_shell(table: &BTreeMap<Pid, Stat>, stat: &Stat) -> Option<OtherProcess> {
    if stat.terminal == 0 {
        return None;
    }
    let group = table.values().filter(|member| (member.group, member.session) == (stat.group, stat.session));
    group.filter(|member| !member.is_dead()).find_map(|member| find_ancestor_outside_group(table, member))
}

/// The nearest ancestor in the same session, but in another process group.
fn find_ancestor_outside_group(table: &BTreeMap<Pid, Stat>, stat: &Stat) -> Option<OtherProcess> {
    let mut ancestor = stat.parent;
    // The table is not a snapshot, so it may contain a cycle: take no more steps than there are processes.
    for _ in 0..table.len() {
        let parent = table.get(&ancestor).filter(|parent| parent.session == stat.session && !parent.is_dead())?;
        if parent.group != stat.group {
            return read_other(table, ancestor);
        }
        ancestor = parent.parent;
    }
    None
}

fn list_children(table: &BTreeMap<Pid, Stat>, pid: Pid) -> Vec<Child> {
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
