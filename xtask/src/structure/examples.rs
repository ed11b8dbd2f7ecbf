//! Examples in doc comments.

/// What rustdoc compiles: blocks of Rust, which is what a block is that does not say.
const RUST: [&str; 6] = ["", "rust", "no_run", "should_panic", "compile_fail", "edition2024"];

/// Whether a file has a block in a doc comment that rustdoc compiles.
pub(super) fn has_some(text: &str) -> bool {
    let mut in_block = false;
    for line in text.lines().map(str::trim_start) {
        let Some(doc) = line.strip_prefix("///").or(line.strip_prefix("//!")) else {
            in_block = false;
            continue;
        };
        let Some(language) = doc.trim().strip_prefix("```") else { continue };
        if !in_block && language.split(',').all(|word| RUST.contains(&word.trim())) {
            return true;
        }
        in_block = !in_block;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::has_some;

    #[test]
    fn blocks_of_rust_count_and_no_others() {
        assert!(has_some("//! Words.\n//! ```\n//! let a = 1;\n//! ```\n"));
        assert!(has_some("    /// ```no_run\n    /// f();\n    /// ```\n"));
        assert!(has_some("/// ```text\n/// a\n/// ```\n///\n/// ```rust\n/// f();\n/// ```\n"));
        assert!(!has_some("/// ```text\n/// a ──> b\n/// ```\nstruct A;\n/// ```text\n/// c\n/// ```\n"));
        assert!(!has_some("// ```\n// no doc comment\n// ```\n"));
    }

    #[test]
    fn crates_that_have_some_are_found() {
        let found = super::super::with_examples().expect("the sources can be read");
        assert!(found.iter().any(|name| name == "structured-merge"), "{found:?}");
    }
}
