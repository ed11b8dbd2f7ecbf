//! Messages that applications published, until a gateway has them on its disk.
//!
//! Each application has a ring of its own, so one that publishes without end fills its own and no other's. The ring outlives a run: what an application published before it crashed is told.

use alloc::{string::String, vec::Vec};

use wasmbed_protocol::{
    ApplicationUid, BootCounter, Deliver, Delivery, Publish, Sequence, Spec, TopicDirection,
    limits::PAYLOAD_BYTES_MAX,
    rate::{Rate, TokenBucket},
};

use crate::{mailbox::Mailbox, ring::Ring};

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// There is no room, or the topic's rate is used up, or the start was not counted yet: later it may be.
    Again,
    /// The assignment does not declare that topic for what goes out.
    UnknownTopic,
}

/// A topic that an assignment declares, and what is left of its rate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Declared {
    name: String,
    comes_in: bool,
    rate: Rate,
    bucket: TokenBucket,
}

/// What an application may publish and receive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Topics(Vec<Declared>);

impl Topics {
    /// Those of a spec; the direction of one that this firmware does not know is the error.
    pub(crate) fn of(spec: &Spec<'_>) -> Result<Self, u32> {
        let declared = spec.topics.iter().map(|topic| {
            let comes_in = match topic.direction {
                TopicDirection::Unknown(direction) => return Err(direction),
                TopicDirection::Out => false,
                TopicDirection::In => true,
            };
            let per_second = u64::from(topic.per_second.max(1));
            let rate = Rate::per_second(per_second, per_second);
            Ok(Declared { name: String::from(topic.name), comes_in, rate, bucket: TokenBucket::default() })
        });
        declared.collect::<Result<_, _>>().map(Self)
    }

    fn get_mut(&mut self, name: &[u8], comes_in: bool) -> Option<&mut Declared> {
        self.0.iter_mut().find(|topic| topic.comes_in == comes_in && topic.name.as_bytes() == name)
    }
}

/// Messages of one application, oldest first.
///
/// ```text
/// record = sequence (8 bytes), messages lost just before it (4), length of the topic (1), topic, payload
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MessageRing {
    ring: Ring,
    /// Where the first message begins that was not sent in this session.
    sent: usize,
    /// Messages that were dropped since the last one that was taken.
    lost: u32,
}

/// Where the count of lost messages stands in a record.
const LOST: core::ops::Range<usize> = 8..12;

/// A record, read.
struct Record<'a> {
    sequence: Sequence,
    lost: u32,
    topic: &'a str,
    payload: &'a [u8],
}

impl<'a> Record<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (sequence, rest) = bytes.split_first_chunk::<8>()?;
        let (lost, rest) = rest.split_first_chunk::<4>()?;
        let (topic_length, rest) = rest.split_first()?;
        let (topic, payload) = rest.split_at_checked(usize::from(*topic_length))?;
        Some(Self {
            sequence: Sequence(u64::from_le_bytes(*sequence)),
            lost: u32::from_le_bytes(*lost),
            // Only texts are pushed.
            topic: core::str::from_utf8(topic).unwrap_or_default(),
            payload,
        })
    }
}

impl MessageRing {
    /// Takes a message; whether it did. With `drop_oldest` older ones make room, those that were sent and may have arrived
    /// among them.
    pub(crate) fn push(
        &mut self,
        sequence: Sequence,
        topic: &str,
        payload: &[u8],
        drop_oldest: bool,
    ) -> bool {
        let Ok(topic_length) = u8::try_from(topic.len()) else { return false };
        let record: [&[u8]; 5] =
            [&sequence.0.to_le_bytes(), &self.lost.to_le_bytes(), &[topic_length], topic.as_bytes(), payload];
        if !Ring::ever_holds(record.iter().map(|part| part.len()).sum()) {
            return false;
        }
        while !self.ring.push(&record) {
            if !drop_oldest || !self.drop_oldest() {
                return false;
            }
        }
        self.lost = 0;
        true
    }

    /// The oldest message goes. The one after it tells of it, and of those that it told of.
    fn drop_oldest(&mut self) -> bool {
        let Some(lost) = self.first().map(|record| record.lost.saturating_add(1)) else { return false };
        self.drop_first();
        let next = self.ring.first_mut().and_then(|record| record.get_mut(LOST));
        match next.and_then(|bytes| bytes.first_chunk_mut::<4>()) {
            Some(counted) => {
                *counted = u32::from_le_bytes(*counted).saturating_add(lost).to_le_bytes();
            }
            None => self.lost = self.lost.saturating_add(lost),
        }
        true
    }

    fn first(&self) -> Option<Record<'_>> {
        self.ring.at(0).and_then(Record::read)
    }

    fn drop_first(&mut self) {
        let bytes = self.ring.after(0);
        self.ring.drop_to(bytes);
        self.sent = self.sent.saturating_sub(bytes);
    }

    /// Whether there is a message that was not sent in this session.
    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.ring.len()
    }

    /// The next message of the application `uid`, as it is sent, to `send`; it counts as sent then.
    pub(crate) fn send<R>(
        &mut self,
        uid: ApplicationUid,
        boot: BootCounter,
        send: impl FnOnce(Publish<'_>) -> R,
    ) -> Option<R> {
        let Record { sequence, lost: messages_lost, topic, payload } =
            self.ring.at(self.sent).and_then(Record::read)?;
        let sent = send(Publish { uid, boot, sequence, messages_lost, topic, payload });
        self.sent = self.ring.after(self.sent);
        Some(sent)
    }

    /// The gateway has every message up to this one. What was not sent stays, whatever it says.
    pub(crate) fn handle_ack(&mut self, sequence: Sequence) {
        while self.sent > 0 && self.first().is_some_and(|record| record.sequence <= sequence) {
            self.drop_first();
        }
    }

    /// Everything is sent again in the next session.
    pub(crate) fn handle_disconnected(&mut self) {
        self.sent = 0;
    }
}

/// What is the same for all applications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Publishing {
    /// Of the last message that was taken since the start.
    pub(crate) published: Sequence,
    /// Whose message is sent next.
    pub(crate) turn: usize,
    /// Whether a log line goes before the next message.
    pub(crate) log_first: bool,
}

/// One message, as an application hands it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// As the assignment declares it.
    pub topic: &'a [u8],
    /// What it carries.
    pub payload: &'a [u8],
    /// Whether older messages make room for it.
    pub drop_oldest: bool,
}

/// Takes a message into an application's ring, if its topics allow it. The sequence is the one that it gets.
pub(crate) fn publish(
    topics: &mut Topics,
    ring: &mut MessageRing,
    message: Message<'_>,
    sequence: Sequence,
    now_ms: u64,
) -> Result<(), PublishError> {
    let declared = topics.get_mut(message.topic, false).ok_or(PublishError::UnknownTopic)?;
    debug_assert!(message.payload.len() <= PAYLOAD_BYTES_MAX, "the sandbox takes no longer ones");
    declared.bucket.refill(now_ms, declared.rate);
    if !declared.bucket.has(declared.rate, 1) {
        return Err(PublishError::Again);
    }
    if !ring.push(sequence, &declared.name, message.payload, message.drop_oldest) {
        return Err(PublishError::Again);
    }
    declared.bucket.spend(1);
    Ok(())
}

/// Puts a message into an application's mailbox, if its topics allow it.
pub(crate) fn deliver(
    topics: &mut Topics,
    mailbox: &mut Mailbox,
    message: &Deliver<'_>,
    now_ms: u64,
) -> Delivery {
    let Some(declared) = topics.get_mut(message.topic.as_bytes(), true) else {
        return Delivery::UnknownTopic;
    };
    declared.bucket.refill(now_ms, declared.rate);
    if !declared.bucket.has(declared.rate, 1)
        || !mailbox.push(message.source, &declared.name, message.payload)
    {
        return Delivery::NoRoom;
    }
    declared.bucket.spend(1);
    Delivery::Taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::RING_BYTES;
    use alloc::string::ToString;
    use wasmbed_protocol::MessageSource;

    const UID: ApplicationUid = ApplicationUid([1; 16]);

    /// Sequence, lost and payload of everything that was not sent yet.
    fn sent(ring: &mut MessageRing) -> Vec<(u64, u32, String)> {
        let mut out = Vec::new();
        let payload = |bytes: &[u8]| core::str::from_utf8(bytes).unwrap().to_string();
        while let Some(message) =
            ring.send(UID, BootCounter(7), |m| (m.sequence.0, m.messages_lost, payload(m.payload)))
        {
            out.push(message);
        }
        out
    }

    fn push(ring: &mut MessageRing, sequence: u64, payload: &str, drop_oldest: bool) -> bool {
        ring.push(Sequence(sequence), "t", payload.as_bytes(), drop_oldest)
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_in_its_order() {
        let mut ring = MessageRing::default();
        assert!(
            push(&mut ring, 3, "a", false) && push(&mut ring, 5, "b", false) && push(&mut ring, 9, "", false)
        );
        let all = [(3, 0, "a".into()), (5, 0, "b".into()), (9, 0, String::new())];
        assert_eq!(sent(&mut ring), all);
        assert!(!ring.has_unsent());
        ring.handle_disconnected();
        assert_eq!(sent(&mut ring), all);
        // Up to one that it never had, as after another application's messages.
        ring.handle_ack(Sequence(4));
        ring.handle_disconnected();
        assert_eq!(sent(&mut ring), all[1..]);
        ring.handle_ack(Sequence(u64::MAX));
        assert_eq!(ring.ring.len(), 0);
    }

    #[test]
    fn an_acknowledgement_takes_nothing_that_was_not_sent() {
        let mut ring = MessageRing::default();
        assert!(push(&mut ring, 1, "a", false));
        ring.handle_ack(Sequence(9));
        assert_eq!(sent(&mut ring), [(1, 0, "a".into())]);
        assert!(push(&mut ring, 2, "b", false));
        ring.handle_ack(Sequence(9));
        assert_eq!(sent(&mut ring), [(2, 0, "b".into())]);
    }

    #[test]
    fn a_full_ring_takes_no_more_unless_the_oldest_may_go_and_tells_of_them() {
        let mut ring = MessageRing::default();
        let payload = "x".repeat(500);
        for sequence in 1..=3 {
            assert!(push(&mut ring, sequence, &payload, false));
        }
        assert!(push(&mut ring, 4, &"y".repeat(400), false));
        assert!(!push(&mut ring, 5, &payload, false), "full");
        assert!(push(&mut ring, 5, &payload, true) && push(&mut ring, 6, "new", true));
        let told: Vec<(u64, u32)> =
            sent(&mut ring).into_iter().map(|(sequence, lost, _)| (sequence, lost)).collect();
        assert_eq!(told, [(2, 1), (3, 0), (4, 0), (5, 0), (6, 0)]);
        assert!(push(&mut ring, 7, &"z".repeat(1_024), true), "those that were sent may go as well");
        ring.handle_disconnected();
        let told: Vec<(u64, u32)> =
            sent(&mut ring).into_iter().map(|(sequence, lost, _)| (sequence, lost)).collect();
        assert_eq!(told.first().map(|(_, lost)| *lost), Some(told[0].0 as u32 - 1), "every one before it");
        assert_eq!(told.last(), Some(&(7, 0)));
    }

    #[test]
    fn a_message_that_never_fits_drops_nothing() {
        let mut ring = MessageRing::default();
        assert!(push(&mut ring, 1, "kept", false));
        assert!(!push(&mut ring, 2, &"x".repeat(RING_BYTES), true));
        assert_eq!(sent(&mut ring), [(1, 0, "kept".into())]);
    }

    #[test]
    fn a_topic_has_its_rate() {
        let rate = Rate::per_second(2, 2);
        let declared = |name: &str, comes_in| Declared {
            name: name.into(),
            comes_in,
            rate,
            bucket: TokenBucket::default(),
        };
        let mut topics = Topics([declared("in", true), declared("t", false)].into());
        let mut ring = MessageRing::default();
        let mut publish = |topic: &[u8], sequence, now_ms| {
            let message = Message { topic, payload: b"p", drop_oldest: false };
            super::publish(&mut topics, &mut ring, message, Sequence(sequence), now_ms)
        };
        assert_eq!(publish(b"other", 1, 0), Err(PublishError::UnknownTopic));
        assert_eq!(publish(b"in", 1, 0), Err(PublishError::UnknownTopic), "messages only come in there");
        assert_eq!(publish(b"\xff", 1, 0), Err(PublishError::UnknownTopic));
        assert_eq!((publish(b"t", 1, 0), publish(b"t", 2, 0)), (Ok(()), Ok(())));
        assert_eq!(publish(b"t", 3, 499), Err(PublishError::Again));
        assert_eq!(publish(b"t", 3, 500), Ok(()));

        let mut mailbox = Mailbox::default();
        let mut deliver = |topic, now_ms| {
            let message = Deliver {
                sequence: Sequence(1),
                uid: UID,
                topic,
                payload: b"p",
                source: MessageSource::Operator,
            };
            super::deliver(&mut topics, &mut mailbox, &message, now_ms)
        };
        assert_eq!(deliver("t", 0), Delivery::UnknownTopic, "messages only go out there");
        assert_eq!((deliver("in", 0), deliver("in", 0)), (Delivery::Taken, Delivery::Taken));
        assert_eq!((deliver("in", 499), deliver("in", 500)), (Delivery::NoRoom, Delivery::Taken));
        assert_eq!(mailbox.front(), Some(&b"\0\x02inp"[..]));
    }
}
