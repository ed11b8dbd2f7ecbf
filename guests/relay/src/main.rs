//! Switches pin 0 as the topic `light` says, `on` or `off`, and publishes what the pin is then to `light/state`. Needs the capabilities
//! `gpio` and `messages` with these topics: `light` comes in.
#![no_std]
#![no_main]

use core::time::Duration;

use wasmbed_guest::{
    entry, gpio, log,
    messages::{self, Inbox},
    wait,
};

entry!(main);

const LIGHT: u32 = 0;
/// A message ends the wait.
const PAUSE: Duration = Duration::from_secs(3_600);

fn main() {
    log!("waits for on and off");
    let mut inbox = Inbox::new();
    loop {
        while let Some(message) = inbox.receive() {
            obey(message.payload());
        }
        wait(PAUSE);
    }
}

fn obey(command: &[u8]) {
    let is_on = match command {
        b"on" => true,
        b"off" => false,
        _ => return log!("neither on nor off"),
    };
    let state = match gpio::write(LIGHT, is_on) {
        Ok(()) if is_on => "on",
        Ok(()) => "off",
        Err(error) => return log!("the pin: {error}"),
    };
    log!("light {state}");
    if let Err(error) = messages::publish_newest("light/state", state.as_bytes()) {
        log!("not published: {error}");
    }
}
