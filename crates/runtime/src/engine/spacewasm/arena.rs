//! The applications' memory, and the one place with unsafe code: the engine allocates through two C functions without a
//! context, and takes a module's bytes as a raw pointer.
//!
//! An arena is one region apart from the system's heap. Every block in it carries its owner, a [`Space`], which holds the
//! quota of one application: exhaustion of either is an error of that load and touches no neighbour.
#![allow(unsafe_code, reason = "the engine's allocator hook, its raw chunks, and the region behind them")]

use alloc::alloc::{alloc, dealloc};
use alloc::sync::Arc;
use core::alloc::Layout;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use linked_list_allocator::Heap;
use spacewasm as sw;

use super::owner;
use crate::engine::lock::Lock;

/// Space in front of a block for its owner; also the largest alignment that a block can have.
const HEADER: usize = 2 * size_of::<usize>();
/// Below this there is no room for the region's own list.
const ARENA_BYTES_MIN: usize = 1_024;
/// Alignment of the region and of everything in it.
const ALIGN: usize = 16;

/// The region, once taken.
struct Region {
    start: Option<NonNull<u8>>,
    heap: Heap,
    /// Taken from the system's allocator, which gets it back.
    allocated: bool,
}

// SAFETY: `start` is memory that this struct alone owns; the heap's pointers lead into it.
unsafe impl Send for Region {}

struct Shared {
    bytes: usize,
    region: Lock<Region>,
}

impl Shared {
    fn layout(&self) -> Option<Layout> {
        Layout::from_size_align(self.bytes, ALIGN).ok()
    }

    /// A block of the region; takes the region from the system at the first call.
    fn take(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.region.with(|region| {
            if region.start.is_none() {
                let whole = self.layout()?;
                // SAFETY: `bytes` is at least ARENA_BYTES_MIN, so the layout is not of size zero.
                let start = NonNull::new(unsafe { alloc(whole) })?;
                region.start = Some(start);
                region.allocated = true;
                // SAFETY: the region is `bytes` long, ours alone, and freed only when the heap is gone with this struct.
                unsafe { region.heap.init(start.as_ptr(), self.bytes) };
            }
            region.heap.allocate_first_fit(layout).ok()
        })
    }

    /// # Safety
    /// `block` came from `take` of this region with the same layout and is not used any more.
    unsafe fn give_back(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: passed on to the caller of this function.
        self.region.with(|region| unsafe { region.heap.deallocate(block, layout) });
    }

    fn used_bytes(&self) -> usize {
        self.region.with(|region| if region.start.is_some() { region.heap.used() } else { 0 })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let start = self.region.with(|region| region.start.take().filter(|_| region.allocated));
        if let (Some(start), Some(layout)) = (start, self.layout()) {
            // SAFETY: taken in `take` with this layout; every Space and so every block holds this struct alive.
            unsafe { dealloc(start.as_ptr(), layout) };
        }
    }
}

/// Memory for the applications of one sandbox.
pub struct Arena(Arc<Shared>);

impl Arena {
    /// An arena of this size, at least 1,024 bytes. The memory is taken when the first block is.
    pub fn new(bytes: usize) -> Arena {
        let region = Lock::new(Region { start: None, heap: Heap::empty(), allocated: false });
        Arena(Arc::new(Shared { bytes: bytes.max(ARENA_BYTES_MIN), region }))
    }

    /// An arena in memory of its own, which the system's allocator knows nothing of. Less than 1,024 bytes are as good as
    /// none: every load is refused.
    pub fn within(memory: &'static mut [u8]) -> Arena {
        let skipped = memory.as_ptr().align_offset(ALIGN).min(memory.len());
        let (_, memory) = memory.split_at_mut(skipped);
        let bytes = memory.len() - memory.len() % ALIGN;
        let mut heap = Heap::empty();
        if bytes >= ARENA_BYTES_MIN {
            // SAFETY: the memory is exclusively ours for ever, and `bytes` of it are within.
            unsafe { heap.init(memory.as_mut_ptr(), bytes) };
        }
        let start = Some(NonNull::from(memory).cast());
        Arena(Arc::new(Shared { bytes, region: Lock::new(Region { start, heap, allocated: false }) }))
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> usize {
        self.0.used_bytes()
    }
}

/// Why a block was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Quota,
    Arena { needed_bytes: usize, free_bytes: usize },
}

/// One application's part of an arena.
pub(super) struct Space {
    arena: Arc<Shared>,
    heap_quota_bytes: usize,
    heap_used_bytes: AtomicUsize,
    linear_used_bytes: AtomicUsize,
    grows_refused: AtomicU32,
    refused: Lock<Option<Refused>>,
}

impl Space {
    pub(super) fn new(arena: &Arena, heap_quota_bytes: usize) -> Arc<Space> {
        Arc::new(Space {
            arena: arena.0.clone(),
            heap_quota_bytes,
            heap_used_bytes: AtomicUsize::new(0),
            linear_used_bytes: AtomicUsize::new(0),
            grows_refused: AtomicU32::new(0),
            refused: Lock::new(None),
        })
    }

    /// Bytes that the application holds.
    pub(super) fn used_bytes(&self) -> usize {
        self.heap_used_bytes.load(Ordering::Relaxed) + self.linear_used_bytes.load(Ordering::Relaxed)
    }

    /// The last refusal.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.refused.with(|refused| *refused)
    }

    pub(super) fn grows_refused(&self) -> u32 {
        self.grows_refused.load(Ordering::Relaxed)
    }

    fn refuse(&self, why: Refused) {
        self.refused.with(|refused| *refused = Some(why));
    }

    fn refuse_arena(&self, needed_bytes: usize) {
        let free_bytes = self.arena.bytes.saturating_sub(self.arena.used_bytes());
        self.refuse(Refused::Arena { needed_bytes, free_bytes });
    }

    fn block_layout(size: usize, align: usize) -> Option<Layout> {
        let whole = size.checked_add(HEADER)?;
        if align > HEADER { None } else { Some(Layout::from_size_align(whole, HEADER).ok()?.pad_to_align()) }
    }

    /// A block that belongs to this space. It must be given back before the space is dropped.
    fn allocate(&self, size: usize, align: usize) -> Option<NonNull<u8>> {
        let layout = Self::block_layout(size, align)?;
        let used = self.heap_used_bytes.load(Ordering::Relaxed);
        if used.checked_add(layout.size()).is_none_or(|all| all > self.heap_quota_bytes) {
            self.refuse(Refused::Quota);
            return None;
        }
        let Some(block) = self.arena.take(layout) else {
            self.refuse_arena(layout.size());
            return None;
        };
        self.heap_used_bytes.store(used + layout.size(), Ordering::Relaxed);
        // SAFETY: the block is HEADER + size bytes long and aligned to HEADER, which a pointer's alignment divides.
        unsafe { block.cast::<*const Space>().write(ptr::from_ref(self)) };
        // SAFETY: HEADER lies within the block, or at its end when `size` is zero.
        Some(unsafe { block.add(HEADER) })
    }
}

/// Gives a block back to the space in its header.
///
/// # Safety
/// `block` came from `Space::allocate` with this size and alignment, its space is alive, and it is not used any more.
unsafe fn release(block: NonNull<u8>, size: usize, align: usize) {
    let Some(layout) = Space::block_layout(size, align) else { return };
    // SAFETY: the caller says that the block has a header in front of it.
    let start = unsafe { block.sub(HEADER) };
    // SAFETY: `allocate` wrote the header.
    let owner = unsafe { start.cast::<*const Space>().read() };
    // SAFETY: the caller says that the space is alive.
    let space = unsafe { &*owner };
    space.heap_used_bytes.fetch_sub(layout.size(), Ordering::Relaxed);
    // SAFETY: `allocate` took the block with this layout from this arena.
    unsafe { space.arena.give_back(start, layout) };
}

/// Runs `build` with every allocation of the engine charged to `space`. Not to be nested. The engine allocates nowhere
/// else: outside of it, a request is refused.
pub(super) fn charge_to<R>(space: &Space, build: impl FnOnce() -> R) -> R {
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            owner::clear();
        }
    }
    owner::set(ptr::from_ref(space).cast());
    let _clear = Clear;
    build()
}

/// The engine's request for a block.
///
/// # Safety
/// `error` points to a number that may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn __spacewasm_alloc(size: usize, align: usize, error: *mut u32) -> *mut u8 {
    // SAFETY: the space set by `charge_to` outlives the call within which the engine asks; on a host without `std`
    // another thread's space may be found here only while that thread builds, and its arena is behind a lock.
    let space = unsafe { owner::get().cast::<Space>().as_ref() };
    match space.and_then(|space| space.allocate(size, align)) {
        Some(block) => block.as_ptr(),
        None => {
            // SAFETY: the caller's promise.
            unsafe { error.write(sw::AllocError::OutOfMemory.into()) };
            ptr::null_mut()
        }
    }
}

/// The engine gives a block back, on whichever thread its sandbox lives now.
///
/// # Safety
/// `block` is null or came from `__spacewasm_alloc` with this size and alignment and is not used any more.
#[unsafe(no_mangle)]
unsafe extern "C" fn __spacewasm_dealloc(block: *mut u8, size: usize, align: usize) {
    if let Some(block) = NonNull::new(block) {
        // SAFETY: the caller's promise; the space is alive because an Instance drops it last, after the engine.
        unsafe { release(block, size, align) };
    }
}

/// Linear memory, set aside as one block while loading: growing never moves it and never fails for a neighbour's sake.
pub(super) struct Linear {
    space: Arc<Space>,
    block: Option<NonNull<u8>>,
    bytes: usize,
}

impl Linear {
    pub(super) fn reserve(space: &Arc<Space>, bytes: usize) -> Option<Linear> {
        let bytes = bytes.checked_next_multiple_of(ALIGN)?;
        let mut linear = Linear { space: space.clone(), block: None, bytes };
        if bytes > 0 {
            let layout = Layout::from_size_align(bytes, ALIGN).ok()?;
            linear.block = space.arena.take(layout);
            if linear.block.is_none() {
                space.refuse_arena(bytes);
                return None;
            }
            space.linear_used_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Some(linear)
    }

    fn at_least(&self, bytes: usize) -> Result<NonNull<u8>, sw::AllocError> {
        match self.block {
            Some(block) if bytes <= self.bytes => Ok(block),
            _ => {
                self.space.grows_refused.fetch_add(1, Ordering::Relaxed);
                Err(sw::AllocError::OutOfMemory)
            }
        }
    }
}

impl sw::WasmMemoryAllocator for Linear {
    fn allocate(&self, layout: Layout) -> Result<NonNull<u8>, sw::AllocError> {
        self.at_least(layout.size())
    }

    fn reallocate(&self, _: NonNull<u8>, _: Layout, layout: Layout) -> Result<NonNull<u8>, sw::AllocError> {
        self.at_least(layout.size())
    }

    fn deallocate(&self, _: NonNull<u8>, _: Layout) {
        // The block goes back as a whole, below.
    }
}

impl Drop for Linear {
    fn drop(&mut self) {
        if let (Some(block), Ok(layout)) = (self.block, Layout::from_size_align(self.bytes, ALIGN)) {
            self.space.linear_used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
            // SAFETY: taken in `reserve` with this layout; the engine's Memory holds this struct alive and is gone.
            unsafe { self.space.arena.give_back(block, layout) };
        }
    }
}

/// A view of `bytes` in the form that the engine's reader takes. It must not be used once `bytes` is gone, nor be written
/// to; the reader does neither.
pub(super) fn chunk(bytes: &[u8]) -> sw::InnerVec<u8> {
    // SAFETY: pointer, capacity and length describe one slice, all of it initialised; an InnerVec neither frees nor drops.
    unsafe { sw::InnerVec::from_raw_parts(bytes.as_ptr().cast_mut(), bytes.len(), bytes.len()) }
}

/// Everything that belongs to one loaded module.
pub(super) struct Instance<S> {
    pub(super) engine: sw::Engine,
    pub(super) code: sw::CodeBuilder,
    pub(super) module: sw::ModuleRef,
    pub(super) slot: S,
    /// Last: the blocks of everything above carry its address.
    pub(super) space: Arc<Space>,
}

// SAFETY: the engine's reference counts and pointers, and the counts of `slot` (see `super::Slot`), are shared only among
// the fields of one Instance, so that all of them change threads together; `space` and the arena may be shared.
unsafe impl<S> Send for Instance<S> {}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn memory_of_the_boards_own_is_used_within_its_bounds_and_kept() {
        let memory = vec![0xa5; 8_192].leak();
        let bounds = memory.as_ptr_range();
        // From an odd address on, as a linker may place it.
        let arena = Arena::within(&mut memory[1..]);
        let layout = Layout::from_size_align(1_000, ALIGN).unwrap();
        let blocks: alloc::vec::Vec<_> = core::iter::from_fn(|| arena.0.take(layout)).collect();
        assert!((7..=8).contains(&blocks.len()), "{}", blocks.len());
        for block in &blocks {
            let start = block.as_ptr().cast_const();
            assert!(bounds.contains(&start) && bounds.end as usize - start as usize >= 1_000);
        }
        assert!(arena.used_bytes() >= 7_000);
        drop(arena);
    }

    #[test]
    fn too_little_memory_refuses_every_block() {
        let arena = Arena::within(vec![0; ARENA_BYTES_MIN - 1].leak());
        assert!(arena.0.take(Layout::from_size_align(16, ALIGN).unwrap()).is_none());
    }
}
