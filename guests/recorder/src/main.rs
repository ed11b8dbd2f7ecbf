//! Counts seconds in an EEPROM (24C256) and logs what the clock beside it (DS1307, DS1338) says. Needs the capability `i2c` and, of the
//! bus `i2c1`, the addresses 0x50 and 0x68.
#![no_std]
#![no_main]

use core::time::Duration;

use ds1307::{Ds1307, Rtcc};
use eeprom24x::{Eeprom24x, SlaveAddr};
use wasmbed_guest::{entry, i2c, log, wait};

entry!(main);

const BUS: i2c::Bus = i2c::Bus::new(1);
const PAUSE: Duration = Duration::from_secs(1);
/// Where the count is in the EEPROM, at the start of a page.
const COUNT_AT: u32 = 0x40;
/// An EEPROM answers nobody while it writes.
const WRITE_TIME: Duration = Duration::from_millis(5);

/// What both drivers may fail with.
enum Failed {
    Clock,
    Memory,
}

fn main() {
    let mut clock = Ds1307::new(BUS);
    let mut memory = Eeprom24x::new_24x256(BUS, SlaveAddr::default());
    loop {
        let mut record = || {
            let (minutes, seconds) =
                clock.minutes().and_then(|m| Ok((m, clock.seconds()?))).map_err(|_| Failed::Clock)?;
            let mut count = [0; 4];
            memory.read_data(COUNT_AT, &mut count).map_err(|_| Failed::Memory)?;
            let next = u32::from_le_bytes(count).wrapping_add(1);
            memory.write_page(COUNT_AT, &next.to_le_bytes()).map_err(|_| Failed::Memory)?;
            wait(WRITE_TIME);
            Ok((minutes, seconds, next))
        };
        match record() {
            Ok((minutes, seconds, count)) => log!("{minutes:02}:{seconds:02}, record {count}"),
            Err(Failed::Clock) => log!("the clock does not answer"),
            Err(Failed::Memory) => log!("the EEPROM does not answer"),
        }
        wait(PAUSE);
    }
}
