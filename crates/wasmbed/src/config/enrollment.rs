//! Who comes into the fleet: a policy alone, or a section.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, IntoDeserializer as _, value::MapAccessDeserializer},
};

/// What happens to devices that nobody created, and how devices join. `enrollment: open` is the policy alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrollment {
    /// What happens to devices that nobody created.
    pub policy: EnrollmentPolicy,
    /// Namespace of the Devices that are created for devices with a certificate of a factory.
    pub namespace: String,
    /// Devices of a namespace that name a serial and are not approved, at most, before no more are created.
    pub pending_max: usize,
    /// Whether devices join with pairing tokens.
    pub tokens: bool,
}

/// What happens to devices that nobody created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnrollmentPolicy {
    /// They are refused.
    Closed,
    /// A Device is created and waits for approval.
    #[default]
    Approval,
    /// A Device is created and its session is established at once; only `revoked` keeps a device out.
    Open,
}

impl Default for Enrollment {
    fn default() -> Self {
        Self {
            policy: EnrollmentPolicy::default(),
            namespace: "default".to_owned(),
            pending_max: 1_000,
            tokens: true,
        }
    }
}

/// The section as it stands in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    policy: EnrollmentPolicy,
    namespace: String,
    pending_max: usize,
    tokens: bool,
}

impl Default for Section {
    fn default() -> Self {
        let Enrollment { policy, namespace, pending_max, tokens } = Enrollment::default();
        Self { policy, namespace, pending_max, tokens }
    }
}

impl<'de> Deserialize<'de> for Enrollment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Enrollment;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed, approval or open, or a section with policy, namespace, pending_max and tokens")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Enrollment, E> {
        let policy = EnrollmentPolicy::deserialize(text.into_deserializer())?;
        Ok(Enrollment { policy, ..Enrollment::default() })
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Enrollment, A::Error> {
        let Section { policy, namespace, pending_max, tokens } =
            Section::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Enrollment { policy, namespace, pending_max, tokens })
    }
}
