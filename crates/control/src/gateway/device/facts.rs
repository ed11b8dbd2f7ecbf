//! What a device says of itself when it connects, in the form of `Device.status.facts`.

use wasmbed_api::{DeviceFacts, DevicePeripheral, PeripheralKind};
use wasmbed_protocol::{
    Facts, Hello, List,
    limits::{NAME_BYTES_MAX, PERIPHERAL_NAME_BYTES_MAX, RESET_DETAIL_BYTES_MAX},
};
use wasmbed_scan::Features;

use crate::harmless;

/// A Hello's facts in the form of Device.status.
pub(in crate::gateway) fn facts_to_resource(hello: &Hello<'_>) -> DeviceFacts {
    let Facts { board, firmware, engine, memory_bytes, flash_bytes, load_permille, .. } = hello.facts;
    let features = Features::from_bits(hello.facts.features);
    let name = |text| harmless(text, NAME_BYTES_MAX).into_owned();
    let mut reset_reason = hello.reset_reason.name().to_owned();
    if !hello.reset_detail.is_empty() {
        reset_reason.push_str(": ");
        reset_reason.push_str(&harmless(hello.reset_detail, RESET_DETAIL_BYTES_MAX));
    }
    DeviceFacts {
        board: name(board),
        firmware: name(firmware),
        engine: name(engine),
        memory_bytes: i64::try_from(memory_bytes).unwrap_or(i64::MAX),
        flash_bytes: i64::try_from(flash_bytes).unwrap_or(i64::MAX),
        load_permille: i32::try_from(load_permille).unwrap_or(i32::MAX),
        module_bytes_max: i64::from(hello.facts.module_bytes_max),
        applications_max: i32::from(hello.facts.applications_max),
        features: Features::NAMES
            .iter()
            .filter(|(feature, _)| features.contains(*feature))
            .map(|(_, name)| (*name).to_owned())
            .collect(),
        host_functions: hello
            .facts
            .imports
            .iter()
            .flat_map(|import| {
                import
                    .functions
                    .iter()
                    .map(move |function| format!("{}.{}", name(import.module), name(function)))
            })
            .collect(),
        capabilities: hello.facts.capabilities.iter().map(name).collect(),
        peripherals: hello
            .facts
            .peripherals
            .iter()
            .flat_map(List::iter)
            .map(|peripheral| DevicePeripheral {
                name: harmless(peripheral.name, PERIPHERAL_NAME_BYTES_MAX).into_owned(),
                kind: match peripheral.kind {
                    wasmbed_protocol::PeripheralKind::I2c => PeripheralKind::I2c,
                    wasmbed_protocol::PeripheralKind::Uart => PeripheralKind::Uart,
                    wasmbed_protocol::PeripheralKind::Gpio => PeripheralKind::Gpio,
                    wasmbed_protocol::PeripheralKind::Spi => PeripheralKind::Spi,
                    wasmbed_protocol::PeripheralKind::Unknown(_) => PeripheralKind::Unknown,
                },
                simulated: peripheral.is_simulated,
            })
            .collect(),
        reset_reason: Some(reset_reason),
    }
}
