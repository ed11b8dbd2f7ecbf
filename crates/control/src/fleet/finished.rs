//! What ended for good on a device, and since when the rest runs without an end.
//!
//! An ended application keeps its member of the device's set, and the device reports it as Completed, until another
//! application needs the place. Then its result is written into `Device.status.finished`, and only once the watch brings it
//! from there does the set go on without it: a controller that dies in between finds either the report or the result.
//!
//! ```text
//! Completed in the set --place wanted--> finished is written --seen in the watch--> out of the set --spec changes--> runs anew
//! ```

use wasmbed_api::DeviceApplication;

use super::{
    Fleet,
    device_entry::Device,
    input::FinishedWrite,
    record::{ApplicationId, DeviceId, Healthy, Prepared, ReportedApplication},
    view::LatestView,
};
use crate::Now;

impl Fleet {
    /// Keeps what a device's reports say beyond the moment: what ended for good, and since when the rest runs. While it has
    /// not reported in its session, what was known stays.
    pub(super) fn note_reports(&mut self, now: Now, id: DeviceId) {
        let device = present!(self.devices.get(&id), "only what is there is planned");
        let latest_view = self.latest_view(now, device);
        let reports = latest_view.applications().unwrap_or(device.seen().applications());
        let targeting = device.targeted_by().iter().filter_map(|id| self.applications.get(id));
        let mut ended = Vec::new();
        let mut healthy = std::collections::BTreeMap::new();
        for application in targeting {
            let Some(report) = reports.iter().find(|report| report.uid() == application.uid()) else {
                continue;
            };
            if report.is_over(application.spec().config.restart_policy) {
                ended.push(report.member());
            }
            if application.min_ready_ms() == 0 || !report.is_running() {
                continue;
            }
            let before = device.healthy(report.uid()).filter(|before| before.lasts(report));
            healthy.insert(report.uid(), before.unwrap_or_else(|| Healthy::begin(report, now)));
        }
        let reported = latest_view.applications().is_some();
        let connected = latest_view.is_connected();
        let device = present!(self.devices.get_mut(&id), "the Device was just found");
        device.note_reports(ended, healthy, reported, connected);
    }

    /// What `status.finished` of a device is to say, if it says something else: what it says of Applications that are still
    /// to be there, and those that leave now.
    pub(super) fn plan_finished(
        &self,
        device: &Device,
        latest_view: &LatestView<'_>,
        leaving: &[ApplicationId],
    ) -> Option<Vec<DeviceApplication>> {
        let targeting = || device.targeted_by().iter().filter_map(|id| self.applications.get(id));
        let stays = |report: &ReportedApplication| {
            targeting().any(|application| {
                application.uid() == report.uid()
                    && !application.is_deleting()
                    && application.wanted_hash().is_none_or(|hash| hash == report.spec_hash())
            })
        };
        let kept = device.seen().finished().iter().filter(|(report, _)| stays(report));
        let mut entries: Vec<DeviceApplication> = kept.map(|(_, entry)| entry.clone()).collect();
        let unchanged = entries.len() == device.seen().finished().len();
        for application in leaving.iter().filter_map(|id| self.applications.get(id)) {
            let reports = latest_view.applications().unwrap_or(device.seen().applications());
            let wanted = application.wanted_hash();
            let report = reports.iter().find(|report| {
                report.uid() == application.uid()
                    && Some(report.spec_hash()) == wanted
                    && report.is_over(application.spec().config.restart_policy)
            });
            let Some(report) = report else { continue };
            let digest = match application.prepared() {
                Prepared::Ready(assigned) | Prepared::SourceMissing { kept: Some(assigned), .. } => {
                    Some(assigned.digest)
                }
                Prepared::SourceMissing { .. } | Prepared::Refused { .. } => application.known_digest(),
            };
            entries.retain(|entry| entry.uid.parse() != Ok(report.uid()));
            entries.push(report.to_finished(&application.key().name, digest));
        }
        (!unchanged || entries.len() != device.seen().finished().len()).then_some(entries)
    }

    /// A Device whose `status.finished` can be written now: no other write of it is on its way.
    pub(super) fn next_finishing(&self) -> Option<DeviceId> {
        let is_free = |id: &&DeviceId| self.devices.get(id).is_none_or(|device| !device.is_writing());
        self.finishing.iter().find(is_free).copied()
    }

    /// The next Device whose `status.finished` is to be written. Call until there is none.
    pub fn poll_finished(&mut self, now: Now) -> Option<FinishedWrite> {
        self.settle(now);
        if self.term.is_none() || !self.is_complete() {
            return None;
        }
        while self.writes.may_write(now.ms) {
            let id = self.next_finishing()?;
            self.finishing.remove(&id);
            let call = self.next_call();
            let device = self.devices.get_mut(&id);
            let device = present!(device, "only what is there has results" => None);
            let Some(patch) = device.begin_finish() else { continue };
            let key = device.key().clone();
            self.writes.begin_finished(call, id);
            return Some(FinishedWrite { id: call, device: key, patch });
        }
        None
    }
}
