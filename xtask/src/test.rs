//! `cargo xtask test`: every check, in the order in which a mistake is cheapest to hear of.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use wasmbed_board_data::ALL;

use crate::{
    beside::Beside, clients, container, firmware, guests, process, structure, system, toolchains, tools,
};

/// Crates that run on microcontrollers.
const DEVICE_CRATES: [&str; 12] = [
    "wasmbed-protocol",
    "wasmbed-scan",
    "wasmbed-peripherals",
    "wasmbed-runtime",
    "wasmbed-agent",
    "wasmbed-supervisor",
    "wasmbed-identity",
    "wasmbed-statement",
    "wasmbed-tls",
    "wasmbed-board",
    "wasmbed-flash",
    "wasmbed-board-data",
];
const BARE_TARGET: &str = "riscv32imac-unknown-none-elf";

/// What `cargo` is told of the tests that are built and run.
const TESTS: [&str; 5] = ["test", "--workspace", "--lib", "--bins", "--tests"];

/// The program of the end-to-end tests.
pub(crate) const END_TO_END: &str = "end_to_end";

/// Which of them run again with each emulated board as their devices, with the embedded Kubernetes API, unless a board's file names fewer.
const ON_BOARDS: [&str; 7] =
    ["crashes", "enrollment", "hostile", "kubectl", "lifecycle", "manifests", "observability"];

/// How many tests of a program run at once.
const THREADS: &str = "RUST_TEST_THREADS";

/// What a run from nothing writes: tools and their caches, debug builds of the workspace for clippy and for the tests.
const DISK_BYTES_NEEDED: u64 = 16 << 30;

/// A part of the run, for machines that run the parts side by side.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Formatting, lints, structure, bare targets, firmware, guests and toolchains.
    Checks,
    /// The tests of the workspace.
    Tests,
    /// End-to-end tests with each emulated board as every device.
    Boards,
}

/// Options of the test run.
#[derive(Args)]
pub(crate) struct Options {
    /// Leave out formatting, lints, bare targets and guests.
    #[arg(long)]
    quick: bool,
    /// Run only this part.
    #[arg(long, value_enum, conflicts_with = "quick")]
    part: Option<Part>,
    /// Passed to the test programs, after `--`. With one, the end-to-end tests don't run on emulated boards again.
    #[arg(last = true)]
    filter: Vec<String>,
}

/// Runs everything and ends with a line `N passed, N failed`.
pub(crate) fn run(options: &Options) -> Result<()> {
    warn_of_a_full_disk()?;
    tools::ensure_all()?;
    clients::ensure()?;
    // jemalloc is built by make; boards run in the others, in the tests of every kind.
    system::ensure_programs(&[
        ("make", "make"),
        ("qemu-system-riscv32", "qemu-system-misc"),
        ("qemu-system-arm", "qemu-system-arm"),
        ("mosquitto", "mosquitto"),
        ("mosquitto_sub", "mosquitto-clients"),
    ])?;
    let wanted = |part| options.part.is_none_or(|only| only == part);
    if wanted(Part::Checks) && !options.quick {
        checks()?;
    } else {
        firmware::build(&firmware::Options::UNCHECKED)?;
    }
    if options.part == Some(Part::Checks) {
        return Ok(());
    }
    build_tests()?;
    let mut tally = Tally { passed: 0, failed: 0, succeeded: true };
    if wanted(Part::Tests) {
        tally.add(&workspace_tests(&options.filter)?);
        if options.filter.is_empty() {
            tally.add(&examples()?);
        }
    }
    if wanted(Part::Boards) && options.filter.is_empty() {
        for board in ALL {
            if let Some(emulation) = &board.emulation {
                tally.add(&on_board(board.name, emulation.gate.unwrap_or(&ON_BOARDS))?);
            }
        }
    }
    process::step("all tests ended");
    println!("\n{} passed, {} failed", tally.passed, tally.failed);
    ensure!(tally.succeeded, "some tests failed: see above");
    ensure!(tally.passed > 0, "no test ran");
    Ok(())
}

fn checks() -> Result<()> {
    // Both sides look for these.
    for target in ALL.into_iter().map(|board| board.target).chain([BARE_TARGET]) {
        system::ensure_target(target)?;
    }
    ensure_components()?;
    // Linking an image for good keeps one core busy for most of its time.
    let this = std::env::current_exe().context("this program has no file")?;
    let firmware = Beside::start("firmware of all boards", Command::new(this).args(["firmware", "--check"]))?;
    let checked = other_checks();
    let (built, _) = firmware.end()?;
    checked?;
    ensure!(built, "the firmware of some board failed: see above");
    Ok(())
}

fn other_checks() -> Result<()> {
    formatting()?;
    structure::check()?;
    bare_target()?;
    process::lint_what_is_compiled();
    build_tests()?;
    guests::build(true)?;
    toolchains::run()
}

/// Runs the examples of doc comments, of the crates that have some: to look for them in the others takes longer.
fn examples() -> Result<Tally> {
    process::step("examples in doc comments");
    let mut run = process::workspace();
    run.args(["test", "--quiet", "--doc"]);
    for name in structure::with_examples()? {
        run.args(["--package", &format!("wasmbed-{name}")]);
    }
    Ok(counted(&mut run)?.of("examples in doc comments"))
}

/// The workspace's tests. Those of e2e/ wait for processes for most of their time, so the others run beside them.
fn workspace_tests(filter: &[String]) -> Result<Tally> {
    process::step("tests of the workspace");
    let mut others = test_programs()?;
    ensure!(others.remove(END_TO_END), "e2e/ has no program {END_TO_END}");
    // Of the workspace, so that features and with them what was built stay the same.
    let side = |arguments: &[&str]| -> Result<Command> {
        let mut side = command()?;
        side.args(["test", "--workspace", "--no-fail-fast"]).args(arguments).arg("--").args(filter);
        Ok(side)
    };
    let programs: Vec<&str> = others.iter().flat_map(|name| ["--test", name.as_str()]).collect();
    let others =
        Beside::start("all but end-to-end tests", &mut side(&[&["--lib", "--bins"], &*programs].concat())?)?;
    let tally = side(&["--test", END_TO_END]).and_then(|mut side| counted(&mut side));
    let (succeeded, printed) = others.end()?;
    let mut tally = tally?;
    tally.add(&Tally { succeeded, ..Tally::from_lines(printed.lines()) });
    Ok(tally)
}

/// Names of all test programs of the workspace.
fn test_programs() -> Result<BTreeSet<String>> {
    let metadata =
        process::output(process::cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo metadata is no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let targets = packages.iter().flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let tests = targets.filter(|target| target["kind"][0] == "test");
    Ok(tests.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect())
}

fn on_board(board: &str, modules: &[&str]) -> Result<Tally> {
    process::step(&format!("end-to-end tests with {board} in QEMU as their devices"));
    let mut run = command()?;
    // The workspace, so that features and with them what was built stay the same.
    run.args(["test", "--workspace", "--test", END_TO_END, "--"]);
    run.args(modules.iter().map(|name| format!("{name}::embedded::"))).env("WASMBED_E2E_BOARD", board);
    Ok(counted(&mut run)?.of(board))
}

/// cargo with what tests look for.
pub(crate) fn command() -> Result<Command> {
    let mut command = process::workspace();
    command.env("KUBEBUILDER_ASSETS", tools::assets()?).env("WASMBED_KUBECTL", tools::kubectl()?);
    // Most tests wait for processes most of the time; those that emulate boards take turns.
    if std::env::var_os(THREADS).is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        command.env(THREADS, (2 * cores).to_string());
    }
    // Built with the tests of its own package; otherwise each package that starts it would build it with other features.
    let binary = process::top().join(container::target()).join("debug/wasmbed");
    // Tests of its image build another one where this is not what an image has.
    if binary.exists() && container::is_static(&binary)? {
        command.env("WASMBED_STATIC_BINARY", &binary);
    }
    command.env("WASMBED_BINARY", binary);
    Ok(command)
}

/// A build that runs out of room says so late and in a compiler's words.
fn warn_of_a_full_disk() -> Result<()> {
    let free = process::free_bytes(&process::top())?;
    if free < DISK_BYTES_NEEDED {
        println!(
            "warning: {} MiB are free here, and a run from nothing writes up to {} MiB",
            free >> 20,
            DISK_BYTES_NEEDED >> 20
        );
    }
    Ok(())
}

fn formatting() -> Result<()> {
    process::step("formatting");
    process::run(process::cargo().args(["fmt", "--all", "--check"]))
}

/// Compiles what the tests are and, that they be linted as well, the examples; where checks are wanted, with lints.
fn build_tests() -> Result<()> {
    process::step("building the tests of the workspace");
    process::run(process::workspace().args(TESTS).args(["--examples", "--no-run"]))
}

fn ensure_components() -> Result<()> {
    if process::exists("rustup") {
        ensure_component("rustfmt")?;
        ensure_component("clippy")?;
    }
    Ok(())
}

fn ensure_component(name: &str) -> Result<()> {
    let installed = process::output(Command::new("rustup").args(["component", "list", "--installed"]))?;
    if installed.lines().any(|line| line.starts_with(name)) {
        return Ok(());
    }
    process::run(Command::new("rustup").args(["component", "add", name]))
}

/// Checks the crates of microcontrollers for one, with their own features: no standard library, no operating system. Firmware links them.
fn bare_target() -> Result<()> {
    process::step(&format!("device crates for {BARE_TARGET}"));
    let route = system::ensure_target(BARE_TARGET)?;
    let mut check = route.cargo_check(BARE_TARGET);
    check.arg("--quiet");
    for name in DEVICE_CRATES {
        check.args(["--package", name]);
    }
    process::run(&mut check)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    succeeded: bool,
}

impl Tally {
    /// What test programs printed.
    fn from_lines<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let mut tally = Self { passed: 0, failed: 0, succeeded: true };
        lines.for_each(|line| tally.read(line));
        tally
    }

    fn read(&mut self, line: &str) {
        self.passed += count(line, " passed;").unwrap_or(0);
        self.failed += count(line, " failed;").unwrap_or(0);
    }

    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.succeeded &= other.succeeded;
    }

    /// A name that fits no test is none that passes: where nothing passed, something is wrong with the run itself.
    fn of(self, what: &str) -> Self {
        if self.passed == 0 {
            println!("no test passed: {what}");
        }
        Self { succeeded: self.succeeded && self.passed > 0, ..self }
    }
}

/// Runs a test command with its output on screen and adds up the summaries of its test programs.
fn counted(command: &mut Command) -> Result<Tally> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("can't start cargo")?;
    let stdout = child.stdout.take().context("cargo has a standard output")?;
    let mut tally = Tally::from_lines(std::iter::empty());
    for line in BufReader::new(stdout).lines() {
        let line = line.context("can't read what the tests print")?;
        println!("{line}");
        tally.read(&line);
    }
    tally.succeeded = child.wait().context("can't wait for cargo")?.success();
    Ok(tally)
}

/// The number before `what` in a test program's summary line.
fn count(line: &str, what: &str) -> Option<usize> {
    let before = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(what))?.0;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{ALL, END_TO_END, ON_BOARDS, Tally, count, test_programs};

    #[test]
    fn every_test_program_runs_on_one_of_two_sides() -> anyhow::Result<()> {
        let all = test_programs()?;
        for name in [END_TO_END, "seeds", "golden", "deploy", "boundaries"] {
            assert!(all.contains(name), "{name}");
        }
        for name in ON_BOARDS {
            assert!(
                super::process::top().join(format!("e2e/tests/{END_TO_END}/{name}.rs")).is_file(),
                "{name}"
            );
        }
        let tally = Tally::from_lines("test result: ok. 3 passed; 0 failed; 1 ignored\nother\ntest result: FAILED. 1 passed; 2 failed; 0 ignored".lines());
        assert_eq!((tally.passed, tally.failed), (4, 2));
        Ok(())
    }

    #[test]
    fn a_board_that_runs_fewer_programs_names_some_of_those() {
        for board in ALL {
            for name in board.emulation.as_ref().and_then(|emulation| emulation.gate).unwrap_or_default() {
                assert!(ON_BOARDS.contains(name), "boards/{}.toml: qemu.gate: {name}", board.name);
            }
        }
    }

    #[test]
    fn a_board_of_which_no_test_runs_fails_the_run() {
        let tally = |passed, failed| Tally { passed, failed, succeeded: failed == 0 };
        let mut all = tally(1_000, 0);
        all.add(&tally(7, 0).of("riscv32-virt"));
        assert_eq!(all, tally(1_007, 0));
        all.add(&tally(0, 0).of("mps2-an385"));
        assert_eq!(all, Tally { succeeded: false, ..tally(1_007, 0) }, "cargo alone calls that a success");
        assert!(!tally(0, 3).of("mps2-an505").succeeded);
    }

    #[test]
    fn summaries_are_added_up() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(count(line, " passed;"), Some(12));
        assert_eq!(count(line, " failed;"), Some(3));
        assert_eq!(count("test a ... ok", " passed;"), None);
    }
}
