//! What a person sees while things start.

use std::{
    io::Write,
    time::{Duration, Instant},
};

/// Lines on standard output, each with the time it took.
pub(super) struct Progress {
    started: Instant,
    last: Instant,
    waiting: Option<String>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { started: now, last: now, waiting: None }
    }

    /// A step is done.
    pub(super) fn done(&mut self, step: &str, detail: &str) {
        let now = Instant::now();
        let took = milliseconds(now.duration_since(self.last));
        println!(
            "  {step:<16} {detail}  ({took} ms, {} ms in all)",
            milliseconds(now.duration_since(self.started))
        );
        self.last = now;
        self.waiting = None;
        flush();
    }

    /// A step goes on; printed when the text changed.
    pub(super) fn waiting(&mut self, text: String) {
        if self.waiting.as_ref() != Some(&text) {
            println!("  … {text}");
            self.waiting = Some(text);
            flush();
        }
    }
}

fn milliseconds(duration: Duration) -> u128 {
    duration.as_millis()
}

/// A pipe that nobody reads any more is no reason to stop.
fn flush() {
    let _ = std::io::stdout().flush();
}
