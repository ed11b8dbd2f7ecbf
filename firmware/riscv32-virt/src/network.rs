//! The network controller: virtio-net.

use virtio_drivers::{
    device::net::VirtIONet,
    transport::{DeviceType, mmio::MmioTransport},
};
use wasmbed_board::{
    ethernet::{self, FRAME_BYTES_MAX, Received},
    smoltcp::{
        phy::{self, DeviceCapabilities},
        time::Instant,
        wire::EthernetAddress,
    },
};
use wasmbed_firmware_support::register::Block;

use crate::virtio::{self, Direct};

// SAFETY: the machine has the interrupt controller at this address.
const PLIC: Block = unsafe { Block::new(0x0c00_0000) };
/// Of the first processor's machine mode.
const PLIC_ENABLE: usize = 0x2000;
const PLIC_THRESHOLD: usize = 0x20_0000;
const PLIC_CLAIM: usize = 0x20_0004;

/// Frames that wait on either side.
const QUEUE: usize = 8;
/// A frame and virtio's header.
const BUFFER_BYTES: usize = 1_536;

/// The controller. There is one.
pub struct Network {
    chip: VirtIONet<Direct, MmioTransport<'static>, QUEUE>,
    received: [u8; FRAME_BYTES_MAX],
    lost: u32,
}

/// The machine has no such device, or it does not work as virtio says.
pub struct NotThere;

impl Network {
    /// Finds the controller and lets its interrupt through to the processor.
    pub fn start() -> Result<Self, NotThere> {
        let (transport, interrupt) = virtio::find(DeviceType::Network).ok_or(NotThere)?;
        let mut chip = VirtIONet::new(transport, BUFFER_BYTES).map_err(|_| NotThere)?;
        chip.enable_interrupts();
        PLIC.write(4 * interrupt as usize, 1);
        PLIC.write(PLIC_ENABLE, 1 << interrupt);
        PLIC.write(PLIC_THRESHOLD, 0);
        Ok(Self { chip, received: [0; FRAME_BYTES_MAX], lost: 0 })
    }

    /// Its own address.
    pub fn address(&self) -> EthernetAddress {
        EthernetAddress(self.chip.mac_address())
    }

    /// Frames that did not get through.
    pub fn lost(&self) -> u32 {
        self.lost
    }

    /// Whether a frame waits; if not, the next one makes an interrupt.
    pub fn has_frame(&mut self) -> bool {
        // Cleared before looking: a frame that comes in between sets it again.
        self.chip.ack_interrupt();
        let claimed = PLIC.read(PLIC_CLAIM);
        if claimed != 0 {
            PLIC.write(PLIC_CLAIM, claimed);
        }
        self.chip.can_recv()
    }

    fn take_frame(&mut self) -> Option<usize> {
        let buffer = self.chip.receive().ok()?;
        let frame = buffer.packet();
        let bytes = frame.len();
        let space = self.received.get_mut(..bytes);
        let fits = space.map(|space| space.copy_from_slice(frame)).is_some();
        let given_back = self.chip.recycle_rx_buffer(buffer).is_ok();
        if !fits || !given_back {
            self.lost = self.lost.wrapping_add(1);
        }
        fits.then_some(bytes)
    }
}

impl phy::Device for Network {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Room<'_>)> {
        // A frame stays where it is until its answer has room.
        if !self.chip.can_send() {
            return None;
        }
        let bytes = self.take_frame()?;
        Some((Received(&self.received[..bytes]), Room { chip: &mut self.chip, lost: &mut self.lost }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        self.chip.can_send().then_some(Room { chip: &mut self.chip, lost: &mut self.lost })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        ethernet::capabilities()
    }
}

/// Room for a frame.
pub struct Room<'a> {
    chip: &'a mut VirtIONet<Direct, MmioTransport<'static>, QUEUE>,
    lost: &'a mut u32,
}

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, bytes: usize, fill: F) -> R {
        let mut buffer = self.chip.new_tx_buffer(bytes);
        let result = fill(buffer.packet_mut());
        if self.chip.send(buffer).is_err() {
            *self.lost = self.lost.wrapping_add(1);
        }
        result
    }
}
