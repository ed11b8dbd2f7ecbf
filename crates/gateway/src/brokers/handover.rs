//! Messages that a broker handed over, in the order in which they came, which is that of their acknowledgements (MQTT 5, 4.6).
//!
//! ```text
//! take ── not for a device here ─────────────────────────────┐
//!   └── waits for a place at its device ── sent ── answered ─┴──> acknowledged, once all before it are
//!            └── for too long: refused       └── not answered for long: acknowledged, and counted once it is answered
//! ```
//!
//! A device that answers late or never holds up its own messages, and those of others for [`BROKER_HOLD_MS`] at most.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use wasmbed_control::{
    ObjectKey,
    gateway::{
        BrokerAddress,
        config::{BROKER_DELIVERIES_MAX, BROKER_HOLD_MS, BROKER_RECEIVE_MAX, DELIVERIES_OF_BROKERS_MAX},
    },
};

/// A message for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) address: BrokerAddress,
    /// As the broker has it.
    pub(super) topic: Arc<[u8]>,
    pub(super) payload: Arc<[u8]>,
}

#[derive(Debug)]
enum State {
    Waiting(Message),
    Sent,
    Done,
}

#[derive(Debug)]
struct Held {
    number: u64,
    /// None if the broker wants no acknowledgement (QoS 0).
    packet: Option<u16>,
    /// Of its state.
    since_ms: u64,
    state: State,
}

/// What became of a message that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Held,
    /// There is no room, and the broker asks for no acknowledgement.
    NoRoom(Option<Message>),
    /// The broker sends more without acknowledgements than it was told to.
    Flood,
}

#[derive(Debug, Default)]
pub(super) struct Handover {
    held: VecDeque<Held>,
    last: u64,
    /// Messages that were sent and not answered, by device.
    unanswered: BTreeMap<ObjectKey, usize>,
    unanswered_of_all: usize,
}

impl Handover {
    /// A message came; none if nothing is to be done for it but the acknowledgement.
    pub(super) fn take(&mut self, now_ms: u64, packet: Option<u16>, message: Option<Message>) -> Taken {
        let alike = self.held.iter().filter(|held| held.packet.is_some() == packet.is_some()).count();
        if alike >= BROKER_RECEIVE_MAX {
            return if packet.is_some() { Taken::Flood } else { Taken::NoRoom(message) };
        }
        let state = message.map_or(State::Done, State::Waiting);
        self.last += 1;
        self.held.push_back(Held { number: self.last, packet, since_ms: now_ms, state });
        Taken::Held
    }

    /// The next message that is to be sent; each is to be said to be [`answered`](Self::answered) once.
    pub(super) fn next(&mut self, now_ms: u64) -> Option<(u64, Message)> {
        if self.unanswered_of_all >= BROKER_DELIVERIES_MAX {
            return None;
        }
        let places = &self.unanswered;
        let has_place = |message: &Message| {
            places.get(&message.address.device).is_none_or(|count| *count < DELIVERIES_OF_BROKERS_MAX)
        };
        let next = self.held.iter_mut().find(|held| match &held.state {
            State::Waiting(message) => has_place(message),
            State::Sent | State::Done => false,
        })?;
        next.since_ms = now_ms;
        let State::Waiting(message) = std::mem::replace(&mut next.state, State::Sent) else { return None };
        *self.unanswered.entry(message.address.device.clone()).or_default() += 1;
        self.unanswered_of_all += 1;
        Some((next.number, message))
    }

    /// The next message that has waited for too long.
    pub(super) fn overdue(&mut self, now_ms: u64) -> Option<Message> {
        let overdue =
            |held: &Held| matches!(held.state, State::Waiting(_)) && now_ms >= held.since_ms + BROKER_HOLD_MS;
        let held = self.held.iter_mut().find(|held| overdue(held))?;
        match std::mem::replace(&mut held.state, State::Done) {
            State::Waiting(message) => Some(message),
            State::Sent | State::Done => None,
        }
    }

    /// What became of a message that was sent to this device is known.
    pub(super) fn answered(&mut self, number: u64, device: &ObjectKey) {
        if let Some(count) = self.unanswered.get_mut(device) {
            *count -= 1;
            self.unanswered_of_all -= 1;
            if *count == 0 {
                self.unanswered.remove(device);
            }
        }
        if let Some(held) = self.held.iter_mut().find(|held| held.number == number) {
            held.state = State::Done;
        }
    }

    /// The next packet that is to be acknowledged.
    pub(super) fn acknowledge(&mut self, now_ms: u64) -> Option<u16> {
        loop {
            let first = self.held.front()?;
            let done = match first.state {
                State::Waiting(_) => false,
                State::Sent => now_ms >= first.since_ms + BROKER_HOLD_MS,
                State::Done => true,
            };
            if !done {
                return None;
            }
            if let Some(packet) = self.held.pop_front()?.packet {
                return Some(packet);
            }
        }
    }

    /// When there is something to be done, if nothing comes before.
    pub(super) fn due_ms(&self) -> u64 {
        let open = self.held.iter().filter(|held| !matches!(held.state, State::Done));
        open.map(|held| held.since_ms + BROKER_HOLD_MS).min().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(device: &str) -> Option<Message> {
        let address = BrokerAddress {
            device: ObjectKey::new("lab", device),
            application: "lab/relay".into(),
            topic: "light".into(),
        };
        Some(Message { address, topic: (*b"t").into(), payload: (*b"on").into() })
    }

    fn sent(handover: &mut Handover, now_ms: u64) -> Vec<(u64, String)> {
        let next = std::iter::from_fn(|| handover.next(now_ms));
        next.map(|(number, message)| (number, message.address.device.name)).collect()
    }

    fn acknowledged(handover: &mut Handover, now_ms: u64) -> Vec<u16> {
        std::iter::from_fn(|| handover.acknowledge(now_ms)).collect()
    }

    #[test]
    fn acknowledgements_go_in_the_order_of_the_messages() {
        let mut handover = Handover::default();
        for (packet, message) in
            [(Some(7), message("a")), (Some(8), None), (None, message("b")), (Some(9), message("b"))]
        {
            assert_eq!(handover.take(0, packet, message), Taken::Held);
        }
        assert_eq!(acknowledged(&mut handover, 0), [0_u16; 0]);
        let all = [(1, "a".to_owned()), (3, "b".to_owned()), (4, "b".to_owned())];
        assert_eq!(sent(&mut handover, 0), all);
        handover.answered(4, &ObjectKey::new("lab", "b"));
        handover.answered(3, &ObjectKey::new("lab", "b"));
        assert_eq!(acknowledged(&mut handover, 1), [0_u16; 0], "the first is not answered");
        handover.answered(1, &ObjectKey::new("lab", "a"));
        assert_eq!(acknowledged(&mut handover, 1), [7, 8, 9]);
        assert_eq!(
            (handover.due_ms(), handover.unanswered_of_all, handover.unanswered.len()),
            (u64::MAX, 0, 0)
        );
    }

    #[test]
    fn a_device_that_does_not_answer_holds_up_its_own_messages_and_others_for_a_moment() {
        let mut handover = Handover::default();
        let places = DELIVERIES_OF_BROKERS_MAX;
        for packet in 1..=places as u16 + 1 {
            handover.take(0, Some(packet), message("a"));
        }
        handover.take(0, Some(100), message("b"));
        let first = sent(&mut handover, 5);
        assert_eq!((first.len(), first[places].1.as_str()), (places + 1, "b"), "what waits lets others pass");
        handover.answered(first[places].0, &ObjectKey::new("lab", "b"));
        assert_eq!(
            (acknowledged(&mut handover, BROKER_HOLD_MS), handover.due_ms()),
            (vec![0_u16; 0], BROKER_HOLD_MS)
        );
        assert_eq!(handover.overdue(BROKER_HOLD_MS), message("a"));
        assert_eq!(handover.overdue(BROKER_HOLD_MS), None);
        let all: Vec<u16> = (1..=places as u16 + 1).chain([100]).collect();
        assert_eq!(acknowledged(&mut handover, BROKER_HOLD_MS + 5), all);
        handover.take(3_000, Some(1), message("a"));
        assert_eq!(sent(&mut handover, 3_000), [], "its places are taken until it has answered");
        handover.answered(first[0].0, &ObjectKey::new("lab", "a"));
        assert_eq!(sent(&mut handover, 3_000).len(), 1);
    }

    #[test]
    fn a_broker_that_floods_has_a_bound() {
        let mut handover = Handover::default();
        for packet in 0..BROKER_RECEIVE_MAX as u16 {
            assert_eq!(handover.take(0, None, message("a")), Taken::Held);
            assert_eq!(handover.take(0, Some(packet), message("a")), Taken::Held);
        }
        assert_eq!(handover.take(0, None, message("a")), Taken::NoRoom(message("a")));
        assert_eq!(handover.take(0, Some(1_000), message("a")), Taken::Flood);
        let mut handover = Handover::default();
        for number in 0..BROKER_DELIVERIES_MAX + 1 {
            handover.take(0, None, message(&number.to_string()));
            sent(&mut handover, 0);
            acknowledged(&mut handover, BROKER_HOLD_MS);
        }
        assert_eq!(handover.unanswered_of_all, BROKER_DELIVERIES_MAX);
    }
}
