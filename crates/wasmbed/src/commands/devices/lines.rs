//! The file of a production line: one device a line.
//!
//! ```text
//! serial[,name[,factory_key_hash[,labels]]]
//! SN-0001
//! SN-0002,pump-east,,site=lab;line=3
//! ```
//!
//! A first line that begins with `serial` names the columns, in any order. Empty lines and lines that begin with `#` are skipped.

use std::collections::{BTreeMap, HashMap};

use thiserror::Error;
use wasmbed_pki::FactoryId;
use wasmbed_protocol::KeyHash;

/// Devices of one file: ten times what a line makes in a run.
const LINES_MAX: usize = 100_000;

/// One device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: usize,
    pub(super) serial: String,
    pub(super) name: String,
    pub(super) factory_key: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Flaw {
    #[error("{0:?} is no column: there are serial, name, factory_key_hash and labels")]
    Column(String),
    #[error("the column {0} is named twice")]
    ColumnTwice(&'static str),
    #[error("the column serial is missing")]
    NoSerialColumn,
    #[error("{found} fields, where there are {expected} columns")]
    Fields { found: usize, expected: usize },
    #[error("serial {0:?}: 1 to 63 letters, digits, '-', '.', '_', a letter or digit at both ends")]
    Serial(String),
    #[error("name {0:?}: up to 63 lower-case letters, digits and dashes, no dash at either end")]
    Name(String),
    #[error("the serial {serial:?} makes no name for a Device ({name:?}): give it one")]
    NoName { serial: String, name: String },
    #[error("factory_key_hash {0:?}: 64 hex digits, as wasmbed pki issue factory prints them")]
    Hash(String),
    #[error("label {0:?}: KEY=VALUE, several with ; between, as Kubernetes has labels")]
    Label(String),
    #[error("the label {0:?} is given twice")]
    LabelTwice(String),
    #[error("the serial {0:?} is on line {1} already")]
    SerialTwice(String, usize),
    #[error(
        "the name {0:?} is on line {1} already; serials that differ in case, '.' or '_' alone make one name"
    )]
    NameTwice(String, usize),
    #[error("a file has at most {LINES_MAX} devices: split it")]
    TooMany,
}

/// All lines, or all that is wrong with them, by their numbers.
pub(super) fn parse(text: &str) -> Result<Vec<Line>, Vec<(usize, Flaw)>> {
    let mut columns: Option<Vec<Column>> = None;
    let (mut lines, mut flaws) = (Vec::new(), Vec::new());
    let (mut serials, mut names) = (HashMap::new(), HashMap::new());
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fields: Vec<&str> = line.split(',').map(unquoted).collect();
        if columns.is_none() {
            let is_header = fields[0].eq_ignore_ascii_case("serial");
            match if is_header { header(&fields) } else { Ok(Column::ALL.to_vec()) } {
                Ok(named) => columns = Some(named),
                Err(flaw) => return Err(vec![(number, flaw)]),
            }
            if is_header {
                continue;
            }
        }
        if lines.len() + flaws.len() >= LINES_MAX {
            flaws.push((number, Flaw::TooMany));
            break;
        }
        match device(number, columns.as_deref().unwrap_or(&Column::ALL), &fields) {
            Err(flaw) => flaws.push((number, flaw)),
            Ok(line) => {
                if let Some(first) = serials.insert(line.serial.clone(), number) {
                    flaws.push((number, Flaw::SerialTwice(line.serial.clone(), first)));
                } else if let Some(first) = names.insert(line.name.clone(), number) {
                    flaws.push((number, Flaw::NameTwice(line.name.clone(), first)));
                }
                lines.push(line);
            }
        }
    }
    if flaws.is_empty() { Ok(lines) } else { Err(flaws) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Serial,
    Name,
    FactoryKeyHash,
    Labels,
}

impl Column {
    const ALL: [Self; 4] = [Self::Serial, Self::Name, Self::FactoryKeyHash, Self::Labels];

    const fn name(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::Name => "name",
            Self::FactoryKeyHash => "factory_key_hash",
            Self::Labels => "labels",
        }
    }
}

fn header(fields: &[&str]) -> Result<Vec<Column>, Flaw> {
    let mut columns = Vec::new();
    for field in fields {
        let found = Column::ALL.into_iter().find(|column| column.name().eq_ignore_ascii_case(field));
        let column = found.ok_or_else(|| Flaw::Column((*field).to_owned()))?;
        if columns.contains(&column) {
            return Err(Flaw::ColumnTwice(column.name()));
        }
        columns.push(column);
    }
    if columns.contains(&Column::Serial) { Ok(columns) } else { Err(Flaw::NoSerialColumn) }
}

fn device(number: usize, columns: &[Column], fields: &[&str]) -> Result<Line, Flaw> {
    if fields.len() > columns.len() {
        return Err(Flaw::Fields { found: fields.len(), expected: columns.len() });
    }
    let field = |column: Column| {
        let index = columns.iter().position(|found| *found == column)?;
        fields.get(index).copied().filter(|text| !text.is_empty())
    };
    let serial = field(Column::Serial).unwrap_or_default();
    // Any trust domain will do: it is the serial that is checked.
    let id = FactoryId::new("any", serial).map_err(|_| Flaw::Serial(serial.to_owned()))?;
    let name = match field(Column::Name) {
        Some(name) if is_name(name) => name.to_owned(),
        Some(name) => return Err(Flaw::Name(name.to_owned())),
        None => id.device_name(),
    };
    if !is_name(&name) {
        return Err(Flaw::NoName { serial: serial.to_owned(), name });
    }
    let factory_key = match field(Column::FactoryKeyHash) {
        Some(text) => {
            let hash: KeyHash = text.to_ascii_lowercase().parse().map_err(|_| Flaw::Hash(text.to_owned()))?;
            Some(hash.to_string())
        }
        None => None,
    };
    let mut labels = BTreeMap::new();
    for label in field(Column::Labels).unwrap_or_default().split(';').map(str::trim).filter(|l| !l.is_empty())
    {
        let (key, value) = label
            .split_once('=')
            .filter(|(key, value)| is_label_key(key) && is_label_value(value))
            .ok_or_else(|| Flaw::Label(label.to_owned()))?;
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Flaw::LabelTwice(key.to_owned()));
        }
    }
    Ok(Line { number, serial: serial.to_owned(), name, factory_key, labels })
}

/// A field, without the quotes that a spreadsheet may have put around it. No field needs any.
fn unquoted(field: &str) -> &str {
    let field = field.trim();
    field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(field).trim()
}

/// A name that is also a label of DNS (RFC 1123), as devices' ids have it.
fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// `[prefix/]name`, as Kubernetes has keys of labels.
fn is_label_key(text: &str) -> bool {
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(is_name);
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(is_prefix)
}

fn is_label_value(text: &str) -> bool {
    let ends = |text: &str| {
        let both = [text.bytes().next(), text.bytes().last()];
        both.into_iter().flatten().all(|byte| byte.is_ascii_alphanumeric())
    };
    text.len() <= 63
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && ends(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn a_line_has_a_serial_and_what_else_is_known() {
        let text = format!(
            "\u{feff}# the morning's\r\nSN_0001\n\nSN-2,pump-east,{},site=lab; line=3\n\"SN-3\", ,\"\",example.org/a=\n",
            HASH.to_uppercase()
        );
        let lines = parse(&text).unwrap();
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let expected = [
            Line {
                number: 2,
                serial: "SN_0001".into(),
                name: "sn-0001".into(),
                factory_key: None,
                labels: BTreeMap::new(),
            },
            Line {
                number: 4,
                serial: "SN-2".into(),
                name: "pump-east".into(),
                factory_key: Some(HASH.into()),
                labels: [label("site", "lab"), label("line", "3")].into(),
            },
            Line {
                number: 5,
                serial: "SN-3".into(),
                name: "sn-3".into(),
                factory_key: None,
                labels: [label("example.org/a", "")].into(),
            },
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_first_line_names_the_columns() {
        let lines = parse("Serial,labels,name\nA1,site=x,one\nA2\n").unwrap();
        assert_eq!((lines[0].name.as_str(), lines[0].labels.len()), ("one", 1));
        assert_eq!((lines[1].name.as_str(), lines[1].number), ("a2", 3));
        for (text, wanted) in [
            ("serial,colour\nA1,red\n", "\"colour\" is no column"),
            ("serial,serial\n", "serial is named twice"),
        ] {
            let flaws = parse(text).unwrap_err();
            assert!(flaws[0].0 == 1 && flaws[0].1.to_string().contains(wanted), "{text}: {flaws:?}");
        }
    }

    #[test]
    fn every_bad_line_is_named() {
        let text = format!(
            "ok\n-a\nA,b,c\nB,Upper\nC,,,x\nD,,,a=b;a=c\nok\nOK\nE,,,,\n{}\nF,,{HASH}0\nA.b\na_b\n",
            "x".repeat(64)
        );
        let flaws = parse(&text).unwrap_err();
        let numbers: Vec<usize> = flaws.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13], "{flaws:?}");
        let said: Vec<String> = flaws.iter().map(|(_, flaw)| flaw.to_string()).collect();
        for (index, wanted) in [
            (0, "serial \"-a\""),
            (1, "factory_key_hash \"c\""),
            (2, "name \"Upper\""),
            (3, "label \"x\""),
            (4, "\"a\" is given twice"),
            (5, "serial \"ok\" is on line 1"),
            (6, "name \"ok\" is on line 1"),
            (7, "5 fields"),
            (10, "name \"a-b\" is on line 12"),
        ] {
            assert!(said[index].contains(wanted), "{wanted}: {}", said[index]);
        }
    }

    #[test]
    fn a_file_is_bounded() {
        let text: String = (0..=LINES_MAX).map(|number| format!("S{number}\n")).collect();
        assert_eq!(parse(&text).unwrap_err(), [(LINES_MAX + 1, Flaw::TooMany)]);
        assert_eq!(parse(text.trim_end().rsplit_once('\n').unwrap().0).unwrap().len(), LINES_MAX);
    }
}
