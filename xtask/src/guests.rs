//! `cargo xtask guests`: builds the sample applications, and holds the committed modules against their sources.
//!
//! The bytes of a module depend on the compiler, not on the folder it is built in. So the compilers that made the committed
//! modules are written down beside them. The same compilers must give the same bytes; others must give modules that
//! import the same, export the same, and log the same lines when they run in the device's sandbox.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

use crate::{
    process,
    system::{self, Route},
};

const TARGET: &str = "wasm32v1-none";
/// Stack of a sample, in bytes, five times what they need; the linkers' default is 1 MiB. It lies below all else, so that one that
/// overflows traps.
const STACK_BYTES: u32 = 2_048;
/// Written beside the modules: one line for each language.
const RECORD: &str = "COMPILERS";

/// One sample, and what it does when it runs.
struct Sample {
    name: &'static str,
    language: Language,
    capabilities: &'static str,
    /// Lines of its log to compare.
    lines: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Rust,
    C,
}

const SAMPLES: [Sample; 14] = [
    Sample { name: "hello", language: Language::Rust, capabilities: "none", lines: 4 },
    Sample { name: "sensor-loop", language: Language::Rust, capabilities: "gpio,sensor", lines: 4 },
    Sample { name: "counter", language: Language::Rust, capabilities: "key-value", lines: 8 },
    Sample { name: "thermometer", language: Language::Rust, capabilities: "i2c,messages", lines: 4 },
    Sample { name: "recorder", language: Language::Rust, capabilities: "i2c", lines: 4 },
    Sample { name: "relay", language: Language::Rust, capabilities: "gpio,messages", lines: 1 },
    Sample { name: "button", language: Language::Rust, capabilities: "gpio", lines: 1 },
    Sample { name: "converter", language: Language::Rust, capabilities: "spi", lines: 2 },
    Sample { name: "archive", language: Language::Rust, capabilities: "spi", lines: 1 },
    Sample { name: "serial", language: Language::Rust, capabilities: "uart", lines: 2 },
    Sample { name: "beacon", language: Language::Rust, capabilities: "none", lines: 2 },
    Sample { name: "hello-c", language: Language::C, capabilities: "none", lines: 12 },
    Sample { name: "thermometer-c", language: Language::C, capabilities: "i2c", lines: 4 },
    Sample { name: "serial-c", language: Language::C, capabilities: "uart", lines: 2 },
];

/// Builds every sample; with `check` compares with the committed modules instead of replacing them.
pub(crate) fn build(check: bool) -> Result<()> {
    process::step(if check { "samples: do the committed modules match their sources?" } else { "samples" });
    let route = system::ensure_target(TARGET)?;
    system::ensure_programs(&[("clang-19", "clang-19"), ("wasm-ld-19", "lld-19")])?;
    let fresh = process::top().join("target/guests/fresh");
    std::fs::create_dir_all(&fresh).with_context(|| format!("can't create {}", fresh.display()))?;
    build_rust(route, &fresh)?;
    build_c(&fresh)?;
    let record = format!("rust: {}\nc: {}\n", rust_version(route)?, clang_version()?);
    let committed = process::top().join("guests/prebuilt");
    if !check {
        return commit(&fresh, &committed, &record);
    }
    let recorded = std::fs::read_to_string(committed.join(RECORD)).context("no record of the compilers")?;
    for sample in &SAMPLES {
        let line = |record: &str| record.lines().nth(sample.language as usize).map(str::to_string);
        if line(&recorded) == line(&record) {
            compare_bytes(sample, &fresh, &committed)?;
        } else {
            compare_meaning(sample, &fresh, &committed)?;
        }
    }
    Ok(())
}

fn guests() -> PathBuf {
    process::top().join("guests")
}

fn module(dir: &Path, sample: &Sample) -> PathBuf {
    dir.join(format!("{}.wasm", sample.name))
}

fn build_rust(route: Route, fresh: &Path) -> Result<()> {
    let target_dir = process::top().join(match route {
        Route::Rustup => "target/guests",
        Route::Debian => "target/guests/debian",
    });
    let mut flags = vec![
        format!("-Clink-arg=-zstack-size={STACK_BYTES}"),
        // Panic locations name files of the compiler's library: wherever it lies, the module says the same.
        "--remap-path-prefix=/usr/lib/rustlib/src/rust=/rust".to_string(),
        format!("--remap-path-prefix={}=/guests", guests().display()),
    ];
    if route == Route::Rustup {
        // Memory as large as what is in it. The linker that comes with Debian's compiler doesn't know the flag.
        flags.push("-Clink-arg=--page-size=1".to_string());
    }
    let mut build = route.cargo_build(TARGET);
    build
        .current_dir(guests())
        .args(["--release", "--locked", "--quiet"])
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    process::run(&mut build)?;
    for sample in SAMPLES.iter().filter(|sample| sample.language == Language::Rust) {
        let built = module(&target_dir.join(TARGET).join("release"), sample);
        std::fs::copy(&built, module(fresh, sample))
            .with_context(|| format!("can't copy {}", built.display()))?;
    }
    Ok(())
}

fn build_c(fresh: &Path) -> Result<()> {
    for sample in SAMPLES.iter().filter(|sample| sample.language == Language::C) {
        let source = sample.name.strip_suffix("-c").unwrap_or(sample.name);
        process::run(
            Command::new("clang-19")
                .current_dir(guests().join("c"))
                .args([
                    "--target=wasm32",
                    "-mcpu=mvp",
                    "-Os",
                    "-nostdlib",
                    "-Wall",
                    "-Wextra",
                    "-Werror",
                    "-Iinclude",
                ])
                .args(["-Wl,--no-entry", "-Wl,--strip-all", "-Wl,--stack-first"])
                .arg(format!("-Wl,-z,stack-size={STACK_BYTES}"))
                .arg(format!("{source}/{source}.c"))
                .arg("-o")
                .arg(module(fresh, sample)),
        )?;
    }
    Ok(())
}

fn rust_version(route: Route) -> Result<String> {
    let mut rustc = match route {
        Route::Rustup => Command::new("rustc"),
        Route::Debian => Command::new("/usr/bin/rustc"),
    };
    Ok(process::output(rustc.arg("--version").current_dir(guests()))?.trim().to_string())
}

fn clang_version() -> Result<String> {
    let text = process::output(Command::new("clang-19").arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_string())
}

fn commit(fresh: &Path, committed: &Path, record: &str) -> Result<()> {
    std::fs::create_dir_all(committed).with_context(|| format!("can't create {}", committed.display()))?;
    for sample in &SAMPLES {
        let to = module(committed, sample);
        let bytes = read(&module(fresh, sample))?;
        // Not a copy of the file: linkers set the executable bit.
        std::fs::write(&to, &bytes).with_context(|| format!("can't write {}", to.display()))?;
        println!("    guests/prebuilt/{}.wasm: {} bytes", sample.name, bytes.len());
    }
    std::fs::write(committed.join(RECORD), record).context("can't record the compilers")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("can't read {}", path.display()))
}

fn compare_bytes(sample: &Sample, fresh: &Path, committed: &Path) -> Result<()> {
    let (new, old) = (read(&module(fresh, sample))?, read(&module(committed, sample))?);
    ensure!(
        new == old,
        "guests/prebuilt/{}.wasm ({} bytes) is not what its sources give ({} bytes); run `cargo xtask guests` and commit",
        sample.name,
        old.len(),
        new.len()
    );
    println!("    {}: the same {} bytes", sample.name, old.len());
    Ok(())
}

fn compare_meaning(sample: &Sample, fresh: &Path, committed: &Path) -> Result<()> {
    for part in [surface, transcript] {
        let (new, old) = (part(sample, &module(fresh, sample))?, part(sample, &module(committed, sample))?);
        if new != old {
            bail!(
                "guests/prebuilt/{}.wasm differs from what its sources give with another compiler:\n{old}\nagainst\n{new}\n\
                 run `cargo xtask guests` and commit",
                sample.name
            );
        }
    }
    println!("    {}: another compiler, the same imports, exports and log", sample.name);
    Ok(())
}

/// Imports and the entry with their types, in an order that no linker decides.
fn surface(_: &Sample, module: &Path) -> Result<String> {
    let text = process::output(wasmbed()?.args(["module", "info"]).arg(module))?;
    let lines =
        text.lines().skip_while(|line| *line != "imports").take_while(|line| !line.starts_with("features"));
    // What linkers export for tools: no device looks at it.
    let mut lines: Vec<&str> = lines.filter(|line| !line.ends_with(" global")).collect();
    ensure!(lines.contains(&"  run func ()"), "{} has no entry:\n{text}", module.display());
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

/// What it logs in the device's sandbox when waits pass at once.
fn transcript(sample: &Sample, module: &Path) -> Result<String> {
    let lines = sample.lines.to_string();
    let mut command = wasmbed()?;
    command
        .args(["module", "run", "--skip-waits", "--lines", &lines, "--capabilities", sample.capabilities])
        .arg(module);
    let text = process::output(&mut command)?;
    ensure!(text.lines().count() as u32 == sample.lines, "{} logged only\n{text}", module.display());
    Ok(text)
}

/// The project's own binary, built the first time.
pub(crate) fn wasmbed() -> Result<Command> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = BUILT.get() {
        return Ok(Command::new(path));
    }
    process::run(&mut process::build_binary())?;
    // Cargo puts it beside this program: the same folder, the same profile.
    let path = std::env::current_exe().context("where is this program?")?.with_file_name("wasmbed");
    Ok(Command::new(BUILT.get_or_init(|| path)))
}
