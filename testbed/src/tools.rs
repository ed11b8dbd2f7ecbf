//! Paths of the programs that this crate starts.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// Folder of the Kubernetes programs below the cache, as `cargo xtask tools` names it.
const KUBERNETES: &str = "kubernetes-v1.36.3";
/// The same of Helm.
const HELM: &str = "helm-v3.22.0";
/// The same of kube-score.
const KUBE_SCORE: &str = "kube-score-v1.20.0";

/// A program of Kubernetes, for example `kube-apiserver`: from the folder that `KUBEBUILDER_ASSETS` names if it is there, else
/// where `cargo xtask tools` puts it.
///
/// # Errors
/// When it isn't found; a test without it would prove nothing.
pub fn kubernetes(program: &str) -> Result<PathBuf> {
    if let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") {
        let path = Path::new(&assets).join(program);
        if path.is_file() {
            return Ok(path);
        }
    }
    built(KUBERNETES, program)
}

/// Helm, where `cargo xtask tools` puts it.
///
/// # Errors
/// When it isn't there.
pub fn helm() -> Result<PathBuf> {
    built(HELM, "helm")
}

/// kube-score, where `cargo xtask tools` puts it.
///
/// # Errors
/// When it isn't there.
pub fn kube_score() -> Result<PathBuf> {
    built(KUBE_SCORE, "kube-score")
}

/// Has a program that is written in Go collect its garbage when it has four times what it needs: those of Kubernetes make much while
/// they begin and live for seconds here.
pub fn collect_seldom(command: &mut Command) {
    command.env("GOGC", "400");
}

fn built(folder: &str, program: &str) -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => {
            let home = std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?;
            PathBuf::from(home).join(".cache")
        }
    };
    let path = cache.join("wasmbed/tools").join(folder).join(program);
    if !path.is_file() {
        bail!("no {program} at {}; run `cargo xtask tools`", path.display());
    }
    Ok(path)
}
