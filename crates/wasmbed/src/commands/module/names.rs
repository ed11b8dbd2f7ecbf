//! Names of functions: what a device says of a trap by itself, without the person's file.

use std::borrow::Cow;
use std::collections::BTreeMap;

use wasm_encoder::{NameMap, NameSection, Section};
use wasmbed_runtime::FUNCTION_NAME_BYTES_MAX;
use wasmparser::{KnownCustom, Name, NameSectionReader, Parser, Payload};

use super::anatomy::ReadError;

/// What the names of a module's functions cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamesKept {
    /// How many functions have one.
    pub functions: u32,
    /// Bytes by which they make the module larger.
    pub bytes: usize,
}

/// Names of functions in a section. Tools write these for people: one that is malformed is a name less.
pub(super) fn of_functions(subsections: NameSectionReader<'_>) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for name in subsections.into_iter().map_while(Result::ok) {
        if let Name::Function(map) = name {
            let known = map.into_iter().map_while(Result::ok);
            names.extend(known.map(|naming| (naming.index, naming.name.to_string())));
        }
    }
    names
}

/// A section with the names that a device can have a use for, as it shows them: those of the functions that have a body, cut
/// to what it keeps of one. Nothing where the module has none.
pub(super) fn section(bytes: &[u8]) -> Result<(Vec<u8>, NamesKept), ReadError> {
    let mut names = BTreeMap::new();
    let (mut imported, mut bodies) = (0, 0);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    imported += u32::from(matches!(import?.ty, wasmparser::TypeRef::Func(_)));
                }
            }
            Payload::CodeSectionStart { count, .. } => bodies = count,
            Payload::CustomSection(section) => {
                if let KnownCustom::Name(subsections) = section.as_known() {
                    names.extend(of_functions(subsections));
                }
            }
            _ => {}
        }
    }
    let mut map = NameMap::new();
    let mut functions = 0;
    for (function, name) in names.range(imported..imported.saturating_add(bodies)) {
        let name = shortened(&demangled(name), FUNCTION_NAME_BYTES_MAX).to_owned();
        if !name.is_empty() {
            map.append(*function, &name);
            functions += 1;
        }
    }
    let mut section = Vec::new();
    if functions > 0 {
        let mut names = NameSection::new();
        names.functions(&map);
        names.append_to(&mut section);
    }
    let bytes = section.len();
    Ok((section, NamesKept { functions, bytes }))
}

/// A name as its language has it, and nothing in it that acts on a terminal.
pub(super) fn demangled(name: &str) -> String {
    let name = addr2line::demangle_auto(Cow::Borrowed(name), None);
    wasmbed_control::harmless(&name, NAME_BYTES_MAX).into()
}

/// Bytes of a name that are shown.
const NAME_BYTES_MAX: usize = 512;

/// A name without as many of its leading path segments as are too much, and cut where its last one alone is too long.
fn shortened(name: &str, bytes_max: usize) -> &str {
    let mut depth = 0_u32;
    let mut from = 0;
    for (at, character) in name.char_indices() {
        if name.len() - from <= bytes_max {
            break;
        }
        match character {
            '<' | '(' | '{' => depth += 1,
            '>' | ')' | '}' => depth = depth.saturating_sub(1),
            ':' if depth == 0 && name[at..].starts_with("::") && at + 2 < name.len() => from = at + 2,
            _ => {}
        }
    }
    let name = &name[from..];
    &name[..name.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_path_tells_more_than_its_beginning() {
        for (name, short) in [
            ("sensor::read", "sensor::read"),
            ("application::calibration::average_of_week", "calibration::average_of_week"),
            ("<alloc::vec::Vec<T> as core::ops::index::Index<I>>::index", "index"),
            (
                "core::ptr::drop_in_place<alloc::vec::Vec<core::cell::Cell<u8>>>",
                "drop_in_place<alloc::vec::Vec<co",
            ),
            ("ns::f(std::string const&, std::string const&)", "f(std::string const&, std::strin"),
            ("a_name_that_is_much_too_long_for_a_device", "a_name_that_is_much_too_long_for"),
            ("é::ééééééééééééééééééé", "éééééééééééééééé"),
            ("ends_with_a_path_that_has_nothing::", "ends_with_a_path_that_has_nothin"),
            ("", ""),
        ] {
            assert_eq!(shortened(name, 32), short, "{name}");
        }
    }
}
