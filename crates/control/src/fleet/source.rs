//! Modules as Applications and Modules carry them: base64 in, facts out, the bytes dropped.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use wasmbed_api::{Application, ApplicationSpec, ModuleSpec, ReasonCode};
use wasmbed_protocol::ModuleDigest;

use super::module::{ModuleFacts, ModuleRefusal};

/// Where an Application's module is, its bytes already gone.
#[derive(Clone, Debug, PartialEq)]
pub enum ModuleSource {
    /// In `wasm_bytes`.
    Inline(Arc<ModuleFacts>),
    /// `wasm_bytes` is not standard base64; the text says where.
    InvalidBase64(String),
    /// In the Module of that name in the same namespace.
    Named(String),
    /// Neither field is set; the schema refuses that, an older object may still say it.
    Absent,
}

impl ModuleSource {
    /// Takes the bytes out of a spec and keeps what is known of them.
    pub fn take(spec: &mut ApplicationSpec) -> Self {
        match (spec.wasm_bytes.take(), &spec.module) {
            (Some(text), _) => match decode_module(&text) {
                Ok(bytes) => Self::Inline(Arc::new(ModuleFacts::analyze(&bytes))),
                Err(error) => Self::InvalidBase64(format!("spec.wasm_bytes {error}")),
            },
            (None, Some(name)) => Self::Named(name.clone()),
            (None, None) => Self::Absent,
        }
    }
}

/// The sources of Applications that are watched: a module is decoded and scanned once for each generation, since a
/// status write changes neither.
#[derive(Debug, Default)]
pub struct ModuleSources {
    by_uid: BTreeMap<String, (i64, ModuleSource)>,
}

impl ModuleSources {
    /// Takes the bytes out of an Application; `None` if it has no UID.
    pub fn take(&mut self, object: &mut Application) -> Option<ModuleSource> {
        let uid = object.metadata.uid.clone()?;
        let generation = object.metadata.generation.unwrap_or_default();
        let source = match self.by_uid.get(&uid) {
            Some((known, source)) if *known == generation => {
                object.spec.wasm_bytes = None;
                source.clone()
            }
            Some(_) | None => ModuleSource::take(&mut object.spec),
        };
        self.by_uid.insert(uid, (generation, source.clone()));
        Some(source)
    }

    /// An Application is gone.
    pub fn forget(&mut self, uid: &str) {
        self.by_uid.remove(uid);
    }

    /// Whether it remembers none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_uid.is_empty()
    }
}

impl ModuleFacts {
    /// Reads the Module of that name; `needs` says what is wrong with it.
    #[must_use]
    pub fn read(name: &str, spec: &ModuleSpec) -> Self {
        let refused = |reason, message| Err(ModuleRefusal { reason, message });
        let bytes = match decode_module(&spec.wasm_bytes) {
            Ok(bytes) => bytes,
            Err(error) => {
                let message = format!("spec.wasm_bytes of Module {name} {error}");
                let needs = refused(ReasonCode::InvalidBase64, message);
                return Self { digest: ModuleDigest::default(), size: 0, needs };
            }
        };
        let facts = Self::analyze(&bytes);
        let found = facts.digest.prefixed().to_string();
        match &spec.digest {
            Some(stated) if *stated != found => {
                let message = format!("spec.digest of Module {name} is {stated}, its bytes have {found}");
                Self { needs: refused(ReasonCode::DigestMismatch, message), ..facts }
            }
            Some(_) | None => facts,
        }
    }
}

/// Configuration: text that is not standard base64.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not standard base64 ({source}); it begins with '{start}'")]
pub struct Base64Error {
    source: base64::DecodeError,
    start: String,
}

/// Reads the base64 of a module.
///
/// # Errors
/// The text is not standard base64.
pub fn decode_module(text: &str) -> Result<Vec<u8>, Base64Error> {
    const SHOWN_CHARS: usize = 24;
    let error = |source| Base64Error { source, start: text.chars().take(SHOWN_CHARS).collect() };
    STANDARD.decode(text.trim()).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_is_not_base64_and_says_so() {
        let mut spec = ApplicationSpec {
            wasm_bytes: Some("base64_encoded_wasm_binary".to_owned()),
            ..ApplicationSpec::default()
        };
        let ModuleSource::InvalidBase64(message) = ModuleSource::take(&mut spec) else {
            panic!("taken for base64")
        };
        assert!(message.contains("spec.wasm_bytes") && message.contains("base64_encoded_wasm"), "{message}");
    }

    #[test]
    fn bytes_are_gone_once_they_are_scanned_and_are_scanned_once_a_generation() {
        let mut object = Application::new("app", ApplicationSpec::default());
        object.metadata.uid = Some("u".to_owned());
        object.metadata.generation = Some(1);
        object.spec.wasm_bytes = Some(STANDARD.encode(b"\0asm"));
        let mut sources = ModuleSources::default();
        let take = |object: &Application, sources: &mut ModuleSources| {
            let mut object = object.clone();
            let source = sources.take(&mut object);
            assert_eq!(object.spec.wasm_bytes, None);
            let Some(ModuleSource::Inline(facts)) = source else { panic!("no module") };
            facts
        };
        let first = take(&object, &mut sources);
        assert!(Arc::ptr_eq(&first, &take(&object, &mut sources)));
        object.metadata.generation = Some(2);
        assert!(!Arc::ptr_eq(&first, &take(&object, &mut sources)));
        sources.forget("u");
        assert!(sources.is_empty());
    }

    #[test]
    fn a_module_whose_bytes_have_another_digest_is_refused() {
        let spec = ModuleSpec {
            wasm_bytes: STANDARD.encode(b"x"),
            digest: Some("sha256:00".to_owned()),
            description: None,
        };
        let refusal = ModuleFacts::read("m", &spec).needs.unwrap_err();
        assert_eq!(refusal.reason, ReasonCode::DigestMismatch);
    }
}
