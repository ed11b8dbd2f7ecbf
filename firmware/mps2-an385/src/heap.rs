//! The system's heap. What allocates from it aborts without memory; applications have no part in it.

use core::{
    alloc::{GlobalAlloc, Layout},
    cell::UnsafeCell,
    mem::MaybeUninit,
    sync::atomic::{AtomicUsize, Ordering},
};

use embedded_alloc::LlffHeap;

/// Bytes of the heap.
pub const BYTES: usize = 160 * 1_024;

#[global_allocator]
static HEAP: Counting =
    Counting { heap: LlffHeap::empty(), used: AtomicUsize::new(0), peak: AtomicUsize::new(0) };

/// Remembers the most that was asked for at once.
struct Counting {
    heap: LlffHeap,
    used: AtomicUsize,
    peak: AtomicUsize,
}

// SAFETY: every call is handed on as it came; counting touches no memory of the heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this very function.
        let block = unsafe { self.heap.alloc(layout) };
        if !block.is_null() {
            let used = self.used.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
            self.peak.fetch_max(used, Ordering::Relaxed);
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.used.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { self.heap.dealloc(block, layout) };
    }
}

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
    unsafe { HEAP.heap.init(SPACE.0.get() as usize, BYTES) }
}

/// The most bytes that were in use at once.
pub fn peak_bytes() -> usize {
    HEAP.peak.load(Ordering::Relaxed)
}
