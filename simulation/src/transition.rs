//! A run as values: the world it begins in, what people do and what fails at which time, and a seed of the noise that is worth no
//! transition of its own.

use serde::{Deserialize, Serialize};
use wasmbed_control::gateway;

use crate::weather::Weather;

/// Everything that a run follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub(crate) opening: Opening,
    /// In the order of their times.
    pub(crate) steps: Vec<Step>,
}

/// The world before the first transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Opening {
    pub(crate) enrollment: Enrollment,
    /// For each device its gateways, in the order in which it tries them.
    pub(crate) gateways: Vec<Vec<usize>>,
    /// For each device how it comes by its certificate; the others had theirs from the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) joins: Vec<Joins>,
    /// There is a MessageBroker from the start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) broker: bool,
    pub(crate) weather: Weather,
    /// Latencies, and which calls the weather strikes, follow from it.
    pub(crate) noise: u64,
}

/// How a device comes by its certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Joins {
    /// It had one from the start.
    #[default]
    Never,
    /// With a factory identity.
    Factory,
    /// With a pairing token.
    Token,
}

/// How gateways take devices that no Device names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Enrollment {
    Open,
    Approval,
    Closed,
}

impl From<Enrollment> for gateway::Enrollment {
    fn from(enrollment: Enrollment) -> Self {
        match enrollment {
            Enrollment::Open => Self::Open,
            Enrollment::Approval => Self::Approval,
            Enrollment::Closed => Self::Closed,
        }
    }
}

/// One transition and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) at_ms: u64,
    #[serde(flatten)]
    pub(crate) transition: Transition,
}

/// What somebody does, or what fails. None has a condition: what does not apply when its time comes (the API refuses it, the process is
/// down already) changes nothing, so that any of them can be left out of a run. Processes, Applications, Modules and sites are
/// meant by their numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transition {
    /// Creates an Application or changes it; one that is being deleted stays so.
    Want {
        application: usize,
        wanted: Wanted,
    },
    DeleteApplication {
        application: usize,
    },
    /// Creates the Modules that are not there, of these sizes.
    ProvideModules {
        sizes: [usize; 2],
    },
    DeleteModule {
        module: usize,
    },
    /// Creates a Device before its device is first seen.
    Announce {
        device: usize,
    },
    Label {
        device: usize,
        site: Option<usize>,
    },
    Cordon {
        device: usize,
        unschedulable: bool,
    },
    Revoke {
        device: usize,
        revoked: bool,
    },
    Approve {
        device: usize,
        approved: bool,
    },
    DeleteDevice {
        device: usize,
    },
    /// Takes it out of service, for good.
    Decommission {
        device: usize,
    },
    /// Makes what a device joins by: its Device, approved or not, and for one with a token that token, if the one before was used.
    Register {
        device: usize,
        approved: bool,
    },
    /// Approves or denies the device's open requests for certificates, as `kubectl certificate` does.
    Decide {
        device: usize,
        approved: bool,
    },
    /// Deletes the device's requests for certificates, whatever became of them.
    DeleteRequests {
        device: usize,
    },
    /// Gives the setting of an Application's program a value, on all devices or on one; without a value all of them are left to the
    /// program. One whose program has no setting stays as it is.
    Adjust {
        application: usize,
        value: Option<u8>,
        device: Option<usize>,
    },
    /// All kinds, beginning with this one, and nothing new until they are gone.
    DeleteNamespace {
        first: usize,
    },

    /// The device's connection ends, and both sides are told.
    CutLink {
        device: usize,
    },
    /// Whatever either side of the device's connection sends from now on is lost, and nobody is told.
    SilenceLink {
        device: usize,
    },
    /// Frames in both directions are this late.
    DelayLink {
        device: usize,
        for_ms: u64,
    },
    /// With `counters` its record says afterwards that it had the highest epoch and revision that there are.
    LosePower {
        device: usize,
        for_ms: u64,
        counters: bool,
    },
    /// Power is lost after so many writes, in the middle of one.
    LosePowerAtWrite {
        device: usize,
        writes: u32,
        permille: u16,
    },
    FillDevice {
        device: usize,
        for_ms: u64,
    },

    KillGateway {
        gateway: usize,
        for_ms: u64,
        loses_disk: bool,
    },
    StopGateway {
        gateway: usize,
        for_ms: u64,
    },
    /// It does not reach the API.
    IsolateGateway {
        gateway: usize,
        for_ms: u64,
    },
    FillGateway {
        gateway: usize,
        for_ms: u64,
    },
    /// Another process acts under its name.
    ImpersonateGateway {
        gateway: usize,
        for_ms: u64,
    },
    /// The wall clock of its machine jumps: it is so far ahead of the true time from now on, or behind it if negative.
    SetGatewayClock {
        gateway: usize,
        ahead_ms: i64,
    },
    /// It is gone for the rest of the run.
    RemoveGateway {
        gateway: usize,
    },

    KillController {
        controller: usize,
        for_ms: u64,
    },
    StopController {
        controller: usize,
        for_ms: u64,
    },
    /// It stands still and does not know.
    PauseController {
        controller: usize,
        for_ms: u64,
    },
    /// It does not reach the API.
    IsolateController {
        controller: usize,
        for_ms: u64,
    },
    /// Its watch of Leases shows nothing, without an error.
    BlindController {
        controller: usize,
        for_ms: u64,
    },
    /// The wall clock of its machine jumps, as a gateway's does.
    SetControllerClock {
        controller: usize,
        ahead_ms: i64,
    },
    /// It is gone for the rest of the run.
    RemoveController {
        controller: usize,
    },

    /// The broker that messages go to is away.
    StopBroker {
        for_ms: u64,
    },

    KillSigner {
        for_ms: u64,
    },
    /// It does not reach the API.
    IsolateSigner {
        for_ms: u64,
    },
    /// The wall clock of its machine jumps, as a gateway's does.
    SetSignerClock {
        ahead_ms: i64,
    },

    /// Watches begin anew.
    RestartApi,
    /// The wall clock of its machine jumps, as a gateway's does.
    SetApiClock {
        ahead_ms: i64,
    },
    /// It answers nothing.
    StopApi {
        for_ms: u64,
    },
    /// It answers reads and watches, no writes.
    FillApi {
        for_ms: u64,
    },
}

/// What an Application is wanted to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Devices by name.
    pub(crate) devices: Vec<usize>,
    pub(crate) selector: Option<Selector>,
    pub(crate) module: Source,
    /// Ten seconds until an instance counts as ready.
    pub(crate) slow: bool,
}

/// Devices by label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Selector {
    All,
    Site(usize),
}

/// Where the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// In the Application, of this size.
    Inline(usize),
    /// In a Module.
    Module(usize),
    /// In the Application; it ends by itself and is not started again.
    Once,
    /// In the Application; it traps after half a second, each time. Once there are no faults, people put another in its place.
    Traps,
}
