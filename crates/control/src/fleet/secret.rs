//! Values of Secrets, and what an Application's environment has of them.

use std::collections::BTreeMap;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use wasmbed_api::{ApplicationConfig, EnvFrom, ReasonCode};
use wasmbed_protocol::{
    ApplicationUid, ValuesMac,
    limits::{ENV_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX},
};
use zeroize::Zeroizing;

use super::module::ModuleRefusal;
use crate::{Hidden, ObjectKey};

/// Keys of one Secret that are kept, by name: twice what an environment holds.
const KEYS_MAX: usize = 2 * ENV_MAX;
/// Keys of a Secret of type `kubernetes.io/tls`, whose values may be long.
const CERTIFICATE_KEYS: [&str; 2] = ["tls.crt", "tls.key"];
/// Longest value of these.
const CERTIFICATE_BYTES_MAX: usize = 32 * 1024;
/// Told apart from whatever else is hashed under the same key.
const LABEL: &[u8] = b"wasmbed-env-from-1";

/// The key of all controllers under which the values of Secrets are hashed.
#[derive(Clone)]
pub struct ValuesKey(Zeroizing<[u8; 32]>);

impl ValuesKey {
    /// With these bytes.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*key))
    }

    /// 16 bytes of HMAC-SHA-256 over the Application and its variables, each text with its length before it.
    fn mac(&self, uid: ApplicationUid, variables: &BTreeMap<String, Hidden<String>>) -> ValuesMac {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&*self.0) else {
            unreachable!("HMAC takes keys of any length")
        };
        mac.update(LABEL);
        mac.update(&uid.0);
        for text in variables.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]) {
            mac.update(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            mac.update(text.as_bytes());
        }
        let whole: [u8; 32] = mac.finalize().into_bytes().into();
        let mut bytes = [0; ValuesMac::LEN];
        bytes.copy_from_slice(&whole[..ValuesMac::LEN]);
        ValuesMac(bytes)
    }
}

impl std::fmt::Debug for ValuesKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ValuesKey")
    }
}

/// One value of a Secret, as far as an environment can have it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Text(Hidden<String>),
    NotText,
    TooLong(usize),
}

/// What a Secret holds, read once: at most `KEYS_MAX` (64) keys, each with a value of at most
/// [`VALUE_BYTES_MAX`](wasmbed_protocol::limits::VALUE_BYTES_MAX) bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretValues {
    values: BTreeMap<String, Value>,
    /// Those of [`CERTIFICATE_KEYS`] that are longer than a variable may be.
    long: BTreeMap<String, Hidden<String>>,
    keys: usize,
}

impl SecretValues {
    /// Reads the data of a Secret.
    pub fn read(data: impl IntoIterator<Item = (String, Hidden<Vec<u8>>)>) -> Self {
        let data: BTreeMap<String, Hidden<Vec<u8>>> = data.into_iter().collect();
        let keys = data.len();
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(|text| Hidden::new(text.to_owned()));
        let long = CERTIFICATE_KEYS.iter().filter_map(|key| {
            let bytes = data.get(*key).filter(|bytes| bytes.len() <= CERTIFICATE_BYTES_MAX)?;
            Some(((*key).to_owned(), text(bytes).filter(|_| bytes.len() > VALUE_BYTES_MAX)?))
        });
        let long = long.collect();
        let values = data.into_iter().take(KEYS_MAX).map(|(key, bytes)| {
            let value = match std::str::from_utf8(&bytes) {
                _ if bytes.len() > VALUE_BYTES_MAX => Value::TooLong(bytes.len()),
                Ok(text) if !text.contains('\0') => Value::Text(Hidden::new(text.to_owned())),
                Ok(_) | Err(_) => Value::NotText,
            };
            (key, value)
        });
        Self { values: values.collect(), long, keys }
    }

    /// The value of a key, if it is a text.
    pub(super) fn text(&self, key: &str) -> Option<&Hidden<String>> {
        self.long.get(key).or_else(|| match self.values.get(key)? {
            Value::Text(text) => Some(text),
            Value::NotText | Value::TooLong(_) => None,
        })
    }
}

/// What is known of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum SecretState {
    /// Nothing yet.
    #[default]
    Unread,
    /// This, last time.
    Held(SecretValues),
    /// It does not exist.
    Missing,
    /// It may not be read; what the API said.
    Forbidden(String),
    /// No answer, and nothing is known from before.
    Unavailable(String),
}

/// The variables that an Application has from Secrets, and what hides them in its hash.
#[derive(Clone, Debug, Default)]
pub struct SecretEnv {
    variables: BTreeMap<String, Hidden<String>>,
    mac: Option<ValuesMac>,
}

impl SecretEnv {
    /// The variables that come from Secrets: name and value.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// `None` if there are none.
    pub(super) fn mac(&self) -> Option<ValuesMac> {
        self.mac
    }
}

/// Works out what an Application has from Secrets. `state_of` knows the Secrets of its namespace.
///
/// # Errors
/// Something is missing, may not be read or is no text; says what, with the remedy and without a value.
pub(super) fn plan_secret_env<'a>(
    application: &ObjectKey,
    uid: ApplicationUid,
    config: &ApplicationConfig,
    key: Option<&ValuesKey>,
    state_of: impl Fn(&str) -> &'a SecretState,
) -> Result<SecretEnv, ModuleRefusal> {
    if config.env_from.is_empty() {
        return Ok(SecretEnv::default());
    }
    let Some(key) = key else {
        return refuse(
            ReasonCode::SecretsDisabled,
            "config.env_from needs controller.data_key_file in the configuration of every controller: a file with a key of 64 hexadecimal digits".to_owned(),
        );
    };
    let mut variables: BTreeMap<String, &Hidden<String>> = BTreeMap::new();
    for entry in &config.env_from {
        let Some(name) = entry.secret() else {
            return refuse(
                ReasonCode::Unsupported,
                "an entry of config.env_from names no Secret: this version of the controller does not know what it says; upgrade the controller".to_owned(),
            );
        };
        let Some(values) = held(application, name, entry, state_of(name))? else { continue };
        match (&entry.secret_key_ref, &entry.name) {
            (Some(reference), Some(variable)) => match values.values.get(&reference.key) {
                Some(value) => {
                    variables.insert(variable.clone(), text_of(name, &reference.key, value)?);
                }
                None if reference.optional == Some(true) && values.keys <= KEYS_MAX => {}
                None => return refuse_missing_key(application, name, &reference.key, values),
            },
            _ => {
                variables.extend(whole(name, entry.prefix.as_deref().unwrap_or_default(), values)?);
            }
        }
    }
    // What `env` says takes precedence, and then nothing of the Secret is sent.
    variables.retain(|name, _| !config.env.contains_key(name));
    let count = variables.len() + config.env.len();
    if count > ENV_MAX {
        return refuse(
            ReasonCode::AssignmentTooLarge,
            format!(
                "config.env and config.env_from together are {count} variables, and an assignment has at most {ENV_MAX}; name single keys with secret_key_ref"
            ),
        );
    }
    let variables: BTreeMap<String, Hidden<String>> =
        variables.into_iter().map(|(name, text)| (name, text.clone())).collect();
    let mac = (!variables.is_empty()).then(|| key.mac(uid, &variables));
    Ok(SecretEnv { variables, mac })
}

/// What an entry's Secret holds; `None` if it is missing and may be.
fn held<'a>(
    application: &ObjectKey,
    name: &str,
    entry: &EnvFrom,
    state: &'a SecretState,
) -> Result<Option<&'a SecretValues>, ModuleRefusal> {
    let namespace = &application.namespace;
    let optional = entry.secret_ref.as_ref().and_then(|secret| secret.optional);
    let optional = optional.or(entry.secret_key_ref.as_ref().and_then(|secret| secret.optional));
    match state {
        SecretState::Held(values) => Ok(Some(values)),
        SecretState::Missing if optional == Some(true) => Ok(None),
        SecretState::Missing => refuse(
            ReasonCode::SecretNotFound,
            format!(
                "config.env_from names Secret {name}, and there is none in namespace {namespace}; create it, or mark the entry optional"
            ),
        ),
        SecretState::Forbidden(answer) => refuse(
            ReasonCode::SecretForbidden,
            format!(
                "the controller may not read Secret {name} in namespace {namespace} ({answer}); its owner allows that by a RoleBinding of the ClusterRole wasmbed-secret-reader in that namespace"
            ),
        ),
        SecretState::Unavailable(error) => refuse(
            ReasonCode::SecretUnavailable,
            format!("the Kubernetes API did not give Secret {name} in namespace {namespace}: {error}"),
        ),
        SecretState::Unread => refuse(
            ReasonCode::SecretUnavailable,
            format!("Secret {name} in namespace {namespace} has not been read yet"),
        ),
    }
}

/// All variables of a Secret.
fn whole<'a>(
    name: &str,
    prefix: &str,
    values: &'a SecretValues,
) -> Result<Vec<(String, &'a Hidden<String>)>, ModuleRefusal> {
    if values.keys > KEYS_MAX {
        return refuse_too_many_keys(name, values);
    }
    let variable = |(key, value): (&'a String, &'a Value)| {
        let variable = format!("{prefix}{key}");
        if variable.len() > NAME_BYTES_MAX {
            return refuse(
                ReasonCode::SecretInvalid,
                format!(
                    "key {key} of Secret {name} makes the variable {variable}, whose name has more than {NAME_BYTES_MAX} bytes; name the key with secret_key_ref"
                ),
            );
        }
        Ok((variable, text_of(name, key, value)?))
    };
    values.values.iter().map(variable).collect()
}

fn text_of<'a>(name: &str, key: &str, value: &'a Value) -> Result<&'a Hidden<String>, ModuleRefusal> {
    let message = match value {
        Value::Text(text) => return Ok(text),
        Value::NotText => format!(
            "the value of key {key} of Secret {name} is not UTF-8 text without NUL, as a variable has to be"
        ),
        Value::TooLong(bytes) => format!(
            "the value of key {key} of Secret {name} has {bytes} bytes, and a variable has at most {VALUE_BYTES_MAX}"
        ),
    };
    refuse(ReasonCode::SecretInvalid, message)
}

fn refuse_missing_key<T>(
    application: &ObjectKey,
    name: &str,
    key: &str,
    values: &SecretValues,
) -> Result<T, ModuleRefusal> {
    if values.keys > KEYS_MAX {
        return refuse_too_many_keys(name, values);
    }
    let namespace = &application.namespace;
    refuse(
        ReasonCode::SecretNotFound,
        format!(
            "config.env_from names key {key} of Secret {name} in namespace {namespace}, which does not have it; add it, or mark the entry optional"
        ),
    )
}

fn refuse_too_many_keys<T>(name: &str, values: &SecretValues) -> Result<T, ModuleRefusal> {
    refuse(
        ReasonCode::SecretInvalid,
        format!(
            "Secret {name} has {} keys, and at most {KEYS_MAX} are read; put those that the application needs into a Secret of their own",
            values.keys
        ),
    )
}

fn refuse<T>(reason: ReasonCode, message: String) -> Result<T, ModuleRefusal> {
    Err(ModuleRefusal { reason, message })
}

/// Whether a refusal is about Secrets and not about what the Application says.
pub(super) fn is_of_secrets(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::SecretNotFound
            | ReasonCode::SecretForbidden
            | ReasonCode::SecretInvalid
            | ReasonCode::SecretUnavailable
            | ReasonCode::SecretsDisabled
            | ReasonCode::AssignmentTooLarge
    )
}
