//! Loading and running a module in a test.

#![allow(dead_code)]

use wasmbed_engine::{Config, Error, FunctionType, Imports, Instance, Loader, Progress, Step, Trap, Value};

/// Offers every import.
pub(crate) struct Every;

impl Imports for Every {
    fn find(&self, _: &str, _: &str, _: FunctionType<'_>) -> Option<u16> {
        Some(0)
    }
}

pub(crate) const MEMORY_BYTES: u32 = 256 * 1_024;
pub(crate) const STACK_SLOTS: u32 = 16 * 1_024;

pub(crate) fn config() -> Config {
    Config { stack_slots: STACK_SLOTS, memory_bytes: MEMORY_BYTES, table_growth: 4_000 }
}

/// Loads a module into this block, in steps of this much work.
pub(crate) fn load<'m>(
    block: &'m mut [u64],
    module: &[u8],
    work: u32,
) -> Result<Option<Instance<'m>>, Error> {
    let mut source = module;
    let Some(mut loader) = Loader::new(block, &source, config()) else { return Ok(None) };
    while loader.step(&mut source, &Every, work)? == Progress::More {}
    Ok(loader.finish())
}

/// How a call ended.
pub(crate) type Ended = Result<Vec<Value>, Trap>;

/// Calls an export with this much fuel in each step.
pub(crate) fn call(instance: &mut Instance<'_>, export: &str, arguments: &[Value], fuel: u32) -> Ended {
    instance.call(export, arguments).unwrap();
    for _ in 0..10_000_000 {
        match instance.step(fuel).0 {
            Step::OutOfFuel => {}
            Step::Done => return Ok(instance.results().collect()),
            Step::Trap(trap) => return Err(trap),
            Step::HostCall(function) => panic!("a call of import {function}"),
        }
    }
    panic!("it does not end")
}
