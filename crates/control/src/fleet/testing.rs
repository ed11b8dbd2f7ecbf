//! Values for tests.

use wasmbed_api::DeviceFacts;
use wasmbed_protocol::ModuleDigest;

use super::module::{Footprint, ModuleFacts, ModuleNeeds};

/// A board with an arena of 1 MiB: ten applications of one page fit.
pub(crate) fn device_facts() -> DeviceFacts {
    DeviceFacts {
        board: "linux".to_owned(),
        firmware: "0.1.0".to_owned(),
        engine: "spacewasm 0.7.1".to_owned(),
        memory_bytes: 1_048_576,
        flash_bytes: 4_194_304,
        load_permille: 1_600,
        module_bytes_max: 1_048_576,
        applications_max: 10,
        features: Vec::new(),
        host_functions: vec!["wasmbed.log".to_owned()],
        capabilities: Vec::new(),
        peripherals: Vec::new(),
        reset_reason: None,
    }
}

/// A module with one page of memory and one import.
pub(crate) fn module(digest: u8, size: u32) -> ModuleFacts {
    ModuleFacts {
        digest: ModuleDigest([digest; 32]),
        size,
        needs: Ok(ModuleNeeds {
            imports: vec!["wasmbed.log".to_owned()],
            footprint: Footprint {
                loaded_bytes: u64::from(size),
                fixed_bytes: 0,
                linear_bytes: 65_536,
                translated: None,
            },
            ..ModuleNeeds::default()
        }),
    }
}
