//! wasmbed-runtime
