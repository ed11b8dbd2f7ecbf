//! The folder of the authorities.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use wasmbed_pki::{Authorities, FactoryAuthority, FactoryId, Identity, OperatorAuthority, OperatorId};

use crate::{
    machine::layout::TRUST_DOMAIN,
    output::{self, harmless},
};

/// Where the CAs are.
#[derive(clap::Args)]
pub(crate) struct Place {
    /// Folder of the CAs.
    #[arg(long, value_name = "DIR", default_value = "pki")]
    pub(super) dir: PathBuf,
    /// Trust domain of all SPIFFE ids.
    #[arg(long, default_value = TRUST_DOMAIN)]
    pub(super) trust_domain: String,
}

impl Place {
    /// The authorities of services and devices; made if they are not there.
    pub(super) fn open(&self) -> Result<Authorities> {
        let authorities = Authorities::create_or_open(&self.dir, &self.trust_domain)?;
        authorities.begun_anew().for_each(warn_of_begun_anew);
        Ok(authorities)
    }

    /// The factory's authority; made if it is not there.
    pub(super) fn open_factory(&self) -> Result<FactoryAuthority> {
        let factory = FactoryAuthority::create_or_open(&self.dir, &self.trust_domain)?;
        factory.begun_anew().for_each(warn_of_begun_anew);
        Ok(factory)
    }
}

impl Place {
    /// The operators' authority; made if it is not there.
    pub(super) fn open_operators(&self) -> Result<OperatorAuthority> {
        let operators = OperatorAuthority::create_or_open(&self.dir, &self.trust_domain)?;
        operators.begun_anew().for_each(warn_of_begun_anew);
        Ok(operators)
    }
}

fn warn_of_begun_anew(file: &Path) {
    output::complain(&format!(
        "warning: {} lay in the future and begins now, with the same key: the clock was ahead when it was made, or is behind now",
        file.display()
    ));
}

/// Writes certificates, or what else is no key of its own.
pub(super) fn write_public(path: &Path, pem: &str) -> Result<()> {
    wasmbed_pki::write_private(path, pem.as_bytes())
        .with_context(|| format!("can't write {}", path.display()))
}

/// Prints who an identity is, and until when.
pub(super) fn show(identity: &Identity) -> Result<()> {
    let facts = identity.facts();
    match facts.uris.as_slice() {
        [uri] if uri.parse::<FactoryId>().is_ok() || identity.spiffe_id().is_ok() => {
            output::print_line(&format!("id: {uri}"));
        }
        [uri] if let Ok(id) = uri.parse::<OperatorId>() => {
            output::print_line(&format!("id: {uri}"));
            output::print_line(&format!("user: {}", harmless(id.user())));
            let groups: Vec<_> = id.groups().iter().map(|group| harmless(group)).collect();
            output::print_line(&format!("groups: {}", groups.join(", ")));
        }
        _ => output::print_line(&format!(
            "id: none ({})",
            facts.common_name.as_deref().unwrap_or("no common name")
        )),
    }
    let until =
        jiff::Timestamp::from_second(facts.not_after).context("the certificate's end is out of range")?;
    output::print_line(&format!("valid until: {until}"));
    Ok(())
}
