//! Validation of Events beyond their schema.

use serde_json::Value;

use super::conversion::Conversion;
use super::kind::Kind;
use crate::names;
use crate::status::Cause;

/// Validates an Event beyond its schema; objects of other kinds are valid.
pub(crate) fn validate_event(kind: &Kind, object: &Value, is_new: bool) -> Vec<Cause> {
    if !kind.is_event() {
        return Vec::new();
    }
    let mut causes = Vec::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let about = match kind.conversion() {
        Conversion::None => &object["involvedObject"]["namespace"],
        Conversion::Events => &object["regarding"]["namespace"],
    };
    let (about, namespace) = (text(about), text(&object["metadata"]["namespace"]));
    let fits = if about.is_empty() { SHARED.contains(&namespace.as_str()) } else { about == namespace };
    if !fits {
        let shown = format!("{about:?}");
        causes.push(Cause::invalid("involvedObject.namespace", &shown, "does not match event.namespace"));
    }
    if kind.conversion() == Conversion::Events && is_new {
        causes.extend(validate_new(object));
    }
    causes
}

/// Namespaces in which Events may be about cluster-scoped objects.
const SHARED: [&str; 2] = ["default", "kube-system"];

/// What `events.k8s.io/v1` requires beyond `v1`.
fn validate_new(event: &Value) -> Vec<Cause> {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    if text("eventTime").is_empty() {
        return vec![Cause::required("eventTime", "")];
    }
    let mut causes = Vec::new();
    let controller = text("reportingController");
    if controller.is_empty() {
        causes.push(Cause::required("reportingController", ""));
    } else {
        let wrong = names::key(controller).into_iter();
        causes
            .extend(wrong.map(|why| Cause::invalid("reportingController", &format!("{controller:?}"), why)));
    }
    for name in ["reportingInstance", "action", "reason"] {
        if text(name).is_empty() {
            causes.push(Cause::required(name, ""));
        }
    }
    let ty = text("type");
    if !["Normal", "Warning"].contains(&ty) {
        causes.push(Cause::invalid("type", "\"\"", format!("has invalid value: {ty}")));
    }
    causes
}
