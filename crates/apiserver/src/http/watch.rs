//! watch: what was, then what happens.
//!
//! A watcher is a cursor into its kind's history and has no queue: it is woken, takes what is new and writes it out
//! as fast as its client reads. One that falls behind the history gets an ERROR 410 and lists again.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::{HeaderMap, Response};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::params::Params;
use super::read;
use super::respond::{self, Body};
use super::route::Target;
use super::show::View;
use crate::selector::Selection;
use crate::status::Status;
use crate::store::{Change, HistoryExpired, Store};

/// As in Kubernetes: bookmarks about once a minute.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// A watch without a timeout ends after this, plus up to as much again, so that watches don't all end at once.
const WATCH_SECONDS: u64 = 1_800;

/// What a client asked for.
struct Wish {
    view: View,
    selection: Selection,
    bookmarks: bool,
    ends: Instant,
}

/// A watch that stands.
struct Watch {
    store: Store,
    target: Target,
    wish: Wish,
    changed: watch::Receiver<()>,
    /// Everything up to here has been sent or queued.
    revision: u64,
    /// Lines ready to be sent: the initial objects, then one batch of changes at a time.
    ready: VecDeque<Bytes>,
    columns_sent: bool,
    next_bookmark: Instant,
    shutdown: CancellationToken,
    over: bool,
    /// Given back when the watch ends.
    _permit: OwnedSemaphorePermit,
    _count: Count,
}

/// One more watch for as long as it lives.
struct Count(Gauge);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.dec();
    }
}

pub(super) fn start(
    store: &Store,
    target: Target,
    headers: &HeaderMap,
    params: &Params,
    permit: OwnedSemaphorePermit,
    gauge: Gauge,
    shutdown: CancellationToken,
) -> Result<Response<Body>, Status> {
    params.check_list()?;
    params.check_versions(true)?;
    let view = read::view(headers, params)?;
    let selection = read::selection(&target, params)?;
    let seconds = match params.number("timeoutSeconds")? {
        Some(0) | None => WATCH_SECONDS + u64::from(uuid::Uuid::new_v4().as_fields().0) % WATCH_SECONDS,
        Some(seconds) => seconds.min(2 * WATCH_SECONDS),
    };
    let with_initial = initial_wish(params)?;
    let feed = store.feed(&target.kind).ok_or_else(|| Status::internal("a kind has no history"))?;
    // Subscribed before the snapshot is taken, so that nothing falls between them.
    let changed = feed.subscribe();
    gauge.inc();
    let now = Instant::now();
    let mut watch = Watch {
        store: store.clone(),
        wish: Wish {
            view,
            selection,
            bookmarks: params.flag("allowWatchBookmarks")?,
            ends: now + Duration::from_secs(seconds),
        },
        changed,
        revision: 0,
        ready: VecDeque::new(),
        columns_sent: false,
        next_bookmark: now + BOOKMARK_INTERVAL,
        shutdown,
        over: false,
        _permit: permit,
        _count: Count(gauge),
        target,
    };
    watch.begin(params, with_initial)?;
    Ok(respond::stream(stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((line, watch))
    })))
}

/// Whether the objects that are there come first, and whether their end is marked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Initial {
    None,
    Objects,
    ObjectsWithEnd,
}

fn initial_wish(params: &Params) -> Result<Initial, Status> {
    let matching = params.get("resourceVersionMatch");
    match (params.get("sendInitialEvents"), matching) {
        (Some(_), Some("NotOlderThan")) if params.flag("sendInitialEvents")? => Ok(Initial::ObjectsWithEnd),
        (Some(_), Some("NotOlderThan")) => Ok(Initial::None),
        (_, _) => match params.version()? {
            None | Some(0) => Ok(Initial::Objects),
            Some(_) => Ok(Initial::None),
        },
    }
}

impl Watch {
    fn begin(&mut self, params: &Params, initial: Initial) -> Result<(), Status> {
        let snapshot = self.store.snapshot().map_err(Status::internal)?;
        read::check_not_newer(params, snapshot.revision)?;
        let version = params.version()?.filter(|version| *version > 0);
        if initial == Initial::None {
            self.revision = version.unwrap_or(snapshot.revision);
            return Ok(());
        }
        self.revision = snapshot.revision;
        for stored in read::initial(&snapshot, &self.target, &self.wish.selection)?.objects {
            self.queue(Change::Added, &stored.into())?;
        }
        if initial == Initial::ObjectsWithEnd && self.wish.bookmarks {
            self.queue_bookmark(true);
        }
        Ok(())
    }

    /// The next line, or none when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
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
            let wakes = self.wish.ends.min(self.next_bookmark);
            tokio::select! {
                woken = self.changed.changed() => self.over = woken.is_err(),
                () = self.shutdown.cancelled() => self.over = true,
                () = tokio::time::sleep_until(wakes) => {
                    let now = Instant::now();
                    if now >= self.wish.ends {
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

    /// Queues what is new; whether there is more to take at once.
    fn take_changes(&mut self) -> Result<bool, HistoryExpired> {
        let Some(feed) = self.store.feed(&self.target.kind) else { return Ok(false) };
        let changes = feed.since(self.revision)?;
        for event in changes.events {
            if let Some(change) = event.seen_by(&self.wish.selection)
                && let Err(error) = self.queue(change, event.shown(change))
            {
                tracing::error!(%error, revision = event.revision, "a stored object can't be shown");
            }
        }
        self.revision = changes.complete;
        Ok(changes.more)
    }

    fn queue(&mut self, change: Change, stored: &Bytes) -> Result<(), Status> {
        let object = self.wish.view.event(&self.target.kind, stored, !self.columns_sent)?;
        self.columns_sent = true;
        self.ready.push_back(line(change.as_str(), &object));
        Ok(())
    }

    fn queue_bookmark(&mut self, initial_events_end: bool) {
        if self.wish.bookmarks {
            let bookmark = self.wish.view.bookmark(&self.target.kind, self.revision, initial_events_end);
            self.ready.push_back(line("BOOKMARK", bookmark.to_string().as_bytes()));
        }
    }

    fn expired(&self, expired: HistoryExpired) -> Bytes {
        let status =
            Status::expired(format!("too old resource version: {} ({})", self.revision, expired.oldest));
        line("ERROR", status.to_json().to_string().as_bytes())
    }
}

fn line(ty: &str, object: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(object.len() + 40);
    line.put_slice(b"{\"type\":\"");
    line.put_slice(ty.as_bytes());
    line.put_slice(b"\",\"object\":");
    line.put_slice(object);
    line.put_slice(b"}\n");
    line.freeze()
}
