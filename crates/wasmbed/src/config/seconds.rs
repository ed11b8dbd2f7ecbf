//! Durations as the configuration writes them.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// A duration: a number of seconds, or a number with a unit: `500ms`, `30s`, `5m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

impl Seconds {
    /// Whole seconds.
    #[must_use]
    pub const fn new(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs_f64())
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = Seconds;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of seconds, or a number with ms, s, m or h such as 30s")
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Seconds, E> {
        Ok(Seconds::new(seconds))
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Seconds, E> {
        let whole = u64::try_from(seconds);
        whole.map(Seconds::new).map_err(|_| E::invalid_value(de::Unexpected::Signed(seconds), &self))
    }

    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Seconds, E> {
        let duration = Duration::try_from_secs_f64(seconds);
        duration.map(Seconds).map_err(|_| E::invalid_value(de::Unexpected::Float(seconds), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Seconds, E> {
        parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl std::str::FromStr for Seconds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or("expected a number of seconds, or a number with ms, s, m or h such as 30s")
    }
}

fn parse(text: &str) -> Option<Seconds> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit_ms = match unit.trim() {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Seconds(Duration::from_millis(number.checked_mul(unit_ms)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood_and_others_refused() {
        assert_eq!(parse("500ms"), Some(Seconds(Duration::from_millis(500))));
        assert_eq!(parse("30"), Some(Seconds::new(30)));
        assert_eq!(parse("5m"), Some(Seconds::new(300)));
        assert_eq!(parse("1h"), Some(Seconds::new(3_600)));
        for bad in ["", "s", "-1s", "5 days", "1.5s", "18446744073709551615h"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
