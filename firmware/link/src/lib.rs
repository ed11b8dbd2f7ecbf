//! What build scripts of boards share: `memory.x`, the memory map of a board's file, for the linker.
//!
//! It may not know a board.

use std::{
    env,
    error::Error,
    fmt::{self, Write as _},
    fs,
    path::PathBuf,
};

use wasmbed_board_data::{Board, GUARD_BYTES, Region};

/// Writes the memory map of the board that is built and tells Cargo how it is linked: by `link.x`, from `cortex-m-rt` or from the board's
/// own folder, which includes `memory.x`.
///
/// # Errors
/// The package is not named like a board, or the file can't be written.
pub fn link() -> Result<(), Box<dyn Error>> {
    let name = env::var("CARGO_PKG_NAME")?;
    let board = wasmbed_board_data::find(&name).ok_or_else(|| format!("there is no boards/{name}.toml"))?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("memory.x"), memory_map(board)?)?;
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-search={}", out.display());
    if fs::exists("link.x")? {
        println!("cargo::rerun-if-changed=link.x");
        println!("cargo::rustc-link-search={}", env::var("CARGO_MANIFEST_DIR")?);
    }
    println!("cargo::rustc-link-arg-bins=--nmagic");
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    Ok(())
}

fn memory_map(board: &Board) -> Result<String, fmt::Error> {
    let mut map = format!("/* From boards/{}.toml. */\nMEMORY\n{{\n", board.name);
    let below_statics = board.stack_bytes + GUARD_BYTES;
    for memory in board.memories {
        let below = if memory.name == board.ram().name { below_statics } else { 0 };
        let Region { start, bytes, .. } = *memory;
        let name = memory.name.to_uppercase();
        writeln!(map, "  {name} : ORIGIN = {:#010x}, LENGTH = {:#x}", start + below, bytes - below)?;
    }
    // The stack is at the bottom of the RAM: an overflow can't reach a static, it meets the guard.
    writeln!(map, "}}\n_stack_start = ORIGIN(RAM);\n_stack_end = _stack_start - {:#x};", board.stack_bytes)?;
    writeln!(map, "_guard = _stack_end - {GUARD_BYTES:#x};\nSECTIONS\n{{")?;
    let others =
        board.memories.iter().map(|memory| memory.name).filter(|name| !["flash", "ram"].contains(name));
    let sections = others.map(|name| (name, name));
    for (section, memory) in
        [("heap", board.heap.memory), ("arena", board.arena.memory)].into_iter().chain(sections)
    {
        let memory = memory.to_uppercase();
        writeln!(map, "  .{section} (NOLOAD) : ALIGN(16) {{ *(.{section} .{section}.*) }} > {memory}")?;
    }
    writeln!(map, "}} INSERT AFTER .uninit;")?;
    Ok(map)
}
