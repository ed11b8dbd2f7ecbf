//! A panic is logged with its place and ends the application with a trap, which the device reports.

use core::panic::PanicInfo;

use crate::line::log_arguments;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // Not the message: formatting it would bring 2 to 3 kB of code into most modules.
    log_arguments(format_args!("panicked"));
    if let Some(location) = info.location() {
        crate::line::log_bytes(location.file().as_bytes());
        log_number(location.line());
    }
    core::arch::wasm32::unreachable()
}

fn log_number(mut number: u32) {
    /// Decimal digits of `u32::MAX`.
    const DIGITS_MAX: usize = 10;
    let mut digits = [b'0'; DIGITS_MAX];
    let mut first = DIGITS_MAX;
    for (position, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        first = position;
        if number == 0 {
            break;
        }
    }
    crate::line::log_bytes(digits.get(first..).unwrap_or_default());
}
