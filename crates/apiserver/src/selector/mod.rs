//! Label and field selectors.

mod facets;
mod label;
mod selection;

pub use facets::Facets;
pub use label::{LabelRequirement, LabelSelectorError, RequirementError, parse_labels};
pub use selection::Selection;
