//! Ethernet: the processor's controller with a LAN8742A at its other end, as the version of smoltcp that the boards share
//! asks for it. The driver implements an older version of the same traits.

use core::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    sync::atomic::{AtomicBool, Ordering},
};

use smoltcp_of_hal::{
    phy::{Device as _, RxToken as _, TxToken as _},
    time::Instant as DriversInstant,
    wire::EthernetAddress as DriversAddress,
};
use stm32h7xx_hal::{
    ethernet::{self, DesRing, EthernetDMA, PHY, PinsRMII, phy::LAN8742A},
    pac::{ETHERNET_DMA, ETHERNET_MAC, ETHERNET_MTL, Interrupt, interrupt},
    rcc::{CoreClocks, rec},
    signature::Uid,
};
use wasmbed_board::smoltcp::{
    phy::{self, DeviceCapabilities, Medium},
    time::Instant,
    wire::EthernetAddress,
};

/// Frames that wait in each direction.
const FRAMES: usize = 4;
/// The address of the LAN8742A on the management bus (UM2407, section 6.10).
const PHY_ADDRESS: u8 = 0;

type Rings = DesRing<FRAMES, FRAMES>;
type Dma = EthernetDMA<FRAMES, FRAMES>;

/// Descriptors and frames, where the controller reaches them.
struct RingMemory(UnsafeCell<MaybeUninit<Rings>>);

// SAFETY: it is handed out once, by `Network::start`, which takes the one controller.
unsafe impl Sync for RingMemory {}

#[unsafe(link_section = ".sram3.ethernet")]
static RINGS: RingMemory = RingMemory(UnsafeCell::new(MaybeUninit::uninit()));

/// The controller's interrupt came.
static NEWS: AtomicBool = AtomicBool::new(false);

/// The controller.
pub struct Network {
    dma: Dma,
    address: EthernetAddress,
}

impl Network {
    /// Starts the controller and the negotiation with whatever the cable leads to.
    pub fn start(
        (mac, mtl, dma): (ETHERNET_MAC, ETHERNET_MTL, ETHERNET_DMA),
        pins: impl PinsRMII,
        peripheral: rec::Eth1Mac,
        clocks: &CoreClocks,
    ) -> Self {
        let address = address(Uid::read());
        // SAFETY: the controller's registers exist once, so that this runs once.
        let rings = unsafe { &mut *RINGS.0.get() };
        let rings = rings.write(Rings::new());
        let (dma, mac) =
            ethernet::new(mac, mtl, dma, pins, rings, DriversAddress(address.0), peripheral, clocks);
        let mut transceiver = LAN8742A::new(mac.set_phy_addr(PHY_ADDRESS));
        transceiver.phy_reset();
        transceiver.phy_init();
        // SAFETY: it lets the controller ask for its interrupt, for which there is a handler.
        unsafe { ethernet::enable_interrupt() };
        // SAFETY: no code relies on its being masked: its handler touches what nobody else does, and an atomic.
        unsafe { cortex_m::peripheral::NVIC::unmask(Interrupt::ETH) };
        Self { dma, address }
    }

    /// The controller's own address.
    pub fn address(&self) -> EthernetAddress {
        self.address
    }

    /// Whether a frame came or went since the last call.
    pub fn take_news(&mut self) -> bool {
        NEWS.swap(false, Ordering::Relaxed)
    }
}

/// A locally administered address, from the processor's unique id.
fn address(id: &[u8; 12]) -> EthernetAddress {
    // FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/
    let hash = id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [_, _, a, b, c, d, e, _] = hash.to_be_bytes();
    EthernetAddress([0x02, a, b, c, d, e])
}

#[interrupt]
fn ETH() {
    // SAFETY: it tells the controller that it was heard.
    unsafe { ethernet::interrupt_handler() };
    NEWS.store(true, Ordering::Relaxed);
}

/// A frame that came.
pub struct Received<'a>(<Dma as smoltcp_of_hal::phy::Device>::RxToken<'a>);

/// Room for a frame.
pub struct Room<'a>(<Dma as smoltcp_of_hal::phy::Device>::TxToken<'a>);

impl phy::Device for Network {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Room<'_>)> {
        let (received, room) = self.dma.receive(DriversInstant::ZERO)?;
        Some((Received(received), Room(room)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        self.dma.transmit(DriversInstant::ZERO).map(Room)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let drivers = self.dma.capabilities();
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = drivers.max_transmission_unit;
        capabilities.max_burst_size = drivers.max_burst_size;
        capabilities
    }
}

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        self.0.consume(|bytes| read(bytes))
    }
}

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        self.0.consume(length, write)
    }
}
