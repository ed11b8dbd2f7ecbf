//! Starts a board's image in QEMU with blank flash and waits until it says that it was not provisioned: drivers and the data
//! flash work then, and that is all an image without an identity can be asked for.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use wasmbed_emulator::{Emulator, Kind, Options};

use crate::process;

/// It takes a tenth of a second; a machine that is busy with other things may take longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the console says of blank flash.
const SIGN: &str = "ERROR this board can't work: the flash holds no identity";

/// Boots an ELF file; files that it needs go into `folder`.
pub(crate) fn boot(board: Kind, elf: &Path, folder: &Path) -> Result<()> {
    process::step(&format!("{board} boots in QEMU and reads its flash"));
    let flash = folder.join(format!("{board}.data"));
    if flash.exists() {
        std::fs::remove_file(&flash).with_context(|| format!("can't remove {}", flash.display()))?;
    }
    let emulator = Emulator::start(&Options::new(board, elf.to_owned(), flash))?;
    emulator.wait_for_line("that it holds no identity", PATIENCE, |line| {
        println!("    | {line}");
        line.starts_with(SIGN)
    })?;
    Ok(())
}
