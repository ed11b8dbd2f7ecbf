//! The rules of the form, one by one, and the largest messages.

use wasmbed_protocol::{limits::*, *};

/// HeartbeatAck, the smallest message, written by hand: {0: 11, 1: 1, 2: 2}.
const ACK: [u8; 7] = [0xa3, 0x00, 0x0b, 0x01, 0x01, 0x02, 0x02];

fn fault(body: &[u8]) -> DecodeFault {
    match decode_gateway(body) {
        Ok(message) => panic!("accepted {body:02x?} as {message:?}"),
        Err(error) => error.fault,
    }
}

#[test]
fn the_smallest_message_is_what_it_seems() {
    let ack = HeartbeatAck { sequence: Sequence(1), unix_ms: 2 };
    assert_eq!(decode_gateway(&ACK), Ok(GatewayMessage::HeartbeatAck(ack)));
}

#[test]
fn only_the_deterministic_form_is_accepted() {
    let cases: [(&str, &[u8]); 9] = [
        ("a tag in two bytes", &[0xa3, 0x00, 0x18, 0x0b, 0x01, 0x01, 0x02, 0x02]),
        ("a value in three bytes", &[0xa3, 0x00, 0x0b, 0x01, 0x19, 0x00, 0x01, 0x02, 0x02]),
        ("a key in two bytes", &[0xa3, 0x00, 0x0b, 0x18, 0x01, 0x01, 0x02, 0x02]),
        ("a map head in two bytes", &[0xb8, 0x03, 0x00, 0x0b, 0x01, 0x01, 0x02, 0x02]),
        ("an indefinite map", &[0xbf, 0x00, 0x0b, 0x01, 0x01, 0x02, 0x02, 0xff]),
        ("keys out of order", &[0xa4, 0x00, 0x0b, 0x02, 0x02, 0x01, 0x01, 0x03, 0x00]),
        ("a key twice", &[0xa4, 0x00, 0x0b, 0x01, 0x01, 0x02, 0x02, 0x02, 0x02]),
        (
            "an unknown key twice",
            &[0xa5, 0x00, 0x0b, 0x01, 0x01, 0x02, 0x02, 0x18, 0x20, 0x00, 0x18, 0x20, 0x00],
        ),
        ("indefinite text in an unknown key", &[0xa4, 0x00, 0x0b, 0x01, 0x01, 0x02, 0x02, 0x03, 0x7f, 0xff]),
    ];
    for (what, body) in cases {
        let fault = fault(body);
        // Keys out of order look like a missing key 1 to a reader that goes forward only.
        assert!(matches!(fault, DecodeFault::NotDeterministic | DecodeFault::Missing), "{what}: {fault:?}");
    }
}

#[test]
fn types_that_the_protocol_never_uses_are_refused_even_in_unknown_keys() {
    let cases: [(&str, &[u8]); 5] = [
        ("a float", &[0xfa, 0, 0, 0, 0]),
        ("a half float", &[0xf9, 0, 0]),
        ("a tag", &[0xc1, 0x00]),
        ("undefined", &[0xf7]),
        ("a simple value", &[0xe0]),
    ];
    for (what, value) in cases {
        let body = [&[0xa4][..], &ACK[1..], &[0x03], value].concat();
        assert_eq!(fault(&body), DecodeFault::WrongType, "{what}");
    }
}

#[test]
fn unknown_keys_are_ignored_and_negative_ones_are_critical() {
    let known = decode_gateway(&ACK);
    let values: [&[u8]; 4] = [
        &[0x00],
        &[0x62, 0x68, 0x69],
        &[0x82, 0x01, 0xa1, 0x20, 0xf6],
        &[0x3b, 255, 255, 255, 255, 255, 255, 255, 255],
    ];
    for value in values {
        let body = [&[0xa4][..], &ACK[1..], &[0x18, 0x20], value].concat();
        assert_eq!(decode_gateway(&body), known, "{value:02x?}");
    }
    let body = [&[0xa4][..], &ACK[1..], &[0x21, 0x00]].concat();
    let error = decode_gateway(&body).unwrap_err();
    assert_eq!(error.fault, DecodeFault::UnknownCritical { key: -2 });
    assert_eq!(
        (error.tag, error.code(), error.is_newer_version()),
        (Some(11), ErrorCode::UnknownCritical, true)
    );
}

#[test]
fn a_critical_key_within_a_spec_refuses_the_spec_alone() {
    let spec = Spec {
        uid: ApplicationUid::default(),
        name: "",
        digest: ModuleDigest::default(),
        module_bytes: 1,
        memory_limit_bytes: 0,
        cpu_limit_ms: 0,
        restart_policy: RestartPolicy::Always,
        args: List::empty(),
        env: List::empty(),
        capabilities: List::empty(),
        values_mac: None,
        i2c: List::empty(),
        uart: List::empty(),
        gpio: List::empty(),
        spi: List::empty(),
        topics: List::empty(),
    };
    let mut out = [0; SPEC_BYTES_MAX];
    let length = encode_spec(&spec, &mut out).unwrap();
    assert_eq!(out[0], 0xaa, "ten entries");
    out[0] = 0xab;
    out[length..length + 2].copy_from_slice(&[0x37, 0xf5]);
    let newer = &out[..length + 2];
    assert_eq!(decode_spec(newer).unwrap_err().fault, DecodeFault::UnknownCritical { key: -24 });
    let assignment = Assignment {
        spec_hash: SpecHash::default(),
        spec: newer,
        correlation_id: CorrelationId::default(),
        envelope: &[],
    };
    let mut frame = [0; FRAME_BYTES_MAX];
    let length = encode_gateway(&GatewayMessage::Assignment(assignment), &mut frame).unwrap();
    assert_eq!(decode_gateway(&frame[2..length]), Ok(GatewayMessage::Assignment(assignment)));
}

/// What an application may reach stands in a critical key: firmware of before it finds an entry that it may not ignore.
#[test]
fn grants_of_buses_are_critical_and_a_spec_without_them_keeps_its_bytes() {
    let plain = Spec {
        uid: ApplicationUid::default(),
        name: "default/app",
        digest: ModuleDigest::default(),
        module_bytes: 1,
        memory_limit_bytes: 0,
        cpu_limit_ms: 0,
        restart_policy: RestartPolicy::Always,
        args: List::empty(),
        env: List::empty(),
        capabilities: List::new(&["i2c"]),
        values_mac: None,
        i2c: List::empty(),
        uart: List::empty(),
        gpio: List::empty(),
        spi: List::empty(),
        topics: List::empty(),
    };
    let (mut without, mut with) = ([0; SPEC_BYTES_MAX], [0; SPEC_BYTES_MAX]);
    let length = encode_spec(&plain, &mut without).unwrap();
    let encode = |addresses, bytes_per_second, out: &mut [u8]| {
        let grants = [I2cGrant { name: "i2c0", addresses, bytes_per_second }];
        encode_spec(&Spec { i2c: List::new(&grants), ..plain }, out)
    };
    let longer = encode(&[0x48], 1_000, &mut with).unwrap();
    assert_eq!((without[0], with[0]), (0xaa, 0xab));
    assert_eq!(without[1..length], with[1..length]);
    // Key -1, a list of one map: 1 name, 2 addresses, 3 bytes per second.
    let grant = [0x20, 0x81, 0xa3, 1, 0x64, b'i', b'2', b'c', b'0', 2, 0x41, 0x48, 3, 0x19, 0x03, 0xe8];
    assert_eq!(with[length..longer], grant);
    with[length] = 0x2f;
    assert_eq!(decode_spec(&with[..longer]).unwrap_err().fault, DecodeFault::UnknownCritical { key: -16 });
    for addresses in [&[][..], &[0x07], &[0x78], &[0x48, 0x48], &[0x49, 0x48], &[0x10; 17]] {
        let error = encode(addresses, 1, &mut with).unwrap_err();
        assert!(matches!(error, EncodeError::Field { field: "addresses", .. }), "{addresses:02x?}: {error}");
    }
    for bytes_per_second in [0, BUS_BYTES_PER_SECOND_MAX + 1] {
        assert!(encode(&[0x48], bytes_per_second, &mut with).is_err(), "{bytes_per_second}");
    }
    // The same by hand, as a peer might send it.
    with[length..longer].copy_from_slice(&grant);
    with[length + 11] = 0x78;
    let fault = decode_spec(&with[..longer]).unwrap_err().fault;
    assert_eq!(fault, DecodeFault::Violation(Violation::OutOfRange { min: 0x08, max: 0x77 }));
}

#[test]
fn grants_of_uarts_are_critical_and_bounded() {
    let encode = |baud, bytes_per_second, out: &mut [u8]| {
        let grants = [UartGrant { name: "uart0", baud, bytes_per_second }];
        let spec = Spec {
            uid: ApplicationUid::default(),
            name: "default/app",
            digest: ModuleDigest::default(),
            module_bytes: 1,
            memory_limit_bytes: 0,
            cpu_limit_ms: 0,
            restart_policy: RestartPolicy::Always,
            args: List::empty(),
            env: List::empty(),
            capabilities: List::empty(),
            values_mac: None,
            i2c: List::empty(),
            uart: List::new(&grants),
            gpio: List::empty(),
            spi: List::empty(),
            topics: List::empty(),
        };
        encode_spec(&spec, out)
    };
    let mut out = [0; SPEC_BYTES_MAX];
    let length = encode(9_600, 1_000, &mut out).unwrap();
    // Key -3, a list of one map: 1 name, 2 bits per second, 3 bytes per second.
    let grant =
        [0x22, 0x81, 0xa3, 1, 0x65, b'u', b'a', b'r', b't', b'0', 2, 0x19, 0x25, 0x80, 3, 0x19, 0x03, 0xe8];
    let at = length - grant.len();
    assert_eq!(out[at..length], grant);
    out[at] = 0x2f;
    assert_eq!(decode_spec(&out[..length]).unwrap_err().fault, DecodeFault::UnknownCritical { key: -16 });
    out[at] = 0x22;
    // 255 bits per second, as a peer might send it.
    out[at + 11..at + 14].copy_from_slice(&[0x19, 0, 0xff]);
    assert!(decode_spec(&out[..length]).is_err());
    for (baud, rate) in
        [(UART_BAUD_MIN - 1, 1), (UART_BAUD_MAX + 1, 1), (9_600, 0), (9_600, BUS_BYTES_PER_SECOND_MAX + 1)]
    {
        assert!(encode(baud, rate, &mut out).is_err(), "{baud} {rate}");
    }
}

#[test]
fn grants_of_pins_are_critical_and_bounded() {
    let encode = |edges_per_second, out: &mut [u8]| {
        let grants = [GpioGrant { name: "gpio2", edges_per_second }];
        let spec = Spec {
            uid: ApplicationUid::default(),
            name: "default/app",
            digest: ModuleDigest::default(),
            module_bytes: 1,
            memory_limit_bytes: 0,
            cpu_limit_ms: 0,
            restart_policy: RestartPolicy::Always,
            args: List::empty(),
            env: List::empty(),
            capabilities: List::empty(),
            values_mac: None,
            i2c: List::empty(),
            uart: List::empty(),
            topics: List::empty(),
            gpio: List::new(&grants),
            spi: List::empty(),
        };
        encode_spec(&spec, out)
    };
    let mut out = [0; SPEC_BYTES_MAX];
    let length = encode(10, &mut out).unwrap();
    // Key -4, a list of one map: 1 name, 2 edges per second.
    let grant = [0x23, 0x81, 0xa2, 1, 0x65, b'g', b'p', b'i', b'o', b'2', 2, 10];
    assert_eq!(out[length - grant.len()..length], grant);
    out[length - 1] = 0;
    assert!(decode_spec(&out[..length]).is_err());
    for edges_per_second in [0, EDGES_PER_SECOND_MAX + 1] {
        assert!(encode(edges_per_second, &mut out).is_err(), "{edges_per_second}");
    }
}

#[test]
fn grants_of_chips_are_critical_and_bounded() {
    let encode = |mode, clock_khz, bytes_per_second, out: &mut [u8]| {
        let grants = [SpiGrant { name: "spi0.1", mode, clock_khz, bytes_per_second }];
        let spec = Spec {
            uid: ApplicationUid::default(),
            name: "default/app",
            digest: ModuleDigest::default(),
            module_bytes: 1,
            memory_limit_bytes: 0,
            cpu_limit_ms: 0,
            restart_policy: RestartPolicy::Always,
            args: List::empty(),
            env: List::empty(),
            capabilities: List::empty(),
            values_mac: None,
            i2c: List::empty(),
            uart: List::empty(),
            topics: List::empty(),
            gpio: List::empty(),
            spi: List::new(&grants),
        };
        encode_spec(&spec, out)
    };
    let mut out = [0; SPEC_BYTES_MAX];
    let length = encode(3, 10, 20, &mut out).unwrap();
    // Key -5, a list of one map: 1 name, 2 mode, 3 clock, 4 bytes per second.
    let grant = [0x24, 0x81, 0xa4, 1, 0x66, b's', b'p', b'i', b'0', b'.', b'1', 2, 3, 3, 10, 4, 20];
    assert_eq!(out[length - grant.len()..length], grant);
    // Below the slowest clock, and beyond the last mode.
    for (from_end, wrong) in [(3, 9), (5, 4)] {
        let kept = std::mem::replace(&mut out[length - from_end], wrong);
        assert!(decode_spec(&out[..length]).is_err());
        out[length - from_end] = kept;
    }
    assert!(decode_spec(&out[..length]).is_ok());
    for (mode, clock_khz, bytes_per_second) in [
        (SPI_MODE_MAX + 1, 1_000, 1),
        (0, SPI_CLOCK_KHZ_MIN - 1, 1),
        (0, SPI_CLOCK_KHZ_MAX + 1, 1),
        (0, 1_000, 0),
        (0, 1_000, BUS_BYTES_PER_SECOND_MAX + 1),
    ] {
        assert!(
            encode(mode, clock_khz, bytes_per_second, &mut out).is_err(),
            "{mode} {clock_khz} {bytes_per_second}"
        );
    }
}

#[test]
fn nesting_is_bounded() {
    let depth = |levels: usize| {
        let mut body = [&[0xa4][..], &ACK[1..], &[0x03]].concat();
        body.resize(body.len() + levels, 0x81);
        body.push(0x00);
        body
    };
    assert!(decode_gateway(&depth(DEPTH_MAX - 1)).is_ok());
    assert_eq!(fault(&depth(DEPTH_MAX)), DecodeFault::TooDeep);
    assert_eq!(fault(&depth(3_000)), DecodeFault::TooDeep);
}

#[test]
fn what_is_cut_short_too_long_or_of_the_other_direction_is_refused() {
    for end in 0..ACK.len() {
        assert_eq!(fault(&ACK[..end]), DecodeFault::NotCbor, "{end} bytes");
    }
    assert_eq!(fault(&[&ACK[..], &[0x00]].concat()), DecodeFault::TrailingBytes);
    assert_eq!(decode_device(&ACK).unwrap_err().fault, DecodeFault::UnknownMessage);
    assert_eq!(fault(&[0xa0]), DecodeFault::Missing);
    assert_eq!(fault(&[0xa1, 0x00, 0x18, 0x63]), DecodeFault::UnknownMessage);
    assert_eq!(fault(&[0xbb, 255, 255, 255, 255, 255, 255, 255, 255]), DecodeFault::NotCbor);
}

#[test]
fn limits_hold_in_both_directions() {
    let mut out = [0; FRAME_BYTES_MAX];
    let long = "x".repeat(DETAIL_BYTES_MAX + 1);
    let notice = ErrorNotice { code: ErrorCode::Malformed, tag: None, detail: &long };
    let violation = Violation::TooLong { max: DETAIL_BYTES_MAX };
    assert_eq!(
        encode_device(&DeviceMessage::Error(notice), &mut out),
        Err(EncodeError::Field { field: "detail", violation })
    );
    let body = [&[0xa3, 0x00, 0x07, 0x01, 0x00, 0x03, 0x78, 129][..], long.as_bytes()].concat();
    let error = decode_device(&body).unwrap_err();
    assert_eq!((error.field, error.fault), (Some("detail"), DecodeFault::Violation(violation)));
    assert_eq!(error.to_string(), "message 7: detail: longer than 128");

    let get = ModuleGet { digest: ModuleDigest::default(), offset: 0, length: 0 };
    let violation = Violation::OutOfRange { min: 1, max: 16_384 };
    assert_eq!(
        encode_device(&DeviceMessage::ModuleGet(get), &mut out),
        Err(EncodeError::Field { field: "length", violation })
    );
    let wanted = [DesiredApplication { uid: ApplicationUid::default(), spec_hash: SpecHash::default() }; 2];
    assert_eq!(
        encode_gateway(
            &GatewayMessage::Desired(Desired { revision: Revision(1), applications: List::new(&wanted) }),
            &mut out
        ),
        Err(EncodeError::Field { field: "applications", violation: Violation::NotAscending })
    );
}

#[test]
fn the_largest_hello_fits_a_frame() {
    let name = |n: usize| format!("{n:02}{}", "é".repeat((NAME_BYTES_MAX - 2) / 2));
    let functions: Vec<String> = (0..52).map(name).collect();
    let functions: Vec<&str> = functions.iter().map(String::as_str).collect();
    let imports = [ImportModule { module: functions[0], functions: List::new(&functions) }];
    let detail = "x".repeat(RESET_DETAIL_BYTES_MAX);
    let longest = "x".repeat(NAME_BYTES_MAX);
    let hello = |firmware| Hello {
        facts: Facts {
            board: functions[0],
            firmware,
            engine: functions[0],
            memory_bytes: u64::MAX,
            flash_bytes: u64::MAX,
            load_permille: u32::MAX,
            module_bytes_max: u32::MAX,
            applications_max: u8::MAX,
            features: u64::MAX,
            imports: List::new(&imports),
            capabilities: List::empty(),
            peripherals: None,
        },
        last_epoch: Epoch(u64::MAX),
        revision: Revision(u64::MAX),
        reset_reason: ResetReason::Unknown(u32::MAX),
        reset_detail: &detail,
        boot_counter: Some(BootCounter(u64::MAX)),
        groups: Some(MessageGroups(u64::MAX)),
        boot_id: Some(BootId([255; 8])),
    };
    let mut out = [0; FRAME_BYTES_MAX];
    let mut largest = 0;
    // The facts grow a byte at a time until their own limit stops them, never the frame's.
    for length in 0..=NAME_BYTES_MAX {
        match encode_device(&DeviceMessage::Hello(hello(&longest[..length])), &mut out) {
            Ok(length) => largest = length,
            Err(error) => {
                assert_eq!(error, EncodeError::TooLarge { max: FACTS_BYTES_MAX });
                assert!(largest > 3_900, "{largest}");
                return;
            }
        }
    }
    panic!("the facts never reached their limit; the frame has {largest} bytes");
}

#[test]
fn the_largest_report_fits_a_frame() {
    let message = "x".repeat(REPORT_MESSAGE_BYTES_MAX);
    let reports: Vec<_> = (0..DESIRED_MAX)
        .map(|n| ApplicationReport {
            uid: ApplicationUid([n as u8; 16]),
            spec_hash: SpecHash([255; 32]),
            digest: Some(ModuleDigest([255; 32])),
            state: ApplicationState::Unknown(u32::MAX),
            reason: ReportReason::Unknown(u32::MAX),
            message: &message,
            restarts: u32::MAX,
            memory_bytes: u64::MAX,
            cpu_ms: u64::MAX,
            correlation_id: CorrelationId([255; 16]),
        })
        .collect();
    let reported = Reported {
        sequence: Sequence(u64::MAX),
        revision: Revision(u64::MAX),
        applications: List::new(&reports),
    };
    let mut out = [0; FRAME_BYTES_MAX];
    let length = encode_device(&DeviceMessage::Reported(reported), &mut out).unwrap();
    assert_eq!(decode_device(&out[2..length]), Ok(DeviceMessage::Reported(reported)));
}

#[test]
fn the_largest_assignment_chunk_and_log_fit_a_frame() {
    let mut out = [0; FRAME_BYTES_MAX];
    let (spec, envelope) = ([0; SPEC_BYTES_MAX], [0; ENVELOPE_BYTES_MAX]);
    let assignment = Assignment {
        spec_hash: SpecHash([255; 32]),
        spec: &spec,
        correlation_id: CorrelationId([255; 16]),
        envelope: &envelope,
    };
    encode_gateway(&GatewayMessage::Assignment(assignment), &mut out).unwrap();
    let bytes = [0; CHUNK_BYTES_MAX];
    let chunk = ModuleChunk { digest: ModuleDigest([255; 32]), offset: MODULE_BYTES_MAX - 1, bytes: &bytes };
    encode_gateway(&GatewayMessage::ModuleChunk(chunk), &mut out).unwrap();
    let text = "x".repeat(LOG_TEXT_BYTES_MAX);
    let log = Log {
        uid: ApplicationUid([255; 16]),
        sequence: Sequence(u64::MAX),
        lines_lost: u32::MAX,
        text: &text,
    };
    encode_device(&DeviceMessage::Log(log), &mut out).unwrap();
}

/// A device of an earlier version takes the spec of an application with secrets: it runs it as one without.
#[test]
fn a_spec_with_secrets_is_read_by_those_who_know_nothing_of_them() {
    let env = [EnvVar { name: "TOKEN", value: "s3cret" }];
    let plain = Spec {
        uid: ApplicationUid::default(),
        name: "default/app",
        digest: ModuleDigest::default(),
        module_bytes: 1,
        memory_limit_bytes: 0,
        cpu_limit_ms: 0,
        restart_policy: RestartPolicy::Always,
        args: List::empty(),
        env: List::new(&env),
        capabilities: List::empty(),
        values_mac: None,
        i2c: List::empty(),
        uart: List::empty(),
        gpio: List::empty(),
        spi: List::empty(),
        topics: List::empty(),
    };
    let (mut without, mut with) = ([0; SPEC_BYTES_MAX], [0; SPEC_BYTES_MAX]);
    let length = encode_spec(&plain, &mut without).unwrap();
    let marked = Spec { values_mac: Some(ValuesMac([7; 16])), ..plain };
    let longer = encode_spec(&marked, &mut with).unwrap();
    // The map's head counts one entry more, and the new one is the last: key 11, 16 bytes.
    assert_eq!((without[0], with[0]), (0xaa, 0xab));
    assert_eq!(without[1..length], with[1..length]);
    assert_eq!(with[length..longer], [&[0x0b, 0x50][..], &[7; 16]].concat());
    // The key is not negative, so whoever does not know it ignores it: here another one of the same form.
    with[length] = 0x17;
    assert_eq!(decode_spec(&with[..longer]), Ok(plain));
    for shown in [format!("{marked:?}"), format!("{:?}", env[0])] {
        assert!(shown.contains("TOKEN") && !shown.contains("s3cret"), "{shown}");
    }
}

#[test]
fn a_spec_is_bounded_as_a_whole() {
    let value = "x".repeat(VALUE_BYTES_MAX);
    let args = [value.as_str(); 3];
    let spec = Spec {
        uid: ApplicationUid::default(),
        name: "",
        digest: ModuleDigest::default(),
        module_bytes: 1,
        memory_limit_bytes: 0,
        cpu_limit_ms: 0,
        restart_policy: RestartPolicy::Always,
        args: List::new(&args),
        env: List::empty(),
        capabilities: List::empty(),
        values_mac: None,
        i2c: List::empty(),
        uart: List::empty(),
        gpio: List::empty(),
        spi: List::empty(),
        topics: List::empty(),
    };
    let mut out = [0; FRAME_BYTES_MAX];
    assert_eq!(encode_spec(&spec, &mut out), Err(EncodeError::TooLarge { max: SPEC_BYTES_MAX }));
    assert!(encode_spec(&Spec { args: List::new(&args[..2]), ..spec }, &mut out).is_ok());
    assert!(decode_spec(&[0; SPEC_BYTES_MAX + 1]).is_err());
}

/// What is signed stands as it is: a factory's proofs of today have to hold tomorrow.
#[test]
fn a_join_statement_is_its_context_and_one_map() {
    let statement = JoinStatement {
        key: KeyHash::of(b"key"),
        trust_domain: "example.org",
        namespace: "plant",
        name: "board-17",
        device_uid: DeviceUid(*b"0123456789abcdef"),
    };
    let mut out = [0; JOIN_STATEMENT_BYTES_MAX];
    let length = encode_join_statement(&statement, &mut out).unwrap();
    let expected = [
        &b"wasmbed-join-1\0\xa5\x01\x58\x20"[..],
        &KeyHash::of(b"key").0,
        b"\x02\x6bexample.org\x03\x65plant\x04\x68board-17\x05\x500123456789abcdef",
    ];
    assert_eq!(out[..length], expected.concat());
    let (trust_domain, namespace, name) = ("t".repeat(255), "n".repeat(63), "d".repeat(253));
    let largest =
        JoinStatement { trust_domain: &trust_domain, namespace: &namespace, name: &name, ..statement };
    assert!(encode_join_statement(&largest, &mut out).is_ok());
}

#[test]
fn values_that_are_too_long_are_no_values() {
    let text = "x".repeat(SETTING_TEXT_BYTES_MAX);
    let names: Vec<String> = (0..4).map(|index| format!("text{index}")).collect();
    let settings: Vec<Setting<'_>> =
        names.iter().map(|name| Setting { name, value: SettingValue::Text(&text) }).collect();
    let mut out = [0; FRAME_BYTES_MAX];
    let of = |settings| SettingValues { settings: List::new(settings) };
    assert_eq!(
        encode_setting_values(&of(&settings), &mut out),
        Err(EncodeError::TooLarge { max: SETTINGS_BYTES_MAX })
    );
    let length = encode_setting_values(&of(&settings[..3]), &mut out).unwrap();
    assert!(decode_setting_values(&out[..length]).is_ok());
    // The same with a fourth: head of the list, then the item once more.
    let item = (length - 3) / 3;
    let mut longer = vec![0xa1, 0x01, 0x84];
    for name in &names {
        let begin = longer.len();
        longer.extend_from_slice(&out[3..3 + item]);
        longer[begin + 3..begin + 8].copy_from_slice(name.as_bytes());
    }
    assert!(longer.len() > SETTINGS_BYTES_MAX);
    assert!(decode_setting_values(&longer).is_err());
    let long = "x".repeat(SETTING_TEXT_BYTES_MAX + 1);
    let one = [Setting { name: "text", value: SettingValue::Text(&long) }];
    assert!(encode_setting_values(&of(&one), &mut out).is_err());
}
