//! Applications' transfers over I2C and SPI buses: who may make which, and when each gets its turn.
//!
//! An application that asked sleeps until its transfer is over, so it has one at most. Each bus has one transfer at a time, moved
//! on a byte or so in each step. One that the rate of its application does not allow yet waits without holding up others. A
//! transfer whose application is stopped is given up, and its bus freed before the next.

use alloc::{vec, vec::Vec};

use wasmbed_protocol::{
    ApplicationUid, I2cGrant, SpiGrant,
    rate::{Rate, TokenBucket},
};
use wasmbed_runtime::{
    AppId, Peripherals,
    peripherals::{
        bus::{Controller, Error, Progress, Target, Transfer},
        i2c::Address,
        spi::Device,
    },
};

use crate::{granted::Granted, instance::number_of};

/// What stands before the number in the name of an I2C bus.
const I2C: &str = "i2c";
/// The same of an SPI bus; its number, a point and that of the chip select follow.
const SPI: &str = "spi";

/// One of the device's buses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bus {
    I2c(u8),
    Spi(u8),
}

impl Bus {
    /// The bus on which a target is, by its number.
    fn of(target: Target, number: u32) -> Option<Self> {
        let number = u8::try_from(number).ok()?;
        Some(match target {
            Target::I2c(_) => Self::I2c(number),
            Target::Spi(_) => Self::Spi(number),
        })
    }

    fn controller(self, peripherals: &mut impl Peripherals) -> Option<&mut dyn Controller> {
        match self {
            Self::I2c(number) => peripherals.i2c(number),
            Self::Spi(number) => peripherals.spi(number),
        }
    }
}

/// What an application may do on one bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    bus: Bus,
    targets: Vec<Target>,
    rate: Rate,
    bucket: TokenBucket,
}

impl Grant {
    fn new(bus: Bus, targets: Vec<Target>, bytes_per_second: u32) -> Self {
        // What a second allows may be had at once.
        let rate = Rate::per_second(bytes_per_second.into(), bytes_per_second.into());
        Self { bus, targets, rate, bucket: TokenBucket::default() }
    }

    /// The grant of an assignment, if its name is one of a bus.
    pub(crate) fn i2c(grant: &I2cGrant<'_>) -> Option<Self> {
        let bus = Bus::I2c(number_of(I2C, grant.name).and_then(|number| u8::try_from(number).ok())?);
        let addresses = grant.addresses.iter().filter_map(|number| Address::new((*number).into()));
        Some(Self::new(bus, addresses.map(Target::I2c).collect(), grant.bytes_per_second))
    }

    /// The same of a chip on an SPI bus.
    pub(crate) fn spi(grant: &SpiGrant<'_>) -> Option<Self> {
        let (bus, chip_select) = grant.name.split_once('.')?;
        let bus = Bus::Spi(number_of(SPI, bus).and_then(|number| u8::try_from(number).ok())?);
        let chip_select = number_of("", chip_select).and_then(|number| u8::try_from(number).ok())?;
        let device = Device { chip_select, mode: grant.mode, clock_khz: grant.clock_khz };
        Some(Self::new(bus, vec![Target::Spi(device)], grant.bytes_per_second))
    }
}

#[derive(Debug)]
struct Job {
    uid: ApplicationUid,
    bus: Bus,
    transfer: Transfer,
    due_us: u64,
    has_begun: bool,
}

/// What a step came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stepped {
    /// Nothing is due.
    Idle,
    /// There is more to do at once.
    Working,
    /// Devices hold their clocks, and there is nothing else to do.
    Waiting,
    /// A transfer is over.
    Done(AppId, Result<Transfer, Error>),
}

/// All buses of a device.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    granted: Granted<Grant>,
    /// In the order in which they were asked for, one of each application at most.
    jobs: Vec<Job>,
    /// Buses whose transfer was given up and that are not free yet.
    freeing: Vec<Bus>,
}

impl Transfers {
    /// An application runs, and may do this.
    pub(crate) fn grant(&mut self, uid: ApplicationUid, grants: Vec<Grant>) {
        self.forget(uid);
        self.granted.set(uid, grants);
    }

    /// The application runs no more: nobody waits for its transfer.
    pub(crate) fn forget(&mut self, uid: ApplicationUid) {
        self.granted.forget(uid);
        let freeing = &mut self.freeing;
        self.jobs.retain(|job| {
            if job.uid == uid && job.has_begun {
                freeing.push(job.bus);
            }
            job.uid != uid
        });
    }

    /// Takes a transfer if the application may make it.
    pub(crate) fn push(
        &mut self,
        id: AppId,
        number: u32,
        transfer: Transfer,
        now_us: u64,
    ) -> Result<(), Error> {
        let (uid, asked) = (ApplicationUid(id.0), transfer.target());
        let bus = Bus::of(asked, number).ok_or(Error::NoBus)?;
        let mut why_not = Error::NoBus;
        let found = self.granted.of_mut(uid).filter(|grant| grant.bus == bus).find_map(|grant| {
            why_not = Error::Denied;
            let target = *grant.targets.iter().find(|target| target.is_same(&asked))?;
            Some((target, grant))
        });
        let (target, Grant { rate, bucket, .. }) = found.ok_or(why_not)?;
        // It may begin when what came before is paid for, and is paid for afterwards itself.
        bucket.refill(now_us / 1_000, *rate);
        let due_us = bucket.available_at_ms(*rate, 0).saturating_mul(1_000);
        bucket.spend(transfer.bus_bytes().into());
        let transfer = transfer.with_target(target);
        self.jobs.push(Job { uid, bus, transfer, due_us, has_begun: false });
        Ok(())
    }

    /// Moves each bus on by a step.
    pub(crate) fn step(&mut self, peripherals: &mut impl Peripherals, now_us: u64) -> Stepped {
        let mut stepped = Stepped::Idle;
        self.freeing.retain(|bus| {
            let is_free = bus.controller(peripherals).is_none_or(|controller| controller.give_up(now_us));
            stepped = Stepped::Working;
            !is_free
        });
        for index in 0..self.jobs.len() {
            if !self.has_turn(index, now_us) {
                continue;
            }
            let Some(job) = self.jobs.get_mut(index) else { break };
            let progress = match job.bus.controller(peripherals) {
                Some(controller) => controller.step(&mut job.transfer, now_us),
                None => Progress::Done(Err(Error::NoBus)),
            };
            job.has_begun = true;
            match progress {
                Progress::Working => stepped = Stepped::Working,
                Progress::Waiting if stepped == Stepped::Idle => stepped = Stepped::Waiting,
                Progress::Waiting => {}
                Progress::Done(outcome) => {
                    let job = self.jobs.remove(index);
                    return Stepped::Done(AppId(job.uid.0), outcome.map(|()| job.transfer));
                }
            }
        }
        stepped
    }

    /// Whether a transfer has its bus: it has begun, or none has and it is the first of those that may.
    fn has_turn(&self, index: usize, now_us: u64) -> bool {
        let Some(job) = self.jobs.get(index) else { return false };
        let others = || self.jobs.iter().filter(|other| other.bus == job.bus);
        let is_first =
            || others().find(|other| other.due_us <= now_us).is_some_and(|other| other.uid == job.uid);
        let is_taken = || self.freeing.contains(&job.bus) || others().any(|other| other.has_begun);
        job.has_begun || (!is_taken() && is_first())
    }

    /// When there is something to do, on the clock of [`Transfers::step`].
    pub(crate) fn due_us(&self) -> Option<u64> {
        let begun = self.jobs.iter().any(|job| job.has_begun) || !self.freeing.is_empty();
        if begun { Some(0) } else { self.jobs.iter().map(|job| job.due_us).min() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmbed_runtime::peripherals::bus::Direction;

    /// A bus on which a transfer takes so many steps, and freeing it another number.
    #[derive(Default)]
    struct Wire {
        steps: usize,
        frees: usize,
        /// The address of the transfer under way, and the steps that it had.
        under_way: Option<(u8, usize)>,
        begun: Vec<u8>,
    }

    impl Controller for Wire {
        fn step(&mut self, transfer: &mut Transfer, _: u64) -> Progress {
            let address = number_of_target(transfer);
            let (known, steps) = self.under_way.take().unwrap_or_else(|| {
                self.begun.push(address);
                (address, 0)
            });
            assert_eq!(known, address, "another transfer before this one is over");
            if steps + 1 == self.steps {
                transfer.bytes_mut().fill(address);
                return Progress::Done(Ok(()));
            }
            self.under_way = Some((address, steps + 1));
            Progress::Working
        }

        fn give_up(&mut self, _: u64) -> bool {
            self.under_way = None;
            self.frees = self.frees.saturating_sub(1);
            self.frees == 0
        }
    }

    /// I2C buses, and an SPI bus.
    struct Board([Wire; 2], Wire);

    impl Peripherals for Board {
        fn i2c(&mut self, bus: u8) -> Option<&mut dyn Controller> {
            self.0.get_mut(usize::from(bus)).map(|bus| bus as &mut dyn Controller)
        }

        fn spi(&mut self, bus: u8) -> Option<&mut dyn Controller> {
            Some(&mut self.1 as &mut dyn Controller).filter(|_| bus == 0)
        }
    }

    fn number_of_target(transfer: &Transfer) -> u8 {
        match transfer.target() {
            Target::I2c(address) => address.number(),
            Target::Spi(device) => device.chip_select,
        }
    }

    const A: AppId = AppId([1; 16]);
    const B: AppId = AppId([2; 16]);

    fn uid(id: AppId) -> ApplicationUid {
        ApplicationUid(id.0)
    }

    fn world(rate: u32) -> (Transfers, Board) {
        let mut i2c = Transfers::default();
        for (id, address) in [(A, 0x48), (B, 0x76)] {
            let grant =
                |name| Grant::i2c(&I2cGrant { name, addresses: &[address], bytes_per_second: rate }).unwrap();
            i2c.grant(uid(id), vec![grant("i2c0"), grant("i2c1")]);
        }
        let wire = || Wire { steps: 3, ..Wire::default() };
        (i2c, Board([wire(), wire()], wire()))
    }

    fn read(address: u32, bytes: usize) -> Transfer {
        let mut transfer = Transfer::new(Address::new(address).unwrap());
        transfer.push(Direction::Read, bytes).unwrap();
        transfer
    }

    #[test]
    fn names_of_chips_are_a_bus_and_a_chip_select_written_one_way() {
        let granted = |name| Grant::spi(&SpiGrant { name, mode: 3, clock_khz: 500, bytes_per_second: 1 });
        let grant = granted("spi1.2").unwrap();
        assert_eq!(grant.bus, Bus::Spi(1));
        assert_eq!(grant.targets, [Target::Spi(Device { chip_select: 2, mode: 3, clock_khz: 500 })]);
        for name in ["spi1", "spi1.", "spi.2", "spi01.2", "spi1.02", "spi1.2.3", "spi1.256", "i2c1.2", "1.2"]
        {
            assert_eq!(granted(name), None, "{name}");
        }
    }

    #[test]
    fn a_chip_is_talked_to_as_it_was_granted_and_no_other_is() {
        let (mut transfers, mut board) = world(1_000);
        let grant = |name, mode| {
            Grant::spi(&SpiGrant { name, mode, clock_khz: 500, bytes_per_second: 1_000 }).unwrap()
        };
        transfers.grant(uid(A), vec![grant("spi0.0", 0), grant("spi0.3", 3)]);
        let exchange = |chip_select| {
            let mut transfer = Transfer::new(Target::Spi(Device { chip_select, mode: 0, clock_khz: 0 }));
            transfer.push(Direction::Exchange, 1).unwrap();
            transfer
        };
        assert_eq!(transfers.push(A, 0, exchange(1), 0), Err(Error::Denied));
        assert_eq!(transfers.push(A, 1, exchange(3), 0), Err(Error::NoBus));
        assert_eq!(transfers.push(A, 0, read(0x48, 1), 0), Err(Error::NoBus), "an I2C bus");
        assert_eq!(transfers.push(B, 0, exchange(3), 0), Err(Error::NoBus));
        transfers.push(A, 0, exchange(3), 0).unwrap();
        let target = transfers.jobs[0].transfer.target();
        assert_eq!(target, Target::Spi(Device { chip_select: 3, mode: 3, clock_khz: 500 }));
        // Buses of the two kinds go on side by side, whatever their numbers.
        transfers.push(B, 0, read(0x76, 1), 0).unwrap();
        transfers.step(&mut board, 0);
        assert!(board.0[0].under_way.is_some() && board.1.under_way.is_some());
        assert_eq!(run(&mut transfers, &mut board, 0), [(A, 3), (B, 0x76)]);
    }

    /// Steps until nothing is due; what was done.
    fn run(i2c: &mut Transfers, board: &mut Board, now_us: u64) -> Vec<(AppId, u8)> {
        let mut done = Vec::new();
        loop {
            match i2c.step(board, now_us) {
                Stepped::Idle => return done,
                Stepped::Working | Stepped::Waiting => {}
                Stepped::Done(id, transferred) => done.push((id, transferred.unwrap().bytes()[0])),
            }
        }
    }

    #[test]
    fn what_was_not_granted_reaches_no_bus() {
        let (mut i2c, mut board) = world(1_000);
        assert_eq!(i2c.push(A, 2, read(0x48, 1), 0), Err(Error::NoBus));
        assert_eq!(i2c.push(A, 256, read(0x48, 1), 0), Err(Error::NoBus));
        assert_eq!(i2c.push(A, 0, read(0x76, 1), 0), Err(Error::Denied), "the neighbour's");
        assert_eq!(i2c.push(AppId([3; 16]), 0, read(0x48, 1), 0), Err(Error::NoBus));
        i2c.forget(uid(A));
        assert_eq!(i2c.push(A, 0, read(0x48, 1), 0), Err(Error::NoBus), "its assignment is gone");
        assert_eq!(run(&mut i2c, &mut board, 0), []);
        assert!(board.0.iter().all(|bus| bus.begun.is_empty()));
    }

    #[test]
    fn a_bus_has_one_transfer_at_a_time_and_two_buses_go_on_side_by_side() {
        let (mut i2c, mut board) = world(1_000);
        i2c.push(A, 0, read(0x48, 1), 0).unwrap();
        i2c.push(B, 0, read(0x76, 1), 0).unwrap();
        assert_eq!(run(&mut i2c, &mut board, 0), [(A, 0x48), (B, 0x76)]);
        i2c.push(A, 0, read(0x48, 1), 0).unwrap();
        i2c.push(B, 1, read(0x76, 1), 0).unwrap();
        i2c.step(&mut board, 0);
        assert!(board.0.iter().all(|bus| bus.under_way.is_some()));
        assert_eq!(run(&mut i2c, &mut board, 0), [(A, 0x48), (B, 0x76)]);
        assert_eq!(i2c.due_us(), None);
    }

    #[test]
    fn what_clocks_without_end_waits_and_its_neighbour_goes_first() {
        let (mut i2c, mut board) = world(100);
        // 50 bytes and the address: two of them are more than a second's.
        for _ in 0..2 {
            i2c.push(A, 0, read(0x48, 50), 0).unwrap();
            assert_eq!(run(&mut i2c, &mut board, 0), [(A, 0x48)]);
        }
        i2c.push(A, 0, read(0x48, 50), 0).unwrap();
        i2c.push(B, 0, read(0x76, 50), 0).unwrap();
        assert_eq!(run(&mut i2c, &mut board, 0), [(B, 0x76)]);
        assert_eq!(i2c.due_us(), Some(20_000));
        assert_eq!(run(&mut i2c, &mut board, 19_999), []);
        assert_eq!(run(&mut i2c, &mut board, 20_000), [(A, 0x48)]);
    }

    #[test]
    fn one_that_had_to_wait_does_not_cut_into_the_transfer_under_way() {
        let (mut i2c, mut board) = world(100);
        i2c.push(A, 0, read(0x48, 200), 0).unwrap();
        run(&mut i2c, &mut board, 0);
        i2c.push(A, 0, read(0x48, 1), 0).unwrap();
        i2c.push(B, 0, read(0x76, 1), 0).unwrap();
        i2c.step(&mut board, 0);
        assert_eq!(board.0[0].under_way, Some((0x76, 1)));
        assert_eq!(run(&mut i2c, &mut board, 5_000_000), [(B, 0x76), (A, 0x48)]);
    }

    #[test]
    fn a_stopped_application_s_bus_is_freed_before_the_next() {
        let (mut i2c, mut board) = world(1_000);
        board.0[0].frees = 3;
        i2c.push(A, 0, read(0x48, 1), 0).unwrap();
        i2c.push(B, 0, read(0x76, 1), 0).unwrap();
        i2c.step(&mut board, 0);
        i2c.forget(uid(A));
        assert_eq!(i2c.due_us(), Some(0));
        assert_eq!(run(&mut i2c, &mut board, 0), [(B, 0x76)]);
        assert_eq!((board.0[0].frees, board.0[0].begun.as_slice()), (0, &[0x48, 0x76][..]));
        // One that had not begun leaves nothing behind.
        i2c.push(B, 1, read(0x76, 1), 0).unwrap();
        i2c.forget(uid(B));
        assert_eq!((i2c.step(&mut board, 0), i2c.due_us()), (Stepped::Idle, None));
    }

    #[test]
    fn a_bus_that_the_board_has_not_is_told() {
        let (mut i2c, _) = world(1_000);
        i2c.push(A, 0, read(0x48, 1), 0).unwrap();
        let mut none = wasmbed_runtime::NoPeripherals;
        assert_eq!(i2c.step(&mut none, 0), Stepped::Done(A, Err(Error::NoBus)));
    }
}
