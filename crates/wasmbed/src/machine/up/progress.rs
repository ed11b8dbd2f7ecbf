//! What a person sees while things start.

use std::time::{Duration, Instant};

use crate::output::Screen;

/// Lines on standard output, each with the time it took.
pub(super) struct Progress {
    started: Instant,
    last: Instant,
    waiting: Option<String>,
    screen: Screen,
}

impl Progress {
    pub(super) fn new(screen: Screen) -> Self {
        let now = Instant::now();
        Self { started: now, last: now, waiting: None, screen }
    }

    /// A step is done.
    pub(super) fn done(&mut self, step: &str, detail: &str) {
        let now = Instant::now();
        let took = milliseconds(now.duration_since(self.last));
        let in_all = milliseconds(now.duration_since(self.started));
        self.screen.line(&format!("  {step:<16} {detail}  ({took} ms, {in_all} ms in all)"));
        self.last = now;
        self.waiting = None;
    }

    /// A step goes on; printed when the text changed.
    pub(super) fn block_on(&mut self, text: String) {
        if self.waiting.as_ref() != Some(&text) {
            self.screen.line(&format!("  … {text}"));
            self.waiting = Some(text);
        }
    }
}

fn milliseconds(duration: Duration) -> u128 {
    duration.as_millis()
}
