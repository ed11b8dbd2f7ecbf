//! `docs/kubernetes-api.md` holds the table of differences between two marks.

use std::path::PathBuf;

/// Where the table begins and ends.
pub const MARKS: (&str, &str) =
    ("<!-- differences: conformance/allowed.yaml -->\n", "<!-- end of differences -->");

/// The page.
pub fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kubernetes-api.md"))
}

/// The page with another table; none if a mark is missing.
pub fn with_table(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(MARKS.0)?;
    let (_, after) = rest.split_once(MARKS.1)?;
    Some(format!("{before}{}{table}{}{after}", MARKS.0, MARKS.1))
}
