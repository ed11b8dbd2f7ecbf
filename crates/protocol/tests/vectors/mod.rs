//! One example of every message, and the largest ones that the limits allow.

use wasmbed_protocol::{limits::*, *};

/// A message in either direction, or a spec.
pub(crate) enum Vector<'a> {
    Device(DeviceMessage<'a>),
    Gateway(GatewayMessage<'a>),
    Spec(Spec<'a>),
    SettingValues(SettingValues<'a>),
}

/// The body: without a frame's length bytes.
pub(crate) fn encode(vector: &Vector<'_>) -> Vec<u8> {
    let mut out = [0; FRAME_BYTES_MAX];
    let (written, head) = match vector {
        Vector::Device(message) => (encode_device(message, &mut out), 2),
        Vector::Gateway(message) => (encode_gateway(message, &mut out), 2),
        Vector::Spec(spec) => (encode_spec(spec, &mut out), 0),
        Vector::SettingValues(values) => (encode_setting_values(values, &mut out), 0),
    };
    let length = written.unwrap_or_else(|error| panic!("{error}"));
    out[head..length].to_vec()
}

const UID: ApplicationUid = ApplicationUid([0x11; 16]);
const UID_2: ApplicationUid = ApplicationUid([0x12; 16]);
const DIGEST: ModuleDigest = ModuleDigest([0x22; 32]);
const HASH: SpecHash = SpecHash([0x33; 32]);
const CORRELATION: CorrelationId = CorrelationId([0x44; 16]);

const REPORT: ApplicationReport<'static> = ApplicationReport {
    uid: UID,
    spec_hash: HASH,
    digest: Some(DIGEST),
    state: ApplicationState::Running,
    reason: ReportReason::None,
    message: "",
    restarts: 2,
    memory_bytes: 90_112,
    cpu_ms: 1_234,
    correlation_id: CORRELATION,
};

/// Calls `each` with every vector and its name.
pub(crate) fn for_each(mut each: impl FnMut(&str, Vector<'_>)) {
    device(|name, message| each(name, Vector::Device(message)));
    gateway(|name, message| each(name, Vector::Gateway(message)));
    let env = [EnvVar { name: "LANG", value: "C" }, EnvVar { name: "RATE", value: "10" }];
    let spec = Spec {
        uid: UID,
        name: "default/thermometer",
        digest: DIGEST,
        module_bytes: 65_536,
        memory_limit_bytes: 131_072,
        cpu_limit_ms: 500,
        restart_policy: RestartPolicy::OnFailure,
        args: List::new(&["--verbose"]),
        env: List::new(&env),
        capabilities: List::new(&["key-value", "sensor"]),
        values_mac: None,
        i2c: List::empty(),
        uart: List::empty(),
        gpio: List::empty(),
        spi: List::empty(),
        topics: List::empty(),
    };
    each("spec", Vector::Spec(spec));
    let bare = Spec { args: List::empty(), env: List::empty(), capabilities: List::empty(), ..spec };
    each("spec_bare", Vector::Spec(bare));
    let mac = [0xe0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    let secret = Spec { values_mac: Some(ValuesMac(mac)), ..spec };
    each("spec_with_secrets", Vector::Spec(secret));
    let grants = [
        I2cGrant { name: "i2c0", addresses: &[0x48, 0x76], bytes_per_second: 2_000 },
        I2cGrant { name: "i2c1", addresses: &[I2C_ADDRESS_MIN], bytes_per_second: 1 },
    ];
    let buses = Spec { i2c: List::new(&grants), ..secret };
    each("spec_with_i2c", Vector::Spec(buses));
    let uarts = [
        UartGrant { name: "uart0", baud: 9_600, bytes_per_second: 1_000 },
        UartGrant { name: "uart1", baud: UART_BAUD_MAX, bytes_per_second: BUS_BYTES_PER_SECOND_MAX },
    ];
    let pins = [
        GpioGrant { name: "gpio10", edges_per_second: 1 },
        GpioGrant { name: "gpio2", edges_per_second: EDGES_PER_SECOND_MAX },
    ];
    each("spec_with_gpio", Vector::Spec(Spec { gpio: List::new(&pins), ..secret }));
    let chips = [
        SpiGrant { name: "spi0.0", mode: 0, clock_khz: SPI_CLOCK_KHZ_MIN, bytes_per_second: 1 },
        SpiGrant {
            name: "spi1.3",
            mode: SPI_MODE_MAX,
            clock_khz: SPI_CLOCK_KHZ_MAX,
            bytes_per_second: BUS_BYTES_PER_SECOND_MAX,
        },
    ];
    each("spec_with_spi", Vector::Spec(Spec { spi: List::new(&chips), ..secret }));
    each("spec_with_uart", Vector::Spec(Spec { uart: List::new(&uarts), ..secret }));
    let topics = [
        Topic { name: "alarm", direction: TopicDirection::Out, per_second: 1 },
        Topic { name: "room/temperature", direction: TopicDirection::Out, per_second: 10 },
    ];
    let both = [Topic { name: "light", direction: TopicDirection::In, per_second: 1 }, topics[1]];
    each("spec_with_a_topic_in", Vector::Spec(Spec { topics: List::new(&both), ..spec }));
    each("spec_with_topics", Vector::Spec(Spec { topics: List::new(&topics), ..spec }));
    let settings = [
        Setting { name: "interval_ms", value: SettingValue::Integer(250) },
        Setting { name: "label", value: SettingValue::Text("kitchen") },
        Setting { name: "offset", value: SettingValue::Integer(i64::MIN) },
        Setting { name: "on", value: SettingValue::Boolean(true) },
    ];
    each("setting_values", Vector::SettingValues(SettingValues { settings: List::new(&settings) }));
    each("setting_values_none", Vector::SettingValues(SettingValues::default()));
}

fn device(mut each: impl FnMut(&str, DeviceMessage<'_>)) {
    let imports = [
        ImportModule { module: "wasi_snapshot_preview1", functions: List::new(&["fd_write", "proc_exit"]) },
        ImportModule { module: "wasmbed", functions: List::new(&["log", "wait"]) },
    ];
    let hello = Hello {
        facts: Facts {
            board: "riscv32-virt",
            firmware: "0.1.0",
            engine: "spacewasm 0.7.1",
            memory_bytes: 393_216,
            flash_bytes: 4_194_304,
            load_permille: 2_500,
            module_bytes_max: 262_144,
            applications_max: 10,
            features: 5,
            imports: List::new(&imports),
            capabilities: List::new(&["gpio", "sensor"]),
            peripherals: None,
        },
        last_epoch: Epoch(6),
        revision: Revision(41),
        reset_reason: ResetReason::Watchdog,
        reset_detail: "the loop stood still for 8 s",
        boot_counter: None,
        groups: None,
        boot_id: None,
    };
    each("hello", DeviceMessage::Hello(hello));
    let boot_id = Some(BootId(*b"\x01\x23\x45\x67\x89\xab\xcd\xef"));
    each(
        "hello_of_a_counted_start",
        DeviceMessage::Hello(Hello { boot_counter: Some(BootCounter(17)), boot_id, ..hello }),
    );
    each("hello_of_an_uncounted_start", DeviceMessage::Hello(Hello { boot_id, ..hello }));
    let groups = Some(MessageGroups(7));
    each("hello_with_groups", DeviceMessage::Hello(Hello { groups, boot_id, ..hello }));
    let peripherals = [
        Peripheral { name: "i2c0", kind: PeripheralKind::I2c, is_simulated: false },
        Peripheral { name: "i2c1", kind: PeripheralKind::I2c, is_simulated: true },
    ];
    let facts = Facts { peripherals: Some(List::new(&peripherals)), ..hello.facts };
    each("hello_with_peripherals", DeviceMessage::Hello(Hello { facts, groups, boot_id, ..hello }));
    let pins = [
        Peripheral { name: "gpio0", kind: PeripheralKind::Gpio, is_simulated: true },
        Peripheral { name: "gpio10", kind: PeripheralKind::Gpio, is_simulated: false },
    ];
    let facts = Facts { peripherals: Some(List::new(&pins)), ..hello.facts };
    each("hello_with_pins", DeviceMessage::Hello(Hello { facts, groups, boot_id, ..hello }));
    let chips = [Peripheral { name: "spi0.0", kind: PeripheralKind::Spi, is_simulated: false }];
    let facts = Facts { peripherals: Some(List::new(&chips)), ..hello.facts };
    each("hello_with_chip_selects", DeviceMessage::Hello(Hello { facts, groups, boot_id, ..hello }));
    let facts = Facts { peripherals: Some(List::empty()), ..hello.facts };
    each("hello_without_peripherals", DeviceMessage::Hello(Hello { facts, groups, boot_id, ..hello }));
    each(
        "heartbeat",
        DeviceMessage::Heartbeat(Heartbeat {
            sequence: Sequence(24),
            uptime_ms: 3_600_000,
            memory_used_bytes: 256,
            cpu_ms: 65_536,
        }),
    );
    let failed = ApplicationReport {
        uid: UID_2,
        digest: None,
        state: ApplicationState::Failed,
        reason: ReportReason::UnknownImport,
        message: "env.abort is not a function of this device",
        ..REPORT
    };
    each(
        "reported",
        DeviceMessage::Reported(Reported {
            sequence: Sequence(3),
            revision: Revision(42),
            applications: List::new(&[REPORT, failed]),
        }),
    );
    each(
        "reported_empty",
        DeviceMessage::Reported(Reported {
            sequence: Sequence(1),
            revision: Revision(0),
            applications: List::empty(),
        }),
    );
    each("assignment_get", DeviceMessage::AssignmentGet(AssignmentGet { spec_hash: HASH }));
    each(
        "module_get",
        DeviceMessage::ModuleGet(ModuleGet { digest: DIGEST, offset: 16_384, length: 16_384 }),
    );
    each("log", DeviceMessage::Log(Log { uid: UID, sequence: Sequence(7), lines_lost: 1, text: "21.5 °C" }));
    let frames = [
        StackFrame { function: 12, offset: Some(0x1a3), name: "sensor::read" },
        StackFrame { function: 3, offset: None, name: "" },
    ];
    let trap = Trap {
        uid: UID,
        spec_hash: HASH,
        restarts: 2,
        kind: TrapKind::MemoryOutOfBounds,
        frames: List::new(&frames),
        frames_left_out: 0,
    };
    each("trap", DeviceMessage::Trap(trap));
    let name = "x".repeat(FUNCTION_NAME_BYTES_MAX);
    let frames = [StackFrame { function: u32::MAX, offset: Some(u32::MAX), name: &name }; STACK_FRAMES_MAX];
    each(
        "trap_largest",
        DeviceMessage::Trap(Trap {
            kind: TrapKind::Unknown(4_000_000),
            restarts: u32::MAX,
            frames: List::new(&frames),
            frames_left_out: u32::MAX,
            ..trap
        }),
    );
    let publish = Publish {
        uid: UID,
        boot: BootCounter(17),
        sequence: Sequence(300),
        messages_lost: 0,
        topic: "room/temperature",
        payload: b"21.5",
    };
    each("publish", DeviceMessage::Publish(publish));
    let delivery = Delivery::NoRoom;
    each("deliver_ack", DeviceMessage::DeliverAck(DeliverAck { sequence: Sequence(3), delivery }));
    settings_answers(&mut each);
    let topic = "x".repeat(NAME_BYTES_MAX);
    each(
        "publish_largest",
        DeviceMessage::Publish(Publish {
            boot: BootCounter(u64::MAX),
            sequence: Sequence(u64::MAX),
            messages_lost: u32::MAX,
            topic: &topic,
            payload: &[0xff; PAYLOAD_BYTES_MAX],
            ..publish
        }),
    );
    let join = Join {
        request: &[0x30, 0x00],
        proof: None,
        pairing_id: None,
        board: "riscv32-virt",
        firmware: "0.1.0",
    };
    each("join", DeviceMessage::Join(join));
    each("join_with_proof", DeviceMessage::Join(Join { proof: Some(&[0x30, 0x01]), ..join }));
    each(
        "join_by_pairing",
        DeviceMessage::Join(Join { proof: Some(&[7; 32]), pairing_id: Some("k7m2qa"), ..join }),
    );
    let (request, proof) = ([0x30; REQUEST_BYTES_MAX], [7; JOIN_PROOF_BYTES_MAX]);
    let (id, name) = ("x".repeat(PAIRING_ID_BYTES_MAX), "x".repeat(NAME_BYTES_MAX));
    each(
        "join_largest",
        DeviceMessage::Join(Join {
            request: &request,
            proof: Some(&proof),
            pairing_id: Some(&id),
            board: &name,
            firmware: &name,
        }),
    );
    each("decommissioned", DeviceMessage::Decommissioned(Decommissioned { proof: &[0xd2, 0x84] }));
    let proof = [0xd2; DECOMMISSION_PROOF_BYTES_MAX];
    each("decommissioned_largest", DeviceMessage::Decommissioned(Decommissioned { proof: &proof }));
    each(
        "refused_order",
        DeviceMessage::Error(ErrorNotice {
            code: ErrorCode::Refused,
            tag: Some(tag::DECOMMISSION),
            detail: "the order is for another device",
        }),
    );
    each(
        "error_from_device",
        DeviceMessage::Error(ErrorNotice {
            code: ErrorCode::Stale,
            tag: Some(tag::DESIRED),
            detail: "41 < 42",
        }),
    );
}

fn settings_answers(each: &mut impl FnMut(&str, DeviceMessage<'_>)) {
    let states = [
        SettingState {
            name: "interval_ms",
            result: SettingResult::OutOfRange,
            value: Some(SettingValue::Integer(1_000)),
        },
        SettingState { name: "label", result: SettingResult::Accepted, value: None },
    ];
    let answer = SettingsAnswer { uid: UID, revision: Revision(5), settings: List::new(&states) };
    each("settings_answer", DeviceMessage::SettingsAnswer(answer));
    let names: Vec<String> = (0..SETTING_STATES_MAX)
        .map(|index| format!("{index:0>width$}", width = SETTING_NAME_BYTES_MAX))
        .collect();
    let text = "x".repeat(SETTING_TEXT_BYTES_MAX);
    let largest: Vec<SettingState<'_>> = names
        .iter()
        .map(|name| SettingState {
            name,
            result: SettingResult::Unknown(u32::MAX),
            value: Some(SettingValue::Text(&text)),
        })
        .collect();
    let revision = Revision(u64::MAX);
    let answer = SettingsAnswer { revision, settings: List::new(&largest), ..answer };
    each("settings_answer_largest", DeviceMessage::SettingsAnswer(answer));
}

fn gateway(mut each: impl FnMut(&str, GatewayMessage<'_>)) {
    let welcome = Welcome {
        epoch: Epoch(7),
        unix_ms: 1_780_000_000_000,
        heartbeat_interval_ms: 10_000,
        heartbeat_timeout_ms: 30_000,
        log_bytes_per_second: 4_096,
        desired_known: true,
        groups: None,
    };
    each("welcome", GatewayMessage::Welcome(welcome));
    each(
        "welcome_with_groups",
        GatewayMessage::Welcome(Welcome { groups: Some(MessageGroups::TRAPS), ..welcome }),
    );
    let closing =
        Closing { reason: CloseReason::PendingApproval, retry_after_ms: 30_000, detail: "not approved" };
    each("reject", GatewayMessage::Reject(closing));
    each(
        "goodbye",
        GatewayMessage::Goodbye(Closing { reason: CloseReason::Unknown(4_000_000), detail: "", ..closing }),
    );
    let clone =
        Closing { reason: CloseReason::CloneSuspected, retry_after_ms: 15_000, detail: "another board" };
    each("reject_of_a_clone", GatewayMessage::Reject(clone));
    let decommissioned = Closing { reason: CloseReason::Decommissioned, retry_after_ms: 0, detail: "" };
    each("goodbye_of_a_decommissioned_device", GatewayMessage::Goodbye(decommissioned));
    each(
        "publish_ack",
        GatewayMessage::PublishAck(PublishAck { uid: UID, boot: BootCounter(17), sequence: Sequence(300) }),
    );
    let deliver = Deliver {
        sequence: Sequence(3),
        uid: UID,
        topic: "light",
        payload: b"on",
        source: MessageSource::Operator,
    };
    each("deliver", GatewayMessage::Deliver(deliver));
    let values = [0xa1, 0x01, 0x81, 0xa2, 0x01, 0x62, b'o', b'n', 0x02, 0xf5];
    each("settings", GatewayMessage::Settings(Settings { uid: UID, revision: Revision(5), values: &values }));
    let topic = "x".repeat(NAME_BYTES_MAX);
    let payload = [0xff; PAYLOAD_BYTES_MAX];
    let sequence = Sequence(u64::MAX);
    let source = MessageSource::Broker;
    each(
        "deliver_largest",
        GatewayMessage::Deliver(Deliver { sequence, topic: &topic, payload: &payload, source, ..deliver }),
    );
    each(
        "heartbeat_ack",
        GatewayMessage::HeartbeatAck(HeartbeatAck { sequence: Sequence(24), unix_ms: 1_780_000_000_000 }),
    );
    let wanted = [
        DesiredApplication { uid: UID, spec_hash: HASH },
        DesiredApplication { uid: UID_2, spec_hash: HASH },
    ];
    each(
        "desired",
        GatewayMessage::Desired(Desired { revision: Revision(42), applications: List::new(&wanted) }),
    );
    each(
        "desired_empty",
        GatewayMessage::Desired(Desired { revision: Revision(43), applications: List::empty() }),
    );
    each(
        "assignment",
        GatewayMessage::Assignment(Assignment {
            spec_hash: HASH,
            spec: &[0xa0],
            correlation_id: CORRELATION,
            envelope: &[],
        }),
    );
    each("assignment_gone", GatewayMessage::AssignmentGone(AssignmentGet { spec_hash: HASH }));
    each(
        "module_chunk",
        GatewayMessage::ModuleChunk(ModuleChunk { digest: DIGEST, offset: 0, bytes: b"\0asm\x01\0\0\0" }),
    );
    each("module_gone", GatewayMessage::ModuleGone(ModuleGone { digest: DIGEST }));
    each(
        "certificate",
        GatewayMessage::Certificate(Certificate { chain_bytes: 1_120, offset: 0, bytes: &[0x30, 0x82] }),
    );
    let answer = JoinAnswer {
        state: JoinState::ProofNeeded,
        device_uid: Some(DeviceUid(UID.0)),
        namespace: "plant",
        name: "board-17",
        retry_after_ms: 0,
        detail: "",
    };
    each("join_answer", GatewayMessage::JoinAnswer(answer));
    let refused = JoinState::Refused;
    let detail = "no Device has this token";
    each(
        "join_answer_refused",
        GatewayMessage::JoinAnswer(JoinAnswer {
            state: refused,
            device_uid: None,
            namespace: "",
            name: "",
            retry_after_ms: 60_000,
            detail,
        }),
    );
    each("decommission", GatewayMessage::Decommission(Decommission { order: &[0xd2, 0x84] }));
    let order = [0xd2; DECOMMISSION_ORDER_BYTES_MAX];
    each("decommission_largest", GatewayMessage::Decommission(Decommission { order: &order }));
    each(
        "error_from_gateway",
        GatewayMessage::Error(ErrorNotice { code: ErrorCode::Malformed, tag: None, detail: "not CBOR" }),
    );
}
