//! Position of a walk over a document. Each step refers to the one above it, so that paths cost nothing until they are
//! displayed.

use std::fmt;

/// Bytes of a displayed path at most; names come from clients and may be as long as a body.
const PATH_BYTES_MAX: usize = 1_024;

/// A place in a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    above: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Field(&'a str),
    /// A field of a map, where its name is shown in brackets.
    Key(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    /// The document itself.
    pub(crate) const ROOT: Path<'static> = Path { above: None, step: Step::Root };

    /// A field of an object.
    pub(crate) fn field(&'a self, name: &'a str) -> Path<'a> {
        Path { above: Some(self), step: Step::Field(name) }
    }

    /// An entry of a map.
    pub(crate) fn key(&'a self, name: &'a str) -> Path<'a> {
        Path { above: Some(self), step: Step::Key(name) }
    }

    /// An item of a list.
    pub(crate) fn index(&'a self, index: usize) -> Path<'a> {
        Path { above: Some(self), step: Step::Index(index) }
    }

    /// As messages display it: `spec.env[0].name`; cut after [`PATH_BYTES_MAX`].
    pub(crate) fn text(&self) -> String {
        let mut steps = Vec::new();
        let mut next = Some(self);
        while let Some(path) = next {
            steps.push(path.step);
            next = path.above;
        }
        let mut text = String::new();
        for step in steps.into_iter().rev() {
            match step {
                Step::Root => {}
                Step::Field(name) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    push_cut(&mut text, name);
                }
                Step::Key(name) => {
                    text.push('[');
                    push_cut(&mut text, name);
                    text.push(']');
                }
                Step::Index(index) => text.push_str(&format!("[{index}]")),
            }
            if text.len() > PATH_BYTES_MAX {
                text.truncate(text.floor_char_boundary(PATH_BYTES_MAX));
                text.push_str("...");
                break;
            }
        }
        text
    }
}

/// `parent.name`, or the name alone at the root.
pub(crate) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

/// Appends no more of a name than one step beyond the bound.
fn push_cut(text: &mut String, name: &str) {
    text.push_str(&name[..name.floor_char_boundary(PATH_BYTES_MAX + 1)]);
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::{PATH_BYTES_MAX, Path};

    #[test]
    fn a_path_reads_as_people_write_it() {
        let (spec, env, item) = (Path::ROOT.field("spec"), "env", 3);
        let env = spec.field(env);
        let item = env.index(item);
        assert_eq!(item.field("name").text(), "spec.env[3].name");
        assert_eq!(spec.key("a b").text(), "spec[a b]");
        assert_eq!(Path::ROOT.text(), "");
    }

    #[test]
    fn a_long_path_is_cut_between_characters() {
        let long = "\u{e9}".repeat(PATH_BYTES_MAX);
        let above = Path::ROOT.field("a");
        let path = above.field(&long);
        let text = path.index(7).text();
        assert!(text.len() <= PATH_BYTES_MAX + 3, "{}", text.len());
        assert!(text.ends_with("\u{e9}..."), "{text}");
    }
}
