//! What the gateway says of itself: its DeviceGateway, its Lease, its gauges.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use wasmbed_api::{DeviceGateway, DeviceGatewaySpec, ReasonCode};
use wasmbed_telemetry::Health;

use crate::{
    core::Core, foreign::Foreign, handshakes::Handshakes, kubernetes::words, listener::Shares,
    metrics::Metrics, store::Condition,
};

/// How often gauges are set.
const GAUGES_EVERY: Duration = Duration::from_secs(1);
/// How often the DeviceGateway is written while it changes.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// How often the Lease is renewed: three times within its duration.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How often that is tried after a failure: an API that is back hears of the gateway before anyone counts it as gone.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// After this without a renewal the gateway counts as gone.
const LEASE_SECONDS: i32 = 15;
/// For one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Who says it.
pub(crate) struct Presence {
    pub(crate) client: Client,
    pub(crate) core: Arc<Core>,
    pub(crate) metrics: Metrics,
    pub(crate) handshakes: Arc<Handshakes>,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) address: String,
    pub(crate) boot_id: String,
    pub(crate) shares: Shares,
    pub(crate) foreign: Arc<Foreign>,
    pub(crate) health: Health,
    pub(crate) disk: Condition,
}

/// What was last written.
#[derive(Default)]
struct Written {
    status: Option<Value>,
    /// Since when it has been serving, or not.
    ready: Option<(bool, String)>,
    transitions: i32,
    failing: bool,
}

impl Presence {
    /// Says it until `stop`, then says goodbye.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(GAUGES_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = Written::default();
        let (mut status_at, mut renew_at) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => break,
            }
            self.set_gauges();
            let disk = self.disk.failing().map(|why| format!("the gateway's disk fails: {why}"));
            self.health.set("store", disk.map_or(Ok(()), Err));
            let now = Instant::now();
            if now >= renew_at {
                let renewed = self.renew(&mut written).await;
                self.tell("Lease", renewed, &mut written);
                renew_at = now + if written.failing { RETRY_EVERY } else { RENEW_EVERY };
            }
            if now >= status_at {
                let said = self.say(true, &mut written).await;
                self.tell("DeviceGateway", said, &mut written);
                status_at = now + STATUS_EVERY;
                self.tell_foreign().await;
            }
        }
        let said = self.say(false, &mut written).await;
        self.tell("DeviceGateway", said, &mut written);
        let released = self.release().await;
        self.tell("Lease", released, &mut written);
    }

    /// An Event for people: one that can't be written is logged and dropped.
    async fn tell_foreign(&self) {
        let Some(message) = self.foreign.take(std::time::Instant::now()) else { return };
        tracing::warn!(gateway = self.name, reason = ReasonCode::ForeignCertificate.as_str(), "{message}");
        let api: Api<DeviceGateway> = Api::namespaced(self.client.clone(), &self.namespace);
        let uid = within(api.get_opt(&self.name)).await.ok().flatten().and_then(|held| held.metadata.uid);
        let event = crate::foreign::event(&self.namespace, &self.name, uid, message);
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        if let Err(error) = within(events.create(&PostParams::default(), &event)).await {
            tracing::warn!(
                gateway = self.name,
                reason = "WriteFailed",
                error,
                "an Event could not be written"
            );
        }
    }

    fn tell(&self, what: &str, result: Result<(), String>, written: &mut Written) {
        match result {
            Ok(()) if written.failing => {
                written.failing = false;
                tracing::info!(gateway = self.name, "the Kubernetes API answers again");
            }
            Ok(()) => {}
            Err(error) => {
                // Someone may have deleted what was there: it is looked for, and made, anew.
                written.status = None;
                written.transitions = 0;
                self.tell_failure(what, &error, written);
            }
        }
    }

    fn tell_failure(&self, what: &str, error: &str, written: &mut Written) {
        // Once, not every second.
        if !written.failing {
            written.failing = true;
            tracing::warn!(gateway = self.name, reason = "WriteFailed", error, "{what} could not be written");
        }
    }

    fn set_gauges(&self) {
        let (levels, counters) = self.core.read(|gateway, now| (gateway.levels(now), gateway.counters()));
        self.metrics.level(&levels, &counters, self.handshakes.levels(), self.shares.sessions());
    }

    async fn say(&self, serving: bool, written: &mut Written) -> Result<(), String> {
        let levels = self.core.read(|gateway, now| gateway.levels(now));
        let (failing, set_aside) = (self.disk.failing(), self.disk.set_aside());
        let (reason, message) = match (serving, failing, set_aside) {
            (false, _, _) => (ReasonCode::Draining, ReasonCode::Draining.sentence().to_owned()),
            (true, Some(why), _) => {
                (ReasonCode::StoreFailed, format!("{} {why}", ReasonCode::StoreFailed.sentence()))
            }
            (true, None, Some(what)) => {
                (ReasonCode::StoreSetAside, format!("{} {what}", ReasonCode::StoreSetAside.sentence()))
            }
            (true, None, None) => (ReasonCode::Serving, ReasonCode::Serving.sentence().to_owned()),
        };
        let ready = matches!(reason, ReasonCode::Serving | ReasonCode::StoreSetAside);
        if written.ready.as_ref().is_none_or(|(was, _)| *was != ready) {
            written.ready = Some((ready, seconds(Timestamp::now())));
        }
        let since = written.ready.as_ref().map(|(_, since)| since.clone());
        let status = json!({
            "boot_id": self.boot_id,
            "connected": levels.sessions,
            "connections_max": self.shares.sessions(),
            "modules": levels.modules,
            // To a quarter of a second: finer would make every status a new one.
            "write_lag_ms": levels.write_lag_ms / 250 * 250,
            "version": env!("CARGO_PKG_VERSION"),
            "conditions": [{
                "type": "Ready",
                "status": if ready { "True" } else { "False" },
                "reason": reason.as_str(),
                "message": message,
                "lastTransitionTime": since,
            }],
        });
        if written.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<DeviceGateway> = Api::namespaced(self.client.clone(), &self.namespace);
        if written.status.is_none() {
            within(self.ensure(&api)).await?;
        }
        let mut patch = status.clone();
        patch["observed_at"] = json!(seconds(Timestamp::now()));
        let patch = json!({ "status": patch });
        within(api.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(patch))).await?;
        written.status = Some(status);
        Ok(())
    }

    /// Makes the DeviceGateway, or puts the address right in the one from an earlier life.
    async fn ensure(&self, api: &Api<DeviceGateway>) -> Result<(), kube::Error> {
        let spec = DeviceGatewaySpec { address: self.address.clone() };
        match api.get_opt(&self.name).await? {
            None => {
                api.create(&PostParams::default(), &DeviceGateway::new(&self.name, spec)).await?;
            }
            Some(held) if held.spec != spec => {
                let patch = json!({ "spec": spec });
                api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn lease_name(&self) -> String {
        format!("gateway-{}", self.name)
    }

    async fn renew(&self, written: &mut Written) -> Result<(), String> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let now = MicroTime(Timestamp::now());
        let name = self.lease_name();
        if written.transitions > 0 {
            let patch = json!({ "spec": { "holderIdentity": self.boot_id, "renewTime": now } });
            within(api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))).await?;
            return Ok(());
        }
        let held = within(api.get_opt(&name)).await?;
        let transitions =
            held.as_ref().and_then(|held| held.spec.as_ref()?.lease_transitions).unwrap_or(0) + 1;
        let spec = LeaseSpec {
            holder_identity: Some(self.boot_id.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        if held.is_some() {
            let patch = json!({ "spec": spec });
            within(api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))).await?;
        } else {
            let metadata = ObjectMeta { name: Some(name), ..ObjectMeta::default() };
            within(api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) })).await?;
        }
        written.transitions = transitions;
        Ok(())
    }

    /// Gives the Lease up, so that nobody waits for it to expire.
    async fn release(&self) -> Result<(), String> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let patch = json!({ "spec": { "holderIdentity": "" } });
        within(api.patch(&self.lease_name(), &PatchParams::default(), &Patch::Merge(patch))).await?;
        Ok(())
    }
}

async fn within<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(result) => result.map_err(|error| words(&error)),
        Err(_) => Err(format!("no answer within {} s", CALL_TIMEOUT.as_secs())),
    }
}

/// RFC 3339 to the second, as Kubernetes writes times.
fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// Where the gateway is found if nobody says so: the bound address, loopback if it listens on all.
pub(crate) fn advertised(bound: SocketAddr) -> String {
    let mut address = bound;
    if bound.ip().is_unspecified() {
        address.set_ip(match bound {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address.to_string()
}
