//! What the engine takes on boards, beside native code from the same source, other engines and the goals of the project.
//!
//! The programs that measure are built as the firmware is; they read the modules from the data flash and print what they counted.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use wasmbed_bench_kernels::{
    KERNELS,
    host::{self, COREMARK_TIMES_NATIVE_GOAL, TIMES_NATIVE_GOAL, geometric_mean, top},
};
use wasmbed_emulator::{Emulator, Kind, Options};
use wasmbed_scan::{ScanLimits, scan};

use crate::dense;

/// All of it takes some ten seconds on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(300);
/// What samples a device is given are, as toolchains emit them.
const SAMPLES: [&str; 3] = ["hello", "counter", "sensor-loop"];
/// Modules below this say more of what every module takes than of their bytes.
const BYTES_MIN: f64 = 2_000.0;
/// Native stack that loading and that running may take, whatever the module is: above this the engine has lost a promise.
const LOAD_STACK_BYTES_MAX: u64 = 1_024;
const RUN_STACK_BYTES_MAX: u64 = 256;
const OURS: &str = "wasmbed";
const NATIVE: &str = "native";

/// One line of a board: what it is about, and numbers by their names.
struct Line {
    what: String,
    name: String,
    engine: String,
    numbers: BTreeMap<String, u64>,
}

impl Line {
    /// `what key=value …`; `None` for a line about something else.
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let what = words.next().filter(|what| ["kernel", "load"].contains(what))?.to_owned();
        let mut line = Self { what, name: String::new(), engine: String::new(), numbers: BTreeMap::new() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "name" | "module" => value.clone_into(&mut line.name),
                "engine" => value.clone_into(&mut line.engine),
                _ => {
                    line.numbers.insert(key.to_owned(), value.parse().ok()?);
                }
            }
        }
        Some(line)
    }

    fn number(&self, key: &str) -> Result<u64> {
        self.numbers.get(key).copied().with_context(|| format!("the board said no {key} of {}", self.name))
    }
}

/// Modules, and how many bytes of each are code.
struct Module {
    name: String,
    bytes: Vec<u8>,
    code_bytes: u32,
    dense: bool,
}

fn modules() -> Result<Vec<Module>> {
    let mut found = vec![("kernels".to_owned(), host::kernels()?, false)];
    for name in SAMPLES {
        let path = top().join("guests/prebuilt").join(name).with_extension("wasm");
        let bytes = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
        found.push((name.to_owned(), bytes, false));
    }
    found.extend(dense::modules()?.into_iter().map(|(name, bytes)| (name, bytes, true)));
    let limits = ScanLimits { entry_required: false, ..ScanLimits::default() };
    let modules = found.into_iter().map(|(name, bytes, dense)| {
        let code_bytes =
            scan(&bytes, &limits).with_context(|| format!("the scan refuses {name}"))?.code_bytes;
        Ok(Module { name, bytes, code_bytes, dense })
    });
    modules.collect()
}

/// Measures on those of the boards that have a program for it, and prints tables.
pub(crate) fn measure(boards: &[Kind]) -> Result<()> {
    let modules = modules()?;
    println!(
        "\nengine: commit {}, {}, {}; firmware's profile: opt-level s (translator z), fat LTO, all operators, full validation, fuel on; native kernels \
         opt-level 3; QEMU -icount shift=0",
        host::commit()?,
        host::version("rustc")?,
        host::version("qemu-system-arm")?,
    );
    let mut measured = 0;
    for board in boards {
        let program = top().join(format!("target/firmware/measure-{board}.elf"));
        if !program.is_file() {
            println!(
                "{board}: no {}; cargo xtask firmware --measure builds those there are",
                program.display()
            );
            continue;
        }
        let lines = run(*board, program, &modules)?;
        tables(*board, &lines, &modules)?;
        measured += 1;
    }
    ensure!(measured > 0, "nothing was measured");
    Ok(())
}

fn run(board: Kind, program: PathBuf, modules: &[Module]) -> Result<Vec<Line>> {
    let folder = top().join("target/bench");
    let flash = folder.join(format!("{board}.flash"));
    write_modules(&flash, modules)?;
    let emulator = Emulator::start(&Options { icount: true, ..Options::new(board, program, flash) })?;
    let mut lines = Vec::new();
    let mut last = String::new();
    emulator.wait_for_line("measured", TIMEOUT, |text| {
        lines.extend(Line::read(text));
        text.clone_into(&mut last);
        ["measured", "failed", "ERROR", "load module="].iter().any(|word| text.starts_with(word))
            && (!text.starts_with("load") || text.contains(" error: "))
    })?;
    if last != "measured" {
        bail!("{board} said {last:?}");
    }
    Ok(lines)
}

/// As the board's program reads them.
fn write_modules(flash: &Path, modules: &[Module]) -> Result<()> {
    let mut image = Vec::new();
    for Module { name, bytes, .. } in modules {
        image.push(u8::try_from(name.len())?);
        image.extend_from_slice(&u32::try_from(bytes.len())?.to_le_bytes());
        image.extend_from_slice(name.as_bytes());
        image.extend_from_slice(bytes);
    }
    image.push(0);
    fs::write(flash, image).with_context(|| format!("can't write {}", flash.display()))
}

fn tables(board: Kind, lines: &[Line], modules: &[Module]) -> Result<()> {
    let kernels: Vec<&Line> = lines.iter().filter(|line| line.what == "kernel").collect();
    speed(board, &kernels)?;
    let ours: Vec<&Line> = kernels.iter().copied().filter(|line| line.engine == OURS).collect();
    let loads: Vec<&Line> = lines.iter().filter(|line| line.what == "load").collect();
    println!("\n| {board} | goal | measured |\n|---|---|---|");
    let (mut extra, mut suspensions) = (0, 0);
    for line in &ours {
        extra += line.number("sliced")?.saturating_sub(line.number("instructions")?);
        suspensions += line.number("slices")?.saturating_sub(1);
    }
    let each = extra as f64 / suspensions.max(1) as f64;
    println!("| a suspension with its resumption, instructions | at most 100 | {each:.0} |");
    let stack = |lines: &[&Line]| -> Result<u64> {
        let all: Result<Vec<u64>> = lines.iter().map(|line| line.number("stack")).collect();
        all?.into_iter().max().context("nothing was measured")
    };
    let (running, loading) = (stack(&ours)?, stack(&loads)?);
    println!("| native stack, running | a constant | {running} bytes |");
    println!("| native stack, loading | a constant | {loading} bytes |");
    load_rows(&loads, modules)?;
    ensure!(running <= RUN_STACK_BYTES_MAX, "{board}: running took {running} bytes of native stack");
    ensure!(loading <= LOAD_STACK_BYTES_MAX, "{board}: loading took {loading} bytes of native stack");
    Ok(())
}

/// Instructions of the kernels, engine by engine, and how many times those of native code.
fn speed(board: Kind, kernels: &[&Line]) -> Result<()> {
    let mut engines: Vec<&str> = Vec::new();
    for line in kernels {
        if !engines.contains(&line.engine.as_str()) {
            engines.push(&line.engine);
        }
    }
    let names: Vec<&str> =
        kernels.iter().filter(|line| line.engine == NATIVE).map(|line| line.name.as_str()).collect();
    println!(
        "\n| {board}, instructions | {} | geometric mean of the kernels, times native |",
        names.join(" | ")
    );
    println!("|---{}|", "|---".repeat(names.len() + 1));
    let of = |engine: &str, name: &str| -> Result<f64> {
        let found = kernels.iter().find(|line| line.engine == engine && line.name == name);
        Ok(found
            .with_context(|| format!("the board said nothing of {name} on {engine}"))?
            .number("instructions")? as f64)
    };
    for engine in engines {
        let mut cells = Vec::new();
        let mut times = Vec::new();
        for name in &names {
            let (native, counted) = (of(NATIVE, name)?, of(engine, name)?);
            if KERNELS.iter().any(|kernel| kernel.name == *name) {
                times.push(counted / native);
            }
            cells.push(match engine {
                NATIVE => format!("{counted}"),
                _ => format!("{counted}, {:.1}x", counted / native),
            });
        }
        let goal = match engine {
            OURS => format!(" (goal {TIMES_NATIVE_GOAL}, CoreMark {COREMARK_TIMES_NATIVE_GOAL})"),
            _ => String::new(),
        };
        println!("| {engine} | {} | {:.1}{goal} |", cells.join(" | "), geometric_mean(&times));
    }
    Ok(())
}

fn load_rows(loads: &[&Line], modules: &[Module]) -> Result<()> {
    let (mut typical, mut scans) = (Vec::new(), Vec::new());
    let (mut dense_scans, mut load_steps, mut scan_steps) = (Vec::new(), Vec::new(), Vec::new());
    let mut expansions = Vec::new();
    let (mut dense, mut dense_expansions) = (Vec::new(), Vec::new());
    for module in modules {
        let line = loads.iter().find(|line| line.name == module.name);
        let line = line.with_context(|| format!("the board did not load {}", module.name))?;
        let bytes = module.bytes.len() as f64;
        let each = line.number("instructions")? as f64 / bytes;
        let expansion = line.number("translated")? as f64 / f64::from(module.code_bytes.max(1));
        let scan = line.number("scan")? as f64 / bytes;
        load_steps.push((line.number("load_step")? as f64, &module.name));
        scan_steps.push((line.number("scan_step")? as f64, &module.name));
        if module.dense {
            dense.push((each, &module.name));
            dense_scans.push((scan, &module.name));
            if f64::from(module.code_bytes) >= BYTES_MIN {
                dense_expansions.push((expansion, &module.name));
            }
        } else if bytes >= BYTES_MIN {
            typical.push(each);
            scans.push(scan);
            expansions.push((expansion, &module.name));
        }
    }
    println!(
        "| scanning, instructions for a byte of a module: the samples and the kernels | – | {} to {} |",
        extreme(&scans, f64::min),
        extreme(&scans, f64::max)
    );
    println!(
        "| loading, instructions for a byte of a module: the samples and the kernels | – | {} to {} |",
        extreme(&typical, f64::min),
        extreme(&typical, f64::max)
    );
    let shown: Vec<String> = expansions.iter().map(|(each, name)| format!("{name} {each:.2}")).collect();
    println!("| translated code for a byte of code | at most 1.4 | {} |", shown.join(", "));
    let worst = |what: &str, mut list: Vec<(f64, &String)>, places: usize| {
        list.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let shown: Vec<String> = list.iter().map(|(each, name)| format!("{name} {each:.places$}")).collect();
        println!("| {what} | bounded | {} |", shown.join(", "));
    };
    worst("scanning, instructions for a byte of the worst modules", dense_scans, 0);
    worst("loading, instructions for a byte of the worst modules", dense, 0);
    worst("the longest step of scanning, instructions", scan_steps, 0);
    worst("the longest step of loading, instructions", load_steps, 0);
    worst("translated code for a byte of code, the worst modules", dense_expansions, 1);
    Ok(())
}

fn extreme(values: &[f64], of: fn(f64, f64) -> f64) -> String {
    format!("{:.0}", values.iter().copied().reduce(of).unwrap_or(f64::NAN))
}
