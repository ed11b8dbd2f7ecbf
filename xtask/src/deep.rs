//! `cargo xtask deep NAME`: long work, each of it bounded by an option and summed up in its last line. The gate runs none of it.

use std::{
    path::PathBuf,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use crate::{container, defences, fuzz, miri, mutations, process};

/// Work that takes minutes to hours.
#[derive(Subcommand)]
pub(crate) enum Task {
    /// Play seeds of the simulation that no run played before, on all cores, in a release build.
    Seeds(Seeds),
    /// Show that the simulation finds deliberate bugs, one in each of several state machines, and shrinks what shows them.
    Mutations(mutations::Mutations),
    /// Take defences out, one after the other, and show that the test of each fails without it.
    Defences(defences::Defences),
    /// Run each fuzz target for a while and print executions, coverage and findings; needs cargo-fuzz and a nightly compiler.
    Fuzz(fuzz::Fuzz),
    /// Run tests of the engine under Miri, which sees undefined behaviour; needs a nightly compiler with Miri.
    Miri(miri::Miri),
    /// Attack a site of real processes, one attack after the other, and measure how long honest devices and clients wait.
    Attacks(Attacks),
    /// The same with all attacks at once.
    Soak(Soak),
}

#[derive(Args)]
pub(crate) struct Seeds {
    /// How many.
    #[arg(long, default_value_t = 5_000)]
    seeds: u64,
    /// The first one; from the clock if it is not given.
    #[arg(long)]
    first: Option<u64>,
    /// Stop after so many seconds, however many are left.
    #[arg(long)]
    seconds: Option<u64>,
}

#[derive(Args)]
pub(crate) struct Attacks {
    /// Seconds of each attack.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    #[command(flatten)]
    against: Against,
}

#[derive(Args)]
pub(crate) struct Soak {
    /// Seconds of attacks.
    #[arg(long, default_value_t = 1_800)]
    seconds: u64,
    #[command(flatten)]
    against: Against,
}

#[derive(Args)]
struct Against {
    /// The binary under attack, for example an earlier one; that of this checkout if it is not given.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Passed to the program: see `cargo xtask deep attacks -- --help`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(task: Task) -> Result<()> {
    match task {
        Task::Seeds(options) => seeds(&options),
        Task::Mutations(options) => mutations::run(&options),
        Task::Defences(options) => defences::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Miri(options) => miri::run(&options),
        Task::Attacks(Attacks { seconds, against }) => soak("each", seconds, against),
        Task::Soak(Soak { seconds, against }) => soak("all", seconds, against),
    }
}

fn release(package: &str, binary: &str) -> Command {
    let mut command = process::cargo();
    command.args(["run", "--release", "--quiet", "--package", package, "--bin", binary, "--"]);
    command
}

fn seeds(options: &Seeds) -> Result<()> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let first = options.first.unwrap_or(clock.as_secs() << 20);
    let mut command = release("wasmbed-simulation", "wasmbed-simulation");
    command.args(["--seed", &first.to_string(), "--count", &options.seeds.to_string()]);
    if let Some(seconds) = options.seconds {
        command.args(["--seconds", &seconds.to_string()]);
    }
    process::run(&mut command)
}

fn soak(way: &str, seconds: u64, against: Against) -> Result<()> {
    let binary = match against.binary {
        Some(binary) => binary.canonicalize().with_context(|| format!("no {}", binary.display()))?,
        None => {
            // With the package that runs next, features of what they share are the same, and nothing is built twice.
            let packages = ["--package", "wasmbed", "--package", "wasmbed-bench"];
            process::run(process::cargo().args(["build", "--release", "--quiet"]).args(packages))?;
            process::top().join(container::target()).join("release/wasmbed")
        }
    };
    let mut command = release("wasmbed-bench", "soak");
    command.args([way, "--seconds", &seconds.to_string()]).args(against.arguments);
    process::run(command.env("WASMBED_BINARY", binary))
}
