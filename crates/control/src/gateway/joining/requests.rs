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

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use wasmbed_protocol::{DeviceUid, KeyHash, rate::TokenBucket};

use super::awaited::Awaited;
use crate::{
    ObjectKey,
    gateway::{
        certification::{
            CertificateCall, CertificateCallId, CertificateHash, CertificateRequest, CertificateWork,
            Evidence,
        },
        config::{
            REQUEST_ATTEMPTS_MAX, REQUEST_CALLS, REQUEST_CALLS_IN_FLIGHT_MAX, REQUEST_PERIOD_MS,
            REQUEST_POLLS, REQUESTS_OF_DEVICE,
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
    attempt: u32,
    /// It was there before this asker came.
    found: bool,
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
            hash.update(self.period.to_be_bytes());
        }
        hash.update(self.attempt.to_be_bytes());
        let digits = KeyHash(hash.finalize().into()).to_string();
        format!("device-{}", digits.get(..40).unwrap_or_default())
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

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: BTreeMap<Arc<ObjectKey>, Open>,
    /// When each is created or read next; those under way are not among them.
    due: BTreeSet<(u64, Arc<ObjectKey>)>,
    in_flight: BTreeMap<CertificateCallId, (Arc<ObjectKey>, u64)>,
    /// What each Device's devices caused lately.
    made: BTreeMap<Arc<ObjectKey>, TokenBucket>,
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
        let made = self.made.entry(Arc::clone(device)).or_default();
        if !made.take(now_ms, REQUESTS_OF_DEVICE, 1) {
            return Opened::TooMany;
        }
        self.close(device);
        self.next_number += 1;
        let open = Open {
            wanted,
            number: self.next_number,
            period: unix_ms / REQUEST_PERIOD_MS,
            attempt: 0,
            found: false,
            step: Step::Create,
            in_flight: false,
            due_ms: now_ms,
            reads: 0,
            approved: false,
            told: None,
        };
        self.due.insert((open.due_ms, Arc::clone(device)));
        self.open.insert(Arc::clone(device), open);
        displaced.map_or(Opened::New, Opened::Instead)
    }

    /// What its asker is told that it waits for; whether that is news.
    pub(super) fn tells(&mut self, device: &ObjectKey, awaited: Awaited) -> bool {
        self.open.get_mut(device).is_some_and(|open| open.told.replace(awaited) != Some(awaited))
    }

    /// The Device's request ended, or nobody asks for it any more; what is under way is not waited for.
    pub(super) fn close(&mut self, device: &ObjectKey) -> Option<Open> {
        let (key, open) = self.open.remove_entry(device)?;
        self.due.remove(&(open.due_ms, key));
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
        let due = self.due.first().is_some_and(|(due_ms, _)| *due_ms <= now_ms);
        if !due
            || self.in_flight.len() >= REQUEST_CALLS_IN_FLIGHT_MAX
            || !self.calls.take(now_ms, REQUEST_CALLS, 1)
        {
            return None;
        }
        let (_, device) = self.due.pop_first()?;
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
        let (due_ms, _) = self.due.first()?;
        let open = self.in_flight.len() < REQUEST_CALLS_IN_FLIGHT_MAX;
        open.then(|| self.calls.available_at_ms(REQUEST_CALLS, 1).max(*due_ms))
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
        let Some(open) = self.open.get_mut(device) else { return };
        // What was just approved is issued in a moment.
        open.reads = if approved && !open.approved { 0 } else { open.reads.saturating_add(1) };
        open.approved = approved;
        open.step = Step::Get;
        let at_ms = now_ms + REQUEST_POLLS.pause_ms(open.reads.saturating_sub(1));
        self.schedule(device, at_ms);
    }

    /// It was there already.
    pub(super) fn found(&mut self, now_ms: u64, device: &Arc<ObjectKey>) {
        let Some(open) = self.open.get_mut(device) else { return };
        (open.step, open.found) = (Step::Get, true);
        self.schedule(device, now_ms);
    }

    /// What was there is of no use to this asker: the next name. False if that is not so, or there were too many.
    pub(super) fn retry(&mut self, now_ms: u64, device: &Arc<ObjectKey>) -> bool {
        let Some(open) = self.open.get_mut(device) else { return false };
        if !open.found || open.attempt + 1 >= REQUEST_ATTEMPTS_MAX {
            return false;
        }
        open.attempt += 1;
        (open.step, open.found) = (Step::Create, false);
        self.schedule(device, now_ms);
        true
    }

    /// The call failed and is to be made again.
    pub(super) fn again(&mut self, now_ms: u64, device: &Arc<ObjectKey>) {
        let Some(open) = self.open.get_mut(device) else { return };
        open.reads = open.reads.saturating_add(1);
        let at_ms = now_ms + REQUEST_POLLS.pause_ms(open.reads);
        self.schedule(device, at_ms);
    }

    /// Its Device changed: the request may have, too.
    pub(super) fn poke(&mut self, now_ms: u64, device: &Arc<ObjectKey>) {
        let Some(open) = self.open.get_mut(device) else { return };
        open.reads = 0;
        if !open.in_flight && open.due_ms > now_ms {
            self.schedule(device, now_ms);
        }
    }

    fn schedule(&mut self, device: &Arc<ObjectKey>, at_ms: u64) {
        let Some(open) = self.open.get_mut(device) else { return };
        debug_assert!(!open.in_flight, "a request has one call under way at a time");
        self.due.remove(&(open.due_ms, Arc::clone(device)));
        open.due_ms = at_ms;
        self.due.insert((at_ms, Arc::clone(device)));
    }

    /// Forgets what Devices caused that have caused nothing for long enough.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.made.retain(|_, made| {
            made.refill(now_ms, REQUESTS_OF_DEVICE);
            made.spent() > 0
        });
    }

    /// The first broken invariant, if any.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let waiting = self.open.values().filter(|open| !open.in_flight).count();
        let due = |(at_ms, key): &(u64, Arc<ObjectKey>)| {
            self.open.get(key).is_some_and(|open| open.due_ms == *at_ms)
        };
        if waiting != self.due.len() || !self.due.iter().all(due) {
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
        assert!(requests.made.is_empty());
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
        requests.poke(now - 10_000, &device);
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
