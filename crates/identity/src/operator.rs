//! Ids of people who use gateways.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString as _},
    vec::Vec,
};
use core::{fmt, str::FromStr};

use thiserror::Error;

use crate::spiffe::{ID_BYTES_MAX, SCHEME, SHOWN_BYTES_MAX, cut, is_trust_domain};

/// Longest name of a user or a group, bytes: a service account's has 339.
const NAME_BYTES_MAX: usize = 512;
/// Groups in an id at most.
const GROUPS_MAX: usize = 64;
/// What stands before two hex digits of a byte that an id can't carry as it is.
const ESCAPE: char = '_';

/// `spiffe://TRUST/operator/USER/GROUP...`: the user and the groups that Kubernetes knows a person by. What is no ASCII letter or
/// digit, `-` or `.` stands as `_` and two hex digits for each byte of UTF-8, so that each name has one spelling:
/// `spiffe://wasmbed/operator/ada_40example.com/system_3Aauthenticated`. An id has at most 2,048 bytes and 64 groups, a name
/// 1 to 512 bytes and no control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperatorId {
    text: String,
    trust_domain: String,
    user: String,
    groups: Vec<String>,
}

impl OperatorId {
    /// The id of a user, with as many of the groups as fit, in their order. Rights of Kubernetes only add up: fewer groups have fewer.
    ///
    /// # Errors
    /// The trust domain or the user's name is none that an id can carry.
    pub fn fitting<'a>(
        trust_domain: &str,
        user: &str,
        groups: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, OperatorIdError> {
        let mut text = format!("{SCHEME}{trust_domain}/operator/{}", escaped(user));
        let mut id = text.parse::<Self>()?;
        for group in groups {
            let longer = format!("{text}/{}", escaped(group));
            if let Ok(fits) = longer.parse() {
                (text, id) = (longer, fits);
            }
        }
        Ok(id)
    }

    /// All of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain of the gateways.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The user's name, as Kubernetes has it.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The user's groups, as Kubernetes has them.
    #[must_use]
    pub fn groups(&self) -> &[String] {
        &self.groups
    }
}

impl FromStr for OperatorId {
    type Err = OperatorIdError;

    fn from_str(text: &str) -> Result<Self, OperatorIdError> {
        parse(text).ok_or_else(|| OperatorIdError { id: cut(text, SHOWN_BYTES_MAX).to_owned() })
    }
}

fn parse(text: &str) -> Option<OperatorId> {
    let rest = text.strip_prefix(SCHEME).filter(|_| text.len() <= ID_BYTES_MAX)?;
    let mut parts = rest.split('/');
    let trust_domain = parts.next().filter(|domain| is_trust_domain(domain))?;
    parts.next().filter(|kind| *kind == "operator")?;
    let user = unescaped(parts.next()?)?;
    let groups = parts.map(unescaped).collect::<Option<Vec<_>>>()?;
    (groups.len() <= GROUPS_MAX).then(|| OperatorId {
        text: text.to_owned(),
        trust_domain: trust_domain.to_owned(),
        user,
        groups,
    })
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.'
}

fn escaped(name: &str) -> String {
    // SPIFFE allows no segment that a path would take for a folder.
    let is_relative = matches!(name, "." | "..");
    name.bytes().fold(String::new(), |mut text, byte| {
        if is_plain(byte) && !is_relative {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("{ESCAPE}{byte:02X}"));
        }
        text
    })
}

/// The name that is spelt so; none if it would be spelt otherwise.
fn unescaped(segment: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = segment.chars();
    while let Some(letter) = rest.next() {
        if letter == ESCAPE {
            let digits = [rest.next()?, rest.next()?].map(|digit| digit.to_digit(16));
            let [Some(high), Some(low)] = digits else { return None };
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(u8::try_from(letter).ok()?);
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    let is_name = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    (is_name && escaped(&name) == segment).then_some(name)
}

impl fmt::Display for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string())
    }
}

/// A text is not the id of a person who uses gateways.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{id:?} is not spiffe://TRUST/operator/USER/GROUP..., with names of 1 to 512 bytes without control characters, in which \
     everything but letters, digits, '-' and '.' stands as '_' and two hex digits a byte"
)]
pub struct OperatorIdError {
    /// The text, cut to 256 bytes.
    pub id: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_has_its_parts() {
        let id = OperatorId::fitting("example.org", "ada@example.com", ["system:authenticated", "dev.ops-1"])
            .unwrap();
        assert_eq!(
            id.as_str(),
            "spiffe://example.org/operator/ada_40example.com/system_3Aauthenticated/dev.ops-1"
        );
        assert_eq!((id.trust_domain(), id.user()), ("example.org", "ada@example.com"));
        assert_eq!(id.groups(), ["system:authenticated", "dev.ops-1"]);
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        let dots = OperatorId::fitting("example.org", "..", ["."]).unwrap();
        assert_eq!(dots.as_str(), "spiffe://example.org/operator/_2E_2E/_2E");
    }

    #[test]
    fn other_texts_are_refused() {
        for user in ["", "a\nb", "\u{7f}", "\u{85}"] {
            assert!(OperatorId::fitting("example.org", user, []).is_err(), "{user:?}");
        }
        assert!(OperatorId::fitting("example.org", &"x".repeat(513), []).is_err());
        assert!(OperatorId::fitting("a/b", "x", []).is_err());
        for text in [
            "spiffe://example.org/ns/default/operator/a",
            "spiffe://example.org/operator",
            "spiffe://example.org/operator/",
            "spiffe://example.org/operator/a/",
            "spiffe://example.org/operator/a//b",
            "spiffe:///operator/a",
            "https://example.org/operator/a",
            // Other spellings of a name that has one.
            "spiffe://example.org/operator/_61",
            "spiffe://example.org/operator/a_3ab",
            "spiffe://example.org/operator/a:b",
            "spiffe://example.org/operator/a_3",
            "spiffe://example.org/operator/..",
            // No UTF-8, a control character.
            "spiffe://example.org/operator/_FF",
            "spiffe://example.org/operator/a_0A",
        ] {
            assert!(text.parse::<OperatorId>().is_err(), "{text}");
        }
    }

    #[test]
    fn groups_that_do_not_fit_are_left_out() {
        let long = "g".repeat(450);
        let groups = ["first", "with\ncontrol", "", &long, &long, &long, &long, &long, "last"];
        let id = OperatorId::fitting("example.org", "ada", groups).unwrap();
        assert_eq!(id.groups(), ["first", &long, &long, &long, &long, "last"]);
        assert!(id.as_str().len() <= ID_BYTES_MAX);
        let many = ["g"; 100];
        assert_eq!(OperatorId::fitting("example.org", "ada", many).unwrap().groups().len(), GROUPS_MAX);
    }

    proptest! {
        #[test]
        fn names_survive(user: String, groups: Vec<String>) {
            let Ok(id) = OperatorId::fitting("example.org", &user, groups.iter().map(String::as_str)) else {
                prop_assert!(user.is_empty() || user.len() > NAME_BYTES_MAX || user.chars().any(char::is_control));
                return Ok(());
            };
            prop_assert_eq!(id.user(), &user);
            let mut given = groups.iter();
            prop_assert!(id.groups().iter().all(|group| given.any(|one| one == group)), "in order, none made up");
            prop_assert!(id.as_str().bytes().all(|byte| is_plain(byte) || b"_/:".contains(&byte)));
            prop_assert_eq!(id.as_str().parse(), Ok(id.clone()));
        }

        #[test]
        fn any_text_is_an_id_with_one_spelling_or_none(text in "spiffe://[a-z.]{1,3}/operator/([a-zA-Z0-9_.:/-]|_[0-9A-F]{2}){0,20}") {
            if let Ok(id) = text.parse::<OperatorId>() {
                let again = OperatorId::fitting(id.trust_domain(), id.user(), id.groups().iter().map(String::as_str));
                prop_assert_eq!(again, Ok(id));
            }
        }
    }
}
