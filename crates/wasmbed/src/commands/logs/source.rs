//! Where lines are read, and which.

use std::sync::Arc;

use anyhow::Result;

use crate::login::{Login, Operator};

/// Which gateways to read, and as whom.
pub struct Source {
    /// A person.
    pub credentials: Credentials,
    /// `host:port` of each.
    pub gateways: Vec<String>,
    /// Whether these are all gateways that the devices may have sessions with.
    pub all_gateways: bool,
}

/// As whom gateways are called.
#[derive(Clone)]
pub enum Credentials {
    /// With a certificate that was issued offline.
    Issued(Arc<Operator>),
    /// With the one of a login, which is renewed in time.
    Login(Arc<Login>),
}

/// Which lines; the default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of Applications in this namespace.
    pub namespace: Option<String>,
    /// Of the Application of this name.
    pub application: Option<String>,
    /// From the Device of this name.
    pub device: Option<String>,
}

impl Credentials {
    /// The certificate that counts now.
    ///
    /// # Errors
    /// There is none, and none could be got.
    pub async fn current(&self) -> Result<Arc<Operator>> {
        match self {
            Self::Issued(operator) => Ok(Arc::clone(operator)),
            Self::Login(login) => login.current().await,
        }
    }
}
