//! What measurements of engines need: the module with the kernels, and the boards' programs that measure.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{firmware, process, system, tools};

const PACKAGE: &str = "wasmbed-bench-kernels";
const TARGET: &str = "wasm32v1-none";
/// Of the module, in bytes; the linker's default is 1 MiB.
const STACK_BYTES: u32 = 8_192;
/// Boards whose packages have a program that measures.
const BOARDS: [&str; 2] = ["riscv32-virt", "mps2-an385"];

/// Measures the budgets and engines, or engines alone, which is told the arguments then.
pub(crate) fn bench(engines: bool, arguments: &[String]) -> Result<()> {
    module()?;
    let run = |package: &[&str]| {
        let mut command = process::cargo();
        command.args(["run", "--release", "--quiet", "--package"]).args(package).arg("--");
        command
    };
    let beside = ["wasmbed-bench-engines", "--features", "coremark"];
    if engines {
        return process::run(run(&beside).args(arguments));
    }
    tools::ensure_all()?;
    process::run(run(&["wasmbed-bench"]).args(arguments))?;
    process::run(&mut run(&beside))
}

/// Builds `target/bench/kernels.wasm`, optimised as the native kernels are, and `kernels-64k.wasm`, the same with pages of 64 KiB for
/// engines that have no others.
pub(crate) fn module() -> Result<()> {
    // The linker of Debian's compiler can't make a memory as small as what is in it.
    ensure!(
        system::ensure_target(TARGET)? == system::Route::Rustup,
        "the module with the kernels needs rustup's libraries for {TARGET}"
    );
    let folder = process::top().join("target/bench");
    for (name, page) in [("kernels.wasm", "\u{1f}-Clink-arg=--page-size=1"), ("kernels-64k.wasm", "")] {
        let mut build = process::cargo();
        build
            .args(["rustc", "--quiet", "--locked", "--release", "--package", PACKAGE, "--lib"])
            .args(["--features", "coremark"])
            .args(["--crate-type", "cdylib", "--target", TARGET])
            .env("CARGO_TARGET_DIR", &folder)
            .env("CARGO_ENCODED_RUSTFLAGS", format!("-Clink-arg=-zstack-size={STACK_BYTES}{page}"));
        for (name, value) in
            [("LTO", "fat"), ("CODEGEN_UNITS", "1"), ("PANIC", "abort"), ("STRIP", "symbols")]
        {
            build.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
        }
        process::run(&mut build)?;
        let built = folder.join(TARGET).join("release").join(PACKAGE.replace('-', "_"));
        copy(&built.with_extension("wasm"), &folder.join(name))?;
    }
    Ok(())
}

/// Builds the module, and the program that measures for each of the boards that has one.
pub(crate) fn images(options: &firmware::Options) -> Result<()> {
    module()?;
    let (boards, out) = (options.boards()?, firmware::out()?);
    let mut some = false;
    for board in boards.iter().filter(|board| BOARDS.contains(&board.name)) {
        let program = format!("measure-{}", board.name);
        process::step(&format!("{program} ({})", board.target));
        let built: PathBuf = firmware::compile(board, &program, &["--features", "measure"])?;
        copy(&built, &out.join(&program).with_extension("elf"))?;
        some = true;
    }
    if !some {
        bail!("these boards can measure: {}", BOARDS.join(", "));
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("can't copy {} to {}", from.display(), to.display()))?;
    println!("    {}", to.display());
    Ok(())
}
