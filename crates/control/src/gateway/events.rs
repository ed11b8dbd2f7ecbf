//! Events about one device: bounded in number, and counted up when they repeat, as Kubernetes' own clients do
//! (`client-go/tools/record/events_cache.go`).

use std::collections::VecDeque;

use wasmbed_protocol::{ApplicationUid, rate::TokenBucket};

use super::config::{
    APPLICATION_EVENTS, EVENTS, EVENTS_REMEMBERED_MAX, EVENTS_RESERVE, STRANGERS_EVENTS,
    STRANGERS_EVENTS_RESERVE,
};
use crate::{
    intern::hash_of,
    kubernetes::{Event, Occurrence},
};

/// The Events of one device.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    bucket: TokenBucket,
    /// Of what others do in its name.
    strangers: TokenBucket,
    /// In the order in which they were last seen.
    told: VecDeque<Told>,
    /// Of its named applications, and of all others together.
    applications: Vec<(Option<ApplicationUid>, TokenBucket)>,
    /// Left out since the last one that was not.
    left_out: u32,
}

#[derive(Debug)]
struct Told {
    /// Of reason and message.
    content: u64,
    number: u64,
    count: u32,
    first_unix_ms: u64,
    /// It waits to be written or is being written.
    queued: bool,
    /// The newest one, if it is not written and does not wait.
    pending: Option<Box<Event>>,
    /// Others than the device cause it.
    stranger: bool,
}

/// Who an Event is about beside the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    Device,
    /// An application; none if nobody has named it.
    Application(Option<ApplicationUid>),
    /// Somebody else who claims to be the device: what that causes takes nothing of what the device may say.
    Stranger,
}

/// What becomes of an Event.
#[derive(Debug, PartialEq)]
pub(super) enum Noted {
    /// It is written; how many were left out before it.
    Write(QueuedEvent, u32),
    /// It is counted, and written with a later one.
    Counted,
    /// It is left out; whether it is the first.
    LeftOut { first: bool },
}

/// An Event that waits to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct QueuedEvent {
    pub event: Box<Event>,
    pub occurrence: Occurrence,
}

impl Ledger {
    /// Takes an Event; `number` is one that no Event of this process has.
    pub(super) fn note(&mut self, now_ms: u64, event: Box<Event>, about: About, number: u64) -> Noted {
        self.refill(now_ms);
        let stranger = about == About::Stranger;
        let content = hash_of(&(event.reason, &event.message));
        if let Some(index) = self.told.iter().position(|told| told.content == content)
            && let Some(mut told) = self.told.remove(index)
        {
            told.count = told.count.saturating_add(1);
            told.pending = Some(event);
            let queued = self.queue(&mut told);
            self.told.push_back(told);
            return queued.map_or(Noted::Counted, |queued| Noted::Write(queued, 0));
        }
        if !self.has(stranger, 1) || !self.application_may(now_ms, about) {
            self.left_out = self.left_out.saturating_add(1);
            return Noted::LeftOut { first: self.left_out == 1 };
        }
        self.spend(stranger);
        // Each kind makes room among its own, so that neither makes the other forget.
        let remembered = self.told.iter().filter(|told| told.stranger == stranger).count();
        let max = if stranger { STRANGERS_EVENTS.burst() as usize } else { EVENTS_REMEMBERED_MAX };
        if remembered >= max
            && let Some(oldest) = self.told.iter().position(|told| told.stranger == stranger)
        {
            self.told.remove(oldest);
        }
        let occurrence = Occurrence { number, count: 1, first_unix_ms: event.unix_ms };
        self.told.push_back(Told {
            content,
            number,
            count: 1,
            first_unix_ms: event.unix_ms,
            queued: true,
            pending: None,
            stranger,
        });
        Noted::Write(QueuedEvent { event, occurrence }, std::mem::take(&mut self.left_out))
    }

    /// A repeated Event is written unless it waits already or new ones might need what is left.
    fn queue(&mut self, told: &mut Told) -> Option<QueuedEvent> {
        let reserve = if told.stranger { STRANGERS_EVENTS_RESERVE } else { EVENTS_RESERVE };
        if told.queued || !self.has(told.stranger, reserve + 1) {
            return None;
        }
        let event = told.pending.take()?;
        self.spend(told.stranger);
        told.queued = true;
        Some(QueuedEvent { event, occurrence: told.occurrence() })
    }

    fn refill(&mut self, now_ms: u64) {
        self.bucket.refill(now_ms, EVENTS);
        self.strangers.refill(now_ms, STRANGERS_EVENTS);
    }

    fn has(&self, stranger: bool, tokens: u64) -> bool {
        if stranger { self.strangers.has(STRANGERS_EVENTS, tokens) } else { self.bucket.has(EVENTS, tokens) }
    }

    fn spend(&mut self, stranger: bool) {
        let bucket = if stranger { &mut self.strangers } else { &mut self.bucket };
        bucket.spend(1);
    }

    fn application_may(&mut self, now_ms: u64, about: About) -> bool {
        let About::Application(uid) = about else { return true };
        if let Some((_, bucket)) = self.applications.iter_mut().find(|(known, _)| *known == uid) {
            return bucket.take(now_ms, APPLICATION_EVENTS, 1);
        }
        // Those that have earned everything again need not be remembered; the others are bounded by the device's tokens.
        self.applications.retain_mut(|(_, bucket)| {
            bucket.refill(now_ms, APPLICATION_EVENTS);
            bucket.spent() > 0
        });
        let mut bucket = TokenBucket::default();
        let may = bucket.take(now_ms, APPLICATION_EVENTS, 1);
        self.applications.push((uid, bucket));
        may
    }

    /// A repeated Event that was counted only and may be written now.
    pub(super) fn overdue(&mut self, now_ms: u64) -> Option<QueuedEvent> {
        self.refill(now_ms);
        (0..self.told.len()).find_map(|index| {
            let mut told = self.told.remove(index)?;
            let queued = self.queue(&mut told);
            self.told.insert(index, told);
            queued
        })
    }

    /// The turn of a queued Event has come: it is written as it is now.
    pub(super) fn refresh(&mut self, queued: &mut QueuedEvent) {
        let number = queued.occurrence.number;
        if let Some(told) = self.told.iter_mut().find(|told| told.number == number) {
            told.queued = false;
            queued.occurrence = told.occurrence();
            if let Some(newest) = told.pending.take() {
                queued.event = newest;
            }
        }
    }
}

impl Told {
    fn occurrence(&self) -> Occurrence {
        Occurrence { number: self.number, count: self.count, first_unix_ms: self.first_unix_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ObjectKey, kubernetes::Regarding};

    fn event(message: &str, unix_ms: u64) -> Box<Event> {
        Box::new(Event {
            regarding: Regarding::device(ObjectKey::new("n", "a"), "u"),
            warning: true,
            reason: wasmbed_api::ReasonCode::Trapped,
            message: message.into(),
            unix_ms,
        })
    }

    #[test]
    fn repeats_are_counted_into_one_object() {
        let mut ledger = Ledger::default();
        let Noted::Write(mut first, 0) = ledger.note(0, event("m", 1), About::Device, 7) else { panic!() };
        assert_eq!(ledger.note(0, event("m", 2), About::Device, 8), Noted::Counted, "the first waits yet");
        ledger.refresh(&mut first);
        assert_eq!((first.occurrence.number, first.occurrence.count, first.event.unix_ms), (7, 2, 2));
        let Noted::Write(mut second, 0) = ledger.note(0, event("m", 3), About::Device, 9) else { panic!() };
        ledger.refresh(&mut second);
        assert_eq!(second.occurrence, Occurrence { number: 7, count: 3, first_unix_ms: 1 });
        let mut writes = 0;
        for _ in 0..1_000 {
            if let Noted::Write(mut queued, _) = ledger.note(0, event("m", 4), About::Device, 10) {
                ledger.refresh(&mut queued);
                writes += 1;
            }
        }
        assert_eq!(writes, 25 - EVENTS_RESERVE - 2);
        assert!(ledger.overdue(0).is_none());
        let mut late = ledger.overdue(60_100).unwrap();
        ledger.refresh(&mut late);
        assert_eq!(late.occurrence.count, 1_003, "none is lost");
        assert!(ledger.overdue(600_000).is_none());
    }

    #[test]
    fn new_ones_are_bounded_by_application_and_by_device() {
        let mut ledger = Ledger::default();
        let mut written = 0;
        for number in 0..1_000_u64 {
            let about = About::Application(Some(ApplicationUid([(number % 2) as u8; 16])));
            let noted = ledger.note(0, event(&number.to_string(), 0), about, number);
            written += u32::from(matches!(noted, Noted::Write(..)));
            assert_eq!(matches!(noted, Noted::LeftOut { first: true }), number == 10, "{number}");
        }
        assert_eq!(written, 10, "five of each application");
        for number in 0..1_000_u64 {
            let mut uid = [9; 16];
            uid[..8].copy_from_slice(&number.to_be_bytes());
            let about = About::Application(Some(ApplicationUid(uid)));
            let noted = ledger.note(0, event(&format!("x{number}"), 0), about, number);
            written += u32::from(matches!(noted, Noted::Write(..)));
        }
        assert_eq!(written, 25);
        assert!(ledger.told.len() <= EVENTS_REMEMBERED_MAX && ledger.applications.len() <= 26);
    }

    #[test]
    fn what_others_do_in_its_name_takes_nothing_of_what_the_device_may() {
        let mut ledger = Ledger::default();
        let write = |ledger: &mut Ledger, about, text: String| {
            let noted = ledger.note(0, event(&text, 0), about, 0);
            matches!(noted, Noted::Write(..))
        };
        let others = (0..1_000).filter(|n| write(&mut ledger, About::Stranger, format!("s{}", n / 2)));
        assert_eq!(others.count(), 5);
        let own = (0..1_000).filter(|n| write(&mut ledger, About::Device, n.to_string()));
        assert_eq!(own.count(), 25);
        ledger.refill(300_100);
        assert!(matches!(ledger.note(300_100, event("s", 0), About::Stranger, 0), Noted::Write(..)));
        assert!(ledger.told.len() <= EVENTS_REMEMBERED_MAX + 5);
    }
}
