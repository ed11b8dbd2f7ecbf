//! Says hello, and then every ten seconds that it is still there.
#![no_std]
#![no_main]

use core::time::Duration;

use wasmbed_guest::{entry, log, uptime, wait};

entry!(main);

const PAUSE: Duration = Duration::from_secs(10);

fn main() {
    log!("hello from a WebAssembly module");
    let start = uptime();
    loop {
        wait(PAUSE);
        log!("still here after {} s", (uptime() - start).as_secs());
    }
}
