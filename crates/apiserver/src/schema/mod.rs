//! Structural schemas: the `openAPIV3Schema` of a CustomResourceDefinition, compiled and enforced.
//!
//! A schema is compiled once into a tree of nodes. In the order of Kubernetes, a body is decoded ([`decode`]), unknown
//! fields are pruned ([`Schema::prune`]), defaults are applied ([`Schema::apply_defaults`]), and types, bounds, lists and
//! CEL rules are validated ([`Schema::validate`]). All of them walk the tree, and errors have the text of
//! kube-apiserver, so that no JSON Schema library is used: its dialect differs (`nullable`, int-or-string, ratcheting).

mod cel;
pub mod decode;
mod defaults;
mod library;
mod node;
pub(crate) mod path;
mod prune;
mod rules;
mod structural;
#[cfg(test)]
mod tests;
mod validate;

pub(crate) use self::cel::to_cel;
pub(crate) use library::Expression;
pub use library::ExpressionError;
pub use node::SchemaError;
pub use structural::Schema;
