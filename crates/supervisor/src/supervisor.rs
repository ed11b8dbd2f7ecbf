//! The loop itself.

use alloc::string::String;
use core::marker::PhantomData;

use wasmbed_runtime::engine::Engine;

use crate::platform::{Board, Platform};

/// What a supervisor is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the board is.
    pub board: Board,
    /// Bytes of the applications' arena.
    pub arena_bytes: usize,
}

/// One device: agent, runtime and board in one loop.
pub struct Supervisor<E: Engine, P: Platform> {
    platform: P,
    config: Config,
    engine: PhantomData<E>,
}

impl<E: Engine, P: Platform> Supervisor<E, P> {
    /// A device that has just started. Nothing happens before the first [`Supervisor::poll`].
    pub fn new(config: Config, platform: P, now_ms: u64) -> Self {
        let _ = now_ms;
        Self { platform, config, engine: PhantomData }
    }

    /// Moves everything on by one round and answers the time, on the same clock, at which to call again if nothing happens
    /// before: a link that can be read or written, or a storage operation that is done, is a reason to call at once. The
    /// answer is `now_ms` when there is more to do right away.
    pub fn poll(&mut self, now_ms: u64) -> u64 {
        now_ms
    }

    /// The board.
    pub fn platform(&mut self) -> &mut P {
        &mut self.platform
    }

    /// Takes the board back, as a loss of power does.
    pub fn into_platform(self) -> P {
        self.platform
    }

    /// For people: what the device is doing.
    pub fn describe(&self) -> String {
        String::from(self.config.board.board.as_str())
    }
}
