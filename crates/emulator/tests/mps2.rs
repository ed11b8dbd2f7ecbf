//! A few instructions of machine code on QEMU's `mps2-an385`, whose PSRAM in a file plays the flash.
#![cfg(test)]

use std::{error::Error, time::Duration};

use wasmbed_emulator::{Emulator, Options};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Prints the first byte of the flash and a new line, then writes 'B' there and sleeps.
fn machine_code() -> Vec<u8> {
    let code: [u16; 12] = [
        0x4805,        // ldr r0, uart
        0x4A06,        // ldr r2, flash
        0x2101,        // movs r1, #1
        0x6081,        // str r1, [r0, #8]: enable transmission
        0x6813,        // ldr r3, [r2]
        0x6003,        // str r3, [r0]
        0x2100 | 10,   // movs r1, '\n'
        0x6001,        // str r1, [r0]
        0x2100 | 0x42, // movs r1, 'B'
        0x6011,        // str r1, [r2]
        0xBF30,        // wfi
        0xE7FD,        // b to the wfi
    ];
    let vectors = [0x2001_0000_u32, 9].map(u32::to_le_bytes);
    let literals = [0x4000_4000_u32, 0x2100_0000].map(u32::to_le_bytes);
    [vectors.concat(), code.map(u16::to_le_bytes).concat(), literals.concat()].concat()
}

#[test]
fn a_board_keeps_what_it_wrote_over_a_reset_and_a_loss_of_power() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let firmware = folder.path().join("firmware.bin");
    std::fs::write(&firmware, machine_code())?;
    let options = Options::new("mps2-an385".parse()?, firmware, folder.path().join("flash.img"));
    let emulator = Emulator::start(&options)?;
    emulator.wait_for_line("the first start", TIMEOUT, |line| line == "\u{fffd}")?;
    emulator.set_link(false)?;
    emulator.reset()?;
    emulator.wait_for_line("the start after a reset", TIMEOUT, |line| line == "B")?;
    emulator.cut_power();
    assert_eq!(std::fs::read(&options.data_flash)?.first(), Some(&b'B'));
    let emulator = Emulator::start(&options)?;
    emulator.wait_for_line("the start after a loss of power", TIMEOUT, |line| line == "B")?;
    Ok(())
}
