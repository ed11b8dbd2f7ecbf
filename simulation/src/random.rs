//! Noise: all of it follows from one seed, and each place has its own, so that what happens in one does not change what another meets.

use wasmbed_supervisor::memory::SeededEntropy;

/// Numbers that follow from the seed and the place.
#[derive(Clone, Debug)]
pub(crate) struct Random(SeededEntropy);

impl Random {
    pub(crate) fn of(seed: u64, place: &str) -> Self {
        // FNV-1a.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let place = place.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
        let mut of_seed = SeededEntropy(seed);
        Self(SeededEntropy(of_seed.next_u64() ^ place))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub(crate) fn bytes(&mut self) -> [u8; 16] {
        let (first, second) = (u128::from(self.next()), u128::from(self.next()));
        (first << 64 | second).to_le_bytes()
    }

    /// Below `bound`, which is at least 1.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True in so many thousandths of the cases. Another chance leaves the numbers that follow as they are.
    pub(crate) fn strikes(&mut self, permille: u16) -> bool {
        self.below(1_000) < u64::from(permille)
    }
}
