//! Where an application trapped: its places are found in the module that storage has.

use alloc::{format, string::String, vec::Vec};

use wasmbed_agent::{Trapped, TrappedFrame};
use wasmbed_protocol::TrapKind;
use wasmbed_runtime::{Event, Runtime, engine::Engine};

use crate::{
    host::Slot,
    journal,
    platform::{Level, Platform, Storage as _},
};

/// Work for the places of one trap, as of loading: some 150,000 operators. It is done in one go, within what a watchdog waits;
/// of a trap further back in a larger module only the functions are told.
const LOCATE_WORK_MAX: u32 = 150_000;

/// The functions of a trap, with their places and names as far as they can be found: a device that has not the memory for
/// it, or whose storage fails, says which functions they were.
pub(crate) fn trapped<E: Engine, P: Platform>(
    runtime: &mut Runtime<E>,
    platform: &mut P,
    slot: &Slot,
    kind: TrapKind,
    event: &Event,
) -> Trapped {
    let mut trace = event.trace;
    let mut names: Vec<String> = trace.frames().iter().map(|_| String::new()).collect();
    let problem = match platform.storage().module(&slot.digest) {
        Ok(module) => {
            let located = match runtime.locate(&module, LOCATE_WORK_MAX, &mut trace) {
                Ok(true) => Ok(()),
                Ok(false) => Err(String::from("it is too large")),
                Err(error) => Err(format!("{error}")),
            };
            let named = trace.names(&mut &*module, &mut |at, name| {
                if let Some(kept) = names.get_mut(at) {
                    *kept = String::from(name);
                }
            });
            located.and(named.map_err(|error| format!("{error}")))
        }
        Err(error) => Err(format!("{error:?}")),
    };
    if let Err(problem) = problem {
        let message = format_args!("not all of the trap's places were found in the module: {problem}");
        journal::about(platform.log(), Level::Warn, slot, message);
    }
    let frames = trace.frames().iter().zip(names).map(|(frame, name)| TrappedFrame {
        function: frame.function,
        offset: frame.offset,
        name,
    });
    Trapped { kind, frames: frames.collect(), frames_left_out: trace.left_out() }
}
