//! Files that use each other, directly or by way of others: the strongly connected parts of a crate's graph.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{modules::ModulePath, references::Edges};

/// Names that are listed for one use.
const NAMES_LISTED: usize = 6;

/// Files of a crate each of which leads to each other.
pub(super) struct Circle {
    crate_name: String,
    /// Who uses what of whom, within the circle.
    uses: Vec<(ModulePath, ModulePath, BTreeSet<String>)>,
    members: BTreeSet<ModulePath>,
}

/// All circles of a crate.
pub(super) fn find(crate_name: &str, edges: &Edges) -> Vec<Circle> {
    let reached: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> =
        edges.keys().map(|from| (from, reachable(from, edges))).collect();
    let mut placed: BTreeSet<&ModulePath> = BTreeSet::new();
    let mut circles = Vec::new();
    for (from, to) in &reached {
        if placed.contains(from) || !to.contains(from) {
            continue;
        }
        let members: BTreeSet<&ModulePath> = to
            .iter()
            .copied()
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(from)))
            .collect();
        placed.extend(&members);
        circles.push(Circle::new(crate_name, &members, edges));
    }
    circles
}

fn reachable<'a>(from: &'a ModulePath, edges: &'a Edges) -> BTreeSet<&'a ModulePath> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from];
    while let Some(module) = next.pop() {
        for to in edges.get(module).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(to) {
                next.push(to);
            }
        }
    }
    reached
}

impl Circle {
    fn new(crate_name: &str, members: &BTreeSet<&ModulePath>, edges: &Edges) -> Self {
        let mut uses = Vec::new();
        for from in members {
            for (to, names) in edges.get(*from).into_iter().flatten().filter(|(to, _)| members.contains(to)) {
                uses.push(((*from).clone(), to.clone(), names.clone()));
            }
        }
        let members = members.iter().map(|module| (*module).clone()).collect();
        Self { crate_name: crate_name.to_owned(), uses, members }
    }
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "circle of {} files in {}", self.members.len(), self.crate_name)?;
        for (from, to, names) in &self.uses {
            let names: Vec<&str> = names.iter().map(String::as_str).take(NAMES_LISTED).collect();
            write!(f, "\n    {} uses {} of {}", shown(from), names.join(", "), shown(to))?;
        }
        Ok(())
    }
}

fn shown(module: &ModulePath) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("::") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str) -> ModulePath {
        vec![name.to_owned()]
    }

    fn edges(uses: &[(&str, &str)]) -> Edges {
        let mut edges = Edges::new();
        for (from, to) in uses {
            let names = edges.entry(module(from)).or_default().entry(module(to)).or_default();
            names.insert("Name".to_owned());
        }
        edges
    }

    #[test]
    fn a_chain_is_no_circle() {
        assert!(find("crate", &edges(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    }

    #[test]
    fn two_circles_are_told_apart() {
        let found =
            find("crate", &edges(&[("a", "b"), ("b", "a"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "c")]));
        let members: Vec<usize> = found.iter().map(|circle| circle.members.len()).collect();
        assert_eq!(members, [2, 3]);
        assert!(found[0].to_string().starts_with("circle of 2 files in crate\n    a uses Name of b"));
    }
}
