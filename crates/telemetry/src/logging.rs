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
    /// Neither a level nor a target with its level.
    #[error(
        "bad log level '{directive}': expected error, warn, info, debug, trace or off, or pairs of a target and one of these, \
        for example info,wasmbed_gateway=debug"
    )]
    Level {
        /// The part that is wrong.
        directive: String,
    },
    /// It was set up before.
    #[error("logging was set up twice")]
    Twice,
}

/// Levels, in the words of `tracing`.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
/// What is logged of targets that a filter does not name, if it has no level of its own: to ask for more of one is not to ask
/// for silence of all others.
const LEVEL_OF_OTHERS: &str = "warn";

/// Sets up logging of this process to standard error.
///
/// `filter` is a level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or a list of `target=level` with commas, and a level
/// for all other targets, which is `warn` if there is none.
///
/// # Errors
/// When the filter can't be read or logging was set up before.
pub fn init_logging(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    let parsed = parse_filter(filter)?;
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

/// `tracing-subscriber` takes a word that is no level for a target, which turns everything else off: so it is read here.
fn parse_filter(filter: &str) -> Result<EnvFilter, LoggingError> {
    let bad = |directive: &str| LoggingError::Level { directive: directive.to_owned() };
    let mut directives = Vec::new();
    let mut others = false;
    for directive in filter.split(',').map(str::trim) {
        let level = match directive.split_once('=') {
            Some((target, level)) if is_target(target.trim()) => level.trim(),
            Some(_) => return Err(bad(directive)),
            None => {
                others = true;
                directive
            }
        };
        if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
            return Err(bad(directive));
        }
        directives.push(directive);
    }
    if !others {
        directives.push(LEVEL_OF_OTHERS);
    }
    EnvFilter::builder().parse(directives.join(",")).map_err(|_| bad(filter))
}

/// A module path, such as `wasmbed_gateway::session`.
fn is_target(text: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    text.split("::").all(word)
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
    fn a_misspelt_level_is_refused_with_what_is_right() {
        for (filter, directive) in [
            ("infoo", "infoo"),
            ("", ""),
            ("wasmbed=loud", "wasmbed=loud"),
            ("info,wasmbed_gateway=debg", "wasmbed_gateway=debg"),
            ("wasmbed", "wasmbed"),
            ("info,", ""),
            ("=info", "=info"),
            ("wasmbed[span]=info", "wasmbed[span]=info"),
            ("info;debug", "info;debug"),
        ] {
            let error = init_logging(LogFormat::Json, filter).expect_err(filter);
            let expected = format!(
                "bad log level '{directive}': expected error, warn, info, debug, trace or off, or pairs"
            );
            assert!(error.to_string().starts_with(&expected), "{filter}: {error}");
        }
    }

    #[test]
    fn a_target_alone_does_not_silence_the_others() {
        let parsed = |filter| parse_filter(filter).map(|filter| filter.to_string());
        assert_eq!(parsed("INFO").ok().as_deref(), Some("info"));
        assert_eq!(parsed("wasmbed::board=info").ok().as_deref(), Some("wasmbed::board=info,warn"));
        assert_eq!(parsed("off, wasmbed=trace").ok().as_deref(), Some("wasmbed=trace,off"));
    }
}
