//! A microcontroller as the supervisor's board.

use core::marker::PhantomData;

use wasmbed_flash::FlashStorage;
use wasmbed_supervisor::platform::{Platform, Timer, Watchdog};

use crate::{Hardware, console::Console, identity::BoardIdentity, link::BoardLink, random::BoardEntropy};

/// Everything that the supervisor moves.
pub(crate) struct BoardPlatform<H: Hardware> {
    pub(crate) link: BoardLink<H>,
    pub(crate) storage: FlashStorage<H::Flash>,
    pub(crate) watchdog: BoardWatchdog<H>,
    pub(crate) entropy: BoardEntropy,
    pub(crate) peripherals: H::Peripherals,
    pub(crate) log: Console<H>,
    pub(crate) timer: BoardTimer<H>,
}

/// The board's watchdog.
pub(crate) struct BoardWatchdog<H>(pub(crate) PhantomData<H>);

impl<H: Hardware> Watchdog for BoardWatchdog<H> {
    fn feed(&mut self) {
        H::feed_watchdog();
    }
}

/// The board's clock.
pub(crate) struct BoardTimer<H>(pub(crate) PhantomData<H>);

impl<H: Hardware> Timer for BoardTimer<H> {
    fn now_us(&mut self) -> u64 {
        H::now_us()
    }
}

impl<H: Hardware> Platform for BoardPlatform<H> {
    type Link = BoardLink<H>;
    type Storage = FlashStorage<H::Flash>;
    type Watchdog = BoardWatchdog<H>;
    type Entropy = BoardEntropy;
    type Identity = BoardIdentity;
    type Peripherals = H::Peripherals;
    type LogSink = Console<H>;
    type Timer = BoardTimer<H>;

    fn link(&mut self) -> &mut BoardLink<H> {
        &mut self.link
    }

    fn storage(&mut self) -> &mut FlashStorage<H::Flash> {
        &mut self.storage
    }

    fn watchdog(&mut self) -> &mut BoardWatchdog<H> {
        &mut self.watchdog
    }

    fn entropy(&mut self) -> &mut BoardEntropy {
        &mut self.entropy
    }

    fn identity(&mut self) -> &mut BoardIdentity {
        self.link.identity()
    }

    fn peripherals(&mut self) -> &mut H::Peripherals {
        &mut self.peripherals
    }

    fn log(&mut self) -> &mut Console<H> {
        &mut self.log
    }

    fn timer(&mut self) -> &mut BoardTimer<H> {
        &mut self.timer
    }
}
