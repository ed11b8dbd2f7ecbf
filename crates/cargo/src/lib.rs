//! Cargo, started by a program that Cargo started: tasks and tests that build what they need.
//!
//! It may not know what is built.

#![forbid(unsafe_code)]

use std::{
    env,
    ffi::{OsStr, OsString},
    process::Command,
};

/// Variables that tell a program of the package that it is of.
const OF_PACKAGE: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// The Cargo that started this program, or else the one on the PATH, without what it said of this program's package.
#[must_use]
pub fn command() -> Command {
    without_package(Command::new(env::var_os("CARGO").as_deref().unwrap_or(OsStr::new("cargo"))))
}

/// A command that does not hand on what Cargo said of this program's package: build scripts that read it, as that of ring,
/// would run again, and what stands on them be compiled again, whenever a person's own Cargo and this one take turns.
#[must_use]
pub fn without_package(mut command: Command) -> Command {
    for name in of_package(env::vars_os().map(|(name, _)| name)) {
        command.env_remove(name);
    }
    command
}

fn of_package(names: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    names
        .filter(|name| OF_PACKAGE.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::{OsString, command, of_package};

    #[test]
    fn what_is_said_of_the_package_is_not_handed_on() {
        // Cargo has told this test of its own.
        let removed: Vec<_> =
            command().get_envs().map(|(name, value)| (name.to_owned(), value.is_none())).collect();
        assert!(removed.contains(&(OsString::from("CARGO_PKG_NAME"), true)), "{removed:?}");
        assert!(removed.contains(&(OsString::from("CARGO_MANIFEST_DIR"), true)), "{removed:?}");
    }

    #[test]
    fn all_else_is() {
        let names =
            ["CARGO", "CARGO_HOME", "CARGO_TARGET_DIR", "PATH", "CARGO_PKG_VERSION"].map(OsString::from);
        assert_eq!(of_package(names.into_iter()).collect::<Vec<_>>(), ["CARGO_PKG_VERSION"]);
    }
}
