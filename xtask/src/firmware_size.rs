//! What a firmware image weighs: by section, by crate, and the largest things in RAM.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use object::{
    Endianness, Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind,
    elf::{FileHeader32, PT_LOAD, SHF_ALLOC, SHF_WRITE, SHT_NOBITS},
    read::elf::{ElfFile32, FileHeader, ProgramHeader, SectionHeader},
};
use wasmbed_board_data::Budget;

/// Crates and RAM symbols that are shown; the rest is added up.
const ROWS_MAX: usize = 16;
/// The flash of the largest board by far; a wider image has a segment where none belongs.
const IMAGE_BYTES_MAX: u64 = 32 << 20;

/// What one image weighs, bytes.
pub(crate) struct Size {
    sections: Vec<(String, u64, bool, bool)>,
    crates: Vec<(String, u64)>,
    statics: Vec<(String, u64)>,
    stack: Option<(u64, u64)>,
    flash: u64,
    ram: u64,
}

/// Adds up an ELF file.
pub(crate) fn measure(elf: &[u8]) -> Result<Size> {
    let file = ElfFile32::<Endianness>::parse(elf).context("not a 32-bit ELF file")?;
    let mut sections = Vec::new();
    let mut writable = Vec::new();
    let (mut flash, mut ram) = (0, 0);
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        if sh_flags & u64::from(SHF_ALLOC) == 0 || section.size() == 0 {
            continue;
        }
        let in_ram = sh_flags & u64::from(SHF_WRITE) != 0;
        let in_flash = section.elf_section_header().sh_type(file.endian()) != SHT_NOBITS;
        flash += if in_flash { section.size() } else { 0 };
        ram += if in_ram { section.size() } else { 0 };
        if in_ram {
            writable.push(section.index());
        }
        sections.push((section.name()?.to_string(), section.size(), in_flash, in_ram));
    }
    let mut crates = BTreeMap::<String, u64>::new();
    let mut statics = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.size() > 0) {
        let Ok(mangled) = symbol.name() else { continue };
        let name = format!("{:#}", rustc_demangle::demangle(mangled));
        let in_ram = symbol.section_index().is_some_and(|index| writable.contains(&index));
        if in_ram {
            statics.push((name, symbol.size()));
        } else if matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Data) {
            *crates.entry(crate_of(&name)).or_default() += symbol.size();
        }
    }
    let address = |wanted: &str| file.symbol_by_name(wanted).map(|symbol| symbol.address());
    let stack = address("_stack_end").zip(address("_stack_start"));
    let mut crates: Vec<_> = crates.into_iter().collect();
    for list in [&mut crates, &mut statics] {
        list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    }
    Ok(Size { sections, crates, statics, stack, flash, ram })
}

impl Size {
    /// Prints the tables.
    pub(crate) fn print(&self) {
        println!("\n    {:<44}{:>10}  in", "section", "bytes");
        for (name, bytes, in_flash, in_ram) in &self.sections {
            let place = match (in_flash, in_ram) {
                (true, true) => "flash and RAM",
                (true, false) => "flash",
                (false, _) => "RAM",
            };
            println!("    {name:<44}{bytes:>10}  {place}");
        }
        let named: u64 = self.crates.iter().map(|(_, bytes)| bytes).sum();
        rows("crate (code and constants with a name)", &self.crates);
        println!("    {:<44}{:>10}", "(without a name)", self.flash.saturating_sub(named));
        rows("in RAM", &self.statics);
        match self.stack {
            Some((end, start)) => {
                println!("    {:<44}{:>10}  {end:#010x}..{start:#010x}", "(stack)", start - end);
            }
            None => println!("    (the image doesn't say where its stack is)"),
        }
        println!("\n    flash {} bytes, static RAM {} bytes", self.flash, self.ram);
    }

    /// What is larger than it may be.
    pub(crate) fn beyond(&self, budget: Budget) -> Vec<String> {
        let figures = [("flash", self.flash, budget.flash_bytes), ("static RAM", self.ram, budget.ram_bytes)];
        let beyond = figures.iter().filter(|(_, is, may)| is > may);
        beyond.map(|(what, is, may)| format!("{is} bytes of {what}, {may} allowed")).collect()
    }
}

fn rows(title: &str, list: &[(String, u64)]) {
    println!("\n    {title:<44}{:>10}", "bytes");
    for (name, bytes) in list.iter().take(ROWS_MAX) {
        // Names of generic functions have no end.
        println!("    {:<44}{bytes:>10}", name.chars().take(43).collect::<String>());
    }
    let rest: u64 = list.iter().skip(ROWS_MAX).map(|(_, bytes)| bytes).sum();
    if rest > 0 {
        println!("    {:<44}{rest:>10}", format!("({} more)", list.len() - ROWS_MAX));
    }
}

/// The crate that a demangled name begins with; for a method, that of its type.
fn crate_of(name: &str) -> String {
    let start = name.trim_start_matches(['<', '&', '*', '[', '(', ' ']);
    let start = start.strip_prefix("mut ").or_else(|| start.strip_prefix("dyn ")).unwrap_or(start);
    let end = start.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(start.len());
    match start.get(end..).is_some_and(|rest| rest.starts_with("::")) {
        true => start[..end].to_string(),
        false => "(not Rust, or compiler's)".to_string(),
    }
}

/// The bytes that a programmer writes into code flash, from the lowest load address.
pub(crate) fn image(elf: &[u8]) -> Result<Vec<u8>> {
    let header = FileHeader32::<Endianness>::parse(elf)?;
    let endian = header.endian()?;
    let mut parts = Vec::new();
    for segment in header.program_headers(endian, elf)? {
        let bytes = segment.data(endian, elf).ok().context("a segment is not within the file")?;
        if segment.p_type(endian) == PT_LOAD && !bytes.is_empty() {
            parts.push((u64::from(segment.p_paddr(endian)), bytes));
        }
    }
    parts.sort_by_key(|(address, _)| *address);
    let (start, _) = *parts.first().context("nothing is to be loaded")?;
    let mut image = Vec::new();
    for (address, bytes) in parts {
        let offset = address - start;
        ensure!(offset + (bytes.len() as u64) <= IMAGE_BYTES_MAX, "a segment at {address:#x} is far off");
        ensure!(offset >= image.len() as u64, "two segments are at {address:#x}");
        // Flash that nobody programs reads as ones.
        image.resize(usize::try_from(offset)?, 0xff);
        image.extend_from_slice(bytes);
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_belong_to_crates() {
        assert_eq!(crate_of("smoltcp::iface::Interface::poll"), "smoltcp");
        assert_eq!(crate_of("<rustls::Error as core::fmt::Debug>::fmt"), "rustls");
        assert_eq!(crate_of("<&mut core::fmt::Formatter as X>::f"), "core");
        assert_eq!(crate_of("memcpy"), "(not Rust, or compiler's)");
    }

    #[test]
    fn an_image_is_within_its_budget_or_not() {
        let budget = Budget { flash_bytes: 1_000, ram_bytes: 5 };
        let size = |flash, ram| Size {
            sections: Vec::new(),
            crates: Vec::new(),
            statics: Vec::new(),
            stack: None,
            flash,
            ram,
        };
        assert!(size(1_000, 5).beyond(budget).is_empty());
        assert_eq!(size(1_001, 6).beyond(budget).len(), 2);
    }
}
