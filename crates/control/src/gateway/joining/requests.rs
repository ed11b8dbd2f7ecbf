//! CertificateSigningRequests that are being made or waited for: one for a Device at a time.
//!
//! A gateway may create and read them, and may not list or watch: each is read again after growing pauses, and at once when its
//! Device changes.
//!
//! ```text
//! Create ─┬─ made, or there already ── Get ─┬─ not decided ── (a pause) ── Get
//!         │                                 ├─ failed, or expired, before this asker came ── Create, under the next name
//!         └─ failed ── (a pause) ── Create  └─ ended ── its asker is told
//! ```
//!
//! Where a request may be there already, since this gateway saw it or since its Device shows that its key was certified, Get comes
//! first. Calls have a rate, and each kind of request its share of them.

use std::{collections::BTreeMap, sync::Arc};

use sha2::{Digest as _, Sha256};
use wasmbed_protocol::{DeviceUid, KeyHash, rate::TokenBucket};

use super::{
    awaited::Awaited,
    shares::{Class, Shares},
};
use crate::{
    ObjectKey,
    gateway::{
        certification::{
            CertificateCall, CertificateCallId, CertificateHash, CertificateRequest, CertificateWork,
            Evidence,
        },
        config::{
            ISSUED_AFTER_MS, REQUEST_ATTEMPTS_MAX, REQUEST_CALLS, REQUEST_CALLS_IN_FLIGHT_MAX,
            REQUEST_PERIOD_MS, REQUEST_POLLS, REQUEST_REMEMBERED_MS, REQUESTS_OF_DEVICE,
        },
        input::SessionId,
    },
};

/// What a device asks for, as it is passed on.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Who is told.
    pub(super) asker: SessionId,
    /// Of its certificate.
    pub(super) certificate: CertificateHash,
    pub(super) device_uid: DeviceUid,
    /// Of the key that gets the certificate.
    pub(super) key: KeyHash,
    /// PKCS #10, DER.
    pub(super) request: Arc<[u8]>,
    pub(super) evidence: Evidence,
    pub(super) shown: Shown,
}

/// What of a Device decides about its request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) approved: bool,
    pub(super) confirmed: Option<KeyHash>,
    /// The key that its device has to have.
    pub(super) pinned: Option<Arc<str>>,
    /// That is the request's: the certificate is there, or will be in a moment.
    pub(super) certified: bool,
}

impl Wanted {
    pub(super) fn is_renewal(&self) -> bool {
        matches!(self.evidence, Evidence::Renewal { .. })
    }

    pub(super) fn is_proven(&self) -> bool {
        self.evidence != Evidence::None
    }
}

/// One that is being made or waited for.
#[derive(Debug)]
pub(super) struct Open {
    wanted: Wanted,
    /// Tells it from one before it for the same Device.
    number: u64,
    /// In which period it was first asked for.
    period: u64,
    /// It is looked for under the name of the period before.
    before: bool,
    attempt: u32,
    /// It was there before this asker came.
    found: bool,
    /// Nobody has seen yet that it is there.
    guessed: bool,
    step: Step,
    in_flight: bool,
    due_ms: u64,
    reads: u32,
    /// As it was last read.
    approved: bool,
    /// What its asker was last told that it waits for.
    told: Option<Awaited>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Get,
}

impl Open {
    pub(super) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    pub(super) fn is_approved(&self) -> bool {
        self.approved
    }

    fn class(&self) -> Class {
        let Wanted { evidence, shown, .. } = &self.wanted;
        match (evidence, self.told) {
            (Evidence::Renewal { .. }, _) => Class::Renewal,
            _ if shown.certified => Class::Certified,
            (_, Some(Awaited::DeviceApproval | Awaited::KeyConfirmation(_))) => Class::Person,
            (Evidence::Token { .. }, _) => Class::Token,
            (Evidence::Factory { .. } | Evidence::None, _) => Class::Factory,
        }
    }

    /// `device-` and 40 hex digits of a hash of Device UID, key and period; a renewal's period is the certificate that it renews.
    fn name(&self) -> String {
        let Wanted { device_uid, key, certificate, .. } = &self.wanted;
        let mut hash = Sha256::new().chain_update(device_uid.0).chain_update(key.0);
        if self.wanted.is_renewal() {
            hash.update(b"renews");
            hash.update(certificate.0);
        } else {
            // One without a proof is of no use to a device that has one.
            hash.update(if self.wanted.is_proven() { b"proven".as_slice() } else { b"joins" });
            hash.update(self.period.saturating_sub(u64::from(self.before)).to_be_bytes());
        }
        hash.update(self.attempt.to_be_bytes());
        let digits = KeyHash(hash.finalize().into()).to_string();
        format!("device-{}", digits.get(..40).unwrap_or_default())
    }

    /// Begins with what may be there: the request that was seen last, if it is this one, or the one whose key was certified.
    fn guess(&mut self, there: Option<(String, u32)>, certified: bool) {
        let is_there = there.is_some_and(|(name, attempt)| {
            self.attempt = attempt;
            self.before = certified && !self.wanted.is_renewal();
            let was_there = self.before && self.name() == name;
            self.before &= was_there;
            was_there || self.name() == name
        });
        if !is_there {
            self.attempt = 0;
        }
        if is_there || certified {
            (self.step, self.found, self.guessed) = (Step::Get, true, true);
        }
    }

    fn work(&self, device: &ObjectKey) -> CertificateWork {
        match self.step {
            Step::Get => CertificateWork::Get { name: self.name() },
            Step::Create => CertificateWork::Create(Box::new(CertificateRequest {
                name: self.name(),
                device: device.clone(),
                device_uid: self.wanted.device_uid,
                request: Arc::clone(&self.wanted.request),
                evidence: self.wanted.evidence.clone(),
            })),
        }
    }
}

/// What becomes of a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It is made, or looked for.
    New,
    /// It takes the place of one by this asker, who is told nothing more about that.
    Instead(SessionId),
    /// Another device of the same Device was first.
    Taken,
    /// There were too many for this Device.
    TooMany,
}

/// What a Device's devices caused lately.
#[derive(Debug, Default)]
struct Caused {
    requests: TokenBucket,
    at_ms: u64,
    /// The request that was last seen to be there, and which attempt it is.
    there: Option<(String, u32)>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: BTreeMap<Arc<ObjectKey>, Open>,
    /// When each is created or read next; those under way are not among them.
    due: Shares,
    in_flight: BTreeMap<CertificateCallId, (Arc<ObjectKey>, u64)>,
    /// Of Devices that caused anything lately.
    caused: BTreeMap<Arc<ObjectKey>, Caused>,
    calls: TokenBucket,
    next_call: u64,
    next_number: u64,
}

impl Requests {
    pub(super) fn get(&self, device: &ObjectKey) -> Option<&Open> {
        self.open.get(device)
    }

    /// Asks for a certificate. One with a proof takes the place of one without; else the first has it while its asker is there.
    pub(super) fn open(
        &mut self,
        now_ms: u64,
        unix_ms: u64,
        device: &Arc<ObjectKey>,
        wanted: Wanted,
    ) -> Opened {
        let earlier = self.open.get(device).map(|open| &open.wanted);
        let displaced = match earlier {
            None => None,
            Some(earlier)
                if earlier.asker == wanted.asker
                    || earlier.key == wanted.key
                    || (wanted.is_proven() && !earlier.is_proven()) =>
            {
                Some(earlier.asker).filter(|asker| *asker != wanted.asker)
            }
            Some(_) => return Opened::Taken,
        };
        let caused = self.caused.entry(Arc::clone(device)).or_default();
        if !caused.requests.take(now_ms, REQUESTS_OF_DEVICE, 1) {
            return Opened::TooMany;
        }
        caused.at_ms = now_ms;
        let there = caused.there.clone();
        self.close(device);
        self.next_number += 1;
        let certified = wanted.shown.certified;
        let mut open = Open {
            wanted,
            number: self.next_number,
            period: unix_ms / REQUEST_PERIOD_MS,
            before: false,
            attempt: 0,
            found: false,
            guessed: false,
            step: Step::Create,
            in_flight: false,
            due_ms: now_ms,
            reads: 0,
            approved: false,
            told: None,
        };
        open.guess(there, certified);
        self.open.insert(Arc::clone(device), open);
        self.change(device, |_| {});
        displaced.map_or(Opened::New, Opened::Instead)
    }

    /// What its asker is told that it waits for; whether that is news.
    pub(super) fn tells(&mut self, device: &Arc<ObjectKey>, awaited: Awaited) -> bool {
        let mut news = false;
        self.change(device, |open| news = open.told.replace(awaited) != Some(awaited));
        news
    }

    /// The Device's request ended, or nobody asks for it any more; what is under way is not waited for.
    pub(super) fn close(&mut self, device: &ObjectKey) -> Option<Open> {
        let (key, open) = self.open.remove_entry(device)?;
        self.due.remove(open.class(), open.due_ms, &key);
        Some(open)
    }

    /// Closes what this asker asked for, if anything.
    pub(super) fn close_of(&mut self, device: &ObjectKey, asker: SessionId) {
        if self.open.get(device).is_some_and(|open| open.wanted.asker == asker) {
            self.close(device);
        }
    }

    /// The next call, if its time has come.
    pub(super) fn poll(&mut self, now_ms: u64) -> Option<CertificateCall> {
        if !self.due.is_due(now_ms)
            || self.in_flight.len() >= REQUEST_CALLS_IN_FLIGHT_MAX
            || !self.calls.take(now_ms, REQUEST_CALLS, 1)
        {
            return None;
        }
        let device = self.due.pop(now_ms)?;
        let open = present!(self.open.get_mut(&device), "what is due is open" => None);
        let id = CertificateCallId(self.next_call);
        self.next_call += 1;
        open.in_flight = true;
        let what = open.work(&device);
        self.in_flight.insert(id, (device, open.number));
        Some(CertificateCall { id, what })
    }

    /// When [`Requests::poll`] may give something that it does not give now.
    pub(super) fn timeout(&self) -> Option<u64> {
        let due_ms = self.due.first_ms()?;
        let open = self.in_flight.len() < REQUEST_CALLS_IN_FLIGHT_MAX;
        open.then(|| self.calls.available_at_ms(REQUEST_CALLS, 1).max(due_ms))
    }

    /// A call ended; the Device whose request it was about, unless that was closed meanwhile.
    pub(super) fn answered(&mut self, id: CertificateCallId) -> Option<Arc<ObjectKey>> {
        let (device, number) = present!(self.in_flight.remove(&id), "a call is answered once" => None);
        let open = self.open.get_mut(&device).filter(|open| open.number == number)?;
        open.in_flight = false;
        Some(device)
    }

    /// It was read, and is to be read again.
    pub(super) fn seen(&mut self, now_ms: u64, device: &Arc<ObjectKey>, approved: bool) {
        self.is_there(device);
        self.change(device, |open| {
            // What was just approved is issued in a moment.
            open.reads = if approved && !open.approved { 0 } else { open.reads.saturating_add(1) };
            (open.approved, open.step) = (approved, Step::Get);
            open.due_ms = now_ms + REQUEST_POLLS.pause_ms(open.reads.saturating_sub(1));
        });
    }

    /// It was there already.
    pub(super) fn found(&mut self, now_ms: u64, device: &Arc<ObjectKey>) {
        self.is_there(device);
        self.change(device, |open| (open.step, open.found, open.due_ms) = (Step::Get, true, now_ms));
    }

    /// Whoever asks for it again finds it.
    fn is_there(&mut self, device: &ObjectKey) {
        let Some(open) = self.open.get_mut(device).filter(|open| open.step == Step::Create || open.guessed)
        else {
            return;
        };
        open.guessed = false;
        if let Some(caused) = self.caused.get_mut(device) {
            caused.there = Some((open.name(), open.attempt));
        }
    }

    /// It is not there. Whether that was no more than a guess: then it is made. One whose key was certified may have asked before
    /// the period began, and its token, if it has one, is used: that is looked for first.
    pub(super) fn missing(&mut self, now_ms: u64, device: &Arc<ObjectKey>) -> bool {
        let guessed = self.open.get(device).is_some_and(|open| open.guessed);
        if guessed {
            self.change(device, |open| {
                (open.attempt, open.due_ms) = (0, now_ms);
                open.before = !open.before && open.wanted.shown.certified && !open.wanted.is_renewal();
                if !open.before {
                    (open.step, open.found, open.guessed) = (Step::Create, false, false);
                }
            });
        }
        guessed
    }

    /// What was there is of no use to this asker: the next name. False if that is not so, or there were too many.
    pub(super) fn retry(&mut self, now_ms: u64, device: &Arc<ObjectKey>) -> bool {
        let may = |open: &&Open| open.found && (open.before || open.attempt + 1 < REQUEST_ATTEMPTS_MAX);
        let retries = self.open.get(device).filter(may).is_some();
        if retries {
            self.change(device, |open| {
                open.attempt = if open.before { 0 } else { open.attempt + 1 };
                open.before = false;
                (open.step, open.found, open.guessed, open.due_ms) = (Step::Create, false, false, now_ms);
            });
        }
        retries
    }

    /// The call failed and is to be made again.
    pub(super) fn again(&mut self, now_ms: u64, device: &Arc<ObjectKey>) {
        self.change(device, |open| {
            open.reads = open.reads.saturating_add(1);
            open.due_ms = now_ms + REQUEST_POLLS.pause_ms(open.reads);
        });
    }

    /// Its Device changed. If it shows something else that decides about the request, that may have changed, too.
    pub(super) fn poke(&mut self, now_ms: u64, device: &Arc<ObjectKey>, shown: Shown) {
        self.change(device, |open| {
            // A renewal's key is certified before and after.
            let certified = shown.certified && !open.wanted.is_renewal();
            let shown = Shown { certified, ..shown };
            if open.wanted.shown == shown {
                return;
            }
            let before = std::mem::replace(&mut open.wanted.shown, shown);
            let pause_ms = if certified && !before.certified { ISSUED_AFTER_MS } else { 0 };
            open.reads = 0;
            open.due_ms = open.due_ms.min(now_ms + pause_ms);
        });
    }

    /// Changes one; if no call about it is under way, it waits for its next one among those of what is its class then.
    fn change(&mut self, device: &Arc<ObjectKey>, change: impl FnOnce(&mut Open)) {
        let Some(open) = self.open.get_mut(device) else { return };
        self.due.remove(open.class(), open.due_ms, device);
        change(open);
        if !open.in_flight {
            self.due.insert(open.class(), open.due_ms, device);
        }
    }

    /// Forgets what Devices caused that have caused nothing for long enough.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.caused.retain(|_, caused| {
            caused.requests.refill(now_ms, REQUESTS_OF_DEVICE);
            caused.requests.spent() > 0 || now_ms.saturating_sub(caused.at_ms) < REQUEST_REMEMBERED_MS
        });
    }

    /// The first broken invariant, if any.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let waiting = self.open.iter().filter(|(_, open)| !open.in_flight);
        if !self.due.holds(waiting.map(|(device, open)| (open.class(), open.due_ms, device))) {
            return Err("a request waits for nothing");
        }
        if self.in_flight.len() > REQUEST_CALLS_IN_FLIGHT_MAX {
            return Err("more calls about requests are under way than are allowed");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn device() -> Arc<ObjectKey> {
        Arc::new(ObjectKey::new("default", "a"))
    }

    fn wanted(asker: u64, key: u8, proven: bool) -> Wanted {
        let token = Evidence::Token { id: "0a1b2c3d".into(), mac: [1; 32].as_slice().into() };
        Wanted {
            asker: SessionId(asker),
            certificate: CertificateHash([key; 32]),
            device_uid: DeviceUid([1; 16]),
            key: KeyHash([key; 32]),
            request: [7; 9].as_slice().into(),
            evidence: if proven { token } else { Evidence::None },
            shown: Shown::default(),
        }
    }

    fn name(call: &CertificateCall) -> &str {
        match &call.what {
            CertificateWork::Create(request) => &request.name,
            CertificateWork::Get { name } => name,
        }
    }

    #[test]
    fn a_device_has_one_request_and_a_proof_goes_before_none() {
        let mut requests = Requests::default();
        let open = |requests: &mut Requests, wanted| requests.open(0, 0, &device(), wanted);
        assert_eq!(open(&mut requests, wanted(1, 1, false)), Opened::New);
        assert_eq!(open(&mut requests, wanted(2, 2, false)), Opened::Taken);
        assert_eq!(open(&mut requests, wanted(3, 3, true)), Opened::Instead(SessionId(1)));
        assert_eq!(open(&mut requests, wanted(4, 4, true)), Opened::Taken);
        assert_eq!(open(&mut requests, wanted(5, 3, true)), Opened::Instead(SessionId(3)), "it came again");
        assert_eq!(open(&mut requests, wanted(5, 9, true)), Opened::New, "its own");
        requests.check().unwrap();
        assert_eq!(requests.open.len(), 1);
        requests.close_of(&device(), SessionId(4));
        assert_eq!(requests.open.len(), 1);
        requests.close_of(&device(), SessionId(5));
        assert_eq!(open(&mut requests, wanted(4, 4, true)), Opened::New);
        let more = (0..20).filter(|_| open(&mut requests, wanted(4, 4, true)) == Opened::New).count();
        assert_eq!(more, 3, "eight at once, and then one every 15 s");
        requests.sweep(200_000);
        assert_eq!(requests.caused.len(), 1, "whoever comes again finds its request");
        requests.sweep(REQUEST_REMEMBERED_MS);
        assert!(requests.caused.is_empty());
    }

    #[test]
    fn a_request_is_read_ever_less_often_and_at_once_when_its_device_changes() {
        let (mut requests, device, mut now) = (Requests::default(), device(), 0);
        requests.open(now, 0, &device, wanted(1, 1, true));
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let call = requests.poll(now).unwrap();
            assert!(requests.poll(now + 1_000_000).is_none(), "one call at a time");
            requests.answered(call.id).unwrap();
            requests.seen(now, &device, false);
            let next = requests.timeout().unwrap();
            pauses.push(next - now);
            now = next;
        }
        assert_eq!(pauses[..3], [500, 1_000, 2_000]);
        assert_eq!(pauses.last(), Some(&30_000));
        let approved = Shown { approved: true, ..Shown::default() };
        requests.poke(now - 10_000, &device, Shown::default());
        assert_eq!(requests.timeout(), Some(now), "nothing that decides about it has changed");
        requests.poke(now - 10_000, &device, approved);
        assert_eq!(requests.timeout(), Some(now - 10_000));
        let call = requests.poll(now).unwrap();
        requests.answered(call.id);
        requests.seen(now, &device, true);
        assert_eq!(requests.timeout(), Some(now + 500), "it was approved just now");
        requests.check().unwrap();
    }

    #[test]
    fn what_failed_before_the_asker_came_gives_way_to_another_name() {
        let (mut requests, device) = (Requests::default(), device());
        requests.open(0, 5 * REQUEST_PERIOD_MS, &device, wanted(1, 1, true));
        let mut names = BTreeSet::new();
        for attempt in 1..=REQUEST_ATTEMPTS_MAX {
            let call = requests.poll(u64::from(attempt) * 1_000).unwrap();
            names.insert(name(&call).to_owned());
            requests.answered(call.id);
            assert!(!requests.retry(0, &device), "it is its own");
            requests.found(0, &device);
            let call = requests.poll(u64::from(attempt) * 1_000).unwrap();
            names.insert(name(&call).to_owned());
            requests.answered(call.id);
            assert_eq!(requests.retry(0, &device), attempt < REQUEST_ATTEMPTS_MAX);
        }
        assert_eq!(names.len(), REQUEST_ATTEMPTS_MAX as usize);
        assert!(names.iter().all(|name| name.len() == 47 && name.starts_with("device-")));
    }

    #[test]
    fn what_was_asked_for_without_a_proof_is_no_request_of_a_device_that_has_one() {
        let mut requests = Requests::default();
        let mut named = |proven| {
            requests.open(0, 0, &device(), wanted(1, 1, proven));
            let call = requests.poll(0).unwrap();
            requests.answered(call.id);
            name(&call).to_owned()
        };
        assert_ne!(named(false), named(true));
        assert_eq!(named(true), named(true));
    }

    #[test]
    fn an_answer_to_a_call_of_a_request_that_was_closed_is_nobody_s() {
        let (mut requests, device) = (Requests::default(), device());
        requests.open(0, 0, &device, wanted(1, 1, true));
        let call = requests.poll(0).unwrap();
        requests.close_of(&device, SessionId(1));
        requests.open(0, 0, &device, wanted(2, 1, true));
        assert_eq!(requests.answered(call.id), None);
        let again = requests.poll(0).unwrap();
        assert_eq!(name(&again), name(&call), "whoever asks finds the same request");
        requests.check().unwrap();
    }

    #[test]
    fn each_kind_of_request_has_its_share_of_the_calls() {
        let mut requests = Requests::default();
        let mut open = |number: u64, evidence: Evidence, certified| {
            let device = Arc::new(ObjectKey::new("default", number.to_string()));
            let shown = Shown { certified, ..Shown::default() };
            let wanted = Wanted { evidence, shown, ..wanted(number, 1, true) };
            assert_eq!(requests.open(0, 0, &device, wanted), Opened::New);
            device
        };
        let chain: Arc<[Vec<u8>]> = [Vec::new()].as_slice().into();
        let factory = || Evidence::Factory { chain: Arc::clone(&chain), signature: [1].as_slice().into() };
        let token = || Evidence::Token { id: "0a1b2c3d".into(), mac: [1].as_slice().into() };
        let unapproved: Vec<_> = (0..50).map(|number| open(number, factory(), false)).collect();
        for number in 50..100 {
            open(number, token(), false);
        }
        open(100, factory(), false);
        open(101, Evidence::Renewal { chain: Arc::clone(&chain) }, false);
        open(102, factory(), true);
        for device in &unapproved {
            requests.tells(device, Awaited::DeviceApproval);
        }
        requests.check().unwrap();
        let calls: Vec<_> = std::iter::from_fn(|| requests.poll(0)).collect();
        let device_of = |call: &CertificateCall| &requests.in_flight[&call.id].0;
        let first: Vec<u64> = calls.iter().map(|call| device_of(call).name.parse().unwrap()).collect();
        assert_eq!(first.len(), REQUEST_CALLS_IN_FLIGHT_MAX);
        assert!([100, 101, 102].iter().all(|last| first[..5].contains(last)), "{first:?}");
        assert!(
            first.iter().any(|number| *number < 50) && first.iter().any(|number| (50..100).contains(number))
        );
    }

    #[test]
    fn what_was_seen_is_looked_for_and_made_if_it_is_gone() {
        let (mut requests, device) = (Requests::default(), device());
        let ask = |requests: &mut Requests, certified| {
            let shown = Shown { certified, ..Shown::default() };
            requests.open(0, 0, &device, Wanted { shown, ..wanted(1, 1, true) });
            let call = requests.poll(0).unwrap();
            requests.answered(call.id);
            call.what
        };
        assert!(matches!(ask(&mut requests, true), CertificateWork::Get { .. }), "its key was certified");
        assert!(requests.missing(0, &device));
        let call = requests.poll(0).unwrap();
        requests.answered(call.id);
        assert!(matches!(call.what, CertificateWork::Get { .. }), "it may have been the day before");
        assert!(requests.missing(0, &device));
        let call = requests.poll(0).unwrap();
        requests.answered(call.id);
        assert!(matches!(call.what, CertificateWork::Create(_)), "it was so for another request");
        assert!(!requests.missing(0, &device), "somebody deleted it");
        requests.seen(0, &device, false);
        requests.check().unwrap();
        assert!(matches!(ask(&mut requests, false), CertificateWork::Get { .. }), "it came again");
        requests.sweep(REQUEST_REMEMBERED_MS);
        assert!(matches!(ask(&mut requests, false), CertificateWork::Create(_)));
    }

    #[test]
    fn what_was_certified_before_the_day_began_is_found_under_the_name_of_that_day() {
        let (mut requests, device) = (Requests::default(), device());
        let ask = |requests: &mut Requests, day, certified| {
            let shown = Shown { certified, ..Shown::default() };
            requests.open(0, day * REQUEST_PERIOD_MS, &device, Wanted { shown, ..wanted(1, 1, true) });
        };
        let next = |requests: &mut Requests| {
            let call = requests.poll(0).unwrap();
            requests.answered(call.id);
            let creates = matches!(call.what, CertificateWork::Create(_));
            (name(&call).to_owned(), creates)
        };
        ask(&mut requests, 5, false);
        let (issued, creates) = next(&mut requests);
        assert!(creates);
        // Another gateway, or this one long after, on the next day.
        let mut requests = Requests::default();
        ask(&mut requests, 6, true);
        let (today, creates) = next(&mut requests);
        assert!(today != issued && !creates);
        assert!(requests.missing(0, &self::device()));
        assert_eq!(next(&mut requests), (issued.clone(), false));
        requests.seen(0, &self::device(), true);
        requests.close_of(&self::device(), SessionId(1));
        // It comes again, and the name is known.
        ask(&mut requests, 6, true);
        assert_eq!(next(&mut requests), (issued.clone(), false));
        // What came of it is of no use, or it is not there either: then the day's own is made.
        assert!(requests.retry(0, &self::device()));
        assert_eq!(next(&mut requests), (today.clone(), true));
        let mut requests = Requests::default();
        ask(&mut requests, 6, true);
        next(&mut requests);
        assert!(requests.missing(0, &self::device()));
        assert_eq!(next(&mut requests), (issued, false));
        assert!(requests.missing(0, &self::device()));
        assert_eq!(next(&mut requests), (today, true));
        assert!(!requests.missing(0, &self::device()), "somebody deleted it");
        requests.seen(0, &self::device(), false);
        requests.check().unwrap();
    }

    #[test]
    fn calls_are_bounded_in_number_and_rate() {
        let mut requests = Requests::default();
        for number in 0..200 {
            let device = Arc::new(ObjectKey::new("default", number.to_string()));
            assert_eq!(requests.open(0, 0, &device, wanted(number, 1, true)), Opened::New);
        }
        let under_way: Vec<_> = std::iter::from_fn(|| requests.poll(0)).collect();
        assert_eq!(under_way.len(), REQUEST_CALLS_IN_FLIGHT_MAX);
        assert_eq!(requests.timeout(), None, "it waits for an answer");
        let mut made = under_way.len();
        for call in under_way {
            requests.answered(call.id);
        }
        while let Some(call) = requests.poll(0) {
            made += 1;
            requests.answered(call.id);
        }
        assert_eq!(made as u64, REQUEST_CALLS.burst());
    }
}
