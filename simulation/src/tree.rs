//! What a run can be shrunk to.

use proptest::strategy::ValueTree;

use crate::{
    transition::{Opening, Scenario, Step, Transition},
    world::FAULTS_MS,
};

/// One transition that was drawn.
pub(crate) struct Drawn {
    at_ms: u64,
    transition: Box<dyn ValueTree<Value = Transition>>,
}

impl Drawn {
    pub(crate) fn new(at_ms: u64, transition: Box<dyn ValueTree<Value = Transition>>) -> Self {
        Self { at_ms, transition }
    }
}

/// What is being tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opening,
    /// Without so many transitions from there on.
    Leave {
        from: usize,
        count: usize,
    },
    /// The values of this transition.
    Values {
        index: usize,
    },
    Done,
}

/// What is undone if the run does not fail any more.
enum Trial {
    None,
    Opening,
    /// The transitions that were there, by their numbers.
    Left(Vec<usize>),
    Value(usize),
}

/// A run and the smaller ones it can be shrunk to: in a better world, with fewer transitions (half of them first, then a quarter), and with
/// smaller values; then all of it again, for as long as that helps. Times stay: a transition meets the moment that it was drawn
/// for, whatever else is left out.
pub(crate) struct ScenarioTree {
    opening: Box<dyn ValueTree<Value = Opening>>,
    steps: Vec<Drawn>,
    /// The numbers of those that are left.
    kept: Vec<usize>,
    stage: Stage,
    trial: Trial,
    /// Something became smaller since the opening was tried last.
    helped: bool,
}

impl ScenarioTree {
    pub(crate) fn new(opening: Box<dyn ValueTree<Value = Opening>>, steps: Vec<Drawn>) -> Self {
        let kept = (0..steps.len()).collect();
        Self { opening, steps, kept, stage: Stage::Opening, trial: Trial::None, helped: false }
    }

    /// Leaves out what comes after a failure, which nothing can depend on.
    pub(crate) fn keep_until(&mut self, at_ms: u64) {
        if at_ms < FAULTS_MS {
            let steps = &self.steps;
            self.kept.retain(|number| steps.get(*number).is_some_and(|step| step.at_ms <= at_ms));
        }
    }

    fn drawn(&mut self, index: usize) -> Option<&mut Drawn> {
        let number = *self.kept.get(index)?;
        self.steps.get_mut(number)
    }

    fn leave(count: usize) -> Stage {
        Stage::Leave { from: 0, count: count.max(1) }
    }

    /// Moves on to the next trial; false if none is left.
    fn propose(&mut self) -> bool {
        loop {
            match self.stage {
                Stage::Opening => {
                    if self.opening.simplify() {
                        self.trial = Trial::Opening;
                        return true;
                    }
                    self.helped = false;
                    self.stage = Self::leave(self.kept.len() / 2);
                }
                Stage::Leave { from, count } if from < self.kept.len() => {
                    let before = self.kept.clone();
                    self.kept.drain(from..before.len().min(from + count));
                    self.trial = Trial::Left(before);
                    return true;
                }
                Stage::Leave { count, .. } if count > 1 => self.stage = Self::leave(count / 2),
                Stage::Leave { .. } => self.stage = Stage::Values { index: 0 },
                Stage::Values { index } if index < self.kept.len() => {
                    if self.drawn(index).is_some_and(|drawn| drawn.transition.simplify()) {
                        self.trial = Trial::Value(index);
                        return true;
                    }
                    self.stage = Stage::Values { index: index + 1 };
                }
                Stage::Values { .. } => self.stage = if self.helped { Stage::Opening } else { Stage::Done },
                Stage::Done => return false,
            }
        }
    }
}

impl ValueTree for ScenarioTree {
    type Value = Scenario;

    fn current(&self) -> Scenario {
        let drawn = self.kept.iter().filter_map(|number| self.steps.get(*number));
        let steps = drawn.map(|drawn| Step { at_ms: drawn.at_ms, transition: drawn.transition.current() });
        Scenario { opening: self.opening.current(), steps: steps.collect() }
    }

    fn simplify(&mut self) -> bool {
        self.helped |= !matches!(std::mem::replace(&mut self.trial, Trial::None), Trial::None);
        self.propose()
    }

    fn complicate(&mut self) -> bool {
        match std::mem::replace(&mut self.trial, Trial::None) {
            Trial::None => {}
            Trial::Opening => {
                if self.opening.complicate() {
                    self.trial = Trial::Opening;
                    return true;
                }
            }
            Trial::Left(before) => {
                self.kept = before;
                if let Stage::Leave { from, count } = self.stage {
                    self.stage = Stage::Leave { from: from + count, count };
                }
            }
            Trial::Value(index) => {
                if self.drawn(index).is_some_and(|drawn| drawn.transition.complicate()) {
                    self.trial = Trial::Value(index);
                    return true;
                }
                self.stage = Stage::Values { index: index + 1 };
            }
        }
        self.propose()
    }
}
