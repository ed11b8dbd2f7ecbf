//! What the agent does with storage: one operation at a time, the state record before modules, modules before tidying up.

use wasmbed_protocol::{ApplicationUid, ModuleDigest};

use super::Agent;
use crate::{
    application::{Application, Next, Wait},
    event::Event,
    pull::Progress,
    storage::{Operation, Outcome, StorageError},
    store::Busy,
};

impl Agent {
    pub(super) fn has_module(&self, digest: &ModuleDigest) -> bool {
        self.inventory.modules.iter().any(|(known, _)| known == digest)
    }

    pub(super) fn staged_bytes(&self, digest: &ModuleDigest) -> u32 {
        self.inventory.staged.iter().find(|(known, _)| known == digest).map_or(0, |(_, bytes)| *bytes)
    }

    /// The next operation, if none is outstanding.
    pub(super) fn plan_storage(&mut self) -> Option<Operation> {
        if self.busy.is_some() {
            return None;
        }
        let (busy, operation) = self
            .plan_state()
            .or_else(|| self.plan_damaged())
            .or_else(|| self.plan_pull())
            .or_else(|| self.plan_tidying())?;
        self.busy = Some(busy);
        Some(operation)
    }

    fn plan_state(&mut self) -> Option<(Busy, Operation)> {
        let version = self.durability.plan_commit()?;
        let bytes = self.record().encode();
        Some((Busy::State { version, revision: self.revision }, Operation::CommitState(bytes)))
    }

    fn plan_damaged(&mut self) -> Option<(Busy, Operation)> {
        let digest = *self.damaged.last()?;
        Some((Busy::Delete { digest }, Operation::DeleteModule(digest)))
    }

    fn plan_pull(&mut self) -> Option<(Busy, Operation)> {
        let pull = self.pull.as_mut()?;
        let digest = pull.digest;
        let operation = pull.poll_storage()?;
        let busy = match &operation {
            Operation::Append { offset, bytes, .. } => {
                // A range is at most 16 KiB, so the length fits.
                Busy::Append { digest, end: offset.saturating_add(bytes.len() as u32) }
            }
            Operation::ReadStaged { .. } => Busy::ReadBack { digest },
            Operation::CommitModule(_) => Busy::CommitModule { digest },
            Operation::DeleteModule(_)
            | Operation::Inventory
            | Operation::ReadState
            | Operation::CommitState(_)
            | Operation::ReadData(_)
            | Operation::CommitData { .. }
            | Operation::DeleteData(_) => Busy::Discard { digest },
        };
        Some((busy, operation))
    }

    /// Removes what nobody needs, once it is on storage that nobody does: a cut must not bring an application back whose
    /// module or data is gone.
    fn plan_tidying(&self) -> Option<(Busy, Operation)> {
        if !self.set_known || !self.durability.is_durable() {
            return None;
        }
        let owned =
            |uid: &ApplicationUid| self.applications.iter().any(|application| application.uid == *uid);
        if let Some(uid) = self.inventory.data.iter().find(|uid| !owned(uid)) {
            return Some((Busy::DeleteData { uid: *uid }, Operation::DeleteData(*uid)));
        }
        // Until every spec is here nobody can say that a module is not needed.
        if self.applications.iter().any(awaits_spec) {
            return None;
        }
        // An ended application's module is kept for a next assignment that may have it too, as long as there is room.
        let short = self.applications.iter().any(Application::lacks_flash);
        let needed = |digest: &ModuleDigest| {
            let applications = self.applications.iter();
            let keepers = applications.filter(|application| !(short && application.is_over()));
            keepers.flat_map(Application::held).any(|held| held.digest == *digest)
        };
        let objects = self.inventory.modules.iter().chain(&self.inventory.staged);
        let (digest, _) = objects.into_iter().find(|(digest, _)| !needed(digest))?;
        Some((Busy::Delete { digest: *digest }, Operation::DeleteModule(*digest)))
    }

    /// A module's bytes are not what they were: it is no module any more, and pulled again after it was removed.
    pub(super) fn forget_module(&mut self, digest: ModuleDigest) {
        self.inventory.modules.retain(|(known, _)| *known != digest);
        if !self.damaged.contains(&digest) {
            self.damaged.push(digest);
        }
    }

    pub(super) fn handle_stored(&mut self, outcome: Outcome) {
        let Some(busy) = self.busy.take() else { return };
        if outcome.is_ok() {
            self.note_success(&busy);
        }
        if let Some(digest) = busy.pull_digest() {
            self.handle_pull_storage(digest, &outcome);
            return;
        }
        match (&busy, outcome) {
            (Busy::State { version, revision }, Ok(_)) => {
                self.report_due |= self.durability.is_failing() || self.durability.revision() != *revision;
                self.durability.handle_committed(*version, *revision);
            }
            (Busy::State { .. }, Err(error)) => {
                let first = !self.durability.is_failing();
                self.report_due |= first;
                self.durability.handle_failed(self.now_ms);
                self.events.push(Event::StateFailed { message: error_text(&error) });
                if first && !self.durability.has_written() {
                    self.events.push(Event::StartUncounted);
                }
            }
            (Busy::Delete { digest }, Err(_)) => {
                // What can't be removed is left alone until the next start.
                self.forget_object(*digest);
            }
            (Busy::DeleteData { uid }, Err(_)) => self.inventory.data.retain(|known| known != uid),
            (Busy::Delete { .. } | Busy::DeleteData { .. }, Ok(_)) => {}
            // Answered above.
            (
                Busy::Append { .. }
                | Busy::ReadBack { .. }
                | Busy::CommitModule { .. }
                | Busy::Discard { .. },
                _,
            ) => {}
        }
    }

    fn note_success(&mut self, busy: &Busy) {
        match busy {
            Busy::State { .. } | Busy::ReadBack { .. } => {}
            Busy::Append { digest, end } => {
                self.inventory.staged.retain(|(known, _)| known != digest);
                self.inventory.staged.push((*digest, *end));
            }
            Busy::CommitModule { digest } => {
                let length = self.staged_bytes(digest);
                self.inventory.staged.retain(|(known, _)| known != digest);
                self.inventory.modules.push((*digest, length));
                self.events.push(Event::ModuleStored { digest: *digest });
            }
            Busy::Discard { digest } | Busy::Delete { digest } => {
                self.forget_object(*digest);
                self.room_was_made();
            }
            Busy::DeleteData { uid } => self.inventory.data.retain(|known| known != uid),
        }
    }

    fn forget_object(&mut self, digest: ModuleDigest) {
        self.inventory.modules.retain(|(known, _)| *known != digest);
        self.inventory.staged.retain(|(known, _)| *known != digest);
        self.damaged.retain(|known| *known != digest);
    }

    fn handle_pull_storage(&mut self, digest: ModuleDigest, outcome: &Outcome) {
        let Some(pull) = self.pull.as_mut().filter(|pull| pull.digest == digest) else { return };
        match pull.handle_storage(outcome) {
            Progress::More => {}
            Progress::Stored => self.pull = None,
            Progress::Failed(why) => self.fail_pull(digest, &why, true),
        }
    }

    /// An application has a data record now, which goes with it.
    pub fn handle_data_record(&mut self, uid: ApplicationUid) {
        if !self.inventory.data.contains(&uid) {
            self.inventory.data.push(uid);
        }
    }
}

/// Whether an application's spec is still to come.
fn awaits_spec(application: &Application) -> bool {
    let missing = |next: &Next| next.held.is_none() && next.wait != Wait::ForGood;
    application.accepted && application.next.as_ref().is_some_and(missing)
}

fn error_text(error: &StorageError) -> alloc::string::String {
    match error {
        StorageError::Full => "storage is full".into(),
        StorageError::Missing => "storage lost what it had".into(),
        StorageError::Failed(message) => message.clone(),
    }
}
