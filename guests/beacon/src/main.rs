//! Logs a line every so often. How often, and what it says, are settings: they change while it counts on.
#![no_std]
#![no_main]

use core::time::Duration;

use wasmbed_guest::{
    entry, log,
    settings::{self, TEXT_BYTES_MAX},
    uptime, wait,
};

entry!(main);

wasmbed_guest::settings! {
    "interval_ms int 100..3600000 reported = 1000",
    "label text ..16 reported = beacon",
    "lit bool = true",
}

fn main() {
    let mut count = 0_u32;
    let mut said_at = None;
    loop {
        let interval = settings::integer("interval_ms").unwrap_or(1_000);
        let interval = Duration::from_millis(interval.unsigned_abs());
        let passed = said_at.map_or(interval, |at| uptime().saturating_sub(at));
        if passed < interval {
            // Less than that if a setting changes.
            wait(interval - passed);
            continue;
        }
        said_at = Some(uptime());
        if settings::boolean("lit").unwrap_or(true) {
            count += 1;
            let mut buffer = [0; TEXT_BYTES_MAX];
            let label = settings::text("label", &mut buffer).unwrap_or("?");
            log!("{label} {count}, every {} ms", interval.as_millis());
        }
    }
}
