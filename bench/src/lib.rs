//! wasmbed-bench
