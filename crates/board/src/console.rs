//! Lines for people, one for each event: `LEVEL message key=value`. Lines of applications begin with `APP`.

use core::{
    fmt::{self, Write},
    marker::PhantomData,
};

use wasmbed_protocol::{ApplicationUid, Harmless};
use wasmbed_supervisor::platform::{Level, LogSink, Record};

use crate::Hardware;

/// Writes one line of the board's own.
macro_rules! line {
    ($hardware:ty, $level:ident, $($part:tt)*) => {
        $crate::console::Console::<$hardware>::line(
            wasmbed_supervisor::platform::Level::$level,
            format_args!($($part)*),
        )
    };
}
pub(crate) use line;

/// The console of a board.
pub(crate) struct Console<H>(PhantomData<H>);

impl<H: Hardware> Console<H> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }

    pub(crate) fn line(level: Level, text: fmt::Arguments<'_>) {
        Self::write(|console| {
            write!(console, "{} ", name(level))?;
            Printable(console).write_fmt(text)
        });
    }

    fn write(write: impl FnOnce(&mut Self) -> fmt::Result) {
        let mut console = Self::new();
        // The console takes everything; a value that can't be shown ends its line early.
        let _ = write(&mut console);
        H::console(b"\n");
    }
}

impl<H: Hardware> Write for Console<H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        H::console(text.as_bytes());
        Ok(())
    }
}

/// Text of others: it can neither end a line nor steer a terminal.
struct Printable<'a, W>(&'a mut W);

impl<W: Write> Write for Printable<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write!(self.0, "{}", Harmless { text, bytes_max: usize::MAX })
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Debug => "DEBUG",
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
    }
}

fn write_record<W: Write>(out: &mut W, record: &Record<'_>) -> fmt::Result {
    write!(out, "{} ", name(record.level))?;
    let mut text = Printable(out);
    text.write_fmt(record.message)?;
    if let Some(application) = record.application {
        write!(text, " application={application}")?;
    }
    if let Some(reason) = record.reason {
        write!(text, " reason={reason}")?;
    }
    if let Some(revision) = record.revision {
        write!(text, " revision={}", revision.0)?;
    }
    if let Some(epoch) = record.epoch {
        write!(text, " epoch={}", epoch.0)?;
    }
    if let Some(correlation_id) = record.correlation_id {
        write!(text, " correlation_id={correlation_id}")?;
    }
    Ok(())
}

impl<H: Hardware> LogSink for Console<H> {
    fn record(&mut self, record: &Record<'_>) {
        Self::write(|console| write_record(console, record));
    }

    fn application_line(&mut self, _uid: &ApplicationUid, name: &str, text: &str) {
        Self::write(|console| {
            console.write_str("APP ")?;
            let mut printable = Printable(console);
            write!(printable, "{name}: {text}")
        });
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    #[test]
    fn a_record_is_one_line_of_message_and_fields() {
        let mut out = String::new();
        let record = Record {
            level: Level::Warn,
            message: format_args!("two\nlines \u{1b}[2J"),
            application: Some("default/a\rb"),
            correlation_id: None,
            epoch: None,
            revision: Some(wasmbed_protocol::Revision(7)),
            reason: Some("UnknownImport"),
        };
        write_record(&mut out, &record).unwrap();
        assert_eq!(
            out,
            "WARN two\\nlines \\u{1b}[2J application=default/a\\rb reason=UnknownImport revision=7"
        );
    }
}
