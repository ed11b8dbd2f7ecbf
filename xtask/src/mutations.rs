//! Deliberate bugs, one in each of several state machines: whether the simulation finds them, and how small it makes what shows them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    container,
    patches::{self, Worktree},
    process,
};

const FOLDER: &str = "simulation/mutations";
/// What a failing run has to be shrunk to.
const TRANSITIONS_MAX: usize = 20;

#[derive(Args)]
pub(crate) struct Mutations {
    /// Seeds that are played to find each.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Where what is left of each run is kept [default: target/mutations/runs].
    #[arg(long)]
    save: Option<PathBuf>,
    /// Those of `simulation/mutations` to try; all if none is named.
    names: Vec<String>,
}

/// Applies each patch of `simulation/mutations` to a worktree of what was committed last, and has the simulation look for it there.
pub(crate) fn run(options: &Mutations) -> Result<()> {
    let patches = patches::in_folder(FOLDER, &options.names)?;
    let folder = container::target().join("mutations");
    let tree = Worktree::at_head(folder.join("tree"))?;
    let runs = options.save.clone().unwrap_or_else(|| folder.join("runs"));
    fs::create_dir_all(&runs).with_context(|| format!("can't create {}", runs.display()))?;
    let runs = runs.canonicalize()?;
    // Not that of this checkout: Cargo takes a crate of another checkout for the same, and what was mutated would be found there.
    let built = folder.join("target");
    let mut rows = Vec::new();
    for patch in &patches {
        let name = patches::name_of(patch);
        process::step(&name);
        tree.apply(patch)?;
        let run = runs.join(format!("{name}.jsonl"));
        let row = hunt(options, simulation(tree.path(), &built), &run)?;
        println!("{row}");
        rows.push((name, row));
    }
    tree.reset()?;
    process::step("the same runs without the bugs");
    for (name, row) in rows.iter_mut().filter(|(_, row)| row.found.is_some()) {
        let replay =
            simulation(tree.path(), &built).arg("--replay").arg(runs.join(format!("{name}.jsonl"))).status();
        row.passes_without = replay.context("can't start cargo")?.success();
    }
    println!("\n{:<22} found", "mutation");
    for (name, row) in &rows {
        println!("{name:<22} {row}");
    }
    let missed: Vec<&str> =
        rows.iter().filter(|(_, row)| !row.is_good()).map(|(name, _)| name.as_str()).collect();
    ensure!(
        missed.is_empty(),
        "not found within {} seeds, not shrunk to {TRANSITIONS_MAX} transitions, or found something else: {}",
        options.seeds,
        missed.join(", ")
    );
    Ok(())
}

/// What became of one mutation.
struct Row {
    /// The last line of the simulation, if it found something.
    found: Option<String>,
    left: Option<usize>,
    /// What is left fails because of the mutation: without it the run passes.
    passes_without: bool,
}

impl Row {
    fn is_good(&self) -> bool {
        self.passes_without && self.left.is_some_and(|left| left <= TRANSITIONS_MAX)
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.found {
            None => f.write_str("no"),
            Some(found) if self.passes_without => write!(f, "{found}; without the bug it passes"),
            Some(found) => f.write_str(found),
        }
    }
}

/// The simulation in a tree, to be completed with what to play: as tests build it, with what cannot be as an assertion.
fn simulation(tree: &Path, built: &Path) -> Command {
    let mut command = process::cargo();
    command.current_dir(tree);
    command.args(["run", "--quiet", "--package", "wasmbed-simulation", "--"]);
    command.env("CARGO_TARGET_DIR", built);
    command
}

fn hunt(options: &Mutations, mut command: Command, run: &Path) -> Result<Row> {
    command.args(["--hunt", "--seed", &options.first.to_string(), "--count", &options.seeds.to_string()]);
    command.arg("--save").arg(run);
    command.stderr(std::process::Stdio::inherit());
    // It fails where it finds something.
    let output = command.output().context("can't start cargo")?;
    let text = String::from_utf8(output.stdout)?;
    print!("{text}");
    let found = text.lines().find_map(|line| line.strip_prefix("found: ")).map(str::to_owned);
    ensure!(
        found.is_some() || text.lines().any(|line| line.starts_with("seeds: ")),
        "the simulation could not be built or run"
    );
    let left = found.as_deref().and_then(|found| {
        let (_, after) = found.split_once(" -> ")?;
        after.split_once(' ')?.0.parse().ok()
    });
    Ok(Row { found, left, passes_without: false })
}
