//! wasmbed-supervisor
