//! What applications reach of a device's buses, of all kinds, and of its pins.

use alloc::vec::Vec;

use wasmbed_protocol::{ApplicationUid, PeripheralKind, Spec};
use wasmbed_runtime::{AppId, Completion, Peripherals, peripherals::bus};

use crate::{
    pins::{self, Pins},
    platform::Board,
    transfers::{self, Stepped, Transfers},
    uart::{self, Answered, Uart},
};

/// What an assignment grants.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    transfers: Vec<transfers::Grant>,
    uart: Vec<uart::Grant>,
    gpio: Vec<pins::Grant>,
}

impl Grants {
    pub(crate) fn of(spec: &Spec<'_>) -> Self {
        let i2c = spec.i2c.iter().filter_map(|grant| transfers::Grant::i2c(&grant));
        let spi = spec.spi.iter().filter_map(|grant| transfers::Grant::spi(&grant));
        Self {
            transfers: i2c.chain(spi).collect(),
            uart: spec.uart.iter().filter_map(|grant| uart::Grant::new(&grant)).collect(),
            gpio: spec.gpio.iter().filter_map(|grant| pins::Grant::new(&grant)).collect(),
        }
    }
}

/// What the assignment grants and this device doesn't have: what it is, and its name.
pub(crate) fn absent<'a>(spec: &Spec<'a>, board: &Board) -> Option<(&'static str, &'a str)> {
    let is_there =
        |kind, name: &str| board.peripherals.iter().any(|known| known.name == name && known.kind == kind);
    let i2c = spec.i2c.iter().map(|grant| (PeripheralKind::I2c, "I2C bus", grant.name));
    let spi = spec.spi.iter().map(|grant| (PeripheralKind::Spi, "SPI chip select", grant.name));
    let uart = spec.uart.iter().map(|grant| (PeripheralKind::Uart, "UART", grant.name));
    let gpio = spec.gpio.iter().map(|grant| (PeripheralKind::Gpio, "pin", grant.name));
    let mut granted = i2c.chain(spi).chain(uart).chain(gpio);
    granted.find(|(kind, _, name)| !is_there(*kind, name)).map(|(_, what, name)| (what, name))
}

/// What came of a call.
#[derive(Debug)]
pub(crate) enum Finished {
    Transfer(Result<bus::Transfer, bus::Error>),
    Uart(Answered),
}

impl Finished {
    pub(crate) fn completion(&self) -> Completion<'_> {
        match self {
            Self::Transfer(Ok(transfer)) => Completion::Transferred(Ok(transfer.bytes())),
            Self::Transfer(Err(error)) => Completion::Transferred(Err(*error)),
            Self::Uart(Answered::Received(received)) => {
                Completion::Received(received.as_deref().map_err(|error| *error))
            }
            Self::Uart(Answered::Sent(sent)) => Completion::Sent(*sent),
        }
    }
}

/// How far a step came.
#[derive(Debug)]
pub(crate) enum Moved {
    /// Nothing is to be done at once.
    Idle,
    /// There is more to do at once.
    Working,
    /// Devices hold their clocks, and there is nothing else to do.
    Waiting,
    /// A call is over.
    Done(AppId, Finished),
}

/// All buses and pins of a device.
#[derive(Debug, Default)]
pub(crate) struct Buses {
    pub(crate) transfers: Transfers,
    pub(crate) uart: Uart,
    pub(crate) pins: Pins,
}

impl Buses {
    /// An application runs, and may do this.
    pub(crate) fn grant(&mut self, uid: ApplicationUid, grants: Grants) {
        self.transfers.grant(uid, grants.transfers);
        self.uart.grant(uid, grants.uart);
        self.pins.grant(uid, grants.gpio);
    }

    /// The application runs no more.
    pub(crate) fn forget(&mut self, uid: ApplicationUid) {
        self.transfers.forget(uid);
        self.uart.forget(uid);
        self.pins.forget(uid);
    }

    /// Moves everything on by a step.
    pub(crate) fn step(&mut self, peripherals: &mut impl Peripherals, now_us: u64) -> Moved {
        if let Some((id, answered)) = self.uart.step(peripherals, now_us) {
            return Moved::Done(id, Finished::Uart(answered));
        }
        match self.transfers.step(peripherals, now_us) {
            Stepped::Idle => Moved::Idle,
            Stepped::Working => Moved::Working,
            Stepped::Waiting => Moved::Waiting,
            Stepped::Done(id, transferred) => Moved::Done(id, Finished::Transfer(transferred)),
        }
    }

    /// When there is something to do, on the clock of [`Buses::step`].
    pub(crate) fn due_us(&self) -> Option<u64> {
        self.transfers.due_us().into_iter().chain(self.uart.due_us()).chain(self.pins.due_us()).min()
    }
}
