//! Properties of the codec over messages and bytes that nobody thought of.

mod accept;
mod vectors;

use proptest::{collection::vec, prelude::*, sample::Index};
use wasmbed_protocol::{limits::*, *};

/// Names in strictly ascending order.
fn peripherals() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::btree_set("[a-z0-9]{1,16}", 0..=PERIPHERALS_MAX)
        .prop_map(|names| names.into_iter().collect())
}

fn names(max: usize) -> impl Strategy<Value = Vec<String>> {
    proptest::collection::btree_set("[ -~é]{0,40}", 0..max).prop_map(|names| names.into_iter().collect())
}

fn borrowed(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn round_trip_device(message: DeviceMessage<'_>) -> Result<(), TestCaseError> {
    let mut out = [0; FRAME_BYTES_MAX];
    let length = encode_device(&message, &mut out).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(frame_length(&out), Ok(Some(length)));
    prop_assert_eq!(decode_device(&out[FRAME_HEAD_BYTES..length]), Ok(message));
    for short in [length - 1, length / 2, 2, 0] {
        prop_assert_eq!(encode_device(&message, &mut out[..short]), Err(EncodeError::BufferTooSmall));
    }
    Ok(())
}

fn round_trip_gateway(message: GatewayMessage<'_>) -> Result<(), TestCaseError> {
    let mut out = [0; FRAME_BYTES_MAX];
    let length =
        encode_gateway(&message, &mut out).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(frame_length(&out), Ok(Some(length)));
    prop_assert_eq!(decode_gateway(&out[FRAME_HEAD_BYTES..length]), Ok(message));
    Ok(())
}

prop_compose! {
    fn report()(
        (uid, spec_hash, digest) in any::<([u8; 16], [u8; 32], Option<[u8; 32]>)>(),
        (state, reason, restarts) in any::<(u32, u32, u32)>(),
        (memory_bytes, cpu_ms, correlation_id) in any::<(u64, u64, [u8; 16])>(),
    ) -> ApplicationReport<'static> {
        ApplicationReport {
            uid: ApplicationUid(uid),
            spec_hash: SpecHash(spec_hash),
            digest: digest.map(ModuleDigest),
            state: ApplicationState::from(state % 8),
            reason: ReportReason::from(reason % 20),
            message: "a message of middling length",
            restarts,
            memory_bytes,
            cpu_ms,
            correlation_id: CorrelationId(correlation_id),
        }
    }
}

proptest! {
    #[test]
    fn hellos_read_back(
        (board, firmware, detail) in ("\\PC{0,12}", "\\PC{0,12}", "\\PC{0,60}"),
        (memory_bytes, flash_bytes, features) in any::<(u64, u64, u64)>(),
        (load_permille, module_bytes_max, applications_max) in any::<(u32, u32, u8)>(),
        (epoch, revision, reason) in any::<(u64, u64, u32)>(),
        (boot_counter, groups, boot_id) in any::<(Option<u64>, Option<u64>, Option<[u8; 8]>)>(),
        (modules, functions, capabilities) in (names(4), names(10), names(CAPABILITIES_MAX)),
        (buses, are_known, kind, is_simulated) in (peripherals(), any::<bool>(), any::<u32>(), any::<bool>()),
    ) {
        let peripherals: Vec<_> =
            buses.iter().map(|name| Peripheral { name, kind: kind.into(), is_simulated }).collect();
        let (functions, capabilities) = (borrowed(&functions), borrowed(&capabilities));
        let imports: Vec<_> = modules
            .iter()
            .map(|module| ImportModule { module, functions: List::new(&functions) })
            .collect();
        round_trip_device(DeviceMessage::Hello(Hello {
            facts: Facts {
                board: &board, firmware: &firmware, engine: "", memory_bytes, flash_bytes, load_permille,
                module_bytes_max, applications_max, features,
                imports: List::new(&imports), capabilities: List::new(&capabilities),
                peripherals: are_known.then(|| List::new(&peripherals)),
            },
            last_epoch: Epoch(epoch),
            revision: Revision(revision),
            reset_reason: ResetReason::from(reason),
            reset_detail: &detail,
            boot_counter: boot_counter.map(BootCounter),
            groups: groups.map(MessageGroups),
            boot_id: boot_id.map(BootId),
        }))?;
    }

    #[test]
    fn reports_read_back(sequence: u64, revision: u64, mut reports in vec(report(), 0..=DESIRED_MAX)) {
        reports.sort_by_key(|report| report.uid);
        reports.dedup_by_key(|report| report.uid);
        round_trip_device(DeviceMessage::Reported(Reported {
            sequence: Sequence(sequence),
            revision: Revision(revision),
            applications: List::new(&reports),
        }))?;
    }

    #[test]
    fn small_messages_of_a_device_read_back(
        (a, b, c, d) in any::<(u64, u64, u64, u64)>(),
        (uid, hash, code, tag) in any::<([u8; 16], [u8; 32], u32, Option<u32>)>(),
        (offset, length) in (0..MODULE_BYTES_MAX, 1..=MODULE_RANGE_BYTES_MAX),
        text in "\\PC{0,30}",
    ) {
        round_trip_device(DeviceMessage::Heartbeat(Heartbeat {
            sequence: Sequence(a), uptime_ms: b, memory_used_bytes: c, cpu_ms: d,
        }))?;
        round_trip_device(DeviceMessage::AssignmentGet(AssignmentGet { spec_hash: SpecHash(hash) }))?;
        round_trip_device(DeviceMessage::ModuleGet(ModuleGet { digest: ModuleDigest(hash), offset, length }))?;
        round_trip_device(DeviceMessage::Log(Log {
            uid: ApplicationUid(uid), sequence: Sequence(a), lines_lost: code, text: &text,
        }))?;
        let named = text.get(..text.floor_char_boundary(FUNCTION_NAME_BYTES_MAX)).unwrap_or_default();
        let frames = [StackFrame { function: code, offset: tag, name: named }; STACK_FRAMES_MAX];
        round_trip_device(DeviceMessage::Trap(Trap {
            uid: ApplicationUid(uid), spec_hash: SpecHash(hash), restarts: offset, kind: TrapKind::from(code),
            frames: List::new(&frames[..usize::from(length) % (STACK_FRAMES_MAX + 1)]), frames_left_out: code,
        }))?;
        let payload = hash.repeat(PAYLOAD_BYTES_MAX / hash.len());
        round_trip_device(DeviceMessage::Publish(Publish {
            uid: ApplicationUid(uid), boot: BootCounter(b), sequence: Sequence(a), messages_lost: code, topic: named,
            payload: &payload[..usize::from(length) % (PAYLOAD_BYTES_MAX + 1)],
        }))?;
        round_trip_device(DeviceMessage::DeliverAck(DeliverAck {
            sequence: Sequence(a), delivery: Delivery::from(code),
        }))?;
        let states = [SettingState {
            name: named, result: SettingResult::from(code), value: tag.map(|tag| SettingValue::Integer(-i64::from(tag))),
        }];
        round_trip_device(DeviceMessage::SettingsAnswer(SettingsAnswer {
            uid: ApplicationUid(uid), revision: Revision(a), settings: List::new(&states),
        }))?;
        let request = hash.repeat(REQUEST_BYTES_MAX / hash.len());
        round_trip_device(DeviceMessage::Join(Join {
            request: &request[..usize::from(length) % (REQUEST_BYTES_MAX + 1)],
            proof: tag.map(|length| &request[..length as usize % (JOIN_PROOF_BYTES_MAX + 1)]),
            pairing_id: tag.map(|_| named.get(..named.floor_char_boundary(PAIRING_ID_BYTES_MAX)).unwrap_or_default()),
            board: named, firmware: named,
        }))?;
        round_trip_device(DeviceMessage::Decommissioned(Decommissioned {
            proof: &request[..usize::from(length) % (DECOMMISSION_PROOF_BYTES_MAX + 1)],
        }))?;
        round_trip_device(DeviceMessage::Error(ErrorNotice { code: ErrorCode::from(code), tag, detail: &text }))?;
    }

    #[test]
    fn messages_of_a_gateway_read_back(
        (epoch, unix_ms, known) in any::<(u64, u64, bool)>(),
        (x, y, z) in any::<(u32, u32, u32)>(),
        (hash, correlation) in any::<([u8; 32], [u8; 16])>(),
        uids in proptest::collection::btree_set(any::<[u8; 16]>(), 0..=DESIRED_MAX),
        (offset, bytes) in (0..MODULE_BYTES_MAX, vec(any::<u8>(), 0..=CHUNK_BYTES_MAX)),
        text in "\\PC{0,30}",
    ) {
        round_trip_gateway(GatewayMessage::Welcome(Welcome {
            epoch: Epoch(epoch), unix_ms, heartbeat_interval_ms: x, heartbeat_timeout_ms: y,
            log_bytes_per_second: z, desired_known: known, groups: known.then_some(MessageGroups(unix_ms)),
        }))?;
        let closing = Closing { reason: CloseReason::from(x), retry_after_ms: y, detail: &text };
        round_trip_gateway(GatewayMessage::Reject(closing))?;
        round_trip_gateway(GatewayMessage::Goodbye(closing))?;
        round_trip_gateway(GatewayMessage::HeartbeatAck(HeartbeatAck { sequence: Sequence(epoch), unix_ms }))?;
        let wanted: Vec<_> = uids
            .into_iter()
            .map(|uid| DesiredApplication { uid: ApplicationUid(uid), spec_hash: SpecHash(hash) })
            .collect();
        round_trip_gateway(GatewayMessage::Desired(Desired {
            revision: Revision(epoch), applications: List::new(&wanted),
        }))?;
        round_trip_gateway(GatewayMessage::Assignment(Assignment {
            spec_hash: SpecHash(hash),
            spec: &bytes[..bytes.len().min(SPEC_BYTES_MAX)],
            correlation_id: CorrelationId(correlation),
            envelope: &bytes[..bytes.len().min(ENVELOPE_BYTES_MAX)],
        }))?;
        round_trip_gateway(GatewayMessage::ModuleChunk(ModuleChunk {
            digest: ModuleDigest(hash), offset, bytes: &bytes,
        }))?;
        round_trip_gateway(GatewayMessage::ModuleGone(ModuleGone { digest: ModuleDigest(hash) }))?;
        round_trip_gateway(GatewayMessage::Certificate(Certificate {
            chain_bytes: 1 + x % CHAIN_BYTES_MAX, offset: offset % CHAIN_BYTES_MAX, bytes: &bytes,
        }))?;
        round_trip_gateway(GatewayMessage::PublishAck(PublishAck {
            uid: ApplicationUid(correlation), boot: BootCounter(epoch), sequence: Sequence(unix_ms),
        }))?;
        round_trip_gateway(GatewayMessage::Deliver(Deliver {
            sequence: Sequence(unix_ms), uid: ApplicationUid(correlation), topic: &text[..0],
            payload: &bytes[..bytes.len().min(PAYLOAD_BYTES_MAX)], source: MessageSource::from(x),
        }))?;
        round_trip_gateway(GatewayMessage::Settings(Settings {
            uid: ApplicationUid(correlation), revision: Revision(epoch),
            values: &bytes[..bytes.len().min(SETTINGS_BYTES_MAX)],
        }))?;
        round_trip_gateway(GatewayMessage::Decommission(Decommission {
            order: &bytes[..bytes.len().min(DECOMMISSION_ORDER_BYTES_MAX)],
        }))?;
        round_trip_gateway(GatewayMessage::JoinAnswer(JoinAnswer {
            state: JoinState::from(x), device_uid: known.then_some(DeviceUid(correlation)), namespace: &text[..0],
            name: &text, retry_after_ms: y, detail: &text,
        }))?;
    }

    #[test]
    fn specs_read_back(
        (uid, digest, policy) in any::<([u8; 16], [u8; 32], u32)>(),
        (memory_limit_bytes, cpu_limit_ms, module_bytes) in (any::<u64>(), any::<u32>(), 1..=MODULE_BYTES_MAX),
        (name, args, mac) in ("\\PC{0,40}", vec("\\PC{0,20}", 0..8), any::<Option<[u8; 16]>>()),
        (variables, capabilities, declared) in (names(8), names(CAPABILITIES_MAX), names(TOPICS_MAX)),
        (buses, is_granted, bytes_per_second) in (peripherals(), any::<bool>(), 1..=BUS_BYTES_PER_SECOND_MAX),
        baud in UART_BAUD_MIN..=UART_BAUD_MAX,
        addresses in proptest::collection::btree_set(I2C_ADDRESS_MIN..=I2C_ADDRESS_MAX, 1..=I2C_ADDRESSES_MAX),
    ) {
        let addresses: Vec<u8> = addresses.into_iter().collect();
        let grants: Vec<_> =
            buses.iter().map(|name| I2cGrant { name, addresses: &addresses, bytes_per_second }).collect();
        let uarts: Vec<_> = buses.iter().map(|name| UartGrant { name, baud, bytes_per_second }).collect();
        let pins: Vec<_> =
            buses.iter().map(|name| GpioGrant { name, edges_per_second: bytes_per_second.min(EDGES_PER_SECOND_MAX) }).collect();
        let chips: Vec<_> = buses.iter().map(|name| SpiGrant { name, mode: policy as u8 % 4, clock_khz: SPI_CLOCK_KHZ_MIN, bytes_per_second }).collect();
        let (args, capabilities) = (borrowed(&args), borrowed(&capabilities));
        let env: Vec<_> = variables.iter().map(|name| EnvVar { name, value: "some value" }).collect();
        let topics: Vec<_> = declared
            .iter()
            .map(|name| Topic { name, direction: TopicDirection::from(policy), per_second: cpu_limit_ms })
            .collect();
        let spec = Spec {
            uid: ApplicationUid(uid), name: &name, digest: ModuleDigest(digest), module_bytes, memory_limit_bytes,
            cpu_limit_ms, restart_policy: RestartPolicy::from(policy), args: List::new(&args), env: List::new(&env),
            capabilities: List::new(&capabilities), values_mac: mac.map(ValuesMac), topics: List::new(&topics),
            i2c: List::new(if is_granted { &grants } else { &[] }), uart: List::new(&uarts),
            gpio: List::new(&pins), spi: List::new(&chips),
        };
        let mut out = [0; SPEC_BYTES_MAX];
        let length = encode_spec(&spec, &mut out).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(decode_spec(&out[..length]), Ok(spec));
    }

    #[test]
    fn setting_values_read_back(
        names in proptest::collection::btree_set("[a-z]{1,5}", 0..=SETTINGS_MAX),
        number: i64,
        flag: bool,
        text in "[ -~]{0,8}",
    ) {
        let values = [SettingValue::Integer(number), SettingValue::Boolean(flag), SettingValue::Text(&text)];
        let named = names.iter().zip(values.iter().cycle());
        let settings: Vec<_> = named.map(|(name, value)| Setting { name, value: *value }).collect();
        let values = SettingValues { settings: List::new(&settings) };
        let mut out = [0; SETTINGS_BYTES_MAX];
        if let Ok(length) = encode_setting_values(&values, &mut out) {
            prop_assert_eq!(decode_setting_values(&out[..length]), Ok(values));
        } else {
            prop_assert!(names.len() > 10, "ten of them fit");
        }
    }

    #[test]
    fn a_stream_gives_the_same_frames_however_it_is_cut(
        bodies in vec(vec(any::<u8>(), 1..40), 0..6),
        cuts in vec(1..30_usize, 1..40),
    ) {
        let mut stream = Vec::new();
        for body in &bodies {
            stream.extend_from_slice(&(body.len() as u16).to_be_bytes());
            stream.extend_from_slice(body);
        }
        let (mut held, mut found, mut rest) = (Vec::new(), Vec::new(), stream.as_slice());
        for cut in cuts.iter().cycle() {
            let (came, later) = rest.split_at((*cut).min(rest.len()));
            held.extend_from_slice(came);
            let mut frames = Frames::new(&held);
            found.extend(frames.by_ref().map(|body| body.map(<[u8]>::to_vec)));
            held.drain(..frames.consumed());
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(found, bodies.into_iter().map(Ok).collect::<Vec<_>>());
        prop_assert!(held.is_empty());
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in vec(any::<u8>(), 0..200)) {
        accept::accept(&bytes);
    }

    #[test]
    fn damaged_messages_are_read_without_harm(
        which: Index,
        damage in vec((any::<Index>(), any::<u8>(), 0..3_u8), 1..4),
    ) {
        let mut all = Vec::new();
        vectors::for_each(|_, vector| all.push(vectors::encode(&vector)));
        let mut bytes = all.swap_remove(which.index(all.len()));
        for (at, value, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = value,
                1 => bytes.insert(at, value),
                _ => bytes.truncate(at.max(1)),
            }
        }
        accept::accept(&bytes);
    }
}
