//! The writer: a thread that applies the queued writes of many clients in one transaction and makes them durable with
//! one commit before any of them is answered.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::disk::{Batch, Disk};
use super::feed::Feed;
use super::history::History;
use super::machine::Machine;
use super::quotas;
use super::storage::StorageError;
use super::write::{Applied, ApplyError, Operation, Write};
use crate::resource::Moment;
use crate::status::{Details, Reason, Status};

/// Writes in one commit at most: more would make the first of them wait for the last.
const BATCH_WRITES_MAX: usize = 256;
/// Queued writes at most; beyond that clients are answered 429. The bound on requests usually applies first.
pub(super) const QUEUE_WRITES_MAX: usize = 1_024;
/// Between two attempts to write after a failure of the disk: each may reopen the file, which reads all of it.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Longest time that a write waits for its refusal while the disk fails.
const REFUSE_INTERVAL: Duration = Duration::from_millis(20);
/// Duration and size of a commit.
#[derive(Clone, Copy, Debug)]
pub struct CommitReport {
    /// Writes that were made durable together.
    pub writes: usize,
    /// Duration of the commit.
    pub duration: Duration,
}

/// A queued write and where its result goes.
#[derive(Debug)]
pub(super) struct Job {
    write: Write,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<Applied, Status>>;

impl Job {
    pub(super) fn new(write: Write, reply: Reply) -> Job {
        Job { write, reply }
    }
}

/// Why the store can't be written; `None` while it can.
#[derive(Debug, Default)]
pub(super) struct Failure(Mutex<Option<String>>);

impl Failure {
    pub(super) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, cause: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }
}

/// The thread that writes.
pub(super) struct Writer {
    disk: Disk,
    machine: Machine,
    feeds: Arc<BTreeMap<String, Feed>>,
    published: Arc<AtomicU64>,
    failure: Arc<Failure>,
    history: History,
    /// After a failure: when the disk is tried next.
    retry_at: Option<Instant>,
}

/// Why a batch failed.
enum BatchError {
    Storage(StorageError),
    /// A bug in a write; the disk works.
    Panicked,
}

impl From<StorageError> for BatchError {
    fn from(error: StorageError) -> BatchError {
        BatchError::Storage(error)
    }
}

/// A job that was applied and isn't committed yet.
struct Done {
    folder: String,
    applied: Applied,
    reply: Reply,
}

impl Writer {
    pub(super) fn new(
        disk: Disk,
        machine: Machine,
        feeds: Arc<BTreeMap<String, Feed>>,
        published: Arc<AtomicU64>,
        failure: Arc<Failure>,
        history: History,
    ) -> Writer {
        Writer { disk, machine, feeds, published, failure, history, retry_at: None }
    }

    /// Writes until all senders of the queue are gone.
    pub(super) fn run(&mut self, mut queue: mpsc::Receiver<Job>, report: impl Fn(CommitReport)) {
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
                    let answer = match &error {
                        BatchError::Storage(error) => error.clone().into(),
                        BatchError::Panicked => Status::internal("a write panicked; its batch is undone"),
                    };
                    tracing::error!(
                        error = answer.message(),
                        writes = done.len(),
                        "batch commit failed; clients receive an error"
                    );
                    if let BatchError::Storage(error) = error {
                        // Before clients are answered, so that a retry finds the store open if it can be.
                        self.failed(&error);
                    }
                    let lost = done.into_iter().map(|done| done.reply);
                    for reply in lost.chain(jobs.drain(..).map(|job| job.reply)) {
                        // The client may be gone.
                        let _ = reply.send(Err(answer.clone()));
                    }
                }
            }
        }
    }

    /// Waits for jobs; false at the end. While the disk fails, jobs are refused until the next attempt, which also comes
    /// without jobs: then `jobs` is empty.
    fn receive(&mut self, queue: &mut mpsc::Receiver<Job>, jobs: &mut Vec<Job>) -> bool {
        let Some(retry_at) = self.retry_at else {
            return queue.blocking_recv_many(jobs, BATCH_WRITES_MAX) > 0;
        };
        loop {
            match queue.try_recv() {
                Ok(job) if Instant::now() < retry_at => {
                    let cause = self.failure.get().unwrap_or_default();
                    let answer = Status::new(
                        Reason::ServiceUnavailable,
                        format!("the store can't be written: {cause}"),
                    )
                    .with(Details { retry_after: Some(1), ..Details::default() });
                    // The client may be gone.
                    let _ = job.reply.send(Err(answer));
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

    /// Handles a failure of the disk. The database takes no write until it is reopened, which may have to wait for space.
    fn failed(&mut self, error: &StorageError) {
        self.failure.set(Some(error.cause()));
        self.reopen();
    }

    fn reopen(&mut self) {
        let reopened = self.disk.reopen().and_then(|()| self.disk.snapshot());
        // After the attempt, which may take a while.
        self.retry_at = Some(Instant::now() + RETRY_INTERVAL);
        let revision = match reopened {
            Ok(snapshot) => snapshot.revision(),
            Err(error) => {
                tracing::error!(%error, "cannot reopen the store yet");
                return self.failure.set(Some(error.cause()));
            }
        };
        tracing::info!(revision, "reopened the store after its disk failed");
        if revision == self.published.load(Ordering::Acquire) {
            self.machine = self.machine.rewound(revision);
            return;
        }
        // A commit reached the disk although it failed. Its changes are in no log, so the logs restart after it and watches
        // list again.
        tracing::warn!(revision, "writes that were reported as failed are stored");
        self.machine = self.machine.rewound(revision);
        for feed in self.feeds.values() {
            feed.reset(revision, self.history);
        }
        self.published.store(revision, Ordering::Release);
        for feed in self.feeds.values() {
            feed.wake();
        }
    }

    /// Checks without a write whether the disk can be written.
    fn try_disk(&mut self) {
        let tried = self.disk.check_room().and_then(|()| self.disk.snapshot());
        match tried {
            Ok(_) => self.recovered(),
            Err(error) => {
                self.failure.set(Some(error.cause()));
                // Closed since the last attempt to open it.
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
            tracing::info!("the store is writable again");
            self.failure.set(None);
        }
    }

    /// Applies jobs and commits. On an error nothing of `done` was stored.
    fn batch(
        &mut self,
        jobs: &mut Vec<Job>,
        done: &mut Vec<Done>,
    ) -> Result<Option<CommitReport>, BatchError> {
        let transaction = self.disk.begin()?;
        let before = self.machine.revision();
        let applied = self.apply(&mut self.disk.open_objects(&transaction)?, jobs, done);
        if applied.is_err() || self.machine.revision() == before {
            self.machine = self.machine.rewound(before);
            return applied.map(|()| None);
        }
        let (started, writes) = (Instant::now(), done.len());
        if let Err(error) = Disk::commit(transaction, self.machine.revision()) {
            // Whether it reached the disk is known once that is reopened.
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
                | Operation::RemoveIfEmpty => Uuid::nil(),
            };
            let moment = Moment { now: &now, uid };
            // A panic in one write must not end the writer for all others.
            let applied = catch_unwind(AssertUnwindSafe(|| self.machine.apply(tables, &job.write, moment)));
            let Ok(applied) = applied else {
                // The client may be gone.
                let _ = job.reply.send(Err(Status::internal("the write panicked and is undone")));
                return Err(BatchError::Panicked);
            };
            match applied {
                Ok(applied) => {
                    done.push(Done { folder: job.write.kind.folder.clone(), applied, reply: job.reply });
                }
                Err(ApplyError::Refused(status)) => {
                    // The client may be gone.
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
            let quotas = done.applied.quotas.iter().map(|event| (quotas::FOLDER, event));
            let own = done.applied.event.iter().map(|event| (done.folder.as_str(), event));
            for (folder, event) in own.chain(quotas) {
                let Some(feed) = self.feeds.get(folder) else { continue };
                feed.append(Arc::clone(event));
                if !touched.iter().any(|other| std::ptr::eq(*other, feed)) {
                    touched.push(feed);
                }
            }
        }
        self.published.store(self.machine.revision(), Ordering::Release);
        for feed in touched {
            feed.wake();
        }
        for done in done {
            // The client may be gone.
            let _ = done.reply.send(Ok(done.applied));
        }
    }
}
