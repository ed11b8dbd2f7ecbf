//! What FPGA images put at different places.

use wasmbed_board::data::Board;

/// An FPGA image: a processor with Arm's CMSDK peripherals and a LAN9118 around it.
///
/// # Safety
/// Each address is that of the peripheral, and the data flash of the board's file is memory that nothing else uses.
pub unsafe trait Image: 'static {
    /// What the board's file says.
    const BOARD: &'static Board;
    /// The clock of the processor and of its peripherals.
    const CLOCK_HZ: u32;
    /// CMSDK dual timer.
    const TIMER: usize;
    /// CMSDK APB UART 0.
    const UART: usize;
    /// CMSDK APB watchdog.
    const WATCHDOG: usize;
    /// Lights and buttons.
    const FPGA_IO: usize;
    /// SBCon of each I2C bus that the board's file names, by number.
    const I2C: [usize; 2];
    /// PL022 of each SPI bus that the board's file names, by number.
    const SPI: [usize; 2];
    /// CMSDK APB UART of each UART that the board's file names, by number, and its interrupts, of receiving and of sending.
    const UARTS: [(usize, [u16; 2]); 2];
    /// SMSC LAN9118.
    const ETHERNET: usize;
    /// Its interrupt.
    const ETHERNET_INTERRUPT: u16;
}
