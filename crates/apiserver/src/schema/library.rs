//! CEL as Kubernetes speaks it: the standard functions, the string and list extensions, and a few of its own.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::extractors::This;
use cel::objects::{Key, Map};
use cel::{Context, Env, Program, Value as Cel, extensions};
use serde_json::Value;

use super::node::{Node, Type};

/// Functions that an expression may call; any other is refused when its schema is compiled, not when it first runs.
const FUNCTIONS: &[&str] = &[
    "all",
    "bool",
    "bytes",
    "charAt",
    "contains",
    "distinct",
    "double",
    "dyn",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "find",
    "findAll",
    "flatten",
    "format",
    "has",
    "indexOf",
    "int",
    "isSorted",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "map",
    "matches",
    "max",
    "min",
    "replace",
    "reverse",
    "size",
    "slice",
    "sort",
    "split",
    "startsWith",
    "string",
    "substring",
    "sum",
    "trim",
    "type",
    "uint",
    "upperAscii",
];

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    for extend in [extensions::strings as fn(&mut Env) -> _, extensions::lists] {
        if let Err(error) = environment.add_extension(extend) {
            tracing::error!(%error, "a CEL extension can't be added: rules that use it will fail");
        }
    }
    Arc::new(environment)
});

/// Why an expression can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ExpressionError {
    /// It doesn't parse.
    #[error("{0}")]
    Syntax(String),
    /// It calls a function that isn't offered.
    #[error("function {0:?} is not offered")]
    Function(String),
}

/// A compiled CEL expression.
#[derive(Debug)]
pub(crate) struct Expression {
    program: Program,
    source: String,
}

impl Expression {
    pub(crate) fn compile(source: &str) -> Result<Expression, ExpressionError> {
        let program =
            ENVIRONMENT.compile(source).map_err(|error| ExpressionError::Syntax(error.to_string()))?;
        for function in program.references().functions() {
            // Operators are functions with names like `_==_` and `@in`.
            let operator = function.contains(['_', '@', '!', '?']) && function != "exists_one";
            if !operator && !FUNCTIONS.contains(&function) {
                return Err(ExpressionError::Function(function.to_owned()));
            }
        }
        Ok(Expression { program, source: source.to_owned() })
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn mentions(&self, variable: &str) -> bool {
        self.program.references().has_variable(variable)
    }

    /// Evaluates with the variables given.
    pub(crate) fn evaluate(&self, variables: &[(&str, Cel)]) -> Result<Cel, String> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        // Names that the environment already offers as overloads stay as they are.
        let _ = context.add_function("isSorted", is_sorted);
        let _ = context.add_function("find", find);
        let _ = context.add_function("findAll", find_all);
        let _ = context.add_function("sum", sum);
        let _ = context.add_function("min", cel::functions::min);
        let _ = context.add_function("max", cel::functions::max);
        for (name, value) in variables {
            context.add_variable_from_value(*name, value.clone());
        }
        self.program.execute(&context).map_err(|error| error.to_string())
    }
}

fn is_sorted(This(items): This<Cel>) -> bool {
    match items {
        Cel::List(items) => items.is_sorted(),
        _ => false,
    }
}

fn sum(This(items): This<Cel>) -> Result<Cel, cel::ExecutionError> {
    match items {
        Cel::List(items) => items.iter().cloned().try_fold(Cel::Int(0), |total, item| match total {
            // What an empty list sums to; other kinds of numbers begin with themselves.
            Cel::Int(0) => Ok(item),
            total => total + item,
        }),
        _ => Err(cel::ExecutionError::function_error("sum", "it is for lists of numbers")),
    }
}

fn find(This(text): This<Arc<String>>, pattern: Arc<String>) -> Result<Cel, cel::ExecutionError> {
    let regex = pattern_of(&pattern)?;
    Ok(Cel::from(regex.find(&text).map_or("", |found| found.as_str())))
}

fn find_all(This(text): This<Arc<String>>, pattern: Arc<String>) -> Result<Cel, cel::ExecutionError> {
    let regex = pattern_of(&pattern)?;
    let found: Vec<Cel> = regex.find_iter(&text).map(|found| Cel::from(found.as_str())).collect();
    Ok(Cel::List(Arc::new(found)))
}

fn pattern_of(pattern: &str) -> Result<regex::Regex, cel::ExecutionError> {
    regex::Regex::new(pattern).map_err(|error| cel::ExecutionError::function_error("find", error))
}

/// A JSON value as CEL sees it; the schema tells doubles from integers.
pub(crate) fn to_cel(node: Option<&Node>, value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => match (node.map(|node| node.ty), number.as_i64()) {
            (Some(Type::Number), _) | (_, None) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
            (_, Some(integer)) => Cel::Int(integer),
        },
        Value::String(text) => Cel::from(text.as_str()),
        Value::Array(items) => {
            let node = node.and_then(|node| node.items.as_deref());
            Cel::List(Arc::new(items.iter().map(|item| to_cel(node, item)).collect()))
        }
        Value::Object(fields) => {
            let mut map = HashMap::with_capacity(fields.len());
            for (name, value) in fields {
                let field = node.and_then(|node| node.field(name));
                // Names of declared fields are escaped, keys of maps are not.
                let declared = node.is_some_and(|node| node.properties.contains_key(name));
                let key = if declared { escape(name) } else { name.clone() };
                map.insert(Key::from(key), to_cel(field, value));
            }
            Cel::Map(Map { map: Arc::new(map) })
        }
    }
}

/// Field names that CEL can't spell, as Kubernetes escapes them.
fn escape(name: &str) -> String {
    const KEYWORDS: &[&str] = &[
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if KEYWORDS.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains("__") && !name.contains(['.', '-', '/']) {
        return name.to_owned();
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}
