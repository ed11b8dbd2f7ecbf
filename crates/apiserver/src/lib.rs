//! wasmbed-apiserver
