//! SPIFFE ids of the four kinds of peers.

use alloc::{borrow::ToOwned, format, string::String};
use core::{fmt, str::FromStr};

use thiserror::Error;

/// Longest id that SPIFFE allows, bytes.
pub(crate) const ID_BYTES_MAX: usize = 2_048;
/// Longest namespace, as Kubernetes has it.
const NAMESPACE_BYTES_MAX: usize = 63;
/// Longest name of an object, as Kubernetes has it.
const NAME_BYTES_MAX: usize = 253;
/// Longest trust domain, as SPIFFE has it.
const TRUST_DOMAIN_BYTES_MAX: usize = 255;
/// Bytes of a text that an error repeats.
pub(crate) const SHOWN_BYTES_MAX: usize = 256;
pub(crate) const SCHEME: &str = "spiffe://";

/// What a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Holds devices' sessions.
    Gateway,
    /// Sends gateways the desired sets of their devices.
    Controller,
    /// A person or tool that reads logs from gateways.
    Operator,
    /// A microcontroller.
    Device,
}

impl Role {
    const ALL: [Self; 4] = [Self::Gateway, Self::Controller, Self::Operator, Self::Device];

    /// The role as an id spells it.
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
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `spiffe://TRUST/ns/NAMESPACE/ROLE/NAME`
/// (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>); namespace and name are valid Kubernetes names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    /// The whole id: [`FromStr`] has checked each part.
    text: String,
    role: Role,
}

impl SpiffeId {
    /// An id of these parts.
    ///
    /// # Errors
    /// A part that is not a trust domain (lower-case letters, digits, `.`, `-`, `_`) or not a Kubernetes name.
    pub fn new(trust_domain: &str, namespace: &str, role: Role, name: &str) -> Result<Self, SpiffeError> {
        format!("{SCHEME}{trust_domain}/ns/{namespace}/{role}/{name}").parse()
    }

    /// All of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain: peers of another one belong to another fleet.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.part(0)
    }

    /// Kubernetes namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.part(2)
    }

    /// What the peer is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Name of the Kubernetes object.
    #[must_use]
    pub fn name(&self) -> &str {
        self.part(4)
    }

    fn part(&self, index: usize) -> &str {
        let part = self.text.get(SCHEME.len()..).and_then(|rest| rest.split('/').nth(index));
        debug_assert!(part.is_some(), "an id has five parts");
        part.unwrap_or_default()
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        match check(text) {
            Ok(role) => Ok(Self { text: text.to_owned(), role }),
            Err(problem) => Err(SpiffeError { id: cut(text, SHOWN_BYTES_MAX).to_owned(), problem }),
        }
    }
}

fn check(text: &str) -> Result<Role, SpiffeProblem> {
    if text.len() > ID_BYTES_MAX {
        return Err(SpiffeProblem::Length);
    }
    let mut parts = text.strip_prefix(SCHEME).ok_or(SpiffeProblem::Scheme)?.split('/');
    let mut next = || parts.next().ok_or(SpiffeProblem::Path);
    let (trust_domain, ns, namespace, role, name) = (next()?, next()?, next()?, next()?, next()?);
    if ns != "ns" || parts.next().is_some() {
        return Err(SpiffeProblem::Path);
    }
    if !is_trust_domain(trust_domain) {
        return Err(SpiffeProblem::TrustDomain);
    }
    if !is_dns_label(namespace, NAMESPACE_BYTES_MAX) {
        return Err(SpiffeProblem::Namespace);
    }
    let role = Role::parse(role).ok_or(SpiffeProblem::Role)?;
    if name.len() > NAME_BYTES_MAX || !name.split('.').all(|label| is_dns_label(label, NAME_BYTES_MAX)) {
        return Err(SpiffeProblem::Name);
    }
    Ok(role)
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A text is not a SPIFFE id of the form `spiffe://TRUST/ns/NAMESPACE/ROLE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{id:?} is not spiffe://TRUST/ns/NAMESPACE/ROLE/NAME: {problem}")]
pub struct SpiffeError {
    /// The text, cut to 256 bytes.
    pub id: String,
    /// What is wrong with it.
    pub problem: SpiffeProblem,
}

/// What is wrong with an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "each variant's message says it")]
pub enum SpiffeProblem {
    #[error("it is longer than 2,048 bytes")]
    Length,
    #[error("it does not begin with spiffe://")]
    Scheme,
    #[error("its path is not /ns/NAMESPACE/ROLE/NAME")]
    Path,
    #[error("the trust domain is not 1 to 255 of a-z, 0-9, '.', '-', '_'")]
    TrustDomain,
    #[error("the namespace is not a Kubernetes namespace")]
    Namespace,
    #[error("the role is not gateway, controller, operator or device")]
    Role,
    #[error("the name is not a Kubernetes name")]
    Name,
}

/// The beginning of a text, at most so many bytes.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=text.len().min(bytes_max)).rev().find(|&end| text.is_char_boundary(end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

pub(crate) fn is_trust_domain(text: &str) -> bool {
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

    #[test]
    fn an_id_survives_formatting_and_parsing() {
        let id = SpiffeId::new("example.org", "default", Role::Device, "board-1.lab").unwrap();
        assert_eq!(id.to_string(), "spiffe://example.org/ns/default/device/board-1.lab");
        assert_eq!((id.trust_domain(), id.namespace()), ("example.org", "default"));
        assert_eq!((id.role(), id.name()), (Role::Device, "board-1.lab"));
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn everything_that_is_not_exactly_an_id_is_refused() {
        use SpiffeProblem::*;
        for (text, problem) in [
            ("", Scheme),
            ("https://example.org/ns/default/device/a", Scheme),
            ("spiffe://example.org", Path),
            ("spiffe://example.org/ns/default/device/a/b", Path),
            ("spiffe://example.org/n/default/device/a", Path),
            ("spiffe://example.org/ns/default/device/", Name),
            ("spiffe://example.org/ns//device/a", Namespace),
            ("spiffe:///ns/default/device/a", TrustDomain),
            ("spiffe://Example.org/ns/default/device/a", TrustDomain),
            ("spiffe://example.org:443/ns/default/device/a", TrustDomain),
            ("spiffe://user@example.org/ns/default/device/a", TrustDomain),
            ("spiffe://example.org/ns/default/admin/a", Role),
            ("spiffe://example.org/ns/default/device/A", Name),
            ("spiffe://example.org/ns/default/device/..", Name),
            ("spiffe://example.org/ns/default/device/a?x=1", Name),
            ("spiffe://example.org/ns/default/device/a%2fb", Name),
            ("spiffe://example.org/ns/de.fault/device/a", Namespace),
        ] {
            assert_eq!(text.parse::<SpiffeId>().unwrap_err().problem, problem, "{text}");
        }
        let long = format!("spiffe://example.org/ns/default/device/{}", "ä".repeat(2_000));
        let error = long.parse::<SpiffeId>().unwrap_err();
        assert_eq!(error.problem, Length);
        assert!(error.id.len() <= SHOWN_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn an_id_is_its_parts(
            text in "spiffe://[a-z0-9._-]{1,9}/ns/[a-z0-9]{1,64}/(gateway|device|operator|controller)/[a-z0-9]{1,5}([.][a-z0-9]{1,250})?"
        ) {
            let parts = text.strip_prefix(SCHEME).unwrap().split('/').collect::<std::vec::Vec<_>>();
            match text.parse::<SpiffeId>() {
                Ok(id) => {
                    assert_eq!(id.as_str(), text);
                    assert_eq!([id.trust_domain(), "ns", id.namespace(), id.role().as_str(), id.name()], *parts);
                }
                Err(error) => assert!(parts[2].len() > 63 || parts[4].len() > 253, "{error}"),
            }
        }

        #[test]
        fn any_text_is_an_id_or_an_error(
            text in "(spiffe://)?([a-zA-Z._-]{1,4}|[a-z]{254,256})/(ns|n)?/[a-z0-9-]{0,4}/(gateway|device|operator|controller|x)/[a-z.-]{0,5}(/x)?"
        ) {
            if let Ok(id) = text.parse::<SpiffeId>() {
                assert_eq!(id.to_string(), text);
            }
        }
    }
}
