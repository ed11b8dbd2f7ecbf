//! Settings: what a module says of those that it has, and what a value must be.
//!
//! The schema is a custom section of the module, [`SCHEMA_SECTION`]: UTF-8 with a line for each setting, so that sections of
//! the same name which a linker joins are one schema.
//!
//! ```text
//! schema  = *( setting LF )
//! setting = name " " type [ " " range ] [ " reported" ] " = " default
//! name    = ALPHA *31( ALPHA / DIGIT / "_" / "-" / "." )
//! type    = "bool" / "int" / "text"
//! range   = min ".." max        of an int, both in it
//!         / ".." bytes          of a text, its UTF-8 bytes at most
//! default = "true" / "false" / integer / text to the end of the line
//! ```
//!
//! ```
//! use wasmbed_protocol::{Schema, SettingResult, SettingValue};
//!
//! let schema = Schema::parse(b"interval_ms int 100..60000 reported = 1000\nlabel text ..32 = living room\n")?;
//! assert_eq!(schema.judge("interval_ms", SettingValue::Integer(250)), SettingResult::Accepted);
//! assert_eq!(schema.judge("interval_ms", SettingValue::Integer(5)), SettingResult::OutOfRange);
//! assert_eq!(schema.find("label").map(|label| label.default), Some(SettingValue::Text("living room")));
//! # Ok::<(), wasmbed_protocol::SchemaError>(())
//! ```

use core::fmt;

use crate::{
    limits::{SETTING_NAME_BYTES_MAX, SETTING_TEXT_BYTES_MAX, SETTINGS_MAX, SETTINGS_SCHEMA_BYTES_MAX},
    message::SettingResult,
    setting_value::SettingValue,
};

/// The custom section of a module that says which settings it has.
pub const SCHEMA_SECTION: &str = "wasmbed.settings";

/// What values a setting may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingType {
    /// `true` or `false`.
    Boolean,
    /// A whole number within bounds.
    Integer {
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// Text.
    Text {
        /// Its UTF-8 bytes at most.
        bytes_max: usize,
    },
}

/// As the schema writes it, for people.
impl fmt::Display for SettingType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("bool"),
            Self::Integer { min: i64::MIN, max: i64::MAX } => f.write_str("int"),
            Self::Integer { min, max } => write!(f, "int {min}..{max}"),
            Self::Text { bytes_max } => write!(f, "text ..{bytes_max}"),
        }
    }
}

impl SettingType {
    /// Whether a value is one of this type.
    #[must_use]
    pub fn judge(&self, value: SettingValue<'_>) -> SettingResult {
        match (self, value) {
            (Self::Boolean, SettingValue::Boolean(_)) => SettingResult::Accepted,
            (Self::Integer { min, max }, SettingValue::Integer(value)) => {
                if (min..=max).contains(&&value) {
                    SettingResult::Accepted
                } else {
                    SettingResult::OutOfRange
                }
            }
            (Self::Text { bytes_max }, SettingValue::Text(value)) => {
                if value.len() <= *bytes_max {
                    SettingResult::Accepted
                } else {
                    SettingResult::TooLong
                }
            }
            (Self::Boolean | Self::Integer { .. } | Self::Text { .. }, _) => SettingResult::WrongType,
        }
    }

    /// The value that a text stands for: as a schema writes a default, and a person a value.
    #[must_use]
    pub fn read<'a>(&self, text: &'a str) -> Option<SettingValue<'a>> {
        match self {
            Self::Boolean => text.parse().ok().map(SettingValue::Boolean),
            Self::Integer { .. } => text.parse().ok().map(SettingValue::Integer),
            Self::Text { .. } => Some(SettingValue::Text(text)),
        }
    }
}

/// A setting that a module has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingSchema<'a> {
    /// Names it.
    pub name: &'a str,
    /// What values it may have.
    pub kind: SettingType,
    /// Whether a device says which value is in use.
    pub is_reported: bool,
    /// What it is where nothing else is set.
    pub default: SettingValue<'a>,
}

/// What is wrong with a line of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaFault {
    /// The section has more bytes than [`SETTINGS_SCHEMA_BYTES_MAX`].
    TooLong,
    /// It is not UTF-8.
    NotText,
    /// More settings than [`SETTINGS_MAX`].
    TooMany,
    /// No `NAME TYPE = DEFAULT`.
    Form,
    /// No name of a setting.
    Name,
    /// A name of an earlier line.
    Twice,
    /// No type, or a range that it does not have.
    Type,
    /// The default is not of the type, or outside its range.
    Default,
}

/// A section that is no schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaError {
    /// Counts from 1; 0 for the section as a whole.
    pub line: usize,
    /// What is wrong.
    pub fault: SchemaFault,
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        match self.fault {
            SchemaFault::TooLong => write!(f, "more than {SETTINGS_SCHEMA_BYTES_MAX} bytes"),
            SchemaFault::NotText => f.write_str("not UTF-8"),
            SchemaFault::TooMany => write!(f, "more than {SETTINGS_MAX} settings"),
            SchemaFault::Form => f.write_str("not of the form `NAME TYPE = DEFAULT`"),
            SchemaFault::Name => write!(
                f,
                "a name has a letter and then at most {} letters, digits, `_`, `-` or `.`",
                SETTING_NAME_BYTES_MAX - 1
            ),
            SchemaFault::Twice => f.write_str("a name that an earlier line has"),
            SchemaFault::Type => write!(
                f,
                "a type is `bool`, `int`, `int MIN..MAX`, `text` or `text ..BYTES` of at most {SETTING_TEXT_BYTES_MAX}, then `reported` or nothing"
            ),
            SchemaFault::Default => f.write_str("the default is not of the type, or outside its range"),
        }
    }
}

impl core::error::Error for SchemaError {}

/// The settings of a module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schema<'a> {
    /// Each line of it was read once.
    text: &'a str,
}

impl<'a> Schema<'a> {
    /// Reads the content of the section.
    ///
    /// # Errors
    /// It is no schema; names the line.
    pub fn parse(section: &'a [u8]) -> Result<Self, SchemaError> {
        let whole = |fault| SchemaError { line: 0, fault };
        if section.len() > SETTINGS_SCHEMA_BYTES_MAX {
            return Err(whole(SchemaFault::TooLong));
        }
        let text = core::str::from_utf8(section).map_err(|_| whole(SchemaFault::NotText))?;
        let schema = Self { text };
        for (index, line) in text.lines().enumerate() {
            let wrong = |fault| SchemaError { line: index + 1, fault };
            if index >= SETTINGS_MAX {
                return Err(wrong(SchemaFault::TooMany));
            }
            let setting = parse_line(line).map_err(wrong)?;
            if schema.iter().take(index).any(|earlier| earlier.name == setting.name) {
                return Err(wrong(SchemaFault::Twice));
            }
        }
        Ok(schema)
    }

    /// Its settings, in its order.
    pub fn iter(&self) -> impl Iterator<Item = SettingSchema<'a>> + use<'a> {
        self.text.lines().map_while(|line| parse_line(line).ok())
    }

    /// Whether there are no settings.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The setting of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<SettingSchema<'a>> {
        self.iter().find(|setting| setting.name == name)
    }

    /// Whether a setting may have a value.
    #[must_use]
    pub fn judge(&self, name: &str, value: SettingValue<'_>) -> SettingResult {
        if self.is_empty() {
            return SettingResult::NoSchema;
        }
        self.find(name).map_or(SettingResult::UnknownSetting, |setting| setting.kind.judge(value))
    }
}

fn parse_line(line: &str) -> Result<SettingSchema<'_>, SchemaFault> {
    let (head, default) = line.split_once('=').ok_or(SchemaFault::Form)?;
    let head = head.strip_suffix(' ').ok_or(SchemaFault::Form)?;
    let default = match default.strip_prefix(' ') {
        Some(default) => default,
        None if default.is_empty() => default,
        None => return Err(SchemaFault::Form),
    };
    let mut words = head.split(' ');
    let name = words.next().filter(|name| is_name(name)).ok_or(SchemaFault::Name)?;
    let kind = words.next().ok_or(SchemaFault::Form)?;
    let (mut range, mut is_reported) = (None, false);
    for word in words {
        match word {
            _ if is_reported => return Err(SchemaFault::Type),
            "reported" => is_reported = true,
            _ if range.is_none() => range = Some(word),
            _ => return Err(SchemaFault::Type),
        }
    }
    let kind = setting_type(kind, range).ok_or(SchemaFault::Type)?;
    let default = kind.read(default).ok_or(SchemaFault::Default)?;
    if kind.judge(default) != SettingResult::Accepted {
        return Err(SchemaFault::Default);
    }
    Ok(SettingSchema { name, kind, is_reported, default })
}

fn is_name(name: &str) -> bool {
    let others = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    name.len() <= SETTING_NAME_BYTES_MAX
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && name.as_bytes().iter().all(others)
}

fn setting_type(kind: &str, range: Option<&str>) -> Option<SettingType> {
    let bounds = range.map(|range| range.split_once("..").ok_or(()));
    Some(match (kind, bounds) {
        ("bool", None) => SettingType::Boolean,
        ("int", None) => SettingType::Integer { min: i64::MIN, max: i64::MAX },
        ("int", Some(Ok((min, max)))) => {
            SettingType::Integer { min: min.parse().ok()?, max: max.parse().ok()? }
        }
        ("text", None) => SettingType::Text { bytes_max: SETTING_TEXT_BYTES_MAX },
        ("text", Some(Ok(("", bytes)))) => {
            let bytes_max = bytes.parse().ok().filter(|bytes| *bytes <= SETTING_TEXT_BYTES_MAX)?;
            SettingType::Text { bytes_max }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, string::String, vec::Vec};

    fn fault(text: &str) -> Option<(usize, SchemaFault)> {
        Schema::parse(text.as_bytes()).err().map(|error| (error.line, error.fault))
    }

    #[test]
    fn each_line_is_a_setting() {
        let text = "on bool = true\nlevel int reported = -3\nmode.x text ..8 = a = b\nempty text =\n";
        let schema = Schema::parse(text.as_bytes()).unwrap();
        let found: Vec<_> = schema.iter().map(|it| (it.name, it.kind, it.is_reported, it.default)).collect();
        let int = SettingType::Integer { min: i64::MIN, max: i64::MAX };
        let expected = [
            ("on", SettingType::Boolean, false, SettingValue::Boolean(true)),
            ("level", int, true, SettingValue::Integer(-3)),
            ("mode.x", SettingType::Text { bytes_max: 8 }, false, SettingValue::Text("a = b")),
            ("empty", SettingType::Text { bytes_max: 64 }, false, SettingValue::Text("")),
        ];
        assert_eq!(found, expected);
        assert!(Schema::parse(b"").unwrap().is_empty());
    }

    #[test]
    fn a_value_is_judged_by_type_and_range() {
        let schema = Schema::parse(b"on bool = true\nlevel int 1..3 = 1\nmode text ..2 =\n").unwrap();
        let judged = |name, value| schema.judge(name, value);
        assert_eq!(judged("on", SettingValue::Boolean(false)), SettingResult::Accepted);
        assert_eq!(judged("on", SettingValue::Integer(1)), SettingResult::WrongType);
        assert_eq!(judged("level", SettingValue::Integer(3)), SettingResult::Accepted);
        assert_eq!(judged("level", SettingValue::Integer(4)), SettingResult::OutOfRange);
        assert_eq!(judged("level", SettingValue::Text("1")), SettingResult::WrongType);
        assert_eq!(judged("mode", SettingValue::Text("é")), SettingResult::Accepted);
        assert_eq!(judged("mode", SettingValue::Text("abc")), SettingResult::TooLong);
        assert_eq!(judged("other", SettingValue::Boolean(true)), SettingResult::UnknownSetting);
        let none = Schema::default();
        assert_eq!(none.judge("on", SettingValue::Boolean(true)), SettingResult::NoSchema);
    }

    #[test]
    fn what_is_no_schema_is_refused_with_its_line() {
        use SchemaFault as F;
        for (line, expected) in [
            ("on bool true", F::Form),
            ("on bool =true", F::Form),
            ("on = true", F::Form),
            ("", F::Form),
            ("1on bool = true", F::Name),
            ("on\u{301} bool = true", F::Name),
            ("on float = 1.0", F::Type),
            ("on bool 0..1 = true", F::Type),
            ("on int 1.. = 1", F::Type),
            ("on int 1..2 3..4 = 1", F::Type),
            ("on int reported 1..2 = 1", F::Type),
            ("on text ..65 =", F::Type),
            ("on bool = yes", F::Default),
            ("on int 1..2 = 3", F::Default),
            ("on int = 9223372036854775808", F::Default),
            ("on text ..2 = abc", F::Default),
        ] {
            assert_eq!(fault(&format!("x int = 1\n{line}\n")), Some((2, expected)), "{line}");
        }
        assert_eq!(fault("a bool = true\nb int = 1\na text =\n"), Some((3, F::Twice)));
        let name = "n".repeat(SETTING_NAME_BYTES_MAX);
        assert_eq!(fault(&format!("{name} bool = true\n")), None);
        assert_eq!(fault(&format!("{name}n bool = true\n")), Some((1, F::Name)));
        let lines = |count| (0..count).map(|index| format!("n{index} bool = true\n")).collect::<String>();
        assert_eq!(fault(&lines(SETTINGS_MAX)), None);
        assert_eq!(fault(&lines(SETTINGS_MAX + 1)), Some((SETTINGS_MAX + 1, F::TooMany)));
        assert_eq!(fault(&"x".repeat(SETTINGS_SCHEMA_BYTES_MAX + 1)), Some((0, F::TooLong)));
        assert_eq!(Schema::parse(b"\xff").map_err(|error| error.fault), Err(F::NotText));
    }
}
