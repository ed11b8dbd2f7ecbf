//! Numbers of the fleet's decisions.

use wasmbed_protocol::rate::Rate;

use super::secret::ValuesKey;

/// How often, how hard and how fast the fleet's controller acts.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// Everything is reconciled anew this often, and what was given up is tried again.
    pub resync_interval_ms: u64,
    /// Attempts after the first one before a gateway is left alone until the next interval or change.
    pub retries_max: u32,
    /// First pause between two attempts.
    pub retry_base_ms: u64,
    /// Each pause is this many times the one before, up to `resync_interval_ms`.
    pub backoff_multiplier: f64,
    /// Added to a gateway's lease before its devices are called unreachable.
    pub lease_grace_ms: u64,
    /// A watch of Leases that shows none for this long has shown nothing: what happened in the meantime is unknown. Twice the
    /// pause between two renewals of the leader's own Lease, so that one of them may be late.
    pub lease_watch_silence_ms: u64,
    /// A deleted Application is let go of after this long, whatever its devices say.
    pub undeploy_timeout_ms: u64,
    /// Between two writes of one Application's status.
    pub status_interval_ms: u64,
    /// Hides the values of Secrets in hashes; all controllers have the same. Without it no Secret is read, and Applications that
    /// name one are refused.
    pub values_key: Option<ValuesKey>,
    /// Writes to the Kubernetes API, all Applications together. A real API server spends about 2 ms of CPU on each.
    pub writes_per_second: u32,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            resync_interval_ms: 30_000,
            retries_max: 3,
            retry_base_ms: 1_000,
            backoff_multiplier: 2.0,
            lease_grace_ms: 10_000,
            lease_watch_silence_ms: 6_000,
            undeploy_timeout_ms: 60_000,
            status_interval_ms: 1_000,
            values_key: None,
            writes_per_second: 50,
        }
    }
}

/// A Device's finalizer is added or removed this long after the need for it arose: a deployment that reaches a fleet is not
/// slowed down by it, and one that comes and goes costs nothing. Until then the end of its session stops a deleted device.
pub(super) const DEVICE_FINALIZER_DELAY_MS: u64 = 5_000;
/// After a refusal, a Device's finalizers are left alone for this long: the rights for it may be missing.
pub(super) const DEVICE_FINALIZER_PAUSE_MS: u64 = 600_000;
/// Distinct facts that devices share in memory: a fleet of one board has one list of host functions.
pub(super) const FACTS_KINDS_MAX: usize = 1_024;
/// A gateway's Lease is taken to last this long until it has been seen: the gateways' default.
pub(super) const LEASE_DEFAULT_MS: u64 = 15_000;
/// A status waits this long for more of the same burst, so that ten reports make one write.
pub(super) const STATUS_DEBOUNCE_MS: u64 = 50;
/// Failures listed in one status.
pub(super) const FAILURES_MAX: usize = 50;
/// Characters of a failure's message: the schema takes no more, and one that is longer would have the whole status refused.
pub(super) const FAILURE_CHARS_MAX: usize = 1_024;
/// Names in one message; the others are counted.
pub(super) const NAMES_IN_MESSAGE_MAX: usize = 3;
/// Writes to the Kubernetes API on their way at once: enough to hide its latency, few enough to stop at once on a 429.
pub(super) const WRITES_IN_FLIGHT_MAX: usize = 8;
/// Uploads on their way at once, all gateways together: each holds a module of up to 1 MiB and its base64.
pub(super) const UPLOADS_IN_FLIGHT_MAX: usize = 4;
/// Events that wait to be written; more means that the API is away, and the oldest are dropped: conditions say the same.
pub(super) const EVENTS_QUEUED_MAX: usize = 1_000;
/// Events about one Application: as many as Kubernetes' own clients send about one object in a burst
/// (`client-go/tools/record/events_cache.go`). Beyond that the status says it alone: a device whose state never rests makes
/// no flood of them.
pub(super) const APPLICATION_EVENTS: Rate = Rate::one_in_ms(60_000, 25);
/// Bytes of the sets in one PUT, well below what a gateway takes, since JSON adds to it.
pub(super) const PUT_BYTES_MAX: usize = crate::gateway_api::PUT_SETS_BYTES_MAX / 2;
/// A Device's finalizer is tried again after this if its write failed or conflicted.
pub(super) const DEVICE_FINALIZER_RETRY_MS: u64 = 1_000;
/// Characters of a device's proof in base64 at most: 512 bytes.
pub(super) const PROOF_CHARS_MAX: usize = 684;
/// The condition `Decommissioned` is put in other words this long after it was last written: a device that comes and goes costs few
/// writes, and one that answers its order at once is written of twice, at its beginning and at its end.
pub(super) const DECOMMISSION_SAYS_MS: u64 = 10_000;
/// Another proof of the same device by the same gateway is verified after this long: it costs a signature's verification.
pub(super) const PROOF_PAUSE_MS: u64 = 1_000;
/// Orders are signed and sent anew after this long, so that they carry a certificate that is valid.
pub(super) const ORDERS_RENEWED_MS: u64 = 3_600_000;
