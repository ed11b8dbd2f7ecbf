//! wasmbed-agent
