//! What a machine must have: system packages and compilation targets, installed where it may be done.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// Makes sure that each program is there; `(program, Debian package)`.
pub(crate) fn ensure_programs(wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        wanted.iter().filter(|(program, _)| !process::exists(program)).map(|&(_, package)| package).collect();
    ensure_packages(&missing)
}

/// Installs Debian packages that are not there, or says how to.
pub(crate) fn ensure_packages(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !package_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !process::exists("apt-get") || !is_root() {
        bail!(
            "missing: {names}; on Debian or Ubuntu run\n    sudo apt-get update && sudo apt-get install --no-install-recommends {names}"
        );
    }
    process::step(&format!("installing {names}"));
    process::run(Command::new("apt-get").args(["update", "--quiet=2"]))?;
    process::run(
        Command::new("apt-get")
            .args(["install", "--yes", "--quiet=2", "--no-install-recommends"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

fn package_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// How code for a target without an operating system is compiled here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The target's libraries come from rustup.
    Rustup,
    /// Debian's compiler builds them from source.
    Debian,
}

impl Route {
    /// A `cargo build` for the target, to be completed with what to build.
    pub(crate) fn cargo_build(self, target: &str) -> Command {
        self.cargo("build", target)
    }

    /// `cargo check`, likewise.
    pub(crate) fn cargo_check(self, target: &str) -> Command {
        self.cargo("check", target)
    }

    fn cargo(self, subcommand: &str, target: &str) -> Command {
        match self {
            Self::Rustup => {
                let mut command = process::cargo();
                command.args([subcommand, "--target", target]);
                command
            }
            Self::Debian => {
                let linker = if target.starts_with("wasm32") { "wasm-ld-19" } else { "ld.lld-19" };
                let variable = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
                let mut command = Command::new("/usr/bin/cargo");
                command
                    .current_dir(process::top())
                    .args([subcommand, "-Zbuild-std=core,alloc", "--target", target])
                    .env("PATH", "/usr/bin:/bin")
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env(variable, linker)
                    .env("CARGO_TARGET_DIR", process::top().join("target/debian"))
                    .env_remove("RUSTUP_TOOLCHAIN")
                    .env_remove("CARGO")
                    .env_remove("RUSTC");
                command
            }
        }
    }
}

/// Makes sure that a target can be compiled for: by rustup, or where its server can't be reached by Debian's compiler.
pub(crate) fn ensure_target(target: &str) -> Result<Route> {
    if std::env::var_os("WASMBED_TARGETS_FROM").is_some_and(|value| value == "debian") {
        return ensure_debian_compiler();
    }
    if target_installed(target) {
        return Ok(Route::Rustup);
    }
    if process::exists("rustup") {
        process::step(&format!("adding the target {target}"));
        if process::run(Command::new("rustup").args(["target", "add", target])).is_ok()
            && target_installed(target)
        {
            return Ok(Route::Rustup);
        }
        println!("    rustup could not add it; using Debian's compiler instead");
    }
    ensure_debian_compiler()
        .with_context(|| format!("no compiler for {target}; with rustup: rustup target add {target}"))
}

fn ensure_debian_compiler() -> Result<Route> {
    ensure_packages(&["rustc-web", "cargo-web", "rust-web-src", "lld-19"])?;
    Ok(Route::Debian)
}

fn target_installed(target: &str) -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]).current_dir(process::top());
    process::output(&mut rustc).is_ok_and(|dir| std::path::Path::new(dir.trim()).is_dir())
}
