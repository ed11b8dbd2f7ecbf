//! Plays runs: `wasmbed-simulation [--seed N] [--count N] [--seconds N]`, or `--replay FILE`. One that fails is shrunk, and what is left of it
//! printed; `--save FILE` writes that down. Many are played on all cores, and the failing ones named in the end, each with the
//! command that replays it; with `--hunt` the first that fails is shrunk and ends it.

#![forbid(unsafe_code)]

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use wasmbed_simulation::{LinesError, Scenario, Shrunk, play, play_seed, replay};

/// How often the progress of many seeds is told.
const PROGRESS: Duration = Duration::from_secs(10);
/// A failure is shrunk for this long at most.
const SHRINK: Duration = Duration::from_secs(900);
const USAGE: &str =
    "usage: wasmbed-simulation [--seed N] [--count N] [--seconds N] [--hunt] [--save FILE] | --replay FILE";

struct Options {
    seed: u64,
    count: u64,
    seconds: u64,
    hunt: bool,
    save: Option<PathBuf>,
    replay: Option<PathBuf>,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut options =
            Self { seed: 1, count: 1, seconds: u64::MAX, hunt: false, save: None, replay: None };
        while let Some(flag) = arguments.next() {
            if flag == "--hunt" {
                options.hunt = true;
                continue;
            }
            let value = arguments.next()?;
            match flag.as_str() {
                "--seed" => options.seed = value.parse().ok()?,
                "--count" => options.count = value.parse().ok()?,
                "--seconds" => options.seconds = value.parse().ok()?,
                "--save" => options.save = Some(value.into()),
                "--replay" => options.replay = Some(value.into()),
                _ => return None,
            }
        }
        Some(options)
    }
}

fn main() -> ExitCode {
    let Some(options) = Options::read(std::env::args().skip(1)) else {
        eprintln!("{USAGE}; N is a whole number");
        return ExitCode::from(2);
    };
    if let Some(file) = &options.replay {
        return play_file(file);
    }
    if options.count != 1 || options.hunt {
        return many(&options);
    }
    match play_seed(options.seed) {
        Ok(summary) => {
            println!("seed {}: {summary:?}", options.seed);
            ExitCode::SUCCESS
        }
        Err(failure) => fail(options.seed, &failure.shrink(SHRINK), options.save.as_ref()),
    }
}

/// Why a file can't be played.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error(transparent)]
    Lines(#[from] LinesError),
}

fn read_file(file: &Path) -> Result<Scenario, FileError> {
    Ok(Scenario::from_lines(&fs::read_to_string(file)?)?)
}

fn play_file(file: &Path) -> ExitCode {
    match read_file(file).map(|scenario| play(&scenario)) {
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            ExitCode::from(2)
        }
        Ok(Err(violation)) => {
            eprintln!("{} failed {violation}", file.display());
            ExitCode::FAILURE
        }
        Ok(Ok(summary)) => {
            println!("{}: {summary:?}", file.display());
            ExitCode::SUCCESS
        }
    }
}

/// Says what a seed shows, and writes it down if asked to.
fn fail(seed: u64, shrunk: &Shrunk, save: Option<&PathBuf>) -> ExitCode {
    eprintln!("seed {seed} failed {shrunk}\nreplay: {}", replay(seed));
    if let Some(file) = save {
        let text = format!("# Seed {seed}: {}\n{}", shrunk.violation, shrunk.scenario.to_lines());
        if let Err(error) = fs::write(file, text) {
            eprintln!("{}: {error}", file.display());
        }
    }
    ExitCode::FAILURE
}

fn many(options: &Options) -> ExitCode {
    let (first, count) = (options.seed, options.count);
    let begun = Instant::now();
    let found = AtomicBool::new(false);
    let lasts = || begun.elapsed().as_secs() < options.seconds && !found.load(Relaxed);
    let (next, played, failed) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(Vec::new()));
    let play = || {
        while lasts() {
            let index = next.fetch_add(1, Relaxed);
            if index >= count {
                break;
            }
            let seed = first.wrapping_add(index);
            if let Err(failure) = play_seed(seed) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
                if !options.hunt {
                    eprintln!("seed {seed} failed {}\nreplay: {}", failure.violation(), replay(seed));
                } else if !found.swap(true, Relaxed) {
                    let (searched, shrinking) = (begun.elapsed(), Instant::now());
                    let shrunk = failure.shrink(SHRINK);
                    fail(seed, &shrunk, options.save.as_ref());
                    println!(
                        "found: seed {seed} after {:.1} s, {} -> {} transitions in {:.1} s, {}",
                        searched.as_secs_f64(),
                        shrunk.drawn,
                        shrunk.scenario.transitions(),
                        shrinking.elapsed().as_secs_f64(),
                        shrunk.violation.rule
                    );
                }
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
