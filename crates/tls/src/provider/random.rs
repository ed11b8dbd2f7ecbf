//! Randomness.

use core::fmt;

use rustls::crypto::{GetRandomFailed, SecureRandom};

/// A board's entropy. What it fills is used for keys: it must not be guessable, and must not repeat after a reset.
pub trait RandomSource: Send + Sync {
    /// Overwrites the whole buffer with random bytes.
    fn fill(&self, buffer: &mut [u8]);
}

/// The board's entropy, as rustls asks for it.
pub struct Random(pub &'static dyn RandomSource);

impl SecureRandom for Random {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        self.0.fill(buffer);
        Ok(())
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}
