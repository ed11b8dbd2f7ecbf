//! Bounds on the CertificateSigningRequests that are stored at once: users who may create them would fill the disk.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde_json::Value;

use super::storage::Read;
use super::write::ApplyError;
use crate::kinds::Kind;
use crate::resource::{REQUESTS_BYTES_MAX, REQUESTS_BYTES_PER_USER_MAX};
use crate::status::Status;

/// Bytes of the stored requests by the user that created them. `None` until they are counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Option<BTreeMap<String, usize>>);

impl Held {
    /// Refuses a new request of a user that has too many.
    pub(super) fn admit(&mut self, tables: &dyn Read, kind: &Kind, object: &Value) -> Result<(), ApplyError> {
        if !kind.is_signing_request() {
            return Ok(());
        }
        let held = match self.0.take() {
            Some(held) => held,
            None => count(kind, tables)?,
        };
        let held = self.0.insert(held);
        let user = author(object);
        let busy = |why: String| Err(Status::busy(&why).into());
        if held.get(user).is_some_and(|own| *own >= REQUESTS_BYTES_PER_USER_MAX) {
            return busy(format!(
                "too many CertificateSigningRequests of user {user:?}: one user may have {REQUESTS_BYTES_PER_USER_MAX} bytes; finished \
                 ones are kept for an hour"
            ));
        }
        if held.values().sum::<usize>() >= REQUESTS_BYTES_MAX {
            return busy(format!(
                "too many CertificateSigningRequests: all users together may have {REQUESTS_BYTES_MAX} bytes"
            ));
        }
        Ok(())
    }

    /// Accounts for a request that was stored or removed.
    pub(super) fn replace(
        &mut self,
        kind: &Kind,
        before: Option<(&Value, usize)>,
        after: Option<(&Value, usize)>,
    ) {
        let Some(held) = self.0.as_mut().filter(|_| kind.is_signing_request()) else { return };
        if let Some((object, bytes)) = after {
            *held.entry(author(object).to_owned()).or_default() += bytes;
        }
        if let Some((object, bytes)) = before
            && let Some(own) = held.get_mut(author(object))
        {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                held.remove(author(object));
            }
        }
    }
}

fn author(object: &Value) -> &str {
    object["spec"]["username"].as_str().unwrap_or_default()
}

fn count(kind: &Kind, tables: &dyn Read) -> Result<BTreeMap<String, usize>, ApplyError> {
    let mut held = BTreeMap::new();
    tables.scan(&kind.prefix(None), None, &mut |_, stored| {
        let object: Value = serde_json::from_slice(stored).unwrap_or_default();
        *held.entry(author(&object).to_owned()).or_default() += stored.len();
        ControlFlow::Continue(())
    })?;
    Ok(held)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::kinds::Kinds;
    use crate::resource::{Author, FieldValidation, Moment, Part, Patch, Preconditions, Signers};
    use crate::status::Reason;
    use crate::store::{Machine, Operation, Write};

    const REQUEST: &str = include_str!("../../tests/accept/request.base64");

    struct World {
        kind: Arc<Kind>,
        machine: Machine,
        objects: BTreeMap<String, Vec<u8>>,
    }

    impl World {
        fn new() -> World {
            let kinds = Arc::new(Kinds::new(&[]).unwrap());
            let kind = kinds.get("certificates.k8s.io", "v1", "certificatesigningrequests").unwrap();
            World { kind: Arc::clone(kind), machine: Machine::new(kinds, 0), objects: BTreeMap::new() }
        }

        fn write(&mut self, author: &str, name: &str, operation: Operation) -> Result<(), Status> {
            let author = Author { name: author.into(), approves: Signers::All, ..Author::default() };
            let write = Write {
                kind: Arc::clone(&self.kind),
                namespace: None,
                name: name.into(),
                operation,
                manager: "test".into(),
                author: Arc::new(author),
                dry_run: false,
                validation: FieldValidation::Strict,
                constraints: Vec::new(),
            };
            let moment = Moment { now: "2026-01-01T00:00:00Z", uid: Uuid::nil() };
            match self.machine.apply(&mut self.objects, &write, moment) {
                Ok(_) => Ok(()),
                Err(ApplyError::Refused(status)) => Err(status),
                Err(ApplyError::Storage(error)) => panic!("{error}"),
            }
        }

        fn create(&mut self, author: &str, name: &str, message: &str) -> Result<(), Status> {
            let object = json!({
                "kind": self.kind.kind, "apiVersion": self.kind.api_version(),
                "metadata": {"name": name, "annotations": {"message": message}},
                "spec": {"request": REQUEST, "signerName": "example.com/s", "usages": ["client auth"]},
            });
            self.write(author, "", Operation::Create { object, duplicates: Vec::new() })
        }

        /// What is known is what is there.
        fn check(&self) {
            let known = self.machine.held.0.as_ref().unwrap();
            assert_eq!(*known, count(&self.kind, &self.objects).unwrap());
        }
    }

    #[test]
    fn what_users_hold_is_known_without_counting() {
        let mut world = World::new();
        for (author, name) in [("a", "a1"), ("b", "b1"), ("a", "a2")] {
            world.create(author, name, "").unwrap();
            world.check();
        }
        assert_eq!(world.create("a", "b1", "").unwrap_err().reason(), Reason::AlreadyExists);
        let approval = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}});
        let patch = Patch::Merge(approval);
        world.write("c", "a1", Operation::Patch { part: Part::Approval, patch }).unwrap();
        world.check();
        world.write("c", "b1", Operation::Delete { conditions: Preconditions::default() }).unwrap();
        world.check();
        assert_eq!(world.machine.held.0.as_ref().unwrap().keys().collect::<Vec<_>>(), ["a"]);
        // As after a batch that was rolled back.
        world.machine = world.machine.rewound(0);
        assert!(world.machine.held.0.is_none());
        world.create("b", "b2", "").unwrap();
        world.check();
    }

    #[test]
    fn no_user_fills_the_store() {
        let mut world = World::new();
        world.create("a", "first", "").unwrap();
        let held = world.machine.held.0.as_mut().unwrap();
        held.insert("a".into(), REQUESTS_BYTES_PER_USER_MAX);
        let refused = world.create("a", "second", "").unwrap_err();
        assert_eq!(refused.reason(), Reason::TooManyRequests, "{refused}");
        assert!(refused.message().contains("user \"a\""), "{refused}");
        world.create("b", "third", "").unwrap();
        world.write("b", "first", Operation::Delete { conditions: Preconditions::default() }).unwrap();
        world.create("a", "fourth", "").unwrap();
        for user in ["c", "d", "e", "f"] {
            world.machine.held.0.as_mut().unwrap().insert(user.into(), REQUESTS_BYTES_PER_USER_MAX);
        }
        let refused = world.create("g", "fifth", "").unwrap_err();
        assert!(refused.message().contains("all users together"), "{refused}");
        let refused = World::new().create("a", "large", &"x".repeat(64 * 1024)).unwrap_err();
        assert_eq!(refused.reason(), Reason::RequestEntityTooLarge, "{refused}");
    }
}
