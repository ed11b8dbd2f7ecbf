//! Plays seeds: `wasmbed-simulation [--seed N] [--count N]`. A failing seed is printed and ends the run.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut seed = 1u64;
    let mut count = 1u64;
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok());
        match (flag.as_str(), value) {
            ("--seed", Some(value)) => seed = value,
            ("--count", Some(value)) => count = value,
            _ => {
                eprintln!("usage: wasmbed-simulation [--seed N] [--count N]; N is a whole number");
                return ExitCode::from(2);
            }
        }
    }
    for seed in seed..seed.saturating_add(count) {
        match wasmbed_simulation::run(seed) {
            Ok(summary) => println!("seed {seed}: {summary:?}"),
            Err(violation) => {
                eprintln!(
                    "seed {seed} failed: {violation}\nreplay: cargo run -p wasmbed-simulation -- --seed {seed}"
                );
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
