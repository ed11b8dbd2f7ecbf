//! Drivers with the traits of `embedded-hal-nb` 1.0.

use embedded_hal_nb::{
    nb,
    serial::{ErrorKind, Read, Write},
};

use super::port::{Error, Port};

/// What the traits of `embedded-hal-nb` leave to each driver.
pub trait Line {
    /// Begins anew with so many bits per second, both buffers empty; false if it can't.
    fn start(&mut self, baud: u32) -> bool;

    /// Stops.
    fn stop(&mut self);
}

/// A UART over a driver that gives and takes single bytes.
#[derive(Debug)]
pub struct Serial<T> {
    driver: T,
    /// What is wrong after the bytes that were read last.
    pending: Option<Error>,
}

impl<T> Serial<T> {
    /// The UART of a driver.
    pub const fn new(driver: T) -> Self {
        Self { driver, pending: None }
    }
}

fn error_of(error: &impl embedded_hal_nb::serial::Error) -> Error {
    match error.kind() {
        ErrorKind::Overrun => Error::Overrun,
        ErrorKind::FrameFormat | ErrorKind::Parity | ErrorKind::Noise => Error::Garbled,
        _ => Error::Failed,
    }
}

impl<T: Line + Read<u8> + Write<u8>> Port for Serial<T> {
    fn open(&mut self, baud: u32) -> Result<(), Error> {
        self.pending = None;
        if self.driver.start(baud) { Ok(()) } else { Err(Error::Failed) }
    }

    fn close(&mut self) {
        self.driver.stop();
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        if let Some(error) = self.pending.take() {
            return Err(error);
        }
        let mut count = 0;
        for place in buffer {
            match self.driver.read() {
                Ok(byte) => *place = byte,
                Err(nb::Error::WouldBlock) => break,
                Err(nb::Error::Other(error)) if count == 0 => return Err(error_of(&error)),
                Err(nb::Error::Other(error)) => {
                    self.pending = Some(error_of(&error));
                    break;
                }
            }
            count += 1;
        }
        Ok(count)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        for (count, byte) in bytes.iter().enumerate() {
            match self.driver.write(*byte) {
                Ok(()) => {}
                Err(nb::Error::WouldBlock) => return Ok(count),
                Err(nb::Error::Other(error)) if count == 0 => return Err(error_of(&error)),
                // It is told with the byte that did not go.
                Err(nb::Error::Other(_)) => return Ok(count),
            }
        }
        Ok(bytes.len())
    }

    fn is_sent(&mut self) -> Result<bool, Error> {
        match self.driver.flush() {
            Ok(()) => Ok(true),
            Err(nb::Error::WouldBlock) => Ok(false),
            Err(nb::Error::Other(error)) => Err(error_of(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_hal_nb::serial::ErrorType;
    use std::{collections::VecDeque, vec::Vec};

    /// What comes is what a test put there; two bytes can be on their way out.
    #[derive(Default)]
    struct Driver {
        comes: VecDeque<Result<u8, ErrorKind>>,
        goes: VecDeque<u8>,
        broken: bool,
    }

    impl ErrorType for Driver {
        type Error = ErrorKind;
    }

    impl Read<u8> for Driver {
        fn read(&mut self) -> nb::Result<u8, ErrorKind> {
            self.comes.pop_front().ok_or(nb::Error::WouldBlock)?.map_err(nb::Error::Other)
        }
    }

    impl Write<u8> for Driver {
        fn write(&mut self, byte: u8) -> nb::Result<(), ErrorKind> {
            if self.broken {
                return Err(nb::Error::Other(ErrorKind::Other));
            }
            if self.goes.len() == 2 {
                return Err(nb::Error::WouldBlock);
            }
            self.goes.push_back(byte);
            Ok(())
        }

        fn flush(&mut self) -> nb::Result<(), ErrorKind> {
            if self.goes.is_empty() { Ok(()) } else { Err(nb::Error::WouldBlock) }
        }
    }

    impl Line for Driver {
        fn start(&mut self, baud: u32) -> bool {
            self.comes.clear();
            self.goes.clear();
            baud <= 115_200
        }

        fn stop(&mut self) {}
    }

    #[test]
    fn where_bytes_were_lost_stands_between_those_before_and_those_after() {
        let mut port = Serial::new(Driver::default());
        assert_eq!((port.open(230_400), port.open(9_600)), (Err(Error::Failed), Ok(())));
        let came =
            [Ok(1), Ok(2), Err(ErrorKind::Overrun), Err(ErrorKind::Parity), Ok(3), Err(ErrorKind::Other)];
        port.driver.comes.extend(came);
        let mut buffer = [0; 4];
        assert_eq!(port.receive(&mut buffer[..1]), Ok(1));
        assert_eq!((port.receive(&mut buffer), buffer), (Ok(1), [2, 0, 0, 0]));
        assert_eq!(port.receive(&mut buffer), Err(Error::Overrun));
        assert_eq!(port.receive(&mut buffer), Err(Error::Garbled));
        assert_eq!((port.receive(&mut buffer), buffer[0]), (Ok(1), 3));
        assert_eq!(port.receive(&mut buffer), Err(Error::Failed));
        assert_eq!(port.receive(&mut buffer), Ok(0));
        // A new owner hears nothing of what came before it.
        port.driver.comes.extend([Ok(1), Err(ErrorKind::Overrun)]);
        assert_eq!((port.receive(&mut buffer), port.open(9_600)), (Ok(1), Ok(())));
        assert_eq!(port.receive(&mut buffer), Ok(0));
    }

    #[test]
    fn bytes_go_as_far_as_there_is_room() {
        let mut port = Serial::new(Driver::default());
        assert_eq!((port.send(b"abc"), port.is_sent()), (Ok(2), Ok(false)));
        assert_eq!(port.send(b"c"), Ok(0));
        assert_eq!(port.driver.goes.drain(..).collect::<Vec<_>>(), b"ab");
        assert_eq!((port.send(b"c"), port.send(b""), port.is_sent()), (Ok(1), Ok(0), Ok(false)));
        port.driver.goes.clear();
        assert_eq!(port.is_sent(), Ok(true));
        port.driver.broken = true;
        assert_eq!(port.send(b"d"), Err(Error::Failed));
    }
}
