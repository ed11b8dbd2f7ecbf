//! Memory that is set aside when the program is linked.

use core::{cell::UnsafeCell, mem::MaybeUninit};

/// So many bytes, for a static in a section that the start doesn't clear (`.uninit.…`).
#[repr(C, align(16))]
pub struct Region<const BYTES: usize>(UnsafeCell<MaybeUninit<[u8; BYTES]>>);

// SAFETY: the bytes are handed out once, by `take`.
unsafe impl<const BYTES: usize> Sync for Region<BYTES> {}

impl<const BYTES: usize> Region<BYTES> {
    /// A region that nobody has taken.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "statics are not made by Default")]
    pub const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }

    /// The region's bytes, cleared.
    ///
    /// # Safety
    /// It may be called once.
    #[expect(clippy::mut_from_ref, reason = "it is called once, says its contract")]
    pub unsafe fn take(&'static self) -> &'static mut [u8] {
        // SAFETY: the caller says that this is the only reference to the bytes.
        let bytes = unsafe { &mut *self.0.get() };
        // On the stack there is no room for an array to copy from.
        // SAFETY: the region is that long, and bytes of zero are an array of integers.
        unsafe { bytes.as_mut_ptr().write_bytes(0, 1) };
        // SAFETY: it was just written.
        unsafe { bytes.assume_init_mut() }
    }
}
