//! Label selectors: `app=x,tier in (a, b),!old`, read as Kubernetes reads them
//! (apimachinery's `pkg/labels/selector.go`), refusals included.

use std::collections::{BTreeMap, BTreeSet};

use crate::names;

/// One term of a label selector.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Label {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    Absent(String),
    Above(String, i64),
    Below(String, i64),
}

impl Label {
    pub(super) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let number = |key: &String| labels.get(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Label::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Label::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Label::Exists(key) => labels.contains_key(key),
            Label::Absent(key) => !labels.contains_key(key),
            Label::Above(key, bound) => number(key).is_some_and(|value| value > *bound),
            Label::Below(key, bound) => number(key).is_some_and(|value| value < *bound),
        }
    }
}

/// The terms of a selector, or why it can't be read.
pub(super) fn parse(selector: &str) -> Result<Vec<Label>, String> {
    let mut tokens = Tokens { tokens: scan(selector), next: 0 };
    let mut labels = Vec::new();
    loop {
        match tokens.peek() {
            Token::End => return Ok(labels),
            Token::Word(_) | Token::Symbol("!") => {}
            other => {
                return Err(format!("found '{}', expected: !, identifier, or 'end of string'", other.text()));
            }
        }
        labels.push(requirement(&mut tokens).map_err(|why| format!("unable to parse requirement: {why}"))?);
        match tokens.take() {
            Token::End => return Ok(labels),
            Token::Symbol(",") => {
                let after = tokens.peek();
                if !matches!(after, Token::Word(_) | Token::Symbol("!")) {
                    return Err(format!("found '{}', expected: identifier after ','", after.text()));
                }
            }
            other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Symbol(&'static str),
    Wrong(String),
    End,
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Token::Word(text) | Token::Wrong(text) => text,
            Token::Symbol(text) => text,
            Token::End => "",
        }
    }
}

/// What has been scanned and not read; after the end there is always another end.
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

/// Longer ones first: the longest that fits is meant.
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
            None if length == 0 => Token::Wrong(text.to_owned()),
            None => Token::Word(text.to_owned()),
        });
        rest = after.trim_start();
    }
    tokens
}

fn requirement(tokens: &mut Tokens) -> Result<Label, String> {
    let mut token = tokens.take();
    let absent = token == Token::Symbol("!");
    if absent {
        token = tokens.take();
    }
    let Token::Word(key) = token else {
        return Err(format!("found '{}', expected: identifier", token.text()));
    };
    let wrong = names::key(&key);
    if !wrong.is_empty() {
        return Err(format!("<nil>: Invalid value: {key:?}: {}", wrong.join("; ")));
    }
    if absent {
        return Ok(Label::Absent(key));
    }
    if matches!(tokens.peek(), Token::End | Token::Symbol(",")) {
        return Ok(Label::Exists(key));
    }
    let operator = tokens.take();
    match operator.text() {
        "in" => Ok(Label::In(key.clone(), values(tokens, &key)?)),
        "notin" => Ok(Label::NotIn(key.clone(), values(tokens, &key)?)),
        "=" | "==" => Ok(Label::In(key.clone(), BTreeSet::from([value(tokens, &key)?]))),
        "!=" => Ok(Label::NotIn(key.clone(), BTreeSet::from([value(tokens, &key)?]))),
        ">" => Ok(Label::Above(key.clone(), number(tokens, &key)?)),
        "<" => Ok(Label::Below(key.clone(), number(tokens, &key)?)),
        other => Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
    }
}

/// The one value after an operator; nothing is the empty one.
fn value(tokens: &mut Tokens, key: &str) -> Result<String, String> {
    let value = exact(tokens)?;
    check(key, 0, &value)?;
    Ok(value)
}

fn exact(tokens: &mut Tokens) -> Result<String, String> {
    if matches!(tokens.peek(), Token::End | Token::Symbol(",")) {
        return Ok(String::new());
    }
    match tokens.take() {
        Token::Word(value) => Ok(value),
        other => Err(format!("found '{}', expected: identifier", other.text())),
    }
}

fn number(tokens: &mut Tokens, key: &str) -> Result<i64, String> {
    let value = exact(tokens)?;
    let number = value.parse::<i64>().map_err(|_| {
        format!("values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer")
    })?;
    check(key, 0, &value)?;
    Ok(number)
}

/// A list in parentheses.
fn values(tokens: &mut Tokens, key: &str) -> Result<BTreeSet<String>, String> {
    let open = tokens.take();
    if open != Token::Symbol("(") {
        return Err(format!("found '{}' expected: '('", open.text()));
    }
    let mut values = BTreeSet::new();
    loop {
        // An empty place is the empty value.
        if matches!(tokens.peek(), Token::Symbol("," | ")")) {
            values.insert(String::new());
        } else {
            match tokens.take() {
                Token::Word(value) => values.insert(value),
                other if values.is_empty() => {
                    return Err(format!("found '{}', expected: ',', ')' or identifier", other.text()));
                }
                other => return Err(format!("found '{}', expected: ',', or identifier", other.text())),
            };
        }
        match tokens.take() {
            Token::Symbol(",") => {}
            Token::Symbol(")") => break,
            other => return Err(format!("found '{}', expected: ',' or ')'", other.text())),
        }
    }
    for (index, value) in values.iter().enumerate() {
        check(key, index, value)?;
    }
    Ok(values)
}

fn check(key: &str, index: usize, value: &str) -> Result<(), String> {
    let wrong = names::value(value);
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("values[{index}][{key}]: Invalid value: {value:?}: {}", wrong.join("; ")))
}
