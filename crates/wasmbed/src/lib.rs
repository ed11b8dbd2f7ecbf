//! What the host binary is made of, for the binary itself and for the project's other programs.
//!
//! It may not hold logic of a process: subcommands read configuration, start processes, and talk to the Kubernetes API and to
//! gateways as a person would.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod cli;
mod cluster;
pub mod commands;
pub mod config;
pub mod login;
pub mod machine;
mod output;
pub mod plugin;
mod processes;
mod runtime;
mod values;
