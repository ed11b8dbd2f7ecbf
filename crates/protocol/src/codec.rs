//! The one table of tags, keys and bounds, and the entry points that write and read with it.
//!
//! Each line of a `record!` is `key => field: shape`. Keys and tags never change their meaning; a field added later is
//! [`Optional`]. `wasmbed.cddl` says the same in CDDL, and a test holds the two together.

use minicbor::encode::Encoder;

use crate::{
    error::{DecodeError, DecodeFault, EncodeError},
    field::{
        Bytes, I2cAddresses, ListOf, Nested, NonEmpty, Of, Optional, Record, SettingShape, Shape, Text, Uint,
        WriteItem, Writer, ascending, at_most,
    },
    frame::FRAME_HEAD_BYTES,
    ids::{
        ApplicationUid, BootCounter, BootId, CorrelationId, DeviceUid, Epoch, KeyHash, MessageGroups,
        ModuleDigest, Revision, Sequence, SpecHash, ValuesMac,
    },
    limits::*,
    list::Item,
    message::*,
    reader::{MapReader, Reader},
};

/// Message tags, the value of key 0. One space for both directions; those without a message are reserved.
pub mod tag {
    /// [`Hello`](crate::Hello).
    pub const HELLO: u32 = 1;
    /// [`Heartbeat`](crate::Heartbeat).
    pub const HEARTBEAT: u32 = 2;
    /// [`Reported`](crate::Reported).
    pub const REPORTED: u32 = 3;
    /// [`AssignmentGet`](crate::AssignmentGet).
    pub const ASSIGNMENT_GET: u32 = 4;
    /// [`ModuleGet`](crate::ModuleGet).
    pub const MODULE_GET: u32 = 5;
    /// [`Log`](crate::Log).
    pub const LOG: u32 = 6;
    /// [`ErrorNotice`](crate::ErrorNotice), the one message of both directions.
    pub const ERROR: u32 = 7;
    /// [`Welcome`](crate::Welcome).
    pub const WELCOME: u32 = 8;
    /// [`Closing`](crate::Closing) in answer to Hello.
    pub const REJECT: u32 = 9;
    /// [`Closing`](crate::Closing) of a standing session.
    pub const GOODBYE: u32 = 10;
    /// [`HeartbeatAck`](crate::HeartbeatAck).
    pub const HEARTBEAT_ACK: u32 = 11;
    /// [`Desired`](crate::Desired).
    pub const DESIRED: u32 = 12;
    /// [`Assignment`](crate::Assignment).
    pub const ASSIGNMENT: u32 = 13;
    /// [`AssignmentGet`](crate::AssignmentGet), sent back.
    pub const ASSIGNMENT_GONE: u32 = 14;
    /// [`ModuleChunk`](crate::ModuleChunk).
    pub const MODULE_CHUNK: u32 = 15;
    /// [`ModuleGone`](crate::ModuleGone).
    pub const MODULE_GONE: u32 = 16;
    /// [`Publish`](crate::Publish).
    pub const PUBLISH: u32 = 17;
    /// Reserved.
    pub const LOG_LEVEL: u32 = 18;
    /// [`Certificate`](crate::Certificate).
    pub const CERTIFICATE: u32 = 19;
    /// [`PublishAck`](crate::PublishAck).
    pub const PUBLISH_ACK: u32 = 20;
    /// [`Deliver`](crate::Deliver).
    pub const DELIVER: u32 = 21;
    /// [`DeliverAck`](crate::DeliverAck).
    pub const DELIVER_ACK: u32 = 22;
    /// [`Settings`](crate::Settings).
    pub const SETTINGS: u32 = 23;
    /// [`SettingsAnswer`](crate::SettingsAnswer).
    pub const SETTINGS_ANSWER: u32 = 24;
    /// [`Join`](crate::Join).
    pub const JOIN: u32 = 25;
    /// [`Trap`](crate::Trap).
    pub const TRAP: u32 = 27;
    /// [`Decommission`](crate::Decommission).
    pub const DECOMMISSION: u32 = 28;
    /// [`Decommissioned`](crate::Decommissioned).
    pub const DECOMMISSIONED: u32 = 29;
    /// [`JoinAnswer`](crate::JoinAnswer).
    pub const JOIN_ANSWER: u32 = 33;
}

/// Key of a message's tag.
const TAG_KEY: i32 = 0;

macro_rules! record {
    ($type:ty, $name:ident { $($key:literal => $field:ident: $shape:expr,)+ }) => {
        impl<'a> Record<'a> for $type {
            #[cfg(test)]
            const NAME: &'static str = stringify!($name);

            #[cfg(test)]
            fn cddl_entries() -> std::vec::Vec<crate::cddl::Entry> {
                std::vec![$(crate::cddl::entry::<Self, _>($key, stringify!($field), &$shape, |it| &it.$field)),+]
            }

            fn entries(&self) -> u64 {
                0 $(+ u64::from(Shape::is_present(&$shape, &self.$field)))+
            }

            fn write_entries(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
                $({
                    let shape = $shape;
                    if shape.is_present(&self.$field) {
                        shape.check(&self.$field).map_err(|violation| EncodeError::Field {
                            field: stringify!($field),
                            violation,
                        })?;
                        writer.i32($key)?;
                        shape.write(&self.$field, writer)?;
                    }
                })+
                Ok(())
            }

            fn read_entries(map: &mut MapReader<'_, 'a>) -> Result<Self, DecodeError> {
                $(let $field = {
                    let shape = $shape;
                    let value = map.field($key).and_then(|reader| shape.read(reader));
                    let value = value.map_err(|error| error.within(stringify!($field)))?;
                    shape.check(&value).map_err(|violation| {
                        DecodeError::new(DecodeFault::Violation(violation)).within(stringify!($field))
                    })?;
                    value
                };)+
                Ok($name { $($field),+ })
            }
        }
    };
    (item $type:ty, $name:ident { $($fields:tt)+ }) => {
        record!($type, $name { $($fields)+ });

        impl<'a> WriteItem for $type {
            #[cfg(test)]
            const NAME: &'static str = stringify!($name);

            fn write_item(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
                self.write_map(writer)
            }
        }

        impl<'a> Item<'a> for $type {
            fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                Self::read_map(reader)
            }
        }
    };
}

const NAME: Text = Text { bytes_max: NAME_BYTES_MAX };
const SETTING_NAME: Text = Text { bytes_max: SETTING_NAME_BYTES_MAX };
const PERIPHERAL_NAME: Text = Text { bytes_max: PERIPHERAL_NAME_BYTES_MAX };
const DETAIL: Text = Text { bytes_max: DETAIL_BYTES_MAX };

/// Names, strictly ascending.
const fn names<'a>(items_max: usize) -> ListOf<&'a str> {
    ListOf {
        items_max,
        check: |last, name| {
            at_most(NAME_BYTES_MAX, name.len())?;
            ascending(last, name)
        },
    }
}

record!(item ImportModule<'a>, ImportModule {
    1 => module: NAME,
    2 => functions: names(IMPORT_FUNCTIONS_MAX),
});

record!(Facts<'a>, Facts {
    1 => board: NAME,
    2 => firmware: NAME,
    3 => engine: NAME,
    4 => memory_bytes: Uint::<u64>::ANY,
    5 => flash_bytes: Uint::<u64>::ANY,
    6 => load_permille: Uint::<u32>::ANY,
    7 => module_bytes_max: Uint::<u32>::ANY,
    8 => applications_max: Uint::<u8>::ANY,
    9 => features: Uint::<u64>::ANY,
    10 => imports: ListOf {
        items_max: IMPORT_MODULES_MAX,
        check: |last: Option<&ImportModule<'a>>, import| ascending(last.map(|last| last.module), import.module),
    },
    11 => capabilities: names(CAPABILITIES_MAX),
    12 => peripherals: Optional(ListOf {
        items_max: PERIPHERALS_MAX,
        check: |last: Option<&Peripheral<'a>>, peripheral| ascending(last.map(|last| last.name), peripheral.name),
    }),
});

record!(item Peripheral<'a>, Peripheral {
    1 => name: PERIPHERAL_NAME,
    2 => kind: Of::<PeripheralKind>::ANY,
    3 => is_simulated: Of::<bool>::ANY,
});

record!(Hello<'a>, Hello {
    1 => facts: Nested::at_most(FACTS_BYTES_MAX),
    2 => last_epoch: Of::<Epoch>::ANY,
    3 => revision: Of::<Revision>::ANY,
    4 => reset_reason: Of::<ResetReason>::ANY,
    5 => reset_detail: Text { bytes_max: RESET_DETAIL_BYTES_MAX },
    6 => boot_counter: Optional(Of::<BootCounter>::ANY),
    7 => groups: Optional(Of::<MessageGroups>::ANY),
    8 => boot_id: Optional(Of::<BootId>::ANY),
});

record!(Heartbeat, Heartbeat {
    1 => sequence: Of::<Sequence>::ANY,
    2 => uptime_ms: Uint::<u64>::ANY,
    3 => memory_used_bytes: Uint::<u64>::ANY,
    4 => cpu_ms: Uint::<u64>::ANY,
});

record!(item ApplicationReport<'a>, ApplicationReport {
    1 => uid: Of::<ApplicationUid>::ANY,
    2 => spec_hash: Of::<SpecHash>::ANY,
    3 => digest: Optional(Of::<ModuleDigest>::ANY),
    4 => state: Of::<ApplicationState>::ANY,
    5 => reason: Of::<ReportReason>::ANY,
    6 => message: Text { bytes_max: REPORT_MESSAGE_BYTES_MAX },
    7 => restarts: Uint::<u32>::ANY,
    8 => memory_bytes: Uint::<u64>::ANY,
    9 => cpu_ms: Uint::<u64>::ANY,
    10 => correlation_id: Of::<CorrelationId>::ANY,
});

record!(Reported<'a>, Reported {
    1 => sequence: Of::<Sequence>::ANY,
    2 => revision: Of::<Revision>::ANY,
    3 => applications: ListOf {
        items_max: DESIRED_MAX,
        check: |last: Option<&ApplicationReport<'a>>, report| ascending(last.map(|last| last.uid), report.uid),
    },
});

record!(AssignmentGet, AssignmentGet {
    1 => spec_hash: Of::<SpecHash>::ANY,
});

record!(ModuleGet, ModuleGet {
    1 => digest: Of::<ModuleDigest>::ANY,
    2 => offset: Uint::<u32>::within(0, MODULE_BYTES_MAX - 1),
    3 => length: Uint::<u16>::within(1, MODULE_RANGE_BYTES_MAX),
});

record!(Log<'a>, Log {
    1 => uid: Of::<ApplicationUid>::ANY,
    2 => sequence: Of::<Sequence>::ANY,
    3 => lines_lost: Uint::<u32>::ANY,
    4 => text: Text { bytes_max: LOG_TEXT_BYTES_MAX },
});

record!(item StackFrame<'a>, StackFrame {
    1 => function: Uint::<u32>::ANY,
    2 => offset: Optional(Uint::<u32>::ANY),
    3 => name: Text { bytes_max: FUNCTION_NAME_BYTES_MAX },
});

record!(Trap<'a>, Trap {
    1 => uid: Of::<ApplicationUid>::ANY,
    2 => spec_hash: Of::<SpecHash>::ANY,
    3 => restarts: Uint::<u32>::ANY,
    4 => kind: Of::<TrapKind>::ANY,
    5 => frames: ListOf { items_max: STACK_FRAMES_MAX, check: |_, _| Ok(()) },
    6 => frames_left_out: Uint::<u32>::ANY,
});

record!(Publish<'a>, Publish {
    1 => uid: Of::<ApplicationUid>::ANY,
    2 => boot: Of::<BootCounter>::ANY,
    3 => sequence: Of::<Sequence>::ANY,
    4 => messages_lost: Uint::<u32>::ANY,
    5 => topic: NAME,
    6 => payload: Bytes { bytes_max: PAYLOAD_BYTES_MAX },
});

record!(PublishAck, PublishAck {
    1 => uid: Of::<ApplicationUid>::ANY,
    2 => boot: Of::<BootCounter>::ANY,
    3 => sequence: Of::<Sequence>::ANY,
});

record!(Deliver<'a>, Deliver {
    1 => sequence: Of::<Sequence>::ANY,
    2 => uid: Of::<ApplicationUid>::ANY,
    3 => topic: NAME,
    4 => payload: Bytes { bytes_max: PAYLOAD_BYTES_MAX },
    5 => source: Of::<MessageSource>::ANY,
});

record!(DeliverAck, DeliverAck {
    1 => sequence: Of::<Sequence>::ANY,
    2 => delivery: Of::<Delivery>::ANY,
});

record!(Settings<'a>, Settings {
    1 => uid: Of::<ApplicationUid>::ANY,
    2 => revision: Of::<Revision>::ANY,
    3 => values: Bytes { bytes_max: SETTINGS_BYTES_MAX },
});

record!(SettingValues<'a>, SettingValues {
    1 => settings: ListOf {
        items_max: SETTINGS_MAX,
        check: |last: Option<&Setting<'a>>, setting| ascending(last.map(|last| last.name), setting.name),
    },
});

record!(item Setting<'a>, Setting {
    1 => name: SETTING_NAME,
    2 => value: SettingShape,
});

record!(SettingsAnswer<'a>, SettingsAnswer {
    1 => uid: Of::<ApplicationUid>::ANY,
    2 => revision: Of::<Revision>::ANY,
    3 => settings: ListOf {
        items_max: SETTING_STATES_MAX,
        check: |last: Option<&SettingState<'a>>, state| ascending(last.map(|last| last.name), state.name),
    },
});

record!(item SettingState<'a>, SettingState {
    1 => name: SETTING_NAME,
    2 => result: Of::<SettingResult>::ANY,
    3 => value: Optional(SettingShape),
});

record!(ErrorNotice<'a>, ErrorNotice {
    1 => code: Of::<ErrorCode>::ANY,
    2 => tag: Optional(Uint::<u32>::ANY),
    3 => detail: DETAIL,
});

record!(Welcome, Welcome {
    1 => epoch: Of::<Epoch>::ANY,
    2 => unix_ms: Uint::<u64>::ANY,
    3 => heartbeat_interval_ms: Uint::<u32>::ANY,
    4 => heartbeat_timeout_ms: Uint::<u32>::ANY,
    5 => log_bytes_per_second: Uint::<u32>::ANY,
    6 => desired_known: Of::<bool>::ANY,
    7 => groups: Optional(Of::<MessageGroups>::ANY),
});

record!(Closing<'a>, Closing {
    1 => reason: Of::<CloseReason>::ANY,
    2 => retry_after_ms: Uint::<u32>::ANY,
    3 => detail: DETAIL,
});

record!(HeartbeatAck, HeartbeatAck {
    1 => sequence: Of::<Sequence>::ANY,
    2 => unix_ms: Uint::<u64>::ANY,
});

record!(item DesiredApplication, DesiredApplication {
    1 => uid: Of::<ApplicationUid>::ANY,
    2 => spec_hash: Of::<SpecHash>::ANY,
});

record!(Desired<'a>, Desired {
    1 => revision: Of::<Revision>::ANY,
    2 => applications: ListOf {
        items_max: DESIRED_MAX,
        check: |last: Option<&DesiredApplication>, wanted| ascending(last.map(|last| last.uid), wanted.uid),
    },
});

record!(Assignment<'a>, Assignment {
    1 => spec_hash: Of::<SpecHash>::ANY,
    2 => spec: Bytes { bytes_max: SPEC_BYTES_MAX },
    3 => correlation_id: Of::<CorrelationId>::ANY,
    4 => envelope: Bytes { bytes_max: ENVELOPE_BYTES_MAX },
});

record!(item EnvVar<'a>, EnvVar {
    1 => name: NAME,
    2 => value: Text { bytes_max: VALUE_BYTES_MAX },
});

record!(item Topic<'a>, Topic {
    1 => name: NAME,
    2 => direction: Of::<TopicDirection>::ANY,
    3 => per_second: Uint::<u32>::ANY,
});

record!(Spec<'a>, Spec {
    1 => uid: Of::<ApplicationUid>::ANY,
    2 => name: Text { bytes_max: APPLICATION_NAME_BYTES_MAX },
    3 => digest: Of::<ModuleDigest>::ANY,
    4 => module_bytes: Uint::<u32>::within(1, MODULE_BYTES_MAX),
    5 => memory_limit_bytes: Uint::<u64>::ANY,
    6 => cpu_limit_ms: Uint::<u32>::ANY,
    7 => restart_policy: Of::<RestartPolicy>::ANY,
    8 => args: ListOf {
        items_max: ARGS_MAX,
        check: |_, argument: &&'a str| at_most(VALUE_BYTES_MAX, argument.len()),
    },
    9 => env: ListOf {
        items_max: ENV_MAX,
        check: |last: Option<&EnvVar<'a>>, variable| ascending(last.map(|last| last.name), variable.name),
    },
    10 => capabilities: names(CAPABILITIES_MAX),
    11 => values_mac: Optional(Of::<ValuesMac>::ANY),
    -1 => i2c: NonEmpty(ListOf {
        items_max: PERIPHERALS_MAX,
        check: |last: Option<&I2cGrant<'a>>, grant| ascending(last.map(|last| last.name), grant.name),
    }),
    -2 => topics: NonEmpty(ListOf {
        items_max: TOPICS_MAX,
        check: |last: Option<&Topic<'a>>, topic| ascending(last.map(|last| last.name), topic.name),
    }),
    -3 => uart: NonEmpty(ListOf {
        items_max: PERIPHERALS_MAX,
        check: |last: Option<&UartGrant<'a>>, grant| ascending(last.map(|last| last.name), grant.name),
    }),
    -4 => gpio: NonEmpty(ListOf {
        items_max: PERIPHERALS_MAX,
        check: |last: Option<&GpioGrant<'a>>, grant| ascending(last.map(|last| last.name), grant.name),
    }),
    -5 => spi: NonEmpty(ListOf {
        items_max: PERIPHERALS_MAX,
        check: |last: Option<&SpiGrant<'a>>, grant| ascending(last.map(|last| last.name), grant.name),
    }),
});

record!(item I2cGrant<'a>, I2cGrant {
    1 => name: PERIPHERAL_NAME,
    2 => addresses: I2cAddresses { items_max: I2C_ADDRESSES_MAX },
    3 => bytes_per_second: Uint::<u32>::within(1, BUS_BYTES_PER_SECOND_MAX),
});

record!(item UartGrant<'a>, UartGrant {
    1 => name: PERIPHERAL_NAME,
    2 => baud: Uint::<u32>::within(UART_BAUD_MIN, UART_BAUD_MAX),
    3 => bytes_per_second: Uint::<u32>::within(1, BUS_BYTES_PER_SECOND_MAX),
});

record!(item GpioGrant<'a>, GpioGrant {
    1 => name: PERIPHERAL_NAME,
    2 => edges_per_second: Uint::<u32>::within(1, EDGES_PER_SECOND_MAX),
});

record!(item SpiGrant<'a>, SpiGrant {
    1 => name: PERIPHERAL_NAME,
    2 => mode: Uint::<u8>::within(0, SPI_MODE_MAX),
    3 => clock_khz: Uint::<u32>::within(SPI_CLOCK_KHZ_MIN, SPI_CLOCK_KHZ_MAX),
    4 => bytes_per_second: Uint::<u32>::within(1, BUS_BYTES_PER_SECOND_MAX),
});

record!(ModuleChunk<'a>, ModuleChunk {
    1 => digest: Of::<ModuleDigest>::ANY,
    2 => offset: Uint::<u32>::within(0, MODULE_BYTES_MAX - 1),
    3 => bytes: Bytes { bytes_max: CHUNK_BYTES_MAX },
});

record!(ModuleGone, ModuleGone {
    1 => digest: Of::<ModuleDigest>::ANY,
});

record!(Join<'a>, Join {
    1 => request: Bytes { bytes_max: REQUEST_BYTES_MAX },
    2 => proof: Optional(Bytes { bytes_max: JOIN_PROOF_BYTES_MAX }),
    3 => pairing_id: Optional(Text { bytes_max: PAIRING_ID_BYTES_MAX }),
    4 => board: NAME,
    5 => firmware: NAME,
});

record!(JoinStatement<'a>, JoinStatement {
    1 => key: Of::<KeyHash>::ANY,
    2 => trust_domain: Text { bytes_max: TRUST_DOMAIN_BYTES_MAX },
    3 => namespace: Text { bytes_max: NAMESPACE_BYTES_MAX },
    4 => name: Text { bytes_max: DEVICE_NAME_BYTES_MAX },
    5 => device_uid: Of::<DeviceUid>::ANY,
});

record!(JoinAnswer<'a>, JoinAnswer {
    1 => state: Of::<JoinState>::ANY,
    2 => device_uid: Optional(Of::<DeviceUid>::ANY),
    3 => namespace: Text { bytes_max: NAMESPACE_BYTES_MAX },
    4 => name: Text { bytes_max: DEVICE_NAME_BYTES_MAX },
    5 => retry_after_ms: Uint::<u32>::ANY,
    6 => detail: DETAIL,
});

record!(Certificate<'a>, Certificate {
    1 => chain_bytes: Uint::<u32>::within(1, CHAIN_BYTES_MAX),
    2 => offset: Uint::<u32>::within(0, CHAIN_BYTES_MAX - 1),
    3 => bytes: Bytes { bytes_max: CHUNK_BYTES_MAX },
});

record!(Decommission<'a>, Decommission {
    1 => order: Bytes { bytes_max: DECOMMISSION_ORDER_BYTES_MAX },
});

record!(Decommissioned<'a>, Decommissioned {
    1 => proof: Bytes { bytes_max: DECOMMISSION_PROOF_BYTES_MAX },
});

/// Writes a frame, its two length bytes included, and returns its length.
///
/// # Errors
/// `out` is too short ([`FRAME_BYTES_MAX`] always suffices) or the message breaks a limit.
pub fn encode_device(message: &DeviceMessage<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
    let tag = message.tag();
    match message {
        DeviceMessage::Hello(body) => frame(tag, body, out),
        DeviceMessage::Heartbeat(body) => frame(tag, body, out),
        DeviceMessage::Reported(body) => frame(tag, body, out),
        DeviceMessage::AssignmentGet(body) => frame(tag, body, out),
        DeviceMessage::ModuleGet(body) => frame(tag, body, out),
        DeviceMessage::Log(body) => frame(tag, body, out),
        DeviceMessage::Trap(body) => frame(tag, body, out),
        DeviceMessage::Publish(body) => frame(tag, body, out),
        DeviceMessage::DeliverAck(body) => frame(tag, body, out),
        DeviceMessage::SettingsAnswer(body) => frame(tag, body, out),
        DeviceMessage::Join(body) => frame(tag, body, out),
        DeviceMessage::Decommissioned(body) => frame(tag, body, out),
        DeviceMessage::Error(body) => frame(tag, body, out),
    }
}

/// Writes a frame, its two length bytes included, and returns its length.
///
/// # Errors
/// `out` is too short ([`FRAME_BYTES_MAX`] always suffices) or the message breaks a limit.
pub fn encode_gateway(message: &GatewayMessage<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
    let tag = message.tag();
    match message {
        GatewayMessage::Welcome(body) => frame(tag, body, out),
        GatewayMessage::Reject(body) | GatewayMessage::Goodbye(body) => frame(tag, body, out),
        GatewayMessage::HeartbeatAck(body) => frame(tag, body, out),
        GatewayMessage::Desired(body) => frame(tag, body, out),
        GatewayMessage::Assignment(body) => frame(tag, body, out),
        GatewayMessage::AssignmentGone(body) => frame(tag, body, out),
        GatewayMessage::ModuleChunk(body) => frame(tag, body, out),
        GatewayMessage::ModuleGone(body) => frame(tag, body, out),
        GatewayMessage::Certificate(body) => frame(tag, body, out),
        GatewayMessage::JoinAnswer(body) => frame(tag, body, out),
        GatewayMessage::Decommission(body) => frame(tag, body, out),
        GatewayMessage::PublishAck(body) => frame(tag, body, out),
        GatewayMessage::Deliver(body) => frame(tag, body, out),
        GatewayMessage::Settings(body) => frame(tag, body, out),
        GatewayMessage::Error(body) => frame(tag, body, out),
    }
}

/// Reads what a device sent: a frame's body, without its length bytes.
///
/// # Errors
/// The bytes are not a message of a device. The session may go on only if
/// [`DecodeError::is_newer_version`] says so.
pub fn decode_device(body: &[u8]) -> Result<DeviceMessage<'_>, DecodeError> {
    decode(body, |tag, map| {
        Ok(match tag {
            tag::HELLO => DeviceMessage::Hello(Record::read_entries(map)?),
            tag::HEARTBEAT => DeviceMessage::Heartbeat(Record::read_entries(map)?),
            tag::REPORTED => DeviceMessage::Reported(Record::read_entries(map)?),
            tag::ASSIGNMENT_GET => DeviceMessage::AssignmentGet(Record::read_entries(map)?),
            tag::MODULE_GET => DeviceMessage::ModuleGet(Record::read_entries(map)?),
            tag::LOG => DeviceMessage::Log(Record::read_entries(map)?),
            tag::TRAP => DeviceMessage::Trap(Record::read_entries(map)?),
            tag::PUBLISH => DeviceMessage::Publish(Record::read_entries(map)?),
            tag::DELIVER_ACK => DeviceMessage::DeliverAck(Record::read_entries(map)?),
            tag::SETTINGS_ANSWER => DeviceMessage::SettingsAnswer(Record::read_entries(map)?),
            tag::JOIN => DeviceMessage::Join(Record::read_entries(map)?),
            tag::DECOMMISSIONED => DeviceMessage::Decommissioned(Record::read_entries(map)?),
            tag::ERROR => DeviceMessage::Error(Record::read_entries(map)?),
            _ => return Err(DecodeError::new(DecodeFault::UnknownMessage)),
        })
    })
}

/// Reads what a gateway sent: a frame's body, without its length bytes.
///
/// # Errors
/// The bytes are not a message of a gateway. The session may go on only if
/// [`DecodeError::is_newer_version`] says so.
pub fn decode_gateway(body: &[u8]) -> Result<GatewayMessage<'_>, DecodeError> {
    decode(body, |tag, map| {
        Ok(match tag {
            tag::WELCOME => GatewayMessage::Welcome(Record::read_entries(map)?),
            tag::REJECT => GatewayMessage::Reject(Record::read_entries(map)?),
            tag::GOODBYE => GatewayMessage::Goodbye(Record::read_entries(map)?),
            tag::HEARTBEAT_ACK => GatewayMessage::HeartbeatAck(Record::read_entries(map)?),
            tag::DESIRED => GatewayMessage::Desired(Record::read_entries(map)?),
            tag::ASSIGNMENT => GatewayMessage::Assignment(Record::read_entries(map)?),
            tag::ASSIGNMENT_GONE => GatewayMessage::AssignmentGone(Record::read_entries(map)?),
            tag::MODULE_CHUNK => GatewayMessage::ModuleChunk(Record::read_entries(map)?),
            tag::MODULE_GONE => GatewayMessage::ModuleGone(Record::read_entries(map)?),
            tag::CERTIFICATE => GatewayMessage::Certificate(Record::read_entries(map)?),
            tag::JOIN_ANSWER => GatewayMessage::JoinAnswer(Record::read_entries(map)?),
            tag::DECOMMISSION => GatewayMessage::Decommission(Record::read_entries(map)?),
            tag::PUBLISH_ACK => GatewayMessage::PublishAck(Record::read_entries(map)?),
            tag::DELIVER => GatewayMessage::Deliver(Record::read_entries(map)?),
            tag::SETTINGS => GatewayMessage::Settings(Record::read_entries(map)?),
            tag::ERROR => GatewayMessage::Error(Record::read_entries(map)?),
            _ => return Err(DecodeError::new(DecodeFault::UnknownMessage)),
        })
    })
}

/// Writes a spec, the bytes that its hash is taken over, and returns their length.
///
/// # Errors
/// `out` is too short ([`SPEC_BYTES_MAX`] always suffices) or the spec breaks a limit.
pub fn encode_spec(spec: &Spec<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
    write_bounded(out, SPEC_BYTES_MAX, |writer| spec.write_map(writer))
}

/// Reads the spec of an assignment.
///
/// # Errors
/// The bytes are not a spec that this version can act on; that refuses the assignment, not the session.
pub fn decode_spec(bytes: &[u8]) -> Result<Spec<'_>, DecodeError> {
    at_most(SPEC_BYTES_MAX, bytes.len()).map_err(crate::field::violation)?;
    let mut reader = Reader::new(bytes);
    let spec = Record::read_map(&mut reader)?;
    reader.finish()?;
    Ok(spec)
}

/// Writes the values of an application's settings and returns their length.
///
/// # Errors
/// `out` is too short ([`SETTINGS_BYTES_MAX`] always suffices) or the values break a limit.
pub fn encode_setting_values(values: &SettingValues<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
    write_bounded(out, SETTINGS_BYTES_MAX, |writer| values.write_map(writer))
}

/// Reads the values of an application's settings.
///
/// # Errors
/// The bytes are no values that this version can act on.
pub fn decode_setting_values(bytes: &[u8]) -> Result<SettingValues<'_>, DecodeError> {
    at_most(SETTINGS_BYTES_MAX, bytes.len()).map_err(crate::field::violation)?;
    let mut reader = Reader::new(bytes);
    let values = Record::read_map(&mut reader)?;
    reader.finish()?;
    Ok(values)
}

/// What stands before a join statement in what is signed, so that no signature for anything else passes for a join proof.
const JOIN_CONTEXT: &[u8] = b"wasmbed-join-1\0";

/// Writes what a join proof is over, and returns its length: `wasmbed-join-1`, a zero byte, and the deterministic encoding of
/// the statement.
///
/// # Errors
/// `out` is too short ([`JOIN_STATEMENT_BYTES_MAX`] always suffices) or the statement breaks a limit.
pub fn encode_join_statement(statement: &JoinStatement<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
    let (context, rest) = out.split_at_mut_checked(JOIN_CONTEXT.len()).ok_or(EncodeError::BufferTooSmall)?;
    context.copy_from_slice(JOIN_CONTEXT);
    let bytes_max = JOIN_STATEMENT_BYTES_MAX - JOIN_CONTEXT.len();
    Ok(JOIN_CONTEXT.len() + write_bounded(rest, bytes_max, |writer| statement.write_map(writer))?)
}

impl DeviceMessage<'_> {
    /// The message's tag.
    #[must_use]
    pub const fn tag(&self) -> u32 {
        match self {
            Self::Hello(_) => tag::HELLO,
            Self::Heartbeat(_) => tag::HEARTBEAT,
            Self::Reported(_) => tag::REPORTED,
            Self::AssignmentGet(_) => tag::ASSIGNMENT_GET,
            Self::ModuleGet(_) => tag::MODULE_GET,
            Self::Log(_) => tag::LOG,
            Self::Trap(_) => tag::TRAP,
            Self::Publish(_) => tag::PUBLISH,
            Self::DeliverAck(_) => tag::DELIVER_ACK,
            Self::SettingsAnswer(_) => tag::SETTINGS_ANSWER,
            Self::Join(_) => tag::JOIN,
            Self::Decommissioned(_) => tag::DECOMMISSIONED,
            Self::Error(_) => tag::ERROR,
        }
    }
}

impl GatewayMessage<'_> {
    /// The message's tag.
    #[must_use]
    pub const fn tag(&self) -> u32 {
        match self {
            Self::Welcome(_) => tag::WELCOME,
            Self::Reject(_) => tag::REJECT,
            Self::Goodbye(_) => tag::GOODBYE,
            Self::HeartbeatAck(_) => tag::HEARTBEAT_ACK,
            Self::Desired(_) => tag::DESIRED,
            Self::Assignment(_) => tag::ASSIGNMENT,
            Self::AssignmentGone(_) => tag::ASSIGNMENT_GONE,
            Self::ModuleChunk(_) => tag::MODULE_CHUNK,
            Self::ModuleGone(_) => tag::MODULE_GONE,
            Self::Certificate(_) => tag::CERTIFICATE,
            Self::JoinAnswer(_) => tag::JOIN_ANSWER,
            Self::Decommission(_) => tag::DECOMMISSION,
            Self::PublishAck(_) => tag::PUBLISH_ACK,
            Self::Deliver(_) => tag::DELIVER,
            Self::Settings(_) => tag::SETTINGS,
            Self::Error(_) => tag::ERROR,
        }
    }
}

fn frame<'a>(tag: u32, body: &impl Record<'a>, out: &mut [u8]) -> Result<usize, EncodeError> {
    let (head, rest) = out.split_at_mut_checked(FRAME_HEAD_BYTES).ok_or(EncodeError::BufferTooSmall)?;
    let written = write_bounded(rest, BODY_BYTES_MAX, |writer| {
        writer.map(body.entries() + 1)?.i32(TAG_KEY)?.u32(tag)?;
        body.write_entries(writer)
    })?;
    let length = u16::try_from(written).map_err(|_| EncodeError::TooLarge { max: BODY_BYTES_MAX })?;
    head.copy_from_slice(&length.to_be_bytes());
    Ok(written + FRAME_HEAD_BYTES)
}

/// Writes at most `max` bytes at the start of `out`.
fn write_bounded(
    out: &mut [u8],
    max: usize,
    write: impl FnOnce(&mut Writer<'_>) -> Result<(), EncodeError>,
) -> Result<usize, EncodeError> {
    let room = out.len().min(max);
    let whole = out.len() >= max;
    let mut writer = Encoder::new(&mut out[..room]);
    match write(&mut writer) {
        Ok(()) => Ok(room - writer.writer().len()),
        Err(EncodeError::BufferTooSmall) if whole => Err(EncodeError::TooLarge { max }),
        Err(error) => Err(error),
    }
}

fn decode<'a, M>(
    body: &'a [u8],
    read: impl FnOnce(u32, &mut MapReader<'_, 'a>) -> Result<M, DecodeError>,
) -> Result<M, DecodeError> {
    at_most(BODY_BYTES_MAX, body.len()).map_err(crate::field::violation)?;
    let mut reader = Reader::new(body);
    let mut map = reader.map()?;
    let tag =
        map.field(TAG_KEY).and_then(|tag| Uint::<u32>::ANY.read(tag)).map_err(|error| error.within("tag"))?;
    let message = read(tag, &mut map).and_then(|message| map.finish().map(|()| message));
    let message = match message {
        Ok(message) => reader.finish().map(|()| message),
        // Reading ended where this version knows no more. What follows, and what came before, has to keep the form.
        Err(error) if error.is_newer_version() => {
            let mut whole = Reader::new(body);
            whole.skip().and_then(|()| whole.finish()).and(Err(error))
        }
        Err(error) => Err(error),
    };
    message.map_err(|error| DecodeError { tag: Some(tag), ..error })
}
