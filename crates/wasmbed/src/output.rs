//! Standard output and standard error. The only file that writes to them: `print!` and its like panic when the reader is gone.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use tokio_util::sync::CancellationToken;

/// Exit code of a command whose reader went away: 128 and SIGPIPE's number, as shells count.
const READER_GONE: i32 = 141;

/// Prints to standard output. A reader that went away, as `head` does, ends the process without a word.
pub(crate) fn print(text: &str) {
    if let Err(error) = write(text) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            complain(&format!("error: can't write to standard output: {error}"));
        }
        std::process::exit(READER_GONE);
    }
}

/// Prints a line to standard output, as [`print`] does.
pub(crate) fn print_line(line: &str) {
    print(&format!("{line}\n"));
}

/// Prints a line to standard error, where nobody may be reading.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn write(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Standard output of a process that has to stop in order when its reader goes away.
#[derive(Clone, Debug, Default)]
pub(crate) struct Screen {
    closed: CancellationToken,
}

impl Screen {
    /// Prints a line; once the reader is gone, nothing.
    pub(crate) fn line(&self, line: &str) {
        if !self.closed.is_cancelled() && write(&format!("{line}\n")).is_err() {
            self.closed.cancel();
        }
    }

    /// Ends when a line could not be printed.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

/// What a reader of YAML complains about, in one line. The lines below it quote the file, which may hold keys, and say the
/// same again.
pub(crate) fn yaml_problem(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Text from elsewhere, of any length, for a terminal.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    wasmbed_control::harmless(text, usize::MAX)
}

/// `1,048,576`
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `once`, or `17 times`.
pub(crate) fn times(count: u32) -> String {
    match count {
        1 => "once".to_string(),
        many => format!("{many} times"),
    }
}
