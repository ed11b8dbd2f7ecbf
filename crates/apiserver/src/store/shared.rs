//! The store as the server uses it: a handle that clones share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{mpsc, oneshot};

use super::disk::{Disk, Snapshot};
use super::feed::Feed;
use super::history::History;
use super::machine::Machine;
use super::storage::StorageError;
use super::write::{Applied, Write};
use super::writer::{CommitReport, Failure, Job, QUEUE_WRITES_MAX, Writer};
use crate::kinds::{Kind, Kinds};
use crate::status::Status;

/// Objects on disk. Clones share them.
#[derive(Clone, Debug)]
pub struct Store {
    kinds: Arc<Kinds>,
    disk: Disk,
    jobs: mpsc::Sender<Job>,
    feeds: Arc<BTreeMap<String, Feed>>,
    failure: Arc<Failure>,
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
        let revision = disk.snapshot()?.revision();
        let published = Arc::new(AtomicU64::new(revision));
        let feeds: Arc<BTreeMap<String, Feed>> = Arc::new(
            kinds
                .iter()
                .map(|kind| (kind.folder.clone(), Feed::new(revision, history, &published)))
                .collect(),
        );
        let (jobs, queue) = mpsc::channel(QUEUE_WRITES_MAX);
        let (ended, end) = oneshot::channel();
        let failure = Arc::new(Failure::default());
        let machine = Machine::new(Arc::clone(&kinds), revision);
        let mut writer =
            Writer::new(disk.clone(), machine, Arc::clone(&feeds), published, Arc::clone(&failure), history);
        let run = move || {
            writer.run(queue, report);
            // The file is closed before `end` resolves: the caller may open it again.
            drop(writer);
            // The receiver may be dropped.
            let _ = ended.send(());
        };
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(run)
            .map_err(|error| StorageError::Failed(format!("cannot start the writer's thread: {error}")))?;
        Ok((Store { kinds, disk, jobs, feeds, failure }, end))
    }

    /// The kinds that are served.
    pub fn kinds(&self) -> &Arc<Kinds> {
        &self.kinds
    }

    /// Writes; when this returns a success, it is durable.
    pub async fn write(&self, write: Write) -> Result<Applied, Status> {
        let (reply, answer) = oneshot::channel();
        match self.jobs.try_send(Job::new(write, reply)) {
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

    /// The objects at the last commit.
    pub fn snapshot(&self) -> Result<Snapshot, StorageError> {
        self.disk.snapshot()
    }

    /// The changes of a kind's objects.
    pub fn feed(&self, kind: &Kind) -> Option<&Feed> {
        self.feeds.get(&kind.folder)
    }

    /// Why the store can't be written; `None` if it can.
    pub fn failure(&self) -> Option<String> {
        if self.jobs.is_closed() { Some("the store has stopped".into()) } else { self.failure.get() }
    }
}
