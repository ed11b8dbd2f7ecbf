//! MessageBrokers: what gateways are told of them.
//!
//! ```text
//! MessageBrokers, labels of Applications, Secrets ── plan_brokers ──> entries, of a version ──poll_brokers──> each gateway
//! ```
//!
//! Every gateway is told of all, since messages of a device may wait on any. Nothing is told before all is known: a broker that is
//! left out is forgotten there, and with it how far it was.

use std::collections::BTreeMap;

use wasmbed_api::{BrokerFormat, BrokerType, MessageBroker, MessageBrokerSpec, ReasonCode};

use super::{
    Fleet,
    application_entry::Application,
    brokers::Known,
    input::{BrokersOutcome, BrokersPut, CallId, Kind},
    secret::{SecretState, SecretValues},
    target::selects,
};
use crate::{
    Now, ObjectKey,
    gateway::config::{BROKERS_MAX, BROKERS_OF_NAMESPACE_MAX},
    gateway_api::{BrokerEntry, BrokerTrouble, PutBrokers},
};

/// Applications that the selector of a broker may select.
const APPLICATIONS_OF_BROKER_MAX: usize = 10_000;

impl Fleet {
    /// A MessageBroker exists.
    pub fn handle_broker(&mut self, now: Now, resource: &MessageBroker) {
        let metadata = &resource.metadata;
        let key = present!(ObjectKey::of(metadata), "the API server sets namespace and name");
        self.mark_listed(Kind::Broker, &key);
        let created = metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        let broker = Known {
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            created_unix_s: u64::try_from(created).unwrap_or(0),
            spec: resource.spec.clone(),
        };
        let secret = broker.secret(&key);
        let before = self.brokers.known.insert(key.clone(), broker);
        let same = before.as_ref().is_some_and(|before| {
            before.generation == resource.metadata.generation.unwrap_or_default()
                && Some(&before.uid) == resource.metadata.uid.as_ref()
        });
        // What only says something in its status changes nothing.
        if same {
            return;
        }
        let before =
            before.and_then(|before| before.secret(&key)).filter(|before| Some(before) != secret.as_ref());
        if let Some(secret) = secret {
            self.brokers.secrets.add_user(now.ms, &secret, key.clone());
        }
        if let Some(before) = before {
            self.brokers.secrets.remove_user(&before, key);
        }
        self.brokers.dirty = true;
    }

    /// A MessageBroker is there and can't be read. Gateways are told that there is one, so that they do not forget how far it is.
    pub(super) fn handle_unreadable_broker(&mut self, key: &ObjectKey, uid: Option<&str>) {
        let uid = uid.unwrap_or_default();
        if self.brokers.known.get(key).is_some_and(|known| known.uid == uid) {
            return;
        }
        self.handle_broker_deleted(key);
        let spec = MessageBrokerSpec { broker: BrokerType::Unknown, ..MessageBrokerSpec::default() };
        let broker = Known { uid: uid.to_owned(), generation: 0, created_unix_s: 0, spec };
        self.brokers.known.insert(key.clone(), broker);
        self.brokers.dirty = true;
    }

    /// A MessageBroker is gone.
    pub fn handle_broker_deleted(&mut self, key: &ObjectKey) {
        if let Some(broker) = self.brokers.known.remove(key) {
            if let Some(secret) = broker.secret(key) {
                self.brokers.secrets.remove_user(&secret, key.clone());
            }
            self.brokers.dirty = true;
        }
    }

    pub(super) fn end_broker_list(&mut self, listed: &std::collections::BTreeSet<ObjectKey>) {
        let gone: Vec<_> = self.brokers.known.keys().filter(|key| !listed.contains(key)).cloned().collect();
        gone.iter().for_each(|key| self.handle_broker_deleted(key));
        self.brokers.dirty = true;
    }

    /// An Application came, went, or has other labels.
    pub(super) fn note_labels(&mut self, namespace: &str) {
        let mut brokers = self.brokers.known.iter();
        self.brokers.dirty |=
            brokers.any(|(key, broker)| *key.namespace == *namespace && broker.spec.selector.is_some());
    }

    /// The Secret of brokers is another, or nothing is known of it any more.
    pub(super) fn note_broker_secrets(&mut self) {
        self.brokers.dirty = true;
    }

    /// Works out what gateways are told, if that may be something else.
    fn settle_brokers(&mut self) {
        if !std::mem::take(&mut self.brokers.dirty) {
            return;
        }
        let Some(entries) = self.plan_brokers() else { return };
        if self.brokers.entries.as_deref() != Some(&*entries) {
            self.brokers.entries = Some(entries.into());
            self.brokers.version += 1;
        }
    }

    /// What gateways are told; `None` if not all is known.
    fn plan_brokers(&self) -> Option<Vec<BrokerEntry>> {
        let mut brokers: Vec<_> = self.brokers.known.iter().collect();
        brokers.sort_by_key(|(key, broker)| (broker.created_unix_s, *key));
        let mut of_namespace: BTreeMap<&str, usize> = BTreeMap::new();
        let mut entries = Vec::new();
        for (key, broker) in brokers.into_iter().take(BROKERS_MAX) {
            let count = of_namespace.entry(&key.namespace).or_default();
            *count += 1;
            let mut entry = BrokerEntry {
                broker: key.clone(),
                uid: broker.uid.clone(),
                generation: broker.generation,
                created_unix_s: broker.created_unix_s,
                kind: kind(broker.spec.broker).to_owned(),
                format: format(broker.spec.format).map(str::to_owned),
                url: broker.spec.url.clone(),
                ca: broker.spec.ca.clone(),
                topics: broker.spec.topics.clone(),
                receive: broker.spec.receive.clone(),
                ..BrokerEntry::default()
            };
            let complete = match *count {
                count if count > BROKERS_OF_NAMESPACE_MAX => trouble(
                    ReasonCode::TooManyBrokers,
                    format!(
                        "{BROKERS_OF_NAMESPACE_MAX} MessageBrokers of a namespace are served, and this is number {count}"
                    ),
                ),
                _ => self.complete(key, broker, &mut entry)?,
            };
            entry.trouble = complete.err();
            entries.push(entry);
        }
        Some(entries)
    }

    /// What an entry has from elsewhere; `None` if that is not known yet.
    fn complete(
        &self,
        key: &ObjectKey,
        broker: &Known,
        entry: &mut BrokerEntry,
    ) -> Option<Result<(), BrokerTrouble>> {
        let spec = &broker.spec;
        let message = match (spec.broker, spec.format) {
            (BrokerType::Mqtt, BrokerFormat::Raw)
            | (BrokerType::Webhook, BrokerFormat::Json | BrokerFormat::Cbor) => None,
            (BrokerType::Unknown, _) | (_, BrokerFormat::Unknown) => Some(
                "spec.type or spec.format is one that this version of the controller does not know; upgrade the controller",
            ),
            (BrokerType::Mqtt, BrokerFormat::Json | BrokerFormat::Cbor) => Some("spec.format of Mqtt is Raw"),
            (BrokerType::Webhook, BrokerFormat::Raw) => Some("spec.format of a Webhook is Json or Cbor"),
        };
        let message = message.or_else(|| {
            let inward = spec.receive.is_some() && spec.broker == BrokerType::Webhook;
            inward.then_some("spec.receive of a Webhook; it belongs to the type Mqtt")
        });
        if let Some(message) = message {
            return Some(trouble(ReasonCode::BrokerInvalid, message.to_owned()));
        }
        if let Some(selector) = &spec.selector {
            let of_namespace =
                self.applications.values().filter(|found| found.key().namespace == key.namespace);
            let selected = of_namespace.filter(|found| selects(selector, found.labels()));
            let uids: Vec<String> = selected.map(Application::uid).map(|uid| uid.to_string()).collect();
            if uids.len() > APPLICATIONS_OF_BROKER_MAX {
                let message = format!(
                    "spec.selector selects {} Applications, at most {APPLICATIONS_OF_BROKER_MAX} are possible; without a selector all are",
                    uids.len()
                );
                return Some(trouble(ReasonCode::BrokerInvalid, message));
            }
            entry.applications = Some(uids);
        }
        let Some(secret) = broker.secret(key) else { return Some(Ok(())) };
        Some(match self.brokers.secrets.state(&secret) {
            SecretState::Unread => return None,
            SecretState::Held(values) => credentials(&secret, values, entry),
            SecretState::Missing => trouble(
                ReasonCode::SecretNotFound,
                format!(
                    "spec.credentials names Secret {}, and there is none in namespace {}; create it",
                    secret.name, secret.namespace
                ),
            ),
            SecretState::Forbidden(answer) => trouble(
                ReasonCode::SecretForbidden,
                format!("the controller may not read Secret {}: {answer}", secret.name),
            ),
            SecretState::Unavailable(error) => trouble(
                ReasonCode::SecretUnavailable,
                format!("Secret {} could not be read: {error}", secret.name),
            ),
        })
    }

    /// The next PUT of brokers; at most one per gateway is on its way. Call until there is none.
    pub fn poll_brokers(&mut self, now: Now) -> Option<BrokersPut> {
        let leader_term = self.term.filter(|_| self.term_wanted().is_none() && self.is_complete())?;
        if !self.listed.contains(&Kind::Broker) {
            return None;
        }
        self.settle_brokers();
        let (entries, version) = (self.brokers.entries.clone()?, self.brokers.version);
        let (name, address) = self.gateways.iter().find_map(|(name, gateway)| {
            let due = gateway.has_snapshot() && gateway.brokers().is_due(now.ms, version);
            Some((name.clone(), gateway.address().filter(|_| due && self.is_live(now, gateway))?.clone()))
        })?;
        let id = self.next_call();
        self.gateways.get_mut(&name)?.brokers_mut().put = Some((id, version));
        let body = PutBrokers { leader_term, brokers: entries.to_vec() };
        Some(BrokersPut { id, gateway: name, address, body })
    }

    /// How a PUT of brokers ended.
    pub fn handle_brokers_outcome(&mut self, now: Now, name: &str, id: CallId, outcome: BrokersOutcome) {
        let gateway = present!(self.gateways.get_mut(name), "a gateway that was called is known");
        let term_seen = gateway.brokers_mut().end(now, &self.config, id, outcome);
        self.term_seen = self.term_seen.max(term_seen.unwrap_or(0));
    }
}

fn trouble(reason: ReasonCode, message: String) -> Result<(), BrokerTrouble> {
    Err(BrokerTrouble { reason, message })
}

/// What a Secret says of who the gateways are to the broker.
fn credentials(
    secret: &ObjectKey,
    values: &SecretValues,
    entry: &mut BrokerEntry,
) -> Result<(), BrokerTrouble> {
    entry.username = values.text("username").cloned();
    entry.password = values.text("password").cloned();
    entry.certificate = values.text("tls.crt").cloned();
    entry.key = values.text("tls.key").cloned();
    let is_webhook = entry.kind == kind(BrokerType::Webhook);
    entry.token = values.text("token").filter(|_| is_webhook).cloned();
    let name = &secret.name;
    if entry.username.is_none() && entry.certificate.is_none() && entry.token.is_none() {
        let missing = if is_webhook {
            format!("Secret {name} has none of token, username and password, tls.crt and tls.key as texts")
        } else {
            format!("Secret {name} has neither username and password nor tls.crt and tls.key as texts")
        };
        return trouble(ReasonCode::BrokerInvalid, missing);
    }
    Ok(())
}

fn kind(broker: BrokerType) -> &'static str {
    match broker {
        BrokerType::Mqtt => "Mqtt",
        BrokerType::Webhook => "Webhook",
        BrokerType::Unknown => "Unknown",
    }
}

/// None where there is no choice.
fn format(format: BrokerFormat) -> Option<&'static str> {
    match format {
        BrokerFormat::Json => Some("Json"),
        BrokerFormat::Cbor => Some("Cbor"),
        BrokerFormat::Raw | BrokerFormat::Unknown => None,
    }
}
