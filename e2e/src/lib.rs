//! wasmbed-e2e
