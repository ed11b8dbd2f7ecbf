//! `cargo xtask firmware`: the boards' release images, what they weigh, and whether that is within `firmware/budget.toml`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use wasmbed_emulator::Kind;

use crate::{firmware_boot, firmware_size, process, system};

/// A board and what its processor executes.
struct Board {
    name: &'static str,
    target: &'static str,
    /// QEMU's machine, if it has one.
    emulated: Option<Kind>,
}

const BOARDS: [Board; 3] = [
    Board { name: "mps2-an385", target: "thumbv7m-none-eabi", emulated: Some(Kind::Mps2An385) },
    Board { name: "nucleo-h743zi2", target: "thumbv7em-none-eabihf", emulated: None },
    Board { name: "riscv32-virt", target: "riscv32imac-unknown-none-elf", emulated: Some(Kind::Riscv32Virt) },
];

/// Options of the build.
#[derive(Args)]
pub(crate) struct Options {
    /// Only this board.
    #[arg(long)]
    board: Option<String>,
    /// Check formatting and lints first, and start the images that QEMU has a machine for.
    #[arg(long)]
    check: bool,
}

impl Options {
    /// Every board, with the checks.
    pub(crate) const CHECKED: Self = Self { board: None, check: true };
    /// Every board, built only.
    pub(crate) const UNCHECKED: Self = Self { board: None, check: false };
}

/// Names of the boards that QEMU has a machine for.
pub(crate) fn emulated() -> impl Iterator<Item = &'static str> {
    BOARDS.iter().filter(|board| board.emulated.is_some()).map(|board| board.name)
}

/// Builds one board's image, unchecked.
pub(crate) fn build_one(name: &str) -> Result<()> {
    build(&Options { board: Some(name.to_owned()), check: false })
}

/// Builds, prints sizes, compares them with the budget and leaves `target/firmware/<board>.elf` and `.bin`.
pub(crate) fn build(options: &Options) -> Result<()> {
    let wanted = |board: &&Board| options.board.as_deref().is_none_or(|name| name == board.name);
    let boards: Vec<&Board> = BOARDS.iter().filter(wanted).collect();
    if boards.is_empty() {
        bail!("no such board: these exist: {}", BOARDS.each_ref().map(|board| board.name).join(", "));
    }
    let budgets = firmware_size::budgets(&folder().join("budget.toml"))?;
    let out = process::top().join("target/firmware");
    std::fs::create_dir_all(&out).with_context(|| format!("can't create {}", out.display()))?;
    let mut beyond = Vec::new();
    for board in boards {
        process::step(&format!("firmware of {} ({})", board.name, board.target));
        if options.check {
            formatting_and_lints(board)?;
        }
        let built = compile(board)?;
        let elf = std::fs::read(&built).with_context(|| format!("{} was not built", built.display()))?;
        let image = firmware_size::image(&elf).with_context(|| format!("can't read {}", built.display()))?;
        let elf_path = out.join(format!("{}.elf", board.name));
        write(&elf_path, &elf)?;
        write(&out.join(format!("{}.bin", board.name)), &image)?;
        let size = firmware_size::measure(&elf)?;
        size.print();
        let budget = budgets.get(board.name);
        let budget = budget.with_context(|| format!("firmware/budget.toml has no [{}]", board.name))?;
        beyond.extend(size.beyond(budget).into_iter().map(|what| format!("{}: {what}", board.name)));
        if let Some(kind) = board.emulated.filter(|_| options.check) {
            firmware_boot::boot(kind, &elf_path, &out)?;
        }
    }
    if options.check && options.board.is_none() {
        other_architectures()?;
    }
    ensure!(beyond.is_empty(), "beyond firmware/budget.toml: {}", beyond.join("; "));
    Ok(())
}

/// What boards may share, for an architecture that none of them has yet: it must not stop to compile there.
fn other_architectures() -> Result<()> {
    const SHARED: &str = "wasmbed-firmware-cortex-m";
    const TARGET: &str = "thumbv8m.main-none-eabi";
    process::step(&format!("{SHARED} for {TARGET}"));
    let route = system::ensure_target(TARGET)?;
    let mut build = route.cargo_build(TARGET);
    build.current_dir(folder()).args(["--quiet", "--locked", "--release", "--package", SHARED]);
    process::run(build.env("CARGO_TARGET_DIR", target_dir(route)))
}

/// Formatting and lints; Debian's compiler comes without either.
fn formatting_and_lints(board: &Board) -> Result<()> {
    // With `--all` it would format the crates around the workspace too.
    process::run(process::cargo().current_dir(folder()).args(["fmt", "--check", "--package", board.name]))?;
    if system::ensure_target(board.target)? != system::Route::Rustup {
        println!("    no lints: Debian's compiler builds it here");
        return Ok(());
    }
    process::run(
        process::cargo()
            .current_dir(folder())
            .args(["clippy", "--quiet", "--locked", "--release", "--package", board.name])
            .args(["--target", board.target, "--", "-D", "warnings"])
            .env("CARGO_TARGET_DIR", target_dir(system::Route::Rustup)),
    )
}

/// Builds a board's image and returns the path of the ELF file.
fn compile(board: &Board) -> Result<PathBuf> {
    let route = system::ensure_target(board.target)?;
    let mut build: Command = route.cargo_build(board.target);
    process::run(
        build
            .current_dir(folder())
            .args(["--quiet", "--locked", "--release", "--package", board.name])
            .env("CARGO_TARGET_DIR", target_dir(route)),
    )?;
    Ok(target_dir(route).join(board.target).join("release").join(board.name))
}

fn folder() -> PathBuf {
    process::top().join("firmware")
}

/// Of its own for each compiler: neither reads the other's libraries.
fn target_dir(route: system::Route) -> PathBuf {
    process::top().join(match route {
        system::Route::Rustup => "target/firmware-build",
        system::Route::Debian => "target/firmware-build-debian",
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("can't write {}", path.display()))?;
    println!("    {} ({} bytes)", path.display(), bytes.len());
    Ok(())
}
