//! A check in debug builds: a process that borrows the memory of its parent (`spawn`) must not allocate.
//!
//! The integration tests run a debug build, so each of their starts is checked. A process that breaks the rule reports
//! it and is killed, and its start fails. A release build contains none of this.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

struct OwnerAlone;

#[global_allocator]
static ALLOCATOR: OwnerAlone = OwnerAlone;

/// The process whose memory this is: the first one that allocates. 0 before that.
static OWNER: AtomicI32 = AtomicI32::new(0);

// SAFETY: all is left to `System`, which keeps the contract of the trait.
unsafe impl GlobalAlloc for OwnerAlone {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller keeps the conditions of this method, which are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        check();
        // SAFETY: the caller keeps the conditions of this method, which are the same.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Whether the memory is that of this process, and not a copy or borrowed.
pub fn is_owner() -> bool {
    OWNER.load(Ordering::Relaxed) == Pid::this().as_raw()
}

/// Kills this process if the memory is another's.
fn check() {
    let this = Pid::this();
    match OWNER.compare_exchange(0, this.as_raw(), Ordering::Relaxed, Ordering::Relaxed) {
        Err(owner) if owner != this.as_raw() => (),
        _ => return,
    }
    let message = b"detach: a process that borrows memory allocates or frees\n";
    // SAFETY: the pointer is valid for as many bytes.
    unsafe { libc::write(2, message.as_ptr().cast(), message.len()) };
    // Every other signal is blocked, and abort(3) takes a lock.
    let _ = kill(this, Signal::SIGKILL);
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use nix::sys::wait::{WaitStatus, waitpid};

    use crate::sys::spawn::{Borrower, Stack, spawn};

    use super::*;

    #[test]
    fn borrower_that_allocates_is_killed() {
        let run = |body: &mut dyn FnMut()| {
            let stack = Stack::map().unwrap_or_else(|_| unreachable!());
            let child = spawn(&stack, &Borrower::default(), body);
            child.and_then(|child| waitpid(child, None))
        };
        let allocated = run(&mut || drop(black_box(Box::new(7))));
        assert!(matches!(allocated, Ok(WaitStatus::Signaled(_, Signal::SIGKILL, false))), "{allocated:?}");
        let did_not = run(&mut || ());
        assert!(matches!(did_not, Ok(WaitStatus::Exited(_, 1))), "{did_not:?}");
    }
}
