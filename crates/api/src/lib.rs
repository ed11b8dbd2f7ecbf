//! wasmbed-api
