use core::fmt::{self, Write};

use crate::imports;

/// Bytes of a line that a device takes in one piece.
const LINE_BYTES_MAX: usize = 256;

/// A line under way, handed over when it is full or dropped.
struct Line {
    bytes: [u8; LINE_BYTES_MAX],
    length: usize,
}

impl Line {
    fn hand_over(&mut self) {
        log_bytes(self.bytes.get(..self.length).unwrap_or_default());
        self.length = 0;
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.length == LINE_BYTES_MAX {
                self.hand_over();
            }
            if let Some(slot) = self.bytes.get_mut(self.length) {
                *slot = byte;
                self.length += 1;
            }
        }
        Ok(())
    }
}

/// What [`log!`](crate::log) does.
pub fn log_arguments(arguments: fmt::Arguments<'_>) {
    // A text without arguments needs no buffer; often the compiler then leaves out all of the formatting.
    if let Some(text) = arguments.as_str() {
        for piece in text.as_bytes().chunks(LINE_BYTES_MAX) {
            log_bytes(piece);
        }
        return;
    }
    let mut line = Line { bytes: [0; LINE_BYTES_MAX], length: 0 };
    // A `Display` that fails ends the line early: there is nobody to tell.
    let _ = line.write_fmt(arguments);
    line.hand_over();
}

pub(crate) fn log_bytes(text: &[u8]) {
    // SAFETY: pointer and length are those of a slice, which the host only reads during the call.
    unsafe { imports::log(text.as_ptr(), text.len()) }
}
