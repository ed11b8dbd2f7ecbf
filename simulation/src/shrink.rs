//! From a run that fails to a small one that fails in the same way.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use proptest::strategy::ValueTree;

use crate::{Summary, Violation, draw, transition::Scenario, tree::ScenarioTree, world::run};

/// A failure, and what is left of its run.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// Transitions of the run that was drawn.
    pub drawn: usize,
    /// The smallest run that was found to fail.
    pub scenario: Scenario,
    /// How it fails.
    pub violation: Violation,
    /// Runs that were tried.
    pub tried: u32,
}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (drawn, left) = (self.drawn, self.scenario.transitions());
        let lines = self.scenario.to_lines();
        write!(
            f,
            "{}\n{left} of its {drawn} transitions are left after {} runs:\n{lines}",
            self.violation, self.tried
        )
    }
}

/// Plays a scenario; a panic of what is simulated is a violation as well.
///
/// # Errors
/// The first rule that was broken, or what did not converge.
pub fn play(scenario: &Scenario) -> Result<Summary, Violation> {
    // Nothing of a world that panicked is used any more.
    catch_unwind(AssertUnwindSafe(|| run(scenario))).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let what = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation { rule: "nothing panics", what: what.unwrap_or_default(), at_ms: u64::MAX })
    })
}

/// Draws the run of a seed and plays it.
///
/// # Errors
/// The failure.
pub fn play_seed(seed: u64) -> Result<Summary, Box<Failure>> {
    // Drawing fails only where a strategy rejects values, and none here does.
    let Ok(tree) = draw::scenario(seed) else { unreachable!("every run can be drawn") };
    let scenario = tree.current();
    play(&scenario).map_err(|violation| Box::new(Failure { tree, scenario, violation }))
}

/// A run that fails, with all that it can be shrunk to.
pub struct Failure {
    tree: ScenarioTree,
    scenario: Scenario,
    violation: Violation,
}

impl Failure {
    /// How it fails.
    #[must_use]
    pub fn violation(&self) -> &Violation {
        &self.violation
    }

    /// Tries smaller runs for this long at most; those that break the same rule count.
    #[must_use]
    pub fn shrink(self, most: Duration) -> Shrunk {
        let begun = Instant::now();
        let Self { mut tree, scenario, violation } = self;
        let mut shrunk = Shrunk { drawn: scenario.steps.len(), scenario, violation, tried: 0 };
        // What comes after the failure is no cause of it.
        tree.keep_until(shrunk.violation.at_ms);
        while begun.elapsed() < most {
            let scenario = tree.current();
            shrunk.tried += 1;
            let fails = match play(&scenario) {
                Err(violation) if violation.rule == shrunk.violation.rule => {
                    tree.keep_until(violation.at_ms);
                    shrunk = Shrunk { scenario: tree.current(), violation, ..shrunk };
                    true
                }
                _ => false,
            };
            if !(if fails { tree.simplify() } else { tree.complicate() }) {
                break;
            }
        }
        shrunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transition::{Step, Transition};

    /// Shrinks as [`Failure::shrink`] does, with another test; answers the runs that it took.
    fn shrink(seed: u64, fails: impl Fn(&Scenario) -> bool) -> (Scenario, u32) {
        let mut tree = draw::scenario(seed).unwrap();
        let mut best = tree.current();
        assert!(fails(&best));
        for tried in 1.. {
            let failed = fails(&tree.current());
            if failed {
                best = tree.current();
            }
            if !(if failed { tree.simplify() } else { tree.complicate() }) {
                return (best, tried);
            }
        }
        unreachable!()
    }

    #[test]
    fn two_transitions_that_are_needed_are_what_is_left() {
        let powers = |scenario: &Scenario| {
            let long =
                |step: &&Step| matches!(step.transition, Transition::LosePower { for_ms: 1_000.., .. });
            scenario.steps.iter().filter(long).count() >= 2
        };
        for seed in (0..100).filter(|seed| powers(&draw::scenario(*seed).unwrap().current())) {
            let (left, tried) = shrink(seed, powers);
            assert_eq!(left.steps.len(), 2, "{}", left.to_lines());
            for step in &left.steps {
                let least = Transition::LosePower { device: 0, for_ms: 1_000, counters: false };
                assert_eq!(step.transition, least);
            }
            assert_eq!(left.opening.weather, crate::weather::Weather::default());
            assert!(tried < 300, "{tried} runs");
        }
    }
}
