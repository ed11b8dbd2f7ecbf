//! What the drivers of Ethernet controllers share that hand over whole frames.

use smoltcp::phy::{DeviceCapabilities, Medium, RxToken};

/// Destination, source, type and 1,500 bytes.
pub const FRAME_BYTES_MAX: usize = 1_514;

/// What the network is told of a controller that takes and gives one frame at a time and computes no checksums.
#[must_use]
pub fn capabilities() -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ethernet;
    capabilities.max_transmission_unit = FRAME_BYTES_MAX;
    capabilities
}

/// A frame that came, copied out of its controller.
#[derive(Debug)]
pub struct Received<'a>(pub &'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}
