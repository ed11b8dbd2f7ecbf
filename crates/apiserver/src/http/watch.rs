//! watch: initial objects, then changes.
//!
//! A watch is a cursor, first into a snapshot and then into its kind's history, without a queue: it is woken, takes a page
//! of changes and writes it out as fast as its client reads. A watch that falls behind the history gets an ERROR 410 and
//! lists again; a client that stops reading loses its connection.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::{HeaderMap, Response};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::negotiate::Shape;
use super::params::Params;
use super::read;
use super::respond::{self, Body};
use super::route::Target;
use super::shares::Held;
use super::show::View;
use crate::kinds::Conversion;
use crate::selector::Selection;
use crate::status::Status;
use crate::store::{
    Change, Event, HistoryExpired, Pager, Read as _, Snapshot, StorageError, Store, watch_line,
    watch_line_ends,
};

/// Bytes of initial objects that are encoded at a time, or one object. A client that doesn't read pins them.
const PAGE_BYTES: usize = 16 * 1024;
/// Objects visited for one page, so that a selection of few among many doesn't occupy a thread.
const PAGE_VISITS_MAX: usize = 256;
/// As in Kubernetes: bookmarks about once a minute.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// A watch without a timeout ends after this time plus a random part of the same length, so that watches don't all end at
/// once.
const WATCH_SECONDS: u64 = 1_800;

/// What a client requested.
struct Options {
    view: View,
    selection: Selection,
    bookmarks: bool,
    ends: Instant,
}

/// Resources of a watch.
pub(super) struct Terms {
    pub(super) store: Store,
    pub(super) large: Arc<LargeObjects>,
    /// Time to send all initial objects: their snapshot pins old pages on disk.
    pub(super) initial_time: Duration,
    /// Released when the watch ends.
    pub(super) held: Held,
    pub(super) gauge: Gauge,
    pub(super) shutdown: CancellationToken,
}

/// An established watch.
struct Watch {
    store: Store,
    large: Arc<LargeObjects>,
    target: Target,
    options: Options,
    changed: watch::Receiver<()>,
    /// Initial objects that are left to send.
    initial: Option<Initial>,
    /// Changes up to this revision have been sent or are in `ready`.
    revision: u64,
    /// Encoded and not sent: at most a page, or one object.
    ready: VecDeque<Bytes>,
    columns_sent: bool,
    next_bookmark: Instant,
    shutdown: CancellationToken,
    over: bool,
    _held: Held,
    _count: Count,
}

/// Progress through the initial objects.
struct Initial {
    snapshot: Snapshot,
    after: Option<String>,
    /// A bookmark marks their end.
    with_end: bool,
    until: Instant,
}

/// Counts a watch while it lives.
struct Count(Gauge);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Objects larger than a page that watches are sending: one copy of each for all watches.
#[derive(Debug, Default)]
pub(super) struct LargeObjects {
    held: Mutex<BTreeMap<String, Weak<Vec<u8>>>>,
}

struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl LargeObjects {
    fn share(&self, key: &str, object: &[u8]) -> Bytes {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let known = held.get(key).and_then(Weak::upgrade).filter(|known| known.as_slice() == object);
        let shared = known.unwrap_or_else(|| {
            held.retain(|_, other| other.strong_count() > 0);
            let shared = Arc::new(object.to_vec());
            held.insert(key.to_owned(), Arc::downgrade(&shared));
            shared
        });
        Bytes::from_owner(Shared(shared))
    }
}

pub(super) fn start(
    terms: Terms,
    target: Target,
    headers: &HeaderMap,
    params: &Params,
) -> Result<Response<Body>, Status> {
    let Terms { store, large, initial_time, held, gauge, shutdown } = terms;
    params.check_list()?;
    params.check_versions(true)?;
    let view = read::view(&target.kind, headers, params)?;
    let selection = read::selection(&target, params)?;
    let seconds = match params.number("timeoutSeconds")? {
        Some(0) | None => WATCH_SECONDS + u64::from(uuid::Uuid::new_v4().as_fields().0) % WATCH_SECONDS,
        Some(seconds) => seconds.min(2 * WATCH_SECONDS),
    };
    let with_initial = initial_events(params)?;
    let feed = store.feed(&target.kind).ok_or_else(|| Status::internal("a kind without a history"))?;
    // Subscribed before the snapshot is taken, so that no change is missed.
    let changed = feed.subscribe();
    gauge.inc();
    let now = Instant::now();
    let mut watch = Watch {
        store: store.clone(),
        large,
        options: Options {
            view,
            selection,
            bookmarks: params.flag("allowWatchBookmarks")?,
            ends: now + Duration::from_secs(seconds),
        },
        changed,
        initial: None,
        revision: 0,
        ready: VecDeque::new(),
        columns_sent: false,
        next_bookmark: now + BOOKMARK_INTERVAL,
        shutdown,
        over: false,
        _held: held,
        _count: Count(gauge),
        target,
    };
    watch.begin(params, with_initial, now + initial_time)?;
    Ok(respond::stream(stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((line, watch))
    })))
}

/// The error for initial objects that can't be read; after a reopen of the store, clients list again.
fn initial_error(error: StorageError) -> Status {
    match error {
        StorageError::Reopened => {
            Status::expired(format!("the initial objects of the watch can't be read any more: {error}"))
        }
        StorageError::Failed(_) | StorageError::Closed => error.into(),
    }
}

/// Whether the watch begins with initial objects, and whether a bookmark marks their end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InitialEvents {
    None,
    Objects,
    ObjectsWithEnd,
}

fn initial_events(params: &Params) -> Result<InitialEvents, Status> {
    let matching = params.get("resourceVersionMatch");
    match (params.get("sendInitialEvents"), matching) {
        (Some(_), Some("NotOlderThan")) if params.flag("sendInitialEvents")? => {
            Ok(InitialEvents::ObjectsWithEnd)
        }
        (Some(_), Some("NotOlderThan")) => Ok(InitialEvents::None),
        (_, _) => match params.version()? {
            None | Some(0) => Ok(InitialEvents::Objects),
            Some(_) => Ok(InitialEvents::None),
        },
    }
}

impl Watch {
    fn begin(&mut self, params: &Params, initial: InitialEvents, until: Instant) -> Result<(), Status> {
        let snapshot = self.store.snapshot()?;
        read::check_not_newer(params, snapshot.revision())?;
        let version = params.version()?.filter(|version| *version > 0);
        if initial == InitialEvents::None {
            self.revision = version.unwrap_or(snapshot.revision());
            return Ok(());
        }
        self.revision = snapshot.revision();
        let with_end = initial == InitialEvents::ObjectsWithEnd;
        self.initial = Some(Initial { snapshot, after: None, with_end, until });
        Ok(())
    }

    /// The next line; `None` when the watch has ended.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            if let Some(initial) = self.initial.take() {
                if let Err(status) = self.take_initial(initial) {
                    self.over = true;
                    return Some(watch_line("ERROR", status.to_json().to_string().as_bytes()));
                }
                continue;
            }
            self.changed.mark_unchanged();
            match self.take_changes() {
                Ok(more) if more || !self.ready.is_empty() => continue,
                Ok(_) => {}
                Err(expired) => {
                    self.over = true;
                    return Some(self.expired(expired));
                }
            }
            let wakes = self.options.ends.min(self.next_bookmark);
            tokio::select! {
                woken = self.changed.changed() => self.over = woken.is_err(),
                () = self.shutdown.cancelled() => self.over = true,
                () = tokio::time::sleep_until(wakes) => {
                    let now = Instant::now();
                    if now >= self.options.ends {
                        self.over = true;
                    }
                    if now >= self.next_bookmark || self.over {
                        self.next_bookmark = now + BOOKMARK_INTERVAL;
                        self.queue_bookmark(false);
                    }
                }
            }
        }
    }

    /// Encodes a page of the initial objects, and remembers where to continue.
    fn take_initial(&mut self, mut initial: Initial) -> Result<(), Status> {
        if Instant::now() >= initial.until {
            return Err(Status::expired("the initial objects of the watch were not read in time"));
        }
        let kind = Arc::clone(&self.target.kind);
        let selection = self.options.selection.clone();
        if let (Some(name), Some(namespace)) = (selection.name(), selection.namespace()) {
            let key = kind.key(namespace, name);
            let found = initial.snapshot.get(&key).map_err(initial_error)?;
            if let Some(object) = found.filter(|object| selection.fits(&kind, object)) {
                let mut page = BytesMut::new();
                self.add_initial(&mut page, &key, &object)?;
                self.ready.push_back(page.freeze());
            }
            self.queue_end(&initial);
            return Ok(());
        }
        let pager = Pager { selection: &selection, after: initial.after.as_deref(), limit: None };
        let (mut page, mut visits, mut last, mut failed) = (BytesMut::new(), 0, None, None);
        let ended = pager.visit(&kind, &initial.snapshot, &mut |key, object, selected| {
            if selected && !page.is_empty() && page.len() + object.len() > PAGE_BYTES {
                return ControlFlow::Break(());
            }
            if selected && let Err(error) = self.add_initial(&mut page, key, object) {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            visits += 1;
            last = Some(key.to_owned());
            if page.len() >= PAGE_BYTES || !self.ready.is_empty() || visits >= PAGE_VISITS_MAX {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        let ended = ended.map_err(initial_error)?;
        if let Some(failed) = failed {
            return Err(failed);
        }
        if !page.is_empty() {
            self.ready.push_back(page.freeze());
        }
        if ended {
            self.queue_end(&initial);
            return Ok(());
        }
        initial.after = last.or(initial.after);
        self.initial = Some(initial);
        Ok(())
    }

    /// Adds an object to a page. A large one is queued on its own, shared with other watches.
    fn add_initial(&mut self, page: &mut BytesMut, key: &str, stored: &[u8]) -> Result<(), Status> {
        let (before, after) = watch_line_ends(Change::Added.as_str());
        let view = self.options.view;
        let as_stored = view.shape == Shape::Object && self.target.kind.conversion() == Conversion::None;
        if as_stored && stored.len() > PAGE_BYTES {
            let object = self.large.share(key, stored);
            self.ready.extend([Bytes::from(before), object, Bytes::from_static(after)]);
            return Ok(());
        }
        page.put_slice(before.as_bytes());
        if as_stored {
            page.put_slice(stored);
        } else {
            let stored = Bytes::copy_from_slice(stored);
            page.put_slice(&view.event(&self.target.kind, &stored, !self.columns_sent)?);
        }
        self.columns_sent = true;
        page.put_slice(after);
        Ok(())
    }

    fn queue_end(&mut self, initial: &Initial) {
        if initial.with_end {
            self.queue_bookmark(true);
        }
    }

    /// Encodes the next changes. Returns whether there are more.
    fn take_changes(&mut self) -> Result<bool, HistoryExpired> {
        let store = self.store.clone();
        let Some(feed) = store.feed(&self.target.kind) else {
            debug_assert!(false, "the watch was started on a feed");
            return Ok(false);
        };
        let changes = feed.since(self.revision)?;
        for event in changes.events {
            if let Some(change) = event.seen_by(&self.options.selection)
                && let Err(error) = self.queue(&event, change)
            {
                tracing::error!(%error, revision = event.revision(), "cannot encode a stored object");
            }
        }
        self.revision = changes.complete;
        Ok(changes.more)
    }

    fn queue(&mut self, event: &Event, change: Change) -> Result<(), Status> {
        let (view, kind) = (self.options.view, &*self.target.kind);
        let line = match (view.shape, kind.conversion()) {
            (Shape::Object, Conversion::None) => event.line(change),
            (Shape::Object, Conversion::Events) => {
                event.line_in(0, change, |stored| view.object(kind, stored))?
            }
            (Shape::Partial, _) => event.line_in(1, change, |stored| view.object(kind, stored))?,
            // Cells contain ages, so that rows aren't shared.
            (Shape::Table(_), _) => {
                let row = view.event(kind, event.shown(change), !self.columns_sent)?;
                watch_line(change.as_str(), &row)
            }
        };
        self.columns_sent = true;
        self.ready.push_back(line);
        Ok(())
    }

    fn queue_bookmark(&mut self, initial_events_end: bool) {
        if self.options.bookmarks {
            let bookmark = self.options.view.bookmark(&self.target.kind, self.revision, initial_events_end);
            self.ready.push_back(watch_line("BOOKMARK", bookmark.to_string().as_bytes()));
        }
    }

    fn expired(&self, expired: HistoryExpired) -> Bytes {
        let status =
            Status::expired(format!("too old resource version: {} ({})", self.revision, expired.oldest));
        watch_line("ERROR", status.to_json().to_string().as_bytes())
    }
}
