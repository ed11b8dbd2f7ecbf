//! Kubeconfig files: written for the embedded Kubernetes API, read for any.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use wasmbed_pki::Identity;

/// A kubeconfig with certificates within it, as YAML.
///
/// # Errors
/// Only if it can't be represented as YAML, which would be a bug.
pub(crate) fn render(server: &str, authority_pem: &str, user: &str, identity: &Identity) -> Result<String> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "wasmbed",
            "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(authority_pem) },
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(&identity.chain_pem),
                "client-key-data": STANDARD.encode(identity.key_pem.as_bytes()),
            },
        }],
        "contexts": [{ "name": "wasmbed", "context": { "cluster": "wasmbed", "user": user, "namespace": "default" } }],
        "current-context": "wasmbed",
    });
    serde_saphyr::to_string(&config).context("can't write the kubeconfig as YAML")
}

/// How to reach the Kubernetes API: by the given file, else `KUBECONFIG`, `~/.kube/config`, or the pod's service account.
///
/// # Errors
/// When none of them can be used.
pub(crate) async fn client_config(path: Option<&PathBuf>) -> Result<kube::Config> {
    match path {
        Some(path) => from_file(path).await,
        None => kube::Config::infer()
            .await
            .context("no Kubernetes API found: set --kubeconfig or KUBECONFIG, for example to DIR/kubeconfig of `wasmbed up`"),
    }
}

async fn from_file(path: &Path) -> Result<kube::Config> {
    let named = || format!("can't use the kubeconfig {}", path.display());
    let kubeconfig = Kubeconfig::read_from(path).with_context(named)?;
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.with_context(named)
}
