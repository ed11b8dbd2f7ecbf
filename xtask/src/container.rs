//! `cargo xtask container`: the statically linked binary and the folder of which a container engine makes the image.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::process;

/// What to build.
#[derive(Args)]
pub(crate) struct Options {
    /// Build in the profile of the tests: quick, large and slow.
    #[arg(long)]
    dev: bool,
}

/// Builds and prints where the image's folder is.
pub(crate) fn build(options: &Options) -> Result<()> {
    let binary = binary(options.dev)?;
    let image = binary.parent().context("a binary has a folder")?.join("image");
    place(&binary, &image.join("wasmbed"))?;
    let recipe = process::top().join("deploy/container/prebuilt.Containerfile");
    place(&recipe, &image.join("Containerfile"))?;
    println!("{}", image.display());
    Ok(())
}

/// Builds the statically linked binary. Only the last step of the build is another one than usual: what is linked already serves both.
pub(crate) fn binary(is_dev: bool) -> Result<PathBuf> {
    let built = target().join("container");
    let (profile, mut command) = if is_dev { ("debug", dev()) } else { ("release", release()) };
    // The binary beside the usual one, not instead of it, and everything below shared with it.
    command.env("CARGO_TARGET_DIR", &built).env("CARGO_BUILD_BUILD_DIR", target());
    process::run(&mut command)?;
    let binary = built.join(profile).join("wasmbed");
    ensure!(is_static(&binary)?, "{} is not static", binary.display());
    Ok(binary)
}

/// Whether it brings along all that it needs.
pub(crate) fn is_static(binary: &Path) -> Result<bool> {
    let headers = process::output(Command::new("readelf").args(["--program-headers", "--wide"]).arg(binary))?;
    Ok(headers.contains("LOAD") && !headers.contains("INTERP"))
}

fn release() -> Command {
    let mut command = process::cargo();
    command.args(["rustc", "--quiet", "--release", "--package", "wasmbed", "--bin", "wasmbed"]);
    command.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"]);
    command
}

/// `cargo rustc` would take the package alone.
fn dev() -> Command {
    let mut command = process::build_binary();
    // Makes it another binary than the usual one for Cargo, which does not see what the wrapper adds.
    command.args(["--config", "profile.dev.package.wasmbed.strip=\"symbols\""]);
    command.env("RUSTC_WRAPPER", process::static_link());
    command
}

fn place(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a file has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("can't create {}", folder.display()))?;
    // A copy that is running can't be written to, but another can take its place.
    let unfinished = to.with_extension("unfinished");
    std::fs::copy(from, &unfinished).with_context(|| format!("can't copy {}", from.display()))?;
    std::fs::rename(&unfinished, to).with_context(|| format!("can't rename to {}", to.display()))
}

/// Where Cargo writes.
pub(crate) fn target() -> PathBuf {
    let named: Option<OsString> = std::env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty());
    named.map_or_else(|| process::top().join("target"), PathBuf::from)
}
