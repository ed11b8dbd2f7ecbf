//! Leases: read, claimed and released as `wasmbed_control::election` decides.

use k8s_openapi::{
    api::coordination::v1::Lease,
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use wasmbed_control::{
    ObjectKey,
    election::{Claim, ElectionConfig, LeaseRecord},
};

use crate::{CallError, Caller};

/// One Lease.
#[derive(Clone)]
pub struct LeaseClient {
    caller: Caller,
    key: ObjectKey,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The Lease is held in this term.
    Written {
        /// `leaseTransitions`.
        term: u64,
    },
    /// There was nothing to write: another holds it.
    Waits,
    /// Another process wrote the Lease since it was read: the next look shows which.
    Conflict,
}

impl LeaseClient {
    /// The Lease of that namespace and name, whether it exists or not.
    #[must_use]
    pub fn new(caller: Caller, key: ObjectKey) -> Self {
        Self { caller, key }
    }

    /// Its term; 0 if there is no such Lease.
    ///
    /// # Errors
    /// It can't be read.
    pub async fn term(&self) -> Result<u64, CallError> {
        let lease = self.caller.get::<Lease>(&self.key).await?;
        Ok(LeaseRecord::read(lease.and_then(|lease| lease.spec).as_ref()).term)
    }

    /// Reads the Lease, asks `plan` what to do about it, and does that in the name of `holder`; `now` is what `renewTime` becomes.
    ///
    /// # Errors
    /// It can't be read or written.
    pub async fn claim(
        &self,
        holder: &str,
        config: ElectionConfig,
        now: Timestamp,
        plan: impl FnOnce(Option<&LeaseRecord>) -> Claim + Send,
    ) -> Result<Claimed, CallError> {
        let lease = self.caller.get::<Lease>(&self.key).await?;
        let record = lease.as_ref().map(|lease| LeaseRecord::read(lease.spec.as_ref()));
        let before = lease.as_ref().and_then(|lease| lease.spec.clone());
        let claimed = plan(record.as_ref()).spec(before, holder, config, now);
        let Some((term, spec)) = claimed else { return Ok(Claimed::Waits) };
        let written = match lease {
            // It carries the version that was read, so that it fails if another wrote since.
            Some(lease) => self.caller.replace(&self.key, &Lease { spec: Some(spec), ..lease }).await,
            None => {
                let metadata = ObjectMeta { name: Some(self.key.name.clone()), ..ObjectMeta::default() };
                self.caller.create(&self.key.namespace, &Lease { metadata, spec: Some(spec) }).await
            }
        };
        match written {
            Ok(_) => Ok(Claimed::Written { term }),
            Err(error) if error.is_conflict() => Ok(Claimed::Conflict),
            Err(error) => Err(error),
        }
    }

    /// Gives the Lease up if `holder` holds it, so that nobody waits for it to expire. Whether it was held.
    ///
    /// # Errors
    /// It can't be read or written.
    pub async fn release(&self, holder: &str) -> Result<bool, CallError> {
        let Some(mut lease) = self.caller.get::<Lease>(&self.key).await? else { return Ok(false) };
        let spec = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(holder));
        let Some(spec) = spec else { return Ok(false) };
        spec.holder_identity = Some(String::new());
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        self.caller.replace(&self.key, &lease).await?;
        Ok(true)
    }
}
