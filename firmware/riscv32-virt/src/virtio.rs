//! The machine's eight places for virtio devices, and memory that they share with the program.

use core::{
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering},
};

use virtio_drivers::{
    BufferDirection, Hal, PAGE_SIZE, PhysAddr,
    device::rng::VirtIORng,
    transport::{
        DeviceType, Transport,
        mmio::{MmioTransport, VirtIOHeader},
    },
};
use wasmbed_firmware_support::region::Region;

const FIRST: usize = 0x1000_1000;
const STRIDE: usize = 0x1000;
const PLACES: usize = 8;
/// Pages for queues: two each of the network's two and the random source's one.
const PAGES: usize = 6;

/// One more page, for the alignment.
#[unsafe(link_section = ".uninit.queues")]
static QUEUES: Region<{ (PAGES + 1) * PAGE_SIZE }> = Region::new();
/// Pages given out.
static GIVEN: AtomicUsize = AtomicUsize::new(0);

/// Physical addresses are the program's own.
pub struct Direct;

// SAFETY: pages come from a region that nothing else uses, each once; buffers are shared where they are.
unsafe impl Hal for Direct {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let first = GIVEN.fetch_add(pages, Ordering::Relaxed);
        if first + pages > PAGES {
            // An address of zero is the driver's way to say that there is no memory.
            return (0, NonNull::dangling());
        }
        let start = (&raw const QUEUES as usize).next_multiple_of(PAGE_SIZE) + first * PAGE_SIZE;
        let page = NonNull::new(start as *mut u8).unwrap_or(NonNull::dangling());
        // SAFETY: these pages are within the region and were not given out before.
        unsafe { page.write_bytes(0, pages * PAGE_SIZE) };
        (start as PhysAddr, page)
    }

    /// What the random source had stays unused.
    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(address as usize as *mut u8).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.as_ptr().cast::<u8>() as usize as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// A device of a kind, and the number of its interrupt.
pub fn find(kind: DeviceType) -> Option<(MmioTransport<'static>, u32)> {
    (0..PLACES).find_map(|place| {
        let header = NonNull::new((FIRST + place * STRIDE) as *mut VirtIOHeader)?;
        // SAFETY: the machine has a virtio device, or an empty place that says so, at each of these addresses.
        let transport = unsafe { MmioTransport::new(header, STRIDE) }.ok()?;
        (transport.device_type() == kind).then_some((transport, place as u32 + 1))
    })
}

/// Random bytes of the machine; false if it has no source.
pub fn entropy(seed: &mut [u8]) -> bool {
    let Some((transport, _)) = find(DeviceType::EntropySource) else { return false };
    let Ok(mut source) = VirtIORng::<Direct, _>::new(transport) else { return false };
    let mut filled = 0;
    while let Some(rest) = seed.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.request_entropy(rest) {
            Ok(count @ 1..) => filled += count,
            Ok(0) | Err(_) => return false,
        }
    }
    true
}
