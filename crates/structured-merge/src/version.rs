//! Versions of one kind of object.

use std::fmt::Debug;
use std::sync::Arc;

use serde_json::Value;

use crate::schema::Type;

/// Conversion between a version and the hub: the form in which all versions of a kind can be expressed.
///
/// A conversion must not lose fields: what [`Convert::convert_to_hub`] makes of an object, [`Convert::convert_from_hub`] turns back
/// into the same object, up to fields that are absent in one form and empty in the other.
pub trait Convert: Copy + Debug {
    /// Converts an object of this version to the hub, in place.
    fn convert_to_hub(self, object: &mut Value);
    /// Converts an object from the hub to this version, in place.
    fn convert_from_hub(self, object: &mut Value);
}

/// All versions look the same: objects stay as they are.
impl Convert for () {
    fn convert_to_hub(self, _object: &mut Value) {}

    fn convert_from_hub(self, _object: &mut Value) {}
}

/// One version of a kind.
#[derive(Clone, Debug)]
pub struct Version<C> {
    /// `group/version`; `version` alone for the core group.
    pub name: String,
    /// Structure of its objects.
    pub ty: Arc<Type>,
    /// How its objects relate to those of other versions.
    pub conversion: C,
}

impl<C: Convert> Version<C> {
    /// An object of this version, in another one.
    pub(crate) fn convert(&self, object: &Value, to: &Version<C>) -> Value {
        let mut object = object.clone();
        if to.name != self.name {
            self.conversion.convert_to_hub(&mut object);
            to.conversion.convert_from_hub(&mut object);
        }
        object
    }
}
