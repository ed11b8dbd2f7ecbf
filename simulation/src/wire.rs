//! A gateway's end of a device's connection, and what fails on it: it ends, falls silent, or is slow.

use std::collections::VecDeque;

use wasmbed_supervisor::memory::MemoryLink;

/// Bytes that a connection takes before the sender waits: a socket's buffer.
pub(crate) const SOCKET_BYTES: usize = 16_384;

pub(crate) struct Wire {
    link: MemoryLink,
    /// Which of the link's connections this is: the device may have made another since.
    attempt: u32,
    /// The peer is gone and nobody was told.
    silent: bool,
    /// Nothing passes before this.
    passes_at_ms: u64,
    /// What was sent and has not passed.
    held: VecDeque<u8>,
}

impl Wire {
    /// Takes the device's connection; none if it wants none.
    pub(crate) fn accept(link: &MemoryLink) -> Option<Self> {
        let attempt = link.accept().then(|| {
            link.with(|channel| {
                channel.capacity_bytes = Some(SOCKET_BYTES);
                channel.attempts
            })
        })?;
        Some(Self { link: link.clone(), attempt, silent: false, passes_at_ms: 0, held: VecDeque::new() })
    }

    /// Whether it is the device's connection still.
    pub(crate) fn stands(&self) -> bool {
        self.link.with(|channel| channel.up && channel.attempts == self.attempt)
    }

    /// Whether what is sent arrives, now or later.
    pub(crate) fn carries(&self) -> bool {
        !self.silent && self.stands()
    }

    /// Whether the gateway is told that it ended.
    pub(crate) fn is_seen_to_end(&self) -> bool {
        !self.silent && !self.stands()
    }

    pub(crate) fn cut(&self) {
        if self.stands() {
            self.link.cut();
        }
    }

    /// Ends it in order: what was sent before can still be read.
    pub(crate) fn close(&mut self) {
        self.pass(u64::MAX);
        if !self.silent {
            self.cut();
        }
    }

    /// From now on nothing arrives in either direction, and nobody is told.
    pub(crate) fn silence(&mut self) {
        self.silent = true;
        self.held.clear();
        self.link.with(|channel| {
            channel.to_device.clear();
            channel.to_gateway.clear();
        });
    }

    /// Nothing passes until then; nothing is lost.
    pub(crate) fn delay(&mut self, until_ms: u64) {
        self.passes_at_ms = self.passes_at_ms.max(until_ms);
    }

    /// Whether frames pass at once.
    pub(crate) fn is_prompt(&self, now_ms: u64) -> bool {
        self.carries() && now_ms >= self.passes_at_ms
    }

    /// When what is held passes; never if nothing is.
    pub(crate) fn due_ms(&self, now_ms: u64) -> u64 {
        if now_ms < self.passes_at_ms { self.passes_at_ms } else { u64::MAX }
    }

    /// What came since.
    pub(crate) fn receive(&mut self, now_ms: u64) -> Vec<u8> {
        if self.silent || now_ms < self.passes_at_ms {
            return Vec::new();
        }
        self.link.with(|channel| channel.to_gateway.drain(..).collect())
    }

    /// Whether it takes more now. What is lost is taken.
    pub(crate) fn has_room(&self) -> bool {
        !self.carries() || self.link.with(|channel| channel.to_device.len()) + self.held.len() < SOCKET_BYTES
    }

    /// Sends, in order behind what is held.
    pub(crate) fn send(&mut self, now_ms: u64, bytes: &[u8]) {
        if self.carries() {
            self.held.extend(bytes);
            self.pass(now_ms);
        }
    }

    /// Lets through what was held long enough.
    pub(crate) fn pass(&mut self, now_ms: u64) {
        if now_ms >= self.passes_at_ms && self.carries() {
            let held = self.held.drain(..);
            self.link.with(|channel| channel.to_device.extend(held));
        }
    }
}
