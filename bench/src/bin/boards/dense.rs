//! Modules that are as much work to load for each of their bytes as can be: of each kind one, within what a device's scan accepts.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use wasmbed_scan::{ScanLimits, scan};

/// Bytes that each is about as long as.
const BYTES: usize = 12 * 1_024;

/// Their names, and the modules.
pub(crate) fn modules() -> Result<Vec<(String, Vec<u8>)>> {
    let limits = ScanLimits::default();
    let texts = [
        ("small-functions", small_functions()),
        ("operators-of-one-byte", one_byte()),
        ("constants-of-64-bits", constants()),
        ("copies-of-locals", copies()),
        ("locals", locals()),
        ("blocks", blocks()),
        ("blocks-with-results", blocks_with_results()),
        ("branches", branches()),
        ("branch-tables", branch_tables()),
        ("far-branches", far()),
        ("calls", calls()),
        ("dead-code", dead()),
        ("types", types()),
        ("short-types", short_types()),
        ("globals", globals()),
        ("exports", exports()),
        ("elements", elements()),
        ("segments", segments()),
    ];
    let texts = texts.into_iter().map(|(name, text)| {
        let text = format!("(module {text} (func (export \"run\")))");
        let module =
            wat::parse_str(&text).with_context(|| format!("the module {name} is not well-formed"))?;
        scan(&module, &limits).with_context(|| format!("the scan refuses the module {name}"))?;
        Ok((name.to_owned(), module))
    });
    texts.collect()
}

/// The text so often that it makes about so many bytes of a module.
fn repeated(text: &str, bytes_each: usize) -> String {
    text.repeat(BYTES / bytes_each)
}

fn small_functions() -> String {
    repeated("(func)", 4)
}

fn one_byte() -> String {
    let drops = "i32.eqz ".repeat(BYTES);
    format!("(func (result i32) (i32.const 0) {drops})")
}

fn constants() -> String {
    // As short as they can be, each becomes as much as one of all bits.
    format!("(func {})", repeated("(drop (i64.const 1))", 3))
}

fn copies() -> String {
    let gets = "local.get 0 ".repeat(16);
    let adds = "i32.add ".repeat(15);
    let once = format!("{gets} (local.set 0 (i32.const 1)) {adds} local.set 0 ");
    format!("(func (param i32) {})", repeated(&once, 16 * 2 + 4 + 15 + 2))
}

fn locals() -> String {
    // The most groups and the most locals, in as many functions as there is room for.
    let groups = 64;
    let each = 1_000 / groups;
    let mut kinds = ["i32", "i64", "f32", "f64"].iter().cycle();
    let mut list = String::new();
    for _ in 0..groups {
        let kind = kinds.next().unwrap_or(&"i32");
        let _ = write!(list, "(local {})", format!("{kind} ").repeat(each));
    }
    repeated(&format!("(func {list})"), 2 * groups + 5)
}

fn blocks() -> String {
    let nested = format!("{}{}", "block ".repeat(126), "end ".repeat(126));
    format!("(func {})", repeated(&nested, 126 * 3))
}

fn blocks_with_results() -> String {
    let nested = format!("{}i32.const 0 {}drop ", "block (result i32) ".repeat(126), "end ".repeat(126));
    format!("(func {})", repeated(&nested, 126 * 3 + 3))
}

fn branches() -> String {
    let each = "local.get 0 br_if 0 ";
    format!("(func (param i32) block {} end)", repeated(each, 4))
}

fn branch_tables() -> String {
    let depth = 120;
    let mut body = "block ".repeat(depth);
    // Each with as many targets as fit, from the innermost to the outermost.
    let targets: String = (0..BYTES - 1_000).fold(String::new(), |mut targets, target| {
        let _ = write!(targets, "{} ", target % depth);
        targets
    });
    let _ = write!(body, "local.get 0 br_table {targets} 0 ");
    body += &"end ".repeat(depth);
    format!("(func (param i32) {body})")
}

fn far() -> String {
    // Too far for 16 bits: found out at its end, where the function is translated once more.
    let body = "(drop (i32.div_u (i32.const 70000) (local.get 0)))".repeat(3 * BYTES / 8);
    format!("(func (param i32) (block (br_if 0 (local.get 0)) {body}) )")
}

fn calls() -> String {
    format!("(func $none) (func {})", repeated("call $none ", 2))
}

fn dead() -> String {
    format!("(func unreachable {})", repeated("i32.add drop ", 2))
}

fn types() -> String {
    let mut text = String::new();
    let kinds = ["i32", "i64", "f32", "f64"];
    for number in 0..990 {
        // Each differs from the others, and only at its end, so that none is found early.
        let list = (0..5).map(|place| kinds[(number >> (2 * place)) % 4]).collect::<Vec<_>>().join(" ");
        let _ = write!(text, "(type (func (param {}{list})))", "i32 ".repeat(24));
    }
    text
}

fn short_types() -> String {
    // As short as so many different ones can be, each of them before all others in the order of their values.
    let kinds = ["f64", "f32", "i64", "i32"];
    let mut text = String::new();
    for number in 0..990 {
        let list = (0..5).rev().map(|place| kinds[(number >> (2 * place)) % 4]).collect::<Vec<_>>().join(" ");
        let _ = write!(text, "(type (func (param {list})))");
    }
    text
}

fn globals() -> String {
    "(global (mut i64) (i64.const 1))".repeat(990)
}

fn exports() -> String {
    // All but the last letters are the same.
    let name = "n".repeat(240);
    let mut text = String::from("(func $it)");
    for number in 0..90 {
        let _ = write!(text, "(export \"{name}{number:02}\" (func $it))");
    }
    text
}

fn elements() -> String {
    let list = "$it ".repeat(4_000);
    format!("(func $it) (table 4096 funcref) (elem (i32.const 0) func {list})")
}

fn segments() -> String {
    format!("(memory 0 1 (pagesize 1)) {}", "(data (i32.const 0) \"\")".repeat(2_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scan_accepts_all_of_them() -> Result<()> {
        let limits = ScanLimits::default();
        for (name, module) in modules()? {
            assert!(module.len() > BYTES / 4, "{name} has {} bytes", module.len());
            assert!(module.len() as u64 <= u64::from(limits.module_bytes), "{name}");
        }
        Ok(())
    }
}
