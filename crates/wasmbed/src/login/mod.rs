//! Certificates with which gateways know a person: the one that is kept for a cluster, and how another one is got.

mod ask;
mod operator;
mod store;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::sync::Mutex;

pub use operator::Operator;
pub(crate) use store::{Place, Store, all};

use crate::{
    cluster::{Cluster, ClusterArgs},
    output,
};

/// How long a command waits that needs a certificate: whoever may log in has one within a second or two.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits for one that is to take the place of one that still counts.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(5);
/// Before another try to renew.
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);

/// A person at one cluster. It asks for a certificate when there is none that counts, and for the next one in time.
pub struct Login {
    cluster: Cluster,
    store: Store,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    operator: Option<Arc<Operator>>,
    tried: Option<Instant>,
}

impl Login {
    /// The person of a kubeconfig, with the certificate in the user's configuration folder.
    pub(crate) fn of(cluster: &Cluster, arguments: &ClusterArgs) -> Result<Self> {
        let store = Store::of(&Place::of(cluster, arguments)?)?;
        Ok(Self::with(cluster.clone(), store))
    }

    /// The same with another folder.
    pub(crate) async fn at(kubeconfig: PathBuf, folder: PathBuf) -> Result<Self> {
        let arguments = ClusterArgs { kubeconfig: Some(kubeconfig), namespace: None };
        Ok(Self::with(arguments.connect_without_retries().await?, Store::at(folder)))
    }

    fn with(cluster: Cluster, store: Store) -> Self {
        Self { cluster, store, held: Mutex::default() }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The certificate that counts now.
    ///
    /// # Errors
    /// There is none, and none could be got.
    pub async fn current(&self) -> Result<Arc<Operator>> {
        let mut held = self.held.lock().await;
        if held.operator.is_none() {
            held.operator = self.store.read().map(Arc::new);
        }
        let kept = held.operator.clone().filter(|operator| !operator.is_over());
        match kept {
            Some(operator) if !operator.should_renew() => Ok(operator),
            Some(operator) if held.tried.is_some_and(|at| at.elapsed() < RENEWAL_PAUSE) => Ok(operator),
            Some(operator) => {
                held.tried = Some(Instant::now());
                match self.obtain(RENEWAL_PATIENCE, &|_| {}).await {
                    Ok(renewed) => {
                        held.operator = Some(Arc::clone(&renewed));
                        Ok(renewed)
                    }
                    Err(error) => {
                        let error = wasmbed_telemetry::with_causes(error.as_ref());
                        output::complain(&format!("warning: the login is not renewed yet: {error}"));
                        Ok(operator)
                    }
                }
            }
            None => {
                let got = self.obtain(PATIENCE, &output::complain).await;
                let got = got.context("not logged in, and can't log in; see wasmbed login")?;
                held.operator = Some(Arc::clone(&got));
                Ok(got)
            }
        }
    }

    /// Gets a certificate, and keeps it. `say` is told what is waited for.
    ///
    /// # Errors
    /// The request is refused, or nobody decided about it in this time.
    pub(crate) async fn obtain(&self, patience: Duration, say: &ask::Say<'_>) -> Result<Arc<Operator>> {
        Ok(Arc::new(ask::obtain(&self.cluster, &self.store, patience, say).await?))
    }
}
