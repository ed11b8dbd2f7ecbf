//! Starting a cluster that is ready for a test.

use anyhow::Result;

use crate::{Cluster, ControlPlane, Options, setup};

impl Cluster {
    /// Starts one of its own for a test and waits until it serves.
    ///
    /// # Errors
    /// With what a process printed, when it doesn't come up.
    pub async fn start(plane: ControlPlane) -> Result<Self> {
        Self::start_with(plane, Options::default()).await
    }

    /// The same, otherwise than usual.
    ///
    /// # Errors
    /// With what a process printed, when it doesn't come up.
    pub async fn start_with(plane: ControlPlane, options: Options) -> Result<Self> {
        let cluster = Self::start_processes(plane, options).await?;
        setup::prepare(&cluster).await?;
        Ok(cluster)
    }
}
