//! Time as an argument, and wall-clock times in resources and on the wire.

use std::{borrow::Cow, fmt};

use k8s_openapi::jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The two clocks of an input: one for intervals, one for people. Always the first argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, milliseconds from any origin.
    pub ms: u64,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: u64,
}

/// A wall-clock time to the millisecond. Ordered by time, not by text. Its text is RFC 3339 in UTC, always with three digits; any other precision is read as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime {
    /// Since 1970-01-01T00:00:00Z, milliseconds.
    pub ms: u64,
}

impl UnixTime {
    /// A moment so many milliseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self { ms }
    }

    /// `None` for what is not RFC 3339, or before 1970.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let ms = text.parse::<Timestamp>().ok()?.as_millisecond();
        u64::try_from(ms).ok().map(Self::from_ms)
    }

    /// RFC 3339 to the second, as Kubernetes writes times in a status.
    #[must_use]
    pub fn to_seconds_text(self) -> String {
        format!("{:.0}", self.timestamp())
    }

    fn timestamp(self) -> Timestamp {
        let ms = i64::try_from(self.ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        ms.unwrap_or(Timestamp::MAX)
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.timestamp())
    }
}

impl Serialize for UnixTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UnixTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom("not a time in RFC 3339, such as 2026-01-02T03:04:05.678Z"))
    }
}

impl JsonSchema for UnixTime {
    fn schema_name() -> Cow<'static, str> {
        "UnixTime".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_one_precision_and_every_precision_is_read() {
        let whole = UnixTime::from_ms(1_767_323_045_000);
        assert_eq!(whole.to_string(), "2026-01-02T03:04:05.000Z");
        assert_eq!(UnixTime::from_ms(whole.ms + 120).to_string(), "2026-01-02T03:04:05.120Z");
        assert_eq!(UnixTime::from_ms(whole.ms + 999).to_seconds_text(), "2026-01-02T03:04:05Z");
        for text in ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.0Z", "2026-01-02T04:04:05.000000+01:00"] {
            assert_eq!(UnixTime::parse(text), Some(whole), "{text}");
        }
        assert!(UnixTime::parse("2026-01-02T03:04:05.1Z") > UnixTime::parse("2026-01-02T03:04:05Z"));
        assert_eq!(UnixTime::parse("yesterday"), None);
        assert_eq!(UnixTime::from_ms(u64::MAX).to_string().len(), "2026-01-02T03:04:05.000Z".len());
    }
}
