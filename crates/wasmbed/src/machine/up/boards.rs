//! The emulated boards among the devices of `up`.

use std::path::Path;

use anyhow::{Context, Result};
use wasmbed_emulator::{Kind, find_firmware};

/// Boards at most: each is a QEMU of its own.
pub(super) const BOARDS_MAX: u16 = 16;

/// One emulated board and the name of its Device.
pub(super) struct Board {
    pub(super) kind: Kind,
    pub(super) name: String,
}

/// So many boards, each kind in turn, named after their kind and numbered.
pub(super) fn plan(count: u16) -> Vec<Board> {
    (1..)
        .flat_map(|number| Kind::all().map(move |kind| Board { kind, name: format!("{kind}-{number:03}") }))
        .take(count.into())
        .collect()
}

/// That this machine can run them; asked before anything starts.
///
/// # Errors
/// What is missing, and how to get it.
pub(super) fn check(boards: &[Board], firmware: Option<&Path>) -> Result<()> {
    for kind in Kind::all().filter(|kind| boards.iter().any(|board| board.kind == *kind)) {
        kind.check_installed().with_context(|| format!("--qemu can't run a {kind}"))?;
        find_firmware(kind, firmware).with_context(|| format!("--qemu can't run a {kind}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_comes_in_turn() {
        let kinds = Kind::all().count() as u16;
        let names: Vec<String> = plan(kinds + 1).into_iter().map(|board| board.name).collect();
        let mut wanted: Vec<String> = Kind::all().map(|kind| format!("{kind}-001")).collect();
        wanted.extend(Kind::all().take(1).map(|kind| format!("{kind}-002")));
        assert_eq!(names, wanted);
        assert!(plan(0).is_empty());
    }
}
