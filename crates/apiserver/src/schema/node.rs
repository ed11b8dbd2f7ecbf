//! The compiled form of a structural schema.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use super::library::{Expression, ExpressionError};
use super::path::join;

/// Why a schema can't be served.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A keyword that this server doesn't enforce.
    #[error("schema at {path:?}: unsupported keyword {keyword:?}")]
    Keyword {
        /// The field, for example `spec.items[*]`.
        path: String,
        /// As the schema has it, for example `minLength`.
        keyword: String,
    },
    /// A keyword with a value of the wrong shape.
    #[error("schema at {path:?}: {keyword} has an invalid value: {value}")]
    Value {
        /// The field, for example `spec.items[*]`.
        path: String,
        /// As the schema has it, for example `minLength`.
        keyword: String,
        /// Its value.
        value: String,
    },
    /// A CEL rule that doesn't compile.
    #[error("schema at {path:?}: rule {rule:?}: {error}")]
    Rule {
        /// Where.
        path: String,
        /// The rule's text.
        rule: String,
        /// Why.
        #[source]
        error: ExpressionError,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    /// No type stated: anything.
    Any,
}

impl Type {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
            Type::IntOrString => "integer,string",
            Type::Any => "any",
        }
    }
}

/// What identifies list items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListType {
    Atomic,
    Set,
    Map(Vec<String>),
}

/// Values of fields that the schema doesn't name.
#[derive(Debug)]
pub(crate) enum Additional {
    Pruned,
    Kept,
    Schema(Box<Node>),
}

#[derive(Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) length_min: Option<u64>,
    pub(crate) length_max: Option<u64>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) format: Option<String>,
    pub(crate) minimum: Option<(f64, bool)>,
    pub(crate) maximum: Option<(f64, bool)>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) items_min: Option<u64>,
    pub(crate) items_max: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) properties_min: Option<u64>,
    pub(crate) properties_max: Option<u64>,
    pub(crate) allowed: Option<Vec<Value>>,
}

/// `x-kubernetes-validations`, one entry.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) expression: Expression,
    pub(crate) message: Option<String>,
    pub(crate) message_expression: Option<Expression>,
    /// Mentions `oldSelf`, so it is evaluated on updates only.
    pub(crate) transition: bool,
    pub(crate) reason: &'static str,
    pub(crate) field_path: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) ty: Type,
    pub(crate) nullable: bool,
    pub(crate) default: Option<Value>,
    pub(crate) properties: BTreeMap<String, Node>,
    pub(crate) additional: Additional,
    pub(crate) required: Vec<String>,
    pub(crate) items: Option<Box<Node>>,
    pub(crate) list: ListType,
    pub(crate) bounds: Bounds,
    pub(crate) all_of: Vec<Node>,
    pub(crate) any_of: Vec<Node>,
    pub(crate) one_of: Vec<Node>,
    pub(crate) not: Option<Box<Node>>,
    pub(crate) rules: Vec<Rule>,
    /// There is a rule here or below.
    pub(crate) has_rules: bool,
    /// There is a default below.
    pub(crate) has_defaults: bool,
}

impl Node {
    pub(crate) fn compile(schema: &Value, path: &str) -> Result<Node, SchemaError> {
        let fields = schema.as_object().ok_or_else(|| bad(path, "schema", schema))?;
        let mut node = Node {
            ty: Type::Any,
            nullable: false,
            default: None,
            properties: BTreeMap::new(),
            additional: Additional::Pruned,
            required: Vec::new(),
            items: None,
            list: ListType::Atomic,
            bounds: Bounds::default(),
            all_of: Vec::new(),
            any_of: Vec::new(),
            one_of: Vec::new(),
            not: None,
            rules: Vec::new(),
            has_rules: false,
            has_defaults: false,
        };
        for (keyword, value) in fields {
            node.keyword(keyword, value, path)?;
        }
        node.finish(fields, path)?;
        Ok(node)
    }

    fn keyword(&mut self, keyword: &str, value: &Value, path: &str) -> Result<(), SchemaError> {
        let wrong = || bad(path, keyword, value);
        match keyword {
            "description" | "title" | "example" | "externalDocs" | "x-kubernetes-map-type" | "$schema" => {}
            "type" => {
                self.ty = match value.as_str() {
                    Some("object") => Type::Object,
                    Some("array") => Type::Array,
                    Some("string") => Type::String,
                    Some("integer") => Type::Integer,
                    Some("number") => Type::Number,
                    Some("boolean") => Type::Boolean,
                    Some(_) | None => return Err(wrong()),
                }
            }
            "x-kubernetes-int-or-string" => {}
            "nullable" => self.nullable = value.as_bool().ok_or_else(wrong)?,
            "default" => self.default = Some(value.clone()),
            "properties" => {
                for (name, schema) in value.as_object().ok_or_else(wrong)? {
                    self.properties.insert(name.clone(), Node::compile(schema, &join(path, name))?);
                }
            }
            "additionalProperties" => {
                self.additional = match value {
                    Value::Bool(true) => Additional::Kept,
                    Value::Bool(false) => Additional::Pruned,
                    schema => Additional::Schema(Box::new(Node::compile(schema, &format!("{path}[*]"))?)),
                }
            }
            "x-kubernetes-preserve-unknown-fields" | "x-kubernetes-embedded-resource" => {
                if value.as_bool().ok_or_else(wrong)? && matches!(self.additional, Additional::Pruned) {
                    self.additional = Additional::Kept;
                }
            }
            "required" => self.required = strings(value).ok_or_else(wrong)?,
            "items" => self.items = Some(Box::new(Node::compile(value, &format!("{path}[*]"))?)),
            "x-kubernetes-list-type" | "x-kubernetes-list-map-keys" => {}
            "allOf" => self.all_of = Node::compile_all(value, path).ok_or_else(wrong)??,
            "anyOf" => self.any_of = Node::compile_all(value, path).ok_or_else(wrong)??,
            "oneOf" => self.one_of = Node::compile_all(value, path).ok_or_else(wrong)??,
            "not" => self.not = Some(Box::new(Node::compile(value, path)?)),
            "x-kubernetes-validations" => {
                for rule in value.as_array().ok_or_else(wrong)? {
                    self.rules.push(Rule::compile(rule, path)?);
                }
            }
            other => self.bounds.keyword(other, value, path)?,
        }
        Ok(())
    }

    fn compile_all(value: &Value, path: &str) -> Option<Result<Vec<Node>, SchemaError>> {
        Some(value.as_array()?.iter().map(|schema| Node::compile(schema, path)).collect())
    }

    /// Keywords that depend on others.
    fn finish(&mut self, fields: &Map<String, Value>, path: &str) -> Result<(), SchemaError> {
        if fields.get("x-kubernetes-int-or-string").and_then(Value::as_bool) == Some(true) {
            self.ty = Type::IntOrString;
            // Kubernetes requires this pair with the marker; it is redundant.
            self.any_of.clear();
        }
        if fields.get("exclusiveMinimum").and_then(Value::as_bool) == Some(true)
            && let Some(minimum) = &mut self.bounds.minimum
        {
            minimum.1 = true;
        }
        if fields.get("exclusiveMaximum").and_then(Value::as_bool) == Some(true)
            && let Some(maximum) = &mut self.bounds.maximum
        {
            maximum.1 = true;
        }
        self.list = match fields.get("x-kubernetes-list-type").map(|value| (value, value.as_str())) {
            None | Some((_, Some("atomic"))) => ListType::Atomic,
            Some((_, Some("set"))) => ListType::Set,
            Some((_, Some("map"))) => {
                let keys = fields.get("x-kubernetes-list-map-keys");
                let keys = keys.and_then(strings).filter(|keys| !keys.is_empty());
                ListType::Map(keys.ok_or_else(|| bad(path, "x-kubernetes-list-map-keys", &Value::Null))?)
            }
            Some((value, _)) => return Err(bad(path, "x-kubernetes-list-type", value)),
        };
        let below = || {
            let additional = match &self.additional {
                Additional::Schema(node) => Some(&**node),
                Additional::Pruned | Additional::Kept => None,
            };
            self.properties.values().chain(self.items.as_deref()).chain(additional)
        };
        self.has_rules = !self.rules.is_empty() || below().any(|node| node.has_rules);
        self.has_defaults = below().any(|node| node.default.is_some() || node.has_defaults);
        Ok(())
    }

    /// The schema of the field `name` of an object.
    pub(crate) fn field(&self, name: &str) -> Option<&Node> {
        self.properties.get(name).or(match &self.additional {
            Additional::Schema(node) => Some(node),
            Additional::Pruned | Additional::Kept => None,
        })
    }
}

impl Bounds {
    fn keyword(&mut self, keyword: &str, value: &Value, path: &str) -> Result<(), SchemaError> {
        let wrong = || bad(path, keyword, value);
        let count = || value.as_u64().ok_or_else(wrong);
        match keyword {
            "minLength" => self.length_min = Some(count()?),
            "maxLength" => self.length_max = Some(count()?),
            "pattern" => {
                let pattern = value.as_str().and_then(|pattern| Regex::new(pattern).ok());
                self.pattern = Some(pattern.ok_or_else(wrong)?);
            }
            "format" => self.format = Some(value.as_str().ok_or_else(wrong)?.to_owned()),
            "minimum" => self.minimum = Some((value.as_f64().ok_or_else(wrong)?, false)),
            "maximum" => self.maximum = Some((value.as_f64().ok_or_else(wrong)?, false)),
            "exclusiveMinimum" | "exclusiveMaximum" => {
                value.as_bool().ok_or_else(wrong)?;
            }
            "multipleOf" => self.multiple_of = Some(value.as_f64().filter(|n| *n > 0.0).ok_or_else(wrong)?),
            "minItems" => self.items_min = Some(count()?),
            "maxItems" => self.items_max = Some(count()?),
            "uniqueItems" => self.unique_items = value.as_bool().ok_or_else(wrong)?,
            "minProperties" => self.properties_min = Some(count()?),
            "maxProperties" => self.properties_max = Some(count()?),
            "enum" => self.allowed = Some(value.as_array().ok_or_else(wrong)?.clone()),
            unknown => {
                return Err(SchemaError::Keyword { path: path.to_owned(), keyword: unknown.to_owned() });
            }
        }
        Ok(())
    }
}

impl Rule {
    fn compile(value: &Value, path: &str) -> Result<Rule, SchemaError> {
        let wrong = || bad(path, "x-kubernetes-validations", value);
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let source = text("rule").ok_or_else(wrong)?;
        let compile = |source: &str| {
            Expression::compile(source).map_err(|error| SchemaError::Rule {
                path: path.to_owned(),
                rule: source.to_owned(),
                error,
            })
        };
        if value.get("optionalOldSelf").is_some_and(|flag| flag.as_bool() != Some(false)) {
            let keyword = "optionalOldSelf".to_owned();
            return Err(SchemaError::Keyword { path: path.to_owned(), keyword });
        }
        let expression = compile(source)?;
        Ok(Rule {
            transition: expression.mentions("oldSelf"),
            expression,
            message: text("message").map(str::to_owned),
            message_expression: text("messageExpression").map(compile).transpose()?,
            reason: match text("reason") {
                None | Some("FieldValueInvalid") => "FieldValueInvalid",
                Some("FieldValueForbidden") => "FieldValueForbidden",
                Some("FieldValueRequired") => "FieldValueRequired",
                Some("FieldValueDuplicate") => "FieldValueDuplicate",
                Some(_) => return Err(wrong()),
            },
            field_path: text("fieldPath").map(str::to_owned),
        })
    }
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

fn bad(path: &str, keyword: &str, value: &Value) -> SchemaError {
    SchemaError::Value { path: path.to_owned(), keyword: keyword.to_owned(), value: value.to_string() }
}
