//! Definitions of other projects' resources that the Helm chart uses: real ones, from the Go modules that publish them.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{go, process};

/// Where they are kept below the cache; the chart's tests look for a folder of this name. `xtask/tools/crds/go.mod` pins the
/// same versions.
const FOLDER: &str = "tools/crds-cert-manager-v1.18.2-prometheus-operator-v0.83.0";
/// The files, by the module that has them.
const FILES: [(&str, &str); 4] = [
    ("github.com/cert-manager/cert-manager", "deploy/crds/crd-certificates.yaml"),
    ("github.com/cert-manager/cert-manager", "deploy/crds/crd-issuers.yaml"),
    ("github.com/cert-manager/cert-manager", "deploy/crds/crd-clusterissuers.yaml"),
    (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
];

/// Makes sure that they are there.
pub(crate) fn ensure() -> Result<()> {
    let folder = process::cache()?.join(FOLDER);
    if folder.is_dir() {
        return Ok(());
    }
    process::step("fetching definitions of cert-manager and of the Prometheus operator");
    let modules = process::top().join("xtask/tools/crds");
    process::run(go::command()?.args(["mod", "download"]).current_dir(&modules))?;
    let unfinished = folder.with_extension("unfinished");
    std::fs::create_dir_all(&unfinished).with_context(|| format!("can't create {}", unfinished.display()))?;
    for (module, file) in FILES {
        let mut list = go::command()?;
        list.args(["list", "-m", "-f", "{{.Dir}}", module]).current_dir(&modules);
        let source = PathBuf::from(process::output(&mut list)?.trim()).join(file);
        let name = source.file_name().context("a file has a name")?;
        std::fs::copy(&source, unfinished.join(name))
            .with_context(|| format!("can't copy {}", source.display()))?;
    }
    std::fs::rename(&unfinished, &folder).with_context(|| format!("can't rename to {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::FOLDER;

    #[test]
    fn the_folder_names_the_pinned_versions() {
        let pinned = include_str!("../tools/crds/go.mod");
        for (module, version) in [("cert-manager", "v1.18.2"), ("prometheus-operator", "v0.83.0")] {
            assert!(FOLDER.contains(&format!("{module}-{version}")));
            assert!(pinned.contains(&format!("{module} {version}")));
        }
    }
}
