//! A lock for a few instructions.
#![allow(unsafe_code, reason = "the value behind the lock")]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// On a device there is one thread and it is always free; on a host the thread that owns a sandbox is the only one that
/// asks for its arena.
pub(super) struct Lock<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `with` hands out the value to one thread at a time, so sharing the lock only moves the value between threads.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    pub(super) fn new(value: T) -> Lock<T> {
        Lock { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    pub(super) fn with<R>(&self, use_it: impl FnOnce(&mut T) -> R) -> R {
        struct Release<'a>(&'a AtomicBool);
        impl Drop for Release<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }
        while self.taken.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            core::hint::spin_loop();
        }
        let _release = Release(&self.taken);
        // SAFETY: `taken` was false and is now true by this thread; every other one waits above until `_release`.
        use_it(unsafe { &mut *self.value.get() })
    }
}
