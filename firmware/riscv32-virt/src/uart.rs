//! The console: a 16550 at `0x1000_0000`, sending only.

/// Transmitter holding register.
const DATA: *mut u8 = 0x1000_0000 as *mut u8;
/// Line status register.
const STATUS: *const u8 = 0x1000_0005 as *const u8;
const STATUS_EMPTY: u8 = 1 << 5;

/// Sends bytes and waits for each.
pub fn write(bytes: &[u8]) {
    for byte in bytes {
        // SAFETY: the machine has the register there, and reading it changes nothing that is looked at.
        while unsafe { STATUS.read_volatile() } & STATUS_EMPTY == 0 {}
        // SAFETY: the machine has the register there.
        unsafe { DATA.write_volatile(*byte) };
    }
}
