//! Which processes belong to a job that detach has not started, but let go of.
//!
//! Such a job has no session of its own. It has the processes that were let go of, known by PID and start time, and
//! what these have started since: that is in their process group, in their session, and has no controlling terminal.
//! The number of a group is not used again as long as a process is in it. So all in it count if one of them is known,
//! or has the output of the job open. When in doubt, a process is not of the job.

use std::fs;

use nix::sys::stat::stat;
use nix::unistd::{Pid, getpgid};

use crate::jobs::belonging::Belonging;
use crate::jobs::record::{FileId, ProcessId, Rescue};
use crate::sys::proc::Stat;

/// Whether a process may belong to the job, as far as is known without its /proc/PID/stat.
pub fn may_have(rescue: &Rescue, pid: Pid, session: Pid) -> bool {
    rescue.members.iter().any(|member| member.pid == pid)
        || rescue.session == session && getpgid(Some(pid)) == Ok(rescue.group)
}

/// Whether a process belongs to the job.
pub fn judge(rescue: &Rescue, pid: Pid, stat: &Stat) -> Belonging {
    let is_in_group = (stat.group, stat.session) == (rescue.group, rescue.session);
    if rescue.members.contains(&ProcessId { pid, start_time: stat.start_time }) {
        if is_in_group { Belonging::Certain } else { Belonging::CertainAlone }
    } else if !is_in_group || stat.terminal != 0 {
        Belonging::No
    } else if rescue.output.is_some_and(|output| has_open(pid, output)) {
        Belonging::Certain
    } else {
        Belonging::IfOthersDo
    }
}

/// Whether a process has this file open.
fn has_open(pid: Pid, file: FileId) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.flatten().any(|entry| stat(&entry.path()).is_ok_and(|status| FileId::of(&status) == file))
}
