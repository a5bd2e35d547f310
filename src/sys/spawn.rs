//! A child process that borrows the memory of its parent, as with posix_spawn(3) and vfork(2).
//!
//! No page table is copied, and the parent needs no pipe to learn what happened: the child writes it to memory. The
//! price is one rule. **Between clone and exec, the child allocates nothing, frees nothing and takes no lock**: SIGKILL
//! may end it between any two instructions, and the parent continues with the memory as it was left. So the child reads
//! what was prepared, writes atomics, and makes nothing but system calls.

use std::ffi::{c_int, c_void};
use std::num::NonZeroUsize;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sys::process::{has_child_ended, reap};

/// Room for what a child does before its exec. The kernel gives pages only where they are touched.
const STACK_SIZE: NonZeroUsize = NonZeroUsize::new(256 * 1024).unwrap();
/// The lowest part of that, which nothing may touch: as large as a page is anywhere.
const GUARD_SIZE: usize = 64 * 1024;

/// The stack of a child. It is never unmapped: the child stands on it until its exec, which may come after this process
/// has stopped waiting.
pub struct Stack {
    top: NonNull<c_void>,
}

impl Stack {
    pub fn map() -> nix::Result<Self> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without an address, the kernel chooses one where nothing is mapped.
        let bottom = unsafe { mmap_anonymous(None, STACK_SIZE, access, MapFlags::MAP_PRIVATE | MapFlags::MAP_STACK) }?;
        // SAFETY: the range is the lower part of the new mapping, and nothing refers to it yet.
        unsafe { mprotect(bottom, GUARD_SIZE, ProtFlags::PROT_NONE) }?;
        // SAFETY: one past the end of the mapping is still in bounds of it. Stacks grow down from there.
        let top = unsafe { bottom.byte_add(STACK_SIZE.get()) };
        Ok(Self { top })
    }
}

/// A process that borrows this memory, as the kernel reports it: clone(2).
#[derive(Default)]
pub struct Borrower {
    /// Written before the process runs (CLONE_PARENT_SETTID); 0 until then.
    pid: AtomicI32,
    /// Not 0 while the process uses the memory; cleared by the kernel at its exec or its end (CLONE_CHILD_CLEARTID).
    borrowing: AtomicU32,
}

impl Borrower {
    pub fn pid(&self) -> Option<Pid> {
        let pid = self.pid.load(Ordering::Acquire);
        (pid > 0).then(|| Pid::from_raw(pid))
    }

    /// Waits until the process has left the memory. When [`spawn`] returns, it has, unless an intermediate process that
    /// was suspended for it (CLONE_VFORK) was killed.
    pub fn wait_until_gone(&self) {
        let interval = libc::timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        loop {
            let borrowing = self.borrowing.load(Ordering::Acquire);
            let has_ended = || self.pid().is_none_or(|pid| has_child_ended(pid) == Ok(true));
            // A process that dumps core leaves without the kernel saying so, hence the second look.
            if borrowing == 0 || has_ended() {
                return;
            }
            let address = self.borrowing.as_ptr();
            // SAFETY: futex(2) reads the word and sleeps while it is unchanged; both pointers are valid meanwhile.
            unsafe { libc::syscall(libc::SYS_futex, address, libc::FUTEX_WAIT, borrowing, &raw const interval) };
        }
    }

    /// Kills the process and waits for its end, if it is a child of this process that has not been waited for: until
    /// then, no other process has its PID.
    pub fn end(&self) {
        let Some(pid) = self.pid() else { return };
        if has_child_ended(pid).is_ok() {
            let _ = kill(pid, Signal::SIGKILL);
            reap(pid);
        }
    }
}

/// Runs `body` in a child process, and returns its PID when the child has become another program or has ended. When
/// `body` returns, the child exits with status 1. Descriptors are copied, not borrowed.
///
/// No signal but SIGKILL may reach either process meanwhile: the caller has blocked all others.
///
/// # Errors
/// Those of clone(2); ENOSYS where the memory is not shared. valgrind and qemu-user turn this into a fork, in which the
/// reports of the child would be lost. The child then does nothing, or is killed at once.
pub fn spawn(stack: &Stack, borrower: &Borrower, body: &mut dyn FnMut()) -> nix::Result<Pid> {
    borrower.pid.store(0, Ordering::Release);
    borrower.borrowing.store(1, Ordering::Release);
    let flags =
        libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD;
    let mut beginning = Beginning { borrower, body };
    let argument = (&raw mut beginning).cast::<c_void>();
    let (pid, borrowing) = (borrower.pid.as_ptr(), borrower.borrowing.as_ptr());
    let no_tls = null_mut::<c_void>();
    // SAFETY: the child has a stack of its own. CLONE_VFORK holds this thread until the child has left the memory, and
    // there is no other thread. If this process is killed while it is suspended, its own parent may run beside the
    // child: it only reads what the child reads, and both write only atomics. `beginning` stays where it is, since the
    // stack of a process that was killed is never unmapped.
    let child = unsafe { libc::clone(run_body, stack.top.as_ptr(), flags, argument, pid, no_tls, borrowing) };
    let child = Errno::result(child).map(Pid::from_raw)?;
    // This is the parent; the child has left the memory.
    if borrower.borrowing.load(Ordering::Acquire) != 0 {
        borrower.pid.store(child.as_raw(), Ordering::Release);
        borrower.end();
        return Err(Errno::ENOSYS);
    }
    Ok(child)
}

/// What the child is given.
struct Beginning<'a> {
    borrower: &'a Borrower,
    body: &'a mut dyn FnMut(),
}

/// Where the child begins.
extern "C" fn run_body(argument: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes the address of its `beginning`, which is valid until the child has left the memory.
    let beginning = unsafe { &mut *argument.cast::<Beginning>() };
    // The kernel writes the PID to the memory of the parent. A child that does not see it has a copy from before, as
    // after fork(2), and leaves everything alone: the parent is not suspended, and would learn nothing.
    if beginning.borrower.pid().is_some() {
        (beginning.body)();
    }
    1
}
