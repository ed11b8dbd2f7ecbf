//! Generated modules on this engine and on wasmi: they accept the same, compute the same and trap alike, in any slices.
//!
//! The seeds are fixed and so is the result; a larger run is what the fuzz target `engine` is for.

#![cfg(test)]

mod compare;

use arbitrary::Unstructured;
use compare::{Blocks, Counts, FUEL, Oracle, compare, configuration, dense, legitimate, load};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use wasmbed_engine::ErrorKind;

/// Modules, or as many as `WASMBED_ENGINE_MODULES` says, from the seed `WASMBED_ENGINE_FIRST` on.
const MODULES: u64 = 240;
const MUTANTS_OF_EACH: u64 = 12;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |value| value.parse().unwrap())
}

fn seeds(part: u64) -> std::ops::Range<u64> {
    let first = number("WASMBED_ENGINE_FIRST", 0);
    first..first + number("WASMBED_ENGINE_MODULES", MODULES) / part
}

/// A valid module, always the same for the same seed, and the bytes that were left.
fn generate(seed: u64) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut bytes = vec![0; if seed.is_multiple_of(4) { 16_384 } else { 4_096 }];
    random.fill_bytes(&mut bytes);
    let instructions = [60, 300, 800][seed as usize % 3];
    let config = configuration(instructions, seed.is_multiple_of(7), seed.is_multiple_of(2));
    let mut module = wasm_smith::Module::new(config, &mut Unstructured::new(&bytes)).ok()?;
    if !seed.is_multiple_of(5) {
        // Most of them loop for ever otherwise.
        module.ensure_termination(2_000).ok()?;
    }
    let module = module.to_bytes();
    let mut rest = vec![0; 1_024];
    random.fill_bytes(&mut rest);
    Some((module, rest))
}

#[test]
fn generated_modules_behave_the_same() {
    let (mut counts, mut blocks) = (Counts::default(), Blocks::new());
    for seed in seeds(1) {
        let Some((module, rest)) = generate(seed) else { continue };
        let compared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            compare(&module, &mut Unstructured::new(&rest), &mut blocks, &mut counts);
        }));
        assert!(compared.is_ok(), "seed {seed}");
    }
    println!("{counts:?}");
    let modules = seeds(1).count() as u32;
    assert!(counts.modules > modules / 2 && counts.calls > modules, "{counts:?}");
}

/// Modules of the other kind for each of those.
const DENSE_OF_EACH: u64 = 6;

fn dense(
    seeds: std::ops::Range<u64>,
    parts: u64,
    bytes: usize,
    operators: &[usize],
    padding: usize,
) -> Counts {
    let (mut counts, mut blocks) = (Counts::default(), Blocks::new());
    for seed in seeds {
        for part in 0..parts {
            let mut bytes = vec![0; bytes];
            StdRng::seed_from_u64(seed << 8 | part).fill_bytes(&mut bytes);
            let mut random = Unstructured::new(&bytes);
            let text = dense::module(&mut random, operators[part as usize % operators.len()], padding);
            let module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"));
            for _ in 0..3 {
                let compared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    compare(&module, &mut random, &mut blocks, &mut counts);
                }));
                assert!(compared.is_ok(), "seed {seed}, part {part}: {text}");
                assert_eq!(counts.refused, 0, "seed {seed}, part {part}, {}: {text}", counts.why);
            }
        }
    }
    println!("{counts:?}");
    counts
}

#[test]
fn dense_modules_behave_the_same() {
    let counts = dense(seeds(1), DENSE_OF_EACH, 4_096, &[40, 150, 600], 0);
    assert!(counts.calls > seeds(1).count() as u32 * 6, "{counts:?}");
}

/// Functions of more code than the usual branches reach over.
#[test]
fn long_functions_behave_the_same() {
    let counts = dense(seeds(16), 1, 4_096, &[150], 5);
    assert!(counts.code_bytes_most > 100_000 && counts.calls > 20, "{counts:?}");
}

/// A module with a few bytes changed, or one that is there once more or no more.
fn damage(module: &mut Vec<u8>, random: &mut StdRng) {
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(8..module.len());
        match random.random_range(0..5) {
            0 => module[at] ^= 1 << random.random_range(0..8),
            1 => module[at] = random.random(),
            2 => drop(module.remove(at)),
            3 => module.insert(at, random.random()),
            // An operator for another one.
            _ => module[at] = module[random.random_range(8..module.len())],
        }
    }
}

#[test]
fn damaged_modules_are_refused_by_both_or_by_none() {
    let (mut refused, mut accepted, mut limited) = (0, 0, 0);
    let mut block = vec![0; 200_000];
    let (mut counts, mut blocks) = (Counts::default(), Blocks::new());
    for seed in seeds(2) {
        let Some((module, rest)) = generate(seed) else { continue };
        let mut random = StdRng::seed_from_u64(!seed);
        for mutant in 0..MUTANTS_OF_EACH {
            let mut module = module.clone();
            damage(&mut module, &mut random);
            let ours = load(&mut block, &module, 1_000).map(drop);
            match (ours, Oracle::load(&module, FUEL)) {
                (Ok(()), Ok(_)) => {
                    accepted += 1;
                    compare(&module, &mut Unstructured::new(&rest), &mut blocks, &mut counts);
                }
                (Err(_), Err(_)) => refused += 1,
                (Err(error), Ok(_)) if legitimate(error.kind) => limited += 1,
                // Its start function traps; here it is part of the first call.
                (Ok(()), Err(error)) if error.as_trap_code().is_some() => limited += 1,
                (ours, oracle) => panic!(
                    "seed {seed}, mutant {mutant}: {:?} here, {:?} on wasmi",
                    ours.err(),
                    oracle.err().map(|error| error.to_string())
                ),
            }
        }
    }
    println!(
        "{refused} refused by both, {accepted} accepted by both, {limited} beyond what the engine has: {counts:?}"
    );
    assert!(refused > 500 && accepted > 30, "{refused} refused, {accepted} accepted");
}

/// A block that is too small is an error that says so, wherever its end is.
#[test]
fn a_block_that_is_too_small_is_refused() {
    let (mut refused, mut loaded) = (0, 0);
    for seed in seeds(40) {
        let Some((module, _)) = generate(seed) else { continue };
        let mut block = vec![0; 200_000];
        let Ok(instance) = load(&mut block, &module, u32::MAX) else { continue };
        let all = block_words(instance.bytes());
        for words in (0..all).step_by(if all > 20_000 { 997 } else { 61 }) {
            match load(&mut block[..words], &module, u32::MAX) {
                Ok(_) => loaded += 1,
                Err(error) if matches!(error.kind, ErrorKind::Memory { .. }) => refused += 1,
                Err(error) => panic!("seed {seed}, {words} words: {error}"),
            }
        }
    }
    println!("{refused} blocks refused, {loaded} large enough");
    assert!(refused > 60 && loaded == 0, "{refused} refused, {loaded} loaded");
}

/// An instance's own bytes; its loader needs more.
fn block_words(bytes: usize) -> usize {
    bytes / 8
}
