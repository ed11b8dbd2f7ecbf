//! Structured logs: JSON for machines, text for a person at a terminal.

use std::{io::IsTerminal, str::FromStr};

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text if standard error is a terminal, otherwise JSON.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl FromStr for LogFormat {
    type Err = LoggingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            other => Err(LoggingError::Format(other.to_owned())),
        }
    }
}

/// Why logging could not be set up: always the configuration's fault.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// Not a log format.
    #[error("unknown log format '{0}': expected auto, json or text")]
    Format(String),
    /// Not a filter of `tracing-subscriber`.
    #[error("bad log filter '{filter}': {reason}; expected for example info or wasmbed_gateway=debug,info")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It was set up before.
    #[error("logging was set up twice")]
    Twice,
}

/// Sets up logging of this process to standard error.
///
/// `filter` is a level (`error`, `warn`, `info`, `debug`) or a list of `target=level`.
///
/// # Errors
/// When the filter can't be read or logging was set up before.
pub fn init_logging(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    let parsed = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| LoggingError::Filter { filter: filter.to_owned(), reason: error.to_string() })?;
    let json = match format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let registry = tracing_subscriber::registry().with(parsed);
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    if json {
        registry.with(lines.json().flatten_event(true)).try_init()
    } else {
        registry.with(lines.with_ansi(std::io::stderr().is_terminal()).with_target(false)).try_init()
    }
    .map_err(|_| LoggingError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_named_in_the_error() {
        assert_eq!("json".parse::<LogFormat>().ok(), Some(LogFormat::Json));
        let error = "xml".parse::<LogFormat>().expect_err("not a format");
        assert_eq!(error.to_string(), "unknown log format 'xml': expected auto, json or text");
    }

    #[test]
    fn a_bad_filter_is_refused_with_its_text() {
        let error = init_logging(LogFormat::Json, "wasmbed=loud").expect_err("not a level");
        assert!(error.to_string().starts_with("bad log filter 'wasmbed=loud'"), "{error}");
    }
}
