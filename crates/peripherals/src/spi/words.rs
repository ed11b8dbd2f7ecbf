//! Drivers with the traits of `embedded-hal-nb` 1.0.
//!
//! ```text
//! (select) -> write a word -> wait for the one that comes for it -> ... -> pause -> ... -> (release)
//! ```

use embedded_hal_nb::{
    nb,
    spi::{Error as _, ErrorKind, FullDuplex},
};

use super::device::Device;
use crate::bus::{Controller, Direction, Error, Progress, Target, Transfer};

/// A word at most: at the slowest clock that can be granted it takes less than a millisecond.
pub const WORD_US_MAX: u64 = 20_000;
/// A whole transfer with its pauses; the largest one takes 215 ms at 10 kHz.
pub const TRANSFER_US_MAX: u64 = 500_000;
/// What is sent while bytes are only read.
const FILLER: u8 = 0;

/// What the traits of `embedded-hal-nb` leave to each driver.
pub trait Lines {
    /// Takes a chip's mode and a clock that is no faster than the chip's, forgets words that came before, and selects it; false if
    /// there is no such chip select or clock.
    fn select(&mut self, device: Device) -> bool;

    /// Selects none.
    fn release(&mut self);
}

/// An SPI controller over a driver that sends and receives single words. It has one word under way at a time.
#[derive(Debug)]
pub struct Words<T> {
    driver: T,
    busy: Option<Busy>,
}

/// Where a transfer is: so many bytes of this operation are done.
#[derive(Clone, Copy, Debug)]
struct Busy {
    begun_us: u64,
    operation: usize,
    bytes: usize,
    offset: usize,
    under_way: UnderWay,
}

#[derive(Clone, Copy, Debug)]
enum UnderWay {
    Nothing,
    /// A word, since when.
    Word(u64),
    /// A pause, until when.
    Pause(u64),
}

fn failure(error: ErrorKind) -> Error {
    match error {
        ErrorKind::Overrun => Error::Overrun,
        _ => Error::Bus,
    }
}

impl<T: Lines + FullDuplex<u8>> Words<T> {
    /// The controller of a driver; no chip is selected.
    pub fn new(mut driver: T) -> Self {
        driver.release();
        Self { driver, busy: None }
    }

    fn begin(&mut self, transfer: &Transfer, now_us: u64) -> Result<Busy, Error> {
        let Target::Spi(device) = transfer.target() else { return Err(Error::NoBus) };
        if !self.driver.select(device) {
            return Err(Error::NoBus);
        }
        Ok(Busy { begun_us: now_us, operation: 0, bytes: 0, offset: 0, under_way: UnderWay::Nothing })
    }

    /// The word that came for the one under way, or none yet.
    fn receive(&mut self, since_us: u64, now_us: u64) -> Result<Option<u8>, Error> {
        match self.driver.read() {
            Ok(word) => Ok(Some(word)),
            Err(nb::Error::WouldBlock) if now_us.saturating_sub(since_us) > WORD_US_MAX => {
                Err(Error::Timeout)
            }
            Err(nb::Error::WouldBlock) => Ok(None),
            Err(nb::Error::Other(error)) => Err(failure(error.kind())),
        }
    }

    fn advance(&mut self, busy: &mut Busy, transfer: &mut Transfer, now_us: u64) -> Result<Progress, Error> {
        if now_us.saturating_sub(busy.begun_us) > TRANSFER_US_MAX {
            return Err(Error::Timeout);
        }
        match busy.under_way {
            UnderWay::Nothing => {}
            UnderWay::Pause(until_us) if now_us < until_us => return Ok(Progress::Waiting),
            UnderWay::Pause(_) => busy.under_way = UnderWay::Nothing,
            UnderWay::Word(since_us) => {
                let Some(word) = self.receive(since_us, now_us)? else { return Ok(Progress::Waiting) };
                let direction =
                    transfer.operations().get(busy.operation).map(|operation| operation.direction);
                if let Some(place) = transfer.bytes_mut().get_mut(busy.offset)
                    && direction != Some(Direction::Write)
                {
                    *place = word;
                }
                busy.bytes += 1;
                busy.offset += 1;
                busy.under_way = UnderWay::Nothing;
            }
        }
        self.go_on(busy, transfer, now_us)
    }

    /// What comes after what was done. None of it is a loop over more than the transfer's operations.
    fn go_on(&mut self, busy: &mut Busy, transfer: &Transfer, now_us: u64) -> Result<Progress, Error> {
        while let Some(operation) = transfer.operations().get(busy.operation) {
            if busy.bytes < operation.bytes {
                let word = match operation.direction {
                    Direction::Read => FILLER,
                    Direction::Write | Direction::Exchange => {
                        transfer.bytes().get(busy.offset).copied().unwrap_or(FILLER)
                    }
                };
                return match self.driver.write(word) {
                    Ok(()) => {
                        busy.under_way = UnderWay::Word(now_us);
                        Ok(Progress::Working)
                    }
                    // Until the transfer's own time is over.
                    Err(nb::Error::WouldBlock) => Ok(Progress::Waiting),
                    Err(nb::Error::Other(error)) => Err(failure(error.kind())),
                };
            }
            busy.operation += 1;
            busy.bytes = 0;
            if operation.pause_us > 0 {
                busy.under_way = UnderWay::Pause(now_us.saturating_add(operation.pause_us.into()));
                return Ok(Progress::Waiting);
            }
        }
        Ok(Progress::Done(Ok(())))
    }
}

impl<T: Lines + FullDuplex<u8>> Controller for Words<T> {
    fn step(&mut self, transfer: &mut Transfer, now_us: u64) -> Progress {
        let begun = self.busy.take().map_or_else(|| self.begin(transfer, now_us), Ok);
        let advanced = begun.and_then(|mut busy| {
            let progress = self.advance(&mut busy, transfer, now_us)?;
            Ok((busy, progress))
        });
        match advanced {
            Ok((busy, progress @ (Progress::Working | Progress::Waiting))) => {
                self.busy = Some(busy);
                progress
            }
            Ok((_, done @ Progress::Done(_))) => {
                self.driver.release();
                done
            }
            Err(error) => {
                self.driver.release();
                Progress::Done(Err(error))
            }
        }
    }

    /// The chip is let go of at once, and the word under way comes to its end.
    fn give_up(&mut self, now_us: u64) -> bool {
        let Some(busy) = self.busy else { return true };
        self.driver.release();
        if let UnderWay::Word(since_us) = busy.under_way
            && let Ok(None) = self.receive(since_us, now_us)
        {
            return false;
        }
        self.busy = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_hal_nb::spi::ErrorType;
    use std::{vec, vec::Vec};

    /// A chip that answers each word with the one before, inverted; a word takes so many looks, or for ever.
    #[derive(Default)]
    struct Driver {
        selected: Option<Device>,
        selections: u32,
        looks: usize,
        hangs: bool,
        fails: Option<ErrorKind>,
        under_way: Option<(u8, usize)>,
        last: u8,
        sent: Vec<u8>,
    }

    impl Lines for Driver {
        fn select(&mut self, device: Device) -> bool {
            assert!(self.selected.is_none(), "two chips at once");
            self.under_way = None;
            self.selected = Some(device).filter(|device| device.chip_select < 2);
            self.selections += u32::from(self.selected.is_some());
            self.selected.is_some()
        }

        fn release(&mut self) {
            self.selected = None;
            self.last = 0;
        }
    }

    impl ErrorType for Driver {
        type Error = ErrorKind;
    }

    impl FullDuplex<u8> for Driver {
        fn read(&mut self) -> nb::Result<u8, ErrorKind> {
            if let Some(error) = self.fails {
                return Err(nb::Error::Other(error));
            }
            let (word, looks) = self.under_way.take().ok_or(nb::Error::WouldBlock)?;
            if self.hangs || looks < self.looks {
                self.under_way = Some((word, looks + 1));
                return Err(nb::Error::WouldBlock);
            }
            // One that was let go of has not heard it.
            let heard = if self.selected.is_some() { word } else { 0 };
            Ok(!core::mem::replace(&mut self.last, heard))
        }

        fn write(&mut self, word: u8) -> nb::Result<(), ErrorKind> {
            assert!(self.selected.is_some() && self.under_way.is_none());
            self.sent.push(word);
            self.under_way = Some((word, 0));
            Ok(())
        }
    }

    fn chip(chip_select: u8) -> Transfer {
        Transfer::new(Target::Spi(Device { chip_select, mode: 0, clock_khz: 1_000 }))
    }

    fn run(words: &mut Words<Driver>, transfer: &mut Transfer) -> Result<(), Error> {
        for now_us in (0..1_000_000).step_by(10) {
            if let Progress::Done(done) = words.step(transfer, now_us) {
                return done;
            }
        }
        panic!("it is never over");
    }

    #[test]
    fn operations_follow_each_other_while_the_chip_is_selected() {
        for looks in 0..3 {
            let mut words = Words::new(Driver { looks, ..Driver::default() });
            let mut transfer = chip(1);
            transfer.push(Direction::Write, 2).unwrap().copy_from_slice(&[0x11, 0x22]);
            transfer.push(Direction::Read, 2).unwrap();
            transfer.push(Direction::Write, 0).unwrap();
            transfer.push(Direction::Exchange, 2).unwrap().copy_from_slice(&[0x33, 0x44]);
            assert_eq!(run(&mut words, &mut transfer), Ok(()));
            assert_eq!(words.driver.sent, [0x11, 0x22, 0, 0, 0x33, 0x44]);
            assert_eq!(transfer.bytes(), [0x11, 0x22, 0xdd, 0xff, 0xff, 0xcc], "what is written stays");
            assert_eq!((words.driver.selections, words.driver.selected), (1, None));
        }
    }

    #[test]
    fn a_pause_holds_the_chip_and_takes_its_time() {
        let mut words = Words::new(Driver::default());
        let mut transfer = chip(0);
        transfer.pause(50).unwrap();
        transfer.push(Direction::Write, 1).unwrap()[0] = 7;
        assert_eq!(words.step(&mut transfer, 100), Progress::Waiting);
        assert_eq!((words.step(&mut transfer, 149), words.driver.sent.len()), (Progress::Waiting, 0));
        assert!(words.driver.selected.is_some());
        assert_eq!((words.step(&mut transfer, 150), &*words.driver.sent), (Progress::Working, &[7][..]));
        assert_eq!(words.step(&mut transfer, 150), Progress::Done(Ok(())));
    }

    #[test]
    fn what_is_not_there_and_what_fails_is_told_and_no_chip_stays_selected() {
        let mut words = Words::new(Driver::default());
        assert_eq!(run(&mut words, &mut chip(2)), Err(Error::NoBus));
        let mut elsewhere = Transfer::new(crate::i2c::Address::new(0x48).unwrap());
        assert_eq!(run(&mut words, &mut elsewhere), Err(Error::NoBus));
        for (fails, error) in [(ErrorKind::Overrun, Error::Overrun), (ErrorKind::ModeFault, Error::Bus)] {
            words.driver.fails = Some(fails);
            let mut transfer = chip(0);
            transfer.push(Direction::Read, 2).unwrap();
            assert_eq!((run(&mut words, &mut transfer), words.driver.selected), (Err(error), None));
        }
    }

    #[test]
    fn a_word_that_never_ends_is_a_timeout_and_the_next_transfer_begins_anew() {
        let mut words = Words::new(Driver { hangs: true, ..Driver::default() });
        let mut transfer = chip(0);
        transfer.push(Direction::Exchange, 1).unwrap();
        assert_eq!(words.step(&mut transfer, 0), Progress::Working);
        assert_eq!(words.step(&mut transfer, WORD_US_MAX), Progress::Waiting);
        assert_eq!(words.step(&mut transfer, WORD_US_MAX + 1), Progress::Done(Err(Error::Timeout)));
        assert!(words.driver.selected.is_none());
        words.driver.hangs = false;
        assert_eq!(run(&mut words, &mut transfer), Ok(()));
    }

    #[test]
    fn one_that_creeps_ends_as_a_whole() {
        let mut words = Words::new(Driver { looks: 1, ..Driver::default() });
        let mut transfer = chip(0);
        transfer.push(Direction::Read, 256).unwrap();
        let mut now_us = 0;
        let done = loop {
            match words.step(&mut transfer, now_us) {
                Progress::Working | Progress::Waiting => now_us += WORD_US_MAX / 2,
                Progress::Done(done) => break done,
            }
        };
        assert_eq!(done, Err(Error::Timeout));
        assert!(now_us <= TRANSFER_US_MAX + WORD_US_MAX);
    }

    #[test]
    fn one_that_is_given_up_anywhere_leaves_nothing_to_the_next() {
        for steps in 0..8 {
            let mut words = Words::new(Driver { looks: 1, ..Driver::default() });
            let mut transfer = chip(0);
            transfer.push(Direction::Write, 2).unwrap().fill(0xee);
            transfer.pause(1).unwrap();
            transfer.push(Direction::Read, 1).unwrap();
            if (0..steps).any(|_| matches!(words.step(&mut transfer, 0), Progress::Done(_))) {
                continue;
            }
            let gives_up: Vec<bool> = (0..3).map(|_| words.give_up(0)).collect();
            assert!(
                words.driver.selected.is_none() && gives_up.ends_with(&[true]),
                "after {steps}: {gives_up:?}"
            );
            let mut next = chip(1);
            next.push(Direction::Exchange, 1).unwrap()[0] = 5;
            assert_eq!((run(&mut words, &mut next), next.bytes()), (Ok(()), &[0xff][..]));
        }
        // A word that never ends is left.
        let mut words = Words::new(Driver { hangs: true, ..Driver::default() });
        let mut transfer = chip(0);
        transfer.push(Direction::Write, 1).unwrap();
        words.step(&mut transfer, 0);
        assert_eq!(vec![words.give_up(WORD_US_MAX), words.give_up(WORD_US_MAX + 1)], [false, true]);
    }
}
