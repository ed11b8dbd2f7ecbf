//! The board's random generator: ChaCha20, from a seed that no earlier start had.

use alloc::boxed::Box;

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{RngCore, SeedableRng},
};
use spin::Mutex;
use wasmbed_supervisor::platform::Entropy;
use wasmbed_tls::RandomSource;

/// The generator. Nobody but TLS and the supervisor asks it, in turn.
pub(crate) struct Random(Mutex<ChaCha20Rng>);

impl Random {
    /// Lives as long as the board runs.
    pub(crate) fn start(seed: [u8; 32]) -> &'static Self {
        Box::leak(Box::new(Self(Mutex::new(ChaCha20Rng::from_seed(seed)))))
    }

    pub(crate) fn next_u64(&self) -> u64 {
        self.0.lock().next_u64()
    }
}

impl RandomSource for Random {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.lock().fill_bytes(buffer);
    }
}

/// The supervisor's share of it.
pub(crate) struct BoardEntropy(pub(crate) &'static Random);

impl Entropy for BoardEntropy {
    fn fill(&mut self, buffer: &mut [u8]) {
        self.0.0.lock().fill_bytes(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_seed_gives_other_bytes() {
        let (one, other) = (Random::start([1; 32]), Random::start([2; 32]));
        assert_ne!(one.next_u64(), other.next_u64());
        let (mut first, mut second) = ([0; 16], [0; 16]);
        RandomSource::fill(one, &mut first);
        BoardEntropy(one).fill(&mut second);
        assert_ne!(first, second);
    }
}
