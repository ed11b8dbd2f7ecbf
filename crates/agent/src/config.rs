//! What an agent is made with.

use alloc::{string::String, vec::Vec};

use wasmbed_protocol::{BootId, Facts, ImportModule, List, Peripheral, PeripheralKind, ResetReason};

use crate::{identity::Provisioned, storage::Inventory};

/// What the device is and offers; [`wasmbed_protocol::Facts`] says what each field means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Board or host type.
    pub board: String,
    /// Firmware version.
    pub firmware: String,
    /// Engine with its version.
    pub engine: String,
    /// Bytes of the applications' arena.
    pub memory_bytes: u64,
    /// Bytes of storage.
    pub flash_bytes: u64,
    /// Arena bytes per 1,000 bytes of a loaded module.
    pub load_permille: u32,
    /// The largest module accepted, bytes.
    pub module_bytes_max: u32,
    /// How many applications run at once.
    pub applications_max: u8,
    /// Operator groups beyond WebAssembly MVP.
    pub features: u64,
    /// Host functions by import module, both ascending.
    pub imports: Vec<(String, Vec<String>)>,
    /// Capabilities that the device can grant.
    pub capabilities: Vec<String>,
    /// Peripherals that it can grant by name, ascending.
    pub peripherals: Vec<PeripheralFacts>,
}

/// A bus or the like; [`wasmbed_protocol::Peripheral`] says what each field means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeripheralFacts {
    /// Its kind and its number: `i2c0`.
    pub name: String,
    /// What it is.
    pub kind: PeripheralKind,
    /// Whether there is only a program behind it.
    pub is_simulated: bool,
}

impl DeviceFacts {
    /// Lends the facts as the message wants them. The lists of a message borrow, so this one takes a function.
    pub(crate) fn with<R>(&self, use_facts: impl FnOnce(Facts<'_>) -> R) -> R {
        let functions: Vec<Vec<&str>> =
            self.imports.iter().map(|(_, names)| names.iter().map(String::as_str).collect()).collect();
        let imports: Vec<ImportModule<'_>> = self
            .imports
            .iter()
            .zip(&functions)
            .map(|((module, _), names)| ImportModule { module, functions: List::new(names) })
            .collect();
        let capabilities: Vec<&str> = self.capabilities.iter().map(String::as_str).collect();
        let peripherals: Vec<Peripheral<'_>> = self
            .peripherals
            .iter()
            .map(|PeripheralFacts { name, kind, is_simulated }| Peripheral {
                name,
                kind: *kind,
                is_simulated: *is_simulated,
            })
            .collect();
        use_facts(Facts {
            board: &self.board,
            firmware: &self.firmware,
            engine: &self.engine,
            memory_bytes: self.memory_bytes,
            flash_bytes: self.flash_bytes,
            load_permille: self.load_permille,
            module_bytes_max: self.module_bytes_max,
            applications_max: self.applications_max,
            features: self.features,
            imports: List::new(&imports),
            capabilities: List::new(&capabilities),
            peripherals: Some(List::new(&peripherals)),
        })
    }
}

/// What an agent is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the device is and offers.
    pub facts: DeviceFacts,
    /// Why the device last started.
    pub reset_reason: ResetReason,
    /// Detail of the last reset.
    pub reset_detail: String,
    /// Eight random bytes, drawn for this start.
    pub boot_id: BootId,
    /// The identity that the device was provisioned with.
    pub provisioned: Provisioned,
    /// Unix seconds at the start, as far as the device knows the time by itself: it is this late or later.
    pub unix_s: Option<u64>,
}

/// What storage held when the device started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The state record.
    pub state: Option<Vec<u8>>,
    /// Whether storage may hold a record that could not be read. Then this start is not counted: writing its number at once
    /// would destroy a record that the next start may be able to read.
    pub state_unread: bool,
    /// Modules and data.
    pub inventory: Inventory,
}
