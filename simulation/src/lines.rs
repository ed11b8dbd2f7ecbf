//! Runs as text: a line of JSON for the opening, then one for each transition.

use std::fmt::Write as _;

use crate::{
    transition::{Scenario, Step},
    world::{GATEWAYS, HARDWARE},
};

impl Scenario {
    /// How many transitions it has.
    #[must_use]
    pub fn transitions(&self) -> usize {
        self.steps.len()
    }

    /// Reads what [`Scenario::to_lines`] wrote; lines that begin with `#` say where it comes from.
    ///
    /// # Errors
    /// The line that is wrong, and why.
    pub fn from_lines(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
        let wrong = |number: usize, why: String| format!("line {}: {why}", number + 1);
        let (number, line) = lines.next().ok_or("no lines")?;
        let opening: crate::transition::Opening =
            serde_json::from_str(line).map_err(|error| wrong(number, error.to_string()))?;
        let all = opening.gateways.iter().flatten().all(|gateway| *gateway < GATEWAYS);
        if opening.gateways.len() != HARDWARE.len() || opening.gateways.iter().any(Vec::is_empty) || !all {
            return Err(wrong(number, format!("gateways: below {GATEWAYS}, for {} devices", HARDWARE.len())));
        }
        let mut steps: Vec<Step> = Vec::new();
        for (number, line) in lines {
            let step: Step = serde_json::from_str(line).map_err(|error| wrong(number, error.to_string()))?;
            if steps.last().is_some_and(|last| last.at_ms > step.at_ms) {
                return Err(wrong(number, "at_ms goes back".to_owned()));
            }
            steps.push(step);
        }
        Ok(Self { opening, steps })
    }

    /// One line for each value.
    ///
    #[must_use]
    pub fn to_lines(&self) -> String {
        let mut text = serde_json::to_string(&self.opening).unwrap_or_default();
        for step in &self.steps {
            // A string takes everything.
            let _ = write!(text, "\n{}", serde_json::to_string(step).unwrap_or_default());
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::strategy::ValueTree;

    use super::*;
    use crate::draw;

    #[test]
    fn what_is_written_down_is_the_same_run() {
        for seed in 0..200 {
            let scenario = draw::scenario(seed).unwrap().current();
            assert_eq!(Scenario::from_lines(&scenario.to_lines()), Ok(scenario));
        }
    }

    #[test]
    fn what_is_no_run_is_refused() {
        let scenario = draw::scenario(1).unwrap().current();
        let lines = scenario.to_lines();
        let (opening, steps) = lines.split_once('\n').unwrap();
        let back = steps.lines().rev().collect::<Vec<_>>().join("\n");
        for text in ["", "{}", &lines.replace("noise", "noises"), &format!("{opening}\n{back}")] {
            assert!(Scenario::from_lines(text).is_err(), "{text}");
        }
    }
}
