//! The device's facts: the board's part from the board, the rest from the runtime.

use alloc::{string::String, vec::Vec};

use wasmbed_agent::DeviceFacts;
use wasmbed_runtime::{Capability, RuntimeConfig, engine::Engine, host_functions, scan::LOAD_PERMILLE};

use crate::platform::Board;

pub(crate) fn device_facts<E: Engine>(board: &Board, runtime: &RuntimeConfig) -> DeviceFacts {
    let mut imports: Vec<(String, Vec<String>)> = Vec::new();
    for function in host_functions() {
        let name = String::from(function.name());
        match imports.iter_mut().find(|(module, _)| module == function.module()) {
            Some((_, names)) => names.push(name),
            None => imports.push((String::from(function.module()), Vec::from([name]))),
        }
    }
    let mut capabilities: Vec<String> =
        granted(board).map(|capability| String::from(capability.name())).collect();
    capabilities.sort_unstable();
    let limit = runtime.applications_max.min(usize::from(board.applications_max));
    DeviceFacts {
        board: board.board.clone(),
        firmware: board.firmware.clone(),
        engine: String::from(E::NAME),
        memory_bytes: runtime.arena_bytes as u64,
        flash_bytes: board.flash_bytes,
        load_permille: LOAD_PERMILLE,
        module_bytes_max: board.module_bytes_max.min(runtime.scan.module_bytes),
        applications_max: u8::try_from(limit).unwrap_or(u8::MAX),
        features: E::FEATURES.intersection(runtime.scan.features).bits(),
        imports,
        capabilities,
        peripherals: board.peripherals.clone(),
    }
}

/// The capabilities that the board has of those that the runtime knows.
pub(crate) fn granted(board: &Board) -> impl Iterator<Item = Capability> {
    board.capabilities.iter().filter_map(|name| Capability::from_name(name))
}
