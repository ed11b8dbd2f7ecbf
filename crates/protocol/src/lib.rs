//! wasmbed-protocol
