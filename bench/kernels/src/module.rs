//! The module's exports.
#![expect(unsafe_code, reason = "exports have names that nothing mangles")]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

macro_rules! exports {
    ($($name:ident = $function:path,)+) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name(amount: u32) -> u32 {
            $function(amount)
        }
    )+};
}

exports! { fib = crate::fib, crc = crate::crc, sha = crate::sha, mat = crate::mat, mix = crate::mix, }

#[cfg(feature = "coremark")]
mod allocating {
    use core::{
        alloc::{GlobalAlloc, Layout},
        cell::{Cell, UnsafeCell},
        ptr::null_mut,
    };

    exports! { coremark = iterate, }

    const BYTES: usize = 4_096;

    /// Hands out memory from its beginning to its end, until all is taken back at once.
    #[repr(align(16))]
    struct Heap {
        memory: UnsafeCell<[u8; BYTES]>,
        used: Cell<usize>,
    }

    // SAFETY: a module has one thread.
    unsafe impl Sync for Heap {}

    #[global_allocator]
    static HEAP: Heap = Heap { memory: UnsafeCell::new([0; BYTES]), used: Cell::new(0) };

    // SAFETY: each block lies within the memory, behind those before it.
    unsafe impl GlobalAlloc for Heap {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let start = self.used.get().next_multiple_of(layout.align());
            if layout.align() > align_of::<Self>() || start + layout.size() > BYTES {
                return null_mut();
            }
            self.used.set(start + layout.size());
            self.memory.get().cast::<u8>().wrapping_add(start)
        }

        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
    }

    fn iterate(iterations: u32) -> u32 {
        // Nothing is left of the call before.
        HEAP.used.set(0);
        crate::coremark::coremark(iterations)
    }
}
