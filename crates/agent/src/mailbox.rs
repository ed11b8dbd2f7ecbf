//! Messages that came in for an application, until it takes them.
//!
//! A mailbox belongs to an assignment: it goes with it, and stays while the application is restarted.

use wasmbed_protocol::MessageSource;

use crate::ring::Ring;

/// Memory of the messages that wait for one application: one of the longest, or some of the usual ones.
pub(crate) const MAILBOX_BYTES: usize = 1_152;

/// Messages for one application, oldest first.
///
/// ```text
/// record = source (1 byte: 0 operator, 1 broker, 255 newer than this firmware), length of the topic (1), topic, payload
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mailbox(Ring);

impl Mailbox {
    /// Puts a message in; false if there is no room for it.
    pub(crate) fn push(&mut self, source: MessageSource, topic: &str, payload: &[u8]) -> bool {
        let source = match source {
            MessageSource::Operator => 0,
            MessageSource::Broker => 1,
            MessageSource::Unknown(_) => u8::MAX,
        };
        let Ok(topic_length) = u8::try_from(topic.len()) else { return false };
        self.0.push_within(&[&[source, topic_length], topic.as_bytes(), payload], MAILBOX_BYTES)
    }

    /// The oldest message, as its application gets it.
    pub(crate) fn front(&self) -> Option<&[u8]> {
        self.0.at(0)
    }

    /// The oldest message goes.
    pub(crate) fn pop(&mut self) {
        let bytes = self.0.after(0);
        self.0.drop_to(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmbed_protocol::limits::{NAME_BYTES_MAX, PAYLOAD_BYTES_MAX};

    #[test]
    fn messages_come_out_as_they_came_in() {
        let mut mailbox = Mailbox::default();
        assert_eq!(mailbox.front(), None);
        assert!(mailbox.push(MessageSource::Operator, "light", b"on"));
        assert!(mailbox.push(MessageSource::Broker, "", b""));
        assert!(mailbox.push(MessageSource::Unknown(7), "t", b"p"));
        for expected in [&b"\0\x05lighton"[..], b"\x01\0", b"\xff\x01tp"] {
            assert_eq!(mailbox.front(), Some(expected));
            mailbox.pop();
        }
        mailbox.pop();
        assert_eq!(mailbox, Mailbox::default(), "its memory is given back");
    }

    #[test]
    fn the_longest_message_has_room_alone() {
        let (topic, payload) = ("x".repeat(NAME_BYTES_MAX), [7; PAYLOAD_BYTES_MAX]);
        let mut mailbox = Mailbox::default();
        assert!(mailbox.push(MessageSource::Operator, &topic, &payload));
        assert!(!mailbox.push(MessageSource::Operator, &topic, &payload));
        mailbox.pop();
        assert!(mailbox.push(MessageSource::Operator, &topic, &payload));
    }
}
