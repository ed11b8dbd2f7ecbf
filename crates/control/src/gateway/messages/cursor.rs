//! Messages for readers: those of a record that a reader wants, in their order.

use super::record;
use crate::{
    ObjectKey, UnixTime,
    gateway::config::{MESSAGE_BATCH_MAX, MESSAGE_PAGE_MAX},
    gateway_api::MessageLine,
    key::short_name,
};

/// Bits of a message's number that tell it from others of its record.
const INDEX_BITS: u32 = 12;
const _: () = assert!(MESSAGE_BATCH_MAX <= 1 << INDEX_BITS, "each message of a record has a number");

/// Number of the last message of a record.
pub(super) const fn last_of(record: u64) -> u64 {
    (record << INDEX_BITS) | ((1 << INDEX_BITS) - 1)
}

/// The first record with messages after this one.
pub(super) const fn record_after(number: u64) -> u64 {
    number.saturating_add(1) >> INDEX_BITS
}

/// The messages of a record that can be read, with their numbers.
pub(super) fn numbered(number: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, record::Stored<'_>)> {
    let messages = record::read(bytes).map_while(Result::ok).enumerate();
    messages.map(move |(index, message)| ((number << INDEX_BITS) + index as u64, message))
}

/// Which messages a reader wants, and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageCursor {
    /// Namespace of the device; all if none.
    pub namespace: Option<String>,
    /// Name of the application; all if none.
    pub application: Option<String>,
    /// Name of the device; all if none.
    pub device: Option<String>,
    /// Name of the topic; all if none.
    pub topic: Option<String>,
    /// Messages that came before this are not wanted, milliseconds since 1970.
    pub since_unix_ms: u64,
    /// Messages up to this number were read.
    pub read: u64,
}

impl MessageCursor {
    /// The first record that may have messages that were not read.
    #[must_use]
    pub fn record(&self) -> u64 {
        record_after(self.read)
    }

    fn wants(&self, message: &record::Stored<'_>) -> bool {
        let wanted =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let (namespace, name) = message.device;
        message.unix_ms >= self.since_unix_ms
            && wanted(&self.namespace, namespace)
            && wanted(&self.device, name)
            && wanted(&self.topic, message.topic)
            && wanted(&self.application, short_name(message.application))
    }
}

/// The next messages of the record of this number, and whether it has no more; at most [`MESSAGE_PAGE_MAX`] at once.
#[must_use]
pub fn message_lines(cursor: &mut MessageCursor, number: u64, bytes: &[u8]) -> (Vec<MessageLine>, bool) {
    let mut lines = Vec::new();
    for (number, message) in numbered(number, bytes) {
        if number <= cursor.read {
            continue;
        }
        if lines.len() >= MESSAGE_PAGE_MAX {
            return (lines, false);
        }
        cursor.read = number;
        if cursor.wants(&message) {
            lines.push(line(number, &message));
        }
    }
    // Whatever else it has is not readable.
    cursor.read = cursor.read.max(last_of(number));
    (lines, true)
}

fn line(number: u64, message: &record::Stored<'_>) -> MessageLine {
    MessageLine {
        time: UnixTime::from_ms(message.unix_ms),
        device: ObjectKey::new(message.device.0, message.device.1),
        device_uid: message.device_uid.to_owned(),
        application: message.application.to_owned(),
        application_uid: message.uid.to_string(),
        topic: message.topic.to_owned(),
        boot: message.start.boot,
        sequence: message.sequence,
        messages_lost: message.lost,
        payload: base64::Engine::encode(&base64::engine::general_purpose::STANDARD, message.payload),
        text: std::str::from_utf8(message.payload).ok().map(str::to_owned),
        number,
    }
}

#[cfg(test)]
mod tests {
    use wasmbed_protocol::ApplicationUid;

    use super::*;
    use record::{Record, Stored};

    fn stored(sequence: u64, topic: &'static str) -> Stored<'static> {
        Stored {
            device: ("lab", if sequence.is_multiple_of(2) { "even" } else { "odd" }),
            device_uid: "u",
            application: "lab/thermometer",
            uid: ApplicationUid([1; 16]),
            start: super::super::places::Start { boot: 1, id: 0 },
            sequence,
            unix_ms: sequence,
            lost: 0,
            topic,
            payload: if topic == "t" { b"21.5" } else { &[0xff, 0] },
        }
    }

    fn sequences(cursor: &mut MessageCursor, records: &[(u64, Vec<u8>)]) -> Vec<u64> {
        let mut read = Vec::new();
        for (number, bytes) in records {
            loop {
                let (lines, finished) = message_lines(cursor, *number, bytes);
                assert!(lines.len() <= MESSAGE_PAGE_MAX);
                read.extend(lines.iter().map(|line| line.sequence));
                if finished {
                    break;
                }
            }
        }
        read
    }

    #[test]
    fn each_reader_gets_what_it_wants_once_and_page_by_page() {
        let mut records = Vec::new();
        for number in 1..=2_u64 {
            let mut record = Record::default();
            for index in 0..600 {
                record.push(&stored(number * 1_000 + index, if index % 3 == 0 { "t" } else { "u" }));
            }
            records.push((number, record.into_bytes()));
        }
        let mut all = MessageCursor::default();
        assert_eq!(sequences(&mut all, &records).len(), 1_200);
        assert_eq!(sequences(&mut all, &records), [0_u64; 0], "none comes twice");
        assert_eq!(all.record(), 3);
        let wanted = |change: fn(&mut MessageCursor)| {
            let mut cursor = MessageCursor::default();
            change(&mut cursor);
            sequences(&mut cursor, &records)
        };
        assert_eq!(wanted(|cursor| cursor.topic = Some("t".into())).len(), 400);
        assert_eq!(wanted(|cursor| cursor.device = Some("odd".into())).len(), 600);
        assert_eq!(wanted(|cursor| cursor.since_unix_ms = 2_590), (2_590..2_600).collect::<Vec<_>>());
        assert_eq!(wanted(|cursor| cursor.application = Some("other".into())), [0_u64; 0]);
        assert_eq!(wanted(|cursor| cursor.namespace = Some("other".into())), [0_u64; 0]);
        assert_eq!(wanted(|cursor| cursor.read = (1 << INDEX_BITS) + 599).len(), 600);
    }

    #[test]
    fn a_payload_is_text_if_it_is_text() {
        let mut record = Record::default();
        record.push(&stored(1, "t"));
        record.push(&stored(2, "u"));
        let (lines, finished) = message_lines(&mut MessageCursor::default(), 5, &record.into_bytes());
        assert!(finished);
        assert_eq!((lines[0].payload.as_str(), lines[0].text.as_deref()), ("MjEuNQ==", Some("21.5")));
        assert_eq!((lines[1].payload.as_str(), lines[1].text.as_deref()), ("/wA=", None));
        assert_eq!((lines[0].number, lines[1].number), (5 << INDEX_BITS, (5 << INDEX_BITS) + 1));
    }
}
