//! Brokers that come and go, against a disk that fails and lets go of the oldest, and a gateway that crashes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;
use wasmbed_api::ReasonCode;
use wasmbed_protocol::ApplicationUid;

use super::{
    super::{
        Arrived, MessageLimits, Messages, OutboxFailure, OutboxWrite, RestoredMessages, Sender, Start, Topic,
        cursor,
    },
    *,
};
use crate::gateway::{
    config::{BROKER_PATIENCE_MS, BROKER_WINDOW_MAX},
    input::SessionId,
};

const UIDS: [&str; 2] = ["6ba7b810-9dad-41d1-80b4-00c04fd430c8", "6ba7b811-9dad-41d1-80b4-00c04fd430c8"];

fn application(index: u8) -> ApplicationUid {
    ApplicationUid([index; 16])
}

fn entry(index: usize) -> BrokerEntry {
    BrokerEntry {
        broker: ObjectKey::new("lab", if index == 0 { "all" } else { "some" }),
        uid: UIDS[index].to_owned(),
        generation: 1,
        kind: "Mqtt".to_owned(),
        url: "mqtts://broker".to_owned(),
        applications: (index == 1).then(|| vec![application(1).to_string()]),
        topics: if index == 1 { vec!["t".to_owned()] } else { Vec::new() },
        ..BrokerEntry::default()
    }
}

#[derive(Clone, Debug, Default)]
struct Disk {
    records: BTreeMap<u64, Vec<u8>>,
    positions: BTreeMap<String, u64>,
}

impl Disk {
    fn apply(&mut self, write: &OutboxWrite) -> Vec<Vec<u8>> {
        let removed =
            write.remove.iter().map(|number| self.records.remove(number).unwrap_or_default()).collect();
        self.records.extend(write.append.iter().map(|(number, bytes)| (*number, bytes.to_vec())));
        self.positions.retain(|uid, _| !write.released.contains(uid));
        self.positions.extend(write.positions.iter().cloned());
        removed
    }

    fn restore(&self) -> RestoredMessages {
        let mut restored = RestoredMessages::default();
        self.positions.iter().for_each(|(uid, position)| restored.position(uid, *position));
        self.records.iter().for_each(|(number, bytes)| restored.record(*number, bytes));
        restored
    }

    fn page(&self, cursor: &BrokerCursor) -> BrokerPage {
        let mut page = cursor.page();
        for (number, bytes) in self.records.range(cursor.record()..) {
            if !cursor.read_record(&mut page, *number, bytes) {
                return page;
            }
        }
        page.finish(cursor);
        page
    }

    /// Numbers and sequences of the messages that a broker is to have.
    fn wanted(&self, index: usize) -> Vec<(u64, u64)> {
        let messages = self.records.iter().flat_map(|(number, bytes)| cursor::numbered(*number, bytes));
        let wanted = messages
            .filter(|(_, message)| index == 0 || (message.uid == application(1) && message.topic == "t"));
        wanted.map(|(number, message)| (number, message.sequence)).collect()
    }
}

/// What a broker has of its connection, and what it ever took.
#[derive(Debug, Default)]
struct Peer {
    connection: Option<ConnectionId>,
    unanswered: Vec<BrokerMessage>,
    taken: Vec<u64>,
    /// Sequences that the disk let go of before.
    dropped: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
enum Step {
    Publish(u8, bool),
    Write(bool),
    Begin,
    Go(usize),
    Answer(usize, usize),
    Break(usize),
    Wait(u64),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let peer = 0..2_usize;
    prop_oneof![
        8 => (0..2_u8, any::<bool>()).prop_map(|(application, topic)| Step::Publish(application, topic)),
        6 => prop::bool::weighted(0.8).prop_map(Step::Write),
        3 => Just(Step::Begin),
        8 => peer.clone().prop_map(Step::Go),
        8 => (peer.clone(), 0..8_usize).prop_map(|(peer, index)| Step::Answer(peer, index)),
        1 => peer.prop_map(Step::Break),
        3 => (0..3_000_u64).prop_map(Step::Wait),
        1 => Just(Step::Crash),
    ]
}

struct Run {
    limits: MessageLimits,
    messages: Messages,
    disk: Disk,
    peers: [Peer; 2],
    now: Now,
    next: u64,
}

impl Run {
    fn new(bytes_max: u64) -> Self {
        let limits = MessageLimits { bytes_max, device_bytes_max: 1 << 30, ..MessageLimits::default() };
        let mut run = Self {
            limits,
            messages: Messages::new(limits, RestoredMessages::default()),
            disk: Disk::default(),
            peers: Default::default(),
            now: Now { ms: 0, unix_ms: 1_000_000 },
            next: 1,
        };
        run.define();
        run
    }

    fn define(&mut self) {
        let last = self.last();
        self.messages.brokers.define(self.now, &[entry(0), entry(1)], last, |_| 0);
    }

    fn last(&self) -> u64 {
        self.messages.last_message()
    }

    fn publish(&mut self, index: u8, topic: bool) {
        let topics =
            [Topic { name: "t".into(), per_second: 1_000 }, Topic { name: "u".into(), per_second: 1_000 }];
        let device = Arc::new(ObjectKey::new("lab", "a"));
        let from = Sender {
            device: &device,
            device_uid: "uid",
            session: SessionId(0),
            application: Some(("lab/app", &topics)),
            set_known: true,
        };
        let message = Arrived {
            uid: application(index),
            start: Start { boot: 1, id: 0 },
            sequence: self.next,
            lost: 0,
            topic: if topic { "t" } else { "u" },
            payload: &[7; 100],
        };
        self.messages.take(self.now, &from, &message);
        self.next += 1;
    }

    fn write(&mut self, done: bool) {
        let Some(write) = self.messages.poll(self.now) else { return };
        let before: Vec<Vec<(u64, u64)>> = (0..2).map(|index| self.disk.wanted(index)).collect();
        let result = if done {
            Ok(self.disk.apply(&write))
        } else {
            Err(OutboxFailure { full: false, detail: String::new() })
        };
        for (index, before) in before.into_iter().enumerate() {
            let left: BTreeSet<u64> =
                self.disk.wanted(index).into_iter().map(|(_, sequence)| sequence).collect();
            let peer = &mut self.peers[index];
            let gone = before.into_iter().map(|(_, sequence)| sequence);
            peer.dropped
                .extend(gone.filter(|sequence| !left.contains(sequence) && !peer.taken.contains(sequence)));
        }
        self.messages.handle_written(self.now, result);
    }

    fn go(&mut self, index: usize) {
        let Some(connection) = self.peers[index].connection else { return };
        let last = self.last();
        match self.messages.brokers.step(self.now, connection, last) {
            BrokerStep::Read(cursor) => {
                let page = self.disk.page(&cursor);
                let messages = self.messages.brokers.take_page(self.now, connection, page);
                self.peers[index].unanswered.extend(messages);
            }
            BrokerStep::Connect => self.messages.brokers.connected(self.now, connection),
            BrokerStep::Wait { .. } | BrokerStep::Subscribe(_) => {}
            BrokerStep::End(failure) => self.end(index, failure),
        }
    }

    fn end(&mut self, index: usize, failure: Option<BrokerFailure>) {
        if let Some(connection) = self.peers[index].connection.take() {
            self.peers[index].unanswered.clear();
            self.messages.brokers.ended(self.now, connection, failure);
        }
    }

    fn answer(&mut self, index: usize, which: usize) {
        let peer = &mut self.peers[index];
        let Some(connection) = peer.connection.filter(|_| which < peer.unanswered.len()) else { return };
        let message = peer.unanswered.remove(which);
        let sequence = message.properties.iter().find(|(name, _)| *name == "sequence").unwrap();
        peer.taken.push(sequence.1.parse().unwrap());
        self.messages.brokers.answered(self.now, connection, message.number, Verdict::Taken);
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Publish(application, topic) => self.publish(application, topic),
            Step::Write(done) => self.write(done),
            Step::Begin => {
                while let Some(start) = self.messages.brokers.poll(self.now) {
                    let link = start.link.unwrap();
                    let index = UIDS.iter().position(|uid| *uid == link.uid).unwrap();
                    self.peers[index].connection = Some(start.connection);
                }
            }
            Step::Go(index) => self.go(index),
            Step::Answer(index, which) => self.answer(index, which),
            Step::Break(index) => {
                self.end(index, Some(BrokerFailure::new(ReasonCode::BrokerUnreachable, "gone")));
            }
            Step::Wait(ms) => (self.now.ms, self.now.unix_ms) = (self.now.ms + ms, self.now.unix_ms + ms),
            Step::Crash => {
                self.messages = Messages::new(self.limits, self.disk.restore());
                self.peers
                    .iter_mut()
                    .for_each(|peer| (peer.connection, peer.unanswered) = (None, Vec::new()));
                self.define();
            }
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.messages.check(), Ok(()));
        for (index, peer) in self.peers.iter().enumerate() {
            prop_assert!(peer.unanswered.len() <= BROKER_WINDOW_MAX);
            let broker = &self.messages.brokers.brokers[UIDS[index]];
            if let Some(waiting) = broker.waiting() {
                let open = |(number, sequence): &(u64, u64)| {
                    broker.is_open(*number, || peer.taken.contains(sequence))
                };
                let wanted = self.disk.wanted(index).into_iter().filter(open).count() as u64;
                prop_assert_eq!(waiting.messages, wanted + broker.lost());
                prop_assert_eq!(waiting.bytes, waiting.messages * 100);
            }
        }
        Ok(())
    }
}

proptest! {
    /// Every message for a broker arrives there or was let go of; first in its order. What waits is what is counted.
    #[test]
    fn what_is_for_a_broker_arrives_or_is_counted(
        steps in proptest::collection::vec(step(), 0..300),
        bytes_max in prop_oneof![Just(3_000_u64), Just(1 << 30)],
    ) {
        let mut run = Run::new(bytes_max);
        for step in &steps {
            run.play(step);
            run.check()?;
        }
        let mut wanted: [BTreeSet<u64>; 2] = Default::default();
        // Once all works everything arrives.
        for _ in 0..40 {
            let go = [Step::Go(0), Step::Go(1), Step::Go(0), Step::Go(1)];
            for step in [Step::Wait(10_000), Step::Write(true), Step::Begin].iter().chain(&go) {
                run.play(step);
            }
            for (index, wanted) in wanted.iter_mut().enumerate() {
                wanted.extend(run.disk.wanted(index).into_iter().map(|(_, sequence)| sequence));
                while !run.peers[index].unanswered.is_empty() {
                    run.answer(index, 0);
                }
            }
            run.check()?;
        }
        for (index, peer) in run.peers.iter().enumerate() {
            let is_missing = |sequence: &&u64| !peer.taken.contains(sequence) && !peer.dropped.contains(sequence);
            let missing: Vec<u64> = wanted[index].iter().filter(is_missing).copied().collect();
            prop_assert!(missing.is_empty(), "{missing:?} did not arrive");
            let broker = &run.messages.brokers.brokers[UIDS[index]];
            prop_assert_eq!(broker.waiting().map(|waiting| waiting.messages), Some(0));
            prop_assert_eq!(broker.unsaved(), None);
        }
    }
}

fn started(run: &mut Run) -> ConnectionId {
    run.play(&Step::Begin);
    while !run.messages.brokers.brokers[UIDS[0]].is_connected() {
        run.play(&Step::Go(0));
    }
    run.peers[0].connection.unwrap()
}

fn publish(run: &mut Run, count: usize) {
    (0..count).for_each(|_| run.publish(1, true));
    run.play(&Step::Wait(1_000));
    run.write(true);
}

#[test]
fn a_window_is_bounded_and_moves_on_with_what_is_acknowledged() {
    let mut run = Run::new(1 << 30);
    started(&mut run);
    publish(&mut run, 200);
    (0..10).for_each(|_| run.go(0));
    assert_eq!(run.peers[0].unanswered.len(), BROKER_WINDOW_MAX);
    // The second is no reason to go on.
    run.answer(0, 1);
    let broker = &run.messages.brokers.brokers[UIDS[0]];
    assert_eq!(broker.waiting().unwrap().messages, 199);
    (0..10).for_each(|_| run.go(0));
    assert_eq!(run.peers[0].unanswered.len(), BROKER_WINDOW_MAX - 1);
    run.answer(0, 0);
    (0..10).for_each(|_| run.go(0));
    assert_eq!(run.peers[0].unanswered.len(), BROKER_WINDOW_MAX);
}

#[test]
fn a_broker_that_never_acknowledges_is_left_and_tried_again_ever_less_often() {
    let mut run = Run::new(1 << 30);
    let mut pauses = Vec::new();
    publish(&mut run, 10);
    for _ in 0..8 {
        let connection = started(&mut run);
        run.go(0);
        assert_eq!(run.peers[0].unanswered.len(), 10);
        run.now.ms += BROKER_PATIENCE_MS;
        let last = run.last();
        let BrokerStep::End(Some(failure)) = run.messages.brokers.step(run.now, connection, last) else {
            panic!("it is left");
        };
        assert_eq!(failure.reason, ReasonCode::BrokerSilent);
        run.end(0, Some(failure));
        let due_ms = run.messages.brokers.brokers[UIDS[0]].due_ms().unwrap();
        pauses.push(due_ms - run.now.ms);
        run.now.ms = due_ms;
    }
    // A connection that lasted is a good one, so that only those pauses grow that follow a short one.
    assert!(pauses.iter().all(|pause| (500..=2_000).contains(pause)), "{pauses:?}");
    let mut pauses = Vec::new();
    for _ in 0..8 {
        run.play(&Step::Begin);
        run.end(0, Some(BrokerFailure::new(ReasonCode::BrokerUnreachable, "refused")));
        let due_ms = run.messages.brokers.brokers[UIDS[0]].due_ms().unwrap();
        pauses.push(due_ms - run.now.ms);
        run.now.ms = due_ms;
    }
    assert!(
        pauses[0] <= 2_000 && pauses[7] >= 30_000 && pauses.iter().all(|pause| *pause <= 60_000),
        "{pauses:?}"
    );
    let error = run.messages.brokers.brokers[UIDS[0]].status(run.now, "gw").unwrap().last_error.unwrap();
    assert_eq!((error.reason, error.message.as_str()), (ReasonCode::BrokerUnreachable, "refused"));
}

#[test]
fn what_a_broker_acknowledged_is_on_the_disk_within_a_second_and_gone_with_the_broker() {
    let mut run = Run::new(1 << 30);
    started(&mut run);
    publish(&mut run, 10);
    run.go(0);
    (0..5).for_each(|_| run.answer(0, 0));
    run.play(&Step::Wait(1_000));
    run.write(true);
    run.play(&Step::Crash);
    started(&mut run);
    run.go(0);
    let again: Vec<u64> = run.peers[0].unanswered.iter().map(|message| message.number & 0xfff).collect();
    assert_eq!(again, [5, 6, 7, 8, 9]);
    let last = run.last();
    run.messages.brokers.define(run.now, &[entry(1)], last, |_| 0);
    run.play(&Step::Wait(1_000));
    run.write(true);
    assert_eq!(run.disk.positions.keys().collect::<Vec<_>>(), [UIDS[1]]);
}

#[test]
fn what_was_published_while_an_application_was_selected_arrives() {
    let mut run = Run::new(1 << 30);
    publish(&mut run, 5);
    let mut other = entry(1);
    other.applications = Some(vec![application(0).to_string()]);
    let last = run.last();
    run.messages.brokers.define(run.now, &[entry(0), other], last, |_| 0);
    publish(&mut run, 5);
    run.play(&Step::Begin);
    (0..10).for_each(|_| run.go(1));
    let numbers: Vec<u64> = run.peers[1].unanswered.iter().map(|message| message.number >> 12).collect();
    assert_eq!(numbers, [1; 5], "and not what was published since");
}

#[test]
fn a_definition_that_cannot_be_used_says_so_and_counts_what_waits() {
    let mut run = Run::new(1 << 30);
    publish(&mut run, 5);
    let cases = [
        ("ftp://broker", "Mqtt", "neither mqtts:// nor mqtt://"),
        ("mqtt://broker:0", "Mqtt", "port"),
        ("mqtt://bro ker", "Mqtt", "host"),
        ("mqtt://broker", "Nats", "upgrade"),
        ("mqtt://broker/path", "Mqtt", "path"),
        ("http://broker", "Webhook", "https://"),
        ("https://user@broker", "Webhook", "host"),
        ("https://broker/a b", "Webhook", "percent-encoded"),
    ];
    for (url, kind, wanted) in cases {
        let format = (kind == "Webhook").then(|| "Json".to_owned());
        let broken = BrokerEntry { url: url.to_owned(), kind: kind.to_owned(), format, ..entry(0) };
        let last = run.last();
        run.messages.brokers.define(run.now, &[broken], last, |_| 0);
        for _ in 0..3 {
            if let Some(start) = run.messages.brokers.poll(run.now) {
                assert_eq!(start.link, None);
                run.peers[0].connection = Some(start.connection);
            }
            (0..3).for_each(|_| run.go(0));
        }
        assert_eq!(run.messages.brokers.poll(run.now), None, "nothing is left to be done");
        let status = run.messages.brokers.brokers[UIDS[0]].status(run.now, "gw").unwrap();
        let error = status.last_error.unwrap();
        assert!(error.reason == ReasonCode::BrokerInvalid && error.message.contains(wanted), "{error:?}");
        assert_eq!(status.waiting_messages, Some(5));
    }
}

#[test]
fn a_webhook_has_a_path_a_format_and_one_kind_of_credentials() {
    let hook = |url: &str, format: &str| BrokerEntry {
        url: url.to_owned(),
        kind: "Webhook".to_owned(),
        format: Some(format.to_owned()),
        token: Some(crate::Hidden::new("t".to_owned())),
        ..entry(0)
    };
    let endpoint = definition::endpoint(&hook("https://h.example:8443/in?site=7", "Cbor")).unwrap();
    assert_eq!((endpoint.host.as_str(), endpoint.port, endpoint.tls), ("h.example", 8443, true));
    assert_eq!(endpoint.speaks, Speaks::Webhook { path: "/in?site=7".to_owned(), format: BatchFormat::Cbor });
    let endpoint = definition::endpoint(&hook("https://h.example", "Json")).unwrap();
    assert_eq!(
        (endpoint.port, endpoint.speaks.clone()),
        (443, Speaks::Webhook { path: "/".to_owned(), format: BatchFormat::Json })
    );
    let both =
        BrokerEntry { username: Some(crate::Hidden::new("u".to_owned())), ..hook("https://h", "Json") };
    let line =
        BrokerEntry { token: Some(crate::Hidden::new("a\r\nb: c".to_owned())), ..hook("https://h", "Json") };
    for (entry, wanted) in
        [(hook("https://h", "Xml"), "upgrade"), (both, "one can be sent"), (line, "header")]
    {
        let failure = definition::endpoint(&entry).unwrap_err();
        assert!(failure.message.contains(wanted), "{failure:?}");
    }
}

#[test]
fn a_broker_that_asks_for_a_pause_gets_it_up_to_five_minutes() {
    for (asked_ms, pause_ms) in [(90_000, 90_000), (u64::MAX, 300_000)] {
        let mut run = Run::new(1 << 30);
        publish(&mut run, 1);
        let connection = started(&mut run);
        let failure = BrokerFailure {
            retry_after_ms: asked_ms,
            ..BrokerFailure::new(ReasonCode::BrokerRefused, "429")
        };
        run.messages.brokers.ended(run.now, connection, Some(failure));
        run.now.ms += pause_ms - 1;
        assert!(run.messages.brokers.poll(run.now).is_none_or(|start| start.link.unwrap().uid != UIDS[0]));
        run.now.ms += 1;
        assert_eq!(run.messages.brokers.poll(run.now).unwrap().link.unwrap().uid, UIDS[0]);
    }
}

#[test]
fn what_the_disk_lets_go_of_while_it_is_read_is_counted_once() {
    let mut run = Run::new(3_000);
    publish(&mut run, 5);
    // Brokers that are known from now on have something to count.
    run.play(&Step::Crash);
    for counts in [true, false] {
        if !counts {
            started(&mut run);
        } else {
            run.play(&Step::Begin);
        }
        let connection = run.peers[0].connection.unwrap();
        let last = run.last();
        let BrokerStep::Read(cursor) = run.messages.brokers.step(run.now, connection, last) else {
            panic!("there is something to be read");
        };
        let page = run.disk.page(&cursor);
        // The oldest give way.
        publish(&mut run, 8);
        assert!(!run.disk.records.contains_key(&(cursor.record())) || cursor.record() == 0);
        assert_eq!(run.messages.brokers.take_page(run.now, connection, page), []);
        run.go(0);
        run.check().unwrap();
    }
}

#[test]
fn statuses_are_written_when_they_change_and_not_more_often_than_allowed() {
    let mut run = Run::new(1 << 30);
    let first = run.messages.brokers.poll_status(run.now, "gw").unwrap();
    assert_eq!((first.entry.connected, first.entry.waiting_messages), (false, Some(0)));
    run.messages.brokers.status_written(run.now, first, true);
    let second = run.messages.brokers.poll_status(run.now, "gw").unwrap();
    assert_eq!(second.uid, UIDS[1]);
    run.messages.brokers.status_written(run.now, second, true);
    assert_eq!(run.messages.brokers.poll_status(run.now, "gw"), None);
    started(&mut run);
    assert_eq!(run.messages.brokers.poll_status(run.now, "gw"), None);
    run.now.ms += 1_000;
    let edge = run.messages.brokers.poll_status(run.now, "gw").unwrap();
    assert!(edge.entry.connected);
    assert_eq!(run.messages.brokers.poll_status(run.now, "gw"), None, "one at a time");
    run.messages.brokers.status_written(run.now, edge, true);
    publish(&mut run, 3);
    assert_eq!(run.messages.brokers.poll_status(run.now, "gw"), None);
    run.now.ms += 4_000;
    let numbers = run.messages.brokers.poll_status(run.now, "gw").unwrap();
    assert_eq!(numbers.entry.waiting_messages, Some(3));
}
