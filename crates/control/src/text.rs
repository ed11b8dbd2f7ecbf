//! Text forms of the protocol's ids, as they stand in resources and in JSON, and text that others wrote.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};
use wasmbed_protocol::{ApplicationUid, CorrelationId, Harmless, ModuleDigest, SpecHash};

/// Text that a device, a file or an API gave, made harmless for logs, terminals and resources; at most so many bytes.
#[must_use]
pub fn harmless(text: &str, bytes_max: usize) -> Cow<'_, str> {
    let harmless = Harmless { text, bytes_max };
    if harmless.plain_bytes() == text.len() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(harmless.to_string())
}

/// The hyphenated form of RFC 9562, section 4.
#[must_use]
pub fn uid_text(uid: ApplicationUid) -> String {
    let hex = hex::encode(uid.0);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Reads a UUID with or without hyphens.
#[must_use]
pub fn parse_uid(text: &str) -> Option<ApplicationUid> {
    const TEXT_BYTES_MAX: usize = 36;
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    parse_array(&text.replace('-', "")).map(ApplicationUid)
}

/// 64 hex digits.
#[must_use]
pub fn digest_hex(digest: ModuleDigest) -> String {
    hex::encode(digest.0)
}

/// `sha256:` and 64 hex digits, as in resources.
#[must_use]
pub fn digest_text(digest: ModuleDigest) -> String {
    format!("sha256:{}", digest_hex(digest))
}

/// Reads 64 hex digits, with or without `sha256:` before them.
#[must_use]
pub fn parse_digest(text: &str) -> Option<ModuleDigest> {
    parse_array(text.strip_prefix("sha256:").unwrap_or(text)).map(ModuleDigest)
}

/// 64 hex digits.
#[must_use]
pub fn spec_hash_hex(hash: SpecHash) -> String {
    hex::encode(hash.0)
}

/// Reads 64 hex digits.
#[must_use]
pub fn parse_spec_hash(text: &str) -> Option<SpecHash> {
    parse_array(text).map(SpecHash)
}

/// 32 hex digits.
#[must_use]
pub fn correlation_hex(id: CorrelationId) -> String {
    hex::encode(id.0)
}

/// Reads 32 hex digits.
#[must_use]
pub fn parse_correlation(text: &str) -> Option<CorrelationId> {
    parse_array(text).map(CorrelationId)
}

/// Name of an Event about an object: the same transition told twice has one name, so that the second is a conflict.
#[must_use]
pub fn event_name(object: &str, uid: &str, unix_ms: u64, reason: &str, message: &str) -> String {
    /// With the suffix a name stays below the 253 characters that names have at most.
    const STEM_CHARS_MAX: usize = 200;
    let mut hash = Sha256::new();
    hash.update(unix_ms.to_be_bytes());
    for text in [uid, reason, message] {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    let suffix = hex::encode(&hash.finalize()[..8]);
    let stem: String = object.chars().take(STEM_CHARS_MAX).collect();
    format!("{}.{suffix}", stem.trim_end_matches(['.', '-']))
}

fn parse_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_from_their_text() {
        let uid = ApplicationUid(*b"0123456789abcdef");
        assert_eq!(uid_text(uid), "30313233-3435-3637-3839-616263646566");
        assert_eq!(parse_uid(&uid_text(uid)), Some(uid));
        let digest = ModuleDigest([7; 32]);
        assert_eq!(parse_digest(&digest_text(digest)), Some(digest));
        assert_eq!(parse_digest(&digest_hex(digest)), Some(digest));
        assert_eq!(parse_spec_hash(&spec_hash_hex(SpecHash([9; 32]))), Some(SpecHash([9; 32])));
        assert_eq!(parse_correlation(&correlation_hex(CorrelationId([3; 16]))), Some(CorrelationId([3; 16])));
    }

    #[test]
    fn an_event_has_one_name_and_another_event_has_another() {
        let name = event_name("a", "u", 7, "Exited", "m");
        assert_eq!(name, event_name("a", "u", 7, "Exited", "m"));
        assert!(name.starts_with("a.") && name.len() == 18, "{name}");
        for other in [
            event_name("a", "v", 7, "Exited", "m"),
            event_name("a", "u", 8, "Exited", "m"),
            event_name("a", "u", 7, "Trapped", "m"),
            event_name("a", "u", 7, "Exitedm", ""),
        ] {
            assert_ne!(name, other);
        }
        assert!(event_name(&"a".repeat(253), "u", 7, "Exited", "m").len() <= 253);
    }

    #[test]
    fn other_text_is_no_id() {
        assert_eq!(parse_uid(""), None);
        assert_eq!(parse_uid(&"0".repeat(1_000)), None);
        assert_eq!(parse_digest("sha256:00"), None);
        assert_eq!(parse_spec_hash(&"g".repeat(64)), None);
    }
}
