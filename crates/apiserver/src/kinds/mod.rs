//! The kinds that are served, from CustomResourceDefinitions; those of built-in kinds are embedded.

mod columns;
mod conversion;
mod definition;
mod events;
mod kind;
mod registry;
mod table;
#[cfg(test)]
mod tests;

pub use columns::{Column, ColumnError};
pub use conversion::Conversion;
pub use definition::DefinitionError;
pub(crate) use events::validate_event;
pub use kind::Kind;
pub use registry::Kinds;
