//! What running applications were granted.

use alloc::vec::Vec;

use wasmbed_protocol::ApplicationUid;

/// Grants of one kind, of all running applications.
#[derive(Debug)]
pub(crate) struct Granted<G>(Vec<(ApplicationUid, G)>);

impl<G> Default for Granted<G> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<G> Granted<G> {
    /// An application runs, and has these.
    pub(crate) fn set(&mut self, uid: ApplicationUid, grants: Vec<G>) {
        self.forget(uid);
        self.0.extend(grants.into_iter().map(|grant| (uid, grant)));
    }

    /// The application runs no more.
    pub(crate) fn forget(&mut self, uid: ApplicationUid) {
        self.0.retain(|(known, _)| *known != uid);
    }

    /// Those of one application.
    pub(crate) fn of(&self, uid: ApplicationUid) -> impl Iterator<Item = &G> {
        self.0.iter().filter(move |(known, _)| *known == uid).map(|(_, grant)| grant)
    }

    /// The same to be changed.
    pub(crate) fn of_mut(&mut self, uid: ApplicationUid) -> impl Iterator<Item = &mut G> {
        self.0.iter_mut().filter(move |(known, _)| *known == uid).map(|(_, grant)| grant)
    }

    /// All, each with its application.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(ApplicationUid, G)> {
        self.0.iter()
    }

    /// The same to be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut (ApplicationUid, G)> {
        self.0.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn each_application_has_its_own() {
        let (a, b) = (ApplicationUid([1; 16]), ApplicationUid([2; 16]));
        let mut granted = Granted::default();
        granted.set(a, vec![1, 2]);
        granted.set(b, vec![3]);
        granted.of_mut(a).for_each(|grant| *grant *= 10);
        assert!(granted.of(a).eq(&[10, 20]) && granted.of(b).eq(&[3]));
        granted.set(a, vec![4]);
        assert!(granted.of(a).eq(&[4]), "what it had before is gone");
        granted.forget(b);
        assert!(granted.iter().eq(&[(a, 4)]));
    }
}
