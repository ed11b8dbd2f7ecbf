//! Kubeconfig files: written for the embedded Kubernetes API, read for any.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use serde_json::json;
use wasmbed_pki::Identity;

use crate::output::yaml_problem;

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
    let files = files(path.map(PathBuf::as_path), &|name| std::env::var_os(name));
    let mut config = match (files.as_slice(), path) {
        ([], None) if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() => bail!(
            "no Kubernetes API found: set --kubeconfig or KUBECONFIG, for example to DIR/kubeconfig of `wasmbed up`"
        ),
        ([], None) => kube::Config::incluster().context("can't use the pod's service account")?,
        (files, _) => {
            let kubeconfig = merged(files)?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(|error| unusable(&listed(files), &error))?
        }
    };
    let proxies = Proxies::from_environment();
    config.proxy_url = config.proxy_url.take().filter(|proxy| proxies.apply(proxy, &config.cluster_url));
    Ok(config)
}

/// The kubeconfig files in use, the one with precedence first: the given one, or those of `KUBECONFIG`, a list as for kubectl,
/// or `~/.kube/config`. Files of the environment that don't exist are left out, as kubectl does.
fn files(given: Option<&Path>, variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    if let Some(path) = given {
        return vec![path.to_owned()];
    }
    match variable("KUBECONFIG").filter(|list| !list.is_empty()) {
        Some(list) => std::env::split_paths(&list).filter(|path| path.is_file()).collect(),
        None => variable("HOME")
            .map(|home| Path::new(&home).join(".kube/config"))
            .filter(|path| path.is_file())
            .into_iter()
            .collect(),
    }
}

/// The current context and the user in it, if the API is reached by files.
pub(crate) fn context_in_use(given: Option<&Path>) -> Result<Option<(String, String)>> {
    let files = files(given, &|name| std::env::var_os(name));
    if files.is_empty() {
        return Ok(None);
    }
    let merged = merged(&files)?;
    let current = merged.current_context.unwrap_or_default();
    let named = merged.contexts.into_iter().find(|context| context.name == current);
    let user = named.and_then(|named| named.context).and_then(|context| context.user);
    Ok(Some((current, user.unwrap_or_default())))
}

/// What the files say together: for each name the first one that has it.
fn merged(files: &[PathBuf]) -> Result<Kubeconfig> {
    files.iter().try_fold(Kubeconfig::default(), |merged, path| {
        let unusable = |error| unusable(&path.display().to_string(), &error);
        merged.merge(Kubeconfig::read_from(path).map_err(unusable)?).map_err(unusable)
    })
}

fn unusable(files: &str, error: &KubeconfigError) -> anyhow::Error {
    let problem = match error {
        KubeconfigError::ReadConfig(error, _) => error.to_string(),
        KubeconfigError::Parse(error) => yaml_problem(error),
        error => wasmbed_telemetry::with_causes(error),
    };
    anyhow!("can't use the kubeconfig {files}: {problem}")
}

fn listed(files: &[PathBuf]) -> String {
    files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The proxies that the environment names. kube takes `HTTPS_PROXY` but compares `NO_PROXY` with the proxy's own address, so
/// whether it applies is decided here.
struct Proxies {
    named: Vec<Uri>,
    matcher: Matcher,
}

impl Proxies {
    fn from_environment() -> Self {
        let named = ["HTTPS_PROXY", "https_proxy"].iter().filter_map(|name| std::env::var(name).ok());
        Self { named: named.filter_map(|text| text.parse().ok()).collect(), matcher: Matcher::from_env() }
    }

    /// Whether a proxy is to be used. One of the kubeconfig's own always is; one of the environment not for `NO_PROXY`
    /// and never for an address of this machine, as in clients of Go.
    fn apply(&self, proxy: &Uri, server: &Uri) -> bool {
        !self.named.contains(proxy) || (!is_loopback(server) && self.matcher.intercept(server).is_some())
    }
}

fn is_loopback(server: &Uri) -> bool {
    let host = server.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(context: &str, server: &str) -> String {
        json!({
            "clusters": [{"name": context, "cluster": {"server": server}}],
            "users": [],
            "contexts": [{"name": context, "context": {"cluster": context, "user": ""}}],
        })
        .to_string()
    }

    #[tokio::test]
    async fn a_list_of_files_is_merged_and_missing_ones_are_left_out() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a"), kubeconfig("a", "https://a.example"))?;
        std::fs::write(path("b"), kubeconfig("b", "https://b.example"))?;
        std::fs::write(path("current"), "current-context: b")?;
        let list = std::env::join_paths([path("absent"), path("current"), path("a"), path("b")])?;
        let found = files(None, &|name| (name == "KUBECONFIG").then(|| list.clone()));
        assert_eq!(found, [path("current"), path("a"), path("b")]);
        let config =
            kube::Config::from_custom_kubeconfig(merged(&found)?, &KubeConfigOptions::default()).await?;
        assert_eq!(config.cluster_url.host(), Some("b.example"));
        assert_eq!(files(Some(&path("absent")), &|_| None), [path("absent")]);
        Ok(())
    }

    #[test]
    fn a_proxy_of_the_environment_is_not_used_for_this_machine_or_what_no_proxy_names() -> Result<()> {
        let proxy: Uri = "http://proxy.example:3128".parse()?;
        let matcher =
            Matcher::builder().https("http://proxy.example:3128").no("10.0.0.0/8,.internal").build();
        let proxies = Proxies { named: vec![proxy.clone()], matcher };
        for (server, wanted) in [
            ("https://kube.example:6443", true),
            ("https://127.0.0.1:6443", false),
            ("https://[::1]:6443", false),
            ("https://localhost:6443", false),
            ("https://10.1.2.3:6443", false),
            ("https://kube.internal", false),
        ] {
            assert_eq!(proxies.apply(&proxy, &server.parse()?), wanted, "{server}");
        }
        // Named by the kubeconfig itself.
        assert!(proxies.apply(&"http://other.example".parse()?, &"https://127.0.0.1:6443".parse()?));
        Ok(())
    }
}
