//! What the fleet has to send, by the resources alone.

use super::*;

impl World {
    /// The Applications that a device is to have in its set, as `namespace/name`.
    pub(in crate::fleet) fn wanted(&self, device: &str) -> BTreeSet<String> {
        let object = &self.devices[device].0;
        if object.metadata.deletion_timestamp.is_some() || object.spec.decommission {
            return BTreeSet::new();
        }
        let (object, fake) = &self.devices[device];
        let labels = object.metadata.labels.clone().unwrap_or_default();
        let finished: Vec<&str> = object
            .status
            .iter()
            .flat_map(|status| &status.finished)
            .map(|entry| entry.name.as_str())
            .collect();
        // What a device can't run stays where an earlier generation of it is.
        let runs = self.runs(device);
        let small = self.small.contains(device);
        let goes_on = |name: &str| {
            let misfit = self.spoiled.contains_key(name) || small && self.applications[name].1 >= LARGE;
            !misfit || runs.contains(&format!("{NAMESPACE}/{name}"))
        };
        let targeted = self.applications.values().filter(|(object, _)| {
            object.metadata.deletion_timestamp.is_none()
                && plan_target(object.spec.target_devices.as_ref(), device, &labels)
                && goes_on(object.metadata.name.as_deref().unwrap())
                && !finished.contains(&object.metadata.name.as_deref().unwrap())
        });
        let mut targeted: Vec<&Application> = targeted.map(|(object, _)| object).collect();
        targeted
            .sort_by_key(|object| (object.metadata.creation_timestamp.clone(), object.metadata.name.clone()));
        let ended = |name: &str| {
            fake.reports.get(name).is_some_and(|report| report.state == DeviceApplicationState::Completed)
        };
        let names = targeted.iter().map(|object| object.metadata.name.clone().unwrap());
        let room = usize::try_from(self.memory_bytes / APPLICATION_BYTES).unwrap().min(10);
        let mut active = 0;
        let mut set: Vec<String> = names
            .filter(|name| {
                active += usize::from(!ended(name));
                ended(name) || active <= room
            })
            .collect();
        while let Some(newest) = set
            .iter()
            .rposition(|name| !ended(name) && !runs.contains(&format!("{NAMESPACE}/{name}")))
            .filter(|_| set.len() > 10)
        {
            set.remove(newest);
        }
        set.into_iter().map(|name| format!("{NAMESPACE}/{name}")).collect()
    }

    /// Whether anyone the controller hears says what a device is. Nothing is planned for one of which this is unknown: what was
    /// planned before stays, also if that was done by a view of an earlier Device of its name.
    pub(super) fn are_facts_known(&self, device: &str) -> bool {
        let views = self.gateways.values().filter(|gateway| gateway.streaming);
        let mut views = views.filter_map(|gateway| gateway.views.get(device));
        let status = self.devices[device].0.status.as_ref();
        status.is_some_and(|status| status.facts.is_some()) || views.any(|view| view.facts.is_some())
    }

    /// A set is what the resources say, and its revision moved only if its content did.
    pub(super) fn check_set(&mut self, set: &crate::gateway_api::DeviceSet) {
        let sent = (set.revision, hashes(&set.assignments));
        let before = self.sent.insert(set.device.name.clone(), sent.clone());
        if let Some((revision, content)) = &before
            && set.revision > *revision
            && self.term <= 1
        {
            let name = &set.device.name;
            assert_ne!(content, &sent.1, "revision of {name} moved without a change");
        }
        if before == Some(sent) && !self.are_facts_known(&set.device.name) {
            return;
        }
        let applications: BTreeSet<&str> = set.assignments.iter().map(|e| e.application.as_str()).collect();
        // What has values of Secrets waits for them where it does not run; where it does it stays.
        let (runs, wanted) = (self.runs(&set.device.name), self.wanted(&set.device.name));
        let waits = |name: &str| {
            let short = name.rsplit('/').next().unwrap();
            let secretive =
                self.applications.get(short).is_some_and(|(it, _)| !it.spec.config.env_from.is_empty());
            // Who has no place, the tests of quotas say.
            let waits = secretive || !self.quotas.is_empty();
            waits && !runs.contains(name) && !applications.contains(name)
        };
        let wanted: BTreeSet<&str> = wanted.iter().map(String::as_str).filter(|name| !waits(name)).collect();
        assert_eq!(applications, wanted, "set of {}", set.device.name);
    }

    /// A revision that a gateway took has one content for ever, and moves only with it.
    pub(super) fn check_revision(&mut self, set: &crate::gateway_api::DeviceSet) {
        let name = &set.device.name;
        let content = hashes(&set.assignments);
        let revisions = self.issued.entry(name.clone()).or_default();
        if let Some(before) = revisions.get(&set.revision) {
            assert_eq!(before, &content, "revision {} of {name} has two contents", set.revision);
        }
        if let Some((last, _)) = revisions.last_key_value() {
            assert!(set.revision >= *last, "revision of {name} went back from {last} to {}", set.revision);
        }
        revisions.insert(set.revision, content);
    }
}

pub(super) fn hashes(entries: &[AssignmentEntry]) -> BTreeSet<String> {
    entries.iter().map(|entry| entry.spec_hash.clone()).collect()
}
