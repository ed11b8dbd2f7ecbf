//! How often calls go wrong: chances that are the same all the time, of which no single stroke is worth a transition.

use serde::{Deserialize, Serialize};

/// In thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Weather {
    /// Calls to the API that it has no time for.
    pub(crate) throttled: u16,
    /// Calls to the API that are not answered and not done.
    pub(crate) unavailable: u16,
    /// Calls to the API that are done, and their answer is lost.
    pub(crate) answer_lost: u16,
    /// Requests of controllers that reach no gateway.
    pub(crate) request_lost: u16,
    /// Requests of controllers that are done, and their answer is lost.
    pub(crate) outcome_lost: u16,
    /// Rounds in which a watch or a stream shows nothing new.
    pub(crate) watch_lags: u16,
    /// Sets that are so long on their way that another may lead by then.
    pub(crate) sets_late: u16,
}

impl Weather {
    /// Calls fail no more; they are as slow as before.
    pub(crate) fn clear(self) -> Self {
        Self { watch_lags: self.watch_lags, sets_late: self.sets_late, ..Self::default() }
    }
}
