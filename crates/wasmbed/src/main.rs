//! The one host binary of Wasmbed: every process is a subcommand. Under the name `kubectl-wasmbed` it is a plugin of kubectl.
//!
//! It may not hold logic of a process: it reads configuration, starts what is asked for, and stops it again.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use wasmbed::plugin::Role;

/// The C library's keeps what a burst of clients took for as long as the process lives.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let done = match Role::of(std::env::args_os().next().as_deref()) {
        Role::Program => wasmbed::cli::run(wasmbed::cli::Args::parse()),
        Role::Plugin => wasmbed::plugin::run(),
        Role::Completer => wasmbed::plugin::complete(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be reading it.
            let _ = writeln!(std::io::stderr(), "error: {}", wasmbed_telemetry::with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
