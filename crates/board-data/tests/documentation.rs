//! Tables of `docs/` are those of the boards' files. `UPDATE_GENERATED=1` writes them.

#![cfg(test)]

use std::{fmt::Write as _, fs, path::Path};

use wasmbed_board_data::{ALL, Board};

/// Replaces what stands between two marks of a page; or says that it is not what it should be.
fn compare(page: &str, name: &str, head: &str, row: impl Fn(&Board) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let text = fs::read_to_string(&path).unwrap();
    let (start, end) = (format!("<!-- from boards/: {name} -->\n"), format!("<!-- end: {name} -->"));
    let (before, rest) = text.split_once(&start).unwrap_or_else(|| panic!("{page} has no {start}"));
    let (found, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{page} has no {end}"));
    let columns = head.matches('|').count() - 1;
    let mut wanted = format!("{head}\n|{}\n", "---|".repeat(columns));
    for board in ALL {
        let row = row(board);
        assert_eq!(row.matches('|').count() - 1, columns, "{row}");
        writeln!(wanted, "{row}").unwrap();
    }
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, [before, &start, &wanted, &end, after].concat()).unwrap();
    } else {
        assert!(found == wanted, "docs/{page} is out of date: run this test with UPDATE_GENERATED=1");
    }
}

/// With commas between thousands.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for group in digits.as_bytes()[first..].chunks(3) {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(std::str::from_utf8(group).unwrap());
    }
    text
}

fn size(bytes: u32) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ => format!("{} KiB", bytes >> 10),
    }
}

// One test: two that write the same page would lose each other's table.
#[test]
fn tables_show_what_the_files_say() {
    compare("firmware.md", "status", "| board | status | verified by |", |board| {
        format!("| `{}` ({}) | {} | {} |", board.name, board.description, board.status, board.verified)
    });
    compare("firmware.md", "memory", "| bytes | arena | heap | stack |", |board| {
        let [arena, heap, stack] = [board.arena.bytes, board.heap.bytes, board.stack_bytes].map(grouped);
        format!("| `{}` | {arena} | {heap} | {stack} |", board.name)
    });
    compare(
        "firmware.md",
        "pins",
        "| board | capabilities beside `key-value` | pins | I2C buses | SPI chip selects | UARTs |",
        |board| {
            let pins = board.pins.iter().map(|pins| {
                let numbers: Vec<String> = pins.numbers.iter().map(u32::to_string).collect();
                let access = if pins.is_output { "" } else { ", read only" };
                format!("{}: {}{access}", numbers.join(", "), pins.what)
            });
            let pins: Vec<String> = pins.collect();
            let buses = board
                .i2c
                .iter()
                .map(|bus| format!("`{}`: {}, {} kHz", bus.name, bus.what, bus.clock_hz / 1_000));
            let chips = board
                .spi
                .iter()
                .map(|chip| format!("`{}`: {}, {} kHz", chip.name, chip.what, chip.clock_hz / 1_000));
            let uarts = board.uart.iter().map(|uart| format!("`{}`: {}", uart.name, uart.what));
            let capabilities = board.capabilities.iter().map(|name| format!("`{name}`"));
            let or_none = |parts: Vec<String>, between: &str| match parts.is_empty() {
                true => "none".to_owned(),
                false => parts.join(between),
            };
            format!(
                "| `{}` | {} | {} | {} | {} | {} |",
                board.name,
                or_none(capabilities.collect(), ", "),
                or_none(pins, "; "),
                or_none(buses.collect(), "; "),
                or_none(chips.collect(), "; "),
                or_none(uarts.collect(), "; ")
            )
        },
    );
    compare(
        "provisioning.md",
        "layout",
        "| board | erase block | identity | records | modules | largest module |",
        |board| {
            let layout = board.geometry;
            format!(
                "| `{}` | {} | {} | {} × {} | {} blocks | {} |",
                board.name,
                size(layout.erase_bytes),
                size(layout.identity_bytes()),
                layout.segments,
                size(layout.segment_bytes()),
                grouped(layout.module_blocks),
                size(layout.module_bytes_max)
            )
        },
    );
}

#[test]
fn numbers_are_grouped() {
    assert_eq!(
        [0, 999, 1_000, 123_456, 1_234_567].map(grouped),
        ["0", "999", "1,000", "123,456", "1,234,567"]
    );
}
