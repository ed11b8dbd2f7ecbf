//! Brings storage into a loop that must not block: files wait for the disk on a thread of their own.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use wasmbed_agent::storage::{Operation, Outcome, StorageError};
use wasmbed_protocol::ModuleDigest;
use wasmbed_supervisor::platform::Storage;

use super::{Disk, Memory, Store, read_module};
use crate::mailbox::{Mail, Mailbox};

struct Job {
    device: usize,
    store: Arc<Mutex<Store<Disk>>>,
    operation: Operation,
}

enum Message {
    Work(Job),
    /// Dropped once everything before it is done.
    Drain(mpsc::Sender<()>),
}

/// Does the file operations of all devices of one loop, in their order. Each device has at most one under way, which
/// bounds the queue.
pub(crate) struct StorageThread {
    jobs: mpsc::Sender<Message>,
}

impl StorageThread {
    /// Starts the thread; it ends when the last device that uses it is gone.
    pub(crate) fn start(mailbox: Mailbox) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Message>();
        thread::Builder::new().name("storage".into()).spawn(move || {
            for message in queue {
                match message {
                    Message::Work(job) => {
                        let outcome = lock(&job.store).perform(&job.operation);
                        mailbox.put(job.device, Mail::Stored(outcome));
                    }
                    // Whoever waited may be gone.
                    Message::Drain(done) => drop(done),
                }
            }
        })?;
        Ok(Self { jobs })
    }

    /// Waits until what was begun is done: whoever opens the files next finds nobody who writes to them.
    pub(crate) fn drain(&self) {
        let (done, is_done) = mpsc::channel();
        // A thread that is gone writes nothing; one that reached the message drops its end, which ends the wait.
        if self.jobs.send(Message::Drain(done)).is_ok() {
            let _ = is_done.recv();
        }
    }

    /// Storage of one device on disk.
    pub(crate) fn files(&self, device: usize, store: Store<Disk>) -> DeviceStorage {
        let reader = store.medium.clone();
        let store = Arc::new(Mutex::new(store));
        let backend = Backend::Files { device, store, reader, jobs: self.jobs.clone() };
        DeviceStorage { backend, outcome: None }
    }
}

fn lock(store: &Mutex<Store<Disk>>) -> std::sync::MutexGuard<'_, Store<Disk>> {
    // A store whose operation panicked is as good as one that lost power: it is written for that.
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Backend {
    Files {
        device: usize,
        store: Arc<Mutex<Store<Disk>>>,
        /// Modules are read while the store may be waiting for the disk: a name stands for whole content at any moment.
        reader: Disk,
        jobs: mpsc::Sender<Message>,
    },
    Memory(Store<Memory>),
}

/// Storage of one device.
pub(crate) struct DeviceStorage {
    backend: Backend,
    outcome: Option<Outcome>,
}

impl DeviceStorage {
    /// Storage that ends with the process and never waits.
    pub(crate) fn memory(store: Store<Memory>) -> Self {
        Self { backend: Backend::Memory(store), outcome: None }
    }

    /// Takes what the thread answered.
    pub(crate) fn complete(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Storage for DeviceStorage {
    fn start(&mut self, operation: Operation) {
        match &mut self.backend {
            Backend::Memory(store) => self.outcome = Some(store.perform(&operation)),
            Backend::Files { device, store, jobs, .. } => {
                let job = Job { device: *device, store: Arc::clone(store), operation };
                if jobs.send(Message::Work(job)).is_err() {
                    self.outcome = Some(Err(StorageError::Failed("the storage thread is gone".into())));
                }
            }
        }
    }

    fn poll(&mut self) -> Option<Outcome> {
        self.outcome.take()
    }

    fn module(&mut self, digest: &ModuleDigest) -> Result<Cow<'_, [u8]>, StorageError> {
        match &mut self.backend {
            Backend::Memory(store) => store.module(digest).map(Cow::Owned),
            Backend::Files { reader, .. } => read_module(reader, digest).map(Cow::Owned),
        }
    }
}
