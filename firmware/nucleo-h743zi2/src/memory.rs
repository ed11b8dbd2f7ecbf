//! How the board's memory is divided.

use wasmbed_firmware_support::{heap::CountingHeap, region::Region};

/// Bytes of the system's heap.
pub(crate) const HEAP_BYTES: usize = 160 * 1_024;
/// Bytes of all applications together: AXI SRAM.
const ARENA_BYTES: usize = 512 * 1_024;

#[global_allocator]
pub(crate) static HEAP: CountingHeap = CountingHeap::empty();

#[unsafe(link_section = ".sram12.heap")]
pub(crate) static HEAP_MEMORY: Region<HEAP_BYTES> = Region::new();

#[unsafe(link_section = ".axisram.arena")]
pub(crate) static ARENA: Region<ARENA_BYTES> = Region::new();
