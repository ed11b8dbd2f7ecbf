//! MessageBroker: where messages of a namespace's applications go from the gateways, and where they may come from.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ReasonCode,
    schema::{
        self, BROKER_URL_PATTERN, NAME_MAX, NAME_PATTERN, TEXT_MAX, TIME_MAX, TOPIC_MAX, TOPIC_PATTERN,
    },
};

/// Gateways that a status has room for.
pub const BROKER_GATEWAYS_MAX: usize = 256;
/// Longest `spec.ca`, characters.
pub const BROKER_CA_MAX: usize = 32_768;

/// Takes the messages that applications of its namespace publish, from every gateway, each at least once; `receive` lets messages in.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "wasmbed.github.io",
    version = "v1alpha1",
    kind = "MessageBroker",
    namespaced,
    derive = "PartialEq",
    status = "MessageBrokerStatus",
    shortname = "wmb",
    category = "wasmbed",
    printcolumn = r#"{"name": "Type", "type": "string", "jsonPath": ".spec.type"}"#,
    printcolumn = r#"{"name": "URL", "type": "string", "jsonPath": ".spec.url"}"#,
    printcolumn = r#"{"name": "Gateway", "type": "string", "jsonPath": ".status.gateways[0].gateway", "description": "the first of perhaps several", "priority": 1}"#,
    printcolumn = r#"{"name": "Connected", "type": "boolean", "jsonPath": ".status.gateways[0].connected", "description": "of that gateway", "priority": 1}"#,
    printcolumn = r#"{"name": "Waiting", "type": "integer", "jsonPath": ".status.gateways[0].waiting_messages", "description": "messages of that gateway that the broker has not acknowledged", "priority": 1}"#,
    printcolumn = r#"{"name": "Error", "type": "string", "jsonPath": ".status.gateways[0].last_error.reason", "description": "of that gateway", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.ca) || !self.url.startsWith('mqtt:')",
    "message": "ca belongs to a url that begins with mqtts:// or https://",
}, {
    "rule": "(self.type == 'Webhook') == self.url.startsWith('https:')",
    "message": "the url of a Webhook begins with https://, and that of Mqtt with mqtts:// or mqtt://",
}, {
    "rule": "(self.type == 'Webhook') == (has(self.format) && self.format != 'Raw')",
    "message": "the format of a Webhook is Json or Cbor, and that of Mqtt is Raw",
}, {
    "rule": "!has(self.receive) || self.type == 'Mqtt'",
    "message": "receive belongs to the type Mqtt",
}]))]
pub struct MessageBrokerSpec {
    /// What it speaks: `Mqtt`, which is MQTT 5, or `Webhook`, which takes batches by HTTPS.
    #[serde(rename = "type")]
    pub broker: BrokerType,
    /// `mqtts://host:port`, or `mqtt://host:port` without TLS; without a port 8883 and 1883. Of a Webhook `https://host:port/path`;
    /// without a port 443.
    #[schemars(length(min = 8, max = 300), regex(pattern = BROKER_URL_PATTERN))]
    pub url: String,
    /// PEM of the certificates that the broker's leads to; without it those that the gateway's system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = BROKER_CA_MAX))]
    pub ca: Option<String>,
    /// How gateways prove to it who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<BrokerCredentials>,
    /// Applications by label; without it all of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub selector: Option<LabelSelector>,
    /// Topics as Applications declare them; without any all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = TOPIC_MAX), regex(pattern = TOPIC_PATTERN)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub topics: Vec<String>,
    /// What a message becomes: `Raw`, its payload as it is; for a Webhook a member of a batch in `Json` or `Cbor`.
    #[serde(default)]
    pub format: BrokerFormat,
    /// What comes in from it; without this nothing does. Of `Mqtt` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive: Option<BrokerReceive>,
}

/// What comes in from a broker: messages that it hands over on `wasmbed-in/NAMESPACE/APPLICATION/DEVICE/TOPIC`, for Applications that
/// `selector` selects and that declare the topic with `direction: In`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerReceive {
    /// Topics as Applications declare them.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = TOPIC_MAX), regex(pattern = TOPIC_PATTERN)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub topics: Vec<String>,
    /// Names of Applications; without any all that `selector` selects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = NAME_MAX), regex(pattern = NAME_PATTERN)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub applications: Vec<String>,
}

/// What a broker speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BrokerType {
    /// MQTT 5.
    #[default]
    Mqtt,
    /// Batches by POST (HTTP/1.1) over TLS.
    Webhook,
    /// One of a later version.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// What a message becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BrokerFormat {
    /// Its payload as it is.
    #[default]
    Raw,
    /// A member of a batch in JSON, its payload in base64.
    Json,
    /// A member of a batch in CBOR.
    Cbor,
    /// One of a later version.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// How gateways prove to a broker who they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerCredentials {
    /// A Secret of the same namespace with `username` and `password`, with `tls.crt` and `tls.key`, or with all of them; for a Webhook
    /// `token`, which is sent as a bearer's, may be in place of a user. The namespace's owner lets controllers read it, by a RoleBinding of
    /// the ClusterRole wasmbed-secret-reader.
    #[schemars(length(min = 1, max = NAME_MAX), regex(pattern = NAME_PATTERN))]
    pub secret: String,
}

/// What gateways say of a broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MessageBrokerStatus {
    /// One entry of each gateway, written by it alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = BROKER_GATEWAYS_MAX))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["gateway"]))]
    pub gateways: Vec<BrokerGateway>,
}

/// What one gateway says of a broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerGateway {
    /// Name of the gateway.
    #[schemars(length(min = 1, max = NAME_MAX))]
    pub gateway: String,
    /// Whether the broker has accepted its connection.
    #[serde(default)]
    pub connected: bool,
    /// Messages for the broker that it has not acknowledged, unless they are being counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub waiting_messages: Option<i64>,
    /// Bytes of their payloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub waiting_bytes: Option<i64>,
    /// Messages that the broker acknowledged since the gateway's start.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub sent: i64,
    /// Messages that the gateway's bounds let go of before the broker acknowledged them, since the gateway's start.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub dropped: i64,
    /// Messages that the broker refused for what they are, since the gateway's start. They are not sent again.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub refused: i64,
    /// What comes in, if `spec.receive` says that something does. Gateways of earlier versions let nothing in and say nothing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive: Option<BrokerReceived>,
    /// What went wrong last; it goes once messages are acknowledged again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<BrokerError>,
    /// The generation that this speaks of.
    #[serde(rename = "observedGeneration", default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// RFC 3339 time of this entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TIME_MAX), extend("format" = "date-time"))]
    pub observed_at: Option<String>,
}

/// What came in from a broker at one gateway, since the gateway's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerReceived {
    /// Whether the broker has accepted the subscription.
    #[serde(default)]
    pub subscribed: bool,
    /// Messages that are in the mailbox of their application.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub delivered: i64,
    /// Messages that reached no mailbox. They are not sent again.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub refused: i64,
    /// The last of those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<BrokerRefusal>,
}

/// A message that reached no mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerRefusal {
    /// In CamelCase, as documented.
    #[schemars(length(min = 1, max = 64))]
    pub result: String,
    /// For people: the topic, and what is wrong with the message.
    #[serde(default)]
    #[schemars(length(max = TEXT_MAX))]
    pub message: String,
    /// RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TIME_MAX), extend("format" = "date-time"))]
    pub at: Option<String>,
}

/// What went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerError {
    /// As one of the documented reasons.
    pub reason: ReasonCode,
    /// For people.
    #[serde(default)]
    #[schemars(length(max = TEXT_MAX))]
    pub message: String,
    /// RFC 3339 time at which it went wrong for the first time since it worked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TIME_MAX), extend("format" = "date-time"))]
    pub since: Option<String>,
}
