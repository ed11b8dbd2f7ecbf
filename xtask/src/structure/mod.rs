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
    survey.circles.iter().for_each(|circle| println!("{circle}"));
    ensure!(
        survey.circles.is_empty(),
        "files of one crate use each other in a circle: move what both need to a file below them"
    );
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
