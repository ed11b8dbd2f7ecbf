//! The constants, as Rust.

use std::fmt::Write as _;

use crate::definition::{Code, Definition, FLASH, GUARD_KIB, RAM, Share};

/// A constant for each board, and the list of all.
pub(crate) fn source(boards: &[Definition]) -> String {
    let mut source = format!(
        "/// Bytes below the stack of each board that fault: more than any one function takes.\npub const GUARD_BYTES: u32 = {};\n",
        bytes(GUARD_KIB)
    );
    let mut names = Vec::new();
    for board in boards {
        let name = board.name.to_uppercase().replace('-', "_");
        // A `String` takes everything.
        let _ = writeln!(
            source,
            "/// `{}`: {}\npub const {name}: Board = {};",
            board.name,
            board.description,
            value(board)
        );
        names.push(format!("&{name}"));
    }
    let _ = writeln!(
        source,
        "/// Every board, those of one architecture side by side.\npub const ALL: [&Board; {}] = [{}];",
        names.len(),
        names.join(", ")
    );
    source
}

fn value(board: &Definition) -> String {
    let flash = &board.data_flash;
    let mut value = String::from("Board {");
    let mut field = |name: &str, content: String| {
        let _ = write!(value, " {name}: {content},");
    };
    field("name", format!("{:?}", board.name));
    field("description", format!("{:?}", board.description));
    field("status", format!("{:?}", board.status));
    field("verified", format!("{:?}", board.verified));
    field("target", format!("{:?}", board.target));
    field("memories", memories(board));
    field("stack_bytes", bytes(board.stack.kib));
    field("heap", share(&board.heap));
    field("arena", share(&board.arena));
    field("data_flash_start", flash.start.to_string());
    field(
        "geometry",
        format!(
            "Geometry {{ erase_bytes: {}, identity_blocks: {}, segment_blocks: {}, segments: {}, module_blocks: {}, \
             module_bytes_max: {}, flash_bytes: {} }}",
            bytes(flash.erase_kib),
            flash.identity_blocks,
            flash.segment_blocks,
            flash.segments,
            flash.module_blocks,
            bytes(flash.module_kib_max),
            bytes(flash.kib)
        ),
    );
    field(
        "budget",
        format!(
            "Budget {{ flash_bytes: {}, ram_bytes: {} }}",
            bytes(board.budget.flash_kib),
            bytes(board.budget.ram_kib)
        ),
    );
    let pins = board.pins.iter().map(|pins| {
        format!("Pins {{ numbers: &{:?}, what: {:?}, is_output: {} }}", pins.pins, pins.what, pins.output)
    });
    field("pins", format!("&[{}]", pins.collect::<Vec<_>>().join(", ")));
    let pins = board.pins.iter().flat_map(|pins| &pins.pins);
    let mut names: Vec<String> = pins.map(|number| format!("gpio{number}")).collect();
    names.sort_unstable();
    field("pin_names", format!("&{names:?}"));
    let buses = board.i2c.iter().map(|bus| {
        let number = bus.number;
        let clock_hz = u64::from(bus.clock_khz) * 1_000;
        let what = &bus.what;
        format!("Bus {{ name: \"i2c{number}\", number: {number}, what: {what:?}, clock_hz: {clock_hz} }}")
    });
    field("i2c", format!("&[{}]", buses.collect::<Vec<_>>().join(", ")));
    let chips =
        board.spi.iter().flat_map(|bus| (0..bus.chip_selects).map(move |chip_select| (bus, chip_select)));
    let chips = chips.map(|(bus, chip_select)| {
        let (number, what) = (bus.number, &bus.what);
        let clock_hz = u64::from(bus.clock_khz) * 1_000;
        format!(
            "Chip {{ name: \"spi{number}.{chip_select}\", bus: {number}, what: {what:?}, clock_hz: {clock_hz} }}"
        )
    });
    field("spi", format!("&[{}]", chips.collect::<Vec<_>>().join(", ")));
    let uarts = board.uart.iter().map(|uart| {
        let (number, what) = (uart.number, &uart.what);
        format!("Uart {{ name: \"uart{number}\", number: {number}, what: {what:?} }}")
    });
    field("uart", format!("&[{}]", uarts.collect::<Vec<_>>().join(", ")));
    let capabilities = [
        ("gpio", !board.pins.is_empty()),
        ("i2c", !board.i2c.is_empty()),
        ("spi", !board.spi.is_empty()),
        ("uart", !board.uart.is_empty()),
    ];
    let capabilities = capabilities.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name);
    field("capabilities", format!("&{:?}", capabilities.collect::<Vec<_>>()));
    field("emulation", emulation(board));
    value + " }"
}

/// The code's and the stack's first, then the others by name.
fn memories(board: &Definition) -> String {
    let first = [FLASH, RAM].into_iter().filter_map(|name| board.memory.get_key_value(name));
    let others = board.memory.iter().filter(|(name, _)| !matches!(name.as_str(), FLASH | RAM));
    let all = first.chain(others).map(|(name, region)| {
        format!("Region {{ name: {name:?}, start: {}, bytes: {} }}", region.start, bytes(region.kib))
    });
    format!("&[{}]", all.collect::<Vec<_>>().join(", "))
}

fn share(share: &Share) -> String {
    format!("Share {{ memory: {:?}, bytes: {} }}", share.memory, bytes(share.kib))
}

fn emulation(board: &Definition) -> String {
    let Some(qemu) = &board.qemu else { return "None".to_owned() };
    let code = match qemu.code {
        Code::Elf => "Code::Elf",
        Code::FlashImage => "Code::FlashImage",
    };
    let gate = qemu.gate.as_ref().map_or("None".to_owned(), |programs| format!("Some(&{programs:?})"));
    format!(
        "Some(Emulation {{ program: {:?}, package: {:?}, code: {code}, arguments: &{:?}, gate: {gate} }})",
        qemu.program, qemu.package, qemu.arguments
    )
}

fn bytes(kib: u32) -> String {
    (u64::from(kib) * 1_024).to_string()
}
