//! The system's heap. What allocates from it aborts without memory; applications have no part in it.

use core::{
    alloc::{GlobalAlloc, Layout},
    sync::atomic::{AtomicUsize, Ordering},
};

use embedded_alloc::LlffHeap;

/// The heap of a board, as its `#[global_allocator]`. It remembers the most that was asked for at once.
pub struct CountingHeap {
    heap: LlffHeap,
    used: AtomicUsize,
    peak: AtomicUsize,
}

impl CountingHeap {
    /// A heap without memory: every allocation fails.
    #[must_use]
    pub const fn empty() -> Self {
        Self { heap: LlffHeap::empty(), used: AtomicUsize::new(0), peak: AtomicUsize::new(0) }
    }

    /// Gives it its memory, once, before the first allocation.
    pub fn start(&self, memory: &'static mut [u8]) {
        // SAFETY: the memory is nobody else's for ever. A second call panics within.
        unsafe { self.heap.init(memory.as_mut_ptr() as usize, memory.len()) }
    }

    /// The most bytes that were in use at once.
    pub fn peak_bytes(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

// SAFETY: every call is handed on as it came; counting touches no memory of the heap.
unsafe impl GlobalAlloc for CountingHeap {
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
