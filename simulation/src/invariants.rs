//! What must hold at every step, checked by a witness who hears every frame and sees every write.
//!
//! - A status never claims what no device reported.
//! - What is said to have ended somewhere, ended there: a device reported that assignment as Completed, or as Failed.
//! - The newest epoch wins: the epoch in a Device's status never goes back, and one gateway has given it away.
//! - Unknown never empties a device: what a device works to is a set that was sent to it under that revision.
//! - Nothing acknowledged is lost: a device knows, after any cut, the revision that it reported, unless it was told that its
//!   Device is gone or revoked.
//! - A device that is connected does not go on running what a Device that is gone was given.
//! - A gateway takes sets of one leader per term, and of no earlier term than it has seen.
//! - A Device is called Unreachable only when its gateway has not renewed its Lease for a lease and a grace in which the API
//!   answered: an outage of the API that lasts longer than one can go unseen calls none so.
//! - A gateway writes no status and takes no set while it can see that another holds its name.
//! - No number that a device says about itself drives up the epoch or the revision in its status.
//! - The embedded API refuses no write of ours.
//!
//! `traps` has what must hold of traps, `decommissions` of devices that are taken out of service, `joining` of those that join,
//! `settings` of what applications read, `messages` of what they publish.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
};

use serde_json::Value;
use wasmbed_control::kubernetes::{Event, Occurrence};
use wasmbed_protocol::{
    ApplicationUid, CloseReason, DeviceMessage, GatewayMessage, decode_device, decode_gateway,
};

use crate::{
    api::Api,
    decommissions::Decommissions,
    joining::Joining,
    messages::{Keeper, Messages},
    sender::Sender,
    settings::Settings,
    traps::{Broken, Started, Traps},
};

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule: a smaller run shows the same only if it breaks the same one.
    pub rule: &'static str,
    /// How it was broken.
    pub what: String,
    /// When, virtual milliseconds.
    pub at_ms: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} ms, against \"{}\": {}", self.at_ms, self.rule, self.what)
    }
}

impl std::error::Error for Violation {}

/// Application, assignment and state, as in a status.
type Claim = (String, String, String);

/// A gateway's Lease as the API has it.
#[derive(Debug, Default)]
struct Renewals {
    /// When it was renewed: the times that a controller may not have seen yet, and the one before.
    at_ms: VecDeque<u64>,
    released_ms: Option<u64>,
}

/// A lease and a grace.
const EXPIRY_MS: u64 = 25_000;
/// A controller whose watch is dumb, or that stands still, sees no outage that is over within this time; gateways live through
/// it, since they try to renew their Leases every second. It knows of every longer one that begins after it first renewed its own Lease: two
/// of its renewals are further apart then. What was before that renewal counts for nothing.
const OUTAGE_UNSEEN_MS: u64 = 6_000;
/// A controller acts on what its watch of Leases shows only while that is no older than this.
const SIGHT_MS: u64 = 6_000;
/// A gateway that gave up its Lease counts as gone until it is seen to be back.
const RETURN_MS: u64 = 30_000;

/// A gateway looks at its Lease every five seconds, and again soon after a call that failed.
const LOOK_MS: u64 = 12_000;
/// No epoch and no revision comes near this by one step for each session and each change.
const COUNTER_MAX: i64 = 1 << 20;

/// Hears and sees everything.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// When the leader's Lease was last written, whether the answer arrived or not.
    pub(crate) leader_lease_ms: u64,
    /// When each first wrote it.
    first_renewals: BTreeMap<Sender, u64>,
    names: Vec<String>,
    pub(crate) traps: Traps,
    pub(crate) decommissions: Decommissions,
    pub(crate) joins: Joining,
    pub(crate) settings: Settings,
    pub(crate) messages: Messages,
    reported: BTreeMap<usize, BTreeSet<Claim>>,
    acknowledged: BTreeMap<usize, u64>,
    /// Devices that were told that they are deleted, revoked or taken out of service, and may have forgotten their set since.
    taken_back: BTreeSet<usize>,
    /// What was sent under each revision. A number can have two contents: a new leader may issue again what an earlier one
    /// gave to a gateway that is down, as long as no device told of it. When that gateway is back, it refuses the second.
    sets: BTreeMap<(usize, u64), BTreeSet<BTreeSet<ApplicationUid>>>,
    /// Devices whose record was changed, and to which revision.
    changed: BTreeSet<(usize, u64)>,
    /// By the Device's UID: the epoch in its status.
    epochs: BTreeMap<String, i64>,
    /// By the Device's UID and epoch: the gateway that claimed it.
    claimed: BTreeMap<(String, i64), String>,
    /// By gateway and disk: the highest term that it took sets of.
    terms: BTreeMap<(String, u32), u64>,
    /// By term: who sent sets in it that a gateway took.
    leaders: BTreeMap<u64, Sender>,
    leases: BTreeMap<String, Renewals>,
    /// By gateway: since when it could see that another holds its name.
    names_lost: BTreeMap<String, u64>,
    pub(crate) violation: Option<Violation>,
    pub(crate) frames: u64,
    pub(crate) writes: u64,
    pub(crate) unreachable: u64,
}

impl Witness {
    pub(crate) fn new(names: Vec<String>) -> Self {
        Self { messages: Messages::new(&names), names, ..Self::default() }
    }

    /// Terms in which a gateway took sets.
    pub(crate) fn leaders(&self) -> usize {
        self.leaders.len()
    }

    pub(crate) fn violated(&mut self, rule: &'static str, what: String) {
        self.violation.get_or_insert(Violation { rule, what, at_ms: 0 });
    }

    /// A rule of those that others keep an eye on was broken, if one was.
    pub(crate) fn keep(&mut self, broken: Option<Broken>) {
        if let Some((rule, what)) = broken {
            self.violated(rule, what);
        }
    }

    /// The same of rules about joining.
    pub(crate) fn kept_joins(&mut self) {
        let broken = self.joins.take_broken();
        self.keep(broken);
    }

    pub(crate) fn device_said(&mut self, device: usize, gateway: &Started, body: &[u8]) {
        self.frames += 1;
        match decode_device(body) {
            Err(error) => {
                self.violated("frames decode", format!("a device sent a frame that does not decode: {error}"))
            }
            Ok(DeviceMessage::Trap(trap)) => {
                let broken = self.traps.told(device, gateway, &trap);
                self.keep(broken);
            }
            Ok(DeviceMessage::Publish(message)) => self.messages.sent(device, &message),
            Ok(DeviceMessage::Decommissioned(said)) => {
                let name = self.names.get(device).map_or("", String::as_str);
                let broken = self.decommissions.proved(device, name, said.proof);
                self.keep(broken);
            }
            Ok(DeviceMessage::Reported(reported)) => {
                let broken = self.traps.reported(device, &reported);
                self.keep(broken);
                let acknowledged = self.acknowledged.entry(device).or_default();
                *acknowledged = (*acknowledged).max(reported.revision.0);
                let claims = self.reported.entry(device).or_default();
                claims.extend(reported.applications.iter().map(|report| {
                    let state = report.state.name().to_owned();
                    (report.uid.to_string(), report.spec_hash.to_string(), state)
                }));
            }
            Ok(_) => {}
        }
    }

    pub(crate) fn gateway_said(&mut self, device: usize, keeper: &Keeper, body: &[u8]) {
        self.frames += 1;
        match decode_gateway(body) {
            Err(error) => self
                .violated("frames decode", format!("a gateway sent a frame that does not decode: {error}")),
            Ok(GatewayMessage::Desired(desired)) => {
                let set: BTreeSet<ApplicationUid> =
                    desired.applications.iter().map(|member| member.uid).collect();
                self.sets.entry((device, desired.revision.0)).or_default().insert(set);
            }
            Ok(GatewayMessage::PublishAck(ack)) => self.messages.acknowledged(keeper, device, &ack),
            // It forgets its set once it has judged the order.
            Ok(GatewayMessage::Decommission(_)) => {
                self.taken_back.insert(device);
            }
            Ok(GatewayMessage::Reject(closing) | GatewayMessage::Goodbye(closing))
                if matches!(
                    closing.reason,
                    CloseReason::Deleted | CloseReason::Revoked | CloseReason::Decommissioned
                ) =>
            {
                self.taken_back.insert(device);
            }
            Ok(_) => {}
        }
    }

    pub(crate) fn device_status_written(&mut self, gateway: &str, object: &Value) {
        self.writes += 1;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let epoch = object["status"]["epoch"].as_i64().unwrap_or(0);
        let revision = object["status"]["revision"].as_i64().unwrap_or(0);
        if epoch.max(revision) > COUNTER_MAX {
            self.violated(
                "no device drives up a counter",
                format!("{gateway} wrote epoch {epoch} and revision {revision} of {name}"),
            );
        }
        let before = self.epochs.insert(uid.clone(), epoch).unwrap_or(0);
        if epoch < before {
            self.violated(
                "epochs never go back",
                format!("{gateway} took the epoch of {name} back from {before} to {epoch}"),
            );
        }
        let claims = object["status"]["gateway"].as_str().unwrap_or(gateway).to_owned();
        if claims != gateway {
            self.violated(
                "one gateway has claimed an epoch",
                format!("{gateway} wrote the status of {name}, which {claims} claims"),
            );
        }
        if epoch > 0 {
            let first = self.claimed.entry((uid, epoch)).or_insert_with(|| gateway.to_owned()).clone();
            if first != gateway {
                self.violated(
                    "one gateway has claimed an epoch",
                    format!("{gateway} claims epoch {epoch} of {name}, which is {first}'s"),
                );
            }
        }
        let Some(device) = self.device(&name) else { return };
        let claims = object["status"]["applications"].as_array().cloned().unwrap_or_default();
        for claim in claims {
            let field = |field: &str| claim[field].as_str().unwrap_or_default().to_owned();
            let claim = (field("uid"), field("spec_hash"), field("state"));
            if !self.reported.get(&device).is_some_and(|reported| reported.contains(&claim)) {
                self.violated(
                    "a status claims what a device reported",
                    format!("{gateway} claims of {name} what it never reported: {claim:?}"),
                );
            }
        }
    }

    /// The number of a device by the name of its Device.
    fn device(&mut self, name: &str) -> Option<usize> {
        let device = self.names.iter().position(|known| known == name);
        if device.is_none() {
            self.violated("Devices are those of devices", format!("a Device {name}, which nobody announced"));
        }
        device
    }

    /// A gateway writes an Event about a Device.
    pub(crate) fn event_written(&mut self, gateway: &Started, event: &Event, occurrence: Occurrence) {
        let Some(device) = self.device(&event.regarding.key.name) else { return };
        let broken = self.traps.written(device, gateway, event, occurrence);
        self.keep(broken);
    }

    /// A gateway says that it leaves out Events of a device; of all if none is named.
    pub(crate) fn events_left_out(&mut self, gateway: &Started, name: Option<&str>) {
        let device = name.and_then(|name| self.device(name));
        self.traps.left_out(gateway, device);
    }

    pub(crate) fn application_status_written(&mut self, object: &Value) {
        self.writes += 1;
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let hash = object["status"]["spec_hash"].as_str().unwrap_or_default();
        let count = |field: &str| object["status"]["counts"][field].as_u64().unwrap_or(0);
        let ever = |states: &[&str]| {
            let said =
                |claim: &Claim| claim.0 == uid && claim.1 == hash && states.contains(&claim.2.as_str());
            self.reported.values().filter(|claims| claims.iter().any(said)).count() as u64
        };
        let (done, succeeded) = (count("running") + count("succeeded"), count("succeeded"));
        let (ran, completed) = (ever(&["Running", "Completed"]), ever(&["Completed"]));
        let phase = object["status"]["phase"].as_str().unwrap_or_default();
        let left_out = count("targets") + count("missing") == 0;
        if done > ran {
            self.violated(
                "counts are what devices reported",
                format!("{name} is said to run on {done} devices, {ran} ever reported that"),
            );
        } else if succeeded > completed {
            let text = format!(
                "{name} is said to have ended on {succeeded} devices, {completed} ever reported that"
            );
            self.violated("counts are what devices reported", text);
        } else if phase == "Completed" && (succeeded < count("targets") || left_out) {
            self.violated(
                "Completed is where it ended",
                format!("{name} is called Completed: {}", object["status"]),
            );
        }
    }

    /// A controller wrote down what ended on a Device and left it.
    pub(crate) fn finished_written(&mut self, object: &Value) {
        self.writes += 1;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let Some(device) = self.device(&name) else { return };
        for entry in object["status"]["finished"].as_array().into_iter().flatten() {
            let field = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            let claim = (field("uid"), field("spec_hash"), field("state"));
            let ended = matches!(claim.2.as_str(), "Completed" | "Failed");
            if !ended || !self.reported.get(&device).is_some_and(|reported| reported.contains(&claim)) {
                self.violated(
                    "results are what devices reported",
                    format!("{name} is said to have finished what it never reported: {claim:?}"),
                );
            }
        }
    }

    /// A controller wrote how far it is with taking a Device out of service.
    pub(crate) fn decommission_written(&mut self, object: &Value) {
        self.writes += 1;
        let Some(device) = self.device(object["metadata"]["name"].as_str().unwrap_or_default()) else {
            return;
        };
        let broken = self.decommissions.written(device, object);
        self.keep(broken);
    }

    /// A gateway took sets.
    pub(crate) fn put_accepted(&mut self, gateway: &str, disk: u32, sender: Sender, term: u64) {
        let highest = self.terms.entry((gateway.to_owned(), disk)).or_default();
        let before = std::mem::replace(highest, term.max(*highest));
        if term < before {
            self.violated(
                "terms never go back",
                format!("{gateway} took sets of term {term} after those of {before}"),
            );
        }
        let leader = *self.leaders.entry(term).or_insert(sender);
        if leader != sender {
            self.violated(
                "one leader in a term",
                format!("{leader:?} and {sender:?} both sent sets in term {term}"),
            );
        }
    }

    /// Whether a gateway can see that another holds its name.
    pub(crate) fn name_held(&mut self, gateway: &str, by_another: bool, now_ms: u64) {
        if by_another {
            self.names_lost.entry(gateway.to_owned()).or_insert(now_ms);
        } else {
            self.names_lost.remove(gateway);
        }
    }

    /// A gateway acts for its name: it calls the API, or takes sets.
    pub(crate) fn gateway_writes(&mut self, gateway: &str, now_ms: u64) {
        let lost_ms = self.names_lost.get(gateway).map_or(0, |since_ms| now_ms - since_ms);
        if lost_ms > LOOK_MS {
            self.violated(
                "a gateway acts under a name that it holds",
                format!("{gateway} acts for its name, which another has held for {lost_ms} ms"),
            );
        }
    }

    /// The record of a device was changed under it: it works to that revision until it is told another.
    pub(crate) fn record_changed(&mut self, device: usize, revision: u64) {
        self.changed.insert((device, revision));
    }

    pub(crate) fn lease_renewed(&mut self, gateway: &str, now_ms: u64) {
        let lease = self.leases.entry(gateway.to_owned()).or_default();
        lease.at_ms.push_back(now_ms);
        while lease.at_ms.get(1).is_some_and(|at_ms| now_ms - at_ms > SIGHT_MS) {
            lease.at_ms.pop_front();
        }
        self.names_lost.remove(gateway);
    }

    pub(crate) fn lease_released(&mut self, gateway: &str, now_ms: u64) {
        self.leases.entry(gateway.to_owned()).or_default().released_ms = Some(now_ms);
    }

    /// A controller wrote the leader's Lease in its own name.
    pub(crate) fn leader_lease_written(&mut self, sender: Sender, now_ms: u64) {
        self.leader_lease_ms = now_ms;
        self.first_renewals.entry(sender).or_insert(now_ms);
    }

    /// A controller marked a Device.
    pub(crate) fn unreachable_written(&mut self, object: &Value, by: Sender, now_ms: u64, api: &Api) {
        self.writes += 1;
        self.unreachable += 1;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let gateway = object["status"]["gateway"].as_str().unwrap_or_default();
        self.called_gone((name, gateway), by, now_ms, api);
    }

    /// A controller marked a DeviceGateway.
    pub(crate) fn gateway_unknown_written(&mut self, object: &Value, by: Sender, now_ms: u64, api: &Api) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        self.called_gone((name, name), by, now_ms, api);
    }

    fn called_gone(&mut self, (name, gateway): (&str, &str), by: Sender, now_ms: u64, api: &Api) {
        let nothing = Renewals::default();
        let lease = self.leases.get(gateway).unwrap_or(&nothing);
        // It may be back already, perhaps for some renewals, and the controller about to see it.
        let seen = |at_ms: &&u64| now_ms - **at_ms > SIGHT_MS;
        let since_ms = lease.at_ms.iter().rev().find(seen).copied().unwrap_or(0);
        let back = lease.at_ms.back().is_some_and(|last_ms| now_ms - last_ms <= SIGHT_MS);
        let renews_since_ms = self.first_renewals.get(&by).copied().unwrap_or(now_ms);
        let answered_ms = api.answered_ms(since_ms.max(renews_since_ms), OUTAGE_UNSEEN_MS);
        let released = lease
            .released_ms
            .is_some_and(|released_ms| released_ms >= since_ms || now_ms - released_ms <= RETURN_MS);
        if !released && answered_ms < EXPIRY_MS - if back { SIGHT_MS } else { 0 } {
            self.violated("what is called unreachable was silent", format!(
                "{name} is called unreachable, {gateway} last renewed its Lease at {since_ms} ms, the controller its own \
                 first at {renews_since_ms} ms, and the API has answered for {answered_ms} ms since"
            ));
        }
    }

    /// A write was refused as invalid.
    pub(crate) fn refused(&mut self, why: &str) {
        self.violated("the API refuses no write of ours", format!("the API refused a write: {why}"));
    }

    /// What a device works to now.
    pub(crate) fn device_works_to(&mut self, device: usize, revision: u64, set: &BTreeSet<ApplicationUid>) {
        if revision == 0 && set.is_empty() && self.taken_back.contains(&device) {
            self.acknowledged.remove(&device);
        }
        let acknowledged = self.acknowledged.get(&device).copied().unwrap_or(0);
        if revision < acknowledged {
            self.violated(
                "nothing acknowledged is lost",
                format!("device {device} acknowledged revision {acknowledged} and knows {revision}"),
            );
        }
        match self.sets.get(&(device, revision)) {
            None if set.is_empty() => {}
            _ if self.changed.contains(&(device, revision)) => {}
            None => self.violated(
                "a device works to a set that it was sent",
                format!("device {device} works to revision {revision}, which nobody sent"),
            ),
            Some(sent) if sent.contains(set) => {}
            Some(sent) => {
                let text =
                    format!("device {device} at revision {revision} has {set:?}, it was sent {sent:?}");
                self.violated("a device works to a set that it was sent", text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wasmbed_protocol::{
        ApplicationReport, ApplicationState, CorrelationId, Desired, DesiredApplication, List, ReportReason,
        Reported, Revision, Sequence, SpecHash, encode_device, encode_gateway,
    };

    use super::*;

    const UID: ApplicationUid = ApplicationUid([7; 16]);

    fn witness() -> Witness {
        Witness::new(vec!["a".to_owned()])
    }

    fn report(witness: &mut Witness, revision: u64, state: ApplicationState) {
        let report = ApplicationReport {
            uid: UID,
            spec_hash: SpecHash([1; 32]),
            digest: None,
            state,
            reason: ReportReason::None,
            message: "",
            restarts: 0,
            memory_bytes: 0,
            cpu_ms: 0,
            correlation_id: CorrelationId([0; 16]),
        };
        let applications = [report];
        let reported = Reported {
            sequence: Sequence(1),
            revision: Revision(revision),
            applications: List::new(&applications),
        };
        let mut frame = [0; 4_096];
        let length = encode_device(&DeviceMessage::Reported(reported), &mut frame).unwrap();
        witness.device_said(0, &Started::default(), &frame[2..length]);
    }

    fn desired(witness: &mut Witness, revision: u64, members: &[DesiredApplication]) {
        let desired = Desired { revision: Revision(revision), applications: List::new(members) };
        let mut frame = [0; 4_096];
        let length = encode_gateway(&GatewayMessage::Desired(desired), &mut frame).unwrap();
        witness.gateway_said(0, &Keeper::default(), &frame[2..length]);
    }

    fn status(epoch: i64, state: &str) -> Value {
        let claim =
            json!({"uid": UID.to_string(), "spec_hash": SpecHash([1; 32]).to_string(), "state": state});
        json!({"metadata": {"name": "a", "uid": "u"}, "status": {"epoch": epoch, "applications": [claim]}})
    }

    #[test]
    fn a_claim_that_no_device_made_is_caught() {
        let mut witness = witness();
        report(&mut witness, 1, ApplicationState::Pulling);
        witness.device_status_written("g", &status(1, "Pulling"));
        assert_eq!(witness.violation, None);
        witness.device_status_written("g", &status(1, "Running"));
        assert!(witness.violation.is_some());
    }

    #[test]
    fn a_count_that_no_reports_add_up_to_is_caught() {
        let mut witness = witness();
        report(&mut witness, 1, ApplicationState::Running);
        let object = |hash: u8, running: u64, succeeded: u64| {
            let counts = json!({"targets": 1, "running": running, "succeeded": succeeded});
            let hash = SpecHash([hash; 32]).to_string();
            json!({
                "metadata": {"name": "x", "uid": UID.to_string()},
                "status": {"spec_hash": hash, "counts": counts},
            })
        };
        witness.application_status_written(&object(1, 1, 0));
        assert_eq!(witness.violation, None);
        for (hash, running, succeeded) in [(1, 2, 0), (1, 0, 1), (2, 1, 0)] {
            let mut witness = self::witness();
            report(&mut witness, 1, ApplicationState::Running);
            witness.application_status_written(&object(hash, running, succeeded));
            assert!(witness.violation.is_some(), "{hash} {running} {succeeded}");
        }
        report(&mut witness, 1, ApplicationState::Completed);
        witness.application_status_written(&object(1, 0, 1));
        assert_eq!(witness.violation, None);
    }

    #[test]
    fn a_result_that_no_device_reported_is_caught() {
        let mut witness = witness();
        report(&mut witness, 1, ApplicationState::Completed);
        let object = |state: &str| {
            let entry =
                json!({"uid": UID.to_string(), "spec_hash": SpecHash([1; 32]).to_string(), "state": state});
            json!({"metadata": {"name": "a"}, "status": {"finished": [entry]}})
        };
        witness.finished_written(&object("Completed"));
        assert_eq!(witness.violation, None);
        witness.finished_written(&object("Failed"));
        assert!(witness.violation.is_some());
    }

    #[test]
    fn an_epoch_that_goes_back_is_caught() {
        let mut witness = witness();
        report(&mut witness, 1, ApplicationState::Running);
        witness.device_status_written("g", &status(5, "Running"));
        assert_eq!(witness.violation, None);
        witness.device_status_written("h", &status(4, "Running"));
        assert!(witness.violation.is_some());
    }

    #[test]
    fn a_device_that_is_emptied_or_forgets_is_caught() {
        let member = DesiredApplication { uid: UID, spec_hash: SpecHash([1; 32]) };
        let start = || {
            let mut witness = witness();
            desired(&mut witness, 3, &[member]);
            report(&mut witness, 3, ApplicationState::Running);
            witness
        };
        let mut good = start();
        good.device_works_to(0, 3, &BTreeSet::from([UID]));
        assert_eq!(good.violation, None);
        let mut emptied = start();
        emptied.device_works_to(0, 3, &BTreeSet::new());
        assert!(emptied.violation.is_some());
        let mut forgot = start();
        forgot.device_works_to(0, 2, &BTreeSet::new());
        assert!(forgot.violation.is_some());
        let mut unsent = start();
        unsent.device_works_to(0, 4, &BTreeSet::from([UID]));
        assert!(unsent.violation.is_some());
    }
}
