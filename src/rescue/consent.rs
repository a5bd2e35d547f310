//! Whether a process may be let go of, asked before anything is changed.
//!
//! `Facts` are read from /proc, `judge` decides and touches nothing. Opening /proc/PID/mem makes the kernel do the
//! checks of ptrace(2) without attaching: user, capabilities, dumpable, Yama and other security modules.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::unistd::{Pid, geteuid};

use crate::error::reason;
use crate::rescue::processor::IS_SUPPORTED;
use crate::sys::errno;
use crate::sys::proc::{self, Stat, list_threads, status_field};
use crate::term::text::quote;

const ELF_64: u8 = 2;
/// kthreadd, whose children are the threads of the kernel.
const KTHREADD: Pid = Pid::from_raw(2);

/// Why a process cannot be let go of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A clause about "it", the process.
    pub reason: String,
    /// Whether root may do it.
    pub is_for_root: bool,
}

/// What decides about a process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    kind: Kind,
    /// As a sentence names it.
    tracer: Option<String>,
    seccomp: Seccomp,
    own_seccomp: Seccomp,
    files: Files,
    /// Absent where the program cannot be read.
    is_64_bit: Option<bool>,
    users: Users,
    /// How the kernel answers a tracer.
    access: nix::Result<()>,
    /// kernel.yama.ptrace_scope
    yama: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Program,
    KernelThread,
    /// Its process group has no number here.
    InOtherPidNamespace,
}

/// Which files its paths lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    Same,
    OfOtherMountNamespace,
    /// chroot(2)
    OfOtherRoot,
}

/// Which filters a process has: seccomp(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seccomp {
    mode: u32,
    /// Absent before Linux 5.9.
    filters: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Users {
    own: u32,
    real: u32,
    effective: u32,
    saved: u32,
}

/// Whether the process may be let go of. `Ok(None)`: it has ended.
pub fn ask(pid: Pid) -> Option<Result<(), Refusal>> {
    Some(judge(&Facts::read(pid)?))
}

impl Facts {
    fn read(pid: Pid) -> Option<Self> {
        let stat = proc::stat(pid).ok()??;
        // The first thread may have ended before the others: nothing can be read of it.
        let living = list_threads(pid).into_iter().filter(|(_, stat)| !matches!(stat.state, b'Z' | b'X'));
        let threads: Vec<Pid> = living.map(|(thread, _)| thread).collect();
        let thread = *threads.first()?;
        let statuses = threads.iter().filter_map(|thread| fs::read(format!("/proc/{thread}/status")).ok());
        let statuses: Vec<Vec<u8>> = statuses.collect();
        let own_seccomp = Seccomp::parse(&fs::read("/proc/self/status").unwrap_or_default());
        let mut filters = statuses.iter().map(|status| Seccomp::parse(status));
        let mut ids = status_field(statuses.first()?, "Uid").unwrap_or_default().split_ascii_whitespace();
        let mut id = || ids.next().and_then(|id| id.parse().ok()).unwrap_or(u32::MAX);
        let kind = Kind::of(pid, &stat);
        Some(Self {
            kind,
            tracer: statuses.iter().find_map(|status| describe_tracer(status)),
            seccomp: filters.find(|it| *it != own_seccomp).unwrap_or(own_seccomp),
            own_seccomp,
            files: Files::of(thread),
            is_64_bit: read_class(thread).map(|class| class == ELF_64),
            users: Users { own: geteuid().as_raw(), real: id(), effective: id(), saved: id() },
            // A kernel thread has no memory to ask for.
            access: if kind == Kind::Program { try_access(thread)? } else { Ok(()) },
            yama: read_yama(),
        })
    }
}

impl Kind {
    fn of(pid: Pid, stat: &Stat) -> Self {
        match stat.group.as_raw() {
            0 if pid == KTHREADD || stat.parent == KTHREADD => Self::KernelThread,
            0 => Self::InOtherPidNamespace,
            _ => Self::Program,
        }
    }
}

impl Files {
    fn of(thread: Pid) -> Self {
        let mounts = |name: &str| fs::read_link(format!("/proc/{name}/ns/mnt")).ok();
        let root = |name: &str| fs::metadata(format!("/proc/{name}/root")).ok().map(|root| (root.dev(), root.ino()));
        let name = thread.to_string();
        if mounts(&name).is_some_and(|it| Some(it) != mounts("self")) {
            Self::OfOtherMountNamespace
        } else if root(&name).is_some_and(|it| Some(it) != root("self")) {
            Self::OfOtherRoot
        } else {
            Self::Same
        }
    }
}

fn describe_tracer(status: &[u8]) -> Option<String> {
    let pid = status_field(status, "TracerPid")?.parse().ok().filter(|pid| *pid != 0).map(Pid::from_raw)?;
    let name = proc::stat(pid).ok().flatten().map(|stat| stat.name).unwrap_or_default();
    Some(format!("{} (PID {pid})", quote(OsStr::from_bytes(&name))))
}

impl Seccomp {
    fn parse(status: &[u8]) -> Self {
        let number = |name| status_field(status, name).and_then(|text| text.parse().ok());
        Self { mode: number("Seccomp").unwrap_or(0), filters: number("Seccomp_filters") }
    }
}

/// `None`: it has ended.
fn try_access(pid: Pid) -> Option<nix::Result<()>> {
    let opened = File::open(format!("/proc/{pid}/mem"));
    match opened.map(drop).map_err(|error| errno(&error)) {
        Err(Errno::ENOENT | Errno::ESRCH) => None,
        other => Some(other),
    }
}

/// The byte of an ELF program that says how large its addresses are: elf(5), `EI_CLASS`.
fn read_class(pid: Pid) -> Option<u8> {
    let mut header = [0; 5];
    File::open(format!("/proc/{pid}/exe")).and_then(|mut program| program.read_exact(&mut header)).ok()?;
    header.starts_with(b"\x7fELF").then_some(header[4])
}

fn read_yama() -> u32 {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    scope.ok().and_then(|scope| scope.trim().parse().ok()).unwrap_or(0)
}

/// Decides.
fn judge(facts: &Facts) -> Result<(), Refusal> {
    let refuse = |reason: &str| Err(Refusal { reason: reason.to_owned(), is_for_root: false });
    if !IS_SUPPORTED {
        return refuse("not supported on this processor yet");
    }
    match facts.kind {
        Kind::KernelThread => return refuse("it is a kernel thread"),
        Kind::InOtherPidNamespace => {
            return refuse("it is in another PID namespace (a container); run detach inside it");
        }
        Kind::Program => (),
    }
    if let Some(tracer) = &facts.tracer {
        return refuse(&format!("it is already being traced by {tracer}"));
    }
    if let Err(errno) = facts.access {
        return Err(explain_denial(facts, errno));
    }
    match facts.files {
        Files::OfOtherMountNamespace => {
            return refuse("it is in another mount namespace (a container); run detach inside it");
        }
        Files::OfOtherRoot => return refuse("it has another root directory (chroot), so it cannot open the log"),
        Files::Same => (),
    }
    if has_own_filter(facts) {
        return refuse("it has a seccomp filter of its own, which could kill it for a system call that detach needs");
    }
    if facts.is_64_bit == Some(false) {
        return refuse("it is a 32-bit program, which is not supported");
    }
    Ok(())
}

/// Whether its calls are filtered in another way than our own: the filters of a container apply to both.
fn has_own_filter(facts: &Facts) -> bool {
    let (its, own) = (facts.seccomp, facts.own_seccomp);
    its.mode != 0 && its != own
}

fn explain_denial(facts: &Facts, errno: Errno) -> Refusal {
    let Users { own, real, effective, saved } = facts.users;
    let (reason, is_for_root) = if own == 0 {
        (format!("not even root may trace it: {}", reason(errno)), false)
    } else if real != own {
        (format!("it belongs to user {real}"), true)
    } else if effective != own || saved != own {
        (format!("it runs with the rights of user {effective} (setuid)"), true)
    } else {
        let (clause, is_for_root) = match facts.yama {
            1 => ("only root may trace a running process here", true),
            2 => ("only root may trace processes here", true),
            3 => ("no process may be traced here until the next boot", false),
            _ => return Refusal { reason: format!("it cannot be traced: {}", reason(errno)), is_for_root: true },
        };
        (format!("{clause} (kernel.yama.ptrace_scope is {})", facts.yama), is_for_root)
    };
    Refusal { reason, is_for_root }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that may be let go of.
    fn willing() -> Facts {
        Facts {
            kind: Kind::Program,
            tracer: None,
            seccomp: Seccomp::default(),
            own_seccomp: Seccomp::default(),
            files: Files::Same,
            is_64_bit: Some(true),
            users: Users { own: 1000, real: 1000, effective: 1000, saved: 1000 },
            access: Ok(()),
            yama: 0,
        }
    }

    fn with_access(errno: Errno, users: [u32; 4], yama: u32) -> Facts {
        let [own, real, effective, saved] = users;
        Facts { access: Err(errno), users: Users { own, real, effective, saved }, yama, ..willing() }
    }

    #[test]
    fn denied_access_has_a_reason_and_where_it_helps_a_hint() {
        let same = [1000; 4];
        for (facts, reason, is_for_root) in [
            (
                with_access(Errno::EACCES, same, 1),
                "only root may trace a running process here (kernel.yama.ptrace_scope is 1)",
                true,
            ),
            (
                with_access(Errno::EACCES, same, 2),
                "only root may trace processes here (kernel.yama.ptrace_scope is 2)",
                true,
            ),
            (
                with_access(Errno::EACCES, same, 3),
                "no process may be traced here until the next boot (kernel.yama.ptrace_scope is 3)",
                false,
            ),
            (with_access(Errno::EACCES, same, 0), "it cannot be traced: permission denied", true),
            (with_access(Errno::EACCES, [1000, 7, 7, 7], 1), "it belongs to user 7", true),
            (with_access(Errno::EACCES, [1000, 1000, 0, 0], 1), "it runs with the rights of user 0 (setuid)", true),
            (with_access(Errno::EPERM, [0; 4], 0), "not even root may trace it: operation not permitted", false),
        ] {
            assert_eq!(judge(&facts), Err(Refusal { reason: reason.to_owned(), is_for_root }));
        }
    }

    #[test]
    fn filter_of_the_container_is_that_of_both() {
        let filtered = |mode, filters| Seccomp { mode, filters };
        for (its, own, is_refused) in [
            (filtered(0, Some(0)), filtered(0, Some(0)), false),
            (filtered(2, Some(1)), filtered(2, Some(1)), false),
            (filtered(2, Some(2)), filtered(2, Some(1)), true),
            (filtered(2, Some(1)), filtered(0, Some(0)), true),
            (filtered(1, None), filtered(0, None), true),
            // Before Linux 5.9, nothing tells how many there are.
            (filtered(2, None), filtered(2, None), false),
            (filtered(0, Some(0)), filtered(2, Some(1)), false),
        ] {
            let facts = Facts { seccomp: its, own_seccomp: own, ..willing() };
            assert_eq!(judge(&facts).is_err(), is_refused && IS_SUPPORTED, "{its:?} {own:?}");
        }
    }
}
