//! Ids of devices that belong to no fleet yet.

use alloc::{borrow::ToOwned, format, string::String};
use core::{fmt, str::FromStr};

use thiserror::Error;

use crate::spiffe::{ID_BYTES_MAX, SCHEME, SHOWN_BYTES_MAX, cut, is_trust_domain};

/// Longest serial, bytes: it becomes a Kubernetes name, and a label's value.
const SERIAL_BYTES_MAX: usize = 63;

/// `spiffe://TRUST/factory/SERIAL`: what a device's maker calls it, before it has a namespace and a name. The serial is 1 to 63 of
/// letters, digits, `-`, `.` and `_`, and begins and ends with a letter or a digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FactoryId {
    /// The whole id: [`FromStr`] has checked each part.
    text: String,
}

impl FactoryId {
    /// An id of these parts.
    ///
    /// # Errors
    /// The trust domain or the serial is not one.
    pub fn new(trust_domain: &str, serial: &str) -> Result<Self, FactoryIdError> {
        format!("{SCHEME}{trust_domain}/factory/{serial}").parse()
    }

    /// All of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain of the fleet that the device is made for.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.part(0)
    }

    /// The device's serial.
    #[must_use]
    pub fn serial(&self) -> &str {
        self.part(2)
    }

    /// The name of a Device for it: the serial in lower case, with `-` for `_` and `.`. Two serials may have one name; whoever
    /// creates the Device says in its spec which one it is.
    #[must_use]
    pub fn device_name(&self) -> String {
        let label = |letter: char| match letter {
            '_' | '.' => '-',
            letter => letter.to_ascii_lowercase(),
        };
        self.serial().chars().map(label).collect()
    }

    fn part(&self, index: usize) -> &str {
        let part = self.text.get(SCHEME.len()..).and_then(|rest| rest.split('/').nth(index));
        debug_assert!(part.is_some(), "an id has three parts");
        part.unwrap_or_default()
    }
}

impl FromStr for FactoryId {
    type Err = FactoryIdError;

    fn from_str(text: &str) -> Result<Self, FactoryIdError> {
        if is_factory_id(text) {
            Ok(Self { text: text.to_owned() })
        } else {
            Err(FactoryIdError { id: cut(text, SHOWN_BYTES_MAX).to_owned() })
        }
    }
}

fn is_factory_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(SCHEME).filter(|_| text.len() <= ID_BYTES_MAX) else { return false };
    let mut parts = rest.split('/');
    let (trust_domain, factory, serial) = (parts.next(), parts.next(), parts.next());
    trust_domain.is_some_and(is_trust_domain)
        && factory == Some("factory")
        && serial.is_some_and(is_serial)
        && parts.next().is_none()
}

fn is_serial(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=SERIAL_BYTES_MAX).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte))
        && [bytes.first(), bytes.last()].into_iter().flatten().all(u8::is_ascii_alphanumeric)
}

impl fmt::Display for FactoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for FactoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A text is not the id of a device from its factory.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{id:?} is not spiffe://TRUST/factory/SERIAL, with a serial of 1 to 63 letters, digits, '-', '.' and '_' that begins and \
     ends with a letter or a digit"
)]
pub struct FactoryIdError {
    /// The text, cut to 256 bytes.
    pub id: String,
}

#[cfg(test)]
mod tests {
    use std::string::ToString as _;

    use super::*;

    #[test]
    fn an_id_has_its_parts() {
        let id = FactoryId::new("example.org", "SN_0042.a").unwrap();
        assert_eq!(id.to_string(), "spiffe://example.org/factory/SN_0042.a");
        assert_eq!((id.trust_domain(), id.serial()), ("example.org", "SN_0042.a"));
        assert_eq!(id.device_name(), "sn-0042-a");
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
    }

    #[test]
    fn other_texts_are_refused() {
        let long = "x".repeat(64);
        for serial in ["", "-a", "a-", "a b", "ä", "a/b", ".", &long] {
            assert!(FactoryId::new("example.org", serial).is_err(), "{serial}");
        }
        for text in [
            "spiffe://example.org/ns/default/device/a",
            "spiffe://example.org/factory",
            "spiffe://example.org/factory/a/b",
            "spiffe:///factory/a",
            "https://example.org/factory/a",
        ] {
            assert!(text.parse::<FactoryId>().is_err(), "{text}");
        }
    }
}
