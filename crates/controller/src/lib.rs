//! wasmbed-controller
