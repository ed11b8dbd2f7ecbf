//! `cargo xtask e2e FILE`: the end-to-end tests of one file by themselves, with what they look for.

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
    /// A file of e2e/tests/end_to_end without its extension, for example lifecycle.
    file: String,
    /// Only tests whose name contains this.
    name: Option<String>,
    /// Only with this control plane [default: both].
    #[arg(long, value_enum)]
    plane: Option<Plane>,
    /// With this emulated board as every device; implies the embedded control plane.
    #[arg(long, value_name = "BOARD", conflicts_with = "plane")]
    board: Option<String>,
}

/// Builds what the tests need and runs them, with their output on screen.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = process::top().join("e2e/tests").join(test::END_TO_END);
    ensure!(
        folder.join(format!("{}.rs", options.file)).is_file(),
        "{} has no file {:?}",
        folder.display(),
        options.file
    );
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
    if ["brokers", "microcontroller"].contains(&options.file.as_str()) {
        system::ensure_programs(&[("mosquitto", "mosquitto"), ("mosquitto_sub", "mosquitto-clients")])?;
    }
    process::run(process::build_binary().args(["--test", test::END_TO_END]))?;
    let listed =
        process::output(test_command(options)?.args(["--quiet", "--", "--list", "--format", "terse"]))?;
    let wanted = wanted(&listed, &options.file, plane, options.name.as_deref().unwrap_or_default());
    ensure!(!wanted.is_empty(), "{} has no such test; all tests:\n{listed}", options.file);
    process::run(test_command(options)?.args(["--", "--exact"]).args(wanted))
}

/// The program's tests, to be completed with arguments.
fn test_command(options: &Options) -> Result<Command> {
    let mut command = test::command()?;
    command.args(["test", "--workspace", "--test", test::END_TO_END]);
    if let Some(board) = &options.board {
        command.env("WASMBED_E2E_BOARD", board);
    }
    Ok(command)
}

/// Names in the program's list that are of a file, have `plane` as a module and contain `name`.
fn wanted<'a>(listed: &'a str, file: &str, plane: &str, name: &str) -> Vec<&'a str> {
    let of_file = |test: &str| test.split("::").next() == Some(file);
    let in_plane = |test: &str| plane.is_empty() || test.split("::").any(|module| module == plane);
    let tests = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    tests.filter(|test| of_file(test) && in_plane(test) && test.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_is_found_anywhere_in_a_file_and_on_one_control_plane() {
        let listed = "a::embedded::one_two: test\na::x::kubernetes::one_two: test\na::embedded::three: test\nb::embedded::two: test\n\n4 tests, 0 benchmarks\n";
        let wanted = |plane, name| super::wanted(listed, "a", plane, name);
        assert_eq!(wanted("", "two"), ["a::embedded::one_two", "a::x::kubernetes::one_two"]);
        assert_eq!(wanted("kubernetes", "two"), ["a::x::kubernetes::one_two"]);
        assert!(wanted("kubernetes", "three").is_empty());
    }
}
