//! Which file of a crate uses which other.
//!
//! A name that a module only re-exports belongs to the file that defines it, so a `mod.rs` that is a facade takes part in no
//! circle. What macros are given is read as text: `a::b` in it is a path.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Item, Macro, UseTree, Visibility, visit::Visit};

use super::modules::{Crate, Module, ModulePath, is_for_tests};

/// From each file to those that it uses, with the names that it uses.
pub(super) type Edges = BTreeMap<ModulePath, BTreeMap<ModulePath, BTreeSet<String>>>;

/// Re-exports of re-exports that are followed.
const HOPS_MAX: usize = 8;

/// Every use of one file of the crate by another.
pub(super) fn edges(found: &Crate) -> Edges {
    let names: BTreeMap<&ModulePath, Names> =
        found.modules.iter().map(|(path, module)| (path, Names::read(path, module))).collect();
    let mut edges = Edges::new();
    for (from, module) in &found.modules {
        let mut paths = Paths { module: from.clone(), declared: &names[from].modules, found: Vec::new() };
        module.items.iter().filter(|item| !is_for_tests(item)).for_each(|item| paths.visit_item(item));
        for path in paths.found {
            if let Some((to, name)) = resolve(path, &names)
                && to != *from
            {
                edges.entry(from.clone()).or_default().entry(to).or_default().insert(name);
            }
        }
    }
    edges
}

/// What a file's names mean.
struct Names {
    /// Its modules, in files of their own or not.
    modules: BTreeSet<String>,
    /// What it defines.
    defined: BTreeSet<String>,
    /// What it imports, public or not, by the name that it has here.
    imported: BTreeMap<String, Vec<String>>,
    /// What it imports with `*`.
    globs: Vec<Vec<String>>,
}

impl Names {
    fn read(path: &ModulePath, module: &Module) -> Self {
        let mut names = Self {
            modules: BTreeSet::new(),
            defined: BTreeSet::new(),
            imported: BTreeMap::new(),
            globs: Vec::new(),
        };
        for item in &module.items {
            if let Item::Mod(item) = item {
                names.modules.insert(item.ident.to_string());
            }
        }
        for item in &module.items {
            let defined = match item {
                Item::Const(item) => &item.ident,
                Item::Enum(item) => &item.ident,
                Item::Fn(item) => &item.sig.ident,
                Item::Static(item) => &item.ident,
                Item::Struct(item) => &item.ident,
                Item::Trait(item) => &item.ident,
                Item::Type(item) => &item.ident,
                Item::Union(item) => &item.ident,
                Item::Use(item) => {
                    names.import(path, &item.tree);
                    continue;
                }
                _ => continue,
            };
            names.defined.insert(defined.to_string());
        }
        names
    }

    fn import(&mut self, module: &ModulePath, tree: &UseTree) {
        for Import { path, name } in imports(tree) {
            let Some(path) = absolute(&path, module, &self.modules) else { continue };
            if name == "*" {
                self.globs.push(path);
            } else {
                self.imported.insert(name, path);
            }
        }
    }
}

/// The file that defines what an absolute path of the crate names, and the name.
fn resolve(path: Vec<String>, names: &BTreeMap<&ModulePath, Names>) -> Option<(ModulePath, String)> {
    let mut path = path;
    for _ in 0..HOPS_MAX {
        let length = (0..=path.len()).rev().find(|length| names.contains_key(&path[..*length].to_vec()))?;
        let (module, rest) = path.split_at(length);
        let module = module.to_vec();
        let Some(name) = rest.first() else { return Some((module, "*".to_owned())) };
        let known = &names[&module];
        if let Some(imported) = known.imported.get(name) {
            path = [imported.as_slice(), &rest[1..]].concat();
        } else if !known.defined.contains(name)
            && let Some(glob) = known.globs.iter().find(|glob| defines(glob, name, names))
        {
            path = [glob.as_slice(), rest].concat();
        } else {
            return Some((module, name.clone()));
        }
    }
    None
}

fn defines(module: &[String], name: &str, names: &BTreeMap<&ModulePath, Names>) -> bool {
    names
        .get(&module.to_vec())
        .is_some_and(|known| known.defined.contains(name) || known.imported.contains_key(name))
}

/// A path from the root of the crate; none if it leads out of the crate.
fn absolute(path: &[String], module: &ModulePath, declared: &BTreeSet<String>) -> Option<Vec<String>> {
    let first = path.first()?;
    match first.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module.as_slice(), &path[1..]].concat()),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            let above = module.len().checked_sub(ups)?;
            Some([&module[..above], &path[ups..]].concat())
        }
        name if declared.contains(name) => Some([module.as_slice(), path].concat()),
        _ => None,
    }
}

struct Import {
    path: Vec<String>,
    /// The name that it has from here on, or `*`.
    name: String,
}

fn imports(tree: &UseTree) -> Vec<Import> {
    fn walk(tree: &UseTree, before: &[String], into: &mut Vec<Import>) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(tree) => walk(&tree.tree, &with(&tree.ident), into),
            UseTree::Name(tree) if tree.ident == "self" => {
                let name = before.last().cloned().unwrap_or_default();
                into.push(Import { path: before.to_vec(), name });
            }
            UseTree::Name(tree) => {
                into.push(Import { path: with(&tree.ident), name: tree.ident.to_string() })
            }
            UseTree::Rename(tree) => {
                into.push(Import { path: with(&tree.ident), name: tree.rename.to_string() })
            }
            UseTree::Glob(_) => into.push(Import { path: before.to_vec(), name: "*".to_owned() }),
            UseTree::Group(tree) => tree.items.iter().for_each(|tree| walk(tree, before, into)),
        }
    }
    let mut into = Vec::new();
    walk(tree, &[], &mut into);
    into
}

/// All paths of a file that lead to its own crate, from the crate's root.
struct Paths<'a> {
    /// The module that is read; longer than the file's within `mod name { … }`.
    module: ModulePath,
    declared: &'a BTreeSet<String>,
    found: Vec<Vec<String>>,
}

impl Paths<'_> {
    fn add(&mut self, path: &[String]) {
        self.found.extend(absolute(path, &self.module, self.declared));
    }

    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.add_longer(&path);
                        path.clear();
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.add_tokens(group.stream());
                    colons = 0;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => colons = 0,
            }
        }
        self.add_longer(&path);
    }

    /// A single name is no path that leads anywhere else.
    fn add_longer(&mut self, path: &[String]) {
        if path.len() > 1 {
            self.add(path);
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let Some((_, items)) = &item.content else { return };
        self.module.push(item.ident.to_string());
        items.iter().filter(|item| !is_for_tests(item)).for_each(|item| self.visit_item(item));
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        // What is only handed on is no use of it.
        if matches!(item.vis, Visibility::Inherited) {
            imports(&item.tree).into_iter().for_each(|import| self.add(&import.path));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add_longer(&segments);
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.add_tokens(item.tokens.clone());
        syn::visit::visit_macro(self, item);
    }
}
