//! What the programs that measure share: the module with the kernels, and where a measurement was made.

use std::{borrow::ToOwned, format, path::PathBuf, process::Command, string::String, vec::Vec};

use anyhow::{Context, Result, ensure};

/// The most that a kernel may take of the time of native code, all kernels together; a goal of the project.
pub const TIMES_NATIVE_GOAL: f64 = 10.5;

/// The same of CoreMark.
pub const COREMARK_TIMES_NATIVE_GOAL: f64 = 15.0;

/// Top of the checkout.
#[must_use]
pub fn top() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The module with the kernels.
///
/// # Errors
/// It was not built.
pub fn kernels() -> Result<Vec<u8>> {
    let path = top().join("target/bench/kernels.wasm");
    std::fs::read(&path)
        .with_context(|| format!("no {}: cargo xtask firmware --measure builds it", path.display()))
}

/// The commit that is checked out, and whether files differ from it.
///
/// # Errors
/// It is no checkout, or there is no git.
pub fn commit() -> Result<String> {
    let git = |arguments: &[&str]| -> Result<String> {
        let output =
            Command::new("git").current_dir(top()).args(arguments).output().context("can't run git")?;
        ensure!(output.status.success(), "git {} failed", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let differs = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    Ok(if differs.is_empty() { commit } else { format!("{commit} with changes") })
}

/// What a program says of its version, in one line.
///
/// # Errors
/// It can't be run.
pub fn version(program: &str) -> Result<String> {
    let output =
        Command::new(program).arg("--version").output().with_context(|| format!("can't run {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The geometric mean.
#[must_use]
pub fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp()
}
