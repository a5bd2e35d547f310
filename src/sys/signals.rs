//! Signals: dispositions, the mask, and pending signals, as in sigaction(2) and sigprocmask(2).
//!
//! Some calls go directly to the kernel, because the C library hides signals 32 and 33, which it uses for threads. A
//! command must find these two in their default state as well.

use std::mem::MaybeUninit;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::set_dumpable;
use nix::sys::signal::{SigSet, Signal, raise};

/// The size of the kernel's signal set, in bytes.
pub const SET_SIZE: usize = 8;

/// What a signal does to a process: sigaction(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// `SIG_DFL`
    Default,
    /// `SIG_IGN`
    Ignored,
}

/// Makes this process ignore hangups and able to wait for its child, and blocks every other signal.
///
/// A child inherits all three: there is no moment in which SIGHUP could end it, and no other signal reaches it before
/// [`unblock`].
pub fn prepare() -> nix::Result<()> {
    ignore(Signal::SIGHUP)?;
    // A caller that ignores SIGCHLD would have the kernel discard the child's status: wait(2).
    set_sigchld(Disposition::Default)?;
    set_mask(u64::MAX)
}

/// What happens when a child of this process ends.
pub fn set_sigchld(to: Disposition) -> nix::Result<()> {
    set_disposition(libc::SIGCHLD, to)
}

/// Makes this process ignore a signal. Its children inherit that.
pub fn ignore(signal: Signal) -> nix::Result<()> {
    set_disposition(signal as i32, Disposition::Ignored)
}

/// Gives every signal the disposition that a command expects: SIGHUP ignored, SIGCHLD as asked for, all others default.
pub fn reset_dispositions(sigchld: Disposition) -> nix::Result<()> {
    for number in 1..=libc::SIGRTMAX() {
        if let Some(disposition) = disposition_for_command(number, sigchld) {
            set_disposition(number, disposition)?;
        }
    }
    Ok(())
}

/// Unblocks every signal, and discards those that are pending: they were sent to the process group that the child has
/// left, or come from a limit that detach itself has met (SIGXFSZ), and were never meant for the command. POSIX drops a
/// pending signal when it is ignored.
pub fn unblock(sigchld: Disposition) -> nix::Result<()> {
    let pending = pending_signals()?;
    for number in (1..=libc::SIGRTMAX()).filter(|number| pending >> (number - 1) & 1 == 1) {
        if let Some(disposition) = disposition_for_command(number, sigchld) {
            set_disposition(number, Disposition::Ignored)?;
            set_disposition(number, disposition)?;
        }
    }
    set_mask(0)
}

/// What signal `number` is to do to a command; `None` for those that cannot be changed.
fn disposition_for_command(number: i32, sigchld: Disposition) -> Option<Disposition> {
    match number {
        libc::SIGKILL | libc::SIGSTOP => None,
        libc::SIGHUP => Some(Disposition::Ignored),
        libc::SIGCHLD => Some(sigchld),
        _ => Some(Disposition::Default),
    }
}

/// What a signal does to this process now. detach catches none that are sent, so what is not ignored counts as default.
pub fn disposition(signal: Signal) -> Disposition {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with a null new action, sigaction only writes the old one to `old`, which is valid for that.
    let result = unsafe { libc::sigaction(signal as i32, std::ptr::null(), old.as_mut_ptr()) };
    // SAFETY: all bits zero is a valid sigaction, so `old` is initialized whether the call has written or not.
    let old = unsafe { old.assume_init() };
    if result == 0 && old.sa_sigaction == libc::SIG_IGN { Disposition::Ignored } else { Disposition::Default }
}

/// Ends this process as `signal` would have ended it, but without a core file of detach, so that a calling shell sees
/// that it was interrupted and stops its loop as well. Returns if the signal has no effect, as for PID 1 of a
/// container.
pub fn die_of(signal: Signal) -> nix::Result<()> {
    set_dumpable(false)?;
    set_disposition(signal as i32, Disposition::Default)?;
    raise(signal)?;
    let mut only = SigSet::empty();
    only.add(signal);
    only.thread_unblock()
}

/// rt_sigaction(2), for every number.
fn set_disposition(number: i32, to: Disposition) -> nix::Result<()> {
    let handler = match to {
        Disposition::Default => libc::SIG_DFL,
        Disposition::Ignored => libc::SIG_IGN,
    };
    // The kernel's own struct sigaction: handler, flags, a restorer on some processors, and a mask of 64 bits. Without
    // a handler, everything after the first word is zero, so the layouts of all processors but MIPS agree.
    let action: [usize; 5] = [handler, 0, 0, 0, 0];
    let no_old_action = std::ptr::null_mut::<usize>();
    // SAFETY: `action` is at least as large as the kernel's struct, and no function of ours becomes a handler.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, number, action.as_ptr(), no_old_action, SET_SIZE) };
    Errno::result(result).map(drop)
}

/// rt_sigprocmask(2): blocks the signals of `set`, in which bit N-1 stands for signal N, and no others.
fn set_mask(set: u64) -> nix::Result<()> {
    let no_old_set = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel reads the 8 bytes of `set`.
    let result =
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const set, no_old_set, SET_SIZE) };
    Errno::result(result).map(drop)
}

/// rt_sigpending(2): as for [`set_mask`].
fn pending_signals() -> nix::Result<u64> {
    let mut set = 0_u64;
    // SAFETY: the kernel writes 8 bytes to `set`.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set, SET_SIZE) };
    Errno::result(result).map(|_| set)
}
