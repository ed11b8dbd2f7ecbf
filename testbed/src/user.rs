//! Users of the Kubernetes API: common name and organization of a client certificate.

/// A user of the Kubernetes API with the group that gives it its rights.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct User {
    name: String,
    group: String,
}

impl User {
    /// Any user, by name and group.
    #[must_use]
    pub fn new(name: &str, group: &str) -> Self {
        Self { name: name.to_owned(), group: group.to_owned() }
    }

    /// The administrator.
    #[must_use]
    pub fn administrator() -> Self {
        Self::new("admin", "system:masters")
    }

    /// The gateway of that name.
    #[must_use]
    pub fn gateway(name: &str) -> Self {
        Self::new(&format!("gateway:{name}"), "wasmbed:gateways")
    }

    /// The controller of that name.
    #[must_use]
    pub fn controller(name: &str) -> Self {
        Self::new(&format!("controller:{name}"), "wasmbed:controllers")
    }

    /// The certificate's common name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The certificate's organization.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// A file name of its own for the kubeconfig.
    pub(crate) fn file_stem(&self) -> String {
        let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
        format!("{}@{}", self.name, self.group).chars().map(|c| if c == '@' { c } else { plain(c) }).collect()
    }
}
