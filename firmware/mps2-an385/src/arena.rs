//! Memory of all applications together, of which the system's heap knows nothing.

use core::{cell::UnsafeCell, mem::MaybeUninit};

/// Bytes of it: what 1 MiB leaves beside the heap (160 KiB), the stack (96 KiB) and 64 KiB for all else.
pub const BYTES: usize = 704 * 1_024;

struct Space(UnsafeCell<MaybeUninit<[u8; BYTES]>>);

// SAFETY: it is handed out once, by `take`.
unsafe impl Sync for Space {}

#[unsafe(link_section = ".uninit.arena")]
static SPACE: Space = Space(UnsafeCell::new(MaybeUninit::uninit()));

/// The memory, cleared.
///
/// # Safety
/// It may be called once.
pub unsafe fn take() -> &'static mut [u8] {
    // SAFETY: the caller says that this is the only reference to the space.
    let space = unsafe { &mut *SPACE.0.get() };
    space.write([0; BYTES])
}
