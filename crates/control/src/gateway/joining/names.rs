//! Which Device a joining device is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use wasmbed_api::Device;
use wasmbed_protocol::KeyHash;

use crate::ObjectKey;

/// What a Device names of the device that joins as it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Named {
    serial: Option<Box<str>>,
    factory_key: Option<KeyHash>,
    pairing_id: Option<Box<str>>,
    /// That was certified for it once it was paired.
    paired_key: Option<KeyHash>,
    approved: bool,
}

impl Named {
    /// `None` if it names nothing.
    fn of(device: &Device) -> Option<Self> {
        let spec = &device.spec;
        // A hash that is none is of no key: then nobody is this Device, instead of everybody.
        let hash = |text: &String| text.parse().unwrap_or_default();
        let named = Self {
            serial: spec.serial.as_deref().map(Box::from),
            factory_key: spec.factory_key_hash.as_ref().map(hash),
            pairing_id: spec.pairing_id.as_deref().map(Box::from),
            paired_key: spec.pairing_id.as_ref().and_then(|_| certified_key(device)),
            approved: spec.approved,
        };
        let names = named.serial.is_some() || named.factory_key.is_some() || named.pairing_id.is_some();
        names.then_some(named)
    }
}

fn certified_key(device: &Device) -> Option<KeyHash> {
    let key = device.status.as_ref()?.public_key.as_ref()?;
    STANDARD.decode(key).ok().map(|der| KeyHash::of(&der))
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Term {
    Serial(Box<str>),
    FactoryKey(KeyHash),
    PairingId(Box<str>),
    PairedKey(KeyHash),
}

/// The Devices that name serials, factory keys or tokens, by each of these; those with tokens also by the key that was certified.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_device: BTreeMap<Arc<ObjectKey>, Named>,
    by_term: BTreeMap<Term, BTreeSet<Arc<ObjectKey>>>,
    /// Of Devices that name a serial and are not approved: how many in each namespace.
    unapproved: BTreeMap<String, usize>,
}

/// What [`Names::find_serial`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// This one.
    Device(Arc<ObjectKey>),
    /// None yet.
    None,
    /// One that can't be this device's, or more than one. For people.
    Conflict(String),
}

impl Names {
    /// A Device is as this object shows it.
    pub(super) fn observe(&mut self, key: &Arc<ObjectKey>, device: &Device) {
        let named = Named::of(device);
        if self.by_device.get(key) == named.as_ref() {
            return;
        }
        self.forget(key);
        let Some(named) = named else { return };
        for term in terms(&named) {
            self.by_term.entry(term).or_default().insert(Arc::clone(key));
        }
        if counts(&named) {
            *self.unapproved.entry(key.namespace.clone()).or_default() += 1;
        }
        self.by_device.insert(Arc::clone(key), named);
    }

    /// A Device is gone.
    pub(super) fn forget(&mut self, key: &ObjectKey) {
        let Some((key, named)) = self.by_device.remove_entry(key) else { return };
        for term in terms(&named) {
            if let Some(devices) = self.by_term.get_mut(&term) {
                devices.remove(&key);
                if devices.is_empty() {
                    self.by_term.remove(&term);
                }
            }
        }
        if counts(&named)
            && let Some(count) = self.unapproved.get_mut(&key.namespace)
        {
            *count -= 1;
            if *count == 0 {
                self.unapproved.remove(&key.namespace);
            }
        }
    }

    /// Devices in a namespace that name a serial and are not approved.
    pub(super) fn unapproved(&self, namespace: &str) -> usize {
        self.unapproved.get(namespace).copied().unwrap_or(0)
    }

    /// The one Device that names this token.
    pub(super) fn find_token(&self, id: &str) -> Option<&Arc<ObjectKey>> {
        self.find_one(&Term::PairingId(id.into()))
    }

    /// The one paired Device for which a certificate of this key was issued.
    pub(super) fn find_paired(&self, key: KeyHash) -> Option<&Arc<ObjectKey>> {
        self.find_one(&Term::PairedKey(key))
    }

    fn find_one(&self, term: &Term) -> Option<&Arc<ObjectKey>> {
        let mut named = self.by_term.get(term)?.iter();
        named.next().filter(|_| named.next().is_none())
    }

    /// The Device of a factory's device: one that names its serial or its key, or else the one of the name that is made from
    /// the serial, which `named` is if there is such a Device.
    pub(super) fn find_serial(&self, serial: &str, key: KeyHash, named: Option<&Arc<ObjectKey>>) -> Match {
        let of = |term: Term| self.by_term.get(&term).into_iter().flatten();
        let explicit: BTreeSet<&Arc<ObjectKey>> =
            of(Term::Serial(serial.into())).chain(of(Term::FactoryKey(key))).collect();
        let is_its = |device: &&&Arc<ObjectKey>| {
            self.by_device.get(**device).is_none_or(|said| {
                said.serial.as_deref().is_none_or(|named| named == serial)
                    && said.factory_key.is_none_or(|named| named == key)
            })
        };
        let mut own = explicit.iter().filter(is_its);
        match (own.next(), own.next(), explicit.first()) {
            (Some(device), None, _) => return Match::Device(Arc::clone(device)),
            (Some(one), Some(other), _) => {
                return Match::Conflict(format!("{one} and {other} both name this serial or its key"));
            }
            (None, _, Some(other)) => {
                return Match::Conflict(format!(
                    "{other} names this serial or its key together with another one"
                ));
            }
            (None, _, None) => {}
        }
        // What names something else is somebody else's, whatever it is called.
        match named.map(|named| (named, self.by_device.contains_key(named))) {
            None => Match::None,
            Some((named, false)) => Match::Device(Arc::clone(named)),
            Some((named, true)) => Match::Conflict(format!("{named} is another device's")),
        }
    }
}

fn terms(named: &Named) -> impl Iterator<Item = Term> {
    let serial = named.serial.clone().map(Term::Serial);
    let factory_key = named.factory_key.map(Term::FactoryKey);
    let pairing_id = named.pairing_id.clone().map(Term::PairingId);
    let paired_key = named.paired_key.map(Term::PairedKey);
    [serial, factory_key, pairing_id, paired_key].into_iter().flatten()
}

fn counts(named: &Named) -> bool {
    named.serial.is_some() && !named.approved
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wasmbed_api::DeviceSpec;

    use super::*;

    const KEY: KeyHash = KeyHash([4; 32]);
    const OTHER: KeyHash = KeyHash([5; 32]);

    fn key(name: &str) -> Arc<ObjectKey> {
        Arc::new(ObjectKey::new("default", name))
    }

    fn spec(serial: Option<&str>, factory_key: Option<KeyHash>) -> DeviceSpec {
        DeviceSpec {
            serial: serial.map(str::to_owned),
            factory_key_hash: factory_key.map(|key| key.to_string()),
            ..DeviceSpec::default()
        }
    }

    fn names(devices: &[(&str, DeviceSpec)]) -> Names {
        let mut names = Names::default();
        for (name, spec) in devices {
            names.observe(&key(name), &Device::new(name, spec.clone()));
        }
        names
    }

    #[test]
    fn a_device_is_found_by_what_it_names_and_else_by_its_name() {
        let named = key("sn-1");
        let found = |names: &Names, named| names.find_serial("SN-1", KEY, named);
        assert_eq!(found(&names(&[]), None), Match::None);
        assert_eq!(found(&names(&[("sn-1", spec(None, None))]), Some(&named)), Match::Device(key("sn-1")));
        let registered = names(&[("pump", spec(Some("SN-1"), None)), ("x", spec(Some("SN-2"), None))]);
        assert_eq!(found(&registered, None), Match::Device(key("pump")));
        assert_eq!(found(&names(&[("pump", spec(None, Some(KEY)))]), None), Match::Device(key("pump")));
        let beside = names(&[("pump", spec(Some("SN-1"), None)), ("sn-1", spec(None, None))]);
        assert_eq!(found(&beside, Some(&named)), Match::Device(key("pump")));
        let both = names(&[("pump", spec(Some("SN-1"), Some(KEY)))]);
        assert_eq!(found(&both, None), Match::Device(key("pump")));
    }

    #[test]
    fn what_belongs_to_another_is_a_conflict_and_no_second_device() {
        let conflict = |devices: &[(&str, DeviceSpec)], named: Option<&str>| {
            let named = named.map(key);
            let found = names(devices).find_serial("SN-1", KEY, named.as_ref());
            assert!(matches!(found, Match::Conflict(_)), "{found:?}");
        };
        conflict(&[("pump", spec(Some("SN-1"), Some(OTHER)))], None);
        conflict(&[("pump", spec(Some("SN-2"), Some(KEY)))], None);
        conflict(&[("a", spec(Some("SN-1"), None)), ("b", spec(Some("SN-1"), None))], None);
        conflict(&[("sn-1", spec(Some("sn_1"), None))], Some("sn-1"));
        let paired = DeviceSpec { pairing_id: Some("0a1b2c3d".to_owned()), ..DeviceSpec::default() };
        conflict(&[("sn-1", paired)], Some("sn-1"));
    }

    #[test]
    fn a_token_is_one_device_s() {
        let pair = |id: &str| DeviceSpec { pairing_id: Some(id.to_owned()), ..DeviceSpec::default() };
        let mut names = names(&[("a", pair("0a1b2c3d")), ("b", pair("11111111")), ("c", pair("11111111"))]);
        assert_eq!(names.find_token("0a1b2c3d"), Some(&key("a")));
        assert_eq!(names.find_token("11111111"), None);
        assert_eq!(names.find_token("22222222"), None);
        names.forget(&key("c"));
        assert_eq!(names.find_token("11111111"), Some(&key("b")));
    }

    proptest! {
        /// Whatever Devices come, change and go: the index is that of those that are there.
        #[test]
        fn the_index_is_that_of_what_is_there(
            steps in proptest::collection::vec((0..4_u8, proptest::option::of((0..3_u8, any::<bool>(), any::<bool>()))), 0..40)
        ) {
            let (mut names, mut there) = (Names::default(), BTreeMap::new());
            for (device, step) in steps {
                let key = key(&device.to_string());
                match step {
                    None => {
                        names.forget(&key);
                        there.remove(&key);
                    }
                    Some((serial, has_key, approved)) => {
                        let serial = (serial > 0).then(|| serial.to_string());
                        let spec = DeviceSpec { approved, ..spec(serial.as_deref(), has_key.then_some(KEY)) };
                        names.observe(&key, &Device::new(&device.to_string(), spec.clone()));
                        there.insert(key, spec);
                    }
                }
            }
            let mut anew = Names::default();
            for (key, spec) in &there {
                anew.observe(key, &Device::new("x", spec.clone()));
            }
            prop_assert_eq!(&names.by_term, &anew.by_term);
            prop_assert_eq!(&names.by_device, &anew.by_device);
            prop_assert_eq!(&names.unapproved, &anew.unapproved);
        }
    }
}
