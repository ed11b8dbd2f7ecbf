//! What other threads have for the devices of a loop.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use wasmbed_agent::storage::Outcome;

/// News for one device.
pub(crate) enum Mail {
    /// Its storage operation is done.
    Stored(Outcome),
    /// The name of a gateway was looked up.
    Resolved(io::Result<Vec<SocketAddr>>),
}

/// Shared by a loop and the threads that work for it. At most one storage operation and one lookup per device are under
/// way, which bounds it.
#[derive(Clone)]
pub(crate) struct Mailbox(Arc<Inner>);

struct Inner {
    mail: Mutex<Vec<(usize, Mail)>>,
    stop: AtomicBool,
    waker: mio::Waker,
}

impl Mailbox {
    /// Wakes the loop with `waker` whenever something arrives.
    pub(crate) fn new(waker: mio::Waker) -> Self {
        Self(Arc::new(Inner { mail: Mutex::default(), stop: AtomicBool::new(false), waker }))
    }

    /// Leaves news for a device.
    pub(crate) fn put(&self, device: usize, mail: Mail) {
        self.0.mail.lock().unwrap_or_else(PoisonError::into_inner).push((device, mail));
        self.wake();
    }

    /// Takes all news.
    pub(crate) fn take(&self) -> Vec<(usize, Mail)> {
        std::mem::take(&mut *self.0.mail.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks the loop to end.
    pub(crate) fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether the loop is to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.stop.load(Ordering::Acquire)
    }

    fn wake(&self) {
        if let Err(error) = self.0.waker.wake() {
            tracing::error!(%error, "a device loop could not be woken");
        }
    }
}
