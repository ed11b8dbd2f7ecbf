//! The Secret of a pairing token.

use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use wasmbed_api::{PAIRING_EXPIRES, PAIRING_SECRET_KEY};
use wasmbed_identity::PairingKey;

/// The key in it, unless the token has expired. One without a time counts until it is deleted; a time that is none has passed.
pub(crate) fn pairing_key(secret: Secret, now: Timestamp) -> Option<PairingKey> {
    let expires =
        secret.metadata.annotations.as_ref().and_then(|annotations| annotations.get(PAIRING_EXPIRES));
    if expires.is_some_and(|text| text.parse::<Timestamp>().map_or(true, |expires| expires <= now)) {
        return None;
    }
    PairingKey::from_bytes(&secret.data?.remove(PAIRING_SECRET_KEY)?.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::ObjectMeta};

    use super::*;

    fn secret(bytes: usize, expires: Option<&str>) -> Secret {
        let annotations = expires.map(|time| BTreeMap::from([(PAIRING_EXPIRES.to_owned(), time.to_owned())]));
        Secret {
            metadata: ObjectMeta { annotations, ..ObjectMeta::default() },
            data: Some(BTreeMap::from([(PAIRING_SECRET_KEY.to_owned(), ByteString(vec![7; bytes]))])),
            ..Secret::default()
        }
    }

    #[test]
    fn a_token_counts_until_it_expires() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let counts = |expires| pairing_key(secret(32, expires), now).is_some();
        assert!(counts(None) && counts(Some("2026-03-01T12:00:01Z")));
        for passed in ["2026-03-01T12:00:00Z", "2020-01-01T00:00:00Z", "", "never"] {
            assert!(!counts(Some(passed)), "{passed}");
        }
        assert!(
            pairing_key(secret(31, None), now).is_none() && pairing_key(Secret::default(), now).is_none()
        );
    }
}
