//! Applications and pins: who may use which, and the edges that they watch.
//!
//! A pin that is watched is looked at every 5 ms. Edges are counted until the application asks for them, so a flood of them takes
//! no memory, and they end its waits as often as it was granted.

use alloc::vec::Vec;

use wasmbed_protocol::{
    ApplicationUid, GpioGrant,
    rate::{Rate, TokenBucket},
};
use wasmbed_runtime::{AppId, Edges, PeripheralError, Peripherals};

use crate::{granted::Granted, instance::number_of};

/// What stands before the number in the name of a pin.
const KIND: &str = "gpio";
/// Between two looks at pins that are watched: a button bounces for longer.
const LOOK_US: u64 = 5_000;

/// What an application may do with one pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pin: u32,
    rate: Rate,
    bucket: TokenBucket,
    /// What it watches, the level seen last, and the edges that it has not asked for yet.
    watched: Edges,
    level: bool,
    count: u32,
}

impl Grant {
    /// The grant of an assignment, if its name is one of a pin.
    pub(crate) fn new(grant: &GpioGrant<'_>) -> Option<Self> {
        Some(Self {
            pin: number_of(KIND, grant.name)?,
            // What a second allows may be had at once.
            rate: Rate::per_second(grant.edges_per_second.into(), grant.edges_per_second.into()),
            bucket: TokenBucket::default(),
            watched: Edges::default(),
            level: false,
            count: 0,
        })
    }

    fn is_watched(&self) -> bool {
        self.watched.rising || self.watched.falling
    }

    fn look(&mut self, peripherals: &mut impl Peripherals) {
        // A pin that does not answer has no edge.
        let Ok(level) = peripherals.gpio_read(self.pin) else { return };
        if level != self.level && if level { self.watched.rising } else { self.watched.falling } {
            self.count = self.count.saturating_add(1);
        }
        self.level = level;
    }

    /// Whether its edges may end a wait now.
    fn may_wake(&mut self, now_us: u64) -> bool {
        if self.count == 0 {
            return false;
        }
        self.bucket.refill(now_us / 1_000, self.rate);
        self.bucket.has(self.rate, 1)
    }
}

/// All pins that applications were granted.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    granted: Granted<Grant>,
    look_at_us: u64,
}

impl Pins {
    /// An application runs, and may do this.
    pub(crate) fn grant(&mut self, uid: ApplicationUid, grants: Vec<Grant>) {
        self.granted.set(uid, grants);
    }

    /// The application runs no more.
    pub(crate) fn forget(&mut self, uid: ApplicationUid) {
        self.granted.forget(uid);
    }

    /// Whether an application may use a pin: any, if it was granted none by name.
    pub(crate) fn check(&self, id: AppId, pin: u32) -> Result<(), PeripheralError> {
        let mut is_bound = false;
        for grant in self.granted.of(ApplicationUid(id.0)) {
            if grant.pin == pin {
                return Ok(());
            }
            is_bound = true;
        }
        if is_bound { Err(PeripheralError::Denied) } else { Ok(()) }
    }

    /// Watches edges from now on.
    pub(crate) fn watch(
        &mut self,
        id: AppId,
        pin: u32,
        edges: Edges,
        peripherals: &mut impl Peripherals,
    ) -> Result<(), PeripheralError> {
        let grant = self.find(id, pin)?;
        grant.level = peripherals.gpio_read(pin)?;
        (grant.watched, grant.count) = (edges, 0);
        Ok(())
    }

    /// Edges since the last call.
    pub(crate) fn take_edges(&mut self, id: AppId, pin: u32) -> Result<u32, PeripheralError> {
        Ok(core::mem::take(&mut self.find(id, pin)?.count))
    }

    fn find(&mut self, id: AppId, pin: u32) -> Result<&mut Grant, PeripheralError> {
        let mut grants = self.granted.of_mut(ApplicationUid(id.0));
        grants.find(|grant| grant.pin == pin).ok_or(PeripheralError::Denied)
    }

    /// Looks at all pins that are watched, if it is time, and ends a wait of each application of whose pins there are edges, with
    /// what answers whether it was in one.
    pub(crate) fn look(
        &mut self,
        peripherals: &mut impl Peripherals,
        now_us: u64,
        mut end_wait: impl FnMut(AppId) -> bool,
    ) {
        let is_time = now_us >= self.look_at_us;
        if is_time {
            self.look_at_us = now_us.saturating_add(LOOK_US);
        }
        for (uid, grant) in self.granted.iter_mut().filter(|(_, grant)| grant.is_watched()) {
            if is_time {
                grant.look(peripherals);
            }
            if grant.may_wake(now_us) && end_wait(AppId(uid.0)) {
                grant.bucket.spend(1);
            }
        }
    }

    /// Whether edges end a wait that begins now.
    pub(crate) fn take_wake(&mut self, id: AppId, now_us: u64) -> bool {
        let mut watched = self.granted.of_mut(ApplicationUid(id.0)).filter(|grant| grant.is_watched());
        let wakes = watched.find_map(|grant| grant.may_wake(now_us).then_some(grant));
        wakes.map(|grant| grant.bucket.spend(1)).is_some()
    }

    /// When to look next, on the clock of [`Pins::look`].
    pub(crate) fn due_us(&self) -> Option<u64> {
        self.granted.iter().any(|(_, grant)| grant.is_watched()).then_some(self.look_at_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    struct Board([bool; 3]);

    impl Peripherals for Board {
        fn gpio_read(&mut self, pin: u32) -> Result<bool, PeripheralError> {
            self.0.get(pin as usize).copied().ok_or(PeripheralError::NotFound)
        }
    }

    const A: AppId = AppId([1; 16]);
    const B: AppId = AppId([2; 16]);
    const BOTH: Edges = Edges { rising: true, falling: true };

    fn pins(edges_per_second: u32) -> (Pins, Board) {
        let mut pins = Pins::default();
        let grant = |name| Grant::new(&GpioGrant { name, edges_per_second }).unwrap();
        pins.grant(ApplicationUid(A.0), vec![grant("gpio0"), grant("gpio9")]);
        (pins, Board([false; 3]))
    }

    #[test]
    fn an_application_that_was_granted_pins_has_no_others() {
        let (mut pins, mut board) = pins(10);
        assert_eq!(pins.check(A, 0), Ok(()));
        assert_eq!(pins.check(A, 1), Err(PeripheralError::Denied));
        assert_eq!(pins.watch(A, 1, BOTH, &mut board), Err(PeripheralError::Denied));
        assert_eq!(pins.watch(A, 9, BOTH, &mut board), Err(PeripheralError::NotFound));
        // One that was granted none by name has all, and nobody's edges.
        assert_eq!(pins.check(B, 1), Ok(()));
        assert_eq!(pins.watch(B, 1, BOTH, &mut board), Err(PeripheralError::Denied));
        assert_eq!(pins.take_edges(B, 0), Err(PeripheralError::Denied));
        assert_eq!(pins.due_us(), None);
        pins.watch(A, 0, BOTH, &mut board).unwrap();
        assert!(pins.due_us().is_some());
        pins.forget(ApplicationUid(A.0));
        assert_eq!(pins.due_us(), None);
    }

    #[test]
    fn only_the_edges_that_were_asked_for_count() {
        let (mut pins, mut board) = pins(10);
        let mut now_us = 0;
        let mut count = |pins: &mut Pins, levels: &[bool]| {
            for level in levels {
                board.0[0] = *level;
                now_us += LOOK_US;
                pins.look(&mut board, now_us, |_| false);
            }
            pins.take_edges(A, 0).unwrap()
        };
        assert_eq!(count(&mut pins, &[true, false, true]), 0, "nothing is watched");
        for (edges, expected) in [
            (BOTH, 4),
            (Edges { rising: true, falling: false }, 2),
            (Edges { rising: false, falling: true }, 2),
            (Edges::default(), 0),
        ] {
            pins.watch(A, 0, edges, &mut Board([true; 3])).unwrap();
            assert_eq!(count(&mut pins, &[true, false, true, false, true]), expected, "{edges:?}");
            assert_eq!(count(&mut pins, &[true]), 0);
        }
    }

    #[test]
    fn a_flood_is_counted_and_ends_as_many_waits_as_were_granted() {
        let (mut pins, mut board) = pins(10);
        pins.watch(A, 0, BOTH, &mut board).unwrap();
        let mut ended = 0;
        for step in 1..=2_000 {
            board.0[0] = !board.0[0];
            pins.look(&mut board, step * LOOK_US, |id| {
                ended += u32::from(id == A);
                true
            });
        }
        // Ten seconds, and those of one second at once.
        assert!((100..=110).contains(&ended), "{ended}");
        assert_eq!(pins.take_edges(A, 0), Ok(2_000));
        assert!(!pins.take_wake(A, 60_000_000), "there are none left");
    }

    #[test]
    fn edges_from_before_a_wait_end_it_and_no_one_else_s() {
        let (mut pins, mut board) = pins(1);
        pins.watch(A, 0, BOTH, &mut board).unwrap();
        board.0[0] = true;
        // Nobody waits: nothing is spent.
        let mut asked = 0;
        pins.look(&mut board, LOOK_US, |_| {
            asked += 1;
            false
        });
        assert_eq!(asked, 1);
        assert!(!pins.take_wake(B, LOOK_US));
        assert!(pins.take_wake(A, LOOK_US));
        assert!(!pins.take_wake(A, LOOK_US), "one each second");
        assert!(pins.take_wake(A, LOOK_US + 1_000_000));
    }
}
