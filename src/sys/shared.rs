//! Memory that a process shares with those that it forks.

use std::num::NonZeroUsize;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

/// Moves `value` into memory that is still shared after a fork: mmap(2), `MAP_SHARED`. It is never unmapped.
pub fn share<T: Sync>(value: T) -> nix::Result<&'static T> {
    let size = NonZeroUsize::new(size_of::<T>()).ok_or(Errno::EINVAL)?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: without an address, the kernel chooses one where nothing is mapped.
    let place = unsafe { mmap_anonymous(None, size, access, MapFlags::MAP_SHARED) }?.cast::<T>();
    // SAFETY: the mapping is new, has the size of a T, and begins on a page, which suits every alignment.
    unsafe { place.write(value) };
    // SAFETY: a T was written there, and nothing ever unmaps it. Both processes use it through this type alone, which
    // is made for several users at once (`Sync`).
    Ok(unsafe { place.as_ref() })
}
