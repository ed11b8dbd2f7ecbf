//! Rows of the budget table.

/// Measured rows, in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<[String; 4]>,
}

impl Table {
    /// Adds a row and shows it at once, for a person who waits.
    pub(crate) fn row(&mut self, what: &str, requirement: &str, goal: &str, ours: String) {
        println!("  {what}: {ours} (goal {goal}, requirement {requirement})");
        self.rows.push([what.to_owned(), requirement.to_owned(), goal.to_owned(), ours]);
    }

    /// Prints everything as a Markdown table.
    pub(crate) fn print(&self) {
        println!("\n| what | requirement | goal | measured |\n|---|---|---|---|");
        for [what, requirement, goal, ours] in &self.rows {
            println!("| {what} | {requirement} | {goal} | {ours} |");
        }
    }
}

/// The value below which 99 of 100 lie.
pub(crate) fn p99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len() * 99).div_ceil(100).saturating_sub(1);
    values.get(index).copied().unwrap_or(f64::NAN)
}
