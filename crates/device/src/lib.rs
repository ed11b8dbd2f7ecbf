//! wasmbed-device
