//! What the agent does with storage: one operation at a time, the records before modules, modules before tidying up.

use wasmbed_protocol::{ApplicationUid, ModuleDigest};
use wasmbed_statement::Erased;

use super::Agent;
use crate::{
    application::Application,
    event::Event,
    pull::Progress,
    storage::{Operation, Outcome},
    store::{Busy, Stored},
};

impl Agent {
    /// The next operation, if none is outstanding.
    pub(super) fn plan_storage(&mut self) -> Option<Operation> {
        if self.store.is_busy() {
            return None;
        }
        let (busy, operation) = self
            .plan_identity()
            .or_else(|| self.plan_state())
            .or_else(|| self.plan_damaged())
            .or_else(|| self.plan_erasing())
            .or_else(|| self.plan_pull())
            .or_else(|| self.plan_tidying())?;
        self.store.begin(busy);
        Some(operation)
    }

    /// Before the state record, which is written whenever anything changes: whoever joins waits for this one.
    fn plan_identity(&mut self) -> Option<(Busy, Operation)> {
        if self.credentials.wants_record() {
            return Some((Busy::ReadIdentity, Operation::ReadIdentity));
        }
        let (version, bytes) = self.credentials.plan_commit(self.clock.now_ms())?;
        Some((Busy::Identity { version }, Operation::CommitIdentity(bytes)))
    }

    fn plan_state(&self) -> Option<(Busy, Operation)> {
        let version = self.durability.plan_commit()?;
        let bytes = self.record().encode();
        Some((Busy::State { version, revision: self.revision }, Operation::CommitState(bytes)))
    }

    fn plan_damaged(&self) -> Option<(Busy, Operation)> {
        let digest = self.store.damaged()?;
        Some((Busy::Delete { digest }, Operation::DeleteModule(digest)))
    }

    fn plan_pull(&mut self) -> Option<(Busy, Operation)> {
        let pull = self.pull.as_mut()?;
        let digest = pull.digest();
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
            | Operation::ReadIdentity
            | Operation::CommitIdentity(_)
            | Operation::ReadData(_)
            | Operation::CommitData { .. }
            | Operation::DeleteData(_)
            | Operation::EraseRemoved
            | Operation::EraseProvisioned => Busy::Discard { digest },
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
            |uid: &ApplicationUid| self.applications.iter().any(|application| application.uid() == *uid);
        if let Some(uid) = self.store.data().find(|uid| !owned(uid)) {
            return Some((Busy::DeleteData { uid }, Operation::DeleteData(uid)));
        }
        // Until every spec is here nobody can say that a module is not needed.
        if self.applications.iter().any(Application::awaits_any_spec) {
            return None;
        }
        // An ended application's module is kept for a next assignment that may have it too, as long as there is room.
        let short = self.applications.iter().any(Application::lacks_flash);
        let needed = |digest: &ModuleDigest| {
            let applications = self.applications.iter();
            let keepers = applications.filter(|application| !(short && application.is_over()));
            keepers.flat_map(Application::held).any(|held| held.digest() == *digest)
        };
        let digest = self.store.modules().find(|digest| !needed(digest))?;
        Some((Busy::Delete { digest }, Operation::DeleteModule(digest)))
    }

    pub(super) fn handle_stored(&mut self, outcome: Outcome) {
        // An answer that nothing was asked for.
        let Some(busy) = self.store.finish() else { return };
        if outcome.is_ok() {
            match self.store.note_success(&busy) {
                Stored::Nothing => {}
                Stored::Module(digest) => self.events.push(Event::ModuleStored { digest }),
                Stored::Room => self.room_was_made(),
            }
        }
        if let Some(digest) = busy.pull_digest() {
            self.handle_pull_storage(digest, &outcome);
            return;
        }
        let now_ms = self.clock.now_ms();
        match (&busy, outcome) {
            (Busy::ReadIdentity, outcome) => {
                self.credentials.handle_record(outcome, now_ms, &mut self.events);
            }
            (Busy::Identity { version }, outcome) => {
                self.credentials.handle_committed(*version, &outcome, now_ms, &mut self.events);
            }
            (Busy::State { version, revision }, Ok(_)) => {
                if self.durability.is_failing() || self.durability.revision() != *revision {
                    self.reports.mark();
                }
                self.durability.handle_committed(*version, *revision);
            }
            (Busy::State { .. }, Err(error)) => {
                let first = !self.durability.is_failing();
                if first {
                    self.reports.mark();
                }
                self.durability.handle_failed(self.clock.now_ms());
                self.events.push(Event::StateFailed { message: error.describe() });
                if first && !self.durability.has_written() {
                    self.events.push(Event::StartUncounted);
                }
            }
            (Busy::Delete { digest }, Err(_)) => {
                // What can't be removed is left alone until the next start.
                self.store.forget(*digest);
                self.note_left(Erased::MODULES);
            }
            (Busy::DeleteData { uid }, Err(_)) => {
                self.store.forget_data(*uid);
                self.note_left(Erased::KEY_VALUE_DATA);
            }
            (Busy::List, outcome) => self.handle_listed(outcome),
            (Busy::Erase, outcome) => self.handle_erased(&outcome),
            (Busy::Ending, outcome) => self.credentials.handle_ended(&outcome, now_ms, &mut self.events),
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

    fn handle_pull_storage(&mut self, digest: ModuleDigest, outcome: &Outcome) {
        // The pull may have been dropped while storage worked for it.
        let Some(pull) = self.pull.as_mut().filter(|pull| pull.digest() == digest) else { return };
        match pull.handle_storage(outcome) {
            Progress::More => {}
            Progress::Stored => self.pull = None,
            Progress::Failed(why) => self.fail_pull(digest, &why, true),
        }
    }
}
