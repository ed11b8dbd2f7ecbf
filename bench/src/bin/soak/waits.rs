//! How long the honest wait, beside how long a timer with nothing to do is kept waiting on the same machine.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

/// Nothing honest waits longer than this, 99 times in 100 and apart from what the machine itself takes.
pub(crate) const GOAL: Duration = Duration::from_secs(2);
/// A question that has no answer after this long is asked anew; it is the same wait.
const ATTEMPT: Duration = Duration::from_secs(30);
/// Pause after a question that failed.
const RETRY: Duration = Duration::from_millis(50);
/// How long the idle timer sleeps. A wait can't be blamed on less than that.
const TICK: Duration = Duration::from_millis(5);

/// The longest stall of an idle timer in each second since it began.
pub(crate) struct IdleTimer {
    begun: Instant,
    seconds: Arc<Mutex<Vec<Duration>>>,
    ended: Arc<AtomicBool>,
}

impl IdleTimer {
    pub(crate) fn start() -> Self {
        let timer = Self { begun: Instant::now(), seconds: Arc::default(), ended: Arc::default() };
        let (begun, seconds, ended) = (timer.begun, timer.seconds.clone(), timer.ended.clone());
        thread::spawn(move || {
            while !ended.load(Relaxed) {
                let asleep = Instant::now();
                thread::sleep(TICK);
                let stall = asleep.elapsed().saturating_sub(TICK);
                let mut seconds = seconds.lock().unwrap_or_else(PoisonError::into_inner);
                // A stall counts for each second that it touches.
                let first = asleep.duration_since(begun).as_secs() as usize;
                let last = begun.elapsed().as_secs() as usize;
                if seconds.len() <= last {
                    seconds.resize(last + 1, Duration::ZERO);
                }
                for second in seconds.iter_mut().take(last + 1).skip(first) {
                    *second = stall.max(*second);
                }
            }
        });
        timer
    }

    /// The longest stall in the seconds that a wait touches.
    fn during(&self, wait: &Wait) -> Duration {
        let second = |at: Instant| at.duration_since(self.begun).as_secs() as usize;
        let (first, last) = (second(wait.begun), second(wait.begun + wait.length));
        let seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        seconds.iter().take(last + 1).skip(first).max().copied().unwrap_or_default()
    }
}

impl Drop for IdleTimer {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
    }
}

#[derive(Clone, Copy)]
struct Wait {
    begun: Instant,
    length: Duration,
    answered: bool,
}

/// Somebody honest who asks for something again and again.
pub(crate) trait Ask: Send {
    /// Asks once.
    fn ask(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// Waits of one kind.
#[derive(Default)]
pub(crate) struct Waits(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    waits: Vec<Wait>,
    failures: u64,
    last_failure: String,
}

/// What waits of one kind came to.
pub(crate) struct Outcome {
    pub(crate) line: String,
    /// Anything was answered at all.
    pub(crate) answered: bool,
    pub(crate) met: bool,
}

impl Waits {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks until the end. A wait begins with the first attempt and ends with an answer, however many attempts that takes.
    pub(crate) async fn measure(self: Arc<Self>, mut asker: impl Ask, pause: Duration, end: Instant) {
        while Instant::now() < end {
            let begun = Instant::now();
            let mut answered = false;
            while !answered && Instant::now() < end {
                let left = end.saturating_duration_since(Instant::now()).min(ATTEMPT);
                match tokio::time::timeout(left, asker.ask()).await {
                    Ok(Ok(())) => answered = true,
                    failed => {
                        let text = match failed {
                            Ok(Err(error)) => format!("{error:#}"),
                            _ => "no answer in time".to_owned(),
                        };
                        {
                            let mut inner = self.inner();
                            inner.failures += 1;
                            inner.last_failure = text;
                        }
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
            self.inner().waits.push(Wait { begun, length: begun.elapsed(), answered });
            tokio::time::sleep(pause).await;
        }
    }

    pub(crate) fn outcome(&self, what: &str, timer: &IdleTimer) -> Outcome {
        let inner = self.inner();
        let mut lengths: Vec<Duration> = inner.waits.iter().map(|wait| wait.length).collect();
        lengths.sort_unstable();
        let p99 = (lengths.len() * 99).div_ceil(100).checked_sub(1).and_then(|index| lengths.get(index));
        let p99 = p99.copied().unwrap_or(Duration::MAX);
        let longest = inner.waits.iter().max_by_key(|wait| wait.length);
        let answered = inner.waits.iter().filter(|wait| wait.answered).count();
        let late =
            inner.waits.iter().filter(|wait| wait.length.saturating_sub(timer.during(wait)) > GOAL).count();
        let mut line = format!("{what}: {answered} answered");
        if let Some(longest) = longest {
            let bound = if longest.answered { "" } else { "at least " };
            line.push_str(&format!(
                ", p99 {}, longest {bound}{} (idle timer {} then)",
                shown(p99),
                shown(longest.length),
                shown(timer.during(longest))
            ));
        }
        if inner.failures > 0 {
            line.push_str(&format!(", {} attempts failed, the last: {}", inner.failures, inner.last_failure));
        }
        Outcome { line, answered: answered > 0, met: answered > 0 && p99 < GOAL && late == 0 }
    }
}

fn shown(duration: Duration) -> String {
    if duration < GOAL {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(length: Duration, stall: Duration, answered: bool) -> Outcome {
        let timer = IdleTimer {
            begun: Instant::now(),
            seconds: Arc::new(Mutex::new(vec![stall; 60])),
            ended: Arc::default(),
        };
        let waits = Waits::default();
        let quick = Wait { begun: timer.begun, length: Duration::from_millis(1), answered: true };
        waits.inner().waits = vec![quick; 200];
        waits.inner().waits.push(Wait { begun: timer.begun, length, answered });
        waits.outcome("questions", &timer)
    }

    #[test]
    fn a_wait_is_too_long_beyond_what_the_machine_itself_takes() {
        let (short, long, none) = (Duration::from_secs(1), Duration::from_secs(5), Duration::ZERO);
        assert!(outcome(short, none, true).met);
        assert!(!outcome(long, none, true).met);
        assert!(outcome(long, Duration::from_secs(4), true).met, "the machine stood still for most of it");
        assert!(!outcome(long, none, false).met, "nobody answered at all");
        assert!(outcome(short, none, false).met, "the end cut it off");
    }
}
