//! The last lines of every application's log.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{
    config::{LOG_APPLICATION_BYTES_MAX, LOG_BYTES_MAX, LOG_LINES_MAX, LOG_PAGE_MAX},
    input::Now,
};
use crate::exchange::{DeviceKey, LogLine};

/// What one entry costs beside its text, about.
const ENTRY_BYTES: usize = 64;

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

#[derive(Debug, Default)]
pub(super) struct Logs {
    rings: BTreeMap<Arc<str>, Ring>,
    bytes: usize,
    lines: u64,
    /// Time of the last line: readers tell lines apart by it, so it never goes back.
    unix_ms: u64,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    unix_ms: u64,
    device: Arc<DeviceKey>,
    sequence: u64,
    lines_lost: u32,
    text: Box<str>,
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

    pub(super) fn push(
        &mut self,
        application: &Arc<str>,
        device: &Arc<DeviceKey>,
        (sequence, lines_lost, text): (u64, u32, &str),
        now: Now,
    ) {
        self.lines += 1;
        self.unix_ms = self.unix_ms.max(now.unix_ms);
        let entry = Entry {
            number: self.lines,
            unix_ms: self.unix_ms,
            device: Arc::clone(device),
            sequence,
            lines_lost,
            text: text.into(),
        };
        let ring = self.rings.entry(Arc::clone(application)).or_default();
        ring.bytes += entry.bytes();
        self.bytes += entry.bytes();
        ring.entries.push_back(entry);
        while ring.entries.len() > LOG_LINES_MAX || ring.bytes > LOG_APPLICATION_BYTES_MAX {
            self.bytes -= ring.drop_oldest();
        }
        while self.bytes > LOG_BYTES_MAX {
            let Some(longest) = self.rings.values_mut().max_by_key(|ring| ring.bytes) else { break };
            self.bytes -= longest.drop_oldest();
            self.rings.retain(|_, ring| !ring.entries.is_empty());
        }
    }

    /// The next lines in the order in which they came, at most a page.
    pub(super) fn page(&self, cursor: &mut LogCursor) -> Vec<LogLine> {
        let wanted = |name: &str| match name.split_once('/') {
            Some((namespace, name)) => {
                cursor.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
                    && cursor.application.as_deref().is_none_or(|wanted| wanted == name)
            }
            // Lines of an application whose name is not known are found by its UID.
            None => cursor.application.as_deref() == Some(name),
        };
        let mut found: Vec<(&Arc<str>, &Entry)> = Vec::new();
        for (name, ring) in self.rings.iter().filter(|(name, _)| wanted(name)) {
            let start = ring.entries.partition_point(|entry| entry.number <= cursor.read);
            let of_device = |entry: &&Entry| {
                cursor.namespace.as_deref().is_none_or(|wanted| wanted == entry.device.namespace)
                    && cursor.device.as_deref().is_none_or(|wanted| wanted == entry.device.name)
            };
            found.extend(
                ring.entries.range(start..).filter(of_device).take(LOG_PAGE_MAX).map(|entry| (name, entry)),
            );
        }
        found.sort_by_key(|(_, entry)| entry.number);
        let more = found.len() > LOG_PAGE_MAX;
        found.truncate(LOG_PAGE_MAX);
        cursor.read = match found.last() {
            Some((_, entry)) if more => entry.number,
            Some((_, entry)) if found.len() == LOG_PAGE_MAX => entry.number,
            _ => self.lines,
        };
        found.into_iter().map(|(name, entry)| entry.to_line(name)).collect()
    }
}

impl Ring {
    fn drop_oldest(&mut self) -> usize {
        let bytes = self.entries.pop_front().map_or(0, |entry| entry.bytes());
        self.bytes -= bytes;
        bytes
    }
}

impl Entry {
    fn to_line(&self, application: &str) -> LogLine {
        LogLine {
            time: super::rfc3339(self.unix_ms),
            device: (*self.device).clone(),
            application: application.to_owned(),
            sequence: self.sequence,
            lines_lost: self.lines_lost,
            text: self.text.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Arc<DeviceKey> {
        Arc::new(DeviceKey { namespace: "default".into(), name: name.into() })
    }

    fn cursor(application: Option<&str>, device: Option<&str>) -> LogCursor {
        LogCursor {
            namespace: Some("default".into()),
            application: application.map(str::to_owned),
            device: device.map(str::to_owned),
            read: 0,
        }
    }

    #[test]
    fn lines_come_in_order_page_by_page_and_by_device() {
        let mut logs = Logs::default();
        let (hello, other): (Arc<str>, Arc<str>) = ("default/hello".into(), "other/hello".into());
        for number in 0..600_u64 {
            let device = key(if number % 2 == 0 { "a" } else { "b" });
            logs.push(&hello, &device, (number, 0, "x"), Now::default());
            logs.push(&other, &device, (number, 0, "x"), Now::default());
        }
        let mut all = cursor(Some("hello"), None);
        let pages: Vec<_> =
            std::iter::from_fn(|| Some(logs.page(&mut all)).filter(|page| !page.is_empty())).collect();
        let numbers: Vec<_> = pages.iter().flatten().map(|line| line.sequence).collect();
        assert_eq!(numbers, (0..600).collect::<Vec<_>>());
        assert!(pages.iter().all(|page| page.len() <= LOG_PAGE_MAX));
        assert!(logs.page(&mut cursor(None, Some("a"))).iter().all(|line| line.device.name == "a"));
        logs.push(&hello, &key("a"), (600, 3, "new"), Now::default());
        assert_eq!(logs.page(&mut all)[0].lines_lost, 3);
    }

    #[test]
    fn every_bound_holds() {
        let mut logs = Logs::default();
        let line = "x".repeat(1_024);
        for application in 0..100 {
            let name: Arc<str> = format!("default/{application}").into();
            for sequence in 0..400 {
                logs.push(&name, &key("a"), (sequence, 0, &line), Now::default());
            }
        }
        assert!(logs.bytes <= LOG_BYTES_MAX);
        assert_eq!(logs.bytes, logs.rings.values().map(|ring| ring.bytes).sum::<usize>());
        assert!(logs.rings.values().all(|ring| ring.bytes <= LOG_APPLICATION_BYTES_MAX));
    }
}
