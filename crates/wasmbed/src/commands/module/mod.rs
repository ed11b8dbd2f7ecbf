//! `wasmbed module`: what a module is, whether a device runs it, and how to make it one that does.

mod advice;
mod anatomy;
mod check;
mod feature;
mod info;
mod lower;
mod names;
mod pack;
mod polyfill;
mod symbolize;
mod toolchain;
mod trial;

use std::io::{BufRead, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use wasmbed_runtime::{Ending, Limits};
use wasmbed_scan::{Capabilities, Capability, Features};

use crate::{output, values};

pub use anatomy::{Anatomy, Export, Import, Memory, Place, ReadError, Section, Use};
pub use check::{CheckOptions, Findings, check};
pub use feature::{Feature, Treatment};
pub use info::{FeatureTreatment, Info};
pub use names::NamesKept;
pub use pack::{PackError, Packed, pack, pack_for};
pub use symbolize::{SourcePlace, SymbolizeError, Symbolized, Symbolizer, TracePlace, places_in};
pub use toolchain::Toolchain;
pub use trial::{TrialEnd, TrialOptions, try_out, try_out_traced};

/// Commands on a WebAssembly module.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a module ready for devices, and print the resources it needs.
    ///
    /// What devices do not use (debug information, other exports; names, unless --names keeps those of functions) is dropped;
    /// what no device runs is refused by name. Operators stay as they are, unless --lower rewrites them. `apply` does this
    /// automatically.
    Pack {
        /// The module, or - for standard input.
        module: PathBuf,
        /// Output file, or - for standard output [default: NAME.packed.wasm next to the module].
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Rewrite operators in terms of WebAssembly 1.0 as far as possible, for devices that run nothing else.
        ///
        /// `status.facts.features` of a Device lists what its engine runs beyond WebAssembly 1.0. `apply` lowers a WebAssembly
        /// file by itself where a targeted Device needs it.
        #[arg(long)]
        lower: bool,
        /// Declare the settings of this file, a line for each, instead of those that the module declares.
        #[arg(long, value_name = "FILE")]
        settings: Option<PathBuf>,
        /// Keep the names of functions, so that a device names those that trap; prints what they add to the module's size.
        ///
        /// A name is cut to 32 bytes, by leading path segments first. Without this option a device tells the indices and offsets of
        /// functions, which `wasmbed module symbolize` turns into names with the file that was packed.
        #[arg(long)]
        names: bool,
    },
    /// Check whether a device would accept a module, and print every problem; exit code 1 if it would not.
    Check {
        /// The module, or - for standard input.
        module: PathBuf,
        /// The Application's memory_limit: bytes, or for example 64Ki.
        #[arg(long, value_name = "BYTES", default_value_t = MEMORY_LIMIT_DEFAULT, value_parser = values::bytes_of::<u32>)]
        memory_limit: u32,
        /// The device's memory for applications: bytes, or for example 384Ki [default: that of a board with 512 KiB of RAM].
        #[arg(long, value_name = "BYTES", default_value_t = DEVICE_MEMORY_DEFAULT, hide_default_value = true, value_parser = values::bytes)]
        device_memory: u64,
        /// The Application's capabilities: gpio, sensor, key-value, i2c, spi, uart; `none` for nothing [default: not checked].
        #[arg(long = "capability", alias = "capabilities", value_name = "NAMES", value_delimiter = ',', value_parser = parse_grant)]
        capabilities: Vec<Grant>,
    },
    /// Show the contents of a module.
    Info {
        /// The module, or - for standard input.
        module: PathBuf,
        /// Output format.
        #[arg(short, long, value_enum, default_value_t = InfoFormat::Text)]
        output: InfoFormat,
    },
    /// Show the functions, files and lines of a stack trace.
    ///
    /// Reads text with traces as devices write them, for example from `wasmbed logs` or `kubectl describe`, from standard
    /// input. Files and lines need the module as its toolchain made it, with debug information (DWARF).
    Symbolize {
        /// The module as it was built, before packing.
        module: PathBuf,
        /// A byte of the module that the device runs, for example 0x1a3, instead of standard input; several times for
        /// several.
        #[arg(long, value_name = "BYTE", value_parser = symbolize::parse_offset)]
        offset: Vec<u32>,
    },
    /// Run a module in the device's sandbox on this machine, packed as `apply` would.
    ///
    /// Prints its log and exits with its exit code. Key-value data lasts as long as the run; there are no pins and
    /// no sensors.
    Run {
        /// The module, or - for standard input.
        module: PathBuf,
        /// Capabilities to grant: gpio, sensor, key-value, i2c, spi, uart.
        #[arg(long = "capability", alias = "capabilities", value_name = "NAMES", value_delimiter = ',', value_parser = parse_grant)]
        capabilities: Vec<Grant>,
        /// Limit of linear memory: bytes, or for example 64Ki.
        #[arg(long, value_name = "BYTES", default_value_t = MEMORY_LIMIT_DEFAULT, value_parser = values::bytes_of::<u32>)]
        memory_limit: u32,
        /// Limit of CPU time between two waits, milliseconds.
        #[arg(long, value_name = "MS", default_value_t = CPU_LIMIT_MS_DEFAULT)]
        cpu_time_limit: u32,
        /// An environment variable.
        #[arg(long, value_name = "NAME=VALUE", value_parser = values::variable)]
        env: Vec<(String, String)>,
        /// Stop after this many log lines.
        #[arg(long, value_name = "N")]
        lines: Option<u64>,
        /// The value of a setting that the module declares; otherwise it has its default.
        #[arg(long = "setting", value_name = "NAME=VALUE", value_parser = values::variable)]
        settings: Vec<(String, String)>,
        /// Skip waits.
        #[arg(long)]
        skip_waits: bool,
        /// Arguments of the application.
        #[arg(last = true)]
        args: Vec<String>,
    },
}

/// Defaults of the Application resource.
const MEMORY_LIMIT_DEFAULT: u32 = 65_536;
const CPU_LIMIT_MS_DEFAULT: u32 = 1_000;
/// The arena of a board with 512 KiB of RAM.
const DEVICE_MEMORY_DEFAULT: u64 = 384 * 1_024;

/// Output format of `module info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum InfoFormat {
    /// Human-readable.
    Text,
    /// Machine-readable.
    Json,
}

/// A capability, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant(Option<Capability>);

fn parse_grant(name: &str) -> Result<Grant, values::ValueError> {
    values::capability(name).map(Grant)
}

fn granted(grants: &[Grant]) -> Capabilities {
    grants.iter().filter_map(|grant| grant.0).collect()
}

/// Runs a subcommand; the error is a message for the user, with exit code 1. `module run` exits with the application's code.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Pack { module, output, lower, settings, names } => {
            run_pack(&module, output, lower, settings.as_deref(), names)
        }
        Command::Check { module, memory_limit, device_memory, capabilities } => {
            let options = CheckOptions {
                memory_limit_bytes: memory_limit.into(),
                device_memory_bytes: device_memory,
                capabilities: (!capabilities.is_empty()).then(|| granted(&capabilities)),
            };
            run_check(&module, &options)
        }
        Command::Info { module, output } => run_info(&module, output),
        Command::Symbolize { module, offset } => run_symbolize(&module, &offset),
        Command::Run {
            module,
            capabilities,
            memory_limit,
            cpu_time_limit,
            env,
            lines,
            settings,
            skip_waits,
            args,
        } => {
            let options = TrialOptions {
                name: module.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
                args,
                env,
                capabilities: granted(&capabilities),
                limits: Limits { memory_bytes: memory_limit, cpu_ms: cpu_time_limit },
                lines_max: lines,
                settings,
                skip_waits,
            };
            run_trial(&module, &options)
        }
    }
}

fn run_pack(
    module: &Path,
    output: Option<PathBuf>,
    lower: bool,
    settings: Option<&Path>,
    names: bool,
) -> anyhow::Result<()> {
    let devices = if lower { Features::FIRST_DEVICES } else { Features::DEVICES };
    let mut bytes = read_module(module)?;
    if let Some(file) = settings {
        let schema = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
        bytes =
            pack::declaring(&bytes, &schema).with_context(|| format!("can't pack {}", module.display()))?;
    }
    let packed = pack_for(&bytes, devices);
    let packed = if names { packed.and_then(|packed| packed.with_names(&bytes)) } else { packed };
    let packed = packed.with_context(|| format!("can't pack {}", module.display()))?;
    let output = output.unwrap_or_else(|| match module.to_str() {
        Some("-") => PathBuf::from("-"),
        _ => module.with_extension("packed.wasm"),
    });
    if output.as_os_str() == "-" {
        std::io::stdout().write_all(&packed.bytes).context("can't write the module to standard output")?;
        output::complain(packed.report().to_string().trim_end());
    } else {
        std::fs::write(&output, &packed.bytes)
            .with_context(|| format!("can't write {}", output.display()))?;
        output::print(&format!(
            "packed     {} into {}\n{}",
            module.display(),
            output.display(),
            packed.report()
        ));
    }
    Ok(())
}

fn run_check(module: &Path, options: &CheckOptions) -> anyhow::Result<()> {
    let bytes = read_module(module)?;
    let findings = check(&bytes, options);
    for line in &findings.refused {
        output::print_line(&format!("refused    {line}"));
    }
    for line in &findings.notes {
        output::print_line(&format!("note       {line}"));
    }
    for line in check::pack_advice(&bytes) {
        output::print_line(&format!("advice     {line}"));
    }
    match findings.refused.len() {
        0 => {
            output::print_line(&format!("accepted   {}", module.display()));
            Ok(())
        }
        1 => anyhow::bail!("{} would be refused", module.display()),
        many => anyhow::bail!("{} would be refused, for {many} reasons", module.display()),
    }
}

fn run_info(module: &Path, format: InfoFormat) -> anyhow::Result<()> {
    let info =
        Info::read(&read_module(module)?).with_context(|| format!("can't read {}", module.display()))?;
    match format {
        InfoFormat::Text => output::print(&info.to_text()),
        InfoFormat::Json => output::print_line(&serde_json::to_string_pretty(&info)?),
    }
    Ok(())
}

fn run_symbolize(module: &Path, offsets: &[u32]) -> anyhow::Result<()> {
    let bytes = read_module(module)?;
    let symbolizer = Symbolizer::read(&bytes).with_context(|| format!("can't read {}", module.display()))?;
    if !offsets.is_empty() {
        let places: Vec<_> =
            offsets.iter().map(|offset| TracePlace { function: None, offset: Some(*offset) }).collect();
        symbolize::print(&symbolizer.symbolize(&places)?);
    } else {
        anyhow::ensure!(
            module.as_os_str() != "-",
            "standard input can't be both the module and the trace: name the module's file"
        );
        let mut traces = 0;
        for line in std::io::stdin().lock().lines() {
            let line = line.context("can't read the trace from standard input")?;
            let places = places_in(&line);
            if !places.is_empty() {
                output::print_line(&wasmbed_control::harmless(&line, TRACE_LINE_BYTES_MAX));
                symbolize::print(&symbolizer.symbolize(&places)?);
                traces += 1;
            }
        }
        anyhow::ensure!(
            traces > 0,
            "no trace in standard input: a line of one has places such as 'function 12, offset 0x1a3'"
        );
    }
    if !symbolizer.has_debug_information() {
        output::complain(symbolize::NO_DEBUG_INFORMATION);
    }
    Ok(())
}

/// A line of a trace that is shown again.
const TRACE_LINE_BYTES_MAX: usize = 2_048;

fn run_trial(module: &Path, options: &TrialOptions) -> anyhow::Result<()> {
    let bytes = read_module(module)?;
    let packed = pack(&bytes).with_context(|| format!("can't pack {}", module.display()))?;
    let (end, places) = try_out_traced(&packed.bytes, options, &mut std::io::stdout())?;
    match end {
        TrialEnd::Stopped | TrialEnd::Ended(Ending::Exited { code: 0 }) => Ok(()),
        // A process has eight bits for its code, and a code that is not 0 must not become 0.
        TrialEnd::Ended(Ending::Exited { code }) => {
            std::process::exit(i32::from(u8::try_from(code).unwrap_or(255)))
        }
        TrialEnd::Ended(ending) => {
            let symbolizer = Symbolizer::read(&bytes)?;
            let mut message = format!("{} {ending}", module.display());
            for (number, place) in symbolizer.symbolize(&places)?.iter().enumerate() {
                message.push_str(&format!("\n{number:>4}: {place}"));
            }
            if !places.is_empty() && !symbolizer.has_debug_information() {
                message.push_str(&format!("\n{}", symbolize::NO_DEBUG_INFORMATION));
            }
            anyhow::bail!(message)
        }
    }
}

/// Larger than any module that fits on a device, small enough for this machine.
const FILE_BYTES_MAX: u64 = 256 << 20;

fn read_module(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("can't read {}", path.display()))?;
    anyhow::ensure!(
        bytes.len() as u64 <= FILE_BYTES_MAX,
        "{} is larger than {} MiB: no module for a device is",
        path.display(),
        FILE_BYTES_MAX >> 20
    );
    Ok(bytes)
}
