//! The honest: devices that live, devices that come, clients and probes.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio_rustls::rustls::ClientConfig;
use wasmbed_api::{Application, Device};
use wasmbed_bench::peer::Peer;
use wasmbed_e2e::{fixtures, get, until};

use crate::waits::Ask;

/// Name of the Application that is changed again and again.
pub(crate) const ROLLING: &str = "rolling";

/// A device that sends heartbeats; it connects again when its connection ends.
pub(crate) struct Beats {
    pub(crate) gateway: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) peer: Option<Peer>,
}

impl Ask for Beats {
    async fn ask(&mut self) -> Result<()> {
        let mut peer = match self.peer.take() {
            Some(peer) => peer,
            None => Peer::start(self.gateway, &self.tls).await?,
        };
        peer.beat().await?;
        self.peer = Some(peer);
        Ok(())
    }
}

/// A device that connects, begins a session and goes.
pub(crate) struct Newcomer {
    pub(crate) gateway: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
}

impl Ask for Newcomer {
    async fn ask(&mut self) -> Result<()> {
        let mut peer = Peer::start(self.gateway, &self.tls).await?;
        // The gateway may have closed it first.
        let _ = peer.stream.shutdown().await;
        Ok(())
    }
}

/// A client of the API with a connection of its own, which lists and patches by turns.
pub(crate) struct Requests {
    pub(crate) client: Client,
    pub(crate) device: String,
    pub(crate) turn: u64,
}

impl Ask for Requests {
    async fn ask(&mut self) -> Result<()> {
        let api: Api<Device> = Api::namespaced(self.client.clone(), "default");
        self.turn += 1;
        if self.turn.is_multiple_of(2) {
            api.list(&ListParams::default().limit(100)).await.context("can't list")?;
        } else {
            let patch = json!({ "metadata": { "labels": { "turn": self.turn.to_string() } } });
            api.patch(&self.device, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .context("can't patch")?;
        }
        Ok(())
    }
}

/// A client of the API that comes anew each time.
pub(crate) struct NewClient(pub(crate) kube::Config);

impl Ask for NewClient {
    async fn ask(&mut self) -> Result<()> {
        let client = Client::try_from(self.0.clone())?;
        let request = http::Request::get("/readyz").body(Vec::new())?;
        client.request_text(request).await?;
        Ok(())
    }
}

/// Who asks whether processes are healthy and ready.
pub(crate) struct Probe {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) turn: usize,
}

impl Ask for Probe {
    async fn ask(&mut self) -> Result<()> {
        self.turn += 1;
        let path = if self.turn.is_multiple_of(2) { "/health" } else { "/ready" };
        let address = self.addresses[(self.turn / 2) % self.addresses.len()];
        let (status, body) = get(address, path).await?;
        ensure!(status == 200, "{path} answers {status}: {}", body.trim());
        Ok(())
    }
}

/// Changes an Application's module and waits until all of its devices run the new one.
pub(crate) struct Rollout {
    pub(crate) client: Client,
    pub(crate) turn: u64,
}

impl Ask for Rollout {
    async fn ask(&mut self) -> Result<()> {
        self.turn += 1;
        let module = fixtures::ticker(&format!("change {}", self.turn), 20_000);
        let patch = json!({ "spec": { "wasm_bytes": STANDARD.encode(module) } });
        let api: Api<Application> = Api::namespaced(self.client.clone(), "default");
        let changed = api.patch(ROLLING, &PatchParams::default(), &Patch::Merge(patch)).await?;
        let generation = changed.metadata.generation;
        until(&self.client, "default", ROLLING, "complete", |application: &Application| {
            application.status.as_ref().is_some_and(|status| {
                status.observed_generation >= generation
                    && status
                        .conditions
                        .iter()
                        .any(|known| known.type_ == "Complete" && known.status == "True")
            })
        })
        .await
        .map(drop)
    }
}
