//! What the guides for developers name exists: each function, type and file of the tour, and each path of the other guides.

#![cfg(test)]

use std::{
    fs,
    path::{Path, PathBuf},
};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Rust file below a folder.
fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = read(&path);
            found.push((path, text));
        }
    }
}

/// What stands between backticks, without code blocks.
fn quoted(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|part| part.split('`').skip(1).step_by(2)).collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

fn is_type(name: &str) -> bool {
    name.starts_with(|letter: char| letter.is_ascii_uppercase())
}

/// Whether a file defines `name`: a function, or a type or a variant of one.
fn defines(text: &str, name: &str) -> bool {
    let begins = |keyword: &str| {
        text.match_indices(&format!("{keyword}{name}")).any(|(at, found)| {
            !text[at + found.len()..].starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_')
        })
    };
    if is_type(name) {
        ["struct ", "enum ", "trait ", "type ", "    "].into_iter().any(begins)
    } else {
        ["fn ", "mod "].into_iter().any(begins)
    }
}

/// Whether a file has something of a type: its definition, or functions.
fn has(text: &str, owner: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let implements = |line: &str| {
        line.trim_start().starts_with("impl")
            && line.split(|letter| !is_letter(letter)).any(|word| word == owner)
    };
    defines(text, owner) || text.lines().any(implements)
}

#[test]
fn what_the_tour_names_exists() {
    let top = top();
    let mut files = Vec::new();
    for folder in ["crates", "simulation/src"] {
        sources(&top.join(folder), &mut files);
    }
    let tour = read(&top.join("docs/development/tour.md"));
    let mut missing = Vec::new();
    for quote in quoted(&tour) {
        let path: Vec<&str> = quote.split("::").collect();
        let exists = if path.iter().all(|name| is_name(name)) {
            let (name, within) = path.split_last().unwrap();
            let owner = within.last().filter(|owner| is_type(owner));
            files.iter().any(|(_, text)| defines(text, name) && owner.is_none_or(|owner| has(text, owner)))
        } else if quote.contains(['/', '.']) {
            let file = Path::new(quote.trim_end_matches('/'));
            top.join(file).exists()
                || files.iter().any(|(path, _)| path.ancestors().any(|path| path.ends_with(file)))
        } else {
            // `handle_*`
            quote.contains('*')
        };
        if !exists {
            missing.push(quote);
        }
    }
    assert!(missing.is_empty(), "the tour names what does not exist: {missing:?}");
}

#[test]
fn paths_that_the_guides_name_exist() {
    let top = top();
    let mut missing = Vec::new();
    for entry in fs::read_dir(top.join("docs/development")).unwrap() {
        let guide = entry.unwrap().path();
        for quote in quoted(&read(&guide)) {
            let first = quote.split('/').next().unwrap_or_default();
            let is_path = quote.contains('/') && !quote.contains(|letter: char| " *<>{}…:=".contains(letter));
            // Placeholders are in capitals.
            let is_certain = is_path && !quote.chars().any(|letter| letter.is_ascii_uppercase());
            if is_certain && top.join(first).is_dir() && first != "target" && !top.join(quote).exists() {
                missing.push(format!("{}: {quote}", guide.file_name().unwrap().display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
