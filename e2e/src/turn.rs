//! Whose turn it is to emulate boards.
//!
//! Tests run in more threads than there are cores, since most of them wait most of the time. An emulated processor computes: with more of
//! them than cores each falls behind its own clock.

use std::sync::{Condvar, Mutex, PoisonError};

/// Variable with the board that plays devices, in QEMU; without it they are Linux processes.
pub(crate) const BOARD: &str = "WASMBED_E2E_BOARD";

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// A place among the tests that emulate boards, of which there are as many as cores. Given back when it is dropped.
#[derive(Debug)]
pub struct Turn(());

impl Turn {
    /// Waits for a place. A test takes one before it starts anything, and no second.
    #[must_use]
    pub fn wait() -> Self {
        let places = std::thread::available_parallelism().map_or(1, usize::from);
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running =
            ENDED.wait_while(running, |running| *running >= places).unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Self(())
    }

    /// One for a test whose devices are boards; none is needed otherwise.
    pub(crate) fn if_devices_are_boards() -> Option<Self> {
        std::env::var_os(BOARD).map(|_| Self::wait())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}
