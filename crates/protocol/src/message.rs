//! The messages of `wasmbed/1` as values; `wasmbed.cddl` is the normative text, `codec` turns one into the other.

use core::fmt;

pub use crate::error_code::ErrorCode;
use crate::{
    enumeration::enumeration,
    ids::{
        ApplicationUid, BootCounter, BootId, CorrelationId, DeviceUid, Epoch, KeyHash, MessageGroups,
        ModuleDigest, Revision, Sequence, SpecHash, ValuesMac,
    },
    list::List,
    setting_value::SettingValue,
};

/// What a device sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DeviceMessage<'a> {
    /// First frame of a session: who speaks and what it holds.
    Hello(Hello<'a>),
    /// Sent every [`Welcome::heartbeat_interval_ms`], whatever else is: its answer proves the gateway's liveness.
    Heartbeat(Heartbeat),
    /// The whole truth about what runs, after every change of it.
    Reported(Reported<'a>),
    /// Asks for the assignment behind a spec hash.
    AssignmentGet(AssignmentGet),
    /// Asks for one range of a module; at most one is outstanding.
    ModuleGet(ModuleGet),
    /// One line that an application wrote.
    Log(Log<'a>),
    /// Where an application trapped; only for a gateway that takes [`MessageGroups::TRAPS`].
    Trap(Trap<'a>),
    /// What an application published; only for a gateway that takes [`MessageGroups::MESSAGES`].
    Publish(Publish<'a>),
    /// What became of a message for an application: one for each [`Deliver`].
    DeliverAck(DeliverAck),
    /// Which settings an application has, and what became of their values; only for a gateway that takes
    /// [`MessageGroups::SETTINGS`].
    SettingsAnswer(SettingsAnswer<'a>),
    /// Asks for a certificate: the first frame of a device that has none of the fleet, or a renewal within a session, only for
    /// a gateway that takes [`MessageGroups::RENEWAL`].
    Join(Join<'a>),
    /// Proves that the device was decommissioned; only for a gateway that takes [`MessageGroups::DECOMMISSION`]. Sent when the
    /// proof is stored, at each session's start and every 30 s, until a [`Closing`] with [`CloseReason::Decommissioned`].
    Decommissioned(Decommissioned<'a>),
    /// Says why the last message could not be used; never answered.
    Error(ErrorNotice<'a>),
}

/// What a gateway sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GatewayMessage<'a> {
    /// Answers Hello: the session is established.
    Welcome(Welcome),
    /// Answers Hello: no session. The connection ends.
    Reject(Closing<'a>),
    /// Ends an established session.
    Goodbye(Closing<'a>),
    /// Answers each Heartbeat.
    HeartbeatAck(HeartbeatAck),
    /// The whole desired set; legal when empty.
    Desired(Desired<'a>),
    /// Answers AssignmentGet.
    Assignment(Assignment<'a>),
    /// Answers AssignmentGet for a spec hash that is in no set any more.
    AssignmentGone(AssignmentGet),
    /// A piece of the range last asked for.
    ModuleChunk(ModuleChunk<'a>),
    /// Answers ModuleGet: this gateway does not have that module.
    ModuleGone(ModuleGone),
    /// A piece of the chain that a Join asked for, in order.
    Certificate(Certificate<'a>),
    /// How it is with a Join that has no chain yet.
    JoinAnswer(JoinAnswer<'a>),
    /// A controller's order to decommission the device; only for a device that knows [`MessageGroups::DECOMMISSION`]. One that
    /// does not follow it answers with [`ErrorCode::Refused`].
    Decommission(Decommission<'a>),
    /// How far an application's messages need not be kept any more; only for a device that knows [`MessageGroups::MESSAGES`].
    PublishAck(PublishAck),
    /// A message for an application; only for a device that knows [`MessageGroups::DELIVERIES`], and at most
    /// [`DELIVERIES_MAX`](crate::limits::DELIVERIES_MAX) that are not answered yet.
    Deliver(Deliver<'a>),
    /// Values of an application's settings; only for a device that knows [`MessageGroups::SETTINGS`].
    Settings(Settings<'a>),
    /// Says why the last message could not be used; never answered.
    Error(ErrorNotice<'a>),
}

/// Facts about a device, as it states them itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts<'a> {
    /// Board or host type, for example `riscv32-virt` or `linux`.
    pub board: &'a str,
    /// Firmware version, for example `0.1.0`.
    pub firmware: &'a str,
    /// WebAssembly engine with its version, for example `spacewasm 0.7.1`.
    pub engine: &'a str,
    /// Bytes of the applications' arena.
    pub memory_bytes: u64,
    /// Bytes of storage for modules and state.
    pub flash_bytes: u64,
    /// Bytes of arena that a loaded module takes for each 1,000 bytes of its size, linear memory apart.
    pub load_permille: u32,
    /// The largest module accepted, bytes.
    pub module_bytes_max: u32,
    /// How many applications run at once.
    pub applications_max: u8,
    /// Operator groups beyond WebAssembly MVP: the bits of the host interface document.
    pub features: u64,
    /// Host functions, grouped by import module.
    pub imports: List<'a, ImportModule<'a>>,
    /// Capabilities that this device can grant, for example `gpio`.
    pub capabilities: List<'a, &'a str>,
    /// What it can grant by name, ascending; none from older firmware.
    pub peripherals: Option<List<'a, Peripheral<'a>>>,
}

enumeration! {
    /// What a peripheral is.
    PeripheralKind {
        /// An I2C bus.
        I2c = 0,
        /// A UART.
        Uart = 1,
        /// A pin.
        Gpio = 2,
        /// A chip select of an SPI bus.
        Spi = 3,
    }
}

/// A bus or the like, which an assignment grants by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peripheral<'a> {
    /// Its kind and its number: `i2c0`; of a chip select also that: `spi0.1`.
    pub name: &'a str,
    /// What it is.
    pub kind: PeripheralKind,
    /// Whether there is only a program behind it.
    pub is_simulated: bool,
}

/// The host functions under one import module name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImportModule<'a> {
    /// For example `wasi_snapshot_preview1`.
    pub module: &'a str,
    /// Function names, ascending.
    pub functions: List<'a, &'a str>,
}

enumeration! {
    /// Why a device last started.
    ResetReason {
        /// Power was applied, or the process was started.
        PowerOn = 0,
        /// A reset was asked for.
        Requested = 1,
        /// The watchdog was not fed.
        Watchdog = 2,
        /// The firmware panicked.
        Panic = 3,
        /// Not a start: the link was lost and made again.
        Reconnect = 4,
    }
}

/// First frame of a session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hello<'a> {
    /// Facts about the device.
    pub facts: Facts<'a>,
    /// Epoch of the last session, 0 if there was none.
    pub last_epoch: Epoch,
    /// Revision of the desired set held, 0 if none.
    pub revision: Revision,
    /// Why the device last started.
    pub reset_reason: ResetReason,
    /// Detail of the last reset, for example a panic message; at most 256 bytes.
    pub reset_detail: &'a str,
    /// Number of this start, from 1, stored before it was used; none from older firmware or while storage fails.
    pub boot_counter: Option<BootCounter>,
    /// Messages beyond the first ones that it knows: a gateway sends it no others. None from older firmware.
    pub groups: Option<MessageGroups>,
    /// Drawn at this start; none from older firmware.
    pub boot_id: Option<BootId>,
}

/// Sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Counts within the session, from 1.
    pub sequence: Sequence,
    /// Since the device's start, milliseconds.
    pub uptime_ms: u64,
    /// Bytes of the applications' arena in use.
    pub memory_used_bytes: u64,
    /// CPU time of all applications since the device's start, milliseconds.
    pub cpu_ms: u64,
}

enumeration! {
    /// State of one application on one device.
    ApplicationState {
        /// The assignment or the module is not here yet.
        Pulling = 0,
        /// Held and verified, about to be loaded.
        Starting = 1,
        /// It runs.
        Running = 2,
        /// It ended by itself and is not to be started again.
        Completed = 3,
        /// It ended or was ended, and is started again after a pause.
        CrashLoop = 4,
        /// It can't run here: see the reason.
        Failed = 5,
    }
}

enumeration! {
    /// Why an application is in its state.
    ReportReason {
        /// Nothing to say.
        None = 0,
        /// It returned, or called `proc_exit` with 0.
        Exited = 1,
        /// It called `proc_exit` with another code.
        ExitedWithError = 2,
        /// A trap; the message names it.
        Trapped = 3,
        /// More CPU time between two waits than `cpu_time_limit`.
        CpuLimit = 4,
        /// More memory than `memory_limit`.
        MemoryLimit = 5,
        /// Calls nested too deep.
        StackLimit = 6,
        /// The bytes do not hash to the digest.
        DigestMismatch = 7,
        /// Not a module, or not one that this device runs.
        InvalidModule = 8,
        /// An import that this device lacks, or one of another type.
        UnknownImport = 9,
        /// A capability that the assignment does not grant.
        CapabilityDenied = 10,
        /// Not enough memory left on the device.
        OutOfMemory = 11,
        /// Not enough flash left on the device.
        OutOfFlash = 12,
        /// The gateway no longer has the module.
        ModuleGone = 13,
        /// A critical key that this firmware does not know.
        Unsupported = 14,
        /// More applications than the device runs at once.
        TooManyApplications = 15,
        /// Storage failed.
        StorageFailed = 16,
    }
}

/// One application, as it is on the device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ApplicationReport<'a> {
    /// Which application.
    pub uid: ApplicationUid,
    /// The assignment it runs, or tries to.
    pub spec_hash: SpecHash,
    /// Digest of the module that is loaded or was last; absent before the first load.
    pub digest: Option<ModuleDigest>,
    /// Its state.
    pub state: ApplicationState,
    /// Why.
    pub reason: ReportReason,
    /// For people, at most [`REPORT_MESSAGE_BYTES_MAX`](crate::limits::REPORT_MESSAGE_BYTES_MAX).
    pub message: &'a str,
    /// Starts after the first one, of this assignment.
    pub restarts: u32,
    /// Arena bytes in use.
    pub memory_bytes: u64,
    /// CPU time since it was assigned, milliseconds.
    pub cpu_ms: u64,
    /// Of the assignment that led here.
    pub correlation_id: CorrelationId,
}

/// What runs on the device; whole, never a difference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reported<'a> {
    /// Counts reports within the session, from 1.
    pub sequence: Sequence,
    /// The revision of the desired set that the device works to.
    pub revision: Revision,
    /// At most [`APPLICATIONS_MAX`](crate::limits::APPLICATIONS_MAX), and those refused beyond it.
    pub applications: List<'a, ApplicationReport<'a>>,
}

/// Asks for an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignmentGet {
    /// From Desired.
    pub spec_hash: SpecHash,
}

/// Asks for one exact range of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleGet {
    /// Which module.
    pub digest: ModuleDigest,
    /// First byte.
    pub offset: u32,
    /// Bytes, 1 to [`MODULE_RANGE_BYTES_MAX`](crate::limits::MODULE_RANGE_BYTES_MAX).
    pub length: u16,
}

/// One line of an application's log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Log<'a> {
    /// Whose line.
    pub uid: ApplicationUid,
    /// Counts this application's lines, those lost included.
    pub sequence: Sequence,
    /// Lines dropped just before this one.
    pub lines_lost: u32,
    /// At most [`LOG_TEXT_BYTES_MAX`](crate::limits::LOG_TEXT_BYTES_MAX); invalid UTF-8 was replaced.
    pub text: &'a str,
}

enumeration! {
    /// What an application did that ended it.
    TrapKind {
        /// It executed `unreachable`: a panic or an abort in most languages.
        Unreachable = 0,
        /// It divided an integer by zero.
        DivisionByZero = 1,
        /// The result of an integer division does not fit.
        IntegerOverflow = 2,
        /// It converted a float that fits no integer.
        ConversionToInteger = 3,
        /// A load, a store or a bulk operator beyond its linear memory.
        MemoryOutOfBounds = 4,
        /// An indirect call beyond its table.
        UndefinedElement = 5,
        /// Another access beyond a table.
        TableOutOfBounds = 6,
        /// An indirect call of an element that is null.
        UninitializedElement = 7,
        /// An indirect call of a function of another type.
        IndirectCallType = 8,
        /// Calls nested deeper than its call stack holds.
        StackOverflow = 9,
        /// It gave up after `memory.grow` had been refused.
        MemoryLimit = 10,
        /// A host function was given what it can't work with.
        HostCall = 11,
        /// A fault of the sandbox, not of the application.
        Sandbox = 12,
    }
}

/// One function of a stack trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackFrame<'a> {
    /// Its index in the module.
    pub function: u32,
    /// Of the operator that trapped, or of the call: the byte of the module. None if the device had no memory to find it.
    pub offset: Option<u32>,
    /// From the module's name section, at most [`FUNCTION_NAME_BYTES_MAX`](crate::limits::FUNCTION_NAME_BYTES_MAX); empty if
    /// it has none.
    pub name: &'a str,
}

/// Where an application trapped. Sent once for each trap; one that finds no session is replaced by the next of its application.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trap<'a> {
    /// Which application.
    pub uid: ApplicationUid,
    /// The assignment that it ran.
    pub spec_hash: SpecHash,
    /// Starts of that assignment before the run that trapped, after the first one.
    pub restarts: u32,
    /// What it did.
    pub kind: TrapKind,
    /// The function that trapped and its callers, at most [`STACK_FRAMES_MAX`](crate::limits::STACK_FRAMES_MAX).
    pub frames: List<'a, StackFrame<'a>>,
    /// Callers beyond those.
    pub frames_left_out: u32,
}

/// A message that an application published. It is sent again in each session until it is acknowledged; the device, `boot` and
/// `sequence` together tell it from every other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Whose message.
    pub uid: ApplicationUid,
    /// The start of the device in which it was published.
    pub boot: BootCounter,
    /// Counts the messages of all applications since that start: ascending for each application, with gaps.
    pub sequence: Sequence,
    /// Messages of this application that were dropped just before this one.
    pub messages_lost: u32,
    /// One that the application's spec declares.
    pub topic: &'a str,
    /// At most [`PAYLOAD_BYTES_MAX`](crate::limits::PAYLOAD_BYTES_MAX).
    pub payload: &'a [u8],
}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uid, boot, sequence, messages_lost, topic, payload } = self;
        f.debug_struct("Publish")
            .field("uid", uid)
            .field("boot", boot)
            .field("sequence", sequence)
            .field("messages_lost", messages_lost)
            .field("topic", topic)
            .field("payload_bytes", &payload.len())
            .finish()
    }
}

/// Every message of an application up to this one is on the gateway's disk, or was refused by an [`ErrorNotice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishAck {
    /// Whose messages.
    pub uid: ApplicationUid,
    /// The start that they are from.
    pub boot: BootCounter,
    /// Of the last one of them.
    pub sequence: Sequence,
}

enumeration! {
    /// Where a message for an application comes from.
    MessageSource {
        /// Somebody whom the Kubernetes API lets publish.
        Operator = 0,
        /// A broker.
        Broker = 1,
    }
}

/// A message for an application. It is sent once; if the session ends before it is answered, nobody knows whether it arrived.
#[derive(Clone, Copy, PartialEq)]
pub struct Deliver<'a> {
    /// Counts the deliveries of the session.
    pub sequence: Sequence,
    /// Whom it is for.
    pub uid: ApplicationUid,
    /// One that the application's spec declares for what comes in.
    pub topic: &'a str,
    /// At most [`PAYLOAD_BYTES_MAX`](crate::limits::PAYLOAD_BYTES_MAX).
    pub payload: &'a [u8],
    /// Where it comes from.
    pub source: MessageSource,
}

impl fmt::Debug for Deliver<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sequence, uid, topic, payload, source } = self;
        f.debug_struct("Deliver")
            .field("sequence", sequence)
            .field("uid", uid)
            .field("topic", topic)
            .field("payload_bytes", &payload.len())
            .field("source", source)
            .finish()
    }
}

enumeration! {
    /// What became of a message for an application.
    Delivery {
        /// It is in the application's mailbox, where it stays until the application takes it, over restarts too; a reset of the
        /// device or another assignment drops it.
        Taken = 0,
        /// The mailbox has no room for it, or its topic's rate is used up: later it may be taken.
        NoRoom = 1,
        /// The application's spec does not declare that topic for what comes in.
        UnknownTopic = 2,
        /// That application does not run on this device now.
        NotRunning = 3,
    }
}

/// Answers a [`Deliver`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeliverAck {
    /// Of the delivery.
    pub sequence: Sequence,
    /// What became of it.
    pub delivery: Delivery,
}

/// All values of an application's settings that are not their defaults. They change nothing else: the application goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings<'a> {
    /// Of which application.
    pub uid: ApplicationUid,
    /// A lower one than was given since the device's start is refused.
    pub revision: Revision,
    /// The encoding of [`SettingValues`], at most [`SETTINGS_BYTES_MAX`](crate::limits::SETTINGS_BYTES_MAX).
    pub values: &'a [u8],
}

/// Values of settings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SettingValues<'a> {
    /// Names ascending.
    pub settings: List<'a, Setting<'a>>,
}

/// The value of one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting<'a> {
    /// Names it.
    pub name: &'a str,
    /// What it is to be.
    pub value: SettingValue<'a>,
}

enumeration! {
    /// What became of the value of a setting.
    SettingResult {
        /// It is in use, and kept over resets. Without a value the default is in use.
        Accepted = 0,
        /// The module declares no settings.
        NoSchema = 1,
        /// The module declares no setting of that name.
        UnknownSetting = 2,
        /// It is not of the type that the module declares.
        WrongType = 3,
        /// It is less or more than the module allows.
        OutOfRange = 4,
        /// It has more bytes than the module allows.
        TooLong = 5,
    }
}

/// The settings of an application, once its module is loaded: after each change, and at the start of each session. Of a value
/// that was not accepted the one before stays in use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SettingsAnswer<'a> {
    /// Of which application.
    pub uid: ApplicationUid,
    /// Of the values that it was given last; 0 if it was given none since the device's start.
    pub revision: Revision,
    /// Those that the module declares and those that it was given, names ascending.
    pub settings: List<'a, SettingState<'a>>,
}

/// What one setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingState<'a> {
    /// Names it.
    pub name: &'a str,
    /// What became of its value.
    pub result: SettingResult,
    /// The value in use, of a setting that is declared to be reported.
    pub value: Option<SettingValue<'a>>,
}

/// Says why a message could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorNotice<'a> {
    /// What was wrong.
    pub code: ErrorCode,
    /// Tag of the message meant, if it could be read.
    pub tag: Option<u32>,
    /// For people, at most 128 bytes.
    pub detail: &'a str,
}

/// The session is established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Of this session.
    pub epoch: Epoch,
    /// Gateway's clock, milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: u64,
    /// How often to send a heartbeat.
    pub heartbeat_interval_ms: u32,
    /// Silence after which either side gives the session up.
    pub heartbeat_timeout_ms: u32,
    /// Log text that the gateway takes per second, bytes; more is counted as lost by the device.
    pub log_bytes_per_second: u32,
    /// Whether the gateway has a desired set for this device. If not, the device keeps what it runs.
    pub desired_known: bool,
    /// Messages beyond the first ones that it takes; none from older gateways.
    pub groups: Option<MessageGroups>,
}

enumeration! {
    /// Why a session ends or does not begin.
    CloseReason {
        /// Not enrolled: no Device of that name, and the policy is `closed`.
        NotEnrolled = 0,
        /// A Device exists and waits for a person to approve it.
        PendingApproval = 1,
        /// Revoked.
        Revoked = 2,
        /// The certificate's key is not the one in the Device.
        KeyMismatch = 3,
        /// The gateway is full.
        Overloaded = 4,
        /// The gateway stops.
        ShuttingDown = 5,
        /// A newer session of the same device exists.
        Superseded = 6,
        /// The Device was deleted.
        Deleted = 7,
        /// The peer broke the protocol.
        ProtocolError = 8,
        /// Nothing was heard for too long.
        HeartbeatTimeout = 9,
        /// The gateway can't reach the Kubernetes API and knows nothing of this device.
        Unavailable = 10,
        /// Another board with the same identity is connected.
        CloneSuspected = 11,
        /// The Device was decommissioned. To a device that sent its proof it says that the proof was received: the device erases
        /// its key. Any other device takes it as [`CloseReason::Revoked`].
        Decommissioned = 12,
    }
}

/// Ends a session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Closing<'a> {
    /// Why.
    pub reason: CloseReason,
    /// When to try again, milliseconds.
    pub retry_after_ms: u32,
    /// For people, at most 128 bytes.
    pub detail: &'a str,
}

/// Answers a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatAck {
    /// Of the heartbeat.
    pub sequence: Sequence,
    /// Gateway's clock, milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: u64,
}

/// One member of the desired set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesiredApplication {
    /// Which application.
    pub uid: ApplicationUid,
    /// Which assignment it is to run.
    pub spec_hash: SpecHash,
}

/// The whole desired set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Desired<'a> {
    /// Never lower than one seen.
    pub revision: Revision,
    /// At most [`DESIRED_MAX`](crate::limits::DESIRED_MAX).
    pub applications: List<'a, DesiredApplication>,
}

/// Answers AssignmentGet. The device checks that SHA-256 of `spec` is the hash it asked for. The spec may have secrets and is in
/// no debug output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Assignment<'a> {
    /// The hash asked for.
    pub spec_hash: SpecHash,
    /// A deterministic encoding of [`Spec`], at most [`SPEC_BYTES_MAX`](crate::limits::SPEC_BYTES_MAX).
    pub spec: &'a [u8],
    /// Of the change that led here.
    pub correlation_id: CorrelationId,
    /// A signed statement about the module, at most 1,024 bytes; empty if there is none.
    pub envelope: &'a [u8],
}

impl fmt::Debug for Assignment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { spec_hash, spec, correlation_id, envelope } = self;
        f.debug_struct("Assignment")
            .field("spec_hash", spec_hash)
            .field("spec_bytes", &spec.len())
            .field("correlation_id", correlation_id)
            .field("envelope", envelope)
            .finish()
    }
}

enumeration! {
    /// Whether an application is started again after it ended.
    RestartPolicy {
        /// Always.
        Always = 0,
        /// Only after a trap, a limit or an exit code other than 0.
        OnFailure = 1,
        /// Never.
        Never = 2,
    }
}

/// What a device is to run for one application.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec<'a> {
    /// Which application.
    pub uid: ApplicationUid,
    /// For logs: `namespace/name`.
    pub name: &'a str,
    /// Of the module.
    pub digest: ModuleDigest,
    /// Of the module, bytes.
    pub module_bytes: u32,
    /// Linear memory at most, bytes.
    pub memory_limit_bytes: u64,
    /// CPU time between two waits at most, milliseconds.
    pub cpu_limit_ms: u32,
    /// After it ended.
    pub restart_policy: RestartPolicy,
    /// Command line arguments, the program's name not among them.
    pub args: List<'a, &'a str>,
    /// Environment, names ascending.
    pub env: List<'a, EnvVar<'a>>,
    /// Granted capabilities, ascending.
    pub capabilities: List<'a, &'a str>,
    /// There if values of `env` are secret.
    pub values_mac: Option<ValuesMac>,
    /// What it may reach over I2C buses, by name. A critical key: firmware that does not know it refuses the
    /// assignment.
    pub i2c: List<'a, I2cGrant<'a>>,
    /// What it may publish and receive, names ascending.
    pub topics: List<'a, Topic<'a>>,
    /// What it may reach through UARTs, by name. A critical key as well.
    pub uart: List<'a, UartGrant<'a>>,
    /// Pins that it may use, by name; without any it may use all, but none of their edges. A critical key as well.
    pub gpio: List<'a, GpioGrant<'a>>,
    /// Chips that it may talk to over SPI buses, by name. A critical key as well.
    pub spi: List<'a, SpiGrant<'a>>,
}

enumeration! {
    /// Which way the messages of a topic go.
    TopicDirection {
        /// From the application.
        Out = 0,
        /// To the application.
        In = 1,
    }
}

/// A topic that an application declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic<'a> {
    /// 1 to [`NAME_BYTES_MAX`](crate::limits::NAME_BYTES_MAX) bytes.
    pub name: &'a str,
    /// Which way its messages go.
    pub direction: TopicDirection,
    /// Messages of it each second at most.
    pub per_second: u32,
}

/// A share of an I2C bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct I2cGrant<'a> {
    /// Of the bus, as in [`Peripheral::name`].
    pub name: &'a str,
    /// Devices that it may talk to, ascending: 1 to [`I2C_ADDRESSES_MAX`](crate::limits::I2C_ADDRESSES_MAX), each from
    /// [`I2C_ADDRESS_MIN`](crate::limits::I2C_ADDRESS_MIN) to [`I2C_ADDRESS_MAX`](crate::limits::I2C_ADDRESS_MAX).
    pub addresses: &'a [u8],
    /// Bytes on the bus at most, addresses among them, 1 to
    /// [`BUS_BYTES_PER_SECOND_MAX`](crate::limits::BUS_BYTES_PER_SECOND_MAX).
    pub bytes_per_second: u32,
}

/// A UART, with eight data bits, no parity and one stop bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UartGrant<'a> {
    /// Of the UART, as in [`Peripheral::name`].
    pub name: &'a str,
    /// Bits per second, from [`UART_BAUD_MIN`](crate::limits::UART_BAUD_MIN) to [`UART_BAUD_MAX`](crate::limits::UART_BAUD_MAX).
    pub baud: u32,
    /// Bytes that it may send and receive at most, both together, 1 to
    /// [`BUS_BYTES_PER_SECOND_MAX`](crate::limits::BUS_BYTES_PER_SECOND_MAX).
    pub bytes_per_second: u32,
}

/// A pin, and its edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpioGrant<'a> {
    /// Of the pin, as in [`Peripheral::name`].
    pub name: &'a str,
    /// How often each second its edges may end a wait, 1 to [`EDGES_PER_SECOND_MAX`](crate::limits::EDGES_PER_SECOND_MAX).
    pub edges_per_second: u32,
}

/// A chip on an SPI bus, and how it is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpiGrant<'a> {
    /// Of the chip select, as in [`Peripheral::name`].
    pub name: &'a str,
    /// The clock's polarity times two, and its phase: 0 to 3.
    pub mode: u8,
    /// The clock at most, thousands each second, from [`SPI_CLOCK_KHZ_MIN`](crate::limits::SPI_CLOCK_KHZ_MIN) to
    /// [`SPI_CLOCK_KHZ_MAX`](crate::limits::SPI_CLOCK_KHZ_MAX).
    pub clock_khz: u32,
    /// Bytes on the bus at most, each selection among them as one, 1 to
    /// [`BUS_BYTES_PER_SECOND_MAX`](crate::limits::BUS_BYTES_PER_SECOND_MAX).
    pub bytes_per_second: u32,
}

/// One environment variable. Its value may be secret and is in no debug output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EnvVar<'a> {
    /// Name.
    pub name: &'a str,
    /// Value.
    pub value: &'a str,
}

impl fmt::Debug for EnvVar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvVar").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A piece of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleChunk<'a> {
    /// Which module.
    pub digest: ModuleDigest,
    /// Of the first byte.
    pub offset: u32,
    /// The bytes, at most [`CHUNK_BYTES_MAX`](crate::limits::CHUNK_BYTES_MAX).
    pub bytes: &'a [u8],
}

/// This gateway does not have that module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleGone {
    /// Which module.
    pub digest: ModuleDigest,
}

/// Asks for a certificate for a key that the device made itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join<'a> {
    /// A PKCS #10 certification request (RFC 2986), DER, signed by that key. Nothing of it but the key is used.
    pub request: &'a [u8],
    /// Over a [`JoinStatement`]: an ECDSA signature by the factory key (X9.62, DER), or HMAC-SHA-256 under the pairing key. None
    /// until a [`JoinAnswer`] has said which Device it is for, and within a session.
    pub proof: Option<&'a [u8]>,
    /// Id of the pairing token; none with a factory identity, and within a session.
    pub pairing_id: Option<&'a str>,
    /// As in [`Facts::board`], for the person who approves.
    pub board: &'a str,
    /// As in [`Facts::firmware`].
    pub firmware: &'a str,
}

/// What a join proof is over: this key is to be this Device's, and no other's. See
/// [`encode_join_statement`](crate::encode_join_statement).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinStatement<'a> {
    /// Of the `SubjectPublicKeyInfo` in the request.
    pub key: KeyHash,
    /// The fleet's.
    pub trust_domain: &'a str,
    /// The Device's namespace.
    pub namespace: &'a str,
    /// The Device's name.
    pub name: &'a str,
    /// The Device's UID.
    pub device_uid: DeviceUid,
}

enumeration! {
    /// How it is with a Join.
    JoinState {
        /// The Device is known by now, and the proof for it is missing or is for another: send it.
        ProofNeeded = 0,
        /// A person has to approve the Device, or the signer has not issued yet.
        Pending = 1,
        /// It is refused: the detail says why. A later try may do.
        Refused = 2,
    }
}

/// Answers a Join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinAnswer<'a> {
    /// How it is.
    pub state: JoinState,
    /// UID of the Device that it is about; none if it is refused before there is one.
    pub device_uid: Option<DeviceUid>,
    /// The Device's namespace.
    pub namespace: &'a str,
    /// The Device's name.
    pub name: &'a str,
    /// Before the next try, milliseconds; 0 while the gateway will say more by itself.
    pub retry_after_ms: u32,
    /// For people.
    pub detail: &'a str,
}

/// A piece of the chain that was issued: the device's certificate, then the authorities above it but the root, DER, one after
/// the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// Of the whole chain, 1 to [`CHAIN_BYTES_MAX`](crate::limits::CHAIN_BYTES_MAX).
    pub chain_bytes: u32,
    /// Of the first byte.
    pub offset: u32,
    /// The bytes, at most [`CHUNK_BYTES_MAX`](crate::limits::CHUNK_BYTES_MAX).
    pub bytes: &'a [u8],
}

/// A controller's order to decommission the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decommission<'a> {
    /// A COSE_Sign1, see [`wasmbed.cddl`](crate); the device believes nothing of it that it has not verified itself.
    pub order: &'a [u8],
}

/// A device's proof that it was decommissioned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decommissioned<'a> {
    /// A COSE_Sign1 by the device's operational key.
    pub proof: &'a [u8],
}
