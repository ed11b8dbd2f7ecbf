//! The CEL environment of Kubernetes: standard functions, string and list extensions, and some of its own.

use std::sync::{Arc, LazyLock};

use cel::extractors::This;
use cel::{Context, Env, Program, Value as Cel, extensions};

/// Functions that an expression may call; others are refused when the schema is compiled instead of at run time.
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
            tracing::error!(%error, "cannot add a CEL extension: rules that use it will fail");
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
    /// It calls a function that isn't available.
    #[error("function {0:?} is not available")]
    Function(String),
}

/// An expression failed at run time: a value of another type, an overflow, a missing key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct EvaluationError(String);

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

    /// Evaluates with `variables`.
    pub(crate) fn evaluate(&self, variables: &[(&str, Cel)]) -> Result<Cel, EvaluationError> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        // Overloads that the environment has already take precedence.
        let _ = context.add_function("isSorted", is_sorted);
        let _ = context.add_function("find", find);
        let _ = context.add_function("findAll", find_all);
        let _ = context.add_function("sum", sum);
        let _ = context.add_function("min", cel::functions::min);
        let _ = context.add_function("max", cel::functions::max);
        for (name, value) in variables {
            context.add_variable_from_value(*name, value.clone());
        }
        self.program.execute(&context).map_err(|error| EvaluationError(error.to_string()))
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
            // The sum of an empty list. The first item decides the type of the sum.
            Cel::Int(0) => Ok(item),
            total => total + item,
        }),
        _ => Err(cel::ExecutionError::function_error("sum", "requires a list of numbers")),
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
