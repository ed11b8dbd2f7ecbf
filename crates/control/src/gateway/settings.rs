//! Settings as a controller gives them, checked.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use wasmbed_protocol::{
    ApplicationUid, DecodeError, ParseIdError, Setting, decode_setting_values,
    limits::{DESIRED_MAX, SETTINGS_BYTES_MAX},
};

use crate::{
    ObjectKey,
    gateway_api::{
        ApplicationSettings, DeviceSettings, PutSettings, SETTINGS_PER_PUT_MAX, SETTINGS_REVISION_TERM_BITS,
    },
};

/// What a controller says of the settings of a device's applications.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Given {
    revision: u64,
    /// Encoded values.
    values: BTreeMap<ApplicationUid, Arc<[u8]>>,
}

impl Given {
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// A revision of a term that nobody leads in would be above all that come.
    pub(super) fn check_term(&self, leader_term: u64) -> Result<(), SettingsError> {
        let term = self.revision >> SETTINGS_REVISION_TERM_BITS;
        if term > leader_term { Err(SettingsError::Term { term, leader_term }) } else { Ok(()) }
    }

    pub(super) fn applications(&self) -> impl Iterator<Item = ApplicationUid> {
        self.values.keys().copied()
    }

    pub(super) fn has(&self, uid: ApplicationUid) -> bool {
        self.values.contains_key(&uid)
    }

    /// Encoded; of an application of which nothing is said there are none.
    pub(super) fn values(&self, uid: ApplicationUid) -> &[u8] {
        /// A map with an empty list.
        const NONE: &[u8] = &[0xa1, 0x01, 0x80];
        self.values.get(&uid).map_or(NONE, |values| values)
    }

    pub(super) fn settings(&self, uid: ApplicationUid) -> impl Iterator<Item = Setting<'_>> {
        decode_setting_values(self.values(uid)).unwrap_or_default().settings.iter()
    }

    /// As a controller sent it, for the disk.
    pub(super) fn to_api(&self, device: &ObjectKey) -> DeviceSettings {
        let entry = |(uid, values): (&ApplicationUid, &Arc<[u8]>)| ApplicationSettings {
            application_uid: uid.to_string(),
            values: STANDARD.encode(values),
        };
        DeviceSettings {
            device: device.clone(),
            revision: self.revision,
            applications: self.values.iter().map(entry).collect(),
        }
    }
}

/// Why settings are not taken: the fault of the controller that sent them.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettingsError {
    #[error("revision is 0; the first is 1")]
    RevisionZero,
    #[error("{0} applications, at most {DESIRED_MAX} are allowed")]
    TooManyApplications(usize),
    #[error("application_uid: {0}")]
    Uid(ParseIdError),
    #[error("application {0} occurs twice")]
    ApplicationTwice(ApplicationUid),
    #[error("values are not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("values of {0}: {1}")]
    Values(ApplicationUid, DecodeError),
    #[error("the device appears twice in this call")]
    Twice,
    #[error("no such Device has been seen here")]
    Unseen,
    #[error("the revision is of term {term}, the call of term {leader_term}")]
    Term { term: u64, leader_term: u64 },
    #[error("revision {revision} is lower than {held}, which is held")]
    Lower { revision: u64, held: u64 },
}

/// Reads the settings of a device.
pub(super) fn read_settings(settings: &DeviceSettings) -> Result<Given, SettingsError> {
    if settings.revision == 0 {
        return Err(SettingsError::RevisionZero);
    }
    if settings.applications.len() > DESIRED_MAX {
        return Err(SettingsError::TooManyApplications(settings.applications.len()));
    }
    let mut values: BTreeMap<ApplicationUid, Arc<[u8]>> = BTreeMap::new();
    for application in &settings.applications {
        let uid: ApplicationUid = application.application_uid.parse().map_err(SettingsError::Uid)?;
        // What is longer is not decoded: it could be megabytes.
        let text = application.values.get(..2 * SETTINGS_BYTES_MAX).unwrap_or(&application.values);
        let bytes = STANDARD.decode(text)?;
        decode_setting_values(&bytes).map_err(|error| SettingsError::Values(uid, error))?;
        if values.insert(uid, bytes.into()).is_some() {
            return Err(SettingsError::ApplicationTwice(uid));
        }
    }
    Ok(Given { revision: settings.revision, values })
}

/// Settings of a controller, read as far as that takes nothing of a gateway.
#[derive(Debug)]
pub struct PreparedSettings {
    leader_term: u64,
    /// As many devices as were sent.
    count: usize,
    devices: Vec<PreparedDevice>,
}

/// Those of one device.
#[derive(Debug)]
pub(super) struct PreparedDevice {
    pub(super) device: ObjectKey,
    pub(super) read: Result<Given, SettingsError>,
}

impl PreparedSettings {
    /// Reads settings; none of more devices than one call may bring.
    #[must_use]
    pub fn new(put: &PutSettings) -> Self {
        let read = |settings: &DeviceSettings| PreparedDevice {
            device: settings.device.clone(),
            read: read_settings(settings),
        };
        Self {
            leader_term: put.leader_term,
            count: put.devices.len(),
            devices: put.devices.iter().take(SETTINGS_PER_PUT_MAX).map(read).collect(),
        }
    }

    /// Of the controller that leads.
    #[must_use]
    pub fn leader_term(&self) -> u64 {
        self.leader_term
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn into_devices(self) -> Vec<PreparedDevice> {
        self.devices
    }
}
