//! Time, as far as a device has it.

/// The device's monotonic clock as the caller tells it, and how far the gateway's is from it. Milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    now_ms: u64,
    started_ms: u64,
    /// Gateway's clock less ours.
    unix_offset_ms: Option<i128>,
    /// Unix seconds at the start, at the least.
    floor_s: Option<u64>,
}

impl Clock {
    pub(crate) fn new(now_ms: u64, floor_s: Option<u64>) -> Self {
        Self { now_ms, started_ms: now_ms, unix_offset_ms: None, floor_s }
    }

    /// A clock that goes back is a caller's fault that must not confuse deadlines.
    pub(crate) fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The moment that lies so far ahead.
    pub(crate) fn after(&self, delay_ms: u64) -> u64 {
        self.now_ms.saturating_add(delay_ms)
    }

    pub(crate) fn uptime_ms(&self) -> u64 {
        self.now_ms.saturating_sub(self.started_ms)
    }

    /// The gateway's clock shows this now.
    pub(crate) fn set_unix_ms(&mut self, unix_ms: u64) {
        self.unix_offset_ms = Some(i128::from(unix_ms) - i128::from(self.now_ms));
    }

    /// Unix seconds now: the gateway's, or before one has sent its time what the device knows by itself.
    pub(crate) fn unix_s(&self) -> Option<u64> {
        let floor_s = || self.floor_s.map(|at_s| at_s.saturating_add(self.uptime_ms() / 1_000));
        self.unix_ms(self.now_ms).map(|ms| ms / 1_000).or_else(floor_s)
    }

    /// The gateway's clock at a moment of ours; none before a gateway has sent its time.
    pub(crate) fn unix_ms(&self, now_ms: u64) -> Option<u64> {
        self.unix_offset_ms.and_then(|offset| u64::try_from(i128::from(now_ms) + offset).ok())
    }
}
