//! How many bytes of modules the Applications of a namespace may use, and which of them get theirs.
//!
//! A module counts once, however many Applications use it. What has a place keeps it, whatever becomes of the bound; a place that
//! is free goes to the oldest Application that it is large enough for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use serde_json::{Value, json};
use wasmbed_api::{MODULE_BYTES, ReasonCode};
use wasmbed_protocol::ModuleDigest;
use wasmbed_quantity::Quantity;

use super::{module::ModuleRefusal, record::ApplicationId};
use crate::kubernetes::WriteOutcome;

/// The bytes of modules that a ResourceQuota allows; none if it does not bound them. One with scopes bounds Pods alone.
fn module_bytes_of(spec: &ResourceQuotaSpec) -> Option<u64> {
    let scoped =
        spec.scopes.as_ref().is_some_and(|scopes| !scopes.is_empty()) || spec.scope_selector.is_some();
    let bound = spec.hard.as_ref().filter(|_| !scoped)?.get(MODULE_BYTES)?;
    // The API server takes whole numbers alone.
    Quantity::parse(&bound.0).ok()?.whole()
}

/// A ResourceQuota that bounds the bytes of modules, as the watch shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaSeen {
    /// Bytes that it allows.
    pub bytes: u64,
    /// Bytes that its status says are used.
    pub used: Option<u64>,
    /// `metadata.resourceVersion`.
    pub version: String,
}

impl QuotaSeen {
    /// What an object says; none if it does not bound the bytes of modules.
    #[must_use]
    pub fn of(object: &ResourceQuota) -> Option<Self> {
        let bytes = object.spec.as_ref().and_then(module_bytes_of)?;
        let used = object.status.as_ref().and_then(|status| status.used.as_ref()?.get(MODULE_BYTES));
        Some(Self {
            bytes,
            used: used.and_then(|used| Quantity::parse(&used.0).ok()?.whole()),
            version: object.metadata.resource_version.clone().unwrap_or_default(),
        })
    }
}

/// A ResourceQuota that bounds the bytes of modules, and how its status is written.
#[derive(Debug)]
pub(super) struct Quota {
    seen: QuotaSeen,
    writing: bool,
    /// Another version is there, which the watch has not brought yet.
    conflicted: bool,
    written_ms: Option<u64>,
}

impl Quota {
    pub(super) fn new(seen: QuotaSeen) -> Self {
        Self { seen, writing: false, conflicted: false, written_ms: None }
    }

    /// Bytes that it allows.
    pub(super) fn bytes(&self) -> u64 {
        self.seen.bytes
    }

    pub(super) fn observe(&mut self, seen: QuotaSeen) {
        self.seen = seen;
        self.conflicted = false;
    }

    /// The interval has passed: a write is tried again, whatever the watch brought.
    pub(super) fn resync(&mut self) {
        self.conflicted = false;
    }

    /// Whether its status is to say that this is used, as far as it is known.
    pub(super) fn is_behind(&self, used: u64) -> bool {
        !self.writing && !self.conflicted && self.seen.used != Some(used)
    }

    /// When its status may be written, `interval_ms` after the last time.
    pub(super) fn due_ms(&self, interval_ms: u64) -> u64 {
        self.written_ms.map_or(0, |written_ms| written_ms.saturating_add(interval_ms))
    }

    /// Its status is written; the merge patch (RFC 7396), and the resourceVersion that it is made for.
    pub(super) fn begin_write(&mut self, now_ms: u64, used: u64) -> (Value, String) {
        self.writing = true;
        self.written_ms = Some(now_ms);
        let version = self.seen.version.clone();
        let patch = json!({
            "metadata": { "resourceVersion": version },
            "status": { "used": { MODULE_BYTES: Quantity::of(used).as_str() } },
        });
        (patch, version)
    }

    /// A write that was made for `version` was answered; the watch may have been quicker, which then knows better.
    pub(super) fn written(&mut self, outcome: &WriteOutcome<String>, version: &str, used: u64) {
        self.writing = false;
        let is_known = self.seen.version == version;
        match outcome {
            WriteOutcome::Done(resource_version) if is_known => {
                resource_version.clone_into(&mut self.seen.version);
                self.seen.used = Some(used);
            }
            WriteOutcome::Conflict => self.conflicted = is_known,
            WriteOutcome::Done(_)
            | WriteOutcome::NotFound
            | WriteOutcome::Throttled { .. }
            | WriteOutcome::Unavailable(_)
            | WriteOutcome::Rejected(_) => {}
        }
    }
}

/// A module that an Application uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Used {
    pub digest: ModuleDigest,
    pub bytes: u32,
}

/// Whether an Application has a place for its module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Place {
    /// The module that has one.
    held: Option<ModuleDigest>,
    /// The module that has none, and why.
    refused: Option<(ModuleDigest, ModuleRefusal)>,
}

impl Place {
    /// A place for this module.
    pub(super) fn of(held: Option<ModuleDigest>) -> Self {
        Self { held, refused: None }
    }

    /// The module that has one.
    pub(super) fn held(&self) -> Option<ModuleDigest> {
        self.held
    }

    /// Whether a module was refused one.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Why a module goes nowhere, if it has no place.
    pub(super) fn refusal(&self, digest: ModuleDigest) -> Option<ModuleRefusal> {
        if self.held == Some(digest) {
            return None;
        }
        let told = self.refused.as_ref().filter(|(refused, _)| *refused == digest);
        // Without a decision there is no place; one is made before anything is planned or said.
        let undecided = ModuleRefusal { reason: ReasonCode::QuotaExceeded, message: String::new() };
        Some(told.map_or(undecided, |(_, refusal)| refusal.clone()))
    }

    /// The place after a decision.
    pub(super) fn after(&self, decision: Decision) -> Self {
        match decision {
            Decision::Granted(digest) => Self::of(Some(digest)),
            Decision::Refused(digest, refusal) => Self { held: self.held, refused: Some((digest, refusal)) },
        }
    }
}

/// Who gets a place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// This module.
    Granted(ModuleDigest),
    /// Not this one.
    Refused(ModuleDigest, ModuleRefusal),
}

/// What one Application asks for.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub id: ApplicationId,
    /// Older ones are served first; the name decides between two of a second.
    pub age: (i64, String),
    /// The module that it says now, if that could be sent.
    pub wanted: Option<Used>,
    /// It has a place for that.
    pub held: bool,
    /// The module that devices have of it until they get that one.
    pub earlier: Option<Used>,
}

/// The modules that have a place, each with the number of Applications that use it; what a digest names has one size.
#[derive(Debug, Default)]
struct Places {
    users: BTreeMap<ModuleDigest, usize>,
    bytes: u64,
}

impl Places {
    fn add(&mut self, module: Used) {
        let users = self.users.entry(module.digest).or_default();
        *users += 1;
        if *users == 1 {
            self.bytes += u64::from(module.bytes);
        }
    }

    fn remove(&mut self, module: Used) {
        let Some(users) = self.users.get_mut(&module.digest) else { return };
        *users -= 1;
        if *users == 0 {
            self.users.remove(&module.digest);
            self.bytes -= u64::from(module.bytes);
        }
    }

    /// Bytes that a module takes beside those.
    fn requested(&self, module: Used) -> u64 {
        if self.users.contains_key(&module.digest) { 0 } else { u64::from(module.bytes) }
    }
}

/// Decides which Applications of a namespace get the modules that they want. `quotas` are its bounds by name. Those that hold a
/// place, or want none, are not in the result. Beside it are the bytes of the modules that have a place then.
pub(super) fn plan_places(
    namespace: &str,
    quotas: &BTreeMap<String, u64>,
    claims: Vec<Claim>,
) -> (BTreeMap<ApplicationId, Decision>, u64) {
    let mut places = Places::default();
    for claim in &claims {
        if let Some(module) = claim.wanted.filter(|_| claim.held).or(claim.earlier) {
            places.add(module);
        }
    }
    let waits = |claim: Claim| claim.wanted.filter(|_| !claim.held).map(|wanted| (claim, wanted));
    let mut waiting: Vec<(Claim, Used)> = claims.into_iter().filter_map(waits).collect();
    waiting.sort_by(|(one, _), (other, _)| one.age.cmp(&other.age));
    let mut decided = BTreeMap::new();
    let smallest = quotas.iter().min_by_key(|(name, bytes)| (**bytes, name.as_str()));
    let mut index = 0;
    while let Some((claim, wanted)) = waiting.get(index) {
        index += 1;
        if decided.contains_key(&claim.id) {
            continue;
        }
        let (requested, used) = asked(&mut places, claim, *wanted);
        let fits = smallest.is_none_or(|(_, bytes)| used.saturating_add(requested) <= *bytes);
        if requested > 0 && !fits {
            continue;
        }
        claim.earlier.into_iter().for_each(|earlier| places.remove(earlier));
        places.add(*wanted);
        decided.insert(claim.id, Decision::Granted(wanted.digest));
        // Its earlier module left room, perhaps for an older Application, or the place that it got is one for both.
        if claim.earlier.is_some() {
            index = 0;
        }
    }
    for (claim, wanted) in &waiting {
        let Some((quota, limit)) = smallest.filter(|_| !decided.contains_key(&claim.id)) else { continue };
        let (requested, used) = asked(&mut places, claim, *wanted);
        let refusal = exceeded(namespace, quota, requested, used, *limit);
        decided.insert(claim.id, Decision::Refused(wanted.digest, refusal));
    }
    (decided, places.bytes)
}

/// The bytes that a module asks for, and those of the others: what devices have of the Application makes room for it.
fn asked(places: &mut Places, claim: &Claim, wanted: Used) -> (u64, u64) {
    claim.earlier.into_iter().for_each(|earlier| places.remove(earlier));
    let answer = (places.requested(wanted), places.bytes);
    claim.earlier.into_iter().for_each(|earlier| places.add(earlier));
    answer
}

fn exceeded(namespace: &str, quota: &str, requested: u64, used: u64, limit: u64) -> ModuleRefusal {
    let message = format!(
        "exceeded quota: {quota}, requested: {MODULE_BYTES}={requested}, used: {MODULE_BYTES}={used}, limited: {MODULE_BYTES}={limit} \
         (bytes). It goes to devices by itself once there is room: use a smaller module, delete Applications of namespace {namespace} \
         whose modules are not needed, or have the ResourceQuota raised"
    );
    ModuleRefusal { reason: ReasonCode::QuotaExceeded, message }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
    use proptest::prelude::*;

    use super::*;

    fn used(name: u8, bytes: u32) -> Used {
        Used { digest: ModuleDigest([name; 32]), bytes }
    }

    fn claim(id: u32, wanted: Used) -> Claim {
        let age = (i64::from(id), format!("a{id}"));
        Claim { id: ApplicationId(id), age, wanted: Some(wanted), held: false, earlier: None }
    }

    fn plan(limit: u64, claims: Vec<Claim>) -> BTreeMap<ApplicationId, Decision> {
        plan_places("default", &BTreeMap::from([("q".to_owned(), limit)]), claims).0
    }

    fn admitted(decided: &BTreeMap<ApplicationId, Decision>) -> Vec<u32> {
        let held = decided.iter().filter(|(_, place)| matches!(place, Decision::Granted(_)));
        held.map(|(id, _)| id.0).collect()
    }

    #[test]
    fn a_bound_is_read_from_what_both_servers_accept() {
        let read = |value: &str| {
            let hard = BTreeMap::from([(MODULE_BYTES.to_owned(), Text(value.to_owned()))]);
            module_bytes_of(&ResourceQuotaSpec { hard: Some(hard), ..ResourceQuotaSpec::default() })
        };
        assert_eq!(
            (read("1Mi"), read("1500"), read("2e3"), read("0")),
            (Some(1 << 20), Some(1_500), Some(2_000), Some(0))
        );
        assert_eq!((read("many"), read("-1")), (None, None));
        assert_eq!(module_bytes_of(&ResourceQuotaSpec::default()), None);
        let hard = BTreeMap::from([(MODULE_BYTES.to_owned(), Text("1".to_owned()))]);
        let scopes = Some(vec!["BestEffort".to_owned()]);
        assert_eq!(
            module_bytes_of(&ResourceQuotaSpec { hard: Some(hard), scopes, ..ResourceQuotaSpec::default() }),
            None
        );
    }

    #[test]
    fn the_oldest_get_the_places_and_the_rest_are_told() {
        let decided = plan(100, vec![claim(3, used(3, 30)), claim(1, used(1, 60)), claim(2, used(2, 50))]);
        assert_eq!(admitted(&decided), [1, 3]);
        let Decision::Refused(_, refusal) = &decided[&ApplicationId(2)] else { panic!("{decided:?}") };
        assert_eq!(refusal.reason, ReasonCode::QuotaExceeded);
        let key = MODULE_BYTES;
        assert!(
            refusal.message.starts_with(&format!(
                "exceeded quota: q, requested: {key}=50, used: {key}=90, limited: {key}=100 (bytes)."
            )),
            "{}",
            refusal.message
        );
    }

    #[test]
    fn a_module_counts_once() {
        let shared = used(1, 60);
        let decided = plan(100, vec![claim(1, shared), claim(2, shared), claim(3, used(2, 41))]);
        assert_eq!(admitted(&decided), [1, 2]);
        // Also where the bound is lower than what has a place.
        let holder = Claim { held: true, ..claim(1, shared) };
        assert_eq!(admitted(&plan(0, vec![holder, claim(2, shared)])), [2]);
    }

    #[test]
    fn the_smallest_of_several_bounds_holds() {
        let quotas = BTreeMap::from([("narrow".to_owned(), 40), ("wide".to_owned(), 100)]);
        let (decided, _) = plan_places("default", &quotas, vec![claim(1, used(1, 41))]);
        let Decision::Refused(_, refusal) = &decided[&ApplicationId(1)] else { panic!("{decided:?}") };
        assert!(refusal.message.contains("exceeded quota: narrow"), "{}", refusal.message);
    }

    #[test]
    fn an_earlier_module_makes_room_for_the_one_after_it() {
        let update = |bytes| Claim { earlier: Some(used(1, 90)), ..claim(1, used(2, bytes)) };
        assert_eq!(admitted(&plan(100, vec![update(100)])), [1]);
        assert_eq!(admitted(&plan(100, vec![update(101)])), [] as [u32; 0]);
        // It has its place while it is refused.
        assert_eq!(admitted(&plan(100, vec![update(101), claim(2, used(3, 11))])), [] as [u32; 0]);
        // An older one gets what an update gives back.
        let small = Claim { earlier: Some(used(1, 90)), ..claim(2, used(2, 10)) };
        assert_eq!(admitted(&plan(100, vec![claim(1, used(3, 80)), small])), [1, 2]);
        // Not if somebody else uses it.
        let other = Claim { held: true, ..claim(3, used(1, 90)) };
        assert_eq!(admitted(&plan(100, vec![update(11), other])), [] as [u32; 0]);
    }

    fn claims() -> impl Strategy<Value = Vec<Claim>> {
        let one = (0..6_u8, any::<bool>(), prop::option::of(0..6_u8), prop::bool::weighted(0.9));
        prop::collection::vec(one, 0..12).prop_map(|claims| {
            let module = |name: u8| used(name, 10 + u32::from(name) * 7);
            let claims = claims.into_iter().zip(1..).map(|((wanted, held, earlier, known), id)| Claim {
                wanted: known.then(|| module(wanted)),
                held: held && known,
                earlier: earlier.filter(|earlier| !held && *earlier != wanted).map(module),
                ..claim(id, module(wanted))
            });
            claims.collect()
        })
    }

    /// The bytes of the modules that have a place.
    fn taken(claims: &[Claim], decided: &BTreeMap<ApplicationId, Decision>) -> u64 {
        let mut modules = BTreeMap::new();
        for claim in claims {
            let gets = claim.held || matches!(decided.get(&claim.id), Some(Decision::Granted(_)));
            let module = claim.wanted.filter(|_| gets).or(claim.earlier);
            modules.extend(module.map(|module| (module.digest, module.bytes)));
        }
        modules.values().map(|bytes| u64::from(*bytes)).sum()
    }

    proptest! {
        #[test]
        fn a_bound_holds_and_leaves_no_room_that_is_asked_for(claims in claims(), limit in 0..200_u64, seed: u64) {
            let decided = plan(limit, claims.clone());
            let before = taken(&claims, &BTreeMap::new());
            prop_assert!(taken(&claims, &decided) <= limit.max(before));
            let (_, used) = plan_places("default", &BTreeMap::from([("q".to_owned(), limit)]), claims.clone());
            prop_assert_eq!(used, taken(&claims, &decided));
            let asked: BTreeSet<ApplicationId> =
                claims.iter().filter(|claim| !claim.held && claim.wanted.is_some()).map(|claim| claim.id).collect();
            prop_assert_eq!(decided.keys().copied().collect::<BTreeSet<_>>(), asked);
            // Nobody who was refused would fit now.
            for refused in claims.iter().filter(|claim| matches!(decided.get(&claim.id), Some(Decision::Refused(..)))) {
                let mut more = decided.clone();
                more.insert(refused.id, Decision::Granted(refused.wanted.unwrap().digest));
                prop_assert!(taken(&claims, &more) > limit);
            }
            // It is decided once: what follows from it is the same again, and the order of the claims is of no matter.
            let mut after: Vec<Claim> = claims.iter().cloned().map(|claim| {
                let gets = matches!(decided.get(&claim.id), Some(Decision::Granted(_)));
                let earlier = claim.earlier.filter(|_| !gets);
                Claim { held: claim.held || gets, earlier, ..claim }
            }).collect();
            prop_assert!(admitted(&plan(limit, after.clone())).is_empty());
            let turn = usize::try_from(seed % 12).unwrap_or(0).min(after.len());
            after.rotate_left(turn);
            let mut turned = claims;
            turned.rotate_left(turn);
            prop_assert_eq!(plan(limit, turned), decided);
        }
    }
}
