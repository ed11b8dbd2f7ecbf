//! Layers of configuration, each value with its origin.

use std::path::{Path, PathBuf};

use figment::{
    Error, Figment, Metadata, Profile, Provider,
    error::Kind,
    providers::{Env, Format},
    util::nest,
    value::{Dict, Map, Value},
};
use serde::de::DeserializeOwned;
use serde_saphyr::figment::Yaml;

/// Why a configuration was refused: always the fault of who wrote it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or can't be read.
    #[error("can't read the configuration {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A key or a value is wrong.
    #[error("{path}: {problem} (in {origin})")]
    Value {
        /// Keys from the top, with dots.
        path: String,
        /// What is wrong and what was expected.
        problem: String,
        /// The file, the environment or the flags.
        origin: String,
    },
}

/// Loads the section `section`: its file if one is given, then variables `WASMBED_<SECTION>__…`, then flags as pairs of a
/// dotted path below the section and a value.
///
/// # Errors
/// For the first unknown key or bad value.
pub fn load<T: DeserializeOwned + Section>(
    section: &'static str,
    file: Option<&Path>,
    flags: &[(String, String)],
) -> Result<T, ConfigError> {
    let prefix = format!("WASMBED_{}__", section.to_uppercase());
    let environment = Env::prefixed(&prefix)
        .map(move |key| format!("{section}.{}", key.as_str().replace("__", ".")).into());
    let mut figment = Figment::new();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::File { path: path.to_owned(), reason: error.to_string() })?;
        figment = figment.merge(Named { inner: Yaml::string(&text), name: path.display().to_string() });
    }
    let figment = figment.merge(environment).merge(Flags { section, flags });
    let loaded: T = figment.extract().map_err(|error| describe(error, section))?;
    loaded.check().map_err(|(path, problem)| {
        let origin = figment
            .find_metadata(path)
            .map_or_else(|| "the defaults".to_owned(), |found| found.name.to_string());
        ConfigError::Value { path: path.to_owned(), problem, origin }
    })?;
    Ok(loaded)
}

/// A configuration whose values also have to fit each other.
pub trait Section {
    /// Says for the first value that makes no sense its path and what is wrong.
    ///
    /// # Errors
    /// The path with dots, and what was found and expected.
    fn check(&self) -> Result<(), (&'static str, String)>;
}

/// A provider under another name: errors should name the file, not its text.
struct Named<P> {
    inner: P,
    name: String,
}

impl<P: Provider> Provider for Named<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        self.inner.data()
    }
}

struct Flags<'a> {
    section: &'static str,
    flags: &'a [(String, String)],
}

impl Provider for Flags<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named("the command line")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let mut merged = Dict::new();
        for (path, value) in self.flags {
            let value: Value = value.parse().unwrap_or_else(|never: std::convert::Infallible| match never {});
            if let Value::Dict(_, dict) = nest(&format!("{}.{path}", self.section), value) {
                merge(&mut merged, dict);
            }
        }
        Ok(Profile::Default.collect(merged))
    }
}

fn merge(into: &mut Dict, from: Dict) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Dict(_, inner)), Value::Dict(_, more)) => merge(inner, more),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn describe(error: Error, section: &str) -> ConfigError {
    let mut path = error.path.clone();
    let problem = match &error.kind {
        Kind::UnknownField(field, expected) => {
            if path.last() != Some(field) {
                path.push(field.clone());
            }
            format!("unknown key; expected one of {}", expected.join(", "))
        }
        Kind::MissingField(field) => {
            path.push(field.to_string());
            "missing".to_owned()
        }
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            let expected = match expected.to_string().as_str() {
                "u16" => "a number from 0 to 65535".to_owned(),
                "u32" | "u64" | "usize" => "a whole number, 0 or more".to_owned(),
                other => other.to_owned(),
            };
            format!("found {actual}, expected {expected}")
        }
        Kind::UnknownVariant(variant, expected) => {
            format!("found \"{variant}\", expected one of {}", expected.join(", "))
        }
        other => other.to_string(),
    };
    let origin = error
        .metadata
        .as_ref()
        .map_or_else(|| "the defaults".to_owned(), |metadata| metadata.name.to_string());
    let path = if path.is_empty() { section.to_owned() } else { path.join(".") };
    ConfigError::Value { path, problem, origin }
}
