//! Devices that publish, lose their connections and send again, against a disk that fails and a gateway that crashes.

use proptest::prelude::*;

use super::*;
use crate::gateway::config::MESSAGE_RETRY_MS;

const UID: ApplicationUid = ApplicationUid([1; 16]);

/// The disk, with what a failed write may have done all the same.
#[derive(Clone, Debug, Default)]
struct Disk {
    records: BTreeMap<u64, Vec<u8>>,
    places: BTreeMap<String, Vec<u8>>,
    placed_before: u64,
    /// Records that were removed.
    removed: Vec<Vec<u8>>,
}

impl Disk {
    fn apply(&mut self, write: &OutboxWrite) -> Vec<Vec<u8>> {
        let removed: Vec<_> =
            write.remove.iter().map(|number| self.records.remove(number).unwrap_or_default()).collect();
        self.removed.extend(removed.iter().cloned());
        self.records.extend(write.append.iter().map(|(number, bytes)| (*number, bytes.to_vec())));
        write.forget.iter().for_each(|device| drop(self.places.remove(device)));
        if !write.places.is_empty() {
            self.places.extend(write.places.iter().cloned());
            self.placed_before = write.placed_before;
        }
        removed
    }

    fn restore(&self) -> RestoredMessages {
        let mut restored = RestoredMessages::default();
        restored.placed_before(self.placed_before);
        self.places.iter().for_each(|(device, bytes)| restored.place(device, bytes));
        self.records.iter().for_each(|(number, bytes)| restored.record(*number, bytes));
        restored
    }

    fn sequences<'a>(records: impl Iterator<Item = &'a Vec<u8>>, device: &ObjectKey) -> Vec<u64> {
        let messages = records.flat_map(|bytes| record::read(bytes).map_while(Result::ok));
        let of_device = messages.filter(|message| message.device.1 == device.name);
        of_device.map(|message| message.sequence).collect()
    }
}

/// A device as the agent is one: it keeps what was not acknowledged, and sends it again in each session.
#[derive(Debug)]
struct Publisher {
    key: Arc<ObjectKey>,
    next: u64,
    kept: VecDeque<u64>,
    /// Of `kept`, sent in this session.
    sent: usize,
    session: SessionId,
    acknowledged: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Publish(usize),
    /// What waits is sent.
    Send(usize),
    Reconnect(usize),
    /// Acknowledgements arrive, or are lost with their connection.
    Acknowledge(bool),
    Write(Outcome),
    Wait(u64),
    Crash,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Done,
    Failed,
    /// It failed, and is on the disk.
    FailedDone,
    Full,
}

fn step() -> impl Strategy<Value = Step> {
    let device = 0..2_usize;
    let outcome = prop_oneof![6 => Just(Outcome::Done), 1 => Just(Outcome::Failed), 1 => Just(Outcome::FailedDone), 1 => Just(Outcome::Full)];
    prop_oneof![
        6 => device.clone().prop_map(Step::Publish),
        6 => device.clone().prop_map(Step::Send),
        1 => device.prop_map(Step::Reconnect),
        4 => any::<bool>().prop_map(Step::Acknowledge),
        6 => outcome.prop_map(Step::Write),
        4 => (0..2 * MESSAGE_RETRY_MS).prop_map(Step::Wait),
        1 => Just(Step::Crash),
    ]
}

struct Run {
    limits: MessageLimits,
    messages: Messages,
    disk: Disk,
    writing: Option<OutboxWrite>,
    devices: Vec<Publisher>,
    now: Now,
    sessions: u64,
    /// Whether the oldest went for want of room: what is known of it then may be lost with a crash.
    roomless: bool,
}

impl Run {
    fn new(limits: MessageLimits) -> Self {
        let device = |name: &str| Publisher {
            key: Arc::new(ObjectKey::new("lab", name)),
            next: 1,
            kept: VecDeque::new(),
            sent: 0,
            session: SessionId(0),
            acknowledged: 0,
        };
        Self {
            limits,
            messages: Messages::new(limits, RestoredMessages::default()),
            disk: Disk::default(),
            writing: None,
            devices: vec![device("a"), device("b")],
            now: Now { ms: 0, unix_ms: 1_000_000 },
            sessions: 0,
            roomless: false,
        }
    }

    fn reconnect(&mut self, index: usize) {
        self.sessions += 1;
        let device = &mut self.devices[index];
        (device.session, device.sent) = (SessionId(self.sessions), 0);
    }

    fn send(&mut self, index: usize) {
        let topics = [Topic { name: "t".into(), per_second: 100 }];
        let device = &mut self.devices[index];
        for sequence in device.kept.range(device.sent..).copied().collect::<Vec<_>>() {
            let from = Sender {
                device: &device.key,
                device_uid: &device.key.name,
                session: device.session,
                application: Some(("lab/app", &topics)),
                set_known: true,
            };
            let message = Arrived {
                uid: UID,
                start: Start { boot: 1, id: 0 },
                sequence,
                lost: 0,
                topic: "t",
                payload: &[7; 100],
            };
            let taken = self.messages.take(self.now, &from, &message);
            assert!(!matches!(taken, Taken::Refused(_)), "{taken:?}");
        }
        device.sent = device.kept.len();
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Publish(index) => {
                let device = &mut self.devices[index];
                device.kept.push_back(device.next);
                device.next += 1;
            }
            Step::Send(index) => self.send(index),
            Step::Reconnect(index) => self.reconnect(index),
            Step::Wait(ms) => (self.now.ms, self.now.unix_ms) = (self.now.ms + ms, self.now.unix_ms + ms),
            Step::Acknowledge(arrives) => {
                for (key, _, _, sequence) in self.messages.take_acks() {
                    let device = self.devices.iter_mut().find(|device| device.key == key).unwrap();
                    device.acknowledged = device.acknowledged.max(sequence);
                    while arrives
                        && device.sent > 0
                        && device.kept.front().is_some_and(|kept| *kept <= sequence)
                    {
                        device.kept.pop_front();
                        device.sent -= 1;
                    }
                }
            }
            Step::Write(outcome) => self.write(outcome),
            Step::Crash => {
                self.writing = None;
                self.messages = Messages::new(self.limits, self.disk.restore());
                (0..self.devices.len()).for_each(|index| self.reconnect(index));
            }
        }
    }

    fn write(&mut self, outcome: Outcome) {
        if self.writing.is_none() {
            self.writing = self.messages.poll(self.now);
            return;
        }
        let Some(write) = self.writing.take() else { return };
        self.roomless |= write.make_room;
        let failed = |full| Err(OutboxFailure { full, detail: String::new() });
        let result = match outcome {
            Outcome::Done => Ok(self.disk.apply(&write)),
            Outcome::FailedDone => {
                self.disk.apply(&write);
                failed(false)
            }
            Outcome::Failed => failed(false),
            Outcome::Full => failed(!write.append.is_empty()),
        };
        self.messages.handle_written(self.now, result);
        for session in self.messages.take_stalled() {
            let index = self.devices.iter().position(|device| device.session == session);
            index.into_iter().for_each(|index| self.reconnect(index));
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.messages.check(), Ok(()));
        for device in &self.devices {
            let here = Disk::sequences(self.disk.records.values(), &device.key);
            let gone = Disk::sequences(self.disk.removed.iter(), &device.key);
            for sequence in 1..=device.acknowledged {
                prop_assert!(here.contains(&sequence) || gone.contains(&sequence), "{} is lost", sequence);
            }
            if !self.roomless {
                prop_assert!(here.is_sorted_by(|before, after| before < after), "{:?}", here);
                prop_assert!(here.first().is_none_or(|first| gone.iter().all(|gone| gone < first)));
            }
        }
        Ok(())
    }
}

proptest! {
    /// What was acknowledged is on the disk unless its bounds let go of it; each message once and in its order.
    #[test]
    fn what_was_acknowledged_is_there_once_and_in_its_order(
        steps in proptest::collection::vec(step(), 0..300),
        bytes_max in prop_oneof![Just(3_000_u64), Just(1 << 30)],
    ) {
        let limits = MessageLimits { bytes_max, device_bytes_max: 1 << 30, ..MessageLimits::default() };
        let mut run = Run::new(limits);
        for step in &steps {
            run.play(step);
            run.check()?;
        }
        // Once all works everything arrives.
        for index in 0..run.devices.len() {
            run.reconnect(index);
        }
        for _ in 0..20 {
            for step in [Step::Send(0), Step::Send(1), Step::Wait(2_000), Step::Write(Outcome::Done), Step::Write(Outcome::Done), Step::Acknowledge(true)] {
                run.play(&step);
                run.check()?;
            }
        }
        for device in &run.devices {
            prop_assert!(device.kept.is_empty(), "{:?}", device);
        }
        prop_assert!(run.messages.levels(run.now).bytes <= bytes_max.max(64 * 1024));
    }
}
