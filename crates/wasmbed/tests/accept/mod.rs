//! What must hold for any bytes that are packed: the fuzz target and the corpus call this.

use wasmbed::commands::module::{PackError, pack};

/// Packs `bytes`.
///
/// # Panics
/// Packing panics, makes an invalid module, or changes what it packed when it packs it again.
pub(crate) fn accept(bytes: &[u8]) {
    match pack(bytes) {
        Ok(packed) => {
            let again =
                pack(&packed.bytes).unwrap_or_else(|error| panic!("what is packed is refused: {error}"));
            assert_eq!(again.bytes, packed.bytes);
        }
        Err(PackError::Defect(what)) => panic!("{what}"),
        Err(_) => {}
    }
}
