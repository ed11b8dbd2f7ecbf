//! What tests of the deployment share: Helm with the chart, rendered manifests as values, and an empty root to run the one
//! binary in.
//!
//! It may not hold a copy of anything that the chart says: tests read what Helm renders.

#![forbid(unsafe_code)]

mod chart;
mod root;

pub use chart::{Chart, Manifest, chart_dir, values_files};
pub use root::Root;
