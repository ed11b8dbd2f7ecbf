//! Which life of which controller a call comes from.

/// One life of one controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sender {
    pub(crate) controller: usize,
    pub(crate) life: u32,
}

impl Sender {
    /// Its name in Leases; another for each life, as pods have.
    pub(crate) fn holder(self) -> String {
        format!("controller-{}-{}", self.controller, self.life)
    }
}
