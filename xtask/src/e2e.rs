//! `cargo xtask e2e PROGRAM`: one end-to-end test program by itself, with what its tests look for.

use std::process::Command;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use wasmbed_emulator::Kind;

use crate::{firmware, process, system, test, tools};

/// Who serves the Kubernetes API.
#[derive(Clone, Copy, ValueEnum)]
enum Plane {
    /// `wasmbed apiserver`.
    Embedded,
    /// kube-apiserver and etcd.
    Kubernetes,
}

/// Which tests, and against what.
#[derive(Args)]
pub(crate) struct Options {
    /// A file of e2e/tests without its extension, for example lifecycle.
    program: String,
    /// Only tests whose name contains this.
    name: Option<String>,
    /// Only with this control plane [default: both].
    #[arg(long, value_enum)]
    plane: Option<Plane>,
    /// With this emulated board as every device; implies the embedded control plane.
    #[arg(long, value_name = "BOARD", conflicts_with = "plane")]
    board: Option<String>,
}

/// Builds what the program needs and runs it, with its output on screen.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = process::top().join("e2e/tests");
    let known =
        ["", "/main"].iter().any(|inner| folder.join(format!("{}{inner}.rs", options.program)).is_file());
    ensure!(known, "e2e/tests has no program {:?}", options.program);
    let plane = match (&options.board, options.plane) {
        (Some(board), _) => {
            let kind: Kind = board.parse()?;
            firmware::build_one(kind.name())?;
            "embedded"
        }
        (None, Some(Plane::Embedded)) => "embedded",
        (None, Some(Plane::Kubernetes)) => "kubernetes",
        (None, None) => "",
    };
    tools::ensure_all()?;
    if options.program == "brokers" {
        system::ensure_programs(&[("mosquitto", "mosquitto"), ("mosquitto_sub", "mosquitto-clients")])?;
    }
    process::run(process::build_binary().args(["--test", options.program.as_str()]))?;
    let listed =
        process::output(test_command(options)?.args(["--quiet", "--", "--list", "--format", "terse"]))?;
    let wanted = wanted(&listed, plane, options.name.as_deref().unwrap_or_default());
    ensure!(!wanted.is_empty(), "{} has no such test; all of them:\n{listed}", options.program);
    process::run(test_command(options)?.args(["--", "--exact"]).args(wanted))
}

/// The program's tests, to be completed with arguments.
fn test_command(options: &Options) -> Result<Command> {
    let mut command = test::command()?;
    command.args(["test", "--workspace", "--test", options.program.as_str()]);
    if let Some(board) = &options.board {
        command.env("WASMBED_E2E_BOARD", board);
    }
    Ok(command)
}

/// Names in a test program's list that have `plane` as a module and contain `name`.
fn wanted<'a>(listed: &'a str, plane: &str, name: &str) -> Vec<&'a str> {
    let tests = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    let in_plane = |test: &str| plane.is_empty() || test.split("::").any(|module| module == plane);
    tests.filter(|test| in_plane(test) && test.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_is_found_anywhere_and_on_one_control_plane() {
        let listed = "embedded::one_two: test\nx::kubernetes::one_two: test\nembedded::three: test\n\n3 tests, 0 benchmarks\n";
        assert_eq!(super::wanted(listed, "", "two"), ["embedded::one_two", "x::kubernetes::one_two"]);
        assert_eq!(super::wanted(listed, "kubernetes", "two"), ["x::kubernetes::one_two"]);
        assert!(super::wanted(listed, "kubernetes", "three").is_empty());
    }
}
