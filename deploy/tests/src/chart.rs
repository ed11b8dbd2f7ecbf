//! Helm and what it renders.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What Helm is told to render for: built from its sources it believes in an old version.
const KUBE_VERSION: &str = "1.36.3";

/// Where the chart is.
#[must_use]
pub fn chart_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../chart")
}

/// The values files of the chart's tests, by name.
///
/// # Errors
/// When the folder can't be read.
pub fn values_files() -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(chart_dir().join("tests")).context("can't list the chart's tests")?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .context("can't list them")?;
    files.sort();
    Ok(files)
}

/// One object of what Helm rendered.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The object's YAML.
    pub text: String,
    /// The same as a value.
    pub value: Value,
}

impl Manifest {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Whether Helm creates it only for a hook.
    #[must_use]
    pub fn is_hook(&self) -> bool {
        self.value["metadata"]["annotations"]["helm.sh/hook"].is_string()
    }
}

/// The chart with values, as one release.
#[derive(Clone, Debug)]
pub struct Chart {
    helm: PathBuf,
    release: String,
    namespace: String,
    arguments: Vec<String>,
}

impl Chart {
    /// A release of the chart with its defaults.
    ///
    /// # Errors
    /// When there is no Helm.
    pub fn new(release: &str, namespace: &str) -> Result<Self> {
        let helm = wasmbed_testbed::helm()?;
        Ok(Self { helm, release: release.into(), namespace: namespace.into(), arguments: Vec::new() })
    }

    /// With a values file.
    #[must_use]
    pub fn values(mut self, file: &Path) -> Self {
        self.arguments.extend(["--values".to_owned(), file.display().to_string()]);
        self
    }

    /// With one value, as Helm's `--set` has it.
    #[must_use]
    pub fn set(mut self, value: &str) -> Self {
        self.arguments.extend(["--set".to_owned(), value.to_owned()]);
        self
    }

    /// `helm lint --strict`.
    ///
    /// # Errors
    /// With what it found.
    pub fn lint(&self) -> Result<String> {
        let mut command = Command::new(&self.helm);
        command.args(["lint", "--strict", "--kube-version", KUBE_VERSION, "--namespace", &self.namespace]);
        run(command.arg(chart_dir()).args(&self.arguments))
    }

    /// `helm template`: the objects in the order in which Helm would create them, hooks last.
    ///
    /// # Errors
    /// With what Helm said, or when something rendered is no YAML.
    pub fn render(&self) -> Result<Vec<Manifest>> {
        self.render_only(&[])
    }

    /// The same of some templates.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn render_only(&self, templates: &[&str]) -> Result<Vec<Manifest>> {
        let mut command = Command::new(&self.helm);
        command.args(["template", &self.release]).arg(chart_dir()).args(&self.arguments);
        command.args(["--kube-version", KUBE_VERSION, "--namespace", &self.namespace]);
        for template in templates {
            command.args(["--show-only", template]);
        }
        split(&run(&mut command)?)
    }

    /// `helm install`, `upgrade` or `uninstall` of the release, against the cluster of a kubeconfig. Further arguments go
    /// last.
    ///
    /// # Errors
    /// With what Helm said.
    pub fn release(&self, verb: &str, kubeconfig: &Path, more: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.helm);
        command.args([verb, &self.release, "--namespace", &self.namespace]);
        command.arg("--kubeconfig").arg(kubeconfig);
        if verb == "install" || verb == "upgrade" {
            command.arg(chart_dir()).args(&self.arguments);
        }
        run(command.args(more))
    }
}

fn split(text: &str) -> Result<Vec<Manifest>> {
    let documents = text.split("\n---\n").map(|part| part.trim_start_matches("---\n"));
    let documents =
        documents.filter(|part| part.lines().any(|line| !line.starts_with('#') && !line.is_empty()));
    documents
        .map(|part| {
            let value = serde_saphyr::from_str(part).with_context(|| format!("no YAML: {part}"))?;
            Ok(Manifest { text: part.to_owned(), value })
        })
        .collect()
}

fn run(command: &mut Command) -> Result<String> {
    wasmbed_testbed::collect_seldom(command);
    let output = command.output().context("can't start helm")?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
