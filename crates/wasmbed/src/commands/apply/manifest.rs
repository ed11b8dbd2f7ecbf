//! Objects in files, folders and standard input.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::output::yaml_problem;

/// More than any sensible manifest: a hundred Modules of the largest size.
const MANIFEST_BYTES_MAX: u64 = 160 << 20;

/// One object, and where it was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Manifest {
    /// For messages: the file, and the number of the document where it holds several.
    pub(super) origin: String,
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) object: Value,
}

impl Manifest {
    /// An object as a manifest.
    ///
    /// # Errors
    /// It lacks what every object has.
    pub(super) fn new(origin: String, object: Value) -> Result<Self> {
        ensure!(object.is_object(), "{origin}: is not an object with apiVersion, kind and metadata");
        let text = |value: &Value, field: &str| match value.as_str() {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => bail!("{origin}: {field} is missing"),
        };
        Ok(Self {
            api_version: text(&object["apiVersion"], "apiVersion")?,
            kind: text(&object["kind"], "kind")?,
            name: text(&object["metadata"]["name"], "metadata.name")?,
            origin,
            object,
        })
    }
}

/// All objects in the files, in order; folders' files by name.
pub(super) fn read_all(paths: &[PathBuf]) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for path in paths {
        if path.is_dir() {
            for file in files_in(path)? {
                manifests.extend(read_file(&file)?);
            }
        } else {
            manifests.extend(read_file(path)?);
        }
    }
    Ok(manifests)
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let named = || format!("can't read {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(named)? {
        let path = entry.with_context(named)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_file() && matches!(extension, Some("yaml" | "yml" | "json")) {
            files.push(path);
        }
    }
    ensure!(!files.is_empty(), "{} holds no .yaml, .yml or .json file", folder.display());
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> Result<Vec<Manifest>> {
    let name = if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() };
    let bytes = read_bytes(path).with_context(|| format!("can't read {name}"))?;
    ensure!(
        bytes.len() as u64 <= MANIFEST_BYTES_MAX,
        "{name} is larger than {} MiB",
        MANIFEST_BYTES_MAX >> 20
    );
    let text = String::from_utf8(bytes).ok().with_context(|| format!("{name} is not text in UTF-8"))?;
    parse(&name, &text)
}

pub(super) fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        io::stdin().lock().take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    } else {
        fs::File::open(path)?.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn parse(name: &str, text: &str) -> Result<Vec<Manifest>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|error| anyhow!("{name} is neither YAML nor JSON: {}", yaml_problem(&error)))?;
    let several = documents.len() > 1;
    let mut manifests = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        let origin = if several { format!("{name}, document {}", index + 1) } else { name.to_owned() };
        match document {
            Value::Null => {}
            Value::Object(mut fields) if fields.get("kind").and_then(Value::as_str) == Some("List") => {
                let items = fields.remove("items").and_then(|items| match items {
                    Value::Array(items) => Some(items),
                    _ => None,
                });
                for (index, item) in
                    items.with_context(|| format!("{origin}: a List has items"))?.into_iter().enumerate()
                {
                    manifests.push(Manifest::new(format!("{origin}, items[{index}]"), item)?);
                }
            }
            document => manifests.push(Manifest::new(origin, document)?),
        }
    }
    Ok(manifests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_lists_and_empty_documents_are_read_in_order() {
        let text = "# nothing yet\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: lab}\n---\n---\n\
                    apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: two}}\n";
        let manifests = parse("file.yaml", text).unwrap();
        let names: Vec<_> = manifests.iter().map(|manifest| manifest.name.as_str()).collect();
        assert_eq!(names, ["lab", "two"]);
        assert!(manifests[1].origin.starts_with("file.yaml") && manifests[1].origin.ends_with("items[0]"));
    }

    #[test]
    fn json_is_read_and_numbers_and_words_keep_their_type() {
        let text = r#"{"apiVersion": "v1", "kind": "X", "metadata": {"name": "a", "labels": {"on": "true"}}, "spec": {"n": 5, "s": "5", "b": true}}"#;
        let object = &parse("-", text).unwrap()[0].object;
        assert_eq!(object["spec"], serde_json::json!({"n": 5, "s": "5", "b": true}));
        assert_eq!(object["metadata"]["labels"]["on"], "true");
    }

    #[test]
    fn what_is_missing_is_named_with_its_place() {
        let error = parse("a.yaml", "kind: Device\nmetadata: {name: x}\n").unwrap_err().to_string();
        assert_eq!(error, "a.yaml: apiVersion is missing");
        let error =
            parse("a.yaml", "apiVersion: v1\nkind: Device\n---\njust text\n").unwrap_err().to_string();
        assert!(error.contains("metadata.name is missing"), "{error}");
        assert!(parse("a.yaml", "a: [").is_err());
    }

    #[test]
    fn a_folder_gives_its_manifests_by_name_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for (file, name) in [("b.yml", "second"), ("a.yaml", "first"), ("c.json", "third")] {
            let text = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}");
            fs::write(folder.path().join(file), text).unwrap();
        }
        fs::write(folder.path().join("notes.txt"), "not a manifest").unwrap();
        let names: Vec<_> = read_all(&[folder.path().to_owned()])
            .unwrap()
            .into_iter()
            .map(|manifest| manifest.name)
            .collect();
        assert_eq!(names, ["first", "second", "third"]);
    }
}
