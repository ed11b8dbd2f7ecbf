//! The one host binary of Wasmbed: every process is a subcommand.
//!
//! It may not hold logic of a process: it reads configuration, starts what is asked for, and stops it again.

use std::{io::Write, process::ExitCode};

use clap::Parser;

/// The C library's keeps what a burst of clients took for as long as the process lives.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = wasmbed::cli::Args::parse();
    match wasmbed::cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be reading it.
            let _ = writeln!(std::io::stderr(), "error: {}", wasmbed_telemetry::with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
