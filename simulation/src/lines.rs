//! Runs as text: a line of JSON for the opening, then one for each transition.

use std::fmt::Write as _;

use crate::{
    transition::{Opening, Scenario, Step},
    world::{GATEWAYS, HARDWARE},
};

/// Why lines are no run.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// There is no opening.
    #[error("no lines, where the first would have the opening")]
    Empty,
    /// A line is no opening, or no transition.
    #[error("line {line}: {source}")]
    Json {
        /// Its number, from 1 on.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The opening does not have a list of gateways for each device.
    #[error("line {line}: gateways are {GATEWAYS}, numbered from 0 on, and each of {} devices has some", HARDWARE.len())]
    Gateways {
        /// Its number, from 1 on.
        line: usize,
    },
    /// A transition comes before the one above it.
    #[error("line {line}: at_ms is {at_ms}, before the {before_ms} of the line above")]
    Order {
        /// Its number, from 1 on.
        line: usize,
        /// Its time.
        at_ms: u64,
        /// The time of the one above it.
        before_ms: u64,
    },
}

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
    pub fn from_lines(text: &str) -> Result<Self, LinesError> {
        let lines = text.lines().enumerate().map(|(index, text)| (index + 1, text));
        let mut lines = lines.filter(|(_, text)| !text.starts_with('#'));
        let (line, text) = lines.next().ok_or(LinesError::Empty)?;
        let opening: Opening =
            serde_json::from_str(text).map_err(|source| LinesError::Json { line, source })?;
        let all = opening.gateways.iter().flatten().all(|gateway| *gateway < GATEWAYS);
        if opening.gateways.len() != HARDWARE.len() || opening.gateways.iter().any(Vec::is_empty) || !all {
            return Err(LinesError::Gateways { line });
        }
        let mut steps: Vec<Step> = Vec::new();
        for (line, text) in lines {
            let step: Step =
                serde_json::from_str(text).map_err(|source| LinesError::Json { line, source })?;
            if let Some(before) = steps.last().filter(|before| before.at_ms > step.at_ms) {
                return Err(LinesError::Order { line, at_ms: step.at_ms, before_ms: before.at_ms });
            }
            steps.push(step);
        }
        Ok(Self { opening, steps })
    }

    /// One line for each value.
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
            assert_eq!(Scenario::from_lines(&scenario.to_lines()).unwrap(), scenario);
        }
    }

    #[test]
    fn what_is_no_run_is_refused() {
        let scenario = draw::scenario(1).unwrap().current();
        let lines = scenario.to_lines();
        let (opening, steps) = lines.split_once('\n').unwrap();
        let back = steps.lines().rev().collect::<Vec<_>>().join("\n");
        let gateways = serde_json::from_str::<serde_json::Value>(opening).unwrap()["gateways"].to_string();
        let elsewhere = opening.replace(&gateways, "[[0],[0],[0],[9]]");
        let error = |text: &str| Scenario::from_lines(text).unwrap_err().to_string();
        let refused = [
            ("", "no lines"),
            ("{}", "line 1: missing field"),
            (&lines.replace("noise", "noises"), "line 1: unknown field `noises`"),
            (
                &format!("# why\n{elsewhere}"),
                "line 2: gateways are 3, numbered from 0 on, and each of 4 devices",
            ),
            (&format!("{opening}\n{back}"), "before the 241000 of the line above"),
        ];
        for (text, why) in refused {
            assert!(error(text).contains(why), "{}", error(text));
        }
    }
}
