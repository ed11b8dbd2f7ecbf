//! Starting a cluster that is ready for a test.

use anyhow::Result;

use crate::{Cluster, ControlPlane, Options, seed, setup};

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
        let cluster = Self::create(plane, options)?;
        let seed = match plane {
            _ if options.anew => None,
            ControlPlane::Embedded => None,
            ControlPlane::Kubernetes => Some(seed::path(&setup::installed()?)?),
        };
        let is_seeded = match &seed {
            Some(seed) => seed::lay(seed, &cluster.etcd_data())?,
            None => false,
        };
        cluster.start_parts().await?;
        setup::prepare(&cluster, is_seeded).await?;
        if let Some(seed) = seed
            && !is_seeded
            // One more process would have to end for it.
            && !options.controller_manager
        {
            seed::keep(&cluster, &seed).await?;
            setup::serves(&cluster).await?;
        }
        Ok(cluster)
    }
}
