//! Switches the light at pin 0 each time that pin 1 rises, and says so. Needs the capability `gpio`, and the pins `gpio0` and
//! `gpio1`. On the boards of Arm's MPS2 both are lights: another application presses.
#![no_std]
#![no_main]

use core::{convert::Infallible, time::Duration};

use embedded_hal::digital::StatefulOutputPin;
use wasmbed_guest::{
    entry,
    gpio::{Edges, Error, Pin},
    log, wait,
};

entry!(main);

/// Says now and then that it is there.
const SILENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(10);

fn main() {
    loop {
        let Err(error) = switch(&mut Pin::new(0), &mut Pin::new(1));
        log!("pin: {error}");
        wait(PAUSE);
    }
}

fn switch<L: StatefulOutputPin<Error = Error>>(light: &mut L, button: &mut Pin) -> Result<Infallible, Error> {
    button.watch(Edges::Rising)?;
    loop {
        match button.wait_for_edges(SILENCE)? {
            0 => log!("nobody pressed"),
            presses => {
                light.toggle()?;
                log!("pressed {presses} times");
            }
        }
    }
}
