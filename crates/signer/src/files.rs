//! Files of an issuing authority that may be replaced while the signer runs.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wasmbed_pki::{RENEWAL_INTERVAL, Renewed};

use crate::Error;

/// Looks at the files until `stop`.
pub(crate) async fn follow_files<T: Send + Sync + 'static>(
    authority: Arc<Renewed<T, Error>>,
    stop: CancellationToken,
) {
    let renewed = |read: Result<Arc<T>, Error>| match read {
        Ok(_) => tracing::info!("the issuing authority was read again; certificates are signed with it"),
        Err(error) => tracing::error!(
            reason = "BadCertificateFiles",
            %error,
            "changed certificate files can't be used; the earlier ones stay in use"
        ),
    };
    match authority.follow(RENEWAL_INTERVAL, renewed) {
        Ok(_following) => stop.cancelled().await,
        Err(error) => tracing::error!(%error, "changed certificate files won't be noticed"),
    }
}
