//! Validation of names, with the error texts of Kubernetes
//! (apimachinery's `pkg/util/validation` and `pkg/api/validate/content`). Each function returns the errors.

/// Characters of a label, of a label's name without its prefix, and of its value.
const LABEL_MAX: usize = 63;
/// Characters of a subdomain.
const SUBDOMAIN_MAX: usize = 253;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const KEY: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn too_long(most: usize) -> String {
    format!("must be no more than {most} characters")
}

/// Validates the name of an object: an RFC 1123 subdomain.
pub(crate) fn subdomain(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > SUBDOMAIN_MAX {
        wrong.push(too_long(SUBDOMAIN_MAX));
    }
    if !name.split('.').all(is_label) {
        wrong.push(SUBDOMAIN.to_owned());
    }
    wrong
}

/// Validates the name of a namespace: an RFC 1123 label.
pub(crate) fn label(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > LABEL_MAX {
        wrong.push(too_long(LABEL_MAX));
    }
    if !is_label(name) {
        wrong.push(if name.split('.').all(is_label) {
            "must not contain dots".into()
        } else {
            LABEL.to_owned()
        });
    }
    wrong
}

/// Validates a name that may be any segment of a path.
pub(crate) fn segment(name: &str) -> Vec<String> {
    if matches!(name, "." | "..") {
        return vec![format!("may not be '{name}'")];
    }
    let forbidden = ["/", "%"].into_iter().filter(|text| name.contains(text));
    forbidden.map(|text| format!("may not contain '{text}'")).collect()
}

/// Validates the name of a label, an annotation or a finalizer: a qualified name.
pub(crate) fn key(key: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = match key.split_once('/') {
        None => key,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a valid label key {KEY} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            wrong.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            wrong.extend(subdomain(prefix).into_iter().map(|why| format!("prefix part {why}")));
            name
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        wrong.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if name.is_empty() || !is_word(name) {
        wrong.push(format!("name part {KEY}"));
    }
    wrong
}

/// Validates the value of a label.
pub(crate) fn value(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > LABEL_MAX {
        wrong.push(too_long(LABEL_MAX));
    }
    if !is_word(value) {
        wrong.push(VALUE.to_owned());
    }
    wrong
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-')
}

/// Empty, or letters and digits with `-_.` between them.
fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |c: Option<&u8>| c.is_none_or(u8::is_ascii_alphanumeric);
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names() {
        for good in ["a", "a-b.c", "0"] {
            assert!(super::subdomain(good).is_empty(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a..b", "a_b"] {
            assert_eq!(super::subdomain(bad).len(), 1, "{bad}");
        }
        assert_eq!(super::subdomain(&"a".repeat(300)), ["must be no more than 253 characters"]);
        assert_eq!(super::label("a.b"), ["must not contain dots"]);
        for good in ["a", "A_b.c", "x.y/Z"] {
            assert!(super::key(good).is_empty(), "{good}");
        }
        for bad in ["a/b/c", "/a", "a/", "-a", "X/a", "a b"] {
            assert!(!super::key(bad).is_empty(), "{bad}");
        }
        assert_eq!(super::key("").len(), 2);
        assert!(super::value("").is_empty() && super::value("A-1").is_empty());
        assert!(!super::value("-").is_empty() && !super::value("a b").is_empty());
    }
}
