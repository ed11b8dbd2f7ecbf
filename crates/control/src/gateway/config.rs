//! What a gateway's decisions are set to, and the bounds that nobody sets.

use std::collections::BTreeSet;

use wasmbed_protocol::rate::Rate;

use super::certification::ReadRequest;
use crate::backoff::Backoff;

/// What happens to a device with a valid certificate that no Device object names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enrollment {
    /// It is refused.
    Closed,
    /// A Device with `approved: false` is created; the device is let in once a person sets it to true.
    #[default]
    Approval,
    /// A Device is created as with `Approval`, but approval is not asked for: every device with a valid certificate is
    /// let in unless its Device says `revoked`.
    Open,
}

/// What a gateway's decisions are set to.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of its DeviceGateway, as in `Device.status.gateway`.
    pub name: String,
    /// Random for each start, 32 hex digits.
    pub boot_id: String,
    /// Namespaces whose devices are served; all if there is none.
    pub namespaces: BTreeSet<String>,
    /// What happens to unknown devices.
    pub enrollment: Enrollment,
    /// Namespace of the Devices that are made for devices that join.
    pub joining_namespace: String,
    /// Devices in it that name a serial and are not approved, at most, before no more are made.
    pub pending_max: usize,
    /// Reads what devices that join or renew ask for; without it none does.
    pub read_request: Option<ReadRequest>,
    /// How often devices say that they live, milliseconds.
    pub heartbeat_interval_ms: u32,
    /// Silence after which a session ends, milliseconds.
    pub heartbeat_timeout_ms: u32,
    /// Sessions at most at the same time.
    pub sessions_max: usize,
    /// Writes to the Kubernetes API each second, sustained: a real API server spends 2 ms of CPU on each.
    pub writes_per_second: u32,
    /// Writes in a burst; see [`writes_burst`] for the default.
    pub writes_burst: u32,
    /// Bytes of all modules on disk.
    pub modules_bytes_max: u64,
    /// Bounds of the outbox for messages of applications; without it the gateway takes none.
    pub messages: Option<MessageLimits>,
}

/// Bounds of the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimits {
    /// Bytes of messages on the disk, all together; the oldest go.
    pub bytes_max: u64,
    /// Messages that are older go.
    pub age_max_ms: u64,
    /// Bytes of one device on the disk; what is beyond is refused, so that no device pushes out the messages of others.
    pub device_bytes_max: u64,
    /// How long a message waits for others to share its write.
    pub linger_ms: u64,
}

impl Default for MessageLimits {
    fn default() -> Self {
        let bytes_max = 256 * 1024 * 1024;
        Self { bytes_max, age_max_ms: 86_400_000, device_bytes_max: bytes_max / 16, linger_ms: 10 }
    }
}

impl Config {
    /// Whether devices of a namespace are served.
    pub(super) fn serves(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(namespace)
    }

    /// The documented defaults.
    #[must_use]
    pub fn new(name: &str, boot_id: &str) -> Self {
        Self {
            name: name.to_owned(),
            boot_id: boot_id.to_owned(),
            namespaces: BTreeSet::new(),
            enrollment: Enrollment::default(),
            joining_namespace: "default".to_owned(),
            pending_max: PENDING_MAX,
            read_request: None,
            heartbeat_interval_ms: 30_000,
            heartbeat_timeout_ms: 90_000,
            sessions_max: 1_000,
            writes_per_second: 50,
            writes_burst: writes_burst(1_000),
            modules_bytes_max: 1024 * 1024 * 1024,
            messages: Some(MessageLimits::default()),
        }
    }
}

/// Writes that each device may cost in a burst: its fleet registers and is given a deployment, back to back, and people see
/// both within the budgets of 2 s and 10 s. A registration is one write of the session and, for a new device, one that
/// creates it; a deployment is one of what runs, and one more for a device that reports in two steps.
pub const WRITES_BURST_PER_SESSION: u32 = 4;

/// The burst of a gateway that takes this many sessions.
#[must_use]
pub fn writes_burst(sessions_max: usize) -> u32 {
    u32::try_from(sessions_max).unwrap_or(u32::MAX).saturating_mul(WRITES_BURST_PER_SESSION)
}

/// See [`Config::pending_max`].
pub const PENDING_MAX: usize = 1_000;

/// From an authenticated connection to its Hello: a device sends it at once.
pub const HELLO_TIMEOUT_MS: u64 = 10_000;
/// How long Welcome waits for its epoch to be in Device.status. After that the session begins unsynced: an API
/// server that is slow or away must not keep devices out.
pub const CLAIM_WAIT_MS: u64 = 500;
/// Connections beyond the sessions: those that have not said Hello, are being turned away or end.
pub const CONNECTIONS_EXTRA: usize = 1_024;
/// An epoch or revision in Hello counts up to this much above what is known. They grow by one for each session and each
/// change, and what JSON numbers hold (2^53, RFC 8259 section 6) is 2^33 such Hellos away.
pub const COUNTER_SLACK: u64 = 1 << 20;
/// Boot counter that a device may state: what JSON numbers hold (RFC 8259 section 6). It orders nothing but its own lines.
pub const BOOT_COUNTER_MAX: u64 = (1 << 53) - 1;
/// AssignmentGets that wait for their answer in one session: a whole desired set.
pub const ASSIGNMENT_GETS_MAX: usize = wasmbed_protocol::limits::DESIRED_MAX;
/// Applications whose settings wait to be sent in one session: those of a set, and those that were in it before.
pub const SETTINGS_OFFERS_MAX: usize = 2 * wasmbed_protocol::limits::DESIRED_MAX;
/// Devices that one answer about settings looks at: a megabyte of the longest answers, and some milliseconds.
pub const SETTINGS_REPORT_DEVICES_MAX: usize = 512;
/// Messages of a session that could not be used, before it is ended: a newer firmware sends a few, a broken one many.
pub const UNUSABLE_MESSAGES_MAX: u32 = 16;
/// Connections of one device at most: the established one, one that replaces it, and some that end.
pub const CONNECTIONS_PER_DEVICE_MAX: usize = 8;
/// From this many on, the oldest that is not established gives way to a new one: its device has given up on it.
pub const CONNECTIONS_PER_DEVICE: usize = 4;
/// Connections of clients with a certificate that are no admitted device: unknown, not approved yet, revoked, or with
/// another key. They have these places and no others.
pub const STRANGERS_MAX: usize = 1_024;
/// Connections of devices that join at most, of the strangers' places.
pub const JOINERS_MAX: usize = STRANGERS_MAX / 2;
/// From so many on, one that waits for a person, or that has shown nothing, gives way to a new one, or else the new one comes later.
pub const JOINERS_GIVE_WAY: usize = JOINERS_MAX / 8 * 7;
/// So many, with those that come for a certificate that is there. The places above are for those that are told to come later.
pub const JOINERS_FETCHING_MAX: usize = JOINERS_MAX / 16 * 15;
/// Of the places below, so many are kept by what may be the proof of a pairing token: only the signer can verify it.
pub const JOINERS_BY_TOKEN: usize = JOINERS_GIVE_WAY / 2;
/// Between two certificates that are handed out, at least: two of [`REQUEST_CALLS`]. It counts until the pace was seen, since who comes
/// too soon comes once more, and places that are empty help nobody.
pub(super) const JOIN_EACH_MS_MIN: u64 = 100;
/// The longest that counts.
pub(super) const JOIN_EACH_MS_MAX: u64 = 1_000;
/// So many have to wait for their certificates for the pace to be seen.
pub(super) const JOIN_BUSY: usize = 32;
/// For so long.
pub(super) const PACE_WINDOW_MS: u64 = 10_000;
/// The longest that who was sent away is asked to stay away, however many are ahead: a pace that was slow may be fast by then.
pub const JOIN_TURN_MS_MAX: u64 = 120_000;
/// How long such a connection lives at most: who waits for a person comes back.
pub const JOINER_LIFETIME_MS: u64 = 600_000;
/// From the name of its Device to the device's proof: a board signs in some hundred milliseconds.
pub const JOIN_PROOF_TIMEOUT_MS: u64 = 60_000;
/// For the Device of a joining device to be created and seen: less than a device waits for an answer.
pub const JOIN_DEVICE_TIMEOUT_MS: u64 = 20_000;
/// For a device to leave once it was sent its certificate.
pub const JOIN_FAREWELL_MS: u64 = 20_000;
/// Joins of one connection within [`JOINS_WINDOW_MS`]: one without and one with a proof, and both again.
pub const JOINS_MAX: usize = 4;
/// See [`JOINS_MAX`].
pub const JOINS_WINDOW_MS: u64 = 60_000;
/// Distance between two renewals of one device.
pub const RENEWAL_SPACING_MS: u64 = 60_000;
/// Pauses of a certificate that was refused.
pub(super) const JOIN_RETRY: Backoff = Backoff::doubling(15_000, 3_600_000);
/// Refused certificates that are remembered.
pub const JOIN_REFUSALS_MAX: usize = 4_096;
/// CertificateSigningRequests that one Device's devices may cause.
pub(super) const REQUESTS_OF_DEVICE: Rate = Rate::one_in_ms(15_000, 8);
/// Calls about CertificateSigningRequests of a gateway: a line of boards that join, or a fleet that renews, does not take what
/// sessions need.
pub(super) const REQUEST_CALLS: Rate = Rate::per_second(20, 100);
/// Of these under way at once.
pub const REQUEST_CALLS_IN_FLIGHT_MAX: usize = 8;
/// The share of each kind in these, while it has any to make: what is there to be fetched, renewals, requests with a factory's proof,
/// with a token's, and those that wait for a person.
pub(super) const REQUEST_SHARES: [i64; 5] = [8, 4, 4, 2, 1];
/// From a key that is pinned to the certificate beside it: the signer's next call.
pub(super) const ISSUED_AFTER_MS: u64 = 100;
/// How long it is remembered which request a Device has: as long as who was sent away may take to come again, and longer.
pub(super) const REQUEST_REMEMBERED_MS: u64 = 600_000;
/// Distances at which a CertificateSigningRequest is read; it is read at once when its Device changes.
pub(super) const REQUEST_POLLS: Backoff = Backoff::doubling(500, 30_000);
/// A request is named after the time, in units of this, in which it was first made: whoever comes back finds it, whatever gateway
/// it comes to. Kubernetes keeps those that nobody decided about for as long.
pub const REQUEST_PERIOD_MS: u64 = 86_400_000;
/// Names of requests of one Device and key in that time: after one that failed another may be made.
pub const REQUEST_ATTEMPTS_MAX: u32 = 16;

/// What a device may send: one token for a frame and one for each 256 bytes of it. A burst is ten modules of 1 MiB,
/// pulled in ranges of 16 KiB, and everything that is said beside; the rate is another MiB each second.
pub(super) const FRAMES: Rate = Rate::per_second(64, 1_024);
/// The same for a client that is no admitted device: it says Hello.
pub(super) const STRANGERS_FRAMES: Rate = Rate::per_second(2, 16);
/// Lines of the process's log about one device: a deployment of ten applications is some 40.
pub(super) const NOTICES: Rate = Rate::per_second(1, 64);
/// The same for all clients together that are no admitted devices.
pub(super) const STRANGERS_NOTICES: Rate = Rate::per_second(20, 64);
/// Whose lines were left out is heard again once it has so many tokens, so that a flood is a few lines now and then, and
/// not every other line.
pub(super) const NOTICES_RESUME: u64 = 32;
/// Distinct facts that devices share in memory; beyond that, each device holds its own.
pub(super) const FACTS_KINDS_MAX: usize = 64;
/// Changes of one device that are published immediately; further ones are gathered.
pub(super) const CHANGES: Rate = Rate::per_second(4, 64);
/// Writes of one device's status: the first [`WRITES_FREE`] at once, then at growing distances, see [`WRITE_SPACING_MIN_MS`].
pub(super) const STATUS_WRITES: Rate = Rate::one_in_ms(5_000, 32);
/// A registration and a deployment with all that it reports.
pub(super) const WRITES_FREE: u64 = 8;
/// Distance between writes of a device's status beyond that; doubles with every [`WRITES_PER_STEP`] further ones. So a
/// device whose state never rests costs a write every five seconds or so, always the newest truth.
pub(super) const WRITE_SPACING_MIN_MS: u64 = 250;
/// See [`WRITE_SPACING_MIN_MS`].
pub(super) const WRITES_PER_STEP: u64 = 4;
/// Events about one device, new or counted up. Kubernetes' own clients have the same burst
/// (`client-go/tools/record/events_cache.go`).
pub(super) const EVENTS: Rate = Rate::one_in_ms(60_000, 25);
/// Tokens that repeated Events leave to new ones.
pub(super) const EVENTS_RESERVE: u64 = 12;
/// Events about what others do in a device's name.
pub(super) const STRANGERS_EVENTS: Rate = Rate::one_in_ms(300_000, 5);
/// Tokens of these that repeated Events leave to new ones.
pub(super) const STRANGERS_EVENTS_RESERVE: u64 = 2;
/// Events about one application of a device; all that nobody has named count as one.
pub(super) const APPLICATION_EVENTS: Rate = Rate::one_in_ms(300_000, 5);
/// Events of one device that are counted up when they repeat; the longest quiet one is forgotten and would be a new one.
pub const EVENTS_REMEMBERED_MAX: usize = 25;

/// Log text that one device may send each second, bytes.
pub const LOG_BYTES_PER_SECOND: u32 = 4_096;
/// Log text in a burst: what a device has buffered while it was away.
pub const LOG_BYTES_BURST: u32 = 16_384;
/// Both, for one device and all its sessions.
pub(super) const LOG_RATE: Rate = Rate::per_second(LOG_BYTES_PER_SECOND as u64, LOG_BYTES_BURST as u64);

/// Retry of a device that waits for its approval.
pub const RETRY_APPROVAL_MS: u32 = 15_000;
/// Retry of a device that is refused for good, until a person changes that.
pub const RETRY_REFUSED_MS: u32 = 300_000;
/// Retry after a passing condition: full, or nothing known yet.
pub const RETRY_SOON_MS: u32 = 5_000;
/// Devices of a gateway that stops come back spread over this span.
pub const RETRY_SHUTDOWN_SPREAD_MS: u32 = 2_000;

/// Boards of one identity that replace each other so often within [`TAKEOVER_WINDOW_MS`] are taken for clones.
pub const TAKEOVERS_MAX: usize = 3;
/// See [`TAKEOVERS_MAX`].
pub const TAKEOVER_WINDOW_MS: u64 = 60_000;
/// Retry of the first board that is turned away as a clone; doubles up to [`CLONE_RETRY_MAX_MS`].
pub const CLONE_RETRY_MIN_MS: u32 = 15_000;
/// Longest retry of a clone.
pub const CLONE_RETRY_MAX_MS: u32 = 3_600_000;
pub(super) const CLONE_RETRY: Backoff =
    Backoff::doubling(CLONE_RETRY_MIN_MS as u64, CLONE_RETRY_MAX_MS as u64);
/// After so long without a takeover or a refused one the suspicion ends: twice the longest retry.
pub const CLONE_QUIET_MS: u64 = 2 * CLONE_RETRY_MAX_MS as u64;
/// Replaced starts of one device that are remembered: as many clones are told apart.
pub const SUPERSEDED_BOOTS_MAX: usize = 4;
/// After so long without a certificate with another key its condition ends: three retries of a refused device.
pub const KEY_MISMATCH_QUIET_MS: u64 = 3 * RETRY_REFUSED_MS as u64;
/// A device adds at most this to the retry that it was given: the longest pause between its attempts.
pub const RETRY_SPREAD_MAX_MS: u64 = 60_000;

/// A lost connection is written after this, so that a device that returns at once costs one write, not two.
pub const EDGE_DEBOUNCE_MS: u64 = 1_000;
/// Results are gathered for this long: a device that starts ten applications reports ten times.
pub const RESULT_DEBOUNCE_MS: u64 = 200;
/// Signs of life are written at most this often for one device.
pub const HEARTBEAT_WRITE_INTERVAL_MS: u64 = 30_000;
/// Signs of life take at most this share of the sustained rate, one in so many.
pub const HEARTBEAT_RATE_DIVISOR: u32 = 5;
/// Calls to the Kubernetes API under way at once: what keeps an API server busy without queueing there.
pub const WRITES_IN_FLIGHT_MAX: usize = 32;
/// Pause of one device's writes after its write was refused as invalid or kept conflicting.
pub const DEVICE_BACKOFF_MS: u64 = 10_000;
/// Devices that wait to be created. More are rejected and retry later.
pub const CREATIONS_MAX: usize = 1_024;
/// Events that wait to be written; the oldest gives way.
pub const EVENTS_MAX: usize = 1_024;
/// Lines for the process's log that wait to be fetched; the oldest gives way.
pub const NOTICES_MAX: usize = 4_096;

/// Storage operations under way at once. More PUTs are refused with `Overloaded`.
pub const STORE_OPERATIONS_MAX: usize = 64;
/// Devices that a controller knows and this gateway has not seen yet.
pub const UNSEEN_DEVICES_MAX: usize = 1_024;
/// After this, a set for a device that never appeared is dropped.
pub const UNSEEN_DEVICE_MS: u64 = 60_000;
/// After this, a module that no set names is deleted: the upload comes before the set.
pub const MODULE_UNREFERENCED_MS: u64 = 600_000;
/// Module bytes held in memory while devices pull them.
pub const MODULE_CACHE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// After this without a reader, a module leaves memory.
pub const MODULE_CACHE_IDLE_MS: u64 = 30_000;

/// Forgotten devices that a stream can still report.
pub const TOMBSTONES_MAX: usize = 4_096;
/// Devices in one page of the stream: each is up to some 10 kB of JSON.
pub const STREAM_PAGE_MAX: usize = 64;

/// Log lines kept of one application on one device.
pub const LOG_LINES_MAX: usize = 1_000;
/// Log bytes kept of one application on one device.
pub const LOG_APPLICATION_BYTES_MAX: usize = 256 * 1024;
/// Log bytes kept of all that a device says in the name of applications that nobody has named: enough for what arrives
/// before its set does.
pub const LOG_UNKNOWN_BYTES_MAX: usize = 32 * 1024;
/// Applications of one device whose lines are kept: those of a set, and those of the set before.
pub const LOG_APPLICATIONS_MAX: usize = 2 * wasmbed_protocol::limits::DESIRED_MAX;
/// Log bytes kept of all devices, with what it takes to keep them; the device that holds most gives way.
pub const LOG_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Log lines in one page.
pub const LOG_PAGE_MAX: usize = 256;
/// Log lines looked at for one page: the gateway's lock is held meanwhile.
pub const LOG_SCAN_MAX: usize = 2_048;

/// Applications of one device of which it is remembered how far their messages were taken: those of a set, and those of the set
/// before.
pub const MESSAGE_APPLICATIONS_MAX: usize = LOG_APPLICATIONS_MAX;
/// Starts of the device of which that is remembered for each of them: the one before and the one after a reset.
pub const MESSAGE_STARTS_MAX: usize = 2;
/// Bytes of messages that are written at once, without waiting for more.
pub const MESSAGE_BATCH_BYTES: usize = 256 * 1024;
/// Messages of one record.
pub const MESSAGE_BATCH_MAX: usize = 4_096;
/// Bytes of messages that wait for the disk. More are not taken.
pub const MESSAGES_PENDING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The same of one device.
pub const MESSAGES_PENDING_OF_DEVICE_MAX: usize = 128 * 1024;
/// After this whoever delivers a message hears that the device did not answer.
pub const DELIVERY_TIMEOUT_MS: u64 = 10_000;
/// A disk that takes longer than this for a write is not waited for.
pub const MESSAGE_PATIENCE_MS: u64 = 2_000;
/// How long a device is not read that has half of that waiting.
pub const MESSAGE_PAUSE_MS: u64 = 20;
/// After a failure of the outbox, between two attempts.
pub const MESSAGE_RETRY_MS: u64 = 1_000;
/// Bytes that go at least when the disk is full: a sixteenth of all, or twice what waits, if that is more.
pub const MESSAGE_ROOM_BYTES_MIN: u64 = 64 * 1024;
/// Between two times that the oldest goes for want of room, if that did not help: others have filled the disk.
pub const MESSAGE_ROOM_INTERVAL_MS: u64 = 60_000;
/// Messages of a topic in a burst: what a device has kept while it was away.
pub const MESSAGE_BURST: u64 = 256;
/// And as many more as it may publish in so many seconds.
pub const MESSAGE_BURST_S: u64 = 10;
/// Topics of one device whose rate is counted.
pub const MESSAGE_TOPICS_OF_DEVICE_MAX: usize =
    wasmbed_protocol::limits::DESIRED_MAX * wasmbed_protocol::limits::TOPICS_MAX;
/// Bytes of records that go at once: the gateway reads them back to know whose they were.
pub const MESSAGE_DROP_BYTES: u64 = 1024 * 1024;
/// What a record costs beside its bytes.
pub const MESSAGE_RECORD_OVERHEAD: u64 = 64;
/// What it counts at least, so that there are not too many of them.
pub const MESSAGE_RECORD_BYTES_MIN: u64 = 512;
/// Messages in one page for a reader.
pub const MESSAGE_PAGE_MAX: usize = 256;
/// MessageBrokers that a gateway serves.
pub const BROKERS_MAX: usize = 256;
/// The same of one namespace.
pub const BROKERS_OF_NAMESPACE_MAX: usize = 8;
/// Messages that a broker was sent and has not acknowledged.
pub const BROKER_WINDOW_MAX: usize = 64;
/// Bytes of their payloads, if there is more than one.
pub const BROKER_WINDOW_BYTES: usize = 64 * 1024;
/// A broker that acknowledges nothing for so long, though it was sent something, is left.
pub const BROKER_PATIENCE_MS: u64 = 30_000;
/// Between two attempts to reach a broker: half of it, and anything up to the other half.
pub const BROKER_BACKOFF: crate::Backoff = crate::Backoff::doubling(1_000, 60_000);
/// A broker that asks not to be tried for longer is tried all the same.
pub const BROKER_RETRY_AFTER_MS_MAX: u64 = 300_000;
/// A connection that lasts so long was a good one.
pub const BROKER_GOOD_MS: u64 = 30_000;
/// How long it takes at most until it is on the disk what a broker acknowledged: what is not comes again after a crash.
pub const BROKER_POSITION_MS: u64 = 1_000;
/// Messages that a broker handed over and that were not acknowledged to it: the receive maximum of MQTT 5. Each has a payload of at most
/// 1,024 bytes.
pub const BROKER_RECEIVE_MAX: usize = 128;
/// Messages of one broker that devices have not answered; those after them wait.
pub const BROKER_DELIVERIES_MAX: usize = 512;
/// Messages that are read from one broker.
pub const BROKER_RECEIVE_RATE: Rate = Rate::per_second(1_000, 1_000);
/// Bytes of their topics and payloads.
pub const BROKER_RECEIVE_BYTES_RATE: Rate = Rate::per_second(1 << 20, 1 << 20);
/// A message waits so long at most for a place at its device, and so long for the device's answer before it is acknowledged all the
/// same: those behind it are acknowledged in their order.
pub const BROKER_HOLD_MS: u64 = 2_000;
/// A broker that does not take a subscription is asked again after this.
pub const BROKER_SUBSCRIBE_MS: u64 = 60_000;
/// How long a broker keeps messages for a gateway whose connection broke, seconds: the session expiry interval of MQTT 5.
pub const BROKER_SESSION_S: u32 = 60;
/// Of the messages that a device may have not answered, as many at most are of brokers.
pub const DELIVERIES_OF_BROKERS_MAX: usize = wasmbed_protocol::limits::DELIVERIES_MAX / 2;
/// Messages of brokers for one device.
pub const DELIVERIES_OF_BROKERS_RATE: Rate = Rate::per_second(100, 100);
/// Bytes of their payloads.
pub const DELIVERIES_OF_BROKERS_BYTES_RATE: Rate = Rate::per_second(32 << 10, 64 << 10);
/// Between two writes of what is said of a broker.
pub const BROKER_STATUS_MS: u64 = 5_000;
/// The same if its connection or its error is another.
pub const BROKER_STATUS_EDGE_MS: u64 = 1_000;
/// Bytes of records that are looked at for one page.
pub const MESSAGE_SCAN_BYTES: usize = 1024 * 1024;
