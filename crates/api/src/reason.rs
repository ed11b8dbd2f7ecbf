//! Every reason that a condition, a failure or an Event can give, each with the sentence that explains it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$attr:meta])* $name:ident => $sentence:literal,)+) => {
        /// Why something is as it is. The names stand in conditions, failures and Events.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum ReasonCode {
            $(#[doc = $sentence] $(#[$attr])* $name,)+
        }

        impl ReasonCode {
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The name as it stands in resources.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The sentence that explains it.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)+ }
            }
        }
    };
}

/// A name and not one of a list: a status with a reason of a later version is still accepted and read as `Unknown`.
impl JsonSchema for ReasonCode {
    fn schema_name() -> Cow<'static, str> {
        "ReasonCode".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Z][A-Za-z0-9]*$" })
    }
}

reasons! {
    // Reported by a device.
    Exited => "The application ended by itself with exit code 0.",
    ExitedWithError => "The application ended by itself with an exit code other than 0.",
    Trapped => "The application trapped; the message names the trap.",
    CpuLimit => "The application used more CPU time between two waits than cpu_time_limit.",
    MemoryLimit => "The application needs more memory than memory_limit.",
    StackLimit => "The application nested its calls deeper than the sandbox allows.",
    DigestMismatch => "The bytes that the device received do not have the digest of the module.",
    InvalidModule => "The bytes are not a WebAssembly module that the sandbox accepts; the message says what is wrong.",
    UnknownImport => "The module imports something that the device does not offer, or offers with another type.",
    CapabilityDenied => "The module uses a capability that config.capabilities does not grant.",
    OutOfMemory => "The device does not have enough free memory next to its older applications; detected before deployment. The message says how much is needed, how much is left and which applications hold the rest.",
    OutOfFlash => "The device does not have enough free storage for the module.",
    ModuleGone => "The gateway no longer has the module; it will be sent again.",
    Unsupported => "The device's firmware does not know a feature that the assignment needs.",
    TooManyApplications => "The device already runs its maximum number of applications; older ones take precedence. Applications that ended for good do not count.",
    StorageFailed => "The device's storage failed.",
    // Found by the controller before anything is sent.
    ModuleTooLarge => "The module is larger than the device or the resource accepts.",
    UnsupportedFeature => "The module uses WebAssembly operators that the device's engine does not know.",
    ModuleNotFound => "spec.module names a Module that does not exist in this namespace; devices keep running what they already have.",
    QuotaExceeded => "The module is larger than what a ResourceQuota of the namespace leaves for modules (wasmbed.github.io/module-bytes); the message says how much is asked for, used and allowed. Use a smaller module, delete Applications that are not needed, or have the quota raised; then it goes on by itself. Devices keep running what they already have.",
    SecretNotFound => "config.env_from or spec.credentials names a Secret that does not exist in this namespace, or a key that it does not have. Create it, or mark the entry optional. Devices keep running what they already have.",
    SecretForbidden => "The controller may not read Secrets in this namespace. Its owner allows that by a RoleBinding of the ClusterRole wasmbed-secret-reader; with the embedded API by an option of wasmbed apiserver or wasmbed up. Devices keep running what they already have.",
    SecretInvalid => "A value that config.env_from names can't be an environment variable: it is not UTF-8, contains NUL, is longer than 1024 bytes, or its name is too long. The message names the key. Devices keep running what they already have.",
    SecretUnavailable => "The Kubernetes API did not give a Secret that config.env_from or spec.credentials names; the controller retries. Devices keep running what they already have.",
    SecretsDisabled => "The controller has no controller.data_key_file, so it can't hide values of Secrets in what it sends and publishes, and refuses config.env_from.",
    AssignmentTooLarge => "The environment with the values of Secrets, the arguments and the capabilities together do not fit an assignment. Devices keep running what they already have.",
    InvalidBase64 => "The field does not hold standard base64.",
    DeviceNotFound => "target_devices names a Device that does not exist in this namespace.",
    NoTargets => "target_devices selects no Device, or only some that are not approved, are revoked or are being decommissioned.",
    Unschedulable => "Every Device that target_devices selects is marked unschedulable and does not run the application.",
    // Application conditions.
    AllRunning => "Every target runs this generation, or ran it to its end.",
    AllSucceeded => "Every target ran this generation to its end with exit code 0.",
    StillRunning => "Some targets still run this generation.",
    ConnectedRunning => "Every connected target runs this generation or ran it to its end; some targets are away.",
    WaitingForDevices => "Some targets have not reported this generation yet, or have not run it for min_ready_seconds yet.",
    DevicesAway => "Some targets are not connected; they get the application when they return.",
    SomeFailed => "The application failed on some targets.",
    AllFailed => "The application failed on every target.",
    NoneConnected => "No target is connected.",
    Deploying => "The application is being sent to its targets.",
    UpToDate => "There is nothing left to do.",
    Terminating => "The Application is being deleted and removed from its devices.",
    Retrying => "A gateway or the Kubernetes API did not answer; the controller retries.",
    RetriesExhausted => "The controller stopped after max_retries; it retries at the next interval or change.",
    UndeployTimeout => "Connected devices did not confirm the removal in time; the finalizer was removed, and those devices stop the application when they next report.",
    Undeployed => "Every connected device has confirmed the removal.",
    // Device conditions.
    SessionEstablished => "A gateway holds the device's session.",
    SessionEnded => "The device closed its session or its connection broke.",
    HeartbeatTimeout => "No frame was received from the device within the heartbeat timeout.",
    GatewayShutdown => "The gateway that held the session stopped.",
    GatewayLost => "The gateway that held the session stopped renewing its Lease.",
    Superseded => "The device established a newer session.",
    Approved => "The device is approved.",
    PendingApproval => "The device is waiting for spec.approved to be set to true.",
    KeyNotConfirmed => "The device joins without a proof of who it is; the message gives its key's fingerprint. A person has to compare it with what the device shows and set spec.confirmed_key.",
    RequestRefused => "The device's request for a certificate was refused by the signer or by a person; the message says why.",
    Revoked => "The device is rejected because spec.revoked is true.",
    Decommissioned => "The device was taken out of service and is kept out.",
    Waiting => "The device has not confirmed yet that it was taken out of service; the message says what is waited for.",
    KeyUnknown => "The device is to be taken out of service, but neither spec.public_key nor status.public_key tells its key: no proof of it could be verified, and no order is sent. Set spec.public_key.",
    Confirmed => "The device signed that it erased what it had. That its key is erased is not proven.",
    RequestNotApproved => "A certificate request of the device waits for its approval: kubectl certificate approve. The message names it.",
    KeyMismatch => "The key of the device's certificate differs from spec.public_key.",
    CloneSuspected => "Two boards use the same identity: their sessions superseded each other three times within 60 s. The established session is kept.",
    QuietAgain => "The problem has not recurred within the time after which the condition clears.",
    AwaitingReconnect => "The device is accepted again but was told to retry later; the message gives the latest time of its next attempt.",
    RunningUnknown => "The Device was removed while its device was disconnected or did not confirm; the device may keep running its applications until it next contacts a gateway.",
    ForeignCertificate => "A client presented a certificate that was issued by an unknown CA. Its name is unverified, so no Device shows it.",
    NotEnrolled => "No such Device exists and the gateway's enrollment policy is closed.",
    ProtocolError => "The device violated the protocol; the message says how.",
    CounterOutOfRange => "The device reports an epoch or a revision that it cannot have been given; the message names it. The device is treated as new.",
    CountersBelieved => "The device's epoch and revision are consistent with those that it was given.",
    // DeviceGateway conditions.
    Serving => "The gateway accepts devices.",
    Draining => "The gateway is stopping.",
    StoreFailed => "Writes to the gateway's disk fail and are retried every second. Until they succeed, no desired set or module is accepted; connected devices keep running what they have.",
    StoreSetAside => "The gateway's store of desired sets was damaged at startup and was moved aside. Devices keep running what they have until a controller sends their sets again.",
    LeaseExpired => "The gateway has not renewed its Lease; its state is unknown.",
    // MessageBroker statuses.
    BrokerUnreachable => "No connection to the broker: its name has no address, nothing listens there, or it does not answer in time. Messages wait on the gateway's disk; it is tried again, at most a minute later.",
    BrokerUntrusted => "The broker's certificate does not lead to spec.ca, or to what the gateway's system trusts, is not for the host of spec.url, or is not valid now; or the broker does not take the gateway's certificate. Messages wait on the gateway's disk.",
    NotAuthorised => "The broker does not take the credentials, or does not let this client publish to wasmbed/NAMESPACE/APPLICATION/DEVICE/TOPIC, or with spec.receive subscribe to wasmbed-in/NAMESPACE/#. Messages wait on the gateway's disk.",
    BrokerSilent => "The broker takes messages, or a subscription, and does not acknowledge them in time. Messages wait on the gateway's disk and are sent again.",
    BrokerRefused => "The broker closed the connection or refused a message; the message says what it said. Messages wait on the gateway's disk.",
    BrokerInvalid => "The gateway can't use what spec says; the message names the field. Messages wait on the gateway's disk.",
    TooManyBrokers => "The namespace has more MessageBrokers than a gateway serves; older ones take precedence.",
    InvalidSetting => "spec.settings gives a value that the module does not allow; the message names the setting and what it may be. Devices keep the values that they have.",
    SettingRefused => "The device does not use the value of a setting, since the module that it runs does not allow it; the message names the setting. The value before stays in use.",
    // Serde wants the one that stands for all others last.
    #[default]
    #[serde(other)]
    Unknown => "The device gave a reason that is unknown to this version.",
}
