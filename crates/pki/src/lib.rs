//! wasmbed-pki
