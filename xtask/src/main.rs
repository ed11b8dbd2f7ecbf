//! Everything that is done to the project rather than with it: tests with their prerequisites, guests, tools, measurements.
//!
//! It may not be needed by the product: nothing depends on it.

mod beside;
mod clients;
mod container;
mod deep;
mod defences;
mod definitions;
mod e2e;
mod firmware;
mod firmware_boot;
mod firmware_size;
mod fuzz;
mod go;
mod guests;
mod krew;
mod measure;
mod miri;
mod mutations;
mod patches;
mod process;
mod structure;
mod system;
mod test;
mod toolchains;
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
    /// Run the end-to-end tests of one file, or one of them, by themselves.
    E2e(e2e::Options),
    /// Build the sample applications into guests/prebuilt.
    Guests {
        /// Build elsewhere and compare with the committed modules instead.
        #[arg(long)]
        check: bool,
    },
    /// Measure the budgets and print them beside their goals.
    Bench {
        /// Measure engines alone: `-- --help` says what can be said about them.
        #[arg(long)]
        engines: bool,
        /// Passed to the program: see `cargo xtask bench -- --help`.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Long work that the gate leaves out: thousands of seeds, fuzzing, attacks.
    #[command(subcommand)]
    Deep(deep::Task),
    /// Build the statically linked binary and the folder of which `podman build` or `docker build` makes the image.
    Container(container::Options),
    /// Pack the plugin of kubectl for krew, and write its manifest.
    Krew(krew::Options),
    /// Build the firmware of the boards into target/firmware, and print what it weighs.
    Firmware(firmware::Options),
    /// Print the map of the code: sizes, circles of files, open fields and the like, crate by crate.
    Structure(structure::Options),
    /// Build hello programs with other toolchains, pack them and run them in the sandbox.
    Toolchains,
    /// Build the tools that tests use, outside the checkout.
    Tools {
        /// The tools to build; all if none is named.
        #[arg(value_enum)]
        names: Vec<tools::Tool>,
    },
}

fn main() -> std::process::ExitCode {
    let done = match Arguments::parse().task {
        Task::Test(options) => test::run(&options),
        Task::E2e(options) => e2e::run(&options),
        Task::Guests { check } => guests::build(check),
        Task::Bench { engines, arguments } => measure::bench(engines, &arguments),
        Task::Deep(task) => deep::run(task),
        Task::Container(options) => container::build(&options),
        Task::Krew(options) => krew::pack(&options),
        Task::Firmware(options) if options.measure => measure::images(&options),
        Task::Firmware(options) => firmware::build(&options),
        Task::Structure(options) => structure::run(&options),
        Task::Toolchains => toolchains::run(),
        Task::Tools { names } => tools::build(&names),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // Without a backtrace: the message is for a person who can act on it.
            eprintln!("\nerror: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
