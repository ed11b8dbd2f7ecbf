//! Batches of messages, as a webhook gets them.
//!
//! ```text
//! { "gateway": text, "messages": [ { "topic": text, "device_uid": text, "boot": text, "sequence": text, …, "payload": bytes } ] }
//! ```
//!
//! What a message has beside topic and payload is what it has as user properties of MQTT, under the same names. In JSON the payload is
//! text in base64 (RFC 4648, section 4), in CBOR (RFC 8949) a byte string.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minicbor::{Encoder, encode::Error};
use serde_json::{Map, Value};

use super::definition::{BatchFormat, BrokerMessage};

impl BatchFormat {
    /// For `Content-Type`.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Cbor => "application/cbor",
        }
    }

    /// A batch of a gateway.
    #[must_use]
    pub fn encode(self, gateway: &str, messages: &[BrokerMessage]) -> Vec<u8> {
        match self {
            Self::Json => json(gateway, messages).to_string().into_bytes(),
            Self::Cbor => {
                let mut bytes = Vec::new();
                let written = cbor(&mut Encoder::new(&mut bytes), gateway, messages);
                debug_assert!(written.is_ok(), "a vector takes all");
                bytes
            }
        }
    }
}

fn json(gateway: &str, messages: &[BrokerMessage]) -> Value {
    let one = |message: &BrokerMessage| {
        let mut members = Map::new();
        members.insert("topic".to_owned(), message.topic.as_str().into());
        for (name, value) in &message.properties {
            members.insert((*name).to_owned(), value.as_str().into());
        }
        members.insert("payload".to_owned(), STANDARD.encode(&message.payload).into());
        Value::Object(members)
    };
    let messages: Vec<Value> = messages.iter().map(one).collect();
    serde_json::json!({ "gateway": gateway, "messages": messages })
}

fn cbor<W: minicbor::encode::Write>(
    encoder: &mut Encoder<W>,
    gateway: &str,
    messages: &[BrokerMessage],
) -> Result<(), Error<W::Error>> {
    encoder.map(2)?.str("gateway")?.str(gateway)?;
    encoder.str("messages")?.array(messages.len() as u64)?;
    for message in messages {
        encoder.map(message.properties.len() as u64 + 2)?;
        encoder.str("topic")?.str(&message.topic)?;
        for (name, value) in &message.properties {
            encoder.str(name)?.str(value)?;
        }
        encoder.str("payload")?.bytes(&message.payload)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> BrokerMessage {
        BrokerMessage {
            number: 7,
            topic: "wasmbed/lab/probe/d1/temperature".to_owned(),
            payload: vec![0xff, 0, 7],
            properties: vec![("device_uid", "u".to_owned()), ("boot", "3".to_owned())],
        }
    }

    #[test]
    fn a_batch_says_whose_messages_they_are_in_both_formats() {
        let json: Value = serde_json::from_slice(&BatchFormat::Json.encode("gw", &[message()])).unwrap();
        let expected = serde_json::json!({ "gateway": "gw", "messages": [
            { "topic": "wasmbed/lab/probe/d1/temperature", "device_uid": "u", "boot": "3", "payload": "/wAH" },
        ] });
        assert_eq!(json, expected);
        // a2 gateway gw messages [ a4 topic device_uid boot payload h'ff0007' ]
        let cbor = BatchFormat::Cbor.encode("gw", &[message()]);
        let expected = [
            b"\xa2\x67gateway\x62gw\x68messages\x81\xa4\x65topic\x78\x20wasmbed/lab/probe/d1/temperature"
                .as_slice(),
            b"\x6adevice_uid\x61u\x64boot\x613\x67payload\x43\xff\x00\x07",
        ];
        assert_eq!(cbor, expected.concat());
    }
}
