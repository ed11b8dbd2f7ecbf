//! Who is talked to.

/// A chip behind a chip select of a bus, and how it wants to be talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Which line selects it.
    pub chip_select: u8,
    /// 0 to 3: the clock's polarity times two, and its phase.
    pub mode: u8,
    /// The clock at most, thousands each second.
    pub clock_khz: u32,
}
