//! Golden vectors: what stands on the wire never changes. The fuzz corpus begins with the same bytes.

mod vectors;

use std::{fmt::Write as _, fs, path::Path};

use vectors::{Vector, encode, for_each};
use wasmbed_protocol::{decode_device, decode_gateway, decode_setting_values, decode_spec};

#[test]
fn vectors_stand_as_they_always_did() {
    let mut text = String::new();
    for_each(|name, vector| {
        let bytes = encode(&vector);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{name} ({} bytes)\n  {hex}\n  {}\n", bytes.len(), minicbor::display(&bytes)).unwrap();
    });
    insta::assert_snapshot!(text);
}

#[test]
fn vectors_read_back_as_what_was_written() {
    for_each(|name, vector| {
        let bytes = encode(&vector);
        match vector {
            Vector::Device(message) => assert_eq!(decode_device(&bytes), Ok(message), "{name}"),
            Vector::Gateway(message) => assert_eq!(decode_gateway(&bytes), Ok(message), "{name}"),
            Vector::Spec(spec) => assert_eq!(decode_spec(&bytes), Ok(spec), "{name}"),
            Vector::SettingValues(values) => {
                assert_eq!(decode_setting_values(&bytes), Ok(values), "{name}");
            }
        }
    });
}

/// `WASMBED_UPDATE_CORPUS=1` writes the files instead.
#[test]
fn the_fuzz_corpus_begins_with_the_vectors() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/protocol");
    let update = std::env::var_os("WASMBED_UPDATE_CORPUS").is_some();
    for_each(|name, vector| {
        let (path, bytes) = (directory.join(name), encode(&vector));
        if update {
            fs::create_dir_all(&directory).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let found = fs::read(&path).unwrap_or_default();
        assert_eq!(found, bytes, "{}: run once with WASMBED_UPDATE_CORPUS=1", path.display());
    });
}
