//! What a shell says about its jobs: the process groups in its job table, and when it sends SIGHUP to them.
//!
//! /proc shows nothing of this. The function that `--init` prints says it in the environment of a single `--check`:
//! `DETACH_SHELL="PID [hangup] [exit] [exact] [GROUP]..."`. What it means for a process is left to `judge`.

use std::env;
use std::iter::successors;

use nix::unistd::{Pid, getppid};

use crate::jobs::parse_pid;
use crate::sys::proc;

const VARIABLE: &str = "DETACH_SHELL";

/// The job table of a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobTable {
    pub shell: Pid,
    /// The process groups of the jobs.
    pub groups: Vec<Pid>,
    /// Whether the shell sends SIGHUP to its jobs when its terminal hangs up.
    pub hangs_up_on_close: bool,
    /// Whether it does so when it exits.
    pub hangs_up_on_exit: bool,
    /// Whether it does so to each job in the table: bash may have marked some with `disown -h`.
    pub is_exact: bool,
}

impl JobTable {
    /// What the calling shell says. A variable that comes from elsewhere is ignored: only an ancestor speaks for
    /// itself.
    pub fn read() -> Option<Self> {
        let table = parse(env::var_os(VARIABLE)?.to_str()?)?;
        is_ancestor(table.shell).then_some(table)
    }

    /// Whether a process group is one of its jobs.
    pub fn has_job(&self, group: Pid) -> bool {
        self.groups.contains(&group)
    }
}

fn parse(text: &str) -> Option<JobTable> {
    let mut words = text.split_ascii_whitespace();
    let shell = parse_pid(words.next()?.as_ref())?;
    let mut table =
        JobTable { shell, groups: Vec::new(), hangs_up_on_close: false, hangs_up_on_exit: false, is_exact: false };
    for word in words {
        match word {
            "hangup" => table.hangs_up_on_close = true,
            "exit" => table.hangs_up_on_exit = true,
            "exact" => table.is_exact = true,
            // A word that is not understood may change what the others mean.
            group => table.groups.push(parse_pid(group.as_ref())?),
        }
    }
    Some(table)
}

fn is_ancestor(pid: Pid) -> bool {
    // No process has more ancestors. The parents are read one after the other, so they may contain a cycle.
    const MOST: usize = 1000;
    let parent = |pid: &Pid| proc::stat(*pid).ok().flatten().map(|stat| stat.parent).filter(|pid| pid.as_raw() > 0);
    successors(Some(getppid()), parent).take(MOST).any(|ancestor| ancestor == pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_read_word_by_word() {
        let table = |groups: &[i32], [hangs_up_on_close, hangs_up_on_exit, is_exact]: [bool; 3]| JobTable {
            shell: Pid::from_raw(7),
            groups: groups.iter().copied().map(Pid::from_raw).collect(),
            hangs_up_on_close,
            hangs_up_on_exit,
            is_exact,
        };
        for (text, expected) in [
            ("7", Some(table(&[], [false; 3]))),
            ("7 hangup exit exact 8\n9", Some(table(&[8, 9], [true; 3]))),
            ("7 8 exact", Some(table(&[8], [false, false, true]))),
            ("", None),
            ("0", None),
            ("hangup", None),
            ("7 -8", None),
            ("7 maybe", None),
            ("7 8x", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
