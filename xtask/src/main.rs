//! Everything that is done to the project rather than with it: tests with their prerequisites, guests, tools, measurements.
//!
//! It may not be needed by the product: nothing depends on it.

mod process;
mod system;
mod test;
mod tools;

use clap::{Parser, Subcommand};

/// Project tasks. `cargo xtask test` is what CI runs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every test; installs what is missing where it may, otherwise prints the commands.
    Test(test::Options),
    /// Build the tools that tests use, outside the checkout.
    Tools {
        /// The tools to build; all if none is named.
        #[arg(value_enum)]
        names: Vec<tools::Tool>,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Tools { names } => tools::build(&names),
    }
}
