//! The way from one process to the API, and what the weather does to calls on it.

use serde_json::Value;
use wasmbed_control::kubernetes::WriteOutcome;

use crate::{
    api::{Api, ApiError},
    invariants::Witness,
    random::Random,
    weather::Weather,
};

/// How long a caller is asked to wait at most.
const RETRY_AFTER_MS: u64 = 2_000;

#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) weather: Weather,
    random: Random,
    cut_until_ms: u64,
    blind_until_ms: u64,
}

impl Line {
    pub(crate) fn new(weather: Weather, random: Random) -> Self {
        Self { weather, random, cut_until_ms: 0, blind_until_ms: 0 }
    }

    /// Nothing passes until then.
    pub(crate) fn cut(&mut self, until_ms: u64) {
        self.cut_until_ms = until_ms;
    }

    /// The watch of Leases shows nothing until then, without an error.
    pub(crate) fn blind(&mut self, until_ms: u64) {
        self.blind_until_ms = until_ms;
    }

    /// What was cut is whole from now on, and the weather is good.
    pub(crate) fn mend(&mut self, now_ms: u64) {
        self.cut_until_ms = now_ms;
        self.blind_until_ms = now_ms;
        self.weather = self.weather.clear();
    }

    /// Whether it leads to the API, which may be away.
    pub(crate) fn is_whole(&self, now_ms: u64) -> bool {
        now_ms >= self.cut_until_ms
    }

    /// Whether the watch of Leases shows something, if there is something to show.
    pub(crate) fn shows_leases(&self, now_ms: u64) -> bool {
        now_ms >= self.blind_until_ms
    }

    /// The API, if this leads to it.
    pub(crate) fn reach<'a>(&self, now_ms: u64, api: &'a Api) -> Result<&'a Api, ApiError> {
        if self.is_whole(now_ms) { Ok(api) } else { Err(ApiError::Unavailable) }
    }

    /// The API for a write, if this leads to it.
    pub(crate) fn reach_mut<'a>(&self, now_ms: u64, api: &'a mut Api) -> Result<&'a mut Api, ApiError> {
        if self.is_whole(now_ms) { Ok(api) } else { Err(ApiError::Unavailable) }
    }

    /// A call that is made, or is not, or is made and its answer is lost. Whoever watches sees what was done, whatever the caller hears.
    pub(crate) fn call(
        &mut self,
        now_ms: u64,
        api: &mut Api,
        make: impl FnOnce(&mut Api) -> Result<Value, ApiError>,
        seen: impl FnOnce(&Value, &Api),
    ) -> Result<Value, ApiError> {
        let (throttled, unavailable) =
            (self.random.strikes(self.weather.throttled), self.random.strikes(self.weather.unavailable));
        let lost = self.random.strikes(self.weather.answer_lost);
        let retry_after_ms = self.random.below(RETRY_AFTER_MS);
        if throttled {
            return Err(ApiError::Throttled { retry_after_ms });
        }
        if unavailable {
            return Err(ApiError::Unavailable);
        }
        let result = make(self.reach_mut(now_ms, api)?);
        if let Ok(object) = &result {
            seen(object, api);
        }
        if lost { Err(ApiError::Unavailable) } else { result }
    }

    /// A whole exchange that fails at its first call, or not.
    pub(crate) fn fails(&mut self) -> bool {
        self.random.strikes(self.weather.unavailable)
    }

    /// An answer that does not arrive, of an exchange that was done.
    pub(crate) fn loses_answer(&mut self) -> bool {
        self.random.strikes(self.weather.answer_lost)
    }

    /// Sets that are so long on their way that another may lead by then.
    pub(crate) fn delays_set(&mut self) -> bool {
        self.random.strikes(self.weather.sets_late)
    }

    /// A watch or a stream that shows nothing new this time.
    pub(crate) fn lags(&mut self) -> bool {
        self.random.strikes(self.weather.watch_lags)
    }
}

/// As the shells' clients tell their decisions.
pub(crate) fn outcome<T>(
    result: Result<Value, ApiError>,
    witness: &mut Witness,
    read: impl FnOnce(&Value) -> T,
) -> WriteOutcome<T> {
    match result {
        Ok(object) => WriteOutcome::Done(read(&object)),
        Err(ApiError::Conflict) => WriteOutcome::Conflict,
        Err(ApiError::NotFound) => WriteOutcome::NotFound,
        Err(ApiError::Throttled { retry_after_ms }) => WriteOutcome::Throttled { retry_after_ms },
        Err(ApiError::Unavailable) => WriteOutcome::Unavailable("no answer".to_owned()),
        Err(ApiError::Terminating) => WriteOutcome::Rejected("the namespace is being deleted".to_owned()),
        Err(ApiError::Refused(why)) => {
            witness.refused(&why);
            WriteOutcome::Rejected(why)
        }
    }
}
