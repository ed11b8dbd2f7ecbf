//! What a broker is to get, and how it is reached.

use std::{collections::BTreeMap, sync::Arc};

use wasmbed_api::ReasonCode;
use wasmbed_protocol::ApplicationUid;

use super::super::{cursor, record::Stored};
use crate::{Hidden, ObjectKey, UnixTime, gateway_api::BrokerEntry, harmless, key::short_name};

/// Ports without one in the URL, as IANA has them: `secure-mqtt`, `mqtt` and `https`.
const MQTT_PORTS: &[(&str, bool, u16)] = &[("mqtts://", true, 8883), ("mqtt://", false, 1883)];
const WEBHOOK_PORTS: &[(&str, bool, u16)] = &[("https://", true, 443)];
/// What a broker said at most in a status.
const MESSAGE_BYTES_MAX: usize = 512;

/// How a broker is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerEndpoint {
    /// A name or an IPv4 address, which its certificate is for.
    pub host: String,
    /// TCP.
    pub port: u16,
    /// With TLS.
    pub tls: bool,
    /// PEM of the certificates that its own leads to; those that the system trusts if there is none.
    pub ca: Option<String>,
    /// What it speaks.
    pub speaks: Speaks,
    /// Whether messages come in from it.
    pub receives: bool,
    /// User name.
    pub username: Option<Hidden<String>>,
    /// Password.
    pub password: Option<Hidden<String>>,
    /// Bearer's token (RFC 6750), of a webhook.
    pub token: Option<Hidden<String>>,
    /// PEM of the gateway's certificate for it, and of its key.
    pub certificate: Option<(Hidden<String>, Hidden<String>)>,
}

/// What a broker speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// MQTT 5.
    Mqtt,
    /// HTTP/1.1: batches by POST.
    Webhook {
        /// With the query.
        path: String,
        /// Of a batch.
        format: BatchFormat,
    },
}

/// How a batch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchFormat {
    /// `application/json` (RFC 8259).
    Json,
    /// `application/cbor` (RFC 8949).
    Cbor,
}

/// Why messages don't reach a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerFailure {
    /// As statuses have it.
    pub reason: ReasonCode,
    /// For people.
    pub message: String,
    /// The broker asks not to be tried for so long, at least.
    pub retry_after_ms: u64,
}

impl BrokerFailure {
    /// With what the broker or the network said made harmless and short.
    #[must_use]
    pub fn new(reason: ReasonCode, message: &str) -> Self {
        Self { reason, message: harmless(message, MESSAGE_BYTES_MAX).into_owned(), retry_after_ms: 0 }
    }
}

/// Reads the URL and the credentials of a broker.
pub(super) fn endpoint(entry: &BrokerEntry) -> Result<BrokerEndpoint, BrokerFailure> {
    if let Some(trouble) = &entry.trouble {
        return Err(BrokerFailure::new(trouble.reason, &trouble.message));
    }
    let invalid = |message: &str| Err(BrokerFailure::new(ReasonCode::BrokerInvalid, message));
    let ports = match entry.kind.as_str() {
        "Mqtt" => MQTT_PORTS,
        "Webhook" => WEBHOOK_PORTS,
        _ => {
            return invalid(
                "spec.type is one that this version of the gateway does not know; upgrade the gateway",
            );
        }
    };
    let scheme =
        ports.iter().find_map(|(scheme, tls, port)| Some((entry.url.strip_prefix(scheme)?, *tls, *port)));
    let Some((rest, tls, port)) = scheme else {
        return invalid(if entry.kind == "Mqtt" {
            "spec.url begins with neither mqtts:// nor mqtt://"
        } else {
            "spec.url of a Webhook does not begin with https://"
        });
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let speaks = match (entry.kind.as_str(), entry.format.as_deref(), path) {
        ("Mqtt", _, "") => Speaks::Mqtt,
        ("Mqtt", ..) => return invalid("spec.url of Mqtt has a path"),
        (_, Some("Json"), _) => Speaks::webhook(path, BatchFormat::Json),
        (_, Some("Cbor"), _) => Speaks::webhook(path, BatchFormat::Cbor),
        _ => {
            return invalid(
                "spec.format is one that this version of the gateway does not know; upgrade the gateway",
            );
        }
    };
    if entry.receive.is_some() && speaks != Speaks::Mqtt {
        return invalid("spec.receive of a Webhook; it belongs to the type Mqtt");
    }
    let (host, port) = match authority.split_once(':') {
        None => (authority, port),
        Some((host, port)) => match port.parse() {
            Ok(port) if port > 0 => (host, port),
            _ => return invalid("the port of spec.url is not between 1 and 65535"),
        },
    };
    let plain = |character: char| character.is_ascii_alphanumeric() || "-.".contains(character);
    if host.is_empty() || !host.chars().all(plain) {
        return invalid("the host of spec.url is neither a name nor an IPv4 address");
    }
    let in_path = |character: char| character.is_ascii_graphic() && !"\"#<>\\^`{|}".contains(character);
    if !path.chars().all(in_path) {
        return invalid("the path of spec.url has a character that has to be percent-encoded");
    }
    if entry.token.as_ref().is_some_and(|token| !token.chars().all(|character| character.is_ascii_graphic()))
    {
        return invalid("token of the Secret of spec.credentials has characters that no header may have");
    }
    if entry.token.is_some() && entry.username.is_some() {
        return invalid("the Secret of spec.credentials has token and username, of which one can be sent");
    }
    let certificate = match (&entry.certificate, &entry.key) {
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        (None, None) => None,
        _ => return invalid("of tls.crt and tls.key the Secret of spec.credentials has one alone"),
    };
    if certificate.is_some() && !tls {
        return invalid("the Secret of spec.credentials has tls.crt, which needs a spec.url with mqtts://");
    }
    Ok(BrokerEndpoint {
        host: host.to_owned(),
        port,
        tls,
        ca: entry.ca.clone(),
        speaks,
        receives: entry.receive.is_some(),
        username: entry.username.clone(),
        password: entry.password.clone(),
        token: entry.token.clone(),
        certificate,
    })
}

impl Speaks {
    fn webhook(path: &str, format: BatchFormat) -> Self {
        Self::Webhook { path: if path.is_empty() { "/".to_owned() } else { path.to_owned() }, format }
    }
}

/// Which messages a broker is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    namespace: String,
    /// All if none. Of an application that it does not select any more it has those up to a number.
    applications: Option<BTreeMap<ApplicationUid, u64>>,
    /// All if empty.
    topics: Vec<String>,
}

impl Filter {
    /// As the entry says. What `before` let pass and this does not stays let pass up to the message `last`, if it is after `position`.
    pub(super) fn new(entry: &BrokerEntry, before: Option<&Self>, position: u64, last: u64) -> Self {
        let selected = entry.applications.as_ref().map(|uids| {
            let uids = uids.iter().filter_map(|uid| uid.parse().ok());
            let mut selected: BTreeMap<ApplicationUid, u64> = uids.map(|uid| (uid, u64::MAX)).collect();
            for (uid, until) in before.and_then(|before| before.applications.as_ref()).into_iter().flatten() {
                let until = (*until).min(last);
                if until > position {
                    selected.entry(*uid).or_insert(until);
                }
            }
            selected
        });
        Self {
            namespace: entry.broker.namespace.clone(),
            applications: selected,
            topics: entry.topics.clone(),
        }
    }

    /// Whether it selects an application, whatever it selected before.
    pub(super) fn selects(&self, application: &ApplicationUid) -> bool {
        let selected = |uids: &BTreeMap<ApplicationUid, u64>| uids.get(application) == Some(&u64::MAX);
        self.applications.as_ref().is_none_or(selected)
    }

    pub(super) fn takes(&self, number: u64, message: &Stored<'_>) -> bool {
        let selected = |selected: &BTreeMap<ApplicationUid, u64>| {
            selected.get(&message.uid).is_some_and(|until| number <= *until)
        };
        *message.device.0 == *self.namespace
            && (self.topics.is_empty() || self.topics.iter().any(|topic| topic == message.topic))
            && self.applications.as_ref().is_none_or(selected)
    }
}

/// Which messages are read for a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerCursor {
    pub(super) filter: Arc<Filter>,
    /// Messages up to this number were read.
    pub(super) read: u64,
    /// And those after this one are not.
    pub(super) until: u64,
    /// As many messages at most.
    pub(super) room: usize,
    /// And as many bytes of payloads, if there is one message.
    pub(super) room_bytes: usize,
    /// They are counted alone.
    pub(super) counts: bool,
    /// How often the disk had let go of something for the broker when this was made.
    pub(super) let_gos: u64,
}

/// What was read for a broker.
#[derive(Debug, Default)]
pub struct BrokerPage {
    pub(super) messages: Vec<BrokerMessage>,
    /// Of messages that were counted.
    pub(super) counted: (u64, u64),
    /// Up to here.
    pub(super) read: u64,
    /// As the cursor has it.
    pub(super) let_gos: u64,
}

/// One message, as a broker gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerMessage {
    /// Ascends over all messages of the gateway.
    pub number: u64,
    /// `wasmbed/NAMESPACE/APPLICATION/DEVICE/TOPIC`.
    pub topic: String,
    /// As it was published.
    pub payload: Vec<u8>,
    /// What tells it from others, and more about it.
    pub properties: Vec<(&'static str, String)>,
}

impl BrokerMessage {
    fn new(number: u64, message: &Stored<'_>) -> Self {
        let (namespace, device) = message.device;
        let mut properties = vec![
            ("device_uid", message.device_uid.to_owned()),
            ("boot", message.start.boot.to_string()),
            ("sequence", message.sequence.to_string()),
            ("time", UnixTime::from_ms(message.unix_ms).to_string()),
            ("application_uid", message.uid.to_string()),
        ];
        if message.lost > 0 {
            properties.push(("messages_lost", message.lost.to_string()));
        }
        Self {
            number,
            topic: format!(
                "wasmbed/{namespace}/{}/{device}/{}",
                short_name(message.application),
                message.topic
            ),
            payload: message.payload.to_vec(),
            properties,
        }
    }
}

impl BrokerCursor {
    /// The first record that may have messages that were not read.
    #[must_use]
    pub fn record(&self) -> u64 {
        cursor::record_after(self.read)
    }

    /// The page that the records after this one are read into.
    #[must_use]
    pub fn page(&self) -> BrokerPage {
        BrokerPage { read: self.read, let_gos: self.let_gos, ..BrokerPage::default() }
    }

    /// Reads the record of this number; whether the next one may be read too.
    pub fn read_record(&self, page: &mut BrokerPage, number: u64, bytes: &[u8]) -> bool {
        let mut room_bytes = self.room_bytes.saturating_sub(page.bytes());
        for (number, message) in cursor::numbered(number, bytes) {
            if number > self.until {
                page.read = self.until;
                return false;
            }
            if number <= page.read {
                continue;
            }
            if self.filter.takes(number, &message) {
                if self.counts {
                    page.counted.0 += 1;
                    page.counted.1 += message.payload.len() as u64;
                } else {
                    let fits = page.messages.is_empty() || message.payload.len() <= room_bytes;
                    if page.messages.len() >= self.room || !fits {
                        return false;
                    }
                    room_bytes = room_bytes.saturating_sub(message.payload.len());
                    page.messages.push(BrokerMessage::new(number, &message));
                }
            }
            page.read = number;
        }
        // Whatever else it has is not readable.
        page.read = page.read.max(cursor::last_of(number)).min(self.until);
        page.read < self.until
    }
}

impl BrokerPage {
    fn bytes(&self) -> usize {
        self.messages.iter().map(|message| message.payload.len()).sum()
    }

    /// There is nothing after what was read.
    pub fn finish(&mut self, cursor: &BrokerCursor) {
        self.read = cursor.until;
    }
}

/// A broker of the definitions, to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerLink {
    /// Its MessageBroker.
    pub broker: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// How it is reached.
    pub endpoint: BrokerEndpoint,
}
