//! The system's heap. What allocates from it aborts without memory; applications have no part in it.

use core::{cell::UnsafeCell, mem::MaybeUninit};

use embedded_alloc::LlffHeap;

/// Bytes of the heap.
const BYTES: usize = 160 * 1_024;

#[global_allocator]
static HEAP: LlffHeap = LlffHeap::empty();

struct Space(UnsafeCell<MaybeUninit<[u8; BYTES]>>);

// SAFETY: only the heap touches it, which guards itself.
unsafe impl Sync for Space {}

#[unsafe(link_section = ".uninit.heap")]
static SPACE: Space = Space(UnsafeCell::new(MaybeUninit::uninit()));

/// Gives the heap its memory.
///
/// # Safety
/// It may be called once, before the first allocation.
pub unsafe fn start() {
    // SAFETY: the space is nobody else's, and the caller says that it is given once.
    unsafe { HEAP.init(SPACE.0.get() as usize, BYTES) }
}
