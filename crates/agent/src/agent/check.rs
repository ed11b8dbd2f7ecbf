//! The agent's invariants, checked.

use super::{Agent, lifecycle::wanted};
use crate::invariant::Invariant;

impl Agent {
    /// Whether the agent's invariants hold. For tests and simulations: it costs time quadratic in the applications.
    ///
    /// # Errors
    /// The first one that does not.
    pub fn check(&self) -> Result<(), Invariant> {
        let applications = &self.applications;
        for (index, application) in applications.iter().enumerate() {
            let uid = application.uid();
            let mut others = applications.iter().skip(index + 1);
            if others.any(|other| other.uid() == uid) {
                return Err(Invariant::UniqueApplications(uid));
            }
            if !application.is_consistent() {
                return Err(Invariant::Assignments(uid));
            }
            if let Some(run) = application.run() {
                let mut others = applications.iter().skip(index + 1);
                if !application.is_accepted() || others.any(|other| other.run() == Some(run)) {
                    return Err(Invariant::Runs(uid));
                }
            }
        }
        let accepted = applications.iter().filter(|application| application.is_accepted()).count();
        if accepted > usize::from(self.config.facts.applications_max) {
            return Err(Invariant::AcceptedMax(accepted));
        }
        if let Some(pull) = &self.pull {
            let digest = pull.digest();
            let is_wanted = wanted(applications).any(|(wanted, _)| wanted == digest);
            if !is_wanted || self.store.has_module(&digest) {
                return Err(Invariant::Pull);
            }
        }
        if !self.connection.is_consistent() {
            return Err(Invariant::Link);
        }
        if !self.traps.is_consistent() {
            return Err(Invariant::Traps(self.traps.len()));
        }
        if !self.is_identity_consistent() {
            return Err(Invariant::Identity);
        }
        if !self.is_decommission_consistent() {
            return Err(Invariant::Decommissioned);
        }
        if !self.durability.is_consistent() {
            return Err(Invariant::Durability);
        }
        Ok(())
    }
}
