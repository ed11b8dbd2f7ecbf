//! Settings of a device under their revision, and how far one gateway was told of them.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use wasmbed_protocol::ApplicationUid;

use super::{
    config::FleetConfig,
    input::{CallId, SettingsOutcome},
    record::DeviceId,
    retry::Retry,
    view::View,
};
use crate::{
    Now, ObjectKey,
    gateway_api::{ApplicationSettings, DeviceSettings, SETTINGS_PER_PUT_MAX, SETTINGS_REVISION_TERM_BITS},
};

/// The settings of a device's applications, under their revision.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlannedSettings {
    revision: u64,
    /// Encoded values; of an application whose module declares no settings there are none.
    applications: Vec<(ApplicationUid, Vec<u8>)>,
}

impl PlannedSettings {
    /// Gives content its revision: the same as long as the content is the same and nobody has named a higher one; none where
    /// there is nothing to say and nothing was said. `seen` is the highest that anyone but this leader has named.
    pub(super) fn plan(
        current: Option<&Self>,
        leader_term: u64,
        seen: u64,
        applications: Vec<(ApplicationUid, Vec<u8>)>,
    ) -> Option<Self> {
        let held = current.map_or(0, |current| current.revision);
        if let Some(current) = current.filter(|current| current.applications == applications && seen <= held)
        {
            return Some(current.clone());
        }
        if current.is_none() && seen == 0 && applications.is_empty() {
            return None;
        }
        let first = leader_term << SETTINGS_REVISION_TERM_BITS;
        Some(Self { revision: held.max(seen).max(first) + 1, applications })
    }

    fn to_api(&self, device: &ObjectKey) -> DeviceSettings {
        let entry = |(uid, values): &(ApplicationUid, Vec<u8>)| ApplicationSettings {
            application_uid: uid.to_string(),
            values: STANDARD.encode(values),
        };
        DeviceSettings {
            device: device.clone(),
            revision: self.revision,
            applications: self.applications.iter().map(entry).collect(),
        }
    }
}

/// What one gateway was told of settings.
#[derive(Debug, Default)]
pub(super) struct SettingsDelivery {
    /// Revisions that it confirmed since its last snapshot.
    confirmed: BTreeMap<DeviceId, u64>,
    /// Devices of whose settings it may not know.
    stale: BTreeSet<DeviceId>,
    put: Option<(CallId, BTreeMap<DeviceId, u64>)>,
    retry: Retry,
    /// It does not know the call.
    too_old: bool,
}

impl SettingsDelivery {
    /// Its process or its disk may be another, or who leads is: what it was told counts for nothing.
    pub(super) fn begin_anew(&mut self) {
        *self = Self::default();
    }

    pub(super) fn resync(&mut self) {
        self.retry.renew();
        self.too_old = false;
    }

    pub(super) fn forget(&mut self, id: DeviceId) {
        self.confirmed.remove(&id);
        self.stale.remove(&id);
    }

    /// Notes whether it is to be told what is planned for a device; `view` is what it says of the device.
    pub(super) fn note_lack(&mut self, id: DeviceId, planned: Option<&PlannedSettings>, view: Option<&View>) {
        let held = view.and_then(View::settings_held);
        let lacks = planned.is_some_and(|planned| {
            let known = [self.confirmed.get(&id).copied(), held].contains(&Some(planned.revision));
            // Where it has none it need not be told that there are none.
            !known && (held.is_some() || !planned.applications.is_empty())
        });
        if lacks {
            self.stale.insert(id);
        } else {
            self.stale.remove(&id);
        }
    }

    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.put.is_none() && !self.too_old && !self.stale.is_empty() && self.retry.is_ready(now_ms)
    }

    pub(super) fn timeout(&self, now_ms: u64) -> Option<u64> {
        self.retry.timeout(now_ms)
    }

    /// A PUT is made; gives what it says. `planned` finds what is planned for a device.
    pub(super) fn begin<'a>(
        &mut self,
        id: CallId,
        planned: impl Fn(DeviceId) -> Option<(&'a ObjectKey, &'a PlannedSettings)>,
    ) -> Vec<DeviceSettings> {
        debug_assert!(self.put.is_none(), "one PUT is on its way at a time");
        let mut sent = BTreeMap::new();
        let mut devices = Vec::new();
        while devices.len() < SETTINGS_PER_PUT_MAX
            && let Some(device) = self.stale.pop_first()
        {
            let Some((key, planned)) = planned(device) else { continue };
            sent.insert(device, planned.revision);
            devices.push(planned.to_api(key));
        }
        self.put = Some((id, sent));
        devices
    }

    /// A PUT ended; gives a higher leader term that the gateway has seen. `id_of` finds the device of a refusal.
    pub(super) fn end(
        &mut self,
        now: Now,
        config: &FleetConfig,
        id: CallId,
        outcome: SettingsOutcome,
        id_of: impl Fn(&ObjectKey) -> Option<DeviceId>,
    ) -> Option<u64> {
        let (_, sent) = self.put.take_if(|(put, _)| *put == id)?;
        let failed = match outcome {
            SettingsOutcome::Answered(answer) => {
                let refused = answer.refused.iter().filter_map(|refusal| id_of(&refusal.device));
                let refused: BTreeSet<DeviceId> = refused.collect();
                let taken = sent.into_iter().filter(|(device, _)| !refused.contains(device));
                self.confirmed.extend(taken);
                self.stale.extend(&refused);
                match answer.refused.into_iter().next() {
                    Some(first) => format!("settings of {} were refused: {}", first.device, first.message),
                    None => {
                        self.retry.succeed();
                        return None;
                    }
                }
            }
            SettingsOutcome::Fenced(refusal) => {
                self.stale.extend(sent.into_keys());
                self.retry.fail(now.ms, config, refusal.message);
                return refusal.leader_term;
            }
            SettingsOutcome::TooOld => {
                self.stale.extend(sent.into_keys());
                self.too_old = true;
                return None;
            }
            SettingsOutcome::Failed(message) => {
                self.stale.extend(sent.into_keys());
                message
            }
        };
        self.retry.fail(now.ms, config, failed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: ApplicationUid = ApplicationUid([1; 16]);

    #[test]
    fn a_revision_grows_with_the_content_and_with_who_leads() {
        let with = |byte: u8| vec![(UID, vec![byte])];
        assert_eq!(PlannedSettings::plan(None, 3, 0, Vec::new()), None);
        let first = PlannedSettings::plan(None, 3, 0, with(1)).unwrap();
        assert_eq!(first.revision, (3 << 32) + 1);
        let same = PlannedSettings::plan(Some(&first), 3, first.revision, with(1)).unwrap();
        assert_eq!(same, first);
        let second = PlannedSettings::plan(Some(&first), 3, first.revision, with(2)).unwrap();
        assert_eq!(second.revision, (3 << 32) + 2);
        // Somebody else has named a higher one: before a restart of this controller, for example.
        let above = PlannedSettings::plan(Some(&first), 3, (3 << 32) + 9, with(1)).unwrap();
        assert_eq!(above.revision, (3 << 32) + 10);
        let later = PlannedSettings::plan(None, 4, above.revision, with(1)).unwrap();
        assert_eq!(later.revision, (4 << 32) + 1);
        let gone = PlannedSettings::plan(None, 4, above.revision, Vec::new()).unwrap();
        assert_eq!((gone.revision, gone.applications.len()), ((4 << 32) + 1, 0), "a gateway has some");
    }
}
