//! Programs that tests need and no package has: built from pinned sources, kept outside the checkout by version.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::{clients, definitions, go, process};

/// Version of Kubernetes' own programs; `xtask/tools/kube/go.mod` pins the same, and with it the version of etcd. The test bed
/// looks for folders of these names.
const KUBERNETES_VERSION: &str = "v1.36.3";
/// Version of Helm; `xtask/tools/helm/go.mod` pins the same.
const HELM_VERSION: &str = "v3.22.0";
/// Version of kube-score; `xtask/tools/kube-score/go.mod` pins the same.
const KUBE_SCORE_VERSION: &str = "v1.20.0";
/// Every so many lines of the compiler's one of progress.
const PROGRESS_LINES: usize = 100;

/// A tool that tests use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// The store of Kubernetes.
    Etcd,
    /// The server of the Kubernetes API.
    KubeApiserver,
    /// What collects garbage and ends namespaces.
    KubeControllerManager,
    /// Kubernetes' command line client.
    Kubectl,
    /// Installs charts.
    Helm,
    /// Says what is unwise in Kubernetes objects.
    KubeScore,
}

/// A Go module of ours that pins programs, and how they are built.
struct Source {
    /// Below `xtask/tools`.
    module: &'static str,
    /// Below the cache.
    folder: String,
    linker_flags: String,
}

impl Tool {
    fn program(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::Kubectl => "kubectl",
            Self::Helm => "helm",
            Self::KubeScore => "kube-score",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Etcd => "go.etcd.io/etcd/server/v3",
            Self::KubeApiserver => "k8s.io/kubernetes/cmd/kube-apiserver",
            Self::KubeControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
            Self::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Self::Helm => "helm.sh/helm/v3/cmd/helm",
            Self::KubeScore => "github.com/zegl/kube-score/cmd/kube-score",
        }
    }

    /// The name under which `go build` writes it.
    fn built_as(self) -> &'static str {
        match self {
            Self::Etcd => "server",
            other => other.program(),
        }
    }

    fn source(self) -> Source {
        match self {
            Self::Etcd | Self::KubeApiserver | Self::KubeControllerManager | Self::Kubectl => {
                let stamp = "k8s.io/component-base/version";
                Source {
                    module: "kube",
                    folder: format!("tools/kubernetes-{KUBERNETES_VERSION}"),
                    linker_flags: format!(
                        "-s -w -X {stamp}.gitVersion={KUBERNETES_VERSION} -X {stamp}.gitMajor=1 -X {stamp}.gitMinor=36"
                    ),
                }
            }
            Self::Helm => Source {
                module: "helm",
                folder: format!("tools/helm-{HELM_VERSION}"),
                linker_flags: format!("-s -w -X helm.sh/helm/v3/internal/version.version={HELM_VERSION}"),
            },
            Self::KubeScore => Source {
                module: "kube-score",
                folder: format!("tools/kube-score-{KUBE_SCORE_VERSION}"),
                linker_flags: format!("-s -w -X main.version={KUBE_SCORE_VERSION}"),
            },
        }
    }

    /// Where it is: the folder that `KUBEBUILDER_ASSETS` names has precedence for the programs of Kubernetes.
    fn path(self) -> Result<PathBuf> {
        if let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS")
            && !matches!(self, Self::Helm | Self::KubeScore)
        {
            let path = Path::new(&assets).join(self.program());
            if path.is_file() {
                return Ok(path);
            }
        }
        Ok(process::cache()?.join(self.source().folder).join(self.program()))
    }
}

/// Builds the named tools, or all, and prints where they are.
pub(crate) fn build(names: &[Tool]) -> Result<()> {
    let tools = if names.is_empty() { Tool::value_variants() } else { names };
    ensure_tools(tools)?;
    definitions::ensure()?;
    if names.is_empty() {
        clients::ensure()?;
    }
    for tool in tools {
        println!("{}", tool.path()?.display());
    }
    Ok(())
}

/// Makes sure that every tool is there; those of one source are built together, which shares most of the work.
pub(crate) fn ensure_all() -> Result<()> {
    ensure_tools(Tool::value_variants())?;
    definitions::ensure()
}

/// Folder of the programs of Kubernetes, for `KUBEBUILDER_ASSETS` of test programs.
pub(crate) fn assets() -> Result<OsString> {
    match std::env::var_os("KUBEBUILDER_ASSETS") {
        Some(assets) => Ok(assets),
        None => Ok(process::cache()?.join(Tool::Etcd.source().folder).into_os_string()),
    }
}

/// Path of kubectl.
pub(crate) fn kubectl() -> Result<PathBuf> {
    Tool::Kubectl.path()
}

fn ensure_tools(tools: &[Tool]) -> Result<()> {
    let mut missing = Vec::new();
    for tool in tools {
        if !tool.path()?.is_file() {
            missing.push(*tool);
        }
    }
    for group in missing.chunk_by(|one, next| one.source().module == next.source().module) {
        let Some(first) = group.first() else { continue };
        let names: Vec<_> = group.iter().map(|tool| tool.program()).collect();
        process::step(&format!("building {} (minutes, once)", names.join(", ")));
        build_go(&first.source(), group)?;
    }
    Ok(())
}

/// Builds into a folder of its own and moves from there, so that a build that was cut off leaves nothing that looks whole.
fn build_go(source: &Source, tools: &[Tool]) -> Result<()> {
    let folder = process::cache()?.join(&source.folder);
    let unfinished = folder.join("unfinished");
    std::fs::create_dir_all(&unfinished).with_context(|| format!("can't create {}", unfinished.display()))?;
    let mut command = go::command()?;
    command
        .current_dir(process::top().join("xtask/tools").join(source.module))
        .args(["build", "-v", "-trimpath", "-ldflags", &source.linker_flags, "-o"])
        .arg(&unfinished)
        .args(tools.iter().map(|tool| tool.package()));
    run_with_progress(&mut command)?;
    for tool in tools {
        let path = folder.join(tool.program());
        std::fs::rename(unfinished.join(tool.built_as()), &path)
            .with_context(|| format!("can't move to {}", path.display()))?;
    }
    std::fs::remove_dir(&unfinished).with_context(|| format!("can't remove {}", unfinished.display()))
}

/// Runs `go build -v`, which says a line for each module that it fetches and each package that it compiles.
fn run_with_progress(command: &mut Command) -> Result<()> {
    let mut child = command.stderr(Stdio::piped()).spawn().context("can't start go")?;
    let lines = BufReader::new(child.stderr.take().context("go has a standard error")?).lines();
    let (mut fetched, mut compiled) = (0_usize, 0_usize);
    for line in lines {
        let line = line.context("can't read what go prints")?;
        if line.starts_with("go: downloading ") {
            fetched += 1;
        } else if !line.contains(' ') {
            compiled += 1;
        } else {
            println!("    {line}");
            continue;
        }
        if (fetched + compiled).is_multiple_of(PROGRESS_LINES) {
            println!("    {fetched} modules fetched, {compiled} packages compiled");
        }
    }
    let status = child.wait().context("can't wait for go")?;
    ensure!(status.success(), "go build ended with {status}: see above");
    println!("    {fetched} modules fetched, {compiled} packages compiled");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_what_the_modules_pin() {
        for (module, required) in [
            ("kube", format!("k8s.io/kubernetes {KUBERNETES_VERSION}")),
            ("helm", format!("helm.sh/helm/v3 {HELM_VERSION}")),
            ("kube-score", format!("github.com/zegl/kube-score {KUBE_SCORE_VERSION}")),
        ] {
            let path = process::top().join("xtask/tools").join(module).join("go.mod");
            let text = std::fs::read_to_string(&path).expect("it is committed");
            assert!(text.contains(&required), "{} does not require {required}", path.display());
        }
    }
}
