//! Changes of one folder, as watches follow them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::event::Event;
use super::history::{EventLog, History, HistoryExpired};

/// Changes returned to one watch at a time.
const FEED_EVENTS_MAX: usize = 256;
/// Bytes of them, or one change: a watch whose client doesn't read holds them even after the history dropped them.
const FEED_BYTES_MAX: usize = 64 * 1024;

/// The changes of one folder.
#[derive(Debug)]
pub struct Feed {
    log: Mutex<EventLog>,
    changed: watch::Sender<()>,
    published: Arc<AtomicU64>,
}

impl Feed {
    /// A feed that begins after `revision`. `published` is the last revision of all feeds.
    pub(super) fn new(revision: u64, history: History, published: &Arc<AtomicU64>) -> Feed {
        Feed {
            log: Mutex::new(EventLog::new(revision, history)),
            changed: watch::Sender::new(()),
            published: Arc::clone(published),
        }
    }

    /// Adds a change; watches see it after [`Feed::wake`].
    pub(super) fn append(&self, event: Arc<Event>) {
        self.log().append(event);
    }

    /// Drops all changes: those up to `revision` aren't known.
    pub(super) fn reset(&self, revision: u64, history: History) {
        *self.log() = EventLog::new(revision, history);
    }

    /// Wakes all watches.
    pub(super) fn wake(&self) {
        self.changed.send_replace(());
    }

    /// Wakes when there may be something new.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The next changes after a revision.
    pub fn since(&self, revision: u64) -> Result<Changes, HistoryExpired> {
        // Loaded before the log is read: all changes up to it are in the log.
        let published = self.published.load(Ordering::Acquire);
        let mut events = self.log().since(revision, FEED_EVENTS_MAX)?;
        let mut bytes = 0;
        let fit = events.iter().take_while(|event| {
            let fits = bytes < FEED_BYTES_MAX;
            bytes += event.object().len();
            fits
        });
        let fit = fit.count();
        let more = events.len() == FEED_EVENTS_MAX || fit < events.len();
        events.truncate(fit);
        let last = events.last().map_or(revision, |last| last.revision());
        Ok(Changes { events, complete: if more { last } else { last.max(published) }, more })
    }

    fn log(&self) -> MutexGuard<'_, EventLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Some changes of one folder.
#[derive(Debug)]
pub struct Changes {
    /// Oldest first.
    pub events: Vec<Arc<Event>>,
    /// The revision up to which nothing is missing once these are taken.
    pub complete: u64,
    /// There may be more at once.
    pub more: bool,
}
