//! What must hold for any bytes that are packed: the fuzz target and the corpus call this.

use wasmbed::commands::module::{PackError, pack_for};
use wasmbed_runtime::Features;

/// Packs `bytes`, for devices of this version and for the first ones.
///
/// # Panics
/// Packing panics, makes an invalid module, or changes what it packed when it packs it again.
pub(crate) fn accept(bytes: &[u8]) {
    for devices in [Features::DEVICES, Features::FIRST_DEVICES] {
        match pack_for(bytes, devices) {
            Ok(packed) => {
                let again = pack_for(&packed.bytes, devices)
                    .unwrap_or_else(|error| panic!("what is packed is refused: {error}"));
                assert_eq!(again.bytes, packed.bytes);
            }
            Err(PackError::Defect(what)) => panic!("{what}"),
            Err(_) => {}
        }
    }
}
