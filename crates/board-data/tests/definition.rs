//! The boards' files, and files that are not a board's: each is refused with its name, the key and what is wrong.
#![cfg(test)]

#[allow(dead_code)]
#[path = "../build/definition.rs"]
mod definition;

use std::path::Path;

use definition::read;

fn text(board: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../boards/{board}.toml"));
    std::fs::read_to_string(path).unwrap()
}

/// What is said of a board's file in which one text stands for another.
fn refused(board: &str, from: &str, to: &str) -> String {
    let text = text(board);
    assert!(text.contains(from), "{board} has no {from:?}");
    read(board, &text.replacen(from, to, 1)).expect_err("it is wrong").to_string()
}

#[test]
fn every_file_is_a_board_of_its_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../boards");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    let mut known = wasmbed_board_data::ALL.map(|board| board.name);
    known.sort_unstable();
    assert_eq!(names, known);
}

#[test]
fn what_is_wrong_is_told_with_file_and_key() {
    const BOARD: &str = "mps2-an385";
    for (from, to, said) in [
        ("[stack]", "[stak]", "unknown field `stak`"),
        ("kib = 96", "", "missing field `kib`"),
        ("kib = 96", "kib = \"96\"", "expected u32"),
        ("kib = 96", "kib = 97", "stack.kib: 97 is not a multiple"),
        ("target = \"", "target = \"|", "target: is empty, or has `|`"),
        ("flash = {", "code = {", "memory: has no `flash`"),
        (
            "ram = { start = 0x2000_0000",
            "ram = { start = 0x0000_1000",
            "memory.ram: 0x1000..0x101000 overlaps memory.flash",
        ),
        (
            "ram = { start = 0x2000_0000",
            "ram = { start = 0xfff8_0000",
            "memory.ram: it ends at 0x100080000, beyond 32 bits",
        ),
        (
            "ram = { start = 0x2000_0000",
            "ram = { start = 0x2000_0400",
            "memory.ram.start: 0x20000400 is not a multiple",
        ),
        ("kib = 160", "kib = 160\nmemory = \"sram9\"", "heap.memory: \"sram9\" is no RAM"),
        (
            "kib = 704",
            "kib = 800",
            "memory.ram.kib: stack with guard, heap and arena take 1060 of 1024 there",
        ),
        ("start = 0x2100_0000", "start = 0x200f_0000", "overlaps memory.ram"),
        ("segments = 4", "segments = 1", "data_flash.segments: 1 is below 2"),
        (
            "module_blocks = 1_848",
            "module_blocks = 4_000",
            "data_flash.kib: identity, segments and modules take 4200 blocks",
        ),
        (
            "module_kib_max = 1_024",
            "module_kib_max = 9_999",
            "data_flash.module_kib_max: 9999 is more than the 7392 KiB",
        ),
        ("flash_kib = 640", "flash_kib = 5_000", "budget.flash_kib: 5000 is not within 1..=4096"),
        ("ram_kib = 896", "ram_kib = 925", "budget.ram_kib: 925 is not within 1..=924"),
        ("pins = [2, 3]", "pins = [1]", "pins.pins: 1 is there twice"),
        (
            "pins = [2, 3]",
            "pins = [2, 3, 4, 5, 6, 7, 8, 9, 10]",
            "pins: pins, buses, chip selects and UARTs together are 17, more than the 16",
        ),
        ("number = 1\n", "number = 0\n", "i2c.number: 0 stands where 1 belongs"),
        ("[[uart]]\nnumber = 1\n", "[[uart]]\nnumber = 2\n", "uart.number: 2 stands where 1 belongs"),
        ("clock_khz = 100", "clock_khz = 401", "i2c.clock_khz: 401 is not within 1..=400"),
        ("chip_selects = 1", "chip_selects = 0", "spi.chip_selects: 0 is not within 1..=8"),
        ("clock_khz = 10_000", "clock_khz = 9", "spi.clock_khz: 9 is not within 10..=50000"),
        ("{data}", "{date}", "qemu.arguments: {date} in"),
        ("\"-kernel\", \"{code}\",", "", "qemu.arguments: {code} is in none of them"),
        ("program = \"qemu-system-arm\"", "program = \"sh\"", "qemu.program: \"sh\" does not begin"),
        (
            "ram = {",
            "data = { start = 0x3000_0000, kib = 1 }\nram = {",
            "memory.data: is the name of a section",
        ),
        ("code = \"elf\"", "code = \"hex\"", "unknown variant `hex`"),
        ("code = \"elf\"", "code = \"elf\"\ngate = []", "qemu.gate: is empty"),
    ] {
        let error = refused(BOARD, from, to);
        assert!(
            error.starts_with("boards/mps2-an385.toml: ") && error.contains(said),
            "{said:?} is not in {error:?}"
        );
    }
    let error = read("Board_1", &text(BOARD)).expect_err("a name").to_string();
    assert!(error.contains("boards/Board_1.toml: the file's name: "), "{error}");
}

#[test]
fn constants_hold_what_the_files_say() {
    let nucleo = wasmbed_board_data::NUCLEO_H743ZI2;
    assert_eq!((nucleo.code().name, nucleo.code().start), ("flash", 0x0800_0000));
    assert_eq!((nucleo.ram().name, nucleo.ram().bytes), ("ram", 128 * 1_024));
    assert_eq!(nucleo.heap, wasmbed_board_data::Share { memory: "sram12", bytes: 160 * 1_024 });
    assert_eq!(nucleo.geometry.module_bytes_max, 256 * 1_024);
    assert_eq!(nucleo.capabilities, ["gpio"]);
    assert!(nucleo.emulation.is_none());
    let virt = wasmbed_board_data::find("riscv32-virt").unwrap();
    assert!(
        virt.capabilities.is_empty() && virt.i2c.is_empty() && virt.spi.is_empty() && virt.uart.is_empty()
    );
    assert!(virt.pin_names.is_empty());
    let an385 = wasmbed_board_data::MPS2_AN385;
    assert_eq!(an385.capabilities, ["gpio", "i2c", "spi", "uart"]);
    assert_eq!(an385.pin_names, ["gpio0", "gpio1", "gpio2", "gpio3"]);
    assert_eq!(
        an385.spi.iter().map(|chip| (chip.name, chip.bus, chip.clock_hz)).collect::<Vec<_>>(),
        [("spi0.0", 0, 10_000_000), ("spi1.0", 1, 10_000_000)]
    );
    assert_eq!(
        an385.uart.iter().map(|uart| (uart.name, uart.number)).collect::<Vec<_>>(),
        [("uart0", 0), ("uart1", 1)]
    );
    let buses = an385.i2c.iter().map(|bus| (bus.name, bus.number, bus.clock_hz));
    assert_eq!(buses.collect::<Vec<_>>(), [("i2c0", 0, 100_000), ("i2c1", 1, 100_000)]);
    assert!(virt.emulation.is_some_and(|emulation| emulation.takes_memory()));
    assert!(wasmbed_board_data::find("esp32").is_none());
}
