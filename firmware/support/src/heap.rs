//! The system's heap. What allocates from it aborts without memory; applications have no part in it.

use core::{
    alloc::{GlobalAlloc, Layout},
    sync::atomic::{AtomicUsize, Ordering},
};

use embedded_alloc::LlffHeap;

/// It remembers the most that was asked for at once.
struct CountingHeap {
    heap: LlffHeap,
    bytes: AtomicUsize,
    used: AtomicUsize,
    peak: AtomicUsize,
}

/// Without memory at first: every allocation fails.
#[global_allocator]
static HEAP: CountingHeap = CountingHeap {
    heap: LlffHeap::empty(),
    bytes: AtomicUsize::new(0),
    used: AtomicUsize::new(0),
    peak: AtomicUsize::new(0),
};

/// Gives it its memory, once, before the first allocation.
pub fn start(memory: &'static mut [u8]) {
    HEAP.bytes.store(memory.len(), Ordering::Relaxed);
    // SAFETY: the memory is nobody else's for ever. A second call panics within.
    unsafe { HEAP.heap.init(memory.as_mut_ptr() as usize, memory.len()) }
}

/// Bytes of its memory.
pub fn bytes() -> usize {
    HEAP.bytes.load(Ordering::Relaxed)
}

/// The most bytes that were in use at once.
pub fn peak_bytes() -> usize {
    HEAP.peak.load(Ordering::Relaxed)
}

// SAFETY: every call is handed on as it came; counting touches no memory of the heap.
unsafe impl GlobalAlloc for CountingHeap {
    // Inlined into every place that allocates, the two are 8 KB of code.
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this very function.
        let block = unsafe { self.heap.alloc(layout) };
        if !block.is_null() {
            let used = self.used.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
            self.peak.fetch_max(used, Ordering::Relaxed);
        }
        block
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.used.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { self.heap.dealloc(block, layout) };
    }
}
