//! `cargo xtask e2e PROGRAM`: one end-to-end test program by itself, with what its tests look for.

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use wasmbed_emulator::Kind;

use crate::{firmware, process, test, tools};

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
            "embedded::"
        }
        (None, Some(Plane::Embedded)) => "embedded::",
        (None, Some(Plane::Kubernetes)) => "kubernetes::",
        (None, None) => "",
    };
    tools::ensure_all()?;
    // The workspace with a test of the binary's package builds the binary with the features that all tests have it with.
    let program = ["--test", options.program.as_str()];
    process::run(
        process::cargo().args(["test", "--workspace", "--no-run", "--test", "errors"]).args(program),
    )?;
    let mut command = test::command()?;
    command.args(["test", "--workspace"]).args(program);
    if let Some(board) = &options.board {
        command.env("WASMBED_E2E_BOARD", board);
    }
    command.arg("--");
    // A test program runs what contains the text.
    command.arg(format!("{plane}{}", options.name.as_deref().unwrap_or_default()));
    process::run(&mut command)
}
