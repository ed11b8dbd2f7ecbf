//! Admission: conditions on the objects that a client writes.

use std::sync::Arc;

use cel::Value as Cel;
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::schema::{Expression, ExpressionError, to_cel};
use crate::status::Status;

/// A condition on objects that a client may write, in CEL over `object`, `oldObject` and `variables.name`.
#[derive(Clone, Debug)]
pub struct Constraint {
    expression: Arc<Expression>,
    message: String,
    /// Of the client: `variables.name`.
    name: String,
}

impl Constraint {
    /// Compiles the expression; `message` is the error if it doesn't hold.
    pub fn compile(expression: &str, message: &str) -> Result<Constraint, ExpressionError> {
        let expression = Arc::new(Expression::compile(expression)?);
        Ok(Constraint { expression, message: message.to_owned(), name: String::new() })
    }

    /// The constraint for a client of that name.
    #[must_use]
    pub fn for_client(&self, name: &str) -> Constraint {
        Constraint { name: name.to_owned(), ..self.clone() }
    }

    pub(super) fn check(&self, kind: &Kind, object: &Value, old: Option<&Value>) -> Result<(), Status> {
        let old = old.map_or(Cel::Null, |old| to_cel(None, old));
        let variables = [
            ("object", to_cel(None, object)),
            ("oldObject", old),
            ("variables", to_cel(None, &json!({ "name": self.name }))),
        ];
        match self.expression.evaluate(&variables) {
            Ok(Cel::Bool(true)) => Ok(()),
            Ok(_) | Err(_) => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                Err(Status::forbidden(kind.names(), name, &self.message))
            }
        }
    }
}
