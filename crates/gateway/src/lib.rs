//! wasmbed-gateway
