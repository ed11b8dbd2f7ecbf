//! `cargo xtask deep miri`: tests of the engine in Miri, which sees undefined behaviour of Rust that runs well enough elsewhere.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::process;

/// Test programs of the engine, and which tests of each: Miri takes a thousand times as long as a processor, and others load
/// a megabyte or generate thousands of modules.
const RUNS: [(&str, &[&str]); 4] = [
    ("trace", &["a_host", "a_section", "each_kind", "the_nine", "what_did", "names_are"]),
    // Functions with far branches have 65,536 words.
    ("faults", &["--skip", "far_branches"]),
    ("relocation", &[]),
    // Of which it takes a part by itself under Miri.
    ("specification", &["of_version_2", "of_proposals"]),
];

#[derive(Args)]
pub(crate) struct Miri {
    /// The test programs; all that Miri can run in time if none is named.
    programs: Vec<String>,
}

pub(crate) fn run(options: &Miri) -> Result<()> {
    let there = process::nightly().args(["miri", "--version"]).output().context("can't start cargo")?;
    ensure!(
        there.status.success(),
        "Miri needs a nightly compiler with two components: rustup toolchain install nightly --component miri --component rust-src\n{}",
        String::from_utf8_lossy(&there.stderr).lines().next().unwrap_or_default()
    );
    for name in &options.programs {
        ensure!(RUNS.iter().any(|(known, _)| known == name), "Miri runs no test program {name}");
    }
    let begun = Instant::now();
    let (mut passed, mut failed) = (0, Vec::new());
    for (program, tests) in RUNS {
        if !options.programs.is_empty() && !options.programs.iter().any(|name| name == program) {
            continue;
        }
        process::step(&format!("{program} under Miri"));
        match one(program, tests)? {
            Some(count) => passed += count,
            None => failed.push(program),
        }
    }
    println!("miri: {passed} passed, {} s", begun.elapsed().as_secs());
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// How many tests passed; none if one did not.
fn one(program: &str, tests: &[&str]) -> Result<Option<u32>> {
    let mut command: Command = process::nightly();
    command.current_dir(process::top());
    command.args(["miri", "test", "--package", "wasmbed-engine", "--test", program, "--"]).args(tests);
    // The suite's files are read where it lies.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation").stdout(Stdio::piped());
    let mut child = command.spawn().context("can't start cargo miri")?;
    let printed = child.stdout.take().context("cargo miri has a standard output")?;
    let mut passed = 0;
    for line in BufReader::new(printed).lines() {
        let line = line.context("can't read what Miri prints")?;
        println!("{line}");
        passed += passed_in(&line).unwrap_or(0);
    }
    let succeeded = child.wait().context("can't wait for cargo miri")?.success();
    ensure!(!succeeded || passed > 0, "{program} has none of the tests {tests:?}");
    Ok(succeeded.then_some(passed))
}

/// `test result: ok. 6 passed; 0 failed; …`
fn passed_in(line: &str) -> Option<u32> {
    line.strip_prefix("test result: ok. ")?.split_once(" passed")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_tests_are_counted() {
        assert_eq!(passed_in("test result: ok. 6 passed; 0 failed; 0 ignored; 0 measured"), Some(6));
        assert_eq!(passed_in("test result: FAILED. 5 passed; 1 failed"), None);
        assert_eq!(passed_in("test corpus ... ok"), None);
    }
}
