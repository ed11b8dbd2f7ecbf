//! Where the engine's allocations go right now: a pointer to the space of the load under way, null outside of a load. The
//! engine's allocator functions have no argument for it.

pub(super) use imp::{clear, get, set};

/// One pointer for each thread.
#[cfg(feature = "std")]
mod imp {
    use core::cell::Cell;
    use core::ptr;

    std::thread_local! {
        static OWNER: Cell<*const ()> = const { Cell::new(ptr::null()) };
    }

    pub(crate) fn get() -> *const () {
        OWNER.with(Cell::get)
    }

    pub(crate) fn set(space: *const ()) {
        OWNER.with(|owner| owner.set(space));
    }

    pub(crate) fn clear() {
        set(ptr::null());
    }
}

/// One pointer. Without threads to tell apart, one load waits for the other.
#[cfg(not(feature = "std"))]
mod imp {
    use core::ptr;
    use core::sync::atomic::{AtomicPtr, Ordering};

    static OWNER: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

    pub(crate) fn get() -> *const () {
        OWNER.load(Ordering::Acquire)
    }

    pub(crate) fn set(space: *const ()) {
        while OWNER
            .compare_exchange_weak(ptr::null_mut(), space.cast_mut(), Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            core::hint::spin_loop();
        }
    }

    pub(crate) fn clear() {
        OWNER.store(ptr::null_mut(), Ordering::Release);
    }
}
