//! What must hold of traps: what a device's own log says of them, what it tells and reports, and what gateways write, agree.
//!
//! - A trap that is told happened, and is told once.
//! - A trap in a session that goes on is told.
//! - A report says of a trap what the device's log says.
//! - An Event says of a trap what its device told this gateway, and counts it once.
//! - A gateway that can write makes an Event of a trap that it was told.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use wasmbed_api::ReasonCode;
use wasmbed_control::kubernetes::{Event, Occurrence};
use wasmbed_protocol::{ApplicationUid, Epoch, ReportReason, Reported, Trap};

/// How a device's log begins a trap.
const TRAPPED: &str = "trapped: ";
/// A trap is told at once, but for what its link carries before it.
const TOLD_LATE_MS: u64 = 3_000;
/// An Event waits for the writes before it, and for calls that fail and are made again.
const WRITTEN_LATE_MS: u64 = 120_000;

/// A trap of an application, as a device's log has it.
#[derive(Debug)]
struct Happened {
    uid: ApplicationUid,
    text: String,
    at_ms: u64,
    /// The session that it is owed to; none if that may have ended before it was told.
    owed: Option<Epoch>,
}

/// The rule that was broken, and how.
pub(crate) type Broken = (&'static str, String);

/// A start of a gateway.
pub(crate) type Started = (String, u32);

/// What a gateway was told of a trap of a device.
#[derive(Debug, Default)]
struct Told {
    count: u32,
    /// Since when the gateway could have written it, and the UID of its Device.
    due: Option<(u64, String)>,
    /// It was written, or need not be.
    done: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Traps {
    /// By device: what was not told yet, in its order.
    untold: BTreeMap<usize, Vec<Happened>>,
    /// By device: all that happened.
    happened: BTreeMap<usize, BTreeSet<(ApplicationUid, String)>>,
    /// What each start of a gateway was told, by device and text.
    told: BTreeMap<Started, BTreeMap<(usize, String), Told>>,
    count: u64,
}

impl Traps {
    /// How many happened.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// A device's log has a line of an application. `session` is the device's.
    pub(crate) fn logged(
        &mut self,
        device: usize,
        uid: ApplicationUid,
        line: &str,
        now_ms: u64,
        session: Option<Epoch>,
    ) {
        let Some(text) = line.strip_prefix(TRAPPED) else { return };
        self.count += 1;
        self.happened.entry(device).or_default().insert((uid, text.to_owned()));
        let untold = self.untold.entry(device).or_default();
        // A later one of the same application takes the place of one that waits.
        for earlier in untold.iter_mut().filter(|earlier| earlier.uid == uid) {
            earlier.owed = None;
        }
        untold.push(Happened { uid, text: text.to_owned(), at_ms: now_ms, owed: session });
    }

    /// Whether a device's traps still have to be told: not those of applications that it has no more, nor of a session that is
    /// not there, or through which nothing comes.
    pub(crate) fn wait(
        &mut self,
        device: usize,
        now_ms: u64,
        session: Option<Epoch>,
        has: impl Fn(&ApplicationUid) -> bool,
    ) -> Option<Broken> {
        let mut late = None;
        for trap in self.untold.entry(device).or_default() {
            trap.owed = trap.owed.filter(|owed| session == Some(*owed) && has(&trap.uid));
            if trap.owed.is_some() && now_ms - trap.at_ms > TOLD_LATE_MS {
                late = Some(trap.text.clone());
            }
        }
        let what = format!("device {device} keeps to itself that an application trapped: {}", late?);
        Some(("a trap in a session that goes on is told", what))
    }

    /// A device told a gateway of a trap.
    pub(crate) fn told(&mut self, device: usize, gateway: &Started, trap: &Trap<'_>) -> Option<Broken> {
        let text = trap.to_string();
        let told = self.told.entry(gateway.clone()).or_default().entry((device, text.clone())).or_default();
        told.count += 1;
        let untold = self.untold.entry(device).or_default();
        // Of those that are alike, some may never have been sent: it is the one that is still owed.
        let known =
            untold.iter().enumerate().filter(|(_, known)| known.uid == trap.uid && known.text == text);
        let known = known.max_by_key(|(position, known)| (known.owed.is_some(), Reverse(*position)));
        if let Some((position, _)) = known {
            untold.remove(position);
            return None;
        }
        let what = format!("device {device} tells of {} what its log does not say: {text}", trap.uid);
        Some(("a trap that is told happened, and is told once", what))
    }

    /// A device reported.
    pub(crate) fn reported(&self, device: usize, reported: &Reported<'_>) -> Option<Broken> {
        let trapped = reported.applications.iter().filter(|report| report.reason == ReportReason::Trapped);
        let mut invented = trapped.filter(|report| {
            let said = report.message.strip_prefix(TRAPPED).unwrap_or(report.message);
            let mut happened = self.happened.get(&device).into_iter().flatten();
            !happened.any(|(uid, text)| *uid == report.uid && text.starts_with(said))
        });
        let report = invented.next()?;
        let (uid, message) = (report.uid, report.message);
        let what = format!("device {device} reports of {uid} what its log does not say: {message}");
        Some(("a report says of a trap what the log says", what))
    }

    /// A gateway writes an Event about a device.
    pub(crate) fn written(
        &mut self,
        device: usize,
        gateway: &Started,
        event: &Event,
        occurrence: Occurrence,
    ) -> Option<Broken> {
        let limits = [ReasonCode::Trapped, ReasonCode::StackLimit, ReasonCode::MemoryLimit];
        let (_, text) = event.message.strip_prefix("application ")?.split_once(": ")?;
        // Those that a report makes say what the reason means.
        if !limits.contains(&event.reason) || text.starts_with(event.reason.sentence()) {
            return None;
        }
        let told = self.told.entry(gateway.clone()).or_default().get_mut(&(device, text.to_owned()));
        let count = told.map_or(0, |told| {
            told.done = true;
            told.count
        });
        let (times, (gateway, _)) = (occurrence.count, gateway);
        let what = format!("{gateway} writes {times} times, and was told {count} times: {}", event.message);
        (times > count).then_some(("an Event says what a device told, and counts it once", what))
    }

    /// Whether a gateway's Events still have to be written: not where it, or the API, was away since, or the Device is another.
    /// `uid` is that of a device's Device, if the gateway could write about it now.
    pub(crate) fn events_wait(
        &mut self,
        gateway: &Started,
        now_ms: u64,
        uid: impl Fn(usize) -> Option<String>,
    ) -> Option<Broken> {
        let mut late = None;
        for ((device, text), told) in self.told.get_mut(gateway)?.iter_mut().filter(|(_, told)| !told.done) {
            let uid = uid(*device);
            let (since_ms, known) = told.due.get_or_insert_with(|| (now_ms, uid.clone().unwrap_or_default()));
            told.done = uid.as_ref() != Some(known);
            if !told.done && now_ms - *since_ms > WRITTEN_LATE_MS {
                late = Some(format!("device {device}: {text}"));
            }
        }
        let what = format!("{} has written nothing of what it was told by {}", gateway.0, late?);
        Some(("a gateway makes an Event of a trap", what))
    }

    /// A gateway says that it leaves out Events of a device; of all if none is named.
    pub(crate) fn left_out(&mut self, gateway: &Started, device: Option<usize>) {
        for ((of, _), told) in self.told.get_mut(gateway).into_iter().flatten() {
            told.done |= device.is_none_or(|device| device == *of);
        }
    }
}

#[cfg(test)]
mod tests {
    use wasmbed_control::{ObjectKey, kubernetes::Regarding};
    use wasmbed_protocol::{
        ApplicationReport, ApplicationState, CorrelationId, List, Revision, Sequence, SpecHash, StackFrame,
        TrapKind,
    };

    use super::*;

    const UID: ApplicationUid = ApplicationUid([7; 16]);
    const LINE: &str =
        "trapped: unreachable executed (a panic or an abort) at step (function 2, offset 0x1a3)";

    fn gateway() -> Started {
        ("gateway-0".to_owned(), 1)
    }

    fn told(traps: &mut Traps, function: u32) -> Option<&'static str> {
        let frames = [StackFrame { function, offset: Some(0x1a3), name: "step" }];
        let trap = Trap {
            uid: UID,
            spec_hash: SpecHash([1; 32]),
            restarts: 0,
            kind: TrapKind::Unreachable,
            frames: List::new(&frames),
            frames_left_out: 0,
        };
        rule(traps.told(0, &gateway(), &trap))
    }

    /// A device that trapped so often in a session.
    fn trapped(times: u64) -> Traps {
        let mut traps = Traps::default();
        for time in 0..times {
            traps.logged(0, UID, LINE, time, Some(Epoch(1)));
        }
        traps
    }

    fn rule(broken: Option<Broken>) -> Option<&'static str> {
        broken.map(|(rule, _)| rule)
    }

    fn written(traps: &mut Traps, function: u32, count: u32) -> Option<&'static str> {
        let event = Event {
            regarding: Regarding::device(ObjectKey::new("n", "a"), "u"),
            warning: true,
            reason: ReasonCode::Trapped,
            message: format!(
                "application n/x: unreachable executed (a panic or an abort) at step (function {function}, offset 0x1a3)"
            ),
            unix_ms: 0,
        };
        rule(traps.written(0, &gateway(), &event, Occurrence { number: 0, count, first_unix_ms: 0 }))
    }

    #[test]
    fn a_trap_that_did_not_happen_or_is_told_twice_is_caught() {
        let mut traps = trapped(2);
        assert_eq!([told(&mut traps, 2), told(&mut traps, 2)], [None; 2]);
        assert_eq!(told(&mut traps, 2), Some("a trap that is told happened, and is told once"));
        assert!(told(&mut trapped(1), 3).is_some());
    }

    #[test]
    fn a_trap_that_is_not_told_is_caught_where_the_session_goes_on() {
        let late = TOLD_LATE_MS + 1;
        let waits = |session, has: bool| {
            let mut traps = trapped(1);
            assert_eq!(traps.wait(0, 0, session, |_| has), None);
            rule(traps.wait(0, late, Some(Epoch(1)), |_| true))
        };
        assert_eq!(waits(Some(Epoch(1)), true), Some("a trap in a session that goes on is told"));
        assert_eq!(waits(Some(Epoch(2)), true), None);
        assert_eq!(waits(None, true), None);
        assert_eq!(waits(Some(Epoch(1)), false), None, "it is none of the device's any more");
        let mut traps = trapped(2);
        assert_eq!(told(&mut traps, 2), None);
        assert_eq!(
            traps.wait(0, late, Some(Epoch(1)), |_| true),
            None,
            "the later one took the place of the first"
        );
    }

    #[test]
    fn a_report_of_another_trap_is_caught() {
        let reported = |message: &str| {
            let report = ApplicationReport {
                uid: UID,
                spec_hash: SpecHash([1; 32]),
                digest: None,
                state: ApplicationState::CrashLoop,
                reason: ReportReason::Trapped,
                message,
                restarts: 0,
                memory_bytes: 0,
                cpu_ms: 0,
                correlation_id: CorrelationId([0; 16]),
            };
            let applications = List::new(std::slice::from_ref(&report));
            let reported = Reported { sequence: Sequence(1), revision: Revision(1), applications };
            rule(trapped(1).reported(0, &reported))
        };
        assert_eq!(reported(LINE), None);
        let other = LINE.replace("function 2", "function 3");
        assert_eq!(reported(&other), Some("a report says of a trap what the log says"));
    }

    #[test]
    fn an_event_that_says_more_than_was_told_is_caught() {
        let twice = || {
            let mut traps = trapped(2);
            assert_eq!([told(&mut traps, 2), told(&mut traps, 2)], [None; 2]);
            traps
        };
        assert_eq!(written(&mut twice(), 2, 2), None);
        for (function, count) in [(2, 3), (3, 1)] {
            let found = written(&mut twice(), function, count);
            assert_eq!(found, Some("an Event says what a device told, and counts it once"));
        }
    }

    #[test]
    fn a_trap_without_an_event_is_caught() {
        let uid = |uid: &str| Some(uid.to_owned());
        let late = WRITTEN_LATE_MS + 1;
        let ends = |act: &dyn Fn(&mut Traps)| {
            let mut traps = trapped(1);
            assert_eq!(told(&mut traps, 2), None);
            assert_eq!(traps.events_wait(&gateway(), 0, |_| uid("u")), None);
            act(&mut traps);
            rule(traps.events_wait(&gateway(), late, |_| uid("u")))
        };
        assert_eq!(ends(&|_| {}), Some("a gateway makes an Event of a trap"));
        assert_eq!(ends(&|traps| assert_eq!(written(traps, 2, 1), None)), None);
        assert_eq!(ends(&|traps| traps.left_out(&gateway(), Some(0))), None);
        for between in [uid("v"), None] {
            let away = |traps: &mut Traps| {
                assert_eq!(traps.events_wait(&gateway(), 1, |_| between.clone()), None);
            };
            assert_eq!(ends(&away), None, "{between:?}");
        }
    }
}
