//! The memory that a board's file sets aside, and how much of the system's own was used.

use wasmbed_board::Memory;

use crate::{heap, stack};

/// Makes `HEAP_MEMORY` and `ARENA`, the system's heap and the applications' memory, as large as a board's file says and where it says.
#[macro_export]
macro_rules! memory {
    ($board:expr) => {
        #[unsafe(link_section = ".heap")]
        static HEAP_MEMORY: $crate::region::Region<{ $board.heap.bytes as usize }> =
            $crate::region::Region::new();

        #[unsafe(link_section = ".arena")]
        static ARENA: $crate::region::Region<{ $board.arena.bytes as usize }> = $crate::region::Region::new();
    };
}

/// Sizes and peaks of heap and stack.
pub fn usage() -> Memory {
    Memory {
        heap_bytes: heap::bytes(),
        heap_peak_bytes: heap::peak_bytes(),
        stack_bytes: stack::bytes(),
        stack_peak_bytes: stack::peak_bytes(),
    }
}
