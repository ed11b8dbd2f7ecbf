//! SPIFFE ids, read as the host's `wasmbed-pki` reads them.

use alloc::string::String;
use core::fmt;

/// Longest id that SPIFFE allows, bytes.
const ID_BYTES_MAX: usize = 2_048;
/// Longest namespace, as Kubernetes has it.
const NAMESPACE_BYTES_MAX: usize = 63;
/// Longest name of an object, as Kubernetes has it.
const NAME_BYTES_MAX: usize = 253;
/// Longest trust domain, as SPIFFE has it.
const TRUST_DOMAIN_BYTES_MAX: usize = 255;
const SCHEME: &str = "spiffe://";
const ROLES: [&str; 4] = ["gateway", "controller", "operator", "device"];

/// `spiffe://TRUST/ns/NAMESPACE/ROLE/NAME`, of which every part is in order.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId(String);

impl SpiffeId {
    /// None if the text is no id of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > ID_BYTES_MAX {
            return None;
        }
        let mut parts = text.strip_prefix(SCHEME)?.split('/');
        let (trust_domain, ns, namespace, role, name) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let whole = parts.next().is_none()
            && ns == "ns"
            && is_trust_domain(trust_domain)
            && is_dns_label(namespace, NAMESPACE_BYTES_MAX)
            && ROLES.contains(&role)
            && name.len() <= NAME_BYTES_MAX
            && name.split('.').all(|label| is_dns_label(label, NAME_BYTES_MAX));
        whole.then(|| Self(text.into()))
    }

    /// All of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whose authority the id stands under.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.part(0)
    }

    /// Kubernetes namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.part(2)
    }

    /// `gateway`, `controller`, `operator` or `device`.
    #[must_use]
    pub fn role(&self) -> &str {
        self.part(3)
    }

    /// Name of the Kubernetes object.
    #[must_use]
    pub fn name(&self) -> &str {
        self.part(4)
    }

    fn part(&self, index: usize) -> &str {
        self.0.get(SCHEME.len()..).and_then(|rest| rest.split('/').nth(index)).unwrap_or_default()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_trust_domain(text: &str) -> bool {
    (1..=TRUST_DOMAIN_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
}

/// RFC 1123 label, as Kubernetes has it.
fn is_dns_label(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    fn agrees(text: &str) {
        let host = text.parse::<wasmbed_pki::SpiffeId>().ok();
        let board = SpiffeId::parse(text);
        assert_eq!(host.is_some(), board.is_some(), "{text:?}");
        if let (Some(host), Some(board)) = (host, board) {
            assert_eq!(host.to_string(), board.as_str());
            assert_eq!(host.trust_domain(), board.trust_domain());
            assert_eq!(host.namespace(), board.namespace());
            assert_eq!(host.role().as_str(), board.role());
            assert_eq!(host.name(), board.name());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_id_here_if_it_is_one_on_the_host(
            text in "(spiffe://)?([a-zA-Z._-]{1,4}|[a-z]{254,256})/(ns|n)?/[a-z0-9-]{0,4}/(gateway|device|operator|controller|x)/[a-z.-]{0,5}(/x)?"
        ) {
            agrees(&text);
        }

        #[test]
        fn an_id_is_one_on_both_sides(
            text in "spiffe://[a-z0-9._-]{1,9}/ns/[a-z0-9]{1,64}/(gateway|device|operator|controller)/[a-z0-9]{1,5}([.][a-z0-9]{1,250})?"
        ) {
            agrees(&text);
        }
    }
}
