//! The console: USART3, which the debugger on the board passes on over USB, 115,200 baud, sending only.

use stm32h7xx_hal::{
    gpio::{Alternate, PD8, PD9},
    pac::USART3,
    prelude::*,
    rcc::{CoreClocks, rec},
};

/// Switches it on. Without a serial port there is no console, and nothing to say so with.
pub fn start(
    port: USART3,
    pins: (PD8<Alternate<7>>, PD9<Alternate<7>>),
    peripheral: rec::Usart3,
    clocks: &CoreClocks,
) {
    // The port stays on when the value that configured it is gone.
    let _ = port.serial(pins, 115_200.bps(), peripheral, clocks);
}

/// Sends bytes and waits for each: a byte takes 87 µs, and whoever reads them sees the last words before a reset.
pub fn write(bytes: &[u8]) {
    // SAFETY: the processor has the port there, and nobody else uses it after `start`.
    let port = unsafe { &*USART3::ptr() };
    for byte in bytes {
        while port.isr.read().txe().bit_is_clear() {}
        port.tdr.write(|bits| bits.tdr().bits(u16::from(*byte)));
    }
    while !bytes.is_empty() && port.isr.read().tc().bit_is_clear() {}
}
