//! The system calls that make a command independent of the terminal, each as one small function: a child process
//! on borrowed memory, a new session, dispositions, the mask, descriptors; and those that look after it: waiting,
//! pidfds.
//!
//! With `begin`, this file alone holds unsafe code. It leaves the order of the steps to `sequence`, where it can be
//! read at a glance, and files to `streams` and `state`.

use std::fs;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sched::{CloneFlags, clone};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};
use nix::sys::prctl::{set_child_subreaper, set_dumpable, set_pdeathsig};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::unistd::{Pid, getppid, setpgid, setsid};

use crate::error::errno;

/// Room for what the child does before its exec. The kernel gives pages only where they are touched.
const CHILD_STACK: NonZeroUsize = NonZeroUsize::new(512 * 1024).unwrap();
/// The lowest part of that stack, which may not be touched: as large as a page is anywhere.
const STACK_GUARD: usize = 64 * 1024;
/// From linux/pidfd.h, since Linux 6.9.
const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 1 << 2;

/// What a signal does to a process, as in sigaction(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// `SIG_DFL`
    Default,
    /// `SIG_IGN`
    Ignored,
}

/// Runs `body` in a child process and returns its PID when the child has become another program or ended.
///
/// The child is what posix_spawn(3) and vfork(2) make: it borrows the memory of this process, which stands still
/// meanwhile. So the child needs no pipe to report: what `body` leaves in a variable, the caller finds there. What
/// `body` allocates and the exec leaves behind stays allocated, which nobody minds in a process that ends soon.
/// Descriptors are not borrowed but copied: each process closes its own. When `body` returns, the child exits.
///
/// No signal but SIGKILL reaches either process meanwhile, so a directory on a file system that does not answer
/// holds up both.
pub fn spawn(mut body: impl FnMut()) -> nix::Result<Pid> {
    let stack = map_child_stack()?;
    let child = Box::new(|| {
        body();
        1
    });
    // SAFETY: the child has a stack of its own, which nobody else uses or unmaps. CLONE_VFORK holds this thread
    // until the child has left the memory, and detach never starts another thread: no two ever use the memory at
    // once, and no lock is held by one that does not run. Only a child that has a child itself, and is killed
    // meanwhile, lets two of them run, until SIGKILL has reached the second as well: `die_with` is for that. A panic in
    // `body` ends the child at the C frame below.
    unsafe { clone(child, stack, CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK, Some(libc::SIGCHLD)) }
}

/// The stack of a child. It is not unmapped: this process ends soon, and its child stands on it until the exec.
fn map_child_stack() -> nix::Result<&'static mut [u8]> {
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: without an address, the kernel chooses one where nothing is.
    let bottom = unsafe { mmap_anonymous(None, CHILD_STACK, access, MapFlags::MAP_PRIVATE | MapFlags::MAP_STACK) }?;
    // SAFETY: the range is the lower part of what has just been mapped, and nothing refers to it yet.
    unsafe { mprotect(bottom, STACK_GUARD, ProtFlags::PROT_NONE) }?;
    // SAFETY: the guard is smaller than the mapping.
    let bottom = unsafe { bottom.cast::<u8>().add(STACK_GUARD) };
    // SAFETY: what is above the guard is readable, writable and zero, and this is the only reference to it.
    Ok(unsafe { std::slice::from_raw_parts_mut(bottom.as_ptr(), CHILD_STACK.get() - STACK_GUARD) })
}

/// Makes this process ignore hangups and able to wait for its child, and blocks every other signal.
///
/// The child inherits all three: there is no moment in which SIGHUP could end it, and no other signal reaches it
/// before [`unblock_signals`].
pub fn prepare_signals() -> nix::Result<()> {
    ignore(Signal::SIGHUP)?;
    // A caller that ignores SIGCHLD would have the kernel throw the child's status away: wait(2).
    set_disposition(libc::SIGCHLD, Disposition::Default)?;
    SigSet::all().thread_block()
}

/// Waits for the end of the child `pid` and removes it from the process table.
pub fn reap(pid: Pid) -> nix::Result<ExitStatus> {
    let mut status = 0;
    // SAFETY: waitpid writes one number to `status`.
    let reaped = unsafe { libc::waitpid(pid.as_raw(), &raw mut status, 0) };
    Errno::result(reaped).map(|_| ExitStatus::from_raw(status))
}

/// A child that has ended, if there is one, which this removes from the process table. The status is that of the
/// kernel: the types of nix know no real-time signals.
pub fn reap_any() -> nix::Result<Option<(Pid, ExitStatus)>> {
    let mut status = 0;
    // SAFETY: waitpid writes one number to `status`.
    let reaped = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match Errno::result(reaped)? {
        0 => Ok(None),
        pid => Ok(Some((Pid::from_raw(pid), ExitStatus::from_raw(status)))),
    }
}

/// What a process and the descendants that it has waited for have used: getrusage(2).
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// The largest resident set of one of them, in bytes.
    pub peak_memory: u64,
}

/// Waits for the end of the child `pid`, and removes it from the process table, and all children that end before.
pub fn reap_with_usage(pid: Pid) -> nix::Result<(ExitStatus, Usage)> {
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    let no_options = 0;
    loop {
        // SAFETY: wait4 writes one number to `status`, and to `usage`, which has room for it, what its type says.
        let reaped = unsafe { libc::wait4(-1, &raw mut status, no_options, usage.as_mut_ptr()) };
        // Any other is an orphan of `pid`, from the moment in which this process was a subreaper.
        if Errno::result(reaped)? == pid.as_raw() {
            break;
        }
    }
    // SAFETY: all bits zero is a valid rusage, so it is initialised whether the call has written or not.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    let cpu = time(usage.ru_utime) + time(usage.ru_stime);
    Ok((ExitStatus::from_raw(status), Usage { cpu, peak_memory: usage.ru_maxrss.unsigned_abs() * 1024 }))
}

/// A descriptor that stands for the process `pid`, and never for another one: pidfd_open(2).
pub fn open_pidfd(pid: Pid) -> nix::Result<OwnedFd> {
    let no_flags = 0;
    // SAFETY: pidfd_open takes no pointer.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), no_flags) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the call has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends the signal with this number to the process of `pidfd`: pidfd_send_signal(2).
pub fn send_signal(pidfd: &OwnedFd, signal: i32) -> nix::Result<()> {
    pidfd_send_signal(pidfd, signal, 0)
}

/// The same for the process group that it leads, or led.
pub fn send_signal_to_group(pidfd: &OwnedFd, signal: i32) -> nix::Result<()> {
    pidfd_send_signal(pidfd, signal, PIDFD_SIGNAL_PROCESS_GROUP)
}

fn pidfd_send_signal(pidfd: &OwnedFd, signal: i32, flags: u32) -> nix::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without information about its sender, the kernel fills that in as for kill(2).
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, flags) };
    Errno::result(result).map(drop)
}

/// Lets this process have as many descriptors as it may: getrlimit(2).
pub fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The number of columns of the terminal `fd`; `None` where it is none, or has no size.
pub fn columns(fd: BorrowedFd) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes a winsize, which `size` is.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then_some(size.ws_col.into())
}

/// Gives the pages of this program back to the kernel, which reads them again when they are needed: for a process that
/// waits for hours and needs none of them.
pub fn release_program() {
    unsafe extern "C" {
        // Provided by the linker: where the program begins, and where its code ends.
        safe static __executable_start: u8;
        safe static etext: u8;
    }
    let begin = (&raw const __executable_start).cast_mut();
    let length = (&raw const etext).addr().saturating_sub(begin.addr());
    // SAFETY: what is between the two is mapped from the file, read-only, and has never been written to: its pages
    // come back with the same content. The data of the program lie behind it.
    let _ = unsafe { libc::madvise(begin.cast(), length, libc::MADV_DONTNEED) };
}

/// Ends this process as `signal` would have ended it, but without a core file of detach, so that a calling shell sees
/// that it was interrupted and stops its loop as well. Returns when the signal does not come through, as for PID 1 of
/// a container.
pub fn die_of(signal: Signal) -> nix::Result<()> {
    set_dumpable(false)?;
    set_disposition(signal as i32, Disposition::Default)?;
    raise(signal)?;
    let mut only = SigSet::empty();
    only.add(signal);
    only.thread_unblock()
}

/// What a signal does to this process now. Nothing in it catches signals that are sent, so what is not ignored
/// counts as default.
pub fn disposition(of: Signal) -> Disposition {
    let mut old = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with a null new action, sigaction only writes the old one to `old`, which has room for it.
    let result = unsafe { libc::sigaction(of as i32, std::ptr::null(), old.as_mut_ptr()) };
    // SAFETY: all bits zero is a valid sigaction, so `old` is initialised whether the call has written or not.
    let old = unsafe { old.assume_init() };
    if result == 0 && old.sa_sigaction == libc::SIG_IGN { Disposition::Ignored } else { Disposition::Default }
}

/// Makes this process the leader of a new session and of a new process group, without a controlling terminal.
pub fn lead_new_session() -> nix::Result<Pid> {
    setsid()
}

/// Makes this process the leader of a new process group in its session.
pub fn lead_new_group() -> nix::Result<Pid> {
    let this = Pid::this();
    setpgid(this, this).map(|()| this)
}

/// Whether this process becomes the parent of every descendant whose own parent ends: a subreaper, see prctl(2).
pub fn set_subreaper(is_subreaper: bool) -> nix::Result<()> {
    set_child_subreaper(is_subreaper)
}

/// Ties this process to its parent, `parent`: it is killed when that ends. For a process on borrowed memory, which
/// would go on using it beside its owner. Fails if `parent` has ended already.
pub fn die_with(parent: Pid) -> nix::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH) }
}

/// Takes [`die_with`] back.
pub fn outlive_parent() -> nix::Result<()> {
    set_pdeathsig(None)
}

/// Makes this process ignore a signal, which its children inherit.
pub fn ignore(signal: Signal) -> nix::Result<()> {
    set_disposition(signal as i32, Disposition::Ignored)
}

/// Gives every signal the disposition that a command expects: SIGHUP ignored, SIGCHLD as asked, all others default.
pub fn reset_dispositions(sigchld: Disposition) -> nix::Result<()> {
    for number in 1..=libc::SIGRTMAX() {
        if let Some(disposition) = disposition_of_command(number, sigchld) {
            set_disposition(number, disposition)?;
        }
    }
    Ok(())
}

/// Lets every signal through again, but none that is pending: it was sent to the process group that the child has
/// left, or is the echo of a limit that detach itself has met (SIGXFSZ), and never meant for the command. POSIX drops
/// a pending signal when it is ignored.
pub fn unblock_signals(sigchld: Disposition) -> nix::Result<()> {
    let pending = pending_signals()?;
    for number in (1..=libc::SIGRTMAX()).filter(|number| is_member(&pending, *number)) {
        if let Some(disposition) = disposition_of_command(number, sigchld) {
            set_disposition(number, Disposition::Ignored)?;
            set_disposition(number, disposition)?;
        }
    }
    SigSet::empty().thread_set_mask()
}

/// What signal `number` is to do to a command; `None` for those that cannot be changed.
fn disposition_of_command(number: i32, sigchld: Disposition) -> Option<Disposition> {
    match number {
        libc::SIGKILL | libc::SIGSTOP => None,
        libc::SIGHUP => Some(Disposition::Ignored),
        libc::SIGCHLD => Some(sigchld),
        _ => Some(Disposition::Default),
    }
}

fn pending_signals() -> nix::Result<libc::sigset_t> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigpending writes a signal set to `set`, which has room for one.
    let result = unsafe { libc::sigpending(set.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: the call has succeeded and so has written the set.
    Ok(unsafe { set.assume_init() })
}

fn is_member(set: &libc::sigset_t, number: i32) -> bool {
    // SAFETY: `set` is a valid set; a number out of its range is answered with -1.
    unsafe { libc::sigismember(set, number) == 1 }
}

/// sigaction(2), for every number: the C library refuses 32 and 33, which it keeps for threads, and which a program
/// started through posix_spawn(3) can inherit ignored.
fn set_disposition(number: i32, to: Disposition) -> nix::Result<()> {
    let handler = match to {
        Disposition::Default => libc::SIG_DFL,
        Disposition::Ignored => libc::SIG_IGN,
    };
    // The kernel's own struct sigaction: handler, flags, restorer where there is one, and a mask of 64 bits. With
    // no handler to call, everything after the first word is zero, so the layouts of the architectures agree, all
    // but that of MIPS.
    let action: [usize; 5] = [handler, 0, 0, 0, 0];
    let no_old_action = std::ptr::null_mut::<usize>();
    let mask_bytes = 8_usize;
    // SAFETY: `action` is at least as large as the kernel's struct, and no function of ours becomes a handler.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, number, action.as_ptr(), no_old_action, mask_bytes) };
    Errno::result(result).map(drop)
}

/// Another descriptor of `file`, the lowest free one from `lowest` on, which stays open across an exec.
pub fn duplicate_from(file: impl AsFd, lowest: RawFd) -> nix::Result<OwnedFd> {
    let fd = fcntl(file, FcntlArg::F_DUPFD(lowest))?;
    // SAFETY: the call has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// stdin, stdout and stderr, without the buffers of `std::io`.
pub fn standard_streams() -> [BorrowedFd<'static>; 3] {
    // SAFETY: `begin::prepare` has made sure that the three are open; nothing closes them, `close_descriptors` neither.
    [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) })
}

/// Whether descriptor `fd` is open.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD takes no pointer and is answered with EBADF for a descriptor that is not open.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// Closes every descriptor from 3 on, except those of `keep`, which is sorted.
///
/// Now, not by the exec: the kernel lets the parent go on in the middle of that, before it closes anything.
pub fn close_descriptors(keep: &[RawFd]) -> nix::Result<()> {
    let mut first = 3;
    for fd in keep {
        if first < *fd {
            close_range(first, *fd - 1)?;
        }
        first = first.max(*fd + 1);
    }
    close_range(first, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> nix::Result<()> {
    let no_flags = 0;
    // SAFETY: close_range takes no pointers. In the child, nothing uses the descriptors of its own table any more.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, no_flags) };
    match Errno::result(result) {
        // The system call came with Linux 5.9.
        Err(Errno::ENOSYS) => close_listed_descriptors(first, last),
        other => other.map(drop),
    }
}

/// What [`close_range`] does, for kernels that cannot.
fn close_listed_descriptors(first: RawFd, last: RawFd) -> nix::Result<()> {
    for fd in list_descriptors()?.into_iter().filter(|fd| (first..=last).contains(fd)) {
        // SAFETY: as in `close_range`. The descriptor that has read the list is in it, and closed already.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// How many descriptors from 3 on are open and not in `keep`; `None` where /proc does not tell.
pub fn count_others(keep: &[RawFd]) -> Option<usize> {
    let open = list_descriptors().ok()?;
    Some(open.iter().filter(|fd| **fd > 2 && !keep.contains(fd) && is_open(**fd)).count())
}

/// The open descriptors, as /proc lists them, among them that of the list itself.
fn list_descriptors() -> nix::Result<Vec<RawFd>> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").map_err(|error| errno(&error))? {
        let name = entry.map_err(|error| errno(&error))?.file_name();
        open.extend(name.to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    Ok(open)
}
