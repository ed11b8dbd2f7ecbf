//! What the gateway says of itself: its DeviceGateway, its Lease, its gauges.

use std::{fmt::Display, net::SocketAddr, sync::Arc, time::Duration};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use wasmbed_api::{
    DeviceGateway, DeviceGatewaySpec, DeviceGatewayStatus, ReasonCode, condition, gateway_lease,
};
use wasmbed_control::{
    ObjectKey,
    election::{ElectionConfig, Hold, LeaseRecord, Tenure},
};
use wasmbed_kubernetes::{CallError, Caller, Claimed, LeaseClient};
use wasmbed_telemetry::{Health, Readiness};

use crate::{
    core::Core, foreign::Foreign, handshakes::Handshakes, listener::Shares, metrics::Metrics, store,
};

/// How often gauges are set.
const GAUGES_EVERY: Duration = Duration::from_secs(1);
/// How often the DeviceGateway is looked at, and written if it is not as it should be.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// The Lease is renewed three times within its duration.
const LEASE: ElectionConfig = ElectionConfig { duration_ms: 15_000, renew_ms: 5_000 };
/// For one call: the Lease must not wait for the status.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Who says it.
pub(crate) struct Presence {
    pub(crate) caller: Caller,
    pub(crate) core: Arc<Core>,
    pub(crate) metrics: Metrics,
    pub(crate) handshakes: Arc<Handshakes>,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) address: String,
    /// The holder of its Lease.
    pub(crate) id: String,
    pub(crate) boot_id: String,
    pub(crate) shares: Shares,
    pub(crate) foreign: Arc<Foreign>,
    pub(crate) health: Health,
    pub(crate) disk: store::Condition,
}

impl Presence {
    /// Holds the Lease and says it until `stop`, then says goodbye.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(GAUGES_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let started = Instant::now();
        let mut tenure = Tenure::new(&self.id, LEASE);
        let mut failing = Failing::default();
        let (mut status_at, mut lease_at) = (started, started);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    self.set_gauges();
                    let disk = self.disk.failing().map(|why| format!("the gateway's disk fails: {why}"));
                    self.health.set("store", Readiness::unless(disk));
                }
                () = tokio::time::sleep_until(lease_at) => {
                    let held = self.hold(&mut tenure, started).await;
                    let pause = tenure.poll_pause_ms(milliseconds(started), held.is_ok());
                    self.tell("Lease", held, &mut failing);
                    lease_at = Instant::now() + Duration::from_millis(pause);
                }
                () = tokio::time::sleep_until(status_at), if *tenure.hold() == Hold::Held => {
                    let said = self.say(true).await;
                    self.tell("DeviceGateway", said, &mut failing);
                    status_at = Instant::now() + STATUS_EVERY;
                    self.tell_foreign().await;
                }
                () = stop.cancelled() => break,
            }
        }
        if *tenure.hold() == Hold::Held {
            let said = self.say(false).await;
            self.tell("DeviceGateway", said, &mut failing);
            let released = self.lease().release(&self.id).await;
            self.tell("Lease", released.map(|_| ()), &mut failing);
        }
    }

    /// An Event for people: one that can't be written is logged and dropped.
    async fn tell_foreign(&self) {
        let Some(message) = self.foreign.take(std::time::Instant::now()) else { return };
        tracing::warn!(gateway = self.name, reason = ReasonCode::ForeignCertificate.as_str(), "{message}");
        let key = self.key();
        let found = self.caller.get::<DeviceGateway>(&key).await.ok().flatten();
        let uid = found.and_then(|gateway| gateway.metadata.uid).unwrap_or_default();
        let unix_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        let event = crate::foreign::event(unix_ms, key, uid, message);
        if let Err(error) = self.caller.write_event(&event).await {
            tracing::warn!(
                gateway = self.name,
                reason = "WriteFailed",
                %error,
                "an Event could not be written"
            );
        }
    }

    fn tell<E: Display>(&self, what: &str, result: Result<(), E>, failing: &mut Failing) {
        match result {
            Ok(()) if failing.0 => {
                failing.0 = false;
                tracing::info!(gateway = self.name, "the Kubernetes API answers again");
            }
            Ok(()) => {}
            // Once, not every second.
            Err(error) if !failing.0 => {
                failing.0 = true;
                tracing::warn!(
                    gateway = self.name,
                    reason = "WriteFailed",
                    %error,
                    "{what} could not be written"
                );
            }
            Err(_) => {}
        }
    }

    fn set_gauges(&self) {
        let (levels, counters, messages, brokers) = self.core.read(|gateway, now| {
            let messages = (gateway.message_levels(now), gateway.message_counters());
            let brokers = (gateway.broker_levels(), gateway.broker_received());
            (gateway.levels(now), gateway.counters(), messages, brokers)
        });
        self.metrics.level(
            &levels,
            &counters,
            &messages,
            &brokers,
            self.handshakes.levels(),
            self.shares.sessions(),
        );
    }

    fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace.as_str(), self.name.as_str())
    }

    fn lease(&self) -> LeaseClient {
        let key = ObjectKey::new(self.namespace.as_str(), gateway_lease(&self.name));
        LeaseClient::new(self.caller.clone(), key)
    }

    /// Takes or renews the Lease, and passes on whether it is held.
    async fn hold(&self, tenure: &mut Tenure, started: Instant) -> Result<(), ClaimError> {
        let before = tenure.hold().clone();
        let result = self.claim(tenure, started).await;
        if result.is_err() {
            tenure.handle_failed();
        }
        let hold = tenure.hold();
        if *hold != before {
            match hold.kept_from() {
                None => tracing::info!(
                    gateway = self.name,
                    id = self.id,
                    held = *hold == Hold::Held,
                    "speaks for its gateway"
                ),
                Some(error) => {
                    tracing::warn!(
                        gateway = self.name,
                        id = self.id,
                        reason = "NotHolder",
                        error,
                        "takes no devices"
                    );
                }
            }
        }
        self.core.with(|gateway, now| gateway.handle_hold(now, hold));
        self.health.set("lease", Readiness::unless(hold.kept_from()));
        result
    }

    async fn claim(&self, tenure: &mut Tenure, started: Instant) -> Result<(), ClaimError> {
        let (asked_ms, config) = (milliseconds(started), tenure.config());
        let asked = self.core.read(|_, now| now.ms);
        let plan = |record: Option<&LeaseRecord>| tenure.plan_claim(milliseconds(started), record);
        match self.lease().claim(&self.id, config, Timestamp::now(), plan).await? {
            Claimed::Written { term } => {
                tenure.handle_written(asked_ms, term);
                self.core.with(|gateway, _| gateway.handle_renewed(asked));
            }
            Claimed::Waits => {}
            Claimed::Conflict => return Err(ClaimError::Conflict),
        }
        Ok(())
    }

    /// Makes the DeviceGateway, or puts right what is not as it should be in it.
    async fn say(&self, serving: bool) -> Result<(), CallError> {
        let (key, spec) = (self.key(), DeviceGatewaySpec { address: self.address.clone() });
        let held = match self.caller.get::<DeviceGateway>(&key).await? {
            Some(held) if held.spec == spec => held,
            Some(_) => self.caller.merge(&key, &json!({ "spec": spec })).await?,
            None => {
                let made = DeviceGateway::new(&self.name, spec);
                self.caller.create(&self.namespace, &made).await?
            }
        };
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        let shown = held.status.unwrap_or_default();
        let wanted = self.status(serving, &shown, now);
        if wanted == shown {
            return Ok(());
        }
        let status = DeviceGatewayStatus { observed_at: Some(now.to_string()), ..wanted };
        let patch = json!({ "status": status });
        self.caller.merge_status::<DeviceGateway>(&key, &patch).await?;
        Ok(())
    }

    /// What the status should be, where it is `shown` now.
    fn status(&self, serving: bool, shown: &DeviceGatewayStatus, now: Timestamp) -> DeviceGatewayStatus {
        let levels = self.core.read(|gateway, now| gateway.levels(now));
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let (failing, set_aside) = (self.disk.failing(), self.disk.set_aside());
        let (status, reason, more) = match (serving, failing, set_aside) {
            (false, _, _) => ("False", ReasonCode::Draining, None),
            (true, Some(why), _) => ("False", ReasonCode::StoreFailed, Some(why)),
            (true, None, Some(what)) => ("True", ReasonCode::StoreSetAside, Some(what)),
            (true, None, None) => ("True", ReasonCode::Serving, None),
        };
        let sentence = reason.sentence();
        let message = more.map_or_else(|| sentence.to_owned(), |more| format!("{sentence} {more}"));
        let before = shown.conditions.iter().find(|shown| shown.type_ == condition::READY);
        let since = before
            .filter(|before| before.status == status)
            .map_or(Time(now), |before| before.last_transition_time.clone());
        let ready = Condition {
            type_: condition::READY.to_owned(),
            status: status.to_owned(),
            reason: reason.as_str().to_owned(),
            message,
            observed_generation: None,
            last_transition_time: since,
        };
        DeviceGatewayStatus {
            boot_id: Some(self.boot_id.clone()),
            connected: number(levels.sessions),
            connections_max: number(self.shares.sessions()),
            modules: number(levels.modules),
            // To a quarter of a second: finer would make every status a new one.
            write_lag_ms: i64::try_from(levels.write_lag_ms / 250 * 250).unwrap_or(i64::MAX),
            observed_at: shown.observed_at.clone(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            conditions: vec![ready],
        }
    }
}

/// Why the Lease could not be claimed.
#[derive(Debug, thiserror::Error)]
enum ClaimError {
    /// The API.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Another process.
    #[error("another process wrote the Lease at the same time")]
    Conflict,
}

/// Whether the API failed the last time.
#[derive(Default)]
struct Failing(bool);

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
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
