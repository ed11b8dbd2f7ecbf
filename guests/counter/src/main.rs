//! Counts in storage that outlives a restart. Needs the capability `key-value`.
#![no_std]
#![no_main]

use core::time::Duration;

use wasmbed_guest::{Error, entry, key_value, log, wait};

entry!(main);

const KEY: &str = "count";
const PAUSE: Duration = Duration::from_secs(1);

fn main() {
    if let Err(error) = count() {
        log!("storage: {error}");
    }
}

fn count() -> Result<(), Error> {
    let mut count = match key_value::get_u64(KEY)? {
        Some(count) => {
            log!("going on at {count}");
            count
        }
        None => {
            log!("starting at 0");
            0
        }
    };
    loop {
        count += 1;
        key_value::put_u64(KEY, count)?;
        log!("count {count}");
        wait(PAUSE);
    }
}
