//! Errors as people read them.

use std::error::Error;

/// An error and what caused it, from the outermost on. What a message already says of its cause is not said again: many
/// errors quote the one below them and name it as their source as well.
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        next = cause.source();
        let text = cause.to_string();
        if said.iter().any(|before| before.contains(&text)) {
            continue;
        }
        match said.last_mut() {
            Some(last) if text.contains(last.as_str()) => *last = text,
            _ => said.push(text),
        }
    }
    said.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    fn chain(texts: &[&'static str]) -> Option<Box<Link>> {
        let (text, rest) = texts.split_first()?;
        Some(Box::new(Link { text, source: chain(rest) }))
    }

    #[test]
    fn nothing_is_said_twice() {
        for (texts, wanted) in [
            (&["can't start", "a.crt: no such file", "no such file"][..], "can't start: a.crt: no such file"),
            (&["can't read", "can't read a: denied", "denied"], "can't read a: denied"),
            (&["one", "two", "three"], "one: two: three"),
            (&["one: two", "two", "three"], "one: two: three"),
            (&["one", ""], "one"),
        ] {
            assert_eq!(with_causes(&*chain(texts).unwrap()), wanted);
        }
    }
}
