//! SPIFFE ids of the four kinds of peers.

use std::{fmt, str::FromStr};

use crate::{CertificateError, SpiffeError, certificate};

/// Longest id that SPIFFE allows, bytes.
const ID_BYTES_MAX: usize = 2_048;
/// Longest namespace, as Kubernetes has it.
const NAMESPACE_BYTES_MAX: usize = 63;
/// Longest name of an object, as Kubernetes has it.
const NAME_BYTES_MAX: usize = 253;
/// Longest trust domain, as SPIFFE has it.
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// What a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Holds devices' sessions.
    Gateway,
    /// Sends gateways what devices are to run.
    Controller,
    /// A person or tool that reads logs from gateways.
    Operator,
    /// A microcontroller.
    Device,
}

impl Role {
    /// The role as it stands in an id.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Controller => "controller",
            Self::Operator => "operator",
            Self::Device => "device",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Gateway, Self::Controller, Self::Operator, Self::Device]
            .into_iter()
            .find(|role| role.as_str() == text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `spiffe://TRUST/ns/NAMESPACE/ROLE/NAME`; namespace and name are valid Kubernetes names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    trust_domain: String,
    namespace: String,
    role: Role,
    name: String,
}

impl SpiffeId {
    /// An id of these parts.
    ///
    /// # Errors
    /// A part that is no trust domain (lower-case letters, digits, `.`, `-`, `_`) or no Kubernetes name.
    pub fn new(trust_domain: &str, namespace: &str, role: Role, name: &str) -> Result<Self, SpiffeError> {
        format!("spiffe://{trust_domain}/ns/{namespace}/{role}/{name}").parse()
    }

    /// The one id in a DER certificate.
    ///
    /// # Errors
    /// The certificate can't be parsed, or does not name exactly one URI that is an id of ours.
    pub fn from_certificate(der: &[u8]) -> Result<Self, CertificateError> {
        certificate::spiffe_id(der)
    }

    /// Whose authority the id stands under.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Kubernetes namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What the peer is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Name of the Kubernetes object.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, namespace, role, name } = self;
        write!(f, "spiffe://{trust_domain}/ns/{namespace}/{role}/{name}")
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let refuse = |problem| {
            let end = (0..=text.len().min(256)).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
            SpiffeError { id: text[..end].to_owned(), problem }
        };
        if text.len() > ID_BYTES_MAX {
            return Err(refuse("it is longer than 2,048 bytes"));
        }
        let rest =
            text.strip_prefix("spiffe://").ok_or_else(|| refuse("it does not begin with spiffe://"))?;
        let parts: Vec<&str> = rest.split('/').collect();
        let &[trust_domain, "ns", namespace, role, name] = parts.as_slice() else {
            return Err(refuse("its path is not /ns/NAMESPACE/ROLE/NAME"));
        };
        if !is_trust_domain(trust_domain) {
            return Err(refuse("the trust domain is not 1 to 255 of a-z, 0-9, '.', '-', '_'"));
        }
        if !is_dns_label(namespace, NAMESPACE_BYTES_MAX) {
            return Err(refuse("the namespace is not a Kubernetes namespace"));
        }
        let role = Role::parse(role)
            .ok_or_else(|| refuse("the role is not gateway, controller, operator or device"))?;
        if name.len() > NAME_BYTES_MAX || !name.split('.').all(|label| is_dns_label(label, NAME_BYTES_MAX)) {
            return Err(refuse("the name is not a Kubernetes name"));
        }
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            namespace: namespace.to_owned(),
            role,
            name: name.to_owned(),
        })
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
    use super::*;

    #[test]
    fn an_id_survives_formatting_and_parsing() {
        let id = SpiffeId::new("example.org", "default", Role::Device, "board-1.lab").unwrap();
        assert_eq!(id.to_string(), "spiffe://example.org/ns/default/device/board-1.lab");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn everything_that_is_not_exactly_an_id_is_refused() {
        for text in [
            "",
            "https://example.org/ns/default/device/a",
            "spiffe://example.org",
            "spiffe://example.org/ns/default/device/a/b",
            "spiffe://example.org/ns/default/device/",
            "spiffe://example.org/ns//device/a",
            "spiffe:///ns/default/device/a",
            "spiffe://Example.org/ns/default/device/a",
            "spiffe://example.org:443/ns/default/device/a",
            "spiffe://user@example.org/ns/default/device/a",
            "spiffe://example.org/ns/default/admin/a",
            "spiffe://example.org/ns/default/device/A",
            "spiffe://example.org/ns/default/device/..",
            "spiffe://example.org/ns/default/device/a?x=1",
            "spiffe://example.org/ns/default/device/a%2fb",
            "spiffe://example.org/ns/de.fault/device/a",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
        let long = format!("spiffe://example.org/ns/default/device/{}", "ä".repeat(2_000));
        assert!(long.parse::<SpiffeId>().unwrap_err().id.len() <= 256);
    }
}
