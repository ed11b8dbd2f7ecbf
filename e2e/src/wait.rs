//! Waiting for a state of an object, by a watch.

use std::{pin::pin, time::Duration};

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::{Serialize, de::DeserializeOwned};

/// How long a state may take to come. Generous: other tests share the processor.
pub const TIMEOUT: Duration = Duration::from_secs(90);

/// [`until_at`] of a namespaced kind.
///
/// # Errors
/// With the object as it was last seen, when the time is over.
pub async fn until<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    what: &str,
    wanted: impl Fn(&K) -> bool,
) -> Result<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize + Send + 'static,
{
    until_at(Api::namespaced(client.clone(), namespace), name, what, wanted).await
}

/// Waits until the object of that name is as `wanted` says, and returns it. The watch survives an API server that goes away and comes
/// back.
///
/// # Errors
/// With the object as it was last seen, when the time is over.
pub async fn until_at<K>(api: Api<K>, name: &str, what: &str, wanted: impl Fn(&K) -> bool) -> Result<K>
where
    K: Resource<DynamicType = ()>,
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize + Send + 'static,
{
    let one = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut seen = None;
    let search = async {
        let mut objects = pin!(watcher(api, one).default_backoff().applied_objects());
        loop {
            match objects.try_next().await {
                Ok(Some(object)) if wanted(&object) => return Ok(object),
                Ok(Some(object)) => seen = Some(object),
                Ok(None) => bail!("the watch ended"),
                // The watcher tries again by itself.
                Err(_) => {}
            }
        }
    };
    match tokio::time::timeout(TIMEOUT, search).await {
        Ok(found) => found,
        Err(_) => {
            let text = serde_json::to_string_pretty(&seen).context("can't show the object")?;
            bail!("{} {name} never came to {what}; it was last:\n{text}", K::kind(&()))
        }
    }
}
