//! The two clocks that decisions are handed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasmbed_control::Now;

/// Monotonic time since the process started, and the time of day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { ms: milliseconds(self.start.elapsed()), unix_ms: milliseconds(unix) }
    }

    /// A moment that has passed; the time of day is that of now.
    pub(crate) fn at(self, moment: Instant) -> Now {
        Now { ms: milliseconds(moment.saturating_duration_since(self.start)), ..self.now() }
    }

    pub(crate) fn instant(self, ms: u64) -> tokio::time::Instant {
        // A day is as good as never: the loop looks again then.
        let ms = ms.min(self.now().ms.saturating_add(86_400_000));
        (self.start + Duration::from_millis(ms)).into()
    }
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
