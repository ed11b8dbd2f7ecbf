//! Clusters that the tests of one program reuse.

use std::{
    ops::Deref,
    sync::{Mutex, PoisonError},
};

use anyhow::Result;

use crate::{Cluster, ControlPlane, setup};

/// Those that nobody has at the moment. They are never dropped: the end of the program ends their processes and folders.
static IDLE: Mutex<Vec<Cluster>> = Mutex::new(Vec::new());

/// A cluster that returns to the pool on drop, unless it was somebody's own.
#[derive(Debug)]
pub struct Borrowed {
    /// `None` only while it is being dropped.
    cluster: Option<Cluster>,
    returns: bool,
}

impl Cluster {
    /// One that is this test's alone while it runs and may have served another test of the same program before: its Wasmbed objects,
    /// Leases, Secrets, ResourceQuotas, Events and requests for certificates are gone, its resource versions go on. Starting kube-apiserver takes seconds, cleaning it does not. Whoever
    /// borrows it leaves no other kinds of objects behind.
    ///
    /// # Errors
    /// With what a process printed, when it doesn't come up.
    pub async fn shared(plane: ControlPlane) -> Result<Borrowed> {
        let idle = {
            let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            let position = idle.iter().position(|cluster| cluster.plane() == plane);
            position.map(|position| idle.swap_remove(position))
        };
        if let Some(cluster) = idle
            && setup::clean(&cluster).await.is_ok()
        {
            return Ok(Borrowed { cluster: Some(cluster), returns: true });
        }
        Ok(Borrowed { cluster: Some(Self::start(plane).await?), returns: true })
    }
}

impl From<Cluster> for Borrowed {
    /// One of its own, which ends on drop.
    fn from(cluster: Cluster) -> Self {
        Self { cluster: Some(cluster), returns: false }
    }
}

impl Deref for Borrowed {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        match &self.cluster {
            Some(cluster) => cluster,
            None => unreachable!("it is taken when the value is dropped"),
        }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(cluster) = self.cluster.take()
            && self.returns
            && !std::thread::panicking()
            && cluster.is_whole()
        {
            IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(cluster);
        }
    }
}
