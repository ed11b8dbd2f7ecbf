//! wasmbed-simulation
