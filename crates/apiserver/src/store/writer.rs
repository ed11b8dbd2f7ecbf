//! The one writer: a thread that takes what many clients want, applies it in one transaction and makes it durable
//! with one commit before anyone is answered.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
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
use crate::status::{Details, Reason, Status};

/// Writes in one commit at most: more would make the first of them wait for the last.
const BATCH_WRITES_MAX: usize = 256;
/// Writes that wait at most; then clients are told to come back. Requests in flight bound it before.
const QUEUE_WRITES_MAX: usize = 1_024;
/// After a failure of the disk, between two attempts to write: each may end with the file being opened anew, which reads
/// all of it.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// While the disk fails: how long a write waits for its refusal at most.
const REFUSE_INTERVAL: Duration = Duration::from_millis(20);
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
    failing: Arc<Failing>,
}

/// Why nothing can be written, if nothing can.
#[derive(Debug, Default)]
struct Failing(Mutex<Option<String>>);

impl Failing {
    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, why: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
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
        let failing = Arc::new(Failing::default());
        let mut writer = Writer {
            disk: disk.clone(),
            machine: Machine::new(Arc::clone(&kinds), revision),
            feeds: Arc::clone(&feeds),
            published,
            failing: Arc::clone(&failing),
            history,
            retry_at: None,
        };
        let run = move || {
            writer.run(queue, report);
            // Its file is closed before anybody is told, since the next thing may be to open it again.
            drop(writer);
            // Nobody may be waiting for the end.
            let _ = ended.send(());
        };
        std::thread::Builder::new().name("store-writer".into()).spawn(run).map_err(|error| {
            StorageError::Failed(format!("the writer's thread can't be started: {error}"))
        })?;
        Ok((Store { kinds, disk, jobs, feeds, failing }, end))
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

    /// Why writes can't be done, if they can't.
    pub fn failing(&self) -> Option<String> {
        if self.jobs.is_closed() { Some("the store has stopped".into()) } else { self.failing.get() }
    }
}

struct Writer {
    disk: Disk,
    machine: Machine,
    feeds: Arc<BTreeMap<String, Feed>>,
    published: Arc<AtomicU64>,
    failing: Arc<Failing>,
    history: History,
    /// After a failure: when the disk is tried next.
    retry_at: Option<Instant>,
}

/// Why a batch was lost.
enum BatchError {
    Storage(StorageError),
    /// A write's bug; the disk is well.
    Panicked,
}

impl From<StorageError> for BatchError {
    fn from(error: StorageError) -> BatchError {
        BatchError::Storage(error)
    }
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
        while self.receive(&mut queue, &mut jobs) {
            if jobs.is_empty() {
                self.try_disk();
                continue;
            }
            let mut done = Vec::with_capacity(jobs.len());
            match self.batch(&mut jobs, &mut done) {
                Ok(committed) => {
                    if committed.is_some() {
                        self.recovered();
                    }
                    committed.map(&report);
                    self.publish(done);
                }
                Err(error) => {
                    let told = match &error {
                        BatchError::Storage(error) => error.clone().into(),
                        BatchError::Panicked => Status::internal("a write panicked; its batch is undone"),
                    };
                    tracing::error!(
                        error = told.message,
                        writes = done.len(),
                        "a batch of writes is lost; its clients are told"
                    );
                    if let BatchError::Storage(error) = error {
                        // Before anyone is answered, so that who asks again finds the store open where it can be.
                        self.failed(&error);
                    }
                    let lost = done.into_iter().map(|done| done.reply);
                    for reply in lost.chain(jobs.drain(..).map(|job| job.reply)) {
                        // A client that is gone needs no answer.
                        let _ = reply.send(Err(told.clone()));
                    }
                }
            }
        }
    }

    /// Waits for jobs; false at the end. While the disk fails, jobs are refused at once until it is tried again, and
    /// without any it is tried as well.
    fn receive(&mut self, queue: &mut mpsc::Receiver<Job>, jobs: &mut Vec<Job>) -> bool {
        let Some(retry_at) = self.retry_at else {
            return queue.blocking_recv_many(jobs, BATCH_WRITES_MAX) > 0;
        };
        loop {
            match queue.try_recv() {
                Ok(job) if Instant::now() < retry_at => {
                    let why = self.failing.get().unwrap_or_default();
                    let told =
                        Status::new(Reason::ServiceUnavailable, format!("the store can't be written: {why}"))
                            .with(Details { retry_after: Some(1), ..Details::default() });
                    // A client that is gone needs no answer.
                    let _ = job.reply.send(Err(told));
                }
                Ok(job) => {
                    jobs.push(job);
                    return true;
                }
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
                Err(mpsc::error::TryRecvError::Empty) if Instant::now() < retry_at => {
                    std::thread::sleep(REFUSE_INTERVAL);
                }
                Err(mpsc::error::TryRecvError::Empty) => return true,
            }
        }
    }

    /// The disk failed. The database below takes no write until it is opened anew, which may have to wait for room.
    fn failed(&mut self, error: &StorageError) {
        self.failing.set(Some(error.why()));
        self.reopen();
    }

    fn reopen(&mut self) {
        let reopened = self.disk.reopen().and_then(|()| self.disk.snapshot());
        // After the attempt, which may take long.
        self.retry_at = Some(Instant::now() + RETRY_INTERVAL);
        let revision = match reopened {
            Ok(snapshot) => snapshot.revision,
            Err(error) => {
                tracing::error!(%error, "the store can't be opened again yet");
                return self.failing.set(Some(error.why()));
            }
        };
        tracing::info!(revision, "the store was opened anew after its disk had failed");
        if revision == self.published.load(Ordering::Acquire) {
            self.machine = self.machine.rewound(revision);
            return;
        }
        // A commit reached the disk although its end was an error. Its changes are in no history, so that there is none
        // from before it: watchers list again.
        tracing::warn!(revision, "writes that were told as lost are there");
        self.machine = self.machine.rewound(revision);
        for feed in self.feeds.values() {
            *feed.log() = Log::new(revision, self.history);
        }
        self.published.store(revision, Ordering::Release);
        for feed in self.feeds.values() {
            feed.changed.send_replace(());
        }
    }

    /// Nobody writes: whether the disk would take it.
    fn try_disk(&mut self) {
        let tried = self.disk.check_room().and_then(|()| self.disk.snapshot());
        match tried {
            Ok(_) => self.recovered(),
            Err(error) => {
                self.failing.set(Some(error.why()));
                // Closed since an attempt to open it failed.
                if self.disk.check_room().is_ok() {
                    self.reopen()
                } else {
                    self.retry_at = Some(Instant::now() + RETRY_INTERVAL)
                }
            }
        }
    }

    fn recovered(&mut self) {
        if self.retry_at.take().is_some() {
            tracing::info!("the store can be written again");
            self.failing.set(None);
        }
    }

    /// Applies jobs and commits; on an error none of `done` was kept.
    fn batch(
        &mut self,
        jobs: &mut Vec<Job>,
        done: &mut Vec<Done>,
    ) -> Result<Option<CommitReport>, BatchError> {
        let transaction = self.disk.begin()?;
        let before = self.machine.revision();
        let applied = self.apply(&mut Disk::open_objects(&transaction)?, jobs, done);
        if applied.is_err() || self.machine.revision() == before {
            self.machine = self.machine.rewound(before);
            return applied.map(|()| None);
        }
        let (started, writes) = (Instant::now(), done.len());
        if let Err(error) = Disk::commit(transaction, self.machine.revision()) {
            // Whether it reached the disk is seen when that is opened anew.
            self.machine = self.machine.rewound(before);
            return Err(error.into());
        }
        Ok(Some(CommitReport { writes, duration: started.elapsed() }))
    }

    fn apply(
        &mut self,
        tables: &mut Batch<'_>,
        jobs: &mut Vec<Job>,
        done: &mut Vec<Done>,
    ) -> Result<(), BatchError> {
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
            let applied = catch_unwind(AssertUnwindSafe(|| self.machine.apply(tables, &job.write, moment)));
            let Ok(applied) = applied else {
                // A client that is gone needs no answer.
                let _ = job.reply.send(Err(Status::internal("the write panicked and is undone")));
                return Err(BatchError::Panicked);
            };
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
                    return Err(error.into());
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
