//! The watchdog of a process: a thread that ends the process when a device loop stands still.

use std::{
    path::PathBuf,
    process,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use wasmbed_supervisor::platform::Watchdog;

/// One loop's watchdog, fed by the devices in it.
#[derive(Clone)]
pub(crate) struct LoopWatchdog {
    started: Instant,
    timeout: Duration,
    /// Milliseconds since the start at which the loop is late.
    late_ms: Arc<AtomicU64>,
}

impl LoopWatchdog {
    /// Watches from now on, until the last clone is gone. `note` is written before the process ends, for the next start
    /// to say why.
    pub(crate) fn start(timeout: Duration, note: Option<PathBuf>) -> std::io::Result<Self> {
        let watchdog = Self { started: Instant::now(), timeout, late_ms: Arc::default() };
        watchdog.allow(Duration::ZERO);
        let (started, late_ms) = (watchdog.started, Arc::downgrade(&watchdog.late_ms));
        thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || watch(started, timeout, &late_ms, note))?;
        Ok(watchdog)
    }

    /// The loop is about to wait this long for something to happen.
    pub(crate) fn allow(&self, wait: Duration) {
        let late = self.started.elapsed().saturating_add(wait).saturating_add(self.timeout);
        self.late_ms.store(u64::try_from(late.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Watchdog for LoopWatchdog {
    fn feed(&mut self) {
        self.allow(Duration::ZERO);
    }
}

fn watch(started: Instant, timeout: Duration, late_ms: &Weak<AtomicU64>, note: Option<PathBuf>) {
    // A process that was stopped and continued finds itself late: its loop gets one more interval to feed.
    let mut was_late = false;
    while let Some(late) = late_ms.upgrade().map(|late| late.load(Ordering::Relaxed)) {
        let is_late = started.elapsed().as_millis() > u128::from(late);
        if is_late && was_late {
            let detail = format!("the device loop stood still for {} s", timeout.as_secs());
            tracing::error!(detail, "watchdog ends the process");
            if let Some(note) = note {
                // The process ends either way; the next start then gives no reason.
                let _ = wasmbed_files::write_private(&note, detail.as_bytes());
            }
            process::abort();
        }
        was_late = is_late;
        thread::park_timeout((timeout / 4).max(Duration::from_millis(50)));
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::process::ExitStatusExt as _, process::Command};

    use super::*;

    const CHILD: &str = "WASMBED_WATCHDOG_CHILD";
    const SIGABRT: i32 = 6;

    /// The test runs itself again as the process that is ended.
    #[test]
    fn a_loop_that_stands_still_ends_its_process_and_leaves_a_note() {
        if let Some(note) = std::env::var_os(CHILD) {
            let watchdog = LoopWatchdog::start(Duration::from_millis(100), Some(note.into())).unwrap();
            thread::park();
            drop(watchdog);
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let note = folder.path().join("reset");
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "watchdog::tests::a_loop_that_stands_still_ends_its_process_and_leaves_a_note"])
            .env(CHILD, &note)
            .output()
            .unwrap()
            .status;
        assert_eq!(status.signal(), Some(SIGABRT));
        assert!(fs::read_to_string(note).unwrap().contains("stood still"));
    }

    #[test]
    fn a_loop_that_waits_as_long_as_it_said_is_not_late() {
        let mut watchdog = LoopWatchdog::start(Duration::from_secs(1), None).unwrap();
        watchdog.allow(Duration::MAX);
        assert_eq!(watchdog.late_ms.load(Ordering::Relaxed), u64::MAX);
        watchdog.feed();
        assert!(watchdog.late_ms.load(Ordering::Relaxed) < 60_000);
    }
}
