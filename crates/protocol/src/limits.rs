//! Bounds of `wasmbed/1`, bytes unless the name says otherwise. Both sides refuse what exceeds them.

/// A frame with its two length bytes: one TLS record.
pub const FRAME_BYTES_MAX: usize = 4_096;
/// The CBOR map within a frame.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - 2;
/// Maps and arrays within each other, the message itself included.
pub const DEPTH_MAX: usize = 5;
/// One ModuleGet.
pub const MODULE_RANGE_BYTES_MAX: u16 = 16_384;
/// One ModuleChunk's bytes; leaves room for its head in a frame.
pub const CHUNK_BYTES_MAX: usize = 4_000;
/// Applications that a device runs at once.
pub const APPLICATIONS_MAX: usize = 10;
/// Members of a desired set. More than a device runs, so that the device can refuse the rest by name.
pub const DESIRED_MAX: usize = 16;
/// The encoded spec of an assignment; a frame less the envelope and the head.
pub const SPEC_BYTES_MAX: usize = 2_900;
/// The signed envelope of an assignment.
pub const ENVELOPE_BYTES_MAX: usize = 1_024;
/// A module.
pub const MODULE_BYTES_MAX: u32 = 1_048_576;
/// The text of one log line.
pub const LOG_TEXT_BYTES_MAX: usize = 1_024;
/// The message of one application's report: sixteen reports fit a frame with room to spare.
pub const REPORT_MESSAGE_BYTES_MAX: usize = 96;
/// Detail of an error, a rejection or a goodbye.
pub const DETAIL_BYTES_MAX: usize = 128;
/// Detail of the last reset.
pub const RESET_DETAIL_BYTES_MAX: usize = 256;
/// Board, firmware and engine names, capability names, import module and function names, names of environment variables.
pub const NAME_BYTES_MAX: usize = 64;
/// The encoded facts of a Hello; a frame less what else a Hello carries.
pub const FACTS_BYTES_MAX: usize = 3_700;
/// Import modules in a Hello.
pub const IMPORT_MODULES_MAX: usize = 8;
/// Host functions of one import module; `wasi_snapshot_preview1` has 46.
pub const IMPORT_FUNCTIONS_MAX: usize = 64;
/// Capabilities that a device can grant or an assignment grants.
pub const CAPABILITIES_MAX: usize = 16;
/// Buses and other peripherals that a device names or an assignment grants, of each kind.
pub const PERIPHERALS_MAX: usize = 16;
/// The name of one of them: `i2c0`.
pub const PERIPHERAL_NAME_BYTES_MAX: usize = 16;
/// Addresses that an assignment grants on one I2C bus.
pub const I2C_ADDRESSES_MAX: usize = 16;
/// The lowest address that an I2C device may have.
pub const I2C_ADDRESS_MIN: u8 = 0x08;
/// The highest one.
pub const I2C_ADDRESS_MAX: u8 = 0x77;
/// What an assignment may grant of a bus or a UART; I2C at 400 kHz has some 44,000, a UART at 1 Mbit/s 100,000 each way.
pub const BUS_BYTES_PER_SECOND_MAX: u32 = 100_000;
/// The slowest UART that an assignment grants, bits per second.
pub const UART_BAUD_MIN: u32 = 300;
/// The fastest one.
pub const UART_BAUD_MAX: u32 = 1_000_000;
/// How often each second an assignment lets the edges of a pin end a wait.
pub const EDGES_PER_SECOND_MAX: u32 = 1_000;
/// The last of SPI's modes.
pub const SPI_MODE_MAX: u8 = 3;
/// The slowest clock of an SPI bus that an assignment grants, thousands each second.
pub const SPI_CLOCK_KHZ_MIN: u32 = 10;
/// The fastest one.
pub const SPI_CLOCK_KHZ_MAX: u32 = 50_000;
/// An application's `namespace/name`: 63 and 253 are the most that Kubernetes allows.
pub const APPLICATION_NAME_BYTES_MAX: usize = 63 + 1 + 253;
/// Command line arguments.
pub const ARGS_MAX: usize = 32;
/// Environment variables.
pub const ENV_MAX: usize = 32;
/// One command line argument, or the value of one environment variable.
pub const VALUE_BYTES_MAX: usize = 1_024;
/// Functions of a stack trace: the one that trapped and eight callers.
pub const STACK_FRAMES_MAX: usize = 9;
/// The name of one of them.
pub const FUNCTION_NAME_BYTES_MAX: usize = 32;
/// Topics that an application declares.
pub const TOPICS_MAX: usize = 16;
/// Deliveries to a device that it has not answered yet.
pub const DELIVERIES_MAX: usize = 8;
/// Settings that a module declares, or that a device is given values of, for one application.
pub const SETTINGS_MAX: usize = 16;
/// The name of one of them.
pub const SETTING_NAME_BYTES_MAX: usize = 32;
/// The value of one that is text.
pub const SETTING_TEXT_BYTES_MAX: usize = 64;
/// The encoded values of one application: a device keeps them in its state record.
pub const SETTINGS_BYTES_MAX: usize = 256;
/// The section of a module that declares its settings: a device keeps it in memory while the module is loaded.
pub const SETTINGS_SCHEMA_BYTES_MAX: usize = 512;
/// Settings that one answer tells of: those of the module and those that it does not have.
pub const SETTING_STATES_MAX: usize = 2 * SETTINGS_MAX;
/// What a message of an application carries.
pub const PAYLOAD_BYTES_MAX: usize = 1_024;
/// The certification request of a Join; with a P-256 key and an empty subject it has some 250.
pub const REQUEST_BYTES_MAX: usize = 512;
/// A join proof: an ECDSA signature on P-256 has at most 72, a MAC 32.
pub const JOIN_PROOF_BYTES_MAX: usize = 128;
/// The id of a pairing token.
pub const PAIRING_ID_BYTES_MAX: usize = 16;
/// A certificate chain, the root not among it.
pub const CHAIN_BYTES_MAX: u32 = 8_192;
/// A trust domain, as SPIFFE has it.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;
/// A namespace, as Kubernetes has it.
pub const NAMESPACE_BYTES_MAX: usize = 63;
/// The name of a Device, as Kubernetes has it.
pub const DEVICE_NAME_BYTES_MAX: usize = 253;
/// An encoded join statement.
pub const JOIN_STATEMENT_BYTES_MAX: usize = 700;
/// A signed order to decommission a device, with the certificates of whoever signed it.
pub const DECOMMISSION_ORDER_BYTES_MAX: usize = 3_500;
/// A device's signed proof that it did so.
pub const DECOMMISSION_PROOF_BYTES_MAX: usize = 512;
