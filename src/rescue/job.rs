//! Which processes are the job: the process group of a process, and its descendants, unless they are in another session
//! on another terminal.
//!
//! /proc is read, and nothing is touched. `consent` asks whether they may be let go of.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use nix::libc;
use nix::unistd::Pid;

use crate::error::Error;
use crate::rescue::terminal::Terminal;
use crate::sys::proc::{self, Stat};
use crate::term::text::quote;

/// All processes, at one moment.
pub type Table = BTreeMap<Pid, Stat>;

/// A process of the job. Within this boot, PID and start time identify it.
#[derive(Clone, Debug)]
pub struct Member {
    pub pid: Pid,
    pub stat: Stat,
}

impl Member {
    /// `'make' (PID 4242)`
    pub fn describe(&self) -> String {
        format!("{} (PID {})", quote(OsStr::from_bytes(&self.stat.name)), self.pid)
    }

    /// Whether it leads its session.
    pub fn is_session_leader(&self) -> bool {
        self.stat.session == self.pid
    }
}

/// A job that runs and is to be let go of.
pub struct RunningJob {
    pub group: Pid,
    pub session: Pid,
    /// What is let go of: the controlling terminal, or else the one that a standard stream is on.
    pub terminal: Option<Terminal>,
    pub members: Vec<Member>,
    /// Every process that there was when it was looked at.
    seen: HashSet<Pid>,
}

/// All processes that can be seen.
pub fn read_table() -> Result<Table, Error> {
    proc::processes().and_then(Iterator::collect).map_err(Error::proc)
}

impl RunningJob {
    /// The job of the process `wanted`, or of the process group of this number.
    pub fn find(table: &Table, wanted: Pid) -> Result<Self, Error> {
        let living = || table.iter().filter(|(_, stat)| !stat.is_dead());
        let of_group = || living().find(|(_, stat)| stat.group == wanted).map(|(_, stat)| stat);
        let stat = table.get(&wanted).filter(|stat| !stat.is_dead()).or_else(of_group).ok_or_else(|| {
            Error::new(format!("cannot let go of process {wanted}: there is no such process or process group"))
        })?;
        let (group, session) = (stat.group, stat.session);
        let seen = table.keys().copied().collect();
        let mut job = Self { group, session, terminal: None, members: Vec::new(), seen };
        if group.as_raw() == 0 {
            // A kernel thread, or a process of another PID namespace: it is refused, so nothing else matters.
            job.members.push(Member { pid: wanted, stat: stat.clone() });
            return Ok(job);
        }
        job.add(table);
        job.add_neighbors(table);
        job.terminal = job.find_terminal();
        // Now that the terminal is known: also descendants that have left the session, but are on that terminal.
        job.add(table);
        Ok(job)
    }

    /// The terminal of any of its processes, that of the first if it has one.
    fn find_terminal(&self) -> Option<Terminal> {
        let members = || self.first().into_iter().chain(&self.members);
        let controlling = members().find_map(|member| Terminal::controlling(&member.stat));
        controlling.or_else(|| members().find_map(|member| Terminal::of_stream(member.pid)))
    }

    /// Adds all processes of `table` that belong to the job. Returns whether there were any.
    fn add(&mut self, table: &Table) -> bool {
        let before = self.members.len();
        let mut known: HashSet<Pid> = self.members.iter().map(|member| member.pid).collect();
        loop {
            let belongs = |stat: &Stat| {
                (stat.group, stat.session) == (self.group, self.session)
                    || known.contains(&stat.parent)
                        && (stat.session == self.session
                            || stat.terminal == 0
                            || Terminal::controlling(stat) == self.terminal)
            };
            let mut new: Vec<Member> = table
                .iter()
                .filter(|(pid, stat)| !stat.is_dead() && !known.contains(pid) && belongs(stat))
                .map(|(pid, stat)| Member { pid: *pid, stat: stat.clone() })
                .collect();
            if new.is_empty() {
                break;
            }
            // Parents before their children.
            new.sort_by_key(|member| member.stat.start_time);
            known.extend(new.iter().map(|member| member.pid));
            self.members.extend(new);
        }
        self.members.len() > before
    }

    /// Adds the processes of its pipeline that have made a process group of their own, as timeout(1) does: children of the
    /// same shell, which read what a process of the job writes, or write what it reads.
    fn add_neighbors(&mut self, table: &Table) {
        let Some(shell) = self.first().map(|first| first.stat.parent) else { return };
        let siblings = || table.iter().filter(|(_, stat)| (stat.parent, stat.session) == (shell, self.session));
        let mut others: Vec<Member> = siblings()
            .filter(|(pid, stat)| !stat.is_dead() && !self.has(**pid))
            .map(|(pid, stat)| Member { pid: *pid, stat: stat.clone() })
            .collect();
        loop {
            let are_connected = |from: &Member, to: &Member| {
                let pipe = pipe_of(from.pid, libc::STDOUT_FILENO);
                pipe.is_some() && pipe == pipe_of(to.pid, libc::STDIN_FILENO)
            };
            let is_neighbor = |other: &mut Member| {
                let of_shell = self.members.iter().filter(|member| member.stat.parent == shell);
                of_shell.into_iter().any(|member| are_connected(member, other) || are_connected(other, member))
            };
            let neighbors: Vec<Member> = others.extract_if(.., is_neighbor).collect();
            if neighbors.is_empty() {
                return;
            }
            self.members.extend(neighbors);
        }
    }

    /// Looks again, while its processes are stopped: adds what they have started since. Returns whether there was any.
    pub fn add_new(&mut self) -> nix::Result<bool> {
        let mut table = Table::new();
        for pid in proc::all_pids()?.into_iter().filter(|pid| !self.seen.contains(pid)) {
            if let Some(stat) = proc::stat(pid)? {
                table.insert(pid, stat);
            }
        }
        let has_new = self.add(&table);
        self.seen.extend(self.members.iter().map(|member| member.pid));
        Ok(has_new)
    }

    /// Takes over what belongs to another job, since both have processes in common.
    pub fn absorb(&mut self, other: Self) {
        let missing: Vec<Member> = other.members.into_iter().filter(|member| !self.has(member.pid)).collect();
        self.members.extend(missing);
        self.members.sort_by_key(|member| member.stat.start_time);
        self.terminal = self.terminal.or(other.terminal);
    }

    pub fn has(&self, pid: Pid) -> bool {
        self.members.iter().any(|member| member.pid == pid)
    }

    /// A sudo of the job that passes the terminal on to its command, and that command. sudoers(5), `use_pty`: the
    /// command runs on a terminal of its own, in a session that a child of sudo leads, and sudo ends it when its own
    /// terminal is gone.
    pub fn find_relay(&self, table: &Table) -> Option<(&Member, Pid)> {
        let child_of = |parent, terminal| {
            let is_elsewhere = |stat: &Stat| stat.terminal != 0 && stat.terminal != terminal;
            table.iter().find(|(_, stat)| stat.parent == parent && is_elsewhere(stat)).map(|(pid, _)| *pid)
        };
        self.members.iter().filter(|member| member.stat.name == b"sudo").find_map(|sudo| {
            let leader = child_of(sudo.pid, sudo.stat.terminal)?;
            Some((sudo, child_of(leader, sudo.stat.terminal)?))
        })
    }

    /// Its first process: the leader of its process group, or else the oldest process of that.
    pub fn first(&self) -> Option<&Member> {
        let of_group = || self.members.iter().filter(|member| member.stat.group == self.group);
        let leader = of_group().find(|member| member.pid == self.group);
        leader.or_else(|| of_group().min_by_key(|member| member.stat.start_time))
    }

    /// Its processes in the order in which they are let go of: the leader of the session last, since the foreground
    /// process group gets signals when it leaves the terminal: tty_ioctl(4).
    pub fn in_order(&self) -> Vec<&Member> {
        let mut members: Vec<&Member> = self.members.iter().collect();
        members.sort_by_key(|member| (member.is_session_leader(), member.pid != member.stat.group, member.pid));
        members
    }
}

/// The pipe that a descriptor of a process refers to.
fn pipe_of(pid: Pid, fd: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok().filter(|path| path.as_os_str().as_bytes().starts_with(b"pipe:"))
}

/// The command line of a process; its name where there is none.
pub fn read_argv(member: &Member) -> Vec<OsString> {
    let line = fs::read(format!("/proc/{}/cmdline", member.pid)).unwrap_or_default();
    let line = line.strip_suffix(b"\0").unwrap_or(&line);
    if line.is_empty() {
        return vec![OsString::from_vec(member.stat.name.clone())];
    }
    line.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.into())).collect()
}
