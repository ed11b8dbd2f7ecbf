//! wasmbed-control
