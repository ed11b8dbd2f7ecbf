//! The MPS2 board with the AN385 image (Arm DAI 0385D): a Cortex-M3 at 25 MHz, as QEMU's `mps2-an385` emulates it. Memory map,
//! drivers, faults; so far it brings the board up, reads its identity and takes an address from the network.
//!
//! It may not hold logic that a host test could run.

#![no_std]
#![no_main]

mod clock;
mod fault;
mod flash;
mod heap;
mod lan9118;
mod note;
mod register;
mod uart;
mod watchdog;

use core::fmt::{self, Write};

use cortex_m::{interrupt::InterruptNumber, peripheral::NVIC};
use cortex_m_rt::{entry, exception};
use smoltcp::{
    iface::{Config, Interface, SocketSet, SocketStorage},
    phy::Device,
    socket::dhcpv4,
    time::Instant,
};
use wasmbed_flash::{FlashStorage, boards, provision};

use crate::{flash::DataFlash, lan9118::Lan9118};

/// The processor's clock and that of its peripherals.
const CLOCK_HZ: u32 = 25_000_000;
/// Longer than anything that the loop does at once, by far.
const WATCHDOG_MS: u32 = 8_000;
/// A sleep ends after this long at the latest.
const SLEEP_US_MAX: u64 = 500_000;

/// An interrupt by its number.
#[derive(Clone, Copy)]
struct Interrupt(u16);

// SAFETY: the numbers come from the interrupt controller itself or from AN385's table 3-3, so that it has them.
unsafe impl InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self.0
    }
}

/// AN385, table 3-3.
const ETHERNET: Interrupt = Interrupt(13);

/// Every interrupt only ends a sleep; whoever sleeps next lets it through again.
#[exception]
unsafe fn DefaultHandler(number: i16) {
    if let Ok(number) = u16::try_from(number) {
        NVIC::mask(Interrupt(number));
    }
}

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        uart::write(text.as_bytes());
        Ok(())
    }
}

macro_rules! line {
    ($($part:tt)*) => {
        // The console takes everything.
        let _ = writeln!(Console, $($part)*);
    };
}

#[entry]
fn main() -> ! {
    // SAFETY: this runs once, and nothing has allocated yet.
    unsafe { heap::start() };
    uart::start();
    clock::start();
    match note::take() {
        Some(note) => {
            line!("WARN started again reason={} detail=\"{}\"", note.reason(), note.text());
        }
        None => {
            line!("INFO started reason=power_on");
        }
    }
    watchdog::arm(WATCHDOG_MS);
    // SAFETY: this runs once.
    let flash = unsafe { DataFlash::new() };
    match FlashStorage::open(flash, boards::MPS2_AN385) {
        Ok(storage) => say_identity(&storage),
        Err(error) => {
            line!("ERROR data flash does not open reason=\"{error}\"");
        }
    }
    match (Lan9118::start(), cortex_m::Peripherals::take()) {
        (Ok(network), Some(core)) => serve(network, core),
        (Err(lan9118::NotThere), _) => fault::end(note::Kind::Fault, format_args!("no LAN9118")),
        (_, None) => fault::end(note::Kind::Fault, format_args!("core peripherals were taken")),
    }
}

fn say_identity(storage: &FlashStorage<DataFlash>) {
    match provision::decode(storage.identity()) {
        Ok(identity) => {
            line!("INFO provisioned board={} gateways={}", identity.board, identity.gateways.len());
        }
        Err(error) => {
            line!("WARN not provisioned reason=\"{error}\"");
        }
    }
}

fn serve(mut network: Lan9118, mut core: cortex_m::Peripherals) -> ! {
    let now = || Instant::from_micros_const(clock::now_us().cast_signed());
    let mut interface = Interface::new(Config::new(network.address().into()), &mut network, now());
    let mut storage = [SocketStorage::EMPTY; 1];
    let mut sockets = SocketSet::new(&mut storage[..]);
    let dhcp = sockets.add(dhcpv4::Socket::new());
    let mtu = network.capabilities().max_transmission_unit;
    line!("INFO network address={} mtu={mtu}", network.address());
    loop {
        watchdog::feed();
        interface.poll(now(), &mut network, &mut sockets);
        match sockets.get_mut::<dhcpv4::Socket<'_>>(dhcp).poll() {
            Some(dhcpv4::Event::Configured(config)) => {
                line!("INFO lease address={} faults={:?}", config.address, network.faults());
            }
            Some(dhcpv4::Event::Deconfigured) => {
                line!("WARN no lease faults={:?}", network.faults());
            }
            None => {}
        }
        let delay = interface.poll_delay(now(), &sockets).map_or(SLEEP_US_MAX, |delay| delay.total_micros());
        sleep(&network, &mut core, delay.min(SLEEP_US_MAX));
    }
}

/// Sleeps until something happens, or for this long.
fn sleep(network: &Lan9118, core: &mut cortex_m::Peripherals, delay_us: u64) {
    let until_us = clock::now_us() + delay_us;
    cortex_m::interrupt::free(|_| {
        if !network.has_frame() {
            // SAFETY: no code relies on its being masked: its handler does nothing but mask it again.
            unsafe { NVIC::unmask(ETHERNET) };
            clock::sleep_masked(&mut core.SYST, until_us);
        }
    });
}
