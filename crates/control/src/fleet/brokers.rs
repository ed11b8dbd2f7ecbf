//! MessageBrokers that are known, and what each gateway was told of them.

use std::{collections::BTreeMap, sync::Arc};

use wasmbed_api::MessageBrokerSpec;

use super::{
    config::FleetConfig,
    input::{BrokersOutcome, CallId},
    retry::Retry,
    secrets::Secrets,
};
use crate::{Now, ObjectKey, gateway_api::BrokerEntry};

/// All MessageBrokers.
#[derive(Debug, Default)]
pub(super) struct Brokers {
    pub(super) known: BTreeMap<ObjectKey, Known>,
    pub(super) secrets: Secrets<ObjectKey>,
    /// What gateways are told may be something else.
    pub(super) dirty: bool,
    /// None before all is known.
    pub(super) entries: Option<Arc<[BrokerEntry]>>,
    pub(super) version: u64,
}

#[derive(Debug)]
pub(super) struct Known {
    pub(super) uid: String,
    pub(super) generation: i64,
    pub(super) created_unix_s: u64,
    pub(super) spec: MessageBrokerSpec,
}

impl Known {
    pub(super) fn secret(&self, key: &ObjectKey) -> Option<ObjectKey> {
        self.spec.credentials.as_ref().map(|credentials| key.sibling(&credentials.secret))
    }
}

/// What one gateway was told of brokers.
#[derive(Debug, Default)]
pub(super) struct BrokerDelivery {
    /// Version that it has.
    held: Option<u64>,
    pub(super) put: Option<(CallId, u64)>,
    retry: Retry,
    /// It does not know the call.
    too_old: bool,
}

impl BrokerDelivery {
    /// Its process may be another, or who leads is: what it was told counts for nothing.
    pub(super) fn begin_anew(&mut self) {
        *self = Self::default();
    }

    pub(super) fn resync(&mut self) {
        self.retry.renew();
        self.too_old = false;
    }

    pub(super) fn is_due(&self, now_ms: u64, version: u64) -> bool {
        self.put.is_none() && !self.too_old && self.held != Some(version) && self.retry.is_ready(now_ms)
    }

    pub(super) fn timeout(&self, now_ms: u64) -> Option<u64> {
        self.retry.timeout(now_ms)
    }

    /// A PUT ended; gives a higher leader term that the gateway has seen.
    pub(super) fn end(
        &mut self,
        now: Now,
        config: &FleetConfig,
        id: CallId,
        outcome: BrokersOutcome,
    ) -> Option<u64> {
        let (_, version) = self.put.take_if(|(put, _)| *put == id)?;
        match outcome {
            BrokersOutcome::Taken => {
                self.retry.succeed();
                self.held = Some(version);
            }
            BrokersOutcome::Fenced(refusal) => {
                self.retry.fail(now.ms, config, refusal.message);
                return refusal.leader_term;
            }
            BrokersOutcome::TooOld => self.too_old = true,
            BrokersOutcome::Failed(message) => self.retry.fail(now.ms, config, message),
        }
        None
    }
}
