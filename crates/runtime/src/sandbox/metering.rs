//! How much fuel makes a slice, and how much CPU time a slice was.

/// How CPU time is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metering {
    /// By the host's clock: what a device does.
    Measured,
    /// By fuel, for simulations whose clock does not move while code runs: the same run costs the same on every machine.
    Fixed {
        /// Fuel that counts as one millisecond.
        fuel_per_ms: u32,
    },
}

/// Finds, while an application runs, how much fuel the engine burns on this machine in [`QUANTUM_US`].
///
/// Fuel is a count of work, and kinds of work differ: a unit was 1.7 to 2.6 instructions of an RV32 in two kernels. So
/// the clock is read after every quantum, not after every slice, and a program that lures the estimate up with cheap
/// instructions overruns one quantum, not one slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calibration {
    quantum: u32,
}

/// Fuel of the first quantum: some 10 µs of a 100 MHz core. It doubles until the clock says that it is enough.
const QUANTUM_FIRST: u32 = 500;
/// Below this a quantum would be mostly the cost of entering the engine.
const QUANTUM_MIN: u32 = 64;
/// Above this a quantum is long enough that entering the engine is nothing beside it; a fast host is done with it sooner
/// than in [`QUANTUM_US`].
const QUANTUM_MAX: u32 = 200_000;
/// A twentieth of the longest slice.
const QUANTUM_US: u64 = 250;

impl Calibration {
    pub(crate) fn new() -> Calibration {
        Calibration { quantum: QUANTUM_FIRST }
    }

    /// Fuel for the next quantum.
    pub(crate) fn quantum(self) -> u32 {
        self.quantum
    }

    /// Learns from one quantum that used `fuel` in `elapsed_us`. One that a host call cut short is a poor sample and is
    /// heard only when it took too long.
    pub(crate) fn learn(&mut self, fuel: u32, elapsed_us: u64) {
        let complete = fuel >= self.quantum;
        if !complete && elapsed_us <= QUANTUM_US {
            return;
        }
        let measured = u64::from(fuel.max(1)) * QUANTUM_US / elapsed_us.max(1);
        let grown = u64::from(self.quantum) * 2;
        let next = measured.min(grown).clamp(QUANTUM_MIN.into(), QUANTUM_MAX.into());
        self.quantum = u32::try_from(next).unwrap_or(QUANTUM_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settles_on_the_machines_speed() {
        for fuel_per_us in [1, 3, 40, 400] {
            let mut calibration = Calibration::new();
            for _ in 0..20 {
                let fuel = calibration.quantum();
                calibration.learn(fuel, u64::from(fuel) / fuel_per_us);
            }
            let elapsed_us = u64::from(calibration.quantum()) / fuel_per_us;
            assert!(
                (200..=250).contains(&elapsed_us),
                "{fuel_per_us} fuel per us: quantum of {elapsed_us} us"
            );
        }
    }

    #[test]
    fn one_slow_quantum_is_enough_to_slow_down() {
        let mut calibration = Calibration::new();
        for _ in 0..20 {
            calibration.learn(calibration.quantum(), 1);
        }
        assert_eq!(calibration.quantum(), QUANTUM_MAX);
        calibration.learn(QUANTUM_MAX, 50_000);
        assert_eq!(calibration.quantum(), 1_000);
    }

    #[test]
    fn a_clock_that_stands_still_does_not_divide_by_zero() {
        let mut calibration = Calibration::new();
        calibration.learn(calibration.quantum(), 0);
        assert_eq!(calibration.quantum(), QUANTUM_FIRST * 2);
    }
}
