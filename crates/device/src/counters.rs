//! What the devices of a process have reached, counted as it happens.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Shared by all loops of a process.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    started: AtomicUsize,
    connected: AtomicUsize,
    sessions: AtomicUsize,
    running: AtomicUsize,
    failed: AtomicUsize,
    last_failure: Mutex<Option<String>>,
}

/// How far a fleet has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Devices asked for.
    pub devices: usize,
    /// Devices that have been switched on.
    pub started: usize,
    /// Devices with a TLS connection, both sides authenticated.
    pub connected: usize,
    /// Devices that a gateway has welcomed.
    pub sessions: usize,
    /// Applications that run, on all devices together.
    pub applications_running: usize,
    /// Attempts to connect that failed, so far.
    pub attempts_failed: usize,
    /// The last of them, for people.
    pub last_failure: Option<String>,
}

impl Counters {
    pub(crate) fn started(&self) {
        self.started.fetch_add(1, Relaxed);
    }

    pub(crate) fn up(&self) {
        self.connected.fetch_add(1, Relaxed);
    }

    pub(crate) fn down(&self) {
        self.connected.fetch_sub(1, Relaxed);
    }

    /// One device's session and running applications went from `before` to `after`.
    pub(crate) fn changed(&self, before: (bool, usize), after: (bool, usize)) {
        match (before.0, after.0) {
            (false, true) => drop(self.sessions.fetch_add(1, Relaxed)),
            (true, false) => drop(self.sessions.fetch_sub(1, Relaxed)),
            (false, false) | (true, true) => {}
        }
        if after.1 >= before.1 {
            self.running.fetch_add(after.1 - before.1, Relaxed);
        } else {
            self.running.fetch_sub(before.1 - after.1, Relaxed);
        }
    }

    /// Counts a failed attempt and logs it, unless the last one failed the same way.
    pub(crate) fn failed(&self, problem: &str) {
        self.failed.fetch_add(1, Relaxed);
        let mut last = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_deref() != Some(problem) {
            tracing::warn!(problem, "gateway not reached");
            *last = Some(problem.to_owned());
        }
    }

    /// Logs that a gateway did not take the device after the handshake, unless it said the same last.
    pub(crate) fn refused(&self, gateway: &str, problem: &str) {
        self.failed.fetch_add(1, Relaxed);
        let problem = format!("{gateway}: {problem}");
        let mut last = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_deref() != Some(&problem) {
            tracing::warn!(problem, "gateway refused the device");
            *last = Some(problem);
        }
    }

    pub(crate) fn progress(&self, devices: usize) -> Progress {
        Progress {
            devices,
            started: self.started.load(Relaxed),
            connected: self.connected.load(Relaxed),
            sessions: self.sessions.load(Relaxed),
            applications_running: self.running.load(Relaxed),
            attempts_failed: self.failed.load(Relaxed),
            last_failure: self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
