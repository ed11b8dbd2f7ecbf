//! Plays seeds: `wasmbed-simulation [--seed N] [--count N] [--seconds N]`. Many are played on all cores, and the failing ones named
//! in the end, each with the command that replays it.

#![forbid(unsafe_code)]

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use wasmbed_simulation::{replay, run};

/// How often the progress of many seeds is told.
const PROGRESS: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let (mut seed, mut count, mut seconds) = (1u64, 1u64, u64::MAX);
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok());
        match (flag.as_str(), value) {
            ("--seed", Some(value)) => seed = value,
            ("--count", Some(value)) => count = value,
            ("--seconds", Some(value)) => seconds = value,
            _ => {
                eprintln!(
                    "usage: wasmbed-simulation [--seed N] [--count N] [--seconds N]; N is a whole number"
                );
                return ExitCode::from(2);
            }
        }
    }
    if count != 1 {
        return many(seed, count, seconds);
    }
    match run(seed) {
        Ok(summary) => {
            println!("seed {seed}: {summary:?}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            eprintln!("seed {seed} failed: {violation}\nreplay: {}", replay(seed));
            ExitCode::FAILURE
        }
    }
}

fn many(first: u64, count: u64, seconds: u64) -> ExitCode {
    let begun = Instant::now();
    let lasts = || begun.elapsed().as_secs() < seconds;
    let (next, played, failed) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(Vec::new()));
    let play = || {
        while lasts() {
            let index = next.fetch_add(1, Relaxed);
            if index >= count {
                break;
            }
            let seed = first.wrapping_add(index);
            if let Err(violation) = run(seed) {
                eprintln!("seed {seed} failed: {violation}\nreplay: {}", replay(seed));
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
            }
            played.fetch_add(1, Relaxed);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let players: Vec<_> = (0..threads).map(|_| scope.spawn(play)).collect();
        let mut told = Instant::now();
        while !players.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(50));
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                println!("{} of {count} seeds, {} s", played.load(Relaxed), begun.elapsed().as_secs());
            }
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "seeds: {} from {first} on in {} s, {} failed {failed:?}",
        played.load(Relaxed),
        begun.elapsed().as_secs(),
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
