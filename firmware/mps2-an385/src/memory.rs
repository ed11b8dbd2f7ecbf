//! How the board's memory is divided.

use wasmbed_firmware_support::{heap::CountingHeap, region::Region};

/// Bytes of the system's heap.
pub(crate) const HEAP_BYTES: usize = 160 * 1_024;
/// Bytes of all applications together: what 1 MiB leaves after the heap, the stack (96 KiB) and 64 KiB for all else.
const ARENA_BYTES: usize = 704 * 1_024;

#[global_allocator]
pub(crate) static HEAP: CountingHeap = CountingHeap::empty();

#[unsafe(link_section = ".uninit.heap")]
pub(crate) static HEAP_MEMORY: Region<HEAP_BYTES> = Region::new();

#[unsafe(link_section = ".uninit.arena")]
pub(crate) static ARENA: Region<ARENA_BYTES> = Region::new();
