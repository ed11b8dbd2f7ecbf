//! A Linux process as the supervisor's board.

use std::{sync::Arc, time::Instant};

use rustls::crypto::CryptoProvider;
use wasmbed_supervisor::platform::{Entropy, Platform, Timer};

use crate::{
    identity::HostIdentity, link::TlsLink, log::DeviceLog, peripherals::HostPeripherals,
    storage::DeviceStorage, watchdog::LoopWatchdog,
};

/// Everything that one device has.
pub(crate) struct LinuxPlatform {
    pub(crate) link: TlsLink,
    pub(crate) storage: DeviceStorage,
    pub(crate) watchdog: LoopWatchdog,
    pub(crate) entropy: HostEntropy,
    pub(crate) identity: HostIdentity,
    pub(crate) peripherals: HostPeripherals,
    pub(crate) log: DeviceLog,
    pub(crate) timer: WallTimer,
}

/// The kernel's random source.
pub(crate) struct HostEntropy(pub(crate) Arc<CryptoProvider>);

impl Entropy for HostEntropy {
    fn fill(&mut self, buffer: &mut [u8]) {
        // getrandom(2) fails only where the kernel has no random source at all; nothing safe can be done then.
        if self.0.secure_random.fill(buffer).is_err() {
            tracing::error!("the host has no random source");
            std::process::abort();
        }
    }
}

/// The monotonic clock.
pub(crate) struct WallTimer(pub(crate) Instant);

impl Timer for WallTimer {
    fn now_us(&mut self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Platform for LinuxPlatform {
    type Link = TlsLink;
    type Storage = DeviceStorage;
    type Watchdog = LoopWatchdog;
    type Entropy = HostEntropy;
    type Identity = HostIdentity;
    type Peripherals = HostPeripherals;
    type LogSink = DeviceLog;
    type Timer = WallTimer;

    fn link(&mut self) -> &mut TlsLink {
        &mut self.link
    }

    fn storage(&mut self) -> &mut DeviceStorage {
        &mut self.storage
    }

    fn watchdog(&mut self) -> &mut LoopWatchdog {
        &mut self.watchdog
    }

    fn entropy(&mut self) -> &mut HostEntropy {
        &mut self.entropy
    }

    fn identity(&mut self) -> &mut HostIdentity {
        &mut self.identity
    }

    fn peripherals(&mut self) -> &mut HostPeripherals {
        &mut self.peripherals
    }

    fn log(&mut self) -> &mut DeviceLog {
        &mut self.log
    }

    fn timer(&mut self) -> &mut WallTimer {
        &mut self.timer
    }
}
