//! A reader that goes away ends a command without a panic.

use std::{
    io::Read,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

/// The exit code that shells show for SIGPIPE.
const READER_GONE: i32 = 141;

#[test]
fn commands_end_quietly_when_nobody_reads_their_output() -> Result<()> {
    for arguments in [&["crds"][..], &["completions", "bash"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_wasmbed"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // Both print more than a pipe holds.
        drop(child.stdout.take());
        let status = child.wait()?;
        let mut errors = String::new();
        child.stderr.take().context("standard error is a pipe")?.read_to_string(&mut errors)?;
        assert_eq!((status.code(), errors.as_str()), (Some(READER_GONE), ""), "{arguments:?}");
    }
    Ok(())
}

#[test]
fn an_error_that_nobody_reads_is_no_panic() -> Result<()> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wasmbed"))
        .args(["module", "check", "/nonexistent.wasm"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    drop(child.stderr.take());
    assert_eq!(child.wait()?.code(), Some(1));
    Ok(())
}
