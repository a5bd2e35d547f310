//! Existing processes: waiting for children, and pidfds.
//!
//! A pidfd always refers to the same process: a wait or a signal reaches that process or none, even if its PID is
//! reused. Whether it is the process that is meant is checked after the pidfd was opened, by its identity (`proc`) or
//! by another look at it.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::sys::entry;
use crate::sys::proc::{self, Stat};

/// From linux/pidfd.h, since Linux 6.9.
const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 1 << 2;

/// Waits for the end of the child `pid`, if it is one, and removes it from the process table: waitpid(2).
pub fn reap(pid: Pid) {
    // SAFETY: waitpid writes nothing where it is given a null pointer.
    unsafe { libc::waitpid(pid.as_raw(), null_mut(), 0) };
}

/// Whether the child `pid` has ended; it stays in the process table, so that no other process gets its PID. ECHILD: it
/// is no child of this process. See waitid(2).
pub fn has_child_ended(pid: Pid) -> nix::Result<bool> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: waitid writes a siginfo_t to `info`, which is valid for that.
    let result = unsafe { libc::waitid(libc::P_PID, pid.as_raw().unsigned_abs(), info.as_mut_ptr(), options) };
    Errno::result(result)?;
    // SAFETY: all bits zero is a valid siginfo_t, so it is initialized whether the call has written or not.
    let info = unsafe { info.assume_init() };
    // SAFETY: for a child that has ended the field is its PID; where none has, it is the zero from before.
    Ok(unsafe { info.si_pid() } != 0)
}

/// What a process and the descendants that it has waited for have used: getrusage(2).
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// The largest resident set of one of them, in bytes.
    pub peak_memory: u64,
}

/// Whether a wait for a child returns at once when none has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Block,
    Return,
}

/// The next child that has ended, which this removes from the process table: wait4(2). `None` when none has ended yet;
/// ECHILD when there are no children.
pub fn reap_any(wait: Wait) -> nix::Result<Option<(Pid, ExitStatus, Usage)>> {
    let options = if wait == Wait::Return { libc::WNOHANG } else { 0 };
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: wait4 writes one number to `status` and an rusage to `usage`; both pointers are valid for that.
    let reaped = unsafe { libc::wait4(-1, &raw mut status, options, usage.as_mut_ptr()) };
    let reaped = Errno::result(reaped)?;
    // SAFETY: all bits zero is a valid rusage, so it is initialized whether the call has written or not.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    let cpu = time(usage.ru_utime) + time(usage.ru_stime);
    let usage = Usage { cpu, peak_memory: usage.ru_maxrss.unsigned_abs() * 1024 };
    Ok((reaped != 0).then(|| (Pid::from_raw(reaped), ExitStatus::from_raw(status), usage)))
}

/// Waits for children that have ended, until `pid` is among them. Returns whether `pid` is still running. The others
/// were there before the exec of this program, or are orphans.
pub fn reap_all_until(pid: Pid) -> nix::Result<bool> {
    loop {
        match reap_any(Wait::Return) {
            Ok(Some((ended, ..))) if ended == pid => return Ok(false),
            Ok(Some(_)) => (),
            Ok(None) => return Ok(true),
            Err(Errno::ECHILD) => return Ok(false),
            Err(errno) => return Err(errno),
        }
    }
}

/// A process, held by a pidfd.
#[derive(Debug)]
pub struct Held {
    pub pid: Pid,
    pidfd: OwnedFd,
}

impl Held {
    /// The process that has `pid` now, if there is one.
    pub fn open(pid: Pid) -> nix::Result<Option<Self>> {
        match open_pidfd(pid) {
            Err(Errno::ESRCH) => Ok(None),
            other => other.map(|pidfd| Some(Self { pid, pidfd })),
        }
    }

    /// The process that has `pid` now, if it lives and `is_wanted`: that is asked when its PID can no longer come to
    /// mean another one.
    pub fn if_is(pid: Pid, is_wanted: impl Fn(&Stat) -> bool) -> nix::Result<Option<Self>> {
        let Some(held) = Self::open(pid)? else { return Ok(None) };
        let is_it = proc::stat(pid)?.is_some_and(|stat| !stat.is_dead() && is_wanted(&stat));
        // A process that ended between the open and the look may have left its PID to the one that was looked at.
        Ok((is_it && held.exists()).then_some(held))
    }

    /// Sends it the signal with this number. That it has ended already is no error.
    pub fn signal(&self, signal: i32) -> nix::Result<()> {
        match send_signal(&self.pidfd, signal, 0) {
            Err(Errno::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// Sends the signal to every process of the process group that it leads or led, atomically, so that no fork
    /// escapes. ESRCH: there is none. EINVAL: the kernel is older than Linux 6.9.
    pub fn signal_group(&self, signal: i32) -> nix::Result<()> {
        send_signal(&self.pidfd, signal, PIDFD_SIGNAL_PROCESS_GROUP)
    }

    /// Waits for its end, at most until `deadline`. Returns whether it has ended.
    pub fn wait(&self, deadline: Option<Instant>) -> nix::Result<bool> {
        loop {
            let left = time_left(deadline);
            let mut awaited = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            wait_for(&mut awaited, left)?;
            let [pidfd] = awaited;
            if pidfd.any() == Some(true) {
                return Ok(true);
            }
            if left == PollTimeout::ZERO {
                return Ok(false);
            }
        }
    }

    /// Whether it has ended. A failed poll(2) says nothing, so it counts as running.
    pub fn has_ended(&self) -> bool {
        self.wait(Some(Instant::now())).unwrap_or(false)
    }

    /// Whether it is still there, perhaps as a zombie: then no other process has its PID.
    fn exists(&self) -> bool {
        send_signal(&self.pidfd, 0, 0) != Err(Errno::ESRCH)
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// pidfd_open(2)
fn open_pidfd(pid: Pid) -> nix::Result<OwnedFd> {
    let no_flags = 0;
    // SAFETY: pidfd_open takes no pointer.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), no_flags) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the call has just made this descriptor, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// pidfd_send_signal(2)
fn send_signal(pidfd: &OwnedFd, signal: i32, flags: u32) -> nix::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without information about the sender, the kernel fills that in as for kill(2).
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, flags) };
    Errno::result(result).map(drop)
}

/// Sets the file mode creation mask, and returns the old one: umask(2). Only a filter of system calls can refuse that;
/// the function of nix would end the program then.
pub fn set_umask(mask: Mode) -> nix::Result<Mode> {
    // SAFETY: umask takes no pointer.
    let old = unsafe { libc::umask(mask.bits()) };
    Mode::from_bits(old).ok_or_else(Errno::last)
}

/// Runs `body` in a copy of this process, which ends after it: fork(2). No destructor runs there.
pub fn fork_off(body: impl FnOnce()) -> nix::Result<Pid> {
    // SAFETY: there is no other thread that could hold a lock, and the copy runs `body` and ends.
    let pid = Errno::result(unsafe { libc::fork() })?;
    if pid == 0 {
        // This is the copy.
        body();
        entry::exit(0);
    }
    Ok(Pid::from_raw(pid))
}

/// Lets this process have as many descriptors as it may: getrlimit(2).
pub fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// poll(2), for callers that look again afterwards: it may return early.
pub fn wait_for(descriptors: &mut [PollFd], timeout: PollTimeout) -> nix::Result<()> {
    match poll(descriptors, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The time until `deadline` for poll(2), which counts milliseconds in an int: rounded up, else the last part of a
/// millisecond would be a busy loop.
pub fn time_left(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => PollTimeout::ZERO,
        left => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
    }
}
