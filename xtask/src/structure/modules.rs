//! The crates of the repository, and the files of each as modules.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use syn::{Attribute, Item, Meta};

/// Where a module is in its crate: empty for `lib.rs` and `main.rs`.
pub(super) type ModulePath = Vec<String>;

/// Folders that hold no crates of ours, or what was built.
const SKIPPED: [&str; 2] = ["target", "prebuilt"];

/// A crate: its modules that are files, without those that are only compiled for tests.
pub(super) struct Crate {
    pub(super) name: String,
    pub(super) modules: BTreeMap<ModulePath, Module>,
    /// Lines of the files that are only compiled for tests, `tests/` included.
    pub(super) test_lines: usize,
}

/// A file.
pub(super) struct Module {
    /// From the top of the repository.
    pub(super) file: String,
    pub(super) text: String,
    /// Without what is only compiled for tests.
    pub(super) items: Vec<Item>,
}

impl Crate {
    /// All of them below `top`.
    pub(super) fn all(top: &Path) -> Result<Vec<Self>> {
        let mut folders = Vec::new();
        collect(top, &mut folders, &mut |path| path.file_name() == Some(OsStr::new("Cargo.toml")))?;
        folders.sort();
        let mut crates = Vec::new();
        for manifest in folders {
            let folder = manifest.parent().unwrap_or(top);
            if folder.join("src").is_dir() {
                crates.push(Self::read(top, folder)?);
            }
        }
        Ok(crates)
    }

    fn read(top: &Path, folder: &Path) -> Result<Self> {
        let source = folder.join("src");
        let mut files = Vec::new();
        collect(&source, &mut files, &mut |path| path.extension() == Some(OsStr::new("rs")))?;
        let mut modules = BTreeMap::new();
        let mut tests = BTreeSet::new();
        for path in files {
            let file = path.strip_prefix(top).unwrap_or(&path).display().to_string();
            let text = fs::read_to_string(&path).with_context(|| format!("can't read {file}"))?;
            let parsed = syn::parse_file(&text).with_context(|| format!("can't parse {file}"))?;
            let module = module_path(path.strip_prefix(&source).unwrap_or(&path));
            let (for_tests, items): (Vec<Item>, Vec<Item>) = parsed.items.into_iter().partition(is_for_tests);
            for item in for_tests {
                if let Item::Mod(item) = item {
                    tests.insert([module.as_slice(), &[item.ident.to_string()]].concat());
                }
            }
            modules.insert(module, Module { file, text, items });
        }
        let mut test_lines = 0;
        modules.retain(|path, module| {
            let kept = !tests.iter().any(|test| path.starts_with(test));
            test_lines += if kept { 0 } else { module.text.lines().count() };
            kept
        });
        let mut test_files = Vec::new();
        let beside = folder.join("tests");
        if beside.is_dir() {
            collect(&beside, &mut test_files, &mut |path| path.extension() == Some(OsStr::new("rs")))?;
        }
        for path in test_files {
            test_lines += fs::read_to_string(&path).unwrap_or_default().lines().count();
        }
        let name = folder.strip_prefix(top).unwrap_or(folder).display().to_string();
        Ok(Self { name, modules, test_lines })
    }
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>, wanted: &mut dyn FnMut(&Path) -> bool) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                collect(&path, into, wanted)?;
            }
        } else if wanted(&path) {
            into.push(path);
        }
    }
    Ok(())
}

/// `store/mod.rs` is `store`, `store/log.rs` is `store::log`.
fn module_path(relative: &Path) -> ModulePath {
    let mut path: ModulePath =
        relative.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    path.pop_if(|last| ["mod", "lib", "main"].contains(&last.as_str()));
    path
}

/// Whether `#[cfg(test)]` or `#[test]` stands above it.
pub(super) fn is_for_tests(item: &Item) -> bool {
    let attributes: &[Attribute] = match item {
        Item::Mod(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        Meta::NameValue(_) => false,
    })
}
