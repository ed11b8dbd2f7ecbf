//! Messages that applications published, until a gateway has them on its disk.
//!
//! Each application has a ring of its own, of a size that does not change, so one that publishes without end fills its own
//! and no other's. The ring outlives a run: what an application published before it crashed is told.

use alloc::{collections::VecDeque, string::String, vec::Vec};

use wasmbed_protocol::{
    ApplicationUid, BootCounter, Publish, Sequence, Spec, TopicDirection,
    limits::PAYLOAD_BYTES_MAX,
    rate::{Rate, TokenBucket},
};

/// Memory of one application's messages that are not acknowledged, with their topics and 15 bytes each.
pub const MESSAGE_RING_BYTES: usize = 2_048;

/// Sequence, messages lost, length of the topic, length of the payload.
const HEAD_BYTES: usize = 8 + 4 + 1 + 2;

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// There is no room, or the topic's rate is used up, or the start was not counted yet: later it may be.
    Again,
    /// The assignment does not declare that topic.
    UnknownTopic,
}

/// A topic that an assignment declares, and what is left of its rate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Declared {
    name: String,
    rate: Rate,
    bucket: TokenBucket,
}

/// What an application may publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Topics(Vec<Declared>);

impl Topics {
    /// Those of a spec; the direction of one that this firmware does not know is the error.
    pub(crate) fn of(spec: &Spec<'_>) -> Result<Self, u32> {
        let declared = spec.topics.iter().map(|topic| match topic.direction {
            TopicDirection::Unknown(direction) => Err(direction),
            TopicDirection::Out => {
                let per_second = u64::from(topic.per_second.max(1));
                let rate = Rate::per_second(per_second, per_second);
                Ok(Declared { name: String::from(topic.name), rate, bucket: TokenBucket::default() })
            }
        });
        declared.collect::<Result<_, _>>().map(Self)
    }

    fn get_mut(&mut self, name: &[u8]) -> Option<&mut Declared> {
        self.0.iter_mut().find(|topic| topic.name.as_bytes() == name)
    }
}

/// Messages of one application, oldest first, one after the other as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MessageRing {
    bytes: VecDeque<u8>,
    /// Bytes at the front that were sent in this session.
    sent: usize,
    /// Messages that were dropped since the last one that was taken.
    lost: u32,
}

/// A message's place and parts within the ring.
#[derive(Clone, Copy)]
struct Head {
    sequence: Sequence,
    lost: u32,
    topic: usize,
    payload: usize,
}

impl Head {
    fn total(self) -> usize {
        HEAD_BYTES + self.topic + self.payload
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
        let (Ok(topic_length), Ok(payload_length)) =
            (u8::try_from(topic.len()), u16::try_from(payload.len()))
        else {
            return false;
        };
        let needed = HEAD_BYTES + topic.len() + payload.len();
        if needed > MESSAGE_RING_BYTES || !self.reserve() {
            return false;
        }
        while self.bytes.len() + needed > MESSAGE_RING_BYTES {
            if !drop_oldest || !self.drop_oldest() {
                return false;
            }
        }
        self.bytes.extend(sequence.0.to_le_bytes());
        self.bytes.extend(core::mem::take(&mut self.lost).to_le_bytes());
        self.bytes.extend([topic_length]);
        self.bytes.extend(payload_length.to_le_bytes());
        self.bytes.extend(topic.as_bytes());
        self.bytes.extend(payload);
        true
    }

    /// All of its memory at once, so that no later message finds none.
    fn reserve(&mut self) -> bool {
        let missing = MESSAGE_RING_BYTES.saturating_sub(self.bytes.len());
        self.bytes.try_reserve_exact(missing).is_ok()
    }

    /// The oldest message goes. The one after it tells of it, and of those that it told of.
    fn drop_oldest(&mut self) -> bool {
        let Some(head) = self.head(0) else { return false };
        let lost = head.lost.saturating_add(1);
        self.drop_front(head.total());
        match self.head(0) {
            Some(next) => {
                let lost = next.lost.saturating_add(lost).to_le_bytes();
                for (to, byte) in self.bytes.iter_mut().skip(8).zip(lost) {
                    *to = byte;
                }
            }
            None => self.lost = self.lost.saturating_add(lost),
        }
        true
    }

    fn drop_front(&mut self, bytes: usize) {
        self.bytes.drain(..bytes);
        self.sent = self.sent.saturating_sub(bytes);
    }

    fn head(&self, at: usize) -> Option<Head> {
        let mut bytes = [0; HEAD_BYTES];
        let held = self.bytes.range(at.min(self.bytes.len())..).take(HEAD_BYTES);
        if held.len() < HEAD_BYTES {
            return None;
        }
        for (to, byte) in bytes.iter_mut().zip(held) {
            *to = *byte;
        }
        let (sequence, rest) = bytes.split_first_chunk::<8>()?;
        let (lost, rest) = rest.split_first_chunk::<4>()?;
        let (topic, payload) = rest.split_first_chunk::<1>()?;
        let payload = payload.first_chunk::<2>()?;
        Some(Head {
            sequence: Sequence(u64::from_le_bytes(*sequence)),
            lost: u32::from_le_bytes(*lost),
            topic: usize::from(topic[0]),
            payload: usize::from(u16::from_le_bytes(*payload)),
        })
    }

    /// Whether there is a message that was not sent in this session.
    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.bytes.len()
    }

    /// The next message of the application `uid`, as it is sent, to `send`; it counts as sent then.
    pub(crate) fn send<R>(
        &mut self,
        uid: ApplicationUid,
        boot: BootCounter,
        send: impl FnOnce(Publish<'_>) -> R,
    ) -> Option<R> {
        let head = self.head(self.sent)?;
        let begin = self.sent + HEAD_BYTES;
        let bytes = self.bytes.make_contiguous();
        let topic = bytes.get(begin..begin + head.topic)?;
        let payload = bytes.get(begin + head.topic..begin + head.topic + head.payload)?;
        // Only texts are pushed.
        let topic = core::str::from_utf8(topic).unwrap_or_default();
        let Head { sequence, lost: messages_lost, .. } = head;
        let sent = send(Publish { uid, boot, sequence, messages_lost, topic, payload });
        self.sent += head.total();
        Some(sent)
    }

    /// The gateway has every message up to this one. What was not sent stays, whatever it says.
    pub(crate) fn handle_ack(&mut self, sequence: Sequence) {
        while self.sent > 0 {
            match self.head(0) {
                Some(head) if head.sequence <= sequence => self.drop_front(head.total()),
                Some(_) | None => return,
            }
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
    let declared = topics.get_mut(message.topic).ok_or(PublishError::UnknownTopic)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

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
        assert_eq!(ring.bytes.len(), 0);
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
        let held = ring.bytes.len();
        assert!(push(&mut ring, 5, &payload, true) && push(&mut ring, 6, "new", true));
        assert!(ring.bytes.len() <= MESSAGE_RING_BYTES && held <= MESSAGE_RING_BYTES);
        assert_eq!(ring.bytes.capacity(), MESSAGE_RING_BYTES, "its memory does not grow");
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
        assert!(!push(&mut ring, 2, &"x".repeat(MESSAGE_RING_BYTES), true));
        assert_eq!(sent(&mut ring), [(1, 0, "kept".into())]);
    }

    #[test]
    fn a_topic_has_its_rate() {
        let rate = Rate::per_second(2, 2);
        let mut topics = Topics([Declared { name: "t".into(), rate, bucket: TokenBucket::default() }].into());
        let mut ring = MessageRing::default();
        let mut publish = |topic: &[u8], sequence, now_ms| {
            let message = Message { topic, payload: b"p", drop_oldest: false };
            super::publish(&mut topics, &mut ring, message, Sequence(sequence), now_ms)
        };
        assert_eq!(publish(b"other", 1, 0), Err(PublishError::UnknownTopic));
        assert_eq!(publish(b"\xff", 1, 0), Err(PublishError::UnknownTopic));
        assert_eq!((publish(b"t", 1, 0), publish(b"t", 2, 0)), (Ok(()), Ok(())));
        assert_eq!(publish(b"t", 3, 499), Err(PublishError::Again));
        assert_eq!(publish(b"t", 3, 500), Ok(()));
    }
}
