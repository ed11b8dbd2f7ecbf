//! Honest load and attacks at once, on real processes: how long the honest wait, what memory the servers take, what they write.
//!
//! It may not be part of a test run: it takes minutes to hours. `WASMBED_BINARY` names the binary under attack, so that one program
//! measures earlier and later ones.

#![forbid(unsafe_code)]

mod attack;
mod honest;
mod processes;
mod round;
mod waits;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{
    attack::{Attack, Target},
    round::Round,
};

/// Attacks a site of real processes and measures how the honest fare.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Each attack alone, one after the other, and before them the same without any.
    Each(Options),
    /// All attacks at once.
    All(Options),
    /// What is started, bound to one core, to attack.
    #[command(hide = true)]
    Attack(Target),
}

#[derive(clap::Args)]
struct Options {
    /// Seconds of each round.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only these attacks.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Attack>,
    /// Simulated devices.
    #[arg(long, default_value_t = 200)]
    devices: usize,
    /// The core that all attackers share.
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// Open files that each process is allowed: as many as half requests and a few, so that a server which gives a file to each
    /// has none left.
    #[arg(long, default_value_t = 3_700)]
    files: u64,
    /// Address space that each process is allowed, MiB: a server that would take all memory of the machine ends instead.
    #[arg(long, default_value_t = 6_144)]
    address_space_mib: u64,
    /// Leave out the round without an attack.
    #[arg(long)]
    no_baseline: bool,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Each(options) => measure(&options, false),
        Task::All(options) => measure(&options, true),
        Task::Attack(target) => attack::run(target).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options, together: bool) -> Result<bool> {
    // Processes that are started inherit both.
    limit(Resource::Nofile, options.files)?;
    limit(Resource::As, options.address_space_mib << 20)?;
    let attacks = match &options.only[..] {
        [] => Attack::value_variants().to_vec(),
        only => only.to_vec(),
    };
    let mut rounds: Vec<(String, Vec<Attack>)> = Vec::new();
    if together {
        rounds.push((format!("{} attacks at once", attacks.len()), attacks));
    } else {
        if !options.no_baseline {
            rounds.push(("no attack".to_owned(), Vec::new()));
        }
        rounds.extend(attacks.into_iter().map(|attack| (format!("{attack:?}"), vec![attack])));
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let mut missed = Vec::new();
    for (what, attacks) in rounds {
        let Options { seconds, devices, core, .. } = *options;
        let title = format!("{what}, {seconds} s, {devices} devices");
        let round = Round { title: title.clone(), attacks, seconds, devices, core };
        match runtime.block_on(round.play()) {
            Ok(true) => {}
            Ok(false) => missed.push(what),
            Err(error) => {
                println!("MISSED: the round could not be played: {error:#}");
                missed.push(what);
            }
        }
    }
    match missed.is_empty() {
        true => println!("\nsoak: every goal met"),
        false => println!("\nsoak: goals missed in: {}", missed.join("; ")),
    }
    Ok(missed.is_empty())
}

fn limit(resource: Resource, most: u64) -> Result<()> {
    let now = rustix::process::getrlimit(resource);
    let most = now.maximum.map_or(most, |maximum| maximum.min(most));
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
        .with_context(|| format!("can't set the limit {resource:?} to {most}"))
}
