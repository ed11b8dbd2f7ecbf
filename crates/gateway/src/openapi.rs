//! The operations of the HTTPS API, in one table: the router is built from it and the OpenAPI document is made from it, so
//! that neither can have what the other lacks.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};
use wasmbed_control::gateway_api::{
    LogLine, MessageLine, PostMessage, PostMessageAnswer, PutBrokers, PutBrokersAnswer, PutDecommissions,
    PutDecommissionsAnswer, PutSets, PutSetsAnswer, PutSettings, PutSettingsAnswer, Refusal, SettingsReport,
    StreamEvent,
};

/// Which operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Id {
    PutSets,
    PutDecommissions,
    PutBrokers,
    PutSettings,
    HasModule,
    PutModule,
    Stream,
    Logs,
    Messages,
    PostMessage,
    Settings,
    Document,
}

/// For whom an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callers {
    /// Controllers alone.
    Controllers,
    /// People, each of whom the Kubernetes API has to allow it.
    People,
    /// Whoever has a certificate.
    Everybody,
}

/// One operation.
pub(crate) struct Operation {
    pub(crate) id: Id,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    /// For whom.
    pub(crate) callers: Callers,
    /// Whether the answer lasts as long as the connection.
    pub(crate) streams: bool,
    summary: &'static str,
    /// Name, whether it is required, description; in the query unless it is part of the path.
    parameters: &'static [(&'static str, bool, &'static str)],
    body: Option<Content>,
    answers: &'static [(u16, &'static str, Option<Content>)],
}

/// A body: its media type and, for JSON, the name of its schema.
#[derive(Clone, Copy)]
struct Content(&'static str, Option<&'static str>);

const JSON: &str = "application/json";
const REFUSAL: Option<Content> = Some(Content(JSON, Some("Refusal")));

/// The operation that a request is: whoever answers GET answers HEAD (RFC 9110 section 9.3.2).
pub(crate) fn operation(path: &str, method: &str) -> Option<&'static Operation> {
    let of = |method: &str| {
        OPERATIONS
            .iter()
            .find(|operation| operation.path == path && operation.method.eq_ignore_ascii_case(method))
    };
    of(method).or_else(|| of("get").filter(|_| method.eq_ignore_ascii_case("head")))
}

/// All operations.
pub(crate) const OPERATIONS: &[Operation] = &[
    Operation {
        id: Id::PutSets,
        method: "put",
        path: "/v1/sets",
        callers: Callers::Controllers,
        streams: false,
        summary: "Puts full desired sets of some devices; answered once they are on the gateway's disk. Idempotent.",
        parameters: &[],
        body: Some(Content(JSON, Some("PutSets"))),
        answers: &[
            (200, "Taken, apart from those that are listed", Some(Content(JSON, Some("PutSetsAnswer")))),
            (
                400,
                "The body is not what it should be, or nobody leads in its term (TermOutOfRange, TermNotGiven)",
                REFUSAL,
            ),
            (408, "The body comes too slowly", REFUSAL),
            (409, "The leader term is lower than one seen", REFUSAL),
            (413, "The body is too large", REFUSAL),
            (
                503,
                "The disk failed or does not keep up (StoreFailed), the leader's Lease can't be read (LeaseUnread), or another process holds the gateway's Lease (NotHolder)",
                REFUSAL,
            ),
        ],
    },
    Operation {
        id: Id::PutDecommissions,
        method: "put",
        path: "/v1/decommissions",
        callers: Callers::Controllers,
        streams: false,
        summary: "Puts the orders to take devices out of service that are open for devices of this gateway, all of them: others are dropped. Answered once they are on the gateway's disk. Idempotent.",
        parameters: &[],
        body: Some(Content(JSON, Some("PutDecommissions"))),
        answers: &[
            (
                200,
                "Taken, apart from those that are listed",
                Some(Content(JSON, Some("PutDecommissionsAnswer"))),
            ),
            (
                400,
                "The body is not what it should be, has too many orders (TooManyOrders), or nobody leads in its term (TermOutOfRange, TermNotGiven)",
                REFUSAL,
            ),
            (408, "The body comes too slowly", REFUSAL),
            (409, "The leader term is lower than one seen", REFUSAL),
            (413, "The body is too large", REFUSAL),
            (
                503,
                "The disk failed or does not keep up (StoreFailed), the leader's Lease can't be read (LeaseUnread), or another process holds the gateway's Lease (NotHolder)",
                REFUSAL,
            ),
        ],
    },
    Operation {
        id: Id::PutBrokers,
        method: "put",
        path: "/v1/brokers",
        callers: Callers::Controllers,
        streams: false,
        summary: "Puts the brokers to which messages of applications go, all of them: others are dropped, and with them how far they were. They are kept in memory. Idempotent.",
        parameters: &[],
        body: Some(Content(JSON, Some("PutBrokers"))),
        answers: &[
            (200, "Taken", Some(Content(JSON, Some("PutBrokersAnswer")))),
            (
                400,
                "The body is not what it should be, has too many brokers (TooManyBrokers), or nobody leads in its term (TermOutOfRange, TermNotGiven)",
                REFUSAL,
            ),
            (408, "The body comes too slowly", REFUSAL),
            (409, "The leader term is lower than one seen", REFUSAL),
            (413, "The body is too large", REFUSAL),
            (
                503,
                "The gateway does not keep up, the leader's Lease can't be read (LeaseUnread), or another process holds the gateway's Lease (NotHolder)",
                REFUSAL,
            ),
        ],
    },
    Operation {
        id: Id::PutSettings,
        method: "put",
        path: "/v1/settings",
        callers: Callers::Controllers,
        streams: false,
        summary: "Puts the settings of all applications of some devices; answered once they are on the gateway's disk. Idempotent.",
        parameters: &[],
        body: Some(Content(JSON, Some("PutSettings"))),
        answers: &[
            (200, "Taken, apart from those that are listed", Some(Content(JSON, Some("PutSettingsAnswer")))),
            (
                400,
                "The body is not what it should be, has too many devices (TooManySettings), or nobody leads in its term (TermOutOfRange, TermNotGiven)",
                REFUSAL,
            ),
            (408, "The body comes too slowly", REFUSAL),
            (409, "The leader term is lower than one seen", REFUSAL),
            (413, "The body is too large", REFUSAL),
            (
                503,
                "The disk failed or does not keep up (StoreFailed), the leader's Lease can't be read (LeaseUnread), or another process holds the gateway's Lease (NotHolder)",
                REFUSAL,
            ),
        ],
    },
    Operation {
        id: Id::HasModule,
        method: "head",
        path: "/v1/modules/{digest}",
        callers: Callers::Controllers,
        streams: false,
        summary: "Whether the gateway has a module.",
        parameters: &[("digest", true, "SHA-256 of the module, 64 hex digits")],
        body: None,
        answers: &[
            (200, "It has", None),
            (404, "It has not", None),
            (400, "The digest is no digest", REFUSAL),
        ],
    },
    Operation {
        id: Id::PutModule,
        method: "put",
        path: "/v1/modules/{digest}",
        callers: Callers::Controllers,
        streams: false,
        summary: "Uploads a module of at most 1 MiB.",
        parameters: &[("digest", true, "SHA-256 of the module, 64 hex digits")],
        body: Some(Content("application/wasm", None)),
        answers: &[
            (200, "It was here already", None),
            (201, "It is on the gateway's disk", None),
            (400, "The bytes do not have that digest", REFUSAL),
            (408, "The body comes too slowly", REFUSAL),
            (413, "The module is too large, or empty", REFUSAL),
            (507, "There is no space left", REFUSAL),
        ],
    },
    Operation {
        id: Id::Stream,
        method: "get",
        path: "/v1/stream",
        callers: Callers::Controllers,
        streams: true,
        summary: "What the gateway knows of its devices: a snapshot unless the token can be resumed, then changes.",
        parameters: &[("token", false, "The token of the last line that was read")],
        body: None,
        answers: &[
            (200, "One event a line", Some(Content("application/x-ndjson", Some("StreamEvent")))),
            (400, "An unknown parameter", REFUSAL),
            (429, "The caller reads as many streams as it may", REFUSAL),
        ],
    },
    Operation {
        id: Id::Logs,
        method: "get",
        path: "/v1/logs",
        callers: Callers::People,
        streams: true,
        summary: "The last lines of applications' logs, and with `follow` those that come.",
        parameters: &[
            ("namespace", false, "Namespace of the applications and devices; all if absent"),
            ("application", false, "Name of the application; all if absent"),
            ("device", false, "Name of the device; all if absent"),
            ("follow", false, "`true` to go on with new lines"),
        ],
        body: None,
        answers: &[
            (200, "One line of a log a line", Some(Content("application/x-ndjson", Some("LogLine")))),
            (400, "An unknown or missing parameter", REFUSAL),
            (
                403,
                "Nobody whom the Kubernetes API allows it: get applications/log of the application, or devices/log of the device (Forbidden), or the certificate has expired (Expired)",
                REFUSAL,
            ),
            (
                429,
                "The caller reads as many streams as it may (TooManyStreams), or asks for too much at once (TooManyQuestions)",
                REFUSAL,
            ),
            (503, "The Kubernetes API does not say whether the caller may (NotKnown)", REFUSAL),
        ],
    },
    Operation {
        id: Id::Messages,
        method: "get",
        path: "/v1/messages",
        callers: Callers::People,
        streams: true,
        summary: "What applications published and the gateway's disk has, the oldest first, and with `follow` what comes.",
        parameters: &[
            ("namespace", false, "Namespace of the devices; all if absent"),
            ("application", false, "Name of the application; all if absent"),
            ("device", false, "Name of the device; all if absent"),
            ("topic", false, "Name of the topic; all if absent"),
            ("since", false, "Messages that came before this time (RFC 3339) are left out"),
            ("after", false, "Messages up to this number are left out: that of the last one that was read"),
            ("follow", false, "`true` to go on with new messages"),
        ],
        body: None,
        answers: &[
            (200, "One message a line", Some(Content("application/x-ndjson", Some("MessageLine")))),
            (400, "An unknown or invalid parameter", REFUSAL),
            (
                403,
                "Nobody whom the Kubernetes API allows it: get devices/messages of the device, or of all of them (Forbidden), or the certificate has expired (Expired)",
                REFUSAL,
            ),
            (404, "This gateway takes no messages (NoMessages)", REFUSAL),
            (
                429,
                "The caller reads as many streams as it may (TooManyStreams), or asks for too much at once (TooManyQuestions)",
                REFUSAL,
            ),
            (503, "The Kubernetes API does not say whether the caller may (NotKnown)", REFUSAL),
        ],
    },
    Operation {
        id: Id::PostMessage,
        method: "post",
        path: "/v1/messages",
        callers: Callers::People,
        streams: false,
        summary: "Sends a message to an application on some devices; answered once each device has answered, after ten seconds at the latest. Not idempotent.",
        parameters: &[],
        body: Some(Content(JSON, Some("PostMessage"))),
        answers: &[
            (200, "What became of it on each device", Some(Content(JSON, Some("PostMessageAnswer")))),
            (400, "The body is not what it should be", REFUSAL),
            (
                403,
                "Nobody whom the Kubernetes API allows it: create devices/messages of the device, or of all of the namespace where more than one is named (Forbidden), or the certificate has expired (Expired)",
                REFUSAL,
            ),
            (408, "The body comes too slowly", REFUSAL),
            (413, "The body is too large", REFUSAL),
            (429, "The caller asks for too much at once (TooManyQuestions)", REFUSAL),
            (
                503,
                "The Kubernetes API does not say whether the caller may (NotKnown), or the gateway stops",
                REFUSAL,
            ),
        ],
    },
    Operation {
        id: Id::Settings,
        method: "get",
        path: "/v1/settings",
        callers: Callers::People,
        streams: false,
        summary: "What the settings of an application are on the devices of its namespace whose sets are here, and what the devices said of them.",
        parameters: &[
            ("namespace", true, "Of the Application and the Devices"),
            ("application", true, "Name of the Application"),
            ("device", false, "Name of one Device"),
            ("after", false, "Devices up to this name are left out: continue_after of the answer before"),
        ],
        body: None,
        answers: &[
            (200, "By device and name", Some(Content(JSON, Some("SettingsReport")))),
            (400, "The query is not what it should be", REFUSAL),
            (
                403,
                "Nobody whom the Kubernetes API allows it: get devices/settings of the device, or of all of the namespace (Forbidden), or the certificate has expired (Expired)",
                REFUSAL,
            ),
            (429, "The caller asks for too much at once (TooManyQuestions)", REFUSAL),
            (503, "The Kubernetes API does not say whether the caller may (NotKnown)", REFUSAL),
        ],
    },
    Operation {
        id: Id::Document,
        method: "get",
        path: "/openapi.json",
        callers: Callers::Everybody,
        streams: false,
        summary: "This document.",
        parameters: &[],
        body: None,
        answers: &[(200, "OpenAPI 3.1", Some(Content(JSON, None)))],
    },
];

/// The OpenAPI 3.1 document of the gateway's HTTPS API.
#[must_use]
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
    });
    let mut generator = SchemaGenerator::new(settings);
    generator.subschema_for::<PutSets>();
    generator.subschema_for::<PutSetsAnswer>();
    generator.subschema_for::<PutBrokers>();
    generator.subschema_for::<PutBrokersAnswer>();
    generator.subschema_for::<PutDecommissions>();
    generator.subschema_for::<PutDecommissionsAnswer>();
    generator.subschema_for::<PutSettings>();
    generator.subschema_for::<PutSettingsAnswer>();
    generator.subschema_for::<SettingsReport>();
    generator.subschema_for::<StreamEvent>();
    generator.subschema_for::<LogLine>();
    generator.subschema_for::<MessageLine>();
    generator.subschema_for::<PostMessage>();
    generator.subschema_for::<PostMessageAnswer>();
    generator.subschema_for::<Refusal>();
    let mut paths = json!({});
    for operation in OPERATIONS {
        paths[operation.path][operation.method] = describe(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Wasmbed gateway",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "For controllers, by the SPIFFE id in their client certificates, and for people, by the Kubernetes \
                            user in theirs and what the Kubernetes API allows that user.",
            "license": { "name": "Apache-2.0" },
        },
        "security": [{ "certificate": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "certificate": { "type": "mutualTLS" } },
            "schemas": generator.take_definitions(true),
        },
    })
}

fn describe(operation: &Operation) -> Value {
    let parameters: Vec<_> = operation
        .parameters
        .iter()
        .map(|(name, required, description)| {
            let place = if operation.path.contains(&format!("{{{name}}}")) { "path" } else { "query" };
            let kind = match *name {
                "follow" => "boolean",
                "after" => "integer",
                _ => "string",
            };
            json!({
                "name": name, "in": place, "required": required, "description": description,
                "schema": { "type": kind },
            })
        })
        .collect();
    let mut responses = json!({
        "403": { "description": "It is not for this caller", "content": content(&REFUSAL) },
    });
    for (status, description, body) in operation.answers {
        responses[status.to_string()] = match body {
            Some(_) => json!({ "description": description, "content": content(body) }),
            None => json!({ "description": description }),
        };
    }
    let mut described = json!({
        "operationId": format!("{:?}", operation.id),
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if operation.body.is_some() {
        described["requestBody"] = json!({ "required": true, "content": content(&operation.body) });
    }
    described
}

fn content(body: &Option<Content>) -> Value {
    match body {
        None => json!({}),
        Some(Content(media, None)) => json!({ *media: {} }),
        Some(Content(media, Some(schema))) => {
            json!({ *media: { "schema": { "$ref": format!("#/components/schemas/{schema}") } } })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_has_its_schema() {
        let document = document();
        let text = document.to_string();
        let references = text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next());
        let mut count = 0;
        for pointer in references {
            assert!(document.pointer(pointer).is_some(), "{pointer}");
            count += 1;
        }
        assert!(count > 10);
    }
}
