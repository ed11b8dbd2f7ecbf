//! The toolchain proof: the same small program in four toolchains' own words, built as a person would, packed, and run in
//! the device's sandbox. Where packing has advice, the advice is followed and the result must run too.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};

use crate::{guests::wasmbed, process, system};

/// The `memory_limit` of the runs: two pages of 64 KiB, so that a program with one page has one to grow by.
const MEMORY_LIMIT_BYTES: u32 = 131_072;
/// What each program ends with.
const EXIT_CODE: i32 = 7;
const ASSEMBLYSCRIPT: [&str; 2] = ["assemblyscript@0.28.20", "@assemblyscript/wasi-shim@0.1.0"];
const ZIG: &str = "ziglang==0.17.1";

/// One toolchain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Toolchain {
    Rust,
    C,
    AssemblyScript,
    Zig,
}

const ALL: [Toolchain; 4] = [Toolchain::Rust, Toolchain::C, Toolchain::AssemblyScript, Toolchain::Zig];

impl Toolchain {
    fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust wasm32-wasip1",
            Self::C => "C, clang + wasi-libc",
            Self::AssemblyScript => "AssemblyScript",
            Self::Zig => "Zig",
        }
    }

    /// Source file, and file name of what is built.
    fn files(self) -> (&'static str, &'static str) {
        match self {
            Self::Rust => ("rust/src/main.rs", "rust"),
            Self::C => ("hello.c", "c"),
            Self::AssemblyScript => ("hello.ts", "assemblyscript"),
            Self::Zig => ("hello.zig", "zig"),
        }
    }

    fn line(self) -> &'static str {
        match self {
            Self::Rust => "hello from rust: 8 words, the 2 times, 3.143",
            Self::C => "hello from c: 35 letters, first brown, 3.143",
            Self::AssemblyScript => "hello from assemblyscript: 35 letters, first brown, 3.143",
            Self::Zig => "hello from zig: 35 letters, first brown, 3.143",
        }
    }

    /// Arguments that the packer is expected to advise, as they stand in its advice.
    fn advised(self) -> &'static str {
        match self {
            Self::Rust => "-C link-arg=-zstack-size=16384",
            Self::C => "-Wl,-z,stack-size=8192",
            Self::AssemblyScript => "--initialMemory 1",
            Self::Zig => "--stack 16384",
        }
    }

    /// Makes sure that it is there, or says how to install it.
    fn install(self, cache: &Path) -> Result<()> {
        match self {
            Self::Rust => match system::ensure_target("wasm32-wasip1")? {
                system::Route::Rustup => Ok(()),
                // Built from source, the standard library lacks the C library that rustup's comes with.
                system::Route::Debian => system::ensure_packages(&["wasi-libc"]),
            },
            Self::C => {
                system::ensure_packages(&["clang-19", "lld-19", "wasi-libc", "libclang-rt-19-dev-wasm32"])
            }
            Self::AssemblyScript => {
                system::ensure_programs(&[("node", "nodejs"), ("npm", "npm")])?;
                let dir = cache.join("assemblyscript");
                if dir.join("node_modules/assemblyscript/bin/asc.js").is_file()
                    && installed(&dir, &ASSEMBLYSCRIPT.join(" "))
                {
                    return Ok(());
                }
                create(&dir)?;
                process::step(&format!("installing {}", ASSEMBLYSCRIPT.join(" ")));
                process::run(
                    Command::new("npm")
                        .args(["install", "--no-audit", "--no-fund", "--silent", "--prefix"])
                        .arg(&dir)
                        .args(ASSEMBLYSCRIPT),
                )?;
                mark(&dir, &ASSEMBLYSCRIPT.join(" "))
            }
            Self::Zig => {
                let dir = cache.join("zig");
                if installed(&dir, ZIG) {
                    return Ok(());
                }
                system::ensure_programs(&[("python3", "python3")])?;
                if !venv_works() {
                    system::ensure_packages(&["python3-venv"])?;
                }
                process::step(&format!("installing {ZIG}"));
                process::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
                process::run(Command::new(dir.join("bin/pip")).args(["install", "--quiet", ZIG]))?;
                mark(&dir, ZIG)
            }
        }
    }

    /// Builds the program into `out`, with the advised arguments or as the toolchain does by default.
    fn build(self, cache: &Path, out: &Path, extra: &[&str]) -> Result<()> {
        let sources = process::top().join("guests/toolchains");
        let source = sources.join(self.files().0);
        match self {
            Self::Rust => build_rust(out, extra),
            Self::C => process::run(
                Command::new("clang-19")
                    .args(["--target=wasm32-wasi", "--sysroot=/usr", "-Os"])
                    .args(extra)
                    .arg(&source)
                    .arg("-o")
                    .arg(out),
            ),
            Self::AssemblyScript => {
                // asc reads sources below its folder only.
                let dir = cache.join("assemblyscript");
                std::fs::copy(&source, dir.join("hello.ts")).context("can't copy the source")?;
                process::run(
                    Command::new("node")
                        .current_dir(&dir)
                        .args(["node_modules/assemblyscript/bin/asc.js", "hello.ts", "-Osize", "--config"])
                        .arg("node_modules/@assemblyscript/wasi-shim/asconfig.json")
                        .args(extra)
                        .arg("-o")
                        .arg(out),
                )
            }
            Self::Zig => process::run(
                Command::new(cache.join("zig/bin/python"))
                    .args(["-m", "ziglang", "build-exe", "-target", "wasm32-wasi", "-OReleaseSmall"])
                    .args(extra)
                    .arg(&source)
                    .arg(format!("-femit-bin={}", out.display()))
                    .env("ZIG_GLOBAL_CACHE_DIR", cache.join("zig-cache"))
                    .env("ZIG_LOCAL_CACHE_DIR", cache.join("zig-cache")),
            ),
        }
    }
}

fn build_rust(out: &Path, extra: &[&str]) -> Result<()> {
    const TARGET: &str = "wasm32-wasip1";
    let route = system::ensure_target(TARGET)?;
    let target_dir = process::top().join("target/toolchains/rust");
    let mut flags = extra.to_vec();
    let mut build = route.cargo_build(TARGET);
    if route == system::Route::Debian {
        flags.extend(["-Clink-self-contained=no", "-Lnative=/usr/lib/wasm32-wasi"]);
        flags.push("-Clink-arg=/usr/lib/wasm32-wasi/crt1-command.o");
        // Of two, Cargo takes the last.
        build.arg("-Zbuild-std=std,panic_abort");
    }
    process::run(
        build
            .current_dir(process::top().join("guests/toolchains/rust"))
            .args(["--release", "--locked", "--quiet"])
            .env("CARGO_TARGET_DIR", &target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")),
    )?;
    let built = target_dir.join(TARGET).join("release/hello.wasm");
    std::fs::copy(&built, out).with_context(|| format!("can't copy {}", built.display()))?;
    Ok(())
}

/// What the sandbox made of a program.
enum Outcome {
    Runs,
    /// It refused the program, or the program did something else; for people.
    DoesNot(String),
}

/// What became of one build.
struct Row {
    toolchain: Toolchain,
    variant: &'static str,
    bytes_before: u64,
    bytes_after: u64,
    memory: String,
    outcome: Outcome,
    advice: Option<String>,
}

/// Builds, packs and runs the programs, and prints a table.
pub(crate) fn run() -> Result<()> {
    process::step("toolchains: programs in Rust, C, AssemblyScript and Zig run after `module pack`");
    let cache = process::cache()?.join("toolchains");
    let out = process::top().join("target/toolchains");
    create(&out)?;
    let mut rows = Vec::new();
    for toolchain in ALL {
        toolchain.install(&cache).with_context(|| format!("{} is not there", toolchain.name()))?;
        let row = attempt(toolchain, "as built", &cache, &out, &[])?;
        let advised = row.advice.clone();
        rows.push(row);
        if let Some(advice) = advised {
            ensure!(
                advice.contains(toolchain.advised()),
                "the advice for {} doesn't say `{}`: {advice}",
                toolchain.name(),
                toolchain.advised()
            );
            let extra: Vec<&str> = toolchain.advised().split(' ').collect();
            rows.push(attempt(toolchain, "as advised", &cache, &out, &extra)?);
        }
    }
    print(&rows);
    for toolchain in ALL {
        // The last attempt of each counts: as built, or, where there was advice, as advised.
        match rows.iter().rev().find(|row| row.toolchain == toolchain) {
            Some(Row { outcome: Outcome::Runs, .. }) => {}
            Some(Row { outcome: Outcome::DoesNot(why), .. }) => {
                bail!("{} does not run: {why}", toolchain.name())
            }
            None => bail!("{} was not tried", toolchain.name()),
        }
    }
    println!("\n    {} toolchains, {} builds", ALL.len(), rows.len());
    Ok(())
}

fn attempt(
    toolchain: Toolchain,
    variant: &'static str,
    cache: &Path,
    out: &Path,
    extra: &[&str],
) -> Result<Row> {
    let built = out.join(format!("{}-{}.wasm", toolchain.files().1, variant.replace(' ', "-")));
    let packed = built.with_extension("packed.wasm");
    toolchain.build(cache, &built, extra)?;
    let report =
        process::output(wasmbed()?.args(["module", "pack"]).arg(&built).arg("--output").arg(&packed))?;
    let value = |name: &str| {
        let lines = report.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(|rest| rest.trim().to_string()).next()
    };
    let outcome = run_packed(toolchain, &packed)?;
    Ok(Row {
        toolchain,
        variant,
        bytes_before: size(&built)?,
        bytes_after: size(&packed)?,
        memory: value("memory").unwrap_or_default(),
        outcome,
        advice: value("advice"),
    })
}

/// Runs it.
fn run_packed(toolchain: Toolchain, packed: &Path) -> Result<Outcome> {
    let mut command = wasmbed()?;
    command.args(["module", "run", "--memory-limit", &MEMORY_LIMIT_BYTES.to_string()]).arg(packed);
    let Output { status, stdout, stderr } = command.output().context("can't start wasmbed")?;
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    if stdout.trim_end() == toolchain.line() && status.code() == Some(EXIT_CODE) {
        return Ok(Outcome::Runs);
    }
    let said: Vec<&str> =
        stderr.lines().chain(stdout.lines()).map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = said.join("; ");
    Ok(Outcome::DoesNot(match said.strip_prefix("error: ") {
        Some(error) => error.to_string(),
        None => format!("{status}: {said}"),
    }))
}

fn print(rows: &[Row]) {
    println!(
        "\n    {:<22}{:<12}{:>9}{:>9}  {:<42}result",
        "toolchain", "variant", "built", "packed", "memory at the start"
    );
    for row in rows {
        let outcome = match &row.outcome {
            Outcome::Runs => "runs",
            Outcome::DoesNot(why) => why,
        };
        println!(
            "    {:<22}{:<12}{:>9}{:>9}  {:<42}{outcome}",
            row.toolchain.name(),
            row.variant,
            row.bytes_before,
            row.bytes_after,
            row.memory
        );
        if let Some(advice) = &row.advice {
            println!("    {:<22}advice: {advice}", "");
        }
    }
}

fn size(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| format!("{} was not built", path.display()))?.len())
}

fn create(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("can't create {}", dir.display()))
}

fn venv_works() -> bool {
    Command::new("python3")
        .args(["-c", "import venv, ensurepip"])
        .status()
        .is_ok_and(|status| status.success())
}

/// Says in a folder what was installed there, once it is complete.
fn mark(dir: &Path, what: &str) -> Result<()> {
    std::fs::write(marker(dir), what).with_context(|| format!("can't write into {}", dir.display()))
}

fn installed(dir: &Path, what: &str) -> bool {
    std::fs::read_to_string(marker(dir)).is_ok_and(|found| found == what)
}

fn marker(dir: &Path) -> PathBuf {
    dir.join("wasmbed-installed")
}
