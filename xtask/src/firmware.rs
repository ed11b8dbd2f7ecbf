//! `cargo xtask firmware`: the boards' release images, what they weigh, and whether that is within the boards' budgets.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use wasmbed_board_data::{ALL, Board};

use crate::{firmware_boot, firmware_size, process, system};

/// What boards share.
const SHARED: [&str; 5] = [
    "wasmbed-firmware-cortex-m",
    "wasmbed-firmware-link",
    "wasmbed-firmware-measure",
    "wasmbed-firmware-mps2",
    "wasmbed-firmware-support",
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
    /// Build what measures engines on boards instead, `target/firmware/measure-<board>.elf`, and the module that it runs.
    #[arg(long, conflicts_with = "check")]
    pub(crate) measure: bool,
}

impl Options {
    /// Every board, built only.
    pub(crate) const UNCHECKED: Self = Self { board: None, check: false, measure: false };

    /// The boards that are wanted.
    pub(crate) fn boards(&self) -> Result<Vec<&'static Board>> {
        let wanted = |board: &&Board| self.board.as_deref().is_none_or(|name| name == board.name);
        let boards: Vec<&Board> = ALL.into_iter().filter(wanted).collect();
        if boards.is_empty() {
            bail!("no such board: these exist: {}", ALL.map(|board| board.name).join(", "));
        }
        Ok(boards)
    }
}

/// The folder of the images.
pub(crate) fn out() -> Result<PathBuf> {
    let out = process::top().join("target/firmware");
    std::fs::create_dir_all(&out).with_context(|| format!("can't create {}", out.display()))?;
    Ok(out)
}

/// Builds one board's image, unchecked.
pub(crate) fn build_one(name: &str) -> Result<()> {
    build(&Options { board: Some(name.to_owned()), ..Options::UNCHECKED })
}

/// Builds, prints sizes, compares them with the budget and leaves `target/firmware/<board>.elf` and `.bin`.
pub(crate) fn build(options: &Options) -> Result<()> {
    let boards = options.boards()?;
    let out = out()?;
    let mut beyond = Vec::new();
    for board in boards {
        process::step(&format!("firmware of {} ({})", board.name, board.target));
        if options.check {
            formatting(board)?;
        }
        let built = compile(board, board.name, &[])?;
        if options.check {
            lints(board)?;
        }
        let elf = std::fs::read(&built).with_context(|| format!("{} was not built", built.display()))?;
        let image = firmware_size::image(&elf).with_context(|| format!("can't read {}", built.display()))?;
        let elf_path = out.join(format!("{}.elf", board.name));
        write(&elf_path, &elf)?;
        write(&out.join(format!("{}.bin", board.name)), &image)?;
        let size = firmware_size::measure(&elf)?;
        size.print();
        beyond.extend(
            size.beyond(board.budget).into_iter().map(|what| format!("boards/{}.toml: {what}", board.name)),
        );
        if options.check && board.emulation.is_some() {
            firmware_boot::boot(board.name.parse()?, &elf_path, &out)?;
        }
    }
    ensure!(beyond.is_empty(), "beyond the budget: {}", beyond.join("; "));
    Ok(())
}

fn formatting(board: &Board) -> Result<()> {
    // With `--all` it would format the crates around the workspace too.
    let mut format = process::cargo();
    format.current_dir(folder()).args(["fmt", "--check", "--package", board.name]);
    process::run(format.args(SHARED.iter().flat_map(|name| ["--package", name])))
}

/// Compiles the firmware's own crates once more, by Clippy; all else is taken as it was built, and nothing is optimised or linked.
/// Debian's compiler comes without lints.
fn lints(board: &Board) -> Result<()> {
    let route = system::ensure_target(board.target)?;
    if route != system::Route::Rustup {
        println!("    no lints: Debian's compiler builds it here");
        return Ok(());
    }
    let mut lints = process::with_lints(process::cargo());
    lints.args(["rustc", "--target", board.target]);
    process::run(as_released(&mut lints, board, board.name, route).args([
        "--",
        "-Clinker-plugin-lto",
        "-Clinker=true",
        "-Copt-level=0",
    ]))
}

/// Builds a program of a board's package and returns the path of the ELF file.
pub(crate) fn compile(board: &Board, program: &str, more: &[&str]) -> Result<PathBuf> {
    let route = system::ensure_target(board.target)?;
    let mut build = route.cargo_build(board.target);
    process::run(as_released(&mut build, board, program, route).args(more))?;
    Ok(target_dir(route).join(board.target).join("release").join(program))
}

/// What is compiled, and into which folder.
fn as_released<'command>(
    command: &'command mut Command,
    board: &Board,
    program: &str,
    route: system::Route,
) -> &'command mut Command {
    command
        .current_dir(folder())
        .args(["--quiet", "--locked", "--release", "--package", board.name])
        .args(["--bin", program])
        .env("CARGO_TARGET_DIR", target_dir(route))
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
