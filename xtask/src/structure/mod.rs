//! `cargo xtask structure`: the map of the code base, crate by crate, and the circles among its files.
//!
//! Tests count as lines and as nothing else.

mod circles;
mod examples;
mod measure;
mod modules;
mod references;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use clap::Args;

use crate::process;
use circles::Circle;
use measure::{Measures, Sized};
use modules::Crate;

/// The largest files and functions that are listed.
const LISTED: usize = 10;

/// Lines of a function at most.
const FUNCTION_LINES_MAX: usize = 100;
/// Functions that are longer, as they are listed, and why.
const LONGER: [(&str, &str); 1] = [(
    "crates/engine/src/execute.rs: run",
    "the match of all operators, whose operations are macros: they need its registers as local variables, return from it and \
     continue its loop, and a macro sees no variable of a function that it is not written in",
)];

/// What to do with what was found.
#[derive(Args)]
pub(crate) struct Options {
    /// Print nothing but what breaks a rule, and fail if anything does.
    #[arg(long)]
    check: bool,
}

struct Survey {
    crates: BTreeMap<String, Measures>,
    circles: Vec<Circle>,
}

/// Prints the map, or checks the rules that it can see.
pub(crate) fn run(options: &Options) -> Result<()> {
    let survey = survey()?;
    if !options.check {
        survey.print();
        return Ok(());
    }
    let broken = survey.broken();
    ensure!(broken.is_empty(), "the structure breaks {} rules:\n{}", broken.len(), broken.join("\n"));
    Ok(())
}

/// Fails when a rule is broken.
pub(crate) fn check() -> Result<()> {
    process::step("structure");
    run(&Options { check: true })
}

/// Crates in `crates/` with an example in a doc comment that is compiled and run, by the names of their folders.
pub(crate) fn with_examples() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for one in Crate::all(&process::top())? {
        let has_some = one.modules.values().any(|module| examples::has_some(&module.text));
        found.extend(one.name.strip_prefix("crates/").filter(|_| has_some).map(str::to_owned));
    }
    Ok(found)
}

fn survey() -> Result<Survey> {
    let mut survey = Survey { crates: BTreeMap::new(), circles: Vec::new() };
    for found in Crate::all(&process::top())? {
        let edges = references::edges(&found);
        survey.circles.extend(circles::find(&found.name, &edges));
        survey.crates.insert(found.name.clone(), measure::measure(&found));
    }
    Ok(survey)
}

impl Survey {
    /// The rules that are broken, each with what to do.
    fn broken(&self) -> Vec<String> {
        let mut broken: Vec<String> = self
            .circles
            .iter()
            .map(|circle| format!("{circle}\nmove what the files need of each other to a file below them"))
            .collect();
        for (name, measures) in self.crates.iter().filter(|(_, measures)| measures.text_errors > 0) {
            let count = measures.text_errors;
            broken.push(format!(
                "{name} has {count} `Result<_, String>`: an error is a type that says whose fault it is"
            ));
        }
        let functions = || self.crates.values().flat_map(|measures| &measures.functions);
        let is_excused = |function: &Sized| LONGER.iter().any(|(name, _)| *name == function.name);
        let is_long = |function: &&Sized| function.lines > FUNCTION_LINES_MAX;
        for Sized { name, lines } in functions().filter(is_long).filter(|function| !is_excused(function)) {
            broken.push(format!(
                "{name} has {lines} lines, at most {FUNCTION_LINES_MAX} are allowed: divide it"
            ));
        }
        for (name, _) in LONGER {
            if !functions().filter(is_long).any(|function| function.name == name) {
                broken.push(format!(
                    "{name} is not longer than others any more: strike it from the list of those"
                ));
            }
        }
        broken
    }

    fn print(&self) {
        self.circles.iter().for_each(|circle| println!("{circle}\n"));
        println!(
            "{:<28} {:>7} {:>7} {:>6} {:>7} {:>8} {:>7} {:>6} {:>8}",
            "crate", "lines", "tests", "files", "fields", "strings", "spans", "asserts", "returns"
        );
        let mut total = Measures::default();
        for (name, measures) in &self.crates {
            println!("{}", row(name, measures));
            total.add(measures);
        }
        println!("{}", row("all", &total));
        println!(
            "\nfields: visible to a part of their crate; strings: `Result<_, String>`; asserts: `debug_assert!`; \
             returns: `let … else {{ return }}`"
        );
        largest("files", &total.files);
        largest("functions", &total.functions);
        for (name, why) in LONGER {
            println!("\n{name} may be longer than {FUNCTION_LINES_MAX}: {why}");
        }
        println!("\n{} circles of files", self.circles.len());
    }
}

fn row(name: &str, measures: &Measures) -> String {
    let Measures { lines, test_lines, open_fields, text_errors, spans, assertions, silent_returns, .. } =
        measures;
    format!(
        "{name:<28} {lines:>7} {test_lines:>7} {:>6} {open_fields:>7} {text_errors:>8} {spans:>7} {assertions:>6} \
         {silent_returns:>8}",
        measures.files.len()
    )
}

fn largest(what: &str, sizes: &[Sized]) {
    let mut sizes: Vec<&Sized> = sizes.iter().collect();
    sizes.sort_by_key(|sized| std::cmp::Reverse(sized.lines));
    println!("\nlargest {what}, in lines without tests:");
    for sized in sizes.into_iter().take(LISTED) {
        println!("{:>6}  {}", sized.lines, sized.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(functions: &[(&str, usize)], text_errors: usize) -> Survey {
        let functions =
            functions.iter().map(|(name, lines)| Sized { name: (*name).to_owned(), lines: *lines });
        let measures = Measures { functions: functions.collect(), text_errors, ..Measures::default() };
        Survey { crates: [("crates/a".to_owned(), measures)].into(), circles: Vec::new() }
    }

    #[test]
    fn long_functions_and_errors_without_a_type_are_named() {
        let (excused, _) = LONGER[0];
        assert_eq!(survey(&[(excused, 400), ("a.rs: short", 100)], 0).broken(), Vec::<String>::new());
        let broken = survey(&[(excused, 400), ("a.rs: long", 101)], 2).broken();
        let [texts, long] = broken.as_slice() else { panic!("{broken:?}") };
        assert!(texts.starts_with("crates/a has 2 `Result<_, String>`"), "{texts}");
        assert!(long.starts_with("a.rs: long has 101 lines"), "{long}");
    }

    #[test]
    fn an_exception_that_is_none_any_more_is_named() {
        let (excused, _) = LONGER[0];
        let broken = survey(&[(excused, 100)], 0).broken();
        assert!(matches!(broken.as_slice(), [one] if one.starts_with(excused)), "{broken:?}");
    }
}
