//! Orders to decommission this device, and what comes of them.

use alloc::{string::String, vec::Vec};

use wasmbed_protocol::{
    Decommission, Decommissioned, DeviceMessage, ErrorCode, MessageGroups, encode_device,
    limits::{DECOMMISSION_PROOF_BYTES_MAX, DETAIL_BYTES_MAX},
    tag,
};
use wasmbed_statement::Erased;

use super::Agent;
use crate::{
    decommission::{EndStep, Erasing, Ordered, PROOF_INTERVAL_MS, Step, Taken},
    effect::Effect,
    event::Event,
    identity::IdentityError,
    storage::{Done, Operation, Outcome},
    store::Busy,
    text::clip,
    trap::TrapQueue,
};

impl Agent {
    /// The order that [`Effect::CheckOrder`] is about; empty at other times.
    #[must_use]
    pub fn order(&self) -> &[u8] {
        self.orders.order()
    }

    /// Whether this device was decommissioned and nothing is left to be done: it has no key, and does nothing before the next
    /// start.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.credentials.is_at_rest() && self.connection.is_down()
    }

    /// The board judged the order.
    pub fn handle_order(&mut self, now_ms: u64, judged: Result<Ordered, IdentityError>) {
        self.clock.advance(now_ms);
        let judged = judged.map_err(|error| match error {
            IdentityError::Order(problem) => problem,
            other => alloc::format!("{other}"),
        });
        if !self.orders.handle_judged(judged.as_ref().err().map(String::as_str), self.clock.now_ms()) {
            return;
        }
        match judged {
            Ok(ordered) => self.follow(ordered),
            Err(problem) => {
                self.refuse_order(&problem);
                self.events.push(Event::OrderRefused { detail: problem });
            }
        }
        self.settle();
    }

    /// The board signed the proof, or could not.
    pub fn handle_proof_signed(&mut self, now_ms: u64, signed: Result<Vec<u8>, IdentityError>) {
        self.clock.advance(now_ms);
        let Some(erasing) = &mut self.erasing else { return };
        let fits = |bytes: Vec<u8>| {
            let fits = (1..=DECOMMISSION_PROOF_BYTES_MAX).contains(&bytes.len());
            if fits { Ok(bytes) } else { Err(IdentityError::Failed("the proof has another length".into())) }
        };
        let signed = match signed.and_then(fits) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.events.push(Event::IdentityFailed { error });
                None
            }
        };
        if let Some(proof) = erasing.handle_signed(signed, self.clock.now_ms()) {
            self.credentials.keep_proof(proof);
        }
        self.settle();
    }

    /// Whether the device takes no set any more: it follows an order, or has followed one.
    #[must_use]
    pub fn is_decommissioned(&self) -> bool {
        self.erasing.is_some() || self.credentials.proof().is_some() || self.credentials.is_retired()
    }

    pub(super) fn handle_decommission(&mut self, message: &Decommission<'_>) {
        if !self.credentials.keeps_proofs() {
            return self.refuse_order("this device has nowhere to keep a proof: it can't be decommissioned");
        }
        match self.orders.take(message.order) {
            Taken::Waits => {}
            // Whoever sends it again has not seen the proof.
            Taken::Known => self.proof_at_ms = self.clock.now_ms(),
            Taken::Refused(problem) => self.refuse_order(&problem),
        }
    }

    fn refuse_order(&mut self, problem: &str) {
        if self.connection.established().is_some() {
            let detail = String::from(clip(problem, DETAIL_BYTES_MAX));
            self.connection.complain(ErrorCode::Refused, Some(tag::DECOMMISSION), detail);
        }
    }

    /// Erases everything, unless that was done for this order, or is being done.
    fn follow(&mut self, ordered: Ordered) {
        if self.credentials.proof().is_some_and(|proof| proof.ordered == ordered) {
            self.proof_at_ms = self.clock.now_ms();
            return;
        }
        if self.erasing.as_ref().is_some_and(|erasing| erasing.ordered() == ordered) {
            return;
        }
        self.events.push(Event::Decommissioning { device_uid: ordered.device_uid });
        self.forget_set();
        self.traps = TrapQueue::default();
        self.reports.mark();
        self.erasing = Some(Erasing::new(ordered));
    }

    /// The gateway says that the Device was decommissioned: that the proof arrived, if there is one.
    pub(super) fn handle_decommissioned(&mut self) {
        self.forget_set();
        if self.credentials.kept_proof().is_some() {
            self.erasing = None;
            self.credentials.acknowledge();
            self.effects.push_back(Effect::ForgetKeys);
            self.events.push(Event::ProofAcknowledged);
        }
    }

    /// The board's part, if there is one to do.
    pub(super) fn poll_decommission(&mut self) -> Option<Effect> {
        if self.orders.poll_ask(self.clock.now_ms()) {
            return Some(Effect::CheckOrder);
        }
        self.erasing.as_mut()?.poll_sign().map(Effect::SignProof)
    }

    /// What storage is to do, once it has that there is no set.
    pub(super) fn plan_erasing(&mut self) -> Option<(Busy, Operation)> {
        let ending = self.credentials.plan_ending().map(|step| match step {
            EndStep::Provisioned => (Busy::Ending, Operation::EraseProvisioned),
            EndStep::Bytes | EndStep::Record | EndStep::Writing | EndStep::Over => {
                (Busy::Ending, Operation::EraseRemoved)
            }
        });
        if ending.is_some() || !self.durability.is_durable() {
            return ending;
        }
        let erasing = self.erasing.as_mut()?;
        if erasing.step()? == Step::Removing {
            if let Some(uid) = self.store.data().next() {
                return Some((Busy::DeleteData { uid }, Operation::DeleteData(uid)));
            }
            if let Some(digest) = self.store.modules().next() {
                return Some((Busy::Delete { digest }, Operation::DeleteModule(digest)));
            }
            erasing.handle_removed();
        }
        match erasing.step()? {
            Step::Listing => Some((Busy::List, Operation::Inventory)),
            Step::Erasing => Some((Busy::Erase, Operation::EraseRemoved)),
            Step::Removing | Step::Signing | Step::SigningNow | Step::Keeping => None,
        }
    }

    pub(super) fn handle_listed(&mut self, outcome: Outcome) {
        let Some(erasing) = &mut self.erasing else { return };
        let is_known = matches!(outcome, Ok(Done::Inventory(_)));
        if let Ok(Done::Inventory(inventory)) = outcome {
            self.store.replace(inventory);
        }
        if erasing.handle_listed(is_known, self.clock.now_ms()) {
            self.events.push(Event::NotErased);
        }
    }

    pub(super) fn handle_erased(&mut self, outcome: &Outcome) {
        let Some(erasing) = &mut self.erasing else { return };
        if erasing.handle_erased(outcome, self.clock.now_ms()) {
            self.events.push(Event::NotErased);
        }
    }

    /// Something could not be removed.
    pub(super) fn note_left(&mut self, kind: Erased) {
        if let Some(erasing) = &mut self.erasing {
            erasing.note_left(kind);
            self.events.push(Event::NotErased);
        }
    }

    /// Storage has the proof: from now on it is sent.
    pub(super) fn settle_decommission(&mut self) {
        let keeps = self.erasing.as_ref().is_some_and(Erasing::keeps);
        if keeps && self.credentials.kept_proof().is_some() {
            self.erasing = None;
            self.proof_at_ms = self.clock.now_ms();
            self.events.push(Event::Decommissioned);
        }
    }

    /// When the proof may be sent: while there is one, and the gateway takes it.
    pub(super) fn proof_timeout(&self) -> Option<u64> {
        let takes = self.connection.established()?.takes(MessageGroups::DECOMMISSION);
        self.credentials.kept_proof().filter(|_| takes).map(|_| self.proof_at_ms)
    }

    pub(super) fn transmit_proof(&mut self, buffer: &mut [u8]) -> Option<usize> {
        self.proof_timeout().filter(|at_ms| *at_ms <= self.clock.now_ms())?;
        let proof = &self.credentials.kept_proof()?.bytes;
        let length = encode_device(&DeviceMessage::Decommissioned(Decommissioned { proof }), buffer).ok();
        self.proof_at_ms = self.clock.after(PROOF_INTERVAL_MS);
        length
    }

    /// When something is to be done about an order.
    pub(super) fn decommission_timeout(&self) -> Option<u64> {
        let erasing = self.erasing.as_ref().and_then(Erasing::timeout);
        [self.orders.timeout(), erasing, self.proof_timeout()].into_iter().flatten().min()
    }

    pub(super) fn handle_decommission_timeout(&mut self) {
        if let Some(erasing) = &mut self.erasing {
            erasing.handle_timeout(self.clock.now_ms());
        }
    }

    /// Whether nothing runs on a device that takes no set, and nothing is wanted.
    pub(super) fn is_decommission_consistent(&self) -> bool {
        !self.is_decommissioned() || (self.applications.is_empty() && self.pull.is_none())
    }
}
