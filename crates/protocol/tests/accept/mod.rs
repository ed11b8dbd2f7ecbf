//! What must hold for any bytes: the fuzz target, the corpus and the property tests all call this.

use wasmbed_protocol::{
    Frames, Schema, SettingResult, decode_device, decode_gateway, decode_setting_values, decode_spec,
    encode_device, encode_gateway, encode_setting_values, encode_spec,
    limits::{FRAME_BYTES_MAX, SETTINGS_BYTES_MAX, SETTINGS_MAX, SPEC_BYTES_MAX},
};

/// Reads `bytes` in every way that a peer's bytes are read.
///
/// # Panics
/// A decoder panics, or accepts what the encoder would write differently.
pub(crate) fn accept(bytes: &[u8]) {
    let mut out = [0; FRAME_BYTES_MAX];
    if let Ok(message) = decode_device(bytes) {
        let length = encode_device(&message, &mut out).unwrap_or_else(|error| panic!("{message:?}: {error}"));
        same(bytes, &out[2..length]);
        assert_eq!(decode_device(&out[2..length]), Ok(message));
    }
    if let Ok(message) = decode_gateway(bytes) {
        let length =
            encode_gateway(&message, &mut out).unwrap_or_else(|error| panic!("{message:?}: {error}"));
        same(bytes, &out[2..length]);
        assert_eq!(decode_gateway(&out[2..length]), Ok(message));
    }
    if let Ok(spec) = decode_spec(bytes) {
        let length = encode_spec(&spec, &mut out[..SPEC_BYTES_MAX])
            .unwrap_or_else(|error| panic!("{spec:?}: {error}"));
        same(bytes, &out[..length]);
        assert_eq!(decode_spec(&out[..length]), Ok(spec));
    }
    if let Ok(values) = decode_setting_values(bytes) {
        let length = encode_setting_values(&values, &mut out[..SETTINGS_BYTES_MAX])
            .unwrap_or_else(|error| panic!("{values:?}: {error}"));
        same(bytes, &out[..length]);
        assert_eq!(decode_setting_values(&out[..length]), Ok(values));
    }
    if let Ok(schema) = Schema::parse(bytes) {
        assert!(schema.iter().count() <= SETTINGS_MAX);
        for setting in schema.iter() {
            assert_eq!(schema.judge(setting.name, setting.default), SettingResult::Accepted, "{setting:?}");
            assert_eq!(schema.find(setting.name), Some(setting));
        }
    }
    let mut frames = Frames::new(bytes);
    for body in frames.by_ref().map_while(Result::ok) {
        let _ = (decode_device(body), decode_gateway(body));
    }
    assert!(frames.consumed() <= bytes.len());
}

/// There is one encoding: the written bytes are those that were read, or fewer where a later version's keys went.
fn same(read: &[u8], written: &[u8]) {
    assert!(written.len() < read.len() || written == read, "read {read:02x?}, written {written:02x?}");
}
