//! A controller by software.
//!
//! ```text
//! Idle -> Check -> Start -> Write (address) -> Write ... -> Stop -> Idle
//!           |        ^  \                      Read ...      ^
//!           |        |   +------- other direction <+         |
//!           v        |                                       |
//!        Recover ----+---- after a transfer given up --------+
//! ```
//! Every release of the clock line may find it held by a device: the step ends there, and the next one looks again.

use embedded_hal::{
    delay::DelayNs,
    digital::{InputPin, OutputPin},
};

use crate::bus::{Controller, Direction, Error, Progress, Target, Transfer};

/// How long a device may hold the clock at a time: SMBus 3.2 lets it do so for 25 ms and calls 35 ms a timeout.
pub const HELD_US_MAX: u64 = 35_000;
/// A whole transfer; the largest one takes 24 ms at 100 kHz when nobody holds the clock.
pub const TRANSFER_US_MAX: u64 = 500_000;
/// Clocks that free the data line from a device that was left in the middle of a byte (UM10204, section 3.1.16).
const RECOVERY_CLOCKS: u8 = 9;

/// An I2C controller over two open-drain lines: set high, each is let go of, and can be read.
#[derive(Debug)]
pub struct BitBanged<Scl, Sda, Delay> {
    scl: Scl,
    sda: Sda,
    delay: Delay,
    half_ns: u32,
    busy: Option<Busy>,
    /// The clock was let go of, and has not been seen high.
    raising: bool,
    held_since_us: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Busy {
    action: Action,
    begun_us: u64,
    cursor: Cursor,
    /// What it comes to after the stop; the transfer begins after it if there is none.
    outcome: Option<Result<(), Error>>,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Check,
    Start,
    /// Eight bits and the acknowledgement.
    Write {
        byte: u8,
        bit: u8,
        is_address: bool,
    },
    Read {
        byte: u8,
        bit: u8,
        is_last: bool,
    },
    Stop,
    Recover {
        clocks: u8,
    },
}

/// Where a transfer is: so many bytes of this operation are done.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    operation: usize,
    bytes: usize,
    offset: usize,
}

impl Cursor {
    /// What comes after what was done. None of it is a loop over more than the transfer's operations.
    fn next(&mut self, transfer: &Transfer) -> Action {
        let operations = transfer.operations();
        loop {
            let Some(operation) = operations.get(self.operation) else { return Action::Stop };
            if self.bytes < operation.bytes {
                let byte = transfer.bytes().get(self.offset).copied().unwrap_or(0);
                let following = operations.get(self.operation + 1).map(|operation| operation.direction);
                let is_last = self.bytes + 1 == operation.bytes && following != Some(Direction::Read);
                return match operation.direction {
                    Direction::Write | Direction::Exchange => {
                        Action::Write { byte, bit: 0, is_address: false }
                    }
                    Direction::Read => Action::Read { byte: 0, bit: 0, is_last },
                };
            }
            self.operation += 1;
            self.bytes = 0;
            if operations.get(self.operation).is_some_and(|next| next.direction != operation.direction) {
                return Action::Start;
            }
        }
    }

    fn advance(&mut self) {
        self.bytes += 1;
        self.offset += 1;
    }

    /// The address with the direction of the operation that begins.
    fn address(&self, transfer: &Transfer) -> Result<u8, Error> {
        let Target::I2c(address) = transfer.target() else { return Err(Error::NoBus) };
        let direction = transfer.operations().get(self.operation).map(|operation| operation.direction);
        Ok(address.number() << 1 | u8::from(direction == Some(Direction::Read)))
    }
}

/// What an action came to.
enum Step {
    /// The clock is held.
    Held,
    Next(Action),
    Finished,
}

impl<Scl, Sda, Delay> BitBanged<Scl, Sda, Delay>
where
    Scl: InputPin + OutputPin,
    Sda: InputPin + OutputPin,
    Delay: DelayNs,
{
    /// A controller that clocks so often per second, at most. It lets go of both lines.
    pub fn new(scl: Scl, sda: Sda, delay: Delay, clock_hz: u32) -> Self {
        let half_ns = 500_000_000 / clock_hz.max(1);
        let mut controller =
            Self { scl, sda, delay, half_ns, busy: None, raising: false, held_since_us: None };
        controller.let_go();
        controller
    }

    /// Ends whatever was under way; the next transfer finds out how the lines are.
    fn let_go(&mut self) {
        self.busy = None;
        self.raising = false;
        self.held_since_us = None;
        // A line that can't be let go of shows when the next transfer looks at it.
        let _ = self.sda.set_high();
        let _ = self.scl.set_high();
    }

    fn half(&mut self) {
        self.delay.delay_ns(self.half_ns);
    }

    fn sda(&mut self, level: bool) -> Result<(), Error> {
        let set = if level { self.sda.set_high() } else { self.sda.set_low() };
        set.map_err(|_| Error::Bus)
    }

    fn sda_is_high(&mut self) -> Result<bool, Error> {
        self.sda.is_high().map_err(|_| Error::Bus)
    }

    fn fall(&mut self) -> Result<(), Error> {
        self.scl.set_low().map_err(|_| Error::Bus)
    }

    /// Sets the data line while the clock is low, and lets go of the clock; false while a device holds it.
    fn rise(&mut self, sda: bool, now_us: u64) -> Result<bool, Error> {
        if !self.raising {
            self.sda(sda)?;
            self.half();
            self.scl.set_high().map_err(|_| Error::Bus)?;
            self.raising = true;
        }
        if self.scl.is_high().map_err(|_| Error::Bus)? {
            self.raising = false;
            self.held_since_us = None;
            return Ok(true);
        }
        let since_us = *self.held_since_us.get_or_insert(now_us);
        if now_us.saturating_sub(since_us) > HELD_US_MAX { Err(Error::Timeout) } else { Ok(false) }
    }

    /// One clock; the level that the data line had, or none while the clock is held.
    fn clock(&mut self, sda: bool, now_us: u64) -> Result<Option<bool>, Error> {
        if !self.rise(sda, now_us)? {
            return Ok(None);
        }
        let level = self.sda_is_high()?;
        self.half();
        self.fall()?;
        Ok(Some(level))
    }

    fn act(&mut self, busy: &mut Busy, transfer: Option<&mut Transfer>, now_us: u64) -> Result<Step, Error> {
        match (busy.action, transfer) {
            (Action::Check, _) => self.check(),
            (Action::Start, Some(transfer)) => self.start(busy.cursor.address(transfer)?, now_us),
            (Action::Write { byte, bit, is_address }, Some(transfer)) => {
                self.write(busy, transfer, (byte, bit, is_address), now_us)
            }
            (Action::Read { byte, bit, is_last }, Some(transfer)) => {
                self.read(busy, transfer, (byte, bit, is_last), now_us)
            }
            (Action::Recover { clocks }, _) => self.free(busy, clocks, now_us),
            (Action::Stop, _) => self.stop(busy.outcome, now_us),
            (Action::Start | Action::Write { .. } | Action::Read { .. }, None) => {
                debug_assert!(false, "without a transfer the bus is only freed");
                Err(Error::Bus)
            }
        }
    }

    /// Whether both lines are free. They may be held since before this device started.
    fn check(&mut self) -> Result<Step, Error> {
        self.let_go();
        self.half();
        let is_free = self.sda_is_high()? && self.scl.is_high().map_err(|_| Error::Bus)?;
        Ok(Step::Next(if is_free { Action::Start } else { Action::Recover { clocks: 0 } }))
    }

    fn start(&mut self, address: u8, now_us: u64) -> Result<Step, Error> {
        if !self.rise(true, now_us)? {
            return Ok(Step::Held);
        }
        self.half();
        if !self.sda_is_high()? {
            return Err(Error::Bus);
        }
        self.sda(false)?;
        self.half();
        self.fall()?;
        Ok(Step::Next(Action::Write { byte: address, bit: 0, is_address: true }))
    }

    fn write(
        &mut self,
        busy: &mut Busy,
        transfer: &Transfer,
        (byte, from, is_address): (u8, u8, bool),
        now_us: u64,
    ) -> Result<Step, Error> {
        for bit in from..8 {
            busy.action = Action::Write { byte, bit, is_address };
            let level = byte & 0x80 >> bit != 0;
            match self.clock(level, now_us)? {
                None => return Ok(Step::Held),
                Some(false) if level => return Err(Error::ArbitrationLost),
                Some(_) => {}
            }
        }
        busy.action = Action::Write { byte, bit: 8, is_address };
        let Some(refused) = self.clock(true, now_us)? else { return Ok(Step::Held) };
        if refused {
            let error = if is_address { Error::NoAcknowledgeAddress } else { Error::NoAcknowledgeData };
            busy.outcome = Some(Err(error));
            return Ok(Step::Next(Action::Stop));
        }
        if !is_address {
            busy.cursor.advance();
        }
        Ok(self.go_on(busy, transfer))
    }

    fn read(
        &mut self,
        busy: &mut Busy,
        transfer: &mut Transfer,
        (mut byte, from, is_last): (u8, u8, bool),
        now_us: u64,
    ) -> Result<Step, Error> {
        for bit in from..8 {
            busy.action = Action::Read { byte, bit, is_last };
            let Some(level) = self.clock(true, now_us)? else { return Ok(Step::Held) };
            byte = byte << 1 | u8::from(level);
        }
        busy.action = Action::Read { byte, bit: 8, is_last };
        // The last byte is not acknowledged, so that the device lets go of the data line.
        if self.clock(is_last, now_us)?.is_none() {
            return Ok(Step::Held);
        }
        if let Some(place) = transfer.bytes_mut().get_mut(busy.cursor.offset) {
            *place = byte;
        }
        busy.cursor.advance();
        Ok(self.go_on(busy, transfer))
    }

    fn go_on(&mut self, busy: &mut Busy, transfer: &Transfer) -> Step {
        let action = busy.cursor.next(transfer);
        if matches!(action, Action::Stop) {
            busy.outcome = Some(Ok(()));
        }
        Step::Next(action)
    }

    fn stop(&mut self, outcome: Option<Result<(), Error>>, now_us: u64) -> Result<Step, Error> {
        if !self.rise(false, now_us)? {
            return Ok(Step::Held);
        }
        self.half();
        self.sda(true)?;
        self.half();
        Ok(if outcome.is_some() { Step::Finished } else { Step::Next(Action::Start) })
    }

    /// Clocks until the data line is free, then a stop.
    fn free(&mut self, busy: &mut Busy, from: u8, now_us: u64) -> Result<Step, Error> {
        for clocks in from..=RECOVERY_CLOCKS {
            busy.action = Action::Recover { clocks };
            if !self.rise(true, now_us)? {
                return Ok(Step::Held);
            }
            self.half();
            if self.sda_is_high()? {
                self.fall()?;
                return Ok(Step::Next(Action::Stop));
            }
            if clocks < RECOVERY_CLOCKS {
                self.fall()?;
            }
        }
        Err(Error::Bus)
    }

    fn run(&mut self, mut busy: Busy, transfer: Option<&mut Transfer>, now_us: u64) -> Progress {
        let acted = if now_us.saturating_sub(busy.begun_us) > TRANSFER_US_MAX {
            Err(Error::Timeout)
        } else {
            self.act(&mut busy, transfer, now_us)
        };
        match acted {
            Ok(Step::Held) => {
                self.busy = Some(busy);
                Progress::Waiting
            }
            Ok(Step::Next(action)) => {
                self.busy = Some(Busy { action, ..busy });
                Progress::Working
            }
            Ok(Step::Finished) => {
                self.busy = None;
                Progress::Done(busy.outcome.unwrap_or(Ok(())))
            }
            Err(error) => {
                self.let_go();
                Progress::Done(Err(error))
            }
        }
    }
}

impl<Scl, Sda, Delay> Controller for BitBanged<Scl, Sda, Delay>
where
    Scl: InputPin + OutputPin,
    Sda: InputPin + OutputPin,
    Delay: DelayNs,
{
    fn step(&mut self, transfer: &mut Transfer, now_us: u64) -> Progress {
        let begin =
            Busy { action: Action::Check, begun_us: now_us, cursor: Cursor::default(), outcome: None };
        let busy = self.busy.unwrap_or(begin);
        self.run(busy, Some(transfer), now_us)
    }

    fn give_up(&mut self, now_us: u64) -> bool {
        let Some(mut busy) = self.busy else { return true };
        let is_freeing = matches!(busy.action, Action::Recover { .. } | Action::Stop);
        if !(is_freeing && busy.outcome.is_some()) {
            busy = Busy {
                action: Action::Recover { clocks: 0 },
                begun_us: now_us,
                outcome: Some(Ok(())),
                ..busy
            };
            self.raising = false;
            self.held_since_us = None;
        }
        matches!(self.run(busy, None, now_us), Progress::Done(_))
    }
}
