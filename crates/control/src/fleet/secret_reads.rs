//! Secrets that a leader reads, and what follows for the Applications that name them.

use super::{
    Fleet,
    input::{CallId, SecretOutcome, SecretRead},
};
use crate::Now;

impl Fleet {
    /// The next Secret to read; a leader alone reads them, and those of Applications only where their values can be hidden. Call until there is none.
    pub fn poll_secret(&mut self, now: Now) -> Option<SecretRead> {
        if self.term.is_none() || !self.is_complete() {
            return None;
        }
        let id = self.next_call();
        let hides = self.config.values_key.is_some();
        let secret = if hides { self.secrets.poll(now.ms, id) } else { None };
        let secret = secret.or_else(|| self.brokers.secrets.poll(now.ms, id))?;
        Some(SecretRead { id, secret })
    }

    /// How the read of a Secret ended.
    pub fn handle_secret(&mut self, now: Now, id: CallId, outcome: SecretOutcome) {
        if self.brokers.secrets.reads(id) {
            if !self.brokers.secrets.handle(now.ms, id, outcome).is_empty() {
                self.note_broker_secrets();
            }
            return;
        }
        for user in self.secrets.handle(now.ms, id, outcome) {
            self.prepare(user, true);
            self.schedule_status(now, user);
        }
    }

    /// When [`Fleet::poll_secret`] may give one.
    pub(super) fn secrets_timeout(&self) -> Option<u64> {
        if self.term.is_none() || !self.is_complete() {
            return None;
        }
        let hides = self.config.values_key.is_some();
        let of_applications = self.secrets.timeout().filter(|_| hides);
        of_applications.into_iter().chain(self.brokers.secrets.timeout()).min()
    }

    /// Another leads, or has led: values may have changed, and what was made of them may not be what devices run.
    pub(super) fn forget_secrets(&mut self, now: Now) {
        self.brokers.secrets.forget(now.ms);
        self.note_broker_secrets();
        for user in self.secrets.forget(now.ms) {
            let application = present!(self.applications.get_mut(&user), "who names a Secret is there");
            application.forget_assigned();
            self.prepare(user, false);
        }
    }
}
