//! `wasmbed device --board`, as a person runs it, with a few instructions of machine code in place of firmware.

use std::path::Path;

use anyhow::{Result, ensure};
use wasmbed_e2e::{Process, wasmbed};
use wasmbed_emulator::Kind;
use wasmbed_flash::provision::{Identity, decode};
use wasmbed_pki::Authorities;

/// Prints a line like firmware's on the first serial port of QEMU's `virt`, and sleeps.
fn firmware(folder: &Path) -> Result<()> {
    let addi = |register: u32, value: u32| value << 20 | register << 7 | 0x13;
    let mut code = vec![0x1000_02B7]; // lui x5, 0x10000
    for byte in b"INFO hello from machine code\n" {
        code.extend([addi(7, u32::from(*byte)), 0x0072_8023]); // sb x7, 0(x5)
    }
    code.extend([0x1050_0073, 0xFFDF_F06F]); // wfi, and back to it
    let bytes: Vec<u8> = code.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    Ok(std::fs::write(folder.join("riscv32-virt.elf"), bytes)?)
}

#[test]
fn a_board_starts_with_an_identity_prints_to_the_log_and_ends_with_a_signal() -> Result<()> {
    let dir = tempfile::tempdir()?;
    firmware(dir.path())?;
    let authorities = Authorities::create_or_open(&dir.path().join("pki"), "wasmbed")?;
    let identity = authorities.issue_device("default", "board-1")?;
    identity.write(dir.path(), "device")?;
    std::fs::write(dir.path().join("services-ca.crt"), authorities.services_root_pem())?;
    let start = |name: &str| -> Result<Process> {
        let mut command = wasmbed(&["device", "--board", "riscv32-virt", "--gateway", "localhost:8080"])?;
        command.args(["--firmware", ".", "--memory", "524288", "--log-format", "json"]);
        command.current_dir(dir.path());
        Process::start(command, name, dir.path())
    };
    let mut first = start("first")?;
    first.wait_for_line("a line of the console", |line| line.contains("hello from machine code"))?;
    let flash = dir.path().join("device-data/riscv32-virt.flash");
    let image = std::fs::read(&flash)?;
    let kind: Kind = "riscv32-virt".parse()?;
    let held = decode(&image[..kind.geometry().identity_bytes() as usize])?;
    assert_eq!(held.gateways, ["10.0.2.2:8080"]);
    let Identity::Operational(held) = held.identity else { anyhow::bail!("an operational identity") };
    assert_eq!(held.chain.first().map(|der| der.to_vec()), identity.chain().first().map(|der| der.to_vec()));

    let mut second = start("second")?;
    ensure!(!second.ended()?.success(), "its flash is in use");
    let said = second.printed()?;
    ensure!(said.contains("another board runs from"), "{said}");
    let status = first.terminate()?;
    ensure!(status.success(), "SIGTERM ends it cleanly: {status}");

    let mut third = start("third")?;
    third.wait_for_line("a line of the console", |line| line.contains("hello from machine code"))?;
    assert_eq!(std::fs::read(&flash)?, image, "the same identity is not written again");
    Ok(())
}
