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
        .flat_map(|number| Kind::ALL.map(|kind| Board { kind, name: format!("{kind}-{number:03}") }))
        .take(count.into())
        .collect()
}

/// That this machine can run them; asked before anything starts.
///
/// # Errors
/// What is missing, and how to get it.
pub(super) fn check(boards: &[Board], firmware: Option<&Path>) -> Result<()> {
    for kind in Kind::ALL.into_iter().filter(|kind| boards.iter().any(|board| board.kind == *kind)) {
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
        let names: Vec<String> = plan(3).into_iter().map(|board| board.name).collect();
        assert_eq!(names, ["riscv32-virt-001", "mps2-an385-001", "riscv32-virt-002"]);
        assert!(plan(0).is_empty());
    }
}
