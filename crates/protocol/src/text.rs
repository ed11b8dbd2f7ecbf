//! Text that somebody else wrote, for logs, terminals and Kubernetes resources.

use core::fmt::{self, Write as _};

/// Shows the text with every character that could steer a terminal, break a line or hide what is there written as an escape
/// (`\n`, `\u{1b}`), and cut so that it has at most so many bytes then. Tabs become spaces.
///
/// Escaped are controls (C0, DEL, C1), line and paragraph separators, what reorders text in two directions (UAX #9), and
/// characters without a shape (UAX #44, Default_Ignorable_Code_Point). The joiners U+200C and U+200D stay behind a letter
/// that is not ASCII, where scripts and emoji need them.
#[derive(Clone, Copy, Debug)]
pub struct Harmless<'a> {
    /// As it came.
    pub text: &'a str,
    /// The most bytes to show.
    pub bytes_max: usize,
}

impl Harmless<'_> {
    /// How many bytes of the text can be shown as they are, from its beginning.
    #[must_use]
    pub fn plain_bytes(&self) -> usize {
        let mut before = None;
        let steers = |(_, character): &(usize, char)| {
            let fine = is_harmless(*character, before);
            before = Some(*character);
            !fine
        };
        let fine = self.text.char_indices().find(steers).map_or(self.text.len(), |(index, _)| index);
        self.text.floor_char_boundary(self.bytes_max.min(fine))
    }
}

impl fmt::Display for Harmless<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = self.plain_bytes();
        f.write_str(&self.text[..plain])?;
        let mut left = self.bytes_max - plain;
        let mut before = self.text[..plain].chars().next_back();
        for character in self.text[plain..].chars() {
            let fine = is_harmless(character, before);
            before = Some(character);
            let bytes = match character {
                '\t' => 1,
                _ if fine => character.len_utf8(),
                '\n' | '\r' => 2,
                _ => "\\u{}".len() + hex_digits(character),
            };
            left = match left.checked_sub(bytes) {
                Some(left) => left,
                None => return Ok(()),
            };
            match character {
                '\t' => f.write_char(' ')?,
                _ if fine => f.write_char(character)?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                _ => write!(f, "\\u{{{:x}}}", u32::from(character))?,
            }
        }
        Ok(())
    }
}

fn hex_digits(character: char) -> usize {
    (u32::from(character).max(1).ilog2() / 4 + 1) as usize
}

fn is_harmless(character: char, before: Option<char>) -> bool {
    match character {
        ' '..='~' => true,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' => false,
        '\u{200c}' | '\u{200d}' => before.is_some_and(|before| !before.is_ascii()),
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};

    use super::*;

    fn harmless(text: &str, bytes_max: usize) -> String {
        Harmless { text, bytes_max }.to_string()
    }

    #[test]
    fn what_steers_a_terminal_or_hides_is_written_as_an_escape() {
        for (text, expected) in [
            ("21.5 °C", "21.5 °C"),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\r\nb\u{7}\u{8}\u{7f}\0", "a\\r\\nb\\u{7}\\u{8}\\u{7f}\\u{0}"),
            ("\u{9b}2J\u{85}", "\\u{9b}2J\\u{85}"),
            ("a\tb", "a b"),
            ("\u{202e}gpj.exe\u{202c}", "\\u{202e}gpj.exe\\u{202c}"),
            ("\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}", "\\u{2066}\\u{2069}\\u{200e}\\u{200f}\\u{61c}"),
            ("a\u{2028}b\u{2029}", "a\\u{2028}b\\u{2029}"),
            ("ad\u{200b}min\u{feff}\u{ad}", "ad\\u{200b}min\\u{feff}\\u{ad}"),
            ("ad\u{200d}min", "ad\\u{200d}min"),
            ("👩\u{200d}🔬 می\u{200c}خواهم", "👩\u{200d}🔬 می\u{200c}خواهم"),
            ("\u{e0041}", "\\u{e0041}"),
            ("日本語 ❤\u{fe0f}", "日本語 ❤\u{fe0f}"),
        ] {
            assert_eq!(harmless(text, 1_000), expected);
            assert_eq!(harmless(expected, 1_000), expected, "once is enough");
            for bytes_max in 0..=expected.len() {
                let cut = harmless(text, bytes_max);
                assert!(cut.len() <= bytes_max && expected.starts_with(&cut), "{cut:?}");
            }
            assert_eq!(harmless(text, expected.len()), expected);
        }
    }

    #[test]
    fn the_bound_holds_after_escaping_and_cuts_between_characters() {
        assert_eq!(Harmless { text: "plain", bytes_max: 5 }.plain_bytes(), 5);
        assert_eq!(harmless("°°°", 5), "°°");
        assert_eq!(harmless("ab\u{1b}c", 7), "ab");
        assert_eq!(harmless("ab\u{1b}c", 8), "ab\\u{1b}");
        assert_eq!(harmless(&"\u{7}".repeat(1_000), 64).len(), 60);
    }
}
