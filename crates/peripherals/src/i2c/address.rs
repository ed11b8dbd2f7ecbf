//! Who is talked to.

/// A 7-bit address that a device may have: those below 0x08 and above 0x77 are reserved (UM10204, section 3.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(u8);

impl Address {
    /// The lowest one.
    pub const MIN: u8 = 0x08;
    /// The highest one.
    pub const MAX: u8 = 0x77;

    /// The address of this number, if a device may have it.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        u8::try_from(number).ok().filter(|number| (Self::MIN..=Self::MAX).contains(number)).map(Self)
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_addresses_are_none() {
        assert_eq!([0, 7, 0x78, 0x80, 0x148].map(Address::new), [None; 5]);
        assert!([0x08, 0x48, 0x77].iter().all(|number| Address::new(*number).is_some()));
    }
}
