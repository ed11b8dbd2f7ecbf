//! Defences taken out, one after the other: whether the test that is said to show each fails without it.
//!
//! A patch of `xtask/defences` takes one out. Lines before the patch say which tests have to fail then, as `cargo test` takes them:
//!
//! ```text
//! Test: -p wasmbed-signer --test attacks a_gateway_gets_no_certificate_for_a_key_of_its_own
//! ```

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    container,
    patches::{self, Worktree},
    process,
};

const FOLDER: &str = "xtask/defences";
const TEST: &str = "Test: ";

#[derive(Args)]
pub(crate) struct Defences {
    /// Those of `xtask/defences` to take out; all if none is named.
    names: Vec<String>,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Passed,
    Failed,
    /// No test has that name.
    Missing,
    /// It could not be built.
    NotBuilt,
}

/// Takes each defence out of a worktree of what was committed last, and runs its tests there, with it and without it.
pub(crate) fn run(options: &Defences) -> Result<()> {
    let folder = container::target().join("defences");
    let tree = Worktree::at_head(folder.join("tree"))?;
    // Not that of this checkout: Cargo takes a crate of another checkout for the same.
    let built = folder.join("target");
    let mut rows = Vec::new();
    for patch in patches::in_folder(FOLDER, &options.names)? {
        let name = patches::name_of(&patch);
        for test in tests_of(&patch)? {
            process::step(&format!("{name}: {test}"));
            tree.reset()?;
            let with = play(&tree, &built, &test)?;
            tree.apply(&patch)?;
            let without = play(&tree, &built, &test)?;
            rows.push((name.clone(), test, with, without));
        }
    }
    tree.reset()?;
    println!("\n{:<28} with     without  test", "defence");
    for (name, test, with, without) in &rows {
        println!("{name:<28} {:<8} {:<8} {test}", word(*with), word(*without));
    }
    let useless: Vec<&str> = rows
        .iter()
        .filter(|(_, _, with, without)| (*with, *without) != (Ended::Passed, Ended::Failed))
        .map(|(name, ..)| name.as_str())
        .collect();
    ensure!(useless.is_empty(), "their tests do not tell whether they are there: {}", useless.join(", "));
    Ok(())
}

fn word(ended: Ended) -> &'static str {
    match ended {
        Ended::Passed => "passes",
        Ended::Failed => "fails",
        Ended::Missing => "missing",
        Ended::NotBuilt => "no build",
    }
}

/// The tests that a patch names.
fn tests_of(patch: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(patch).with_context(|| format!("can't read {}", patch.display()))?;
    let head = text.split("\ndiff ").next().unwrap_or_default();
    let tests: Vec<String> =
        head.lines().filter_map(|line| line.strip_prefix(TEST)).map(str::to_owned).collect();
    ensure!(!tests.is_empty(), "{} names no test", patch.display());
    Ok(tests)
}

fn play(tree: &Worktree, built: &Path, test: &str) -> Result<Ended> {
    let cargo = |run: bool| -> Command {
        let mut command = process::cargo();
        command.current_dir(tree.path()).env("CARGO_TARGET_DIR", built).arg("test").args(test.split(' '));
        if !run {
            command.arg("--no-run");
        }
        command
    };
    let build = cargo(false).status().context("can't start cargo")?;
    if !build.success() {
        return Ok(Ended::NotBuilt);
    }
    let output = cargo(true).output().context("can't start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let ran =
        text.lines().filter_map(|line| line.strip_prefix("running ")).any(|rest| !rest.starts_with("0 "));
    Ok(match (ran, output.status.success()) {
        (false, _) => Ended::Missing,
        (true, true) => Ended::Passed,
        (true, false) => Ended::Failed,
    })
}
