//! A cell that is written once, by a process that may be killed while it writes.
//!
//! `std::sync::OnceLock` waits for a writer that has begun, and would wait forever for one that was killed. Nothing
//! waits here: a cell whose writer did not finish stays empty.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering};

const EMPTY: u32 = 0;
const WRITING: u32 = 1;
const FULL: u32 = 2;

/// A value that one process writes and another one, which shares the memory, may read.
pub struct Once<T: Copy> {
    state: AtomicU32,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: only the one that has moved the state from EMPTY to WRITING writes the value, and it is read only once the
// state is FULL, after which nothing writes it.
unsafe impl<T: Copy + Send> Sync for Once<T> {}

impl<T: Copy> Default for Once<T> {
    fn default() -> Self {
        Self { state: AtomicU32::new(EMPTY), value: UnsafeCell::new(MaybeUninit::uninit()) }
    }
}

impl<T: Copy> Once<T> {
    /// Sets the value, unless another process has done so or has begun to.
    pub fn set(&self, value: T) {
        if self.state.compare_exchange(EMPTY, WRITING, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            // SAFETY: this is the only writer, and nothing reads before the state is FULL.
            unsafe { self.value.get().write(MaybeUninit::new(value)) };
            self.state.store(FULL, Ordering::Release);
        }
    }

    pub fn get(&self) -> Option<T> {
        if self.state.load(Ordering::Acquire) != FULL {
            return None;
        }
        // SAFETY: nothing writes the value any more.
        let value = unsafe { self.value.get().read() };
        // SAFETY: it has been written whole.
        Some(unsafe { value.assume_init() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_value_stays() {
        let once = Once::default();
        assert_eq!(once.get(), None);
        once.set(7);
        once.set(8);
        assert_eq!(once.get(), Some(7));
    }

    #[test]
    fn writer_that_was_killed_holds_up_nobody() {
        let once = Once::<u64>::default();
        once.state.store(WRITING, Ordering::Relaxed);
        once.set(8);
        assert_eq!(once.get(), None);
    }
}
