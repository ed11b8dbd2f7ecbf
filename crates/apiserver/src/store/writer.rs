//! The one writer: a thread that takes what many clients want, applies it in one transaction and makes it durable
//! with one commit before anyone is answered.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::disk::Batch;
use super::{
    Applied, ApplyError, Disk, Event, History, HistoryExpired, Log, Machine, Operation, Snapshot,
    StorageError, Write,
};
use crate::kinds::{Kind, Kinds};
use crate::resource::Moment;
use crate::status::Status;

/// Writes in one commit at most: more would make the first of them wait for the last.
const BATCH_WRITES_MAX: usize = 256;
/// Writes that wait at most; then clients are told to come back. Requests in flight bound it before.
const QUEUE_WRITES_MAX: usize = 1_024;
/// Changes handed to one watcher at a time.
const FEED_EVENTS_MAX: usize = 256;
/// Bytes of them, or one change: a watcher whose client does not read holds them, whatever the history has dropped.
const FEED_BYTES_MAX: usize = 64 * 1024;

/// What a commit took.
#[derive(Clone, Copy, Debug)]
pub struct CommitReport {
    /// Writes that were made durable together.
    pub writes: usize,
    /// From the commit's begin to its end.
    pub duration: Duration,
}

/// The changes of one folder, for watchers.
#[derive(Debug)]
pub struct Feed {
    log: Mutex<Log>,
    changed: watch::Sender<()>,
    published: Arc<AtomicU64>,
}

impl Feed {
    /// Wakes when there may be something new.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The next changes after a revision.
    pub fn since(&self, revision: u64) -> Result<Changes, HistoryExpired> {
        // Read before the log: whatever is published by now is in it.
        let published = self.published.load(Ordering::Acquire);
        let mut events = self.log().since(revision, FEED_EVENTS_MAX)?;
        let mut bytes = 0;
        let fit = events.iter().take_while(|event| {
            let fits = bytes < FEED_BYTES_MAX;
            bytes += event.object.len();
            fits
        });
        let fit = fit.count();
        let more = events.len() == FEED_EVENTS_MAX || fit < events.len();
        events.truncate(fit);
        let last = events.last().map_or(revision, |last| last.revision);
        Ok(Changes { events, complete: if more { last } else { last.max(published) }, more })
    }

    fn log(&self) -> MutexGuard<'_, Log> {
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

struct Job {
    write: Write,
    reply: oneshot::Sender<Result<Applied, Status>>,
}

/// The store as the server uses it.
#[derive(Clone, Debug)]
pub struct Store {
    kinds: Arc<Kinds>,
    disk: Disk,
    jobs: mpsc::Sender<Job>,
    feeds: Arc<BTreeMap<String, Feed>>,
    healthy: Arc<AtomicBool>,
}

impl Store {
    /// Starts the writer. `report` is called after each commit. The thread ends when all clones of the store are gone;
    /// the receiver resolves once the file is closed.
    pub fn start(
        kinds: Arc<Kinds>,
        disk: Disk,
        history: History,
        report: impl Fn(CommitReport) + Send + 'static,
    ) -> Result<(Store, oneshot::Receiver<()>), StorageError> {
        let revision = disk.snapshot()?.revision;
        let published = Arc::new(AtomicU64::new(revision));
        let feed = || Feed {
            log: Mutex::new(Log::new(revision, history)),
            changed: watch::Sender::new(()),
            published: Arc::clone(&published),
        };
        let feeds: Arc<BTreeMap<String, Feed>> =
            Arc::new(kinds.iter().map(|kind| (kind.folder.clone(), feed())).collect());
        let (jobs, queue) = mpsc::channel(QUEUE_WRITES_MAX);
        let (ended, end) = oneshot::channel();
        let healthy = Arc::new(AtomicBool::new(true));
        let mut writer = Writer {
            disk: disk.clone(),
            machine: Machine::new(Arc::clone(&kinds), revision),
            feeds: Arc::clone(&feeds),
            published,
            healthy: Arc::clone(&healthy),
        };
        let run = move || {
            writer.run(queue, report);
            // Its file is closed before anybody is told, since the next thing may be to open it again.
            drop(writer);
            // Nobody may be waiting for the end.
            let _ = ended.send(());
        };
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(run)
            .map_err(|error| StorageError(format!("the writer's thread can't be started: {error}")))?;
        Ok((Store { kinds, disk, jobs, feeds, healthy }, end))
    }

    /// The kinds that are served.
    pub fn kinds(&self) -> &Arc<Kinds> {
        &self.kinds
    }

    /// Does a write; when it is answered with success, it is durable.
    pub async fn write(&self, write: Write) -> Result<Applied, Status> {
        let (reply, answer) = oneshot::channel();
        match self.jobs.try_send(Job { write, reply }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Err(Status::busy("too many writes are waiting"));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Err(Status::internal("the store has stopped"));
            }
        }
        answer.await.unwrap_or_else(|_| Err(Status::internal("the store has stopped")))
    }

    /// The objects as they are now.
    pub fn snapshot(&self) -> Result<Snapshot, StorageError> {
        self.disk.snapshot()
    }

    /// The changes of a kind's objects.
    pub fn feed(&self, kind: &Kind) -> Option<&Feed> {
        self.feeds.get(&kind.folder)
    }

    /// Whether writes can be done.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed) && !self.jobs.is_closed()
    }
}

struct Writer {
    disk: Disk,
    machine: Machine,
    feeds: Arc<BTreeMap<String, Feed>>,
    published: Arc<AtomicU64>,
    healthy: Arc<AtomicBool>,
}

/// A job that was applied and waits for the commit.
struct Done {
    folder: String,
    applied: Applied,
    reply: oneshot::Sender<Result<Applied, Status>>,
}

impl Writer {
    fn run(&mut self, mut queue: mpsc::Receiver<Job>, report: impl Fn(CommitReport)) {
        let mut jobs = Vec::with_capacity(BATCH_WRITES_MAX);
        while queue.blocking_recv_many(&mut jobs, BATCH_WRITES_MAX) > 0 {
            let mut done = Vec::with_capacity(jobs.len());
            match self.batch(&mut jobs, &mut done) {
                Ok(committed) => {
                    self.healthy.store(true, Ordering::Relaxed);
                    committed.map(&report);
                    self.publish(done);
                }
                Err(error) => {
                    self.healthy.store(false, Ordering::Relaxed);
                    tracing::error!(%error, writes = done.len(), "a batch of writes is lost; its clients are told");
                    let told = Status::internal(error);
                    let lost = done.into_iter().map(|done| done.reply);
                    for reply in lost.chain(jobs.drain(..).map(|job| job.reply)) {
                        // A client that is gone needs no answer.
                        let _ = reply.send(Err(told.clone()));
                    }
                }
            }
        }
    }

    /// Applies jobs and commits; on an error none of `done` was kept.
    fn batch(
        &mut self,
        jobs: &mut Vec<Job>,
        done: &mut Vec<Done>,
    ) -> Result<Option<CommitReport>, StorageError> {
        let transaction = self.disk.begin()?;
        let before = self.machine.revision();
        let applied = self.apply(&mut Disk::open_objects(&transaction)?, jobs, done);
        if applied.is_err() || self.machine.revision() == before {
            self.machine = self.machine.rewound(before);
            return applied.map(|()| None);
        }
        let (started, writes) = (Instant::now(), done.len());
        if let Err(error) = Disk::commit(transaction, self.machine.revision()) {
            // Whether the commit reached the disk isn't known; what the disk says now is what counts.
            let revision = self.disk.snapshot().map_or(before, |snapshot| snapshot.revision);
            self.machine = self.machine.rewound(revision.max(before));
            return Err(error);
        }
        Ok(Some(CommitReport { writes, duration: started.elapsed() }))
    }

    fn apply(
        &mut self,
        tables: &mut Batch<'_>,
        jobs: &mut Vec<Job>,
        done: &mut Vec<Done>,
    ) -> Result<(), StorageError> {
        let now = Timestamp::now();
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
        // Reversed, so that the oldest is popped first and the rest stays in `jobs` if the storage fails.
        jobs.reverse();
        while let Some(job) = jobs.pop() {
            let uid = match job.write.operation {
                Operation::Create { .. } | Operation::Apply { .. } => Uuid::new_v4(),
                Operation::Update { .. }
                | Operation::Patch { .. }
                | Operation::Delete { .. }
                | Operation::Vacate => Uuid::nil(),
            };
            let moment = Moment { now: &now, uid };
            // A bug that one request finds, here or in a library below, must not end the writer for all others.
            let applied = catch_unwind(AssertUnwindSafe(|| self.machine.apply(tables, &job.write, moment)))
                .unwrap_or_else(|_| Err(StorageError("a write panicked; its batch is undone".into()).into()));
            match applied {
                Ok(applied) => {
                    done.push(Done { folder: job.write.kind.folder.clone(), applied, reply: job.reply });
                }
                Err(ApplyError::Refused(status)) => {
                    // A client that is gone needs no answer.
                    let _ = job.reply.send(Err(status));
                }
                Err(ApplyError::Storage(error)) => {
                    let _ = job.reply.send(Err(Status::internal(&error)));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn publish(&self, done: Vec<Done>) {
        let mut touched: Vec<&Feed> = Vec::new();
        for done in &done {
            if let (Some(event), Some(feed)) = (&done.applied.event, self.feeds.get(&done.folder)) {
                feed.log().append(Arc::clone(event));
                if !touched.iter().any(|other| std::ptr::eq(*other, feed)) {
                    touched.push(feed);
                }
            }
        }
        self.published.store(self.machine.revision(), Ordering::Release);
        for feed in touched {
            feed.changed.send_replace(());
        }
        for done in done {
            // A client that is gone needs no answer.
            let _ = done.reply.send(Ok(done.applied));
        }
    }
}
