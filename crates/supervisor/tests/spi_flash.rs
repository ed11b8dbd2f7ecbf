//! A flash chip on an SPI bus, of which a test is the model, and a driver from crates.io in a module: the chip does what it was told when
//! it is let go of, so that what the driver reads back shows when it was selected.
#![cfg(test)]

mod support;

use std::{cell::RefCell, rc::Rc};

use embedded_hal_nb::{
    nb,
    spi::{ErrorKind, ErrorType, FullDuplex},
};
use support::*;
use wasmbed_supervisor::{
    memory::SharedBus,
    platform::spi::{Device, Lines, Words},
};

/// `guests/archive`: the crate `w25q32jv` on `spi0.0`.
const ARCHIVE: &[u8] = include_bytes!("../../../guests/prebuilt/archive.wasm");

const WRITE_ENABLE: u8 = 0x06;
const READ_STATUS: u8 = 0x05;
const READ: u8 = 0x03;
const PROGRAM: u8 = 0x02;
const ERASE_SECTOR: u8 = 0x20;
const SECTOR_BYTES: usize = 4_096;

/// The first sector of a W25Q32JV (Winbond, revision F, section 8).
struct Flash {
    sector: Vec<u8>,
    is_write_enabled: bool,
    /// Looks at the status until it is no longer busy.
    busy: u32,
    /// What came since it was selected.
    heard: Option<Vec<u8>>,
    answer: Option<u8>,
    erases: u32,
}

impl Flash {
    fn address(heard: &[u8]) -> Option<usize> {
        let [_, high, middle, low, ..] = heard else { return None };
        Some(usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low))
    }

    /// A byte comes, and one goes for it.
    fn exchange(&mut self, byte: u8) -> u8 {
        let heard = self.heard.as_mut().expect("it is selected");
        let index = heard.len();
        heard.push(byte);
        match (heard[0], index) {
            (READ_STATUS, 1..) => {
                let status = u8::from(self.busy > 0) | u8::from(self.is_write_enabled) << 1;
                self.busy = self.busy.saturating_sub(1);
                status
            }
            (READ, 4..) if self.busy == 0 => {
                let address = Self::address(heard).expect("it has come") + index - 4;
                self.sector[address % SECTOR_BYTES]
            }
            // Nobody drives the line.
            _ => 0xff,
        }
    }

    fn let_go(&mut self) {
        let Some(heard) = self.heard.take().filter(|_| self.busy == 0) else { return };
        match (heard.first(), Self::address(&heard)) {
            (Some(&WRITE_ENABLE), None) if heard.len() == 1 => self.is_write_enabled = true,
            (Some(&ERASE_SECTOR), Some(_)) if heard.len() == 4 && self.is_write_enabled => {
                self.sector.fill(0xff);
                self.erases += 1;
                (self.is_write_enabled, self.busy) = (false, 5);
            }
            (Some(&PROGRAM), Some(address)) if self.is_write_enabled => {
                for (offset, byte) in heard[4..].iter().enumerate() {
                    self.sector[(address + offset) % SECTOR_BYTES] &= byte;
                }
                (self.is_write_enabled, self.busy) = (false, 2);
            }
            _ => {}
        }
    }
}

struct Driver(Rc<RefCell<Flash>>);

impl Lines for Driver {
    fn select(&mut self, device: Device) -> bool {
        // As it is granted.
        assert_eq!(device, Device { chip_select: 0, mode: 3, clock_khz: 500 });
        self.0.borrow_mut().heard = Some(Vec::new());
        true
    }

    fn release(&mut self) {
        self.0.borrow_mut().let_go();
    }
}

impl ErrorType for Driver {
    type Error = ErrorKind;
}

impl FullDuplex<u8> for Driver {
    fn read(&mut self) -> nb::Result<u8, ErrorKind> {
        self.0.borrow_mut().answer.take().ok_or(nb::Error::WouldBlock)
    }

    fn write(&mut self, word: u8) -> nb::Result<(), ErrorKind> {
        let mut flash = self.0.borrow_mut();
        flash.answer = Some(flash.exchange(word));
        Ok(())
    }
}

#[test]
fn a_driver_from_crates_io_keeps_a_count_in_a_flash_chip() {
    let flash = Flash {
        sector: vec![0xff; SECTOR_BYTES],
        is_write_enabled: false,
        busy: 0,
        heard: None,
        answer: None,
        erases: 0,
    };
    let flash = Rc::new(RefCell::new(flash));
    let mut world = World::new();
    let words = Words::new(Driver(flash.clone()));
    world.device.platform().peripherals.spi = Some(SharedBus(Rc::new(RefCell::new(words))));
    for start in 1..=3_u8 {
        let wanted = Wanted::bytes(ARCHIVE.to_vec());
        world.gateway.set(start, wanted.spi("spi0.0", 1_000));
        world.gateway.send_desired(&world.link);
        let said = format!("starts: {start}");
        world.until("it has counted", 30_000, |world| {
            world.gateway.logs.iter().any(|(from, .., line)| *from == uid(start) && *line == said)
        });
        world.gateway.remove(start);
        world.gateway.send_desired(&world.link);
        assert_eq!(flash.borrow().sector[..4], u32::from(start).to_le_bytes());
        assert_eq!(flash.borrow().erases, start.into());
    }
}
