use core::time::Duration;

use crate::imports;

/// The time of day, as milliseconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(i64);

impl UnixTime {
    /// Milliseconds since 1970 in UTC.
    pub fn as_millis(self) -> i64 {
        self.0
    }
}

/// Sleeps for this long, to the millisecond and at least one, at most 49 days.
///
/// Other applications run meanwhile, and the processor time that this one may use starts anew.
pub fn wait(duration: Duration) {
    let rounded_up = duration.as_nanos().div_ceil(1_000_000);
    imports::wait(u32::try_from(rounded_up).unwrap_or(u32::MAX));
}

/// The time of day, or nothing while the device doesn't know it yet.
pub fn now() -> Option<UnixTime> {
    let milliseconds = imports::now();
    (milliseconds >= 0).then_some(UnixTime(milliseconds))
}

/// The device's monotonic clock: it began at the device's start or earlier, and never goes back.
pub fn uptime() -> Duration {
    Duration::from_millis(imports::uptime().unsigned_abs())
}
