//! A seam for tests, only in debug builds: detach is killed where a test wants it to be.
//!
//! `DETACH_KILL_AT=N` in the environment kills detach at the Nth place that it passes, as SIGKILL may at any place. Its
//! forks (`fork_off`) are left alone. Release builds contain none of this.

#[cfg(debug_assertions)]
mod counting {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use crate::sys::allocator::is_owner;

    static PASSED: AtomicUsize = AtomicUsize::new(0);

    pub fn pass() {
        if !is_owner() {
            return;
        }
        let number = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
        let wanted = std::env::var("DETACH_KILL_AT").ok().and_then(|text| text.parse().ok());
        if wanted == Some(number) {
            let _ = kill(Pid::this(), Signal::SIGKILL);
        }
    }
}

/// A place where it matters what is left behind.
pub fn pass() {
    #[cfg(debug_assertions)]
    counting::pass();
}
