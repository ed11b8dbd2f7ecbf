//! Which lines are new, in which order they belong, and what is missing between them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use wasmbed_control::{ObjectKey, UnixTime, gateway_api::LogLine};

/// Applications on devices whose last line is remembered: ten on each of 10,000 devices. Of more, the one that has been quiet
/// for longest is forgotten.
const STREAMS_MAX: usize = 100_000;

/// One application on one device: its lines have numbers of their own.
type Stream = (ObjectKey, String);

fn stream(line: &LogLine) -> Stream {
    (line.device.clone(), line.application.clone())
}

/// How far one gateway was read. It survives the connection, and the gateway's restart.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursor {
    boot_id: Option<String>,
    number: u64,
    /// Of gateways that do not number their lines: the last line of each application on each device.
    last: BTreeMap<Stream, (UnixTime, u64)>,
}

impl Cursor {
    /// The gateway answers. One that has started anew since has forgotten its lines, and counts from the beginning.
    pub(super) fn begin(&mut self, boot_id: Option<&str>) {
        if self.boot_id.as_deref() != boot_id {
            self.boot_id = boot_id.map(str::to_owned);
            self.number = 0;
        }
    }

    /// Whether the line was not read before.
    pub(super) fn is_new(&mut self, line: &LogLine) -> bool {
        if let Some(number) = line.number.filter(|_| self.boot_id.is_some()) {
            let new = number > self.number;
            self.number = self.number.max(number);
            return new;
        }
        let place = (line.time, line.sequence);
        if self.last.get(&stream(line)).is_some_and(|last| *last >= place) {
            return false;
        }
        self.last.insert(stream(line), place);
        if self.last.len() > STREAMS_MAX
            && let Some(oldest) =
                self.last.iter().min_by_key(|(_, (time, _))| *time).map(|(key, _)| key.clone())
        {
            self.last.remove(&oldest);
        }
        true
    }

    /// Changes whenever a line is new.
    pub(super) fn progress(&self) -> (u64, usize, Option<UnixTime>) {
        (self.number, self.last.len(), self.last.values().map(|(time, _)| *time).max())
    }
}

/// Lines of several gateways in one order: those of an application on a device as it wrote them, all of them by time.
pub(super) fn merge(lines: Vec<LogLine>) -> Vec<LogLine> {
    let mut streams: BTreeMap<Stream, Vec<LogLine>> = BTreeMap::new();
    for line in lines {
        streams.entry(stream(&line)).or_default().push(line);
    }
    let mut streams: Vec<_> = streams
        .into_values()
        .map(|mut lines| {
            // Stable: what says nothing of its place stays as the gateway had it, at its time.
            lines.sort_by_key(|line| match line.epoch {
                Some(epoch) => (line.boot, epoch, UnixTime::default(), line.sequence),
                None => (line.boot, 0, line.time, 0),
            });
            lines.into_iter().peekable()
        })
        .collect();
    let mut heads: BinaryHeap<_> = streams
        .iter_mut()
        .enumerate()
        .filter_map(|(index, lines)| lines.peek().map(|line| Reverse((line.time, index))))
        .collect();
    let mut merged = Vec::new();
    while let Some(Reverse((_, index))) = heads.pop() {
        let Some(lines) = streams.get_mut(index) else { continue };
        merged.extend(lines.next());
        if let Some(next) = lines.peek() {
            heads.push(Reverse((next.time, index)));
        }
    }
    merged
}

/// Counts what is missing between two lines of an application, wherever it was lost: on the device, on the way, in a gateway
/// that kept too little or ended.
#[derive(Debug)]
pub(super) struct Gaps {
    /// Whether every gateway is read: otherwise lines of another session may be elsewhere.
    all_gateways: bool,
    last: BTreeMap<Stream, Last>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    boot: Option<u64>,
    epoch: u64,
    sequence: u64,
}

impl Gaps {
    pub(super) fn new(all_gateways: bool) -> Self {
        Self { all_gateways, last: BTreeMap::new() }
    }

    /// Corrects `lines_lost` of a line that is about to be shown.
    pub(super) fn account(&mut self, line: &mut LogLine) {
        let Some(epoch) = line.epoch else { return };
        let here = Last { boot: line.boot, epoch, sequence: line.sequence };
        if let Some(last) = self.last.get(&stream(line)) {
            let same_start =
                last.epoch == epoch || (self.all_gateways && last.boot.is_some() && last.boot == line.boot);
            if same_start && line.sequence <= last.sequence {
                return;
            }
            if same_start {
                let missing = line.sequence.saturating_sub(last.sequence).saturating_sub(1);
                line.lines_lost = u32::try_from(missing).unwrap_or(u32::MAX);
            }
        }
        self.last.insert(stream(line), here);
        if self.last.len() > STREAMS_MAX {
            self.last.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(device: &str, time: &str, sequence: u64) -> LogLine {
        LogLine {
            time: UnixTime::parse(time).unwrap(),
            device: ObjectKey { namespace: "default".to_owned(), name: device.to_owned() },
            application: "default/count".to_owned(),
            sequence,
            lines_lost: 0,
            text: sequence.to_string(),
            number: None,
            boot: None,
            epoch: None,
        }
    }

    /// Lines 10 ms apart, as an older gateway wrote their times: without the zeros at the end, which is where order by text
    /// breaks.
    fn counted() -> Vec<LogLine> {
        let lines = (0..400_u64).map(|sequence| {
            let ms = 1_767_323_045_000 + sequence * 10;
            let time = k8s_openapi::jiff::Timestamp::from_millisecond(ms.cast_signed()).unwrap();
            let line: String = serde_json::json!({
                "time": time.to_string(), "device": { "namespace": "default", "name": "a" },
                "application": "default/count", "sequence": sequence + 1, "lines_lost": 0, "text": "x",
            })
            .to_string();
            serde_json::from_str(&line).unwrap()
        });
        lines.collect()
    }

    fn sequences(lines: &[LogLine]) -> Vec<u64> {
        lines.iter().map(|line| line.sequence).collect()
    }

    #[test]
    fn no_line_of_an_older_gateway_is_lost_repeated_or_shuffled() {
        let lines = counted();
        let mut cursor = Cursor::default();
        cursor.begin(None);
        let read: Vec<_> = lines.iter().filter(|line| cursor.is_new(line)).cloned().collect();
        assert_eq!(sequences(&read), (1..=400).collect::<Vec<_>>());
        assert!(!lines.iter().any(|line| cursor.is_new(line)), "none comes again");
        assert_eq!(sequences(&merge(lines)), (1..=400).collect::<Vec<_>>());
        // Another device's line of an earlier moment is as new as any.
        assert!(cursor.is_new(&line("b", "2026-01-02T03:04:05Z", 1)));
    }

    #[test]
    fn a_gateway_is_read_on_by_numbers_and_from_the_beginning_after_its_restart() {
        let numbered = |number| LogLine { number: Some(number), ..line("a", "2026-01-02T03:04:05Z", number) };
        let mut cursor = Cursor::default();
        cursor.begin(Some("one"));
        assert!((1..=5).all(|number| cursor.is_new(&numbered(number))));
        cursor.begin(Some("one"));
        assert!(!(1..=5).any(|number| cursor.is_new(&numbered(number))));
        assert!(cursor.is_new(&numbered(6)));
        cursor.begin(Some("two"));
        assert!((1..=3).all(|number| cursor.is_new(&numbered(number))), "another life, other lines");
    }

    #[test]
    fn lines_are_in_the_order_of_starts_sessions_and_numbers_and_devices_are_merged_by_time() {
        let at = |device, second: u64, boot, epoch, sequence| LogLine {
            boot,
            epoch: Some(epoch),
            ..line(device, &UnixTime::from_ms(second * 1_000).to_string(), sequence)
        };
        // Device a moved from one gateway to another, whose clock is behind; then it restarted.
        let lines = vec![
            at("a", 50, Some(3), 9, 1),
            at("a", 30, Some(2), 8, 3),
            at("a", 20, Some(2), 7, 1),
            at("b", 10, None, 4, 1),
            at("a", 40, Some(2), 7, 2),
            at("b", 60, None, 4, 2),
        ];
        let merged: Vec<_> =
            merge(lines).iter().map(|line| (line.device.name.clone(), line.boot, line.sequence)).collect();
        let expected = [
            ("b", None, 1),
            ("a", Some(2), 1),
            ("a", Some(2), 2),
            ("a", Some(2), 3),
            ("a", Some(3), 1),
            ("b", None, 2),
        ];
        assert_eq!(merged, expected.map(|(device, boot, sequence)| (device.to_owned(), boot, sequence)));
    }

    #[test]
    fn what_is_missing_is_counted_wherever_it_was_lost() {
        let lost = |gaps: &mut Gaps, boot, epoch, sequence, told| {
            let mut line = LogLine {
                boot,
                epoch: Some(epoch),
                lines_lost: told,
                ..line("a", "2026-01-02T03:04:05Z", sequence)
            };
            gaps.account(&mut line);
            line.lines_lost
        };
        let mut gaps = Gaps::new(true);
        assert_eq!(lost(&mut gaps, Some(1), 1, 4, 3), 3, "only the device can know");
        assert_eq!(lost(&mut gaps, Some(1), 1, 5, 0), 0);
        assert_eq!(lost(&mut gaps, Some(1), 1, 9, 0), 3, "the gateway kept too little");
        assert_eq!(lost(&mut gaps, Some(1), 2, 12, 1), 2, "one on the device, one on the way");
        assert_eq!(lost(&mut gaps, Some(1), 2, 11, 0), 0, "a late line of another gateway");
        assert_eq!(lost(&mut gaps, Some(2), 3, 1, 0), 0, "the device restarted");
        let mut one = Gaps::new(false);
        assert_eq!(lost(&mut one, Some(1), 1, 4, 0), 0);
        assert_eq!(lost(&mut one, Some(1), 3, 9, 0), 0, "the session between was at another gateway");
    }
}
