//! The last lines of every device's applications, in memory that devices share fairly.
//!
//! ```text
//! entries   number ─ line           all lines in the order in which they came, for readers
//! holders   device ─ application ─ numbers, bytes    what each device holds, for bounds
//! by_bytes  (bytes, device)         who holds most and gives way next
//! ```
//!
//! Every line is one insertion into ordered maps, and so is what gives way for it: no line costs a walk over what others
//! hold, and no device pushes out the lines of one that holds less.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use wasmbed_protocol::{ApplicationUid, Epoch, Log};

use super::config::{
    LOG_APPLICATION_BYTES_MAX, LOG_APPLICATIONS_MAX, LOG_BYTES_MAX, LOG_LINES_MAX, LOG_PAGE_MAX,
    LOG_SCAN_MAX, LOG_UNKNOWN_BYTES_MAX,
};
use crate::{Now, ObjectKey, UnixTime, gateway_api::LogLine, key::short_name};

/// What an allocation costs beside its bytes, at most: the allocator's head and rounding.
const ALLOCATION_BYTES: usize = 24;
/// What a line costs beside its text: a node of a map is half empty at worst, and so is a queue that has just grown.
const ENTRY_BYTES: usize = 2 * size_of::<(u64, Entry)>() + 2 * size_of::<u64>() + ALLOCATION_BYTES;
/// What the queue of an application costs beside its lines.
const RING_BYTES: usize =
    2 * size_of::<(Source, Ring)>() + QUEUE_LINES_MIN * size_of::<u64>() + ALLOCATION_BYTES;
/// What a device costs that holds lines: its places in two maps, and its name, which outlives the Device.
const HOLDER_BYTES: usize =
    2 * (size_of::<(Arc<ObjectKey>, Holder)>() + size_of::<(usize, Arc<ObjectKey>)>()) + 256;
/// Lines for which a queue always has room.
const QUEUE_LINES_MIN: usize = 8;

/// Which lines a reader wants, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogCursor {
    /// Namespace of the application; all if none.
    pub namespace: Option<String>,
    /// Name of the application; all of the namespace if none.
    pub application: Option<String>,
    /// Name of the device; all if none.
    pub device: Option<String>,
    /// Lines up to this number were read.
    pub read: u64,
}

/// What a reader is given at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogPage {
    /// In the order in which they came, at most [`LOG_PAGE_MAX`].
    pub lines: Vec<LogLine>,
    /// Whether there is more to be looked at now; `lines` may be empty all the same.
    pub more: bool,
}

/// Whose line it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// An application of the device's set or reports: `namespace/name`.
    Application(Arc<str>),
    /// An application that nobody has named. A device can make up as many of these as it likes, so all of a device's
    /// share one queue.
    Unknown(ApplicationUid),
}

#[derive(Debug, Default)]
pub(super) struct Logs {
    entries: BTreeMap<u64, Entry>,
    holders: BTreeMap<Arc<ObjectKey>, Holder>,
    by_bytes: BTreeSet<(usize, Arc<ObjectKey>)>,
    bytes: usize,
    lines: u64,
}

/// What one device holds.
#[derive(Debug, Default)]
struct Holder {
    rings: BTreeMap<Source, Ring>,
    bytes: usize,
}

/// Which queue of a device holds a line: an application's, or the one of all that have no name.
type Source = Option<Arc<str>>;

/// Numbers of one queue's lines.
#[derive(Debug, Default)]
struct Ring {
    numbers: VecDeque<u64>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    unix_ms: u64,
    device: Arc<ObjectKey>,
    origin: Origin,
    boot: Option<u64>,
    epoch: u64,
    sequence: u64,
    lines_lost: u32,
    text: Box<str>,
}

/// A line as its device sent it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    /// Orders the device's starts, if it counts them.
    boot: Option<u64>,
    epoch: u64,
    sequence: u64,
    /// Missing just before it.
    lines_lost: u32,
    text: &'a str,
}

impl<'a> Line<'a> {
    /// A line of the session of an epoch, in the device's start `boot`. `lines_lost` are missing just before it, `text` is what
    /// is kept of it.
    pub(super) fn new(
        boot: Option<u64>,
        epoch: Epoch,
        log: &Log<'_>,
        lines_lost: u32,
        text: &'a str,
    ) -> Self {
        Self { boot, epoch: epoch.0, sequence: log.sequence.0, lines_lost, text }
    }
}

/// Where the lines of a session's applications are. Within a session nothing is lost on the way, so a number that is missing
/// is a line that the device or this gateway dropped.
#[derive(Debug, Default)]
pub(super) struct Places(VecDeque<(ApplicationUid, u64)>);

impl Places {
    /// A line is taken; answers how many are missing before it. `told` is what the device reports, which counts for the first
    /// line of a session only.
    pub(super) fn take(&mut self, uid: ApplicationUid, sequence: u64, told: u32) -> u32 {
        let next = self.next(uid, sequence, told);
        let missing = sequence.saturating_sub(*next);
        *next = sequence.saturating_add(1);
        u32::try_from(missing).unwrap_or(u32::MAX)
    }

    /// A line is not taken: it counts as missing before the next one.
    pub(super) fn skip(&mut self, uid: ApplicationUid, sequence: u64, told: u32) {
        let _ = self.next(uid, sequence, told);
    }

    /// The number that comes next if nothing is missing.
    fn next(&mut self, uid: ApplicationUid, sequence: u64, told: u32) -> &mut u64 {
        let index = self.0.iter().position(|(known, _)| *known == uid).unwrap_or_else(|| {
            if self.0.len() >= LOG_APPLICATIONS_MAX {
                self.0.pop_front();
            }
            self.0.push_back((uid, sequence.saturating_sub(u64::from(told))));
            self.0.len() - 1
        });
        &mut self.0[index].1
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        self.text.len() + ENTRY_BYTES
    }
}

impl Logs {
    /// Number of the last line.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    pub(super) fn push(&mut self, now: Now, origin: Origin, device: &Arc<ObjectKey>, line: Line<'_>) {
        self.lines += 1;
        let (source, bytes_max) = match &origin {
            Origin::Application(name) => (Some(Arc::clone(name)), LOG_APPLICATION_BYTES_MAX),
            Origin::Unknown(_) => (None, LOG_UNKNOWN_BYTES_MAX),
        };
        let device = Arc::clone(device);
        let entry = Entry {
            unix_ms: now.unix_ms,
            device,
            origin,
            boot: line.boot,
            epoch: line.epoch,
            sequence: line.sequence,
            lines_lost: line.lines_lost,
            text: line.text.into(),
        };
        self.change(&Arc::clone(&entry.device), |entries, holder, number| {
            holder.make_room(entries, &source);
            let ring = holder.rings.entry(source).or_insert_with(|| {
                holder.bytes += RING_BYTES;
                Ring::default()
            });
            let bytes = entry.bytes();
            ring.numbers.push_back(number);
            ring.bytes += bytes;
            holder.bytes += bytes;
            entries.insert(number, entry);
            while ring.numbers.len() > LOG_LINES_MAX || ring.bytes > bytes_max {
                holder.bytes -= ring.drop_oldest(entries);
            }
        });
        while self.bytes > LOG_BYTES_MAX {
            let Some((_, most)) = self.by_bytes.last() else { break };
            self.change(&Arc::clone(most), |entries, holder, _| holder.drop_oldest(entries));
        }
    }

    /// Changes what a device holds, and keeps the sums.
    fn change(
        &mut self,
        device: &Arc<ObjectKey>,
        change: impl FnOnce(&mut BTreeMap<u64, Entry>, &mut Holder, u64),
    ) {
        let holder = self.holders.entry(Arc::clone(device)).or_default();
        let before = holder.bytes;
        change(&mut self.entries, holder, self.lines);
        let after = holder.bytes;
        if before > 0 {
            self.by_bytes.remove(&(before, Arc::clone(device)));
            self.bytes -= before + HOLDER_BYTES;
        }
        if after > 0 {
            self.by_bytes.insert((after, Arc::clone(device)));
            self.bytes += after + HOLDER_BYTES;
        } else {
            self.holders.remove(device);
        }
    }

    /// The first broken invariant, if any: what is held is counted, by queue, by device and in all, and is within its bound.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let counted = |ring: &Ring| {
            let lines = ring.numbers.iter().filter_map(|number| self.entries.get(number));
            lines.map(Entry::bytes).sum::<usize>() == ring.bytes
        };
        let (mut entries, mut bytes) = (0, 0);
        for (device, holder) in &self.holders {
            let rings = holder.rings.values();
            let held: usize = rings.clone().map(|ring| ring.bytes + RING_BYTES).sum();
            if held != holder.bytes || !rings.clone().all(counted) {
                return Err("the bytes of a device's lines are not those that are counted");
            }
            if !self.by_bytes.contains(&(holder.bytes, Arc::clone(device))) {
                return Err("a device that holds lines is not among those that give way");
            }
            entries += rings.map(|ring| ring.numbers.len()).sum::<usize>();
            bytes += holder.bytes + HOLDER_BYTES;
        }
        if entries != self.entries.len() || self.by_bytes.len() != self.holders.len() {
            return Err("a line is kept that no device holds");
        }
        if bytes != self.bytes || bytes > LOG_BYTES_MAX {
            return Err("the bytes of all lines are not those that are counted, or too many");
        }
        Ok(())
    }

    /// The next lines in the order in which they came, at most a page.
    pub(super) fn page(&self, cursor: &mut LogCursor) -> LogPage {
        let mut page = LogPage::default();
        let new = self.entries.range(cursor.read.saturating_add(1)..);
        for (looked_at, (number, entry)) in new.enumerate() {
            if looked_at >= LOG_SCAN_MAX || page.lines.len() >= LOG_PAGE_MAX {
                page.more = true;
                return page;
            }
            cursor.read = *number;
            if cursor.wants(entry) {
                page.lines.push(entry.to_line(*number));
            }
        }
        cursor.read = self.lines;
        page
    }
}

impl LogCursor {
    fn wants(&self, entry: &Entry) -> bool {
        let wanted =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let of_device =
            wanted(&self.namespace, &entry.device.namespace) && wanted(&self.device, &entry.device.name);
        of_device
            && match &entry.origin {
                Origin::Application(name) => wanted(&self.application, short_name(name)),
                // Lines of an application whose name is not known are found by its UID.
                Origin::Unknown(uid) => self.application.as_deref() == Some(&*uid.to_string()),
            }
    }
}

impl Holder {
    /// Sees to it that a queue may be added for `source`: those of applications that the device no longer runs go first.
    fn make_room(&mut self, entries: &mut BTreeMap<u64, Entry>, source: &Source) {
        if self.rings.contains_key(source) || self.rings.len() < LOG_APPLICATIONS_MAX {
            return;
        }
        let quiet = self.rings.iter().min_by_key(|(_, ring)| ring.numbers.back().copied());
        if let Some(source) = quiet.map(|(source, _)| source.clone())
            && let Some(ring) = self.rings.remove(&source)
        {
            self.bytes -= RING_BYTES + ring.bytes;
            for number in &ring.numbers {
                entries.remove(number);
            }
        }
    }

    /// Drops the oldest line of the queue that holds most.
    fn drop_oldest(&mut self, entries: &mut BTreeMap<u64, Entry>) {
        let (source, ring) =
            present!(self.rings.iter_mut().max_by_key(|(_, ring)| ring.bytes), "who holds bytes holds lines");
        self.bytes -= ring.drop_oldest(entries);
        if ring.numbers.is_empty() {
            let source = source.clone();
            self.bytes -= RING_BYTES;
            self.rings.remove(&source);
        }
    }
}

impl Ring {
    fn drop_oldest(&mut self, entries: &mut BTreeMap<u64, Entry>) -> usize {
        let oldest = self.numbers.pop_front();
        let bytes = oldest.and_then(|number| entries.remove(&number)).map_or(0, |entry| entry.bytes());
        self.bytes -= bytes;
        // What a queue once held must not stay allocated uncounted.
        if self.numbers.capacity() > QUEUE_LINES_MIN && self.numbers.len() < self.numbers.capacity() / 4 {
            self.numbers.shrink_to(self.numbers.capacity() / 2);
        }
        bytes
    }
}

impl Entry {
    fn to_line(&self, number: u64) -> LogLine {
        LogLine {
            time: UnixTime::from_ms(self.unix_ms),
            device: (*self.device).clone(),
            application: match &self.origin {
                Origin::Application(name) => name.to_string(),
                Origin::Unknown(uid) => uid.to_string(),
            },
            sequence: self.sequence,
            lines_lost: self.lines_lost,
            text: self.text.to_string(),
            number: Some(number),
            boot: self.boot,
            epoch: Some(self.epoch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Arc<ObjectKey> {
        Arc::new(ObjectKey { namespace: "default".into(), name: name.into() })
    }

    fn application(name: &str) -> Origin {
        Origin::Application(name.into())
    }

    fn line(sequence: u64, lines_lost: u32, text: &str) -> Line<'_> {
        Line { boot: None, epoch: 1, sequence, lines_lost, text }
    }

    #[test]
    fn times_follow_the_clock_also_backwards_and_numbers_do_not() {
        let mut logs = Logs::default();
        for (sequence, unix_ms) in [(1, 90_000), (2, 5_000), (3, 5_000)] {
            logs.push(
                Now { ms: sequence, unix_ms },
                application("default/a"),
                &key("a"),
                line(sequence, 0, "x"),
            );
        }
        let places: Vec<_> =
            lines(&logs, &mut cursor(None, None)).iter().map(|line| (line.number, line.time.ms)).collect();
        assert_eq!(places, [(Some(1), 90_000), (Some(2), 5_000), (Some(3), 5_000)]);
    }

    #[test]
    fn missing_numbers_are_lost_lines_whatever_the_device_says() {
        let (a, b) = (ApplicationUid([1; 16]), ApplicationUid([2; 16]));
        let mut places = Places::default();
        assert_eq!(places.take(a, 5, 4), 4, "the first of a session: only the device can know");
        assert_eq!(places.take(a, 6, 0), 0);
        places.skip(a, 7, 0);
        places.skip(a, 10, 2);
        assert_eq!(places.take(b, 1, 0), 0, "another application lost nothing");
        assert_eq!(places.take(a, 11, 0), 4);
        assert_eq!(places.take(a, 12, 1_000), 0, "nothing is missing");
        assert_eq!(places.take(a, 3, 0), 0, "a number that comes again hides nothing");
        places.skip(b, u64::MAX, 0);
        assert_eq!(places.take(b, u64::MAX, 0), u32::MAX);
        for uid in 0..=255 {
            places.take(ApplicationUid([uid; 16]), 1, 0);
        }
        assert_eq!(places.0.len(), LOG_APPLICATIONS_MAX);
    }

    fn cursor(application: Option<&str>, device: Option<&str>) -> LogCursor {
        LogCursor {
            namespace: Some("default".into()),
            application: application.map(str::to_owned),
            device: device.map(str::to_owned),
            read: 0,
        }
    }

    fn lines(logs: &Logs, cursor: &mut LogCursor) -> Vec<LogLine> {
        let mut lines = Vec::new();
        loop {
            let page = logs.page(cursor);
            assert!(page.lines.len() <= LOG_PAGE_MAX);
            lines.extend(page.lines);
            if !page.more {
                return lines;
            }
        }
    }

    fn assert_sums(logs: &Logs) {
        assert_eq!(logs.check(), Ok(()));
    }

    #[test]
    fn sums_that_are_wrong_are_noticed() {
        let made = || {
            let mut logs = Logs::default();
            logs.push(Now::default(), application("default/hello"), &key("a"), line(1, 0, "x"));
            logs
        };
        assert_sums(&made());
        let breaks = |broken: fn(&mut Logs)| {
            let mut logs = made();
            broken(&mut logs);
            logs.check().is_err()
        };
        assert!(breaks(|logs| logs.bytes += 1));
        assert!(breaks(|logs| logs.entries.clear()));
        assert!(breaks(|logs| logs.by_bytes.clear()));
        assert!(breaks(|logs| logs.holders.values_mut().for_each(|holder| holder.bytes += 1)));
        assert!(breaks(|logs| logs.holders.clear()));
    }

    #[test]
    fn lines_come_in_order_page_by_page_and_by_device() {
        let mut logs = Logs::default();
        for number in 0..600_u64 {
            let device = key(if number % 2 == 0 { "a" } else { "b" });
            logs.push(Now::default(), application("default/hello"), &device, line(number, 0, "x"));
            logs.push(Now::default(), application("default/other"), &device, line(number, 0, "x"));
        }
        let mut all = cursor(Some("hello"), None);
        let numbers: Vec<_> = lines(&logs, &mut all).iter().map(|line| line.sequence).collect();
        assert_eq!(numbers, (0..600).collect::<Vec<_>>());
        assert!(lines(&logs, &mut cursor(None, Some("a"))).iter().all(|line| line.device.name == "a"));
        logs.push(Now::default(), application("default/hello"), &key("a"), line(600, 3, "new"));
        assert_eq!(lines(&logs, &mut all)[0].lines_lost, 3);
        assert_eq!(logs.page(&mut all), LogPage::default());
    }

    #[test]
    fn every_bound_holds() {
        let mut logs = Logs::default();
        let text = "x".repeat(1_024);
        for number in 0..20_000_u32 {
            let name = format!("default/{}", number % 100);
            let device = key(&format!("d{}", number % 7));
            logs.push(Now::default(), application(&name), &device, line(0, 0, &text));
        }
        assert_sums(&logs);
        let most = logs.holders.values().map(|holder| holder.rings.len()).max();
        assert_eq!(most, Some(LOG_APPLICATIONS_MAX));
        for number in 0..2_000_u64 {
            logs.push(Now::default(), application("default/one"), &key("e"), line(number, 0, ""));
            logs.push(Now::default(), application("default/two"), &key("e"), line(number, 0, &text));
        }
        assert_sums(&logs);
        let ring = |name: &str| &logs.holders[&key("e")].rings[&Some(name.into())];
        assert_eq!(ring("default/one").numbers.len(), LOG_LINES_MAX);
        assert!(
            (LOG_APPLICATION_BYTES_MAX - 2_048..=LOG_APPLICATION_BYTES_MAX)
                .contains(&ring("default/two").bytes)
        );
    }

    #[test]
    fn made_up_applications_share_one_queue_and_push_nobody_out() {
        let mut logs = Logs::default();
        logs.push(Now::default(), application("default/hello"), &key("honest"), line(1, 0, "kept"));
        for number in 0..60_000_u128 {
            let device = key(["a", "b", "c", "d"][(number % 4) as usize]);
            let uid = ApplicationUid(number.to_be_bytes());
            logs.push(Now::default(), Origin::Unknown(uid), &device, line(0, 0, ""));
        }
        assert_sums(&logs);
        assert_eq!(logs.holders.values().map(|holder| holder.rings.len()).sum::<usize>(), 5);
        assert!(logs.bytes < 5 * (LOG_UNKNOWN_BYTES_MAX + RING_BYTES + HOLDER_BYTES));
        assert_eq!(lines(&logs, &mut cursor(Some("hello"), None)).len(), 1);
        let last = ApplicationUid(59_999_u128.to_be_bytes()).to_string();
        assert_eq!(lines(&logs, &mut cursor(Some(&last), None)).len(), 1);
    }

    #[test]
    fn who_holds_most_gives_way() {
        let mut logs = Logs::default();
        let text = "x".repeat(1_024);
        for number in 0..50 {
            logs.push(Now::default(), application("default/app"), &key("quiet"), line(number, 0, &text));
        }
        // Names of this many applications are the controller's doing: even so one device has no more than its share.
        for number in 0..40_000_u64 {
            let name = format!("default/{}", number / 4 % 20);
            let device = key(&format!("loud-{}", number % 4));
            logs.push(Now::default(), application(&name), &device, line(number, 0, &text));
        }
        assert_sums(&logs);
        assert!(logs.bytes > LOG_BYTES_MAX - 4_096, "it is full");
        assert_eq!(logs.holders[&key("quiet")].rings[&Some("default/app".into())].numbers.len(), 50);
        let loud: Vec<_> = (0..4).map(|loud| logs.holders[&key(&format!("loud-{loud}"))].bytes).collect();
        let (least, most) = (loud.iter().min().unwrap(), loud.iter().max().unwrap());
        assert!(most - least <= 2 * (1_024 + ENTRY_BYTES), "{loud:?}");
    }
}
