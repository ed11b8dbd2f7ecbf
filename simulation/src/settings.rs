//! What must hold of settings: what an application that goes on has read last is what its Application says, and no change of one restarts it.

use std::collections::BTreeMap;

use wasmbed_protocol::ApplicationUid;

/// The setting of those programs that have one; [`READS`] begins with it.
pub(crate) const SETTING: &str = "n";
/// Its highest value; the lowest is the default, 0.
pub(crate) const SETTING_MAX: u8 = 9;

/// The section in which those programs declare it.
pub(crate) fn section() -> String {
    format!("{SETTING} int 0..{SETTING_MAX} = 0\\n")
}

/// What applications say of themselves: that they begin, and what they read.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// By device: how often each has begun.
    begun: BTreeMap<(usize, ApplicationUid), u64>,
    /// By device: the value that each read last.
    read: BTreeMap<(usize, ApplicationUid), u8>,
}

/// The line of a program that begins.
pub(crate) const BEGINS: &str = "begins";
/// What a program says before the value that it read, which is one digit.
pub(crate) const READS: &str = "n is ";

impl Settings {
    /// A device's log has a line of an application.
    pub(crate) fn logged(&mut self, device: usize, uid: ApplicationUid, line: &str) {
        if line == BEGINS {
            *self.begun.entry((device, uid)).or_default() += 1;
        } else if let Some(value) = line.strip_prefix(READS).and_then(|value| value.parse().ok()) {
            self.read.insert((device, uid), value);
        }
    }

    /// The value that an application read last.
    pub(crate) fn read(&self, device: usize, uid: ApplicationUid) -> Option<u8> {
        self.read.get(&(device, uid)).copied()
    }

    /// How often an application has begun on a device so far.
    pub(crate) fn begun(&self, device: usize, uid: ApplicationUid) -> u64 {
        self.begun.get(&(device, uid)).copied().unwrap_or_default()
    }
}
