//! What gateways say of one device, and what is known of it by whoever knew it last.

use std::sync::Arc;

use wasmbed_api::DeviceFacts;
use wasmbed_protocol::{ApplicationUid, SpecHash, limits::DETAIL_BYTES_MAX};

use super::{
    config::PROOF_CHARS_MAX,
    record::{ReportedApplication, Seen},
    set::{LastReport, PlannedSet},
};
use crate::{
    gateway_api::{DecommissionView, DeviceView, SettingsView},
    harmless,
};

/// What one gateway knows of one device.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    connected: bool,
    epoch: u64,
    revision_seen: u64,
    revision_held: Option<u64>,
    revision_reported: Option<u64>,
    facts: Option<Arc<DeviceFacts>>,
    applications: Option<Vec<ReportedApplication>>,
    /// Boxed: few devices are taken out of service.
    decommission: Option<Box<DecommissionView>>,
    settings: SettingsView,
}

impl View {
    /// As the gateway says it; `facts` are those of the view.
    pub(super) fn read(view: &DeviceView, facts: Option<Arc<DeviceFacts>>) -> Self {
        Self {
            connected: view.connected,
            epoch: view.epoch,
            revision_seen: view.revision_seen,
            revision_held: view.revision_held,
            revision_reported: view.revision_reported,
            facts,
            applications: view.applications.as_deref().map(ReportedApplication::read),
            decommission: view.decommission.as_ref().map(|said| Box::new(bounded(said))),
            settings: view.settings.unwrap_or_default(),
        }
    }

    /// Whether a session is established there.
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// What it says of the device's being taken out of service.
    pub(super) fn decommission(&self) -> Option<&DecommissionView> {
        self.decommission.as_deref()
    }

    /// Revision of the settings that it holds.
    pub(super) fn settings_held(&self) -> Option<u64> {
        self.settings.revision_held
    }

    /// The highest revision of settings that it or the device names.
    pub(super) fn settings_seen(&self) -> u64 {
        self.settings.revision_answered.max(self.settings.revision_held.unwrap_or(0))
    }

    /// Of its last session there.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The highest revision that this view names.
    pub(super) fn highest_revision(&self) -> u64 {
        self.revision_seen.max(self.revision_held.unwrap_or(0)).max(self.revision_reported.unwrap_or(0))
    }

    /// The gateway has named this revision elsewhere.
    pub(super) fn note_revision(&mut self, revision: u64) {
        self.revision_seen = self.revision_seen.max(revision);
    }

    /// Whether the gateway holds this set and the device reported its content from there.
    pub(super) fn confirms(&self, planned: &PlannedSet) -> bool {
        let revision = Some(planned.revision());
        let Some(applications) = &self.applications else { return false };
        let mut content: Vec<_> = applications.iter().map(ReportedApplication::member).collect();
        content.sort_unstable();
        self.revision_reported == revision && self.revision_held == revision && content == planned.content()
    }
}

/// What a gateway says of a device's being taken out of service, no more of it than there can be.
fn bounded(said: &DecommissionView) -> DecommissionView {
    DecommissionView {
        proof: said.proof.clone().filter(|proof| proof.len() <= PROOF_CHARS_MAX),
        refused: said.refused.as_ref().map(|words| harmless(words, DETAIL_BYTES_MAX).into_owned()),
        unsupported: said.unsupported,
    }
}

/// What is known of a device by whoever knew it last.
pub(super) struct LatestView<'a> {
    connected: bool,
    facts: Option<&'a Arc<DeviceFacts>>,
    /// Absent until the device reported in its session.
    applications: Option<&'a [ReportedApplication]>,
    revision_reported: u64,
}

impl<'a> LatestView<'a> {
    /// From what a gateway says, that lives or not, and from `Device.status` where that is silent.
    pub(super) fn of_view(view: &'a View, live: bool, seen: &'a Seen) -> Self {
        Self {
            connected: view.connected && live,
            facts: view.facts.as_ref().or(seen.facts()),
            applications: match &view.applications {
                Some(applications) => Some(applications),
                // Away, it can't report again: what it said last is in its status.
                None => (!view.connected).then_some(seen.applications()),
            },
            revision_reported: view.revision_reported.unwrap_or(if view.connected {
                0
            } else {
                seen.revision()
            }),
        }
    }

    /// From `Device.status`, whose gateway lives or not.
    pub(super) fn of_status(seen: &'a Seen, live: bool) -> Self {
        Self {
            connected: seen.is_connected() && live,
            facts: seen.facts(),
            applications: Some(seen.applications()),
            revision_reported: seen.revision(),
        }
    }

    /// Whether its session is established.
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// What the device is, if it ever said so.
    pub(super) fn facts(&self) -> Option<&'a DeviceFacts> {
        self.facts.map(|facts| &**facts)
    }

    /// What it runs; `None` until it reported in its session.
    pub(super) fn applications(&self) -> Option<&'a [ReportedApplication]> {
        self.applications
    }

    pub(super) fn report_of(&self, uid: ApplicationUid) -> Option<&'a ReportedApplication> {
        self.applications?.iter().find(|report| report.uid() == uid)
    }

    /// The set that the device says it works to.
    pub(super) fn last_report(&self) -> Option<LastReport> {
        let content: Vec<(ApplicationUid, SpecHash)> =
            self.applications?.iter().map(ReportedApplication::member).collect();
        Some(LastReport::new(self.revision_reported, content))
    }

    /// Whether the device reported a set that is not older than this one.
    pub(super) fn works_to(&self, planned: &PlannedSet) -> bool {
        self.revision_reported >= planned.revision()
    }

    /// Whether the device reported that it was never given a set.
    pub(super) fn has_no_set(&self) -> bool {
        self.revision_reported == 0
    }
}
