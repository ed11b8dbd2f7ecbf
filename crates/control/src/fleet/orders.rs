//! Orders to take devices out of service, as one gateway has them.
//!
//! ```text
//! want ──> is_due ── begin, PUT, end ──> held, until something else is wanted, a snapshot, another term or an hour
//! a proof in a view ──> unjudged ── not the device's ──> judge, until the gateway has another one
//! ```

use std::collections::BTreeMap;

use wasmbed_protocol::Nonce;

use super::{
    config::{FleetConfig, ORDERS_RENEWED_MS, PROOF_PAUSE_MS},
    input::{CallId, OrdersOutcome},
    record::DeviceId,
    retry::Retry,
};
use crate::{Now, gateway_api::DECOMMISSIONS_PER_PUT_MAX};

/// The orders of one gateway's devices.
#[derive(Debug, Default)]
pub(super) struct Orders {
    wanted: BTreeMap<DeviceId, Wanted>,
    /// What it confirmed since its last snapshot, and when.
    held: Option<(BTreeMap<DeviceId, Nonce>, u64)>,
    put: Option<PutInFlight>,
    retry: Retry,
    /// It does not know the call.
    too_old: bool,
    /// Orders that it did not take, with its words.
    refused: BTreeMap<DeviceId, String>,
    /// Proofs that are not their device's.
    judged: BTreeMap<DeviceId, Judged>,
}

/// An order that the gateway is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    nonce: Nonce,
    /// Its device has a session there.
    connected: bool,
}

#[derive(Debug)]
struct PutInFlight {
    id: CallId,
    orders: BTreeMap<DeviceId, Nonce>,
}

/// A proof that was found not to be its device's.
#[derive(Debug)]
struct Judged {
    proof: Box<str>,
    /// The key that it was verified against.
    key: Box<str>,
    why: String,
    at_ms: u64,
}

/// What came of a PUT of orders.
#[derive(Debug)]
pub(super) struct OrdersEnd {
    /// Devices whose orders were in it.
    pub devices: Vec<DeviceId>,
    /// A higher leader term that the gateway has seen.
    pub term_seen: Option<u64>,
}

/// Why a device's order does not reach its gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OrderTrouble {
    /// The gateway is of a version without orders.
    TooOld,
    /// The call failed, or the gateway did not take the order; its words.
    Failed(String),
}

impl Orders {
    /// Another comes to lead, or nobody.
    pub(super) fn begin_term(&mut self) {
        self.put = None;
        self.begin_anew();
    }

    /// Its process or its disk may be another: what it confirmed counts for nothing.
    pub(super) fn begin_anew(&mut self) {
        self.held = None;
        self.too_old = false;
        self.refused.clear();
        self.retry.succeed();
    }

    /// The interval has passed: what failed is tried again, and what is old is made anew.
    pub(super) fn resync(&mut self, now: Now) {
        self.retry.renew();
        let old = |since_ms: u64| now.ms.saturating_sub(since_ms) >= ORDERS_RENEWED_MS;
        if self.too_old
            || !self.refused.is_empty()
            || self.held.as_ref().is_some_and(|(_, at_ms)| old(*at_ms))
        {
            self.held = None;
        }
        self.too_old = false;
    }

    /// The gateway is to have an order with this nonce, or none.
    pub(super) fn want(&mut self, id: DeviceId, order: Option<(Nonce, bool)>) {
        match order {
            Some((nonce, connected)) => drop(self.wanted.insert(id, Wanted { nonce, connected })),
            None => {
                self.wanted.remove(&id);
                self.refused.remove(&id);
            }
        }
    }

    /// A Device is gone.
    pub(super) fn forget(&mut self, id: DeviceId) {
        self.want(id, None);
        self.judged.remove(&id);
    }

    /// The orders that it is to have at once: those of connected devices before others.
    fn chosen(&self) -> BTreeMap<DeviceId, Nonce> {
        let here = self.wanted.iter().filter(|(_, wanted)| wanted.connected);
        let away = self.wanted.iter().filter(|(_, wanted)| !wanted.connected);
        here.chain(away).take(DECOMMISSIONS_PER_PUT_MAX).map(|(id, wanted)| (*id, wanted.nonce)).collect()
    }

    /// Whether a PUT is to be made now.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        if self.put.is_some() || self.too_old || !self.retry.is_ready(now_ms) {
            return false;
        }
        match &self.held {
            Some((held, _)) => *held != self.chosen(),
            // What is not wanted any more it drops by itself, as the Device says so.
            None => !self.wanted.is_empty(),
        }
    }

    /// When time alone makes a PUT due.
    pub(super) fn timeout(&self, now_ms: u64) -> Option<u64> {
        self.retry.timeout(now_ms)
    }

    /// A PUT is made; what it brings.
    pub(super) fn begin(&mut self, id: CallId) -> BTreeMap<DeviceId, Nonce> {
        debug_assert!(self.put.is_none(), "one PUT of orders is on its way at a time");
        let orders = self.chosen();
        self.put = Some(PutInFlight { id, orders: orders.clone() });
        orders
    }

    /// A PUT ended; `refused` are the devices that the answer names. `None` if it is not the one on its way.
    pub(super) fn end(
        &mut self,
        now: Now,
        config: &FleetConfig,
        id: CallId,
        outcome: OrdersOutcome,
        device_id: impl Fn(&crate::ObjectKey) -> Option<DeviceId>,
    ) -> Option<OrdersEnd> {
        let put = self.put.take_if(|put| put.id == id)?;
        let devices = put.orders.keys().copied().collect();
        let mut term_seen = None;
        match outcome {
            OrdersOutcome::Answered(answer) => {
                self.retry.succeed();
                let refused = answer.refused.into_iter();
                self.refused = refused
                    .filter_map(|refusal| Some((device_id(&refusal.device)?, refusal.message)))
                    .collect();
                self.held = Some((put.orders, now.ms));
            }
            OrdersOutcome::Fenced(refusal) => {
                term_seen = refusal.leader_term;
                self.retry.fail(now.ms, config, refusal.message);
            }
            OrdersOutcome::TooOld => self.too_old = true,
            OrdersOutcome::Failed(message) => self.retry.fail(now.ms, config, message),
        }
        Some(OrdersEnd { devices, term_seen })
    }

    /// Whether it has the order of a device.
    pub(super) fn has(&self, id: DeviceId) -> bool {
        let held = self.held.as_ref().and_then(|(held, _)| held.get(&id));
        held.is_some() && held == self.wanted.get(&id).map(|wanted| &wanted.nonce)
    }

    /// Why it does not have the order of a device.
    pub(super) fn trouble(&self, id: DeviceId) -> Option<OrderTrouble> {
        if self.too_old {
            return Some(OrderTrouble::TooOld);
        }
        let failed = self.refused.get(&id).map(String::as_str).or(self.retry.failure());
        failed.map(|why| OrderTrouble::Failed(why.to_owned()))
    }

    /// Whether a proof was not looked at yet, and when it may be: `None` if it was.
    pub(super) fn unjudged(&self, id: DeviceId, key: &str, proof: &str) -> Option<u64> {
        match self.judged.get(&id) {
            None => Some(0),
            Some(judged) if *judged.proof == *proof && *judged.key == *key => None,
            Some(judged) => Some(judged.at_ms.saturating_add(PROOF_PAUSE_MS)),
        }
    }

    /// A proof is not its device's.
    pub(super) fn judge(&mut self, now: Now, id: DeviceId, key: &str, proof: &str, why: String) {
        let judged = Judged { proof: proof.into(), key: key.into(), why, at_ms: now.ms };
        self.judged.insert(id, judged);
    }

    /// What is wrong with a proof that it has of a device, if it was found not to be the device's.
    pub(super) fn flaw(&self, id: DeviceId, proof: &str) -> Option<&str> {
        self.judged.get(&id).filter(|judged| *judged.proof == *proof).map(|judged| judged.why.as_str())
    }
}
