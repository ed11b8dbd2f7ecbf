//! Where the clients are that `cargo xtask tools` and `cargo xtask test` make.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// A program below the clients' folder, for example `informer`.
///
/// # Errors
/// When it isn't there; a test without it would prove nothing.
pub fn find(program: &str) -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
            .join(".cache"),
    };
    let path = cache.join("wasmbed/tools/conformance-clients").join(program);
    ensure!(path.is_file(), "no {program} at {}; run `cargo xtask tools`", path.display());
    Ok(path)
}
