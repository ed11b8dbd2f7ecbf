//! Takes part in a dialogue over `uart0`: logs each line that comes and answers how many bytes it had. Needs the capability `uart`,
//! and that UART.
#![no_std]
#![no_main]

use core::time::Duration;

use embedded_io::{Read, Write};
use wasmbed_guest::{
    entry, log,
    uart::{Error, Port},
    wait,
};

entry!(main);

/// A line that is longer ends there.
const LINE_BYTES_MAX: usize = 64;
const PAUSE: Duration = Duration::from_secs(1);
/// Says now and then that it is there.
const SILENCE: Duration = Duration::from_secs(10);

fn main() {
    let mut port = Port::new(0).with_timeout(SILENCE);
    let mut line = [0; LINE_BYTES_MAX];
    loop {
        let told = match read_line(&mut port, &mut line) {
            Ok(text) => {
                log!("{}", text.escape_ascii());
                writeln!(port, "{}\r", text.len()).map_err(|_| Error::Failed)
            }
            Err(Error::Timeout) => port.write_all(b"ready\r\n"),
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            log!("uart: {error}");
            wait(PAUSE);
        }
    }
}

/// Any reader's next line, without its end.
fn read_line<'a, R: Read>(reader: &mut R, line: &'a mut [u8]) -> Result<&'a [u8], R::Error> {
    let mut length = 0;
    while length < line.len() {
        let mut byte = [0];
        reader.read(&mut byte)?;
        match byte {
            [b'\n'] => break,
            [b'\r'] => {}
            [byte] => {
                line[length] = byte;
                length += 1;
            }
        }
    }
    Ok(&line[..length])
}
