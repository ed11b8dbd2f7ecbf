//! Standard output of commands whose output is read by others.

use std::io::{self, Write};

/// Exit code of a command whose reader went away: 128 and SIGPIPE's number, as shells count.
const READER_GONE: i32 = 141;

/// Prints to standard output. A reader that went away, as `head` does, ends the process without a word.
pub(crate) fn print(text: &str) {
    let mut output = io::stdout().lock();
    if let Err(error) = output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            eprintln!("error: can't write to standard output: {error}");
        }
        std::process::exit(READER_GONE);
    }
}

/// Text from elsewhere with everything that could steer a terminal replaced by spaces.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_says_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\nc\u{9b}"), "a [2Jb  c ");
    }
}
