//! Label selectors: `app=x,tier in (a, b),!old`, parsed and reported as in Kubernetes
//! (apimachinery's `pkg/labels/selector.go`).
//!
//! kube-core's `Expression` has the same operators but `>` and `<`, which kube-apiserver accepts.

use std::collections::{BTreeMap, BTreeSet};

use crate::names;

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelRequirement {
    /// `key=value` and `key==value`.
    Equals(String, String),
    /// `key!=value`: another value or none.
    NotEquals(String, String),
    /// `key in (a, b)`.
    In(String, BTreeSet<String>),
    /// `key notin (a, b)`: another value or none.
    NotIn(String, BTreeSet<String>),
    /// `key`.
    Exists(String),
    /// `!key`.
    DoesNotExist(String),
    /// `key > 1`; values that aren't integers don't match.
    GreaterThan(String, i64),
    /// `key < 1`; values that aren't integers don't match.
    LessThan(String, i64),
}

/// Why a label selector can't be parsed. The texts are those of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelSelectorError {
    /// Something other than a requirement at the start.
    #[error("found '{0}', expected: !, identifier, or 'end of string'")]
    Start(String),
    /// Something other than a requirement after a comma.
    #[error("found '{0}', expected: identifier after ','")]
    AfterComma(String),
    /// Something other than a comma after a requirement.
    #[error("found '{0}', expected: ',' or 'end of string'")]
    AfterRequirement(String),
    /// A requirement can't be parsed.
    #[error("unable to parse requirement: {0}")]
    Requirement(#[from] RequirementError),
}

/// Why one requirement can't be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequirementError {
    /// Something other than a key or a value.
    #[error("found '{0}', expected: identifier")]
    Identifier(String),
    /// Something other than an operator.
    #[error("found '{0}', expected: in, notin, =, ==, !=, gt, lt")]
    Operator(String),
    /// Something other than the parenthesis before the values.
    #[error("found '{0}' expected: '('")]
    Parenthesis(String),
    /// Something other than the first value.
    #[error("found '{0}', expected: ',', ')' or identifier")]
    FirstValue(String),
    /// Something other than another value.
    #[error("found '{0}', expected: ',', or identifier")]
    NextValue(String),
    /// Something other than a comma or parenthesis after a value.
    #[error("found '{0}', expected: ',' or ')'")]
    AfterValue(String),
    /// A key that isn't the name of a label.
    #[error("<nil>: Invalid value: {key:?}: {message}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// A value that isn't one of a label.
    #[error("values[{index}][{key}]: Invalid value: {value:?}: {message}")]
    Value {
        /// The key.
        key: String,
        /// Position among the sorted values.
        index: usize,
        /// The value.
        value: String,
        /// What is wrong with it.
        message: String,
    },
    /// A bound that isn't an integer.
    #[error("values[0]: Invalid value: {0:?}: for 'Gt', 'Lt' operators, the value must be an integer")]
    Integer(String),
}

impl LabelRequirement {
    /// Whether an object with these labels fulfils it.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        use LabelRequirement::{DoesNotExist, Equals, Exists, GreaterThan, In, LessThan, NotEquals, NotIn};
        let number = |key: &String| labels.get(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Equals(key, value) => labels.get(key) == Some(value),
            NotEquals(key, value) => labels.get(key) != Some(value),
            In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Exists(key) => labels.contains_key(key),
            DoesNotExist(key) => !labels.contains_key(key),
            GreaterThan(key, bound) => number(key).is_some_and(|value| value > *bound),
            LessThan(key, bound) => number(key).is_some_and(|value| value < *bound),
        }
    }
}

/// Parses a label selector. An empty one has no requirements.
pub fn parse_labels(selector: &str) -> Result<Vec<LabelRequirement>, LabelSelectorError> {
    let mut tokens = Tokens { tokens: scan(selector), next: 0 };
    let mut requirements = Vec::new();
    loop {
        match tokens.peek() {
            Token::End => return Ok(requirements),
            Token::Word(_) | Token::Symbol("!") => {}
            other => return Err(LabelSelectorError::Start(other.into_text())),
        }
        requirements.push(requirement(&mut tokens)?);
        match tokens.take() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") => {
                let after = tokens.peek();
                if !matches!(after, Token::Word(_) | Token::Symbol("!")) {
                    return Err(LabelSelectorError::AfterComma(after.into_text()));
                }
            }
            other => return Err(LabelSelectorError::AfterRequirement(other.into_text())),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Symbol(&'static str),
    Invalid(String),
    End,
}

impl Token {
    fn into_text(self) -> String {
        match self {
            Token::Word(text) | Token::Invalid(text) => text,
            Token::Symbol(text) => text.to_owned(),
            Token::End => String::new(),
        }
    }
}

/// Scanned tokens; after the last one follows [`Token::End`] for ever.
struct Tokens {
    tokens: Vec<Token>,
    next: usize,
}

impl Tokens {
    fn peek(&self) -> Token {
        self.tokens.get(self.next).cloned().unwrap_or(Token::End)
    }

    fn take(&mut self) -> Token {
        let token = self.peek();
        self.next += 1;
        token
    }
}

/// Longer ones first: the longest that matches wins.
const SYMBOLS: [&str; 8] = ["==", "!=", "=", "!", ">", "<", "(", ")"];

fn scan(selector: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = selector.trim_start();
    while !rest.is_empty() {
        let symbol = SYMBOLS.into_iter().chain([","]).find(|symbol| rest.starts_with(symbol));
        let length = match symbol {
            Some(symbol) => symbol.len(),
            None => rest.find(|c: char| "=!(),<>".contains(c) || c.is_whitespace()).unwrap_or(rest.len()),
        };
        let (text, after) = rest.split_at(length.max(1).min(rest.len()));
        tokens.push(match symbol {
            Some(symbol) => Token::Symbol(symbol),
            None if length == 0 => Token::Invalid(text.to_owned()),
            None => Token::Word(text.to_owned()),
        });
        rest = after.trim_start();
    }
    tokens
}

fn requirement(tokens: &mut Tokens) -> Result<LabelRequirement, RequirementError> {
    let mut token = tokens.take();
    let absent = token == Token::Symbol("!");
    if absent {
        token = tokens.take();
    }
    let key = match token {
        Token::Word(key) => key,
        other => return Err(RequirementError::Identifier(other.into_text())),
    };
    let faults = names::key(&key);
    if !faults.is_empty() {
        return Err(RequirementError::Key { key, message: faults.join("; ") });
    }
    if absent {
        return Ok(LabelRequirement::DoesNotExist(key));
    }
    if matches!(tokens.peek(), Token::End | Token::Symbol(",")) {
        return Ok(LabelRequirement::Exists(key));
    }
    let operator = tokens.take().into_text();
    match operator.as_str() {
        "in" => Ok(LabelRequirement::In(key.clone(), values(tokens, &key)?)),
        "notin" => Ok(LabelRequirement::NotIn(key.clone(), values(tokens, &key)?)),
        "=" | "==" => Ok(LabelRequirement::Equals(key.clone(), value(tokens, &key)?)),
        "!=" => Ok(LabelRequirement::NotEquals(key.clone(), value(tokens, &key)?)),
        ">" => Ok(LabelRequirement::GreaterThan(key.clone(), number(tokens, &key)?)),
        "<" => Ok(LabelRequirement::LessThan(key.clone(), number(tokens, &key)?)),
        _ => Err(RequirementError::Operator(operator)),
    }
}

/// The value after an operator; may be empty.
fn value(tokens: &mut Tokens, key: &str) -> Result<String, RequirementError> {
    let value = word(tokens)?;
    check(key, 0, &value)?;
    Ok(value)
}

fn word(tokens: &mut Tokens) -> Result<String, RequirementError> {
    if matches!(tokens.peek(), Token::End | Token::Symbol(",")) {
        return Ok(String::new());
    }
    match tokens.take() {
        Token::Word(value) => Ok(value),
        other => Err(RequirementError::Identifier(other.into_text())),
    }
}

fn number(tokens: &mut Tokens, key: &str) -> Result<i64, RequirementError> {
    let value = word(tokens)?;
    let Ok(number) = value.parse::<i64>() else { return Err(RequirementError::Integer(value)) };
    check(key, 0, &value)?;
    Ok(number)
}

/// A list in parentheses.
fn values(tokens: &mut Tokens, key: &str) -> Result<BTreeSet<String>, RequirementError> {
    let open = tokens.take();
    if open != Token::Symbol("(") {
        return Err(RequirementError::Parenthesis(open.into_text()));
    }
    let mut values = BTreeSet::new();
    loop {
        // An omitted value is the empty one.
        if matches!(tokens.peek(), Token::Symbol("," | ")")) {
            values.insert(String::new());
        } else {
            match tokens.take() {
                Token::Word(value) => values.insert(value),
                other if values.is_empty() => return Err(RequirementError::FirstValue(other.into_text())),
                other => return Err(RequirementError::NextValue(other.into_text())),
            };
        }
        match tokens.take() {
            Token::Symbol(",") => {}
            Token::Symbol(")") => break,
            other => return Err(RequirementError::AfterValue(other.into_text())),
        }
    }
    for (index, value) in values.iter().enumerate() {
        check(key, index, value)?;
    }
    Ok(values)
}

fn check(key: &str, index: usize, value: &str) -> Result<(), RequirementError> {
    let faults = names::value(value);
    if faults.is_empty() {
        return Ok(());
    }
    let (key, value, message) = (key.to_owned(), value.to_owned(), faults.join("; "));
    Err(RequirementError::Value { key, index, value, message })
}
