//! `wasmbed module`: what a module is, whether a device runs it, and how to make it one that does.

mod advice;
mod anatomy;
mod feature;
mod info;
mod lower;
mod pack;
mod polyfill;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

pub use advice::Toolchain;
pub use anatomy::{Anatomy, Export, Import, Memory, Place, ReadError, Section, Use};
pub use feature::{Feature, Treatment};
pub use info::{FeatureTreatment, Info};
pub use pack::{PackError, Packed, pack};

/// What to do with a WebAssembly module.
#[derive(Debug, clap::Subcommand)]
pub enum ModuleCommand {
    /// Rewrite a module so that every device runs it, and say what it takes there.
    ///
    /// Newer operators are rewritten in terms of WebAssembly 1.0; what devices never look at (names, debug
    /// information, other exports) is dropped. `apply` does the same on its own.
    Pack {
        /// The module, or - for standard input.
        module: PathBuf,
        /// Where to write it; - is standard output [default: NAME.packed.wasm beside the module].
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Show what a module consists of.
    Info {
        /// The module, or - for standard input.
        module: PathBuf,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = InfoFormat::Text)]
        output: InfoFormat,
    },
}

/// How `module info` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum InfoFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Runs a subcommand; an error is for a person and means exit code 1.
pub fn run(command: ModuleCommand) -> anyhow::Result<()> {
    match command {
        ModuleCommand::Pack { module, output } => run_pack(&module, output),
        ModuleCommand::Info { module, output } => run_info(&module, output),
    }
}

fn run_pack(module: &Path, output: Option<PathBuf>) -> anyhow::Result<()> {
    let packed = pack(&read_module(module)?).with_context(|| format!("can't pack {}", module.display()))?;
    let output = output.unwrap_or_else(|| match module.to_str() {
        Some("-") => PathBuf::from("-"),
        _ => module.with_extension("packed.wasm"),
    });
    if output.as_os_str() == "-" {
        std::io::stdout().write_all(&packed.bytes).context("can't write the module to standard output")?;
        eprint!("{}", packed.report());
    } else {
        std::fs::write(&output, &packed.bytes)
            .with_context(|| format!("can't write {}", output.display()))?;
        print!("packed     {} into {}\n{}", module.display(), output.display(), packed.report());
    }
    Ok(())
}

fn run_info(module: &Path, format: InfoFormat) -> anyhow::Result<()> {
    let info =
        Info::read(&read_module(module)?).with_context(|| format!("can't read {}", module.display()))?;
    match format {
        InfoFormat::Text => print!("{}", info.to_text()),
        InfoFormat::Json => println!("{}", serde_json::to_string_pretty(&info)?),
    }
    Ok(())
}

/// More than any module that fits a device, less than what would hurt this machine.
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
