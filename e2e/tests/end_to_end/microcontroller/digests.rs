//! A gateway that was taken over: its certificate is good, but one module's bytes are not those of its digest.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread,
};

use anyhow::{Context, Result, ensure};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use wasmbed_agent::{module_digest, spec_hash};
use wasmbed_e2e::{
    TIMEOUT,
    board::{prepare_with, read_to},
    fixtures,
};
use wasmbed_emulator::{Emulator, Kind};
use wasmbed_pki::{
    Authorities,
    tls::{Profile, roots, server_config},
};
use wasmbed_protocol::{
    ApplicationState, ApplicationUid, Assignment, CorrelationId, Desired, DesiredApplication, DeviceMessage,
    Epoch, Frames, GatewayMessage, HeartbeatAck, List, ModuleChunk, ModuleDigest, ReportReason,
    RestartPolicy, Revision, Spec, Welcome, decode_device, encode_gateway, encode_spec, limits,
};

each_board!(a_module_with_a_wrong_digest_is_refused_and_its_neighbour_runs_on,);

const GOOD: ApplicationUid = ApplicationUid([1; 16]);
const BAD: ApplicationUid = ApplicationUid([2; 16]);
/// 2026-01-01T00:00:00Z in milliseconds.
const NOW_UNIX_MS: u64 = 1_767_225_600_000;

fn a_module_with_a_wrong_digest_is_refused_and_its_neighbour_runs_on(kind: Kind) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let own = Authorities::create_or_open(&dir.path().join("pki"), "wasmbed")?;
    let gateway = own.issue_gateway("wasmbed-system", "gateway", &["10.0.2.2".to_owned()])?;
    let config = server_config(Profile::Device, &gateway, roots([own.devices_root().clone()])?)?;
    let programs = vec![
        Program::new(GOOD, "default/good", fixtures::ticker("good", 500))?,
        Program::new(BAD, "default/bad", fixtures::ticker("bad", 500))?.with_other_bytes(),
    ];
    let (address, reports) = listen(config, programs)?;
    let device = own.issue_device("default", "board")?;
    let root = own.services_root().clone();
    let board = Emulator::start(&prepare_with(kind, dir.path(), &device, &[root], &address.to_string())?)?;
    loop {
        let report = reports.recv_timeout(TIMEOUT).context("the board reports no wrong digest")?;
        if report.uid == BAD {
            ensure!(report.state != ApplicationState::Running, "it runs what it should not: {report:?}");
            if report.reason == ReportReason::DigestMismatch {
                break;
            }
        }
    }
    read_to(&board, "APP default/good: good")?;
    Ok(())
}

/// One application, and the bytes that are sent for its module.
struct Program {
    uid: ApplicationUid,
    digest: ModuleDigest,
    spec: Vec<u8>,
    bytes: Vec<u8>,
}

impl Program {
    fn new(uid: ApplicationUid, name: &str, bytes: Vec<u8>) -> Result<Self> {
        let digest = module_digest(&bytes);
        let spec = Spec {
            uid,
            name,
            digest,
            module_bytes: u32::try_from(bytes.len())?,
            memory_limit_bytes: 65_536,
            cpu_limit_ms: 1_000,
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
        let mut buffer = vec![0; limits::SPEC_BYTES_MAX];
        let length = encode_spec(&spec, &mut buffer).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        buffer.truncate(length);
        Ok(Self { uid, digest, spec: buffer, bytes })
    }

    /// Valid still, of the same length, with another text.
    fn with_other_bytes(mut self) -> Self {
        self.bytes = fixtures::ticker("BAD", 500);
        self
    }
}

/// What a board said of an application.
#[derive(Debug)]
struct Report {
    uid: ApplicationUid,
    state: ApplicationState,
    reason: ReportReason,
}

/// Serves boards until the test program ends, and passes on what they report.
fn listen(config: Arc<ServerConfig>, programs: Vec<Program>) -> Result<(SocketAddr, mpsc::Receiver<Report>)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port")?;
    let address = listener.local_addr()?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for (stream, epoch) in listener.incoming().flatten().zip(1..) {
            // A connection that ends is one that the board will open again.
            let _ = serve(stream, Arc::clone(&config), &programs, Epoch(epoch), &sender);
        }
    });
    Ok((address, receiver))
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    programs: &[Program],
    epoch: Epoch,
    reports: &mpsc::Sender<Report>,
) -> Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    let mut received = Vec::new();
    loop {
        let mut buffer = [0; 4_096];
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "the board ended the connection");
        received.extend_from_slice(&buffer[..read]);
        let mut frames = Frames::new(&received);
        for body in frames.by_ref() {
            let body = body.map_err(|error| anyhow::anyhow!("{error:?}"))?;
            let message = decode_device(body).map_err(|error| anyhow::anyhow!("{error:?}"))?;
            answer(&mut stream, message, programs, epoch, reports)?;
        }
        let consumed = frames.consumed();
        received.drain(..consumed);
    }
}

fn answer(
    stream: &mut impl Write,
    message: DeviceMessage<'_>,
    programs: &[Program],
    epoch: Epoch,
    reports: &mpsc::Sender<Report>,
) -> Result<()> {
    match message {
        DeviceMessage::Hello(_) => {
            send(
                stream,
                &GatewayMessage::Welcome(Welcome {
                    epoch,
                    unix_ms: NOW_UNIX_MS,
                    heartbeat_interval_ms: 10_000,
                    heartbeat_timeout_ms: 30_000,
                    log_bytes_per_second: 4_096,
                    desired_known: true,
                    groups: None,
                }),
            )?;
            let members: Vec<_> = programs
                .iter()
                .map(|program| DesiredApplication { uid: program.uid, spec_hash: spec_hash(&program.spec) })
                .collect();
            let desired = Desired { revision: Revision(1), applications: List::new(&members) };
            send(stream, &GatewayMessage::Desired(desired))
        }
        DeviceMessage::Heartbeat(heartbeat) => {
            let ack = HeartbeatAck { sequence: heartbeat.sequence, unix_ms: NOW_UNIX_MS };
            send(stream, &GatewayMessage::HeartbeatAck(ack))
        }
        DeviceMessage::Reported(reported) => {
            for report in reported.applications.iter() {
                let report = Report { uid: report.uid, state: report.state, reason: report.reason };
                // The test may have seen enough.
                let _ = reports.send(report);
            }
            Ok(())
        }
        DeviceMessage::AssignmentGet(get) => {
            let program = programs.iter().find(|program| spec_hash(&program.spec) == get.spec_hash);
            let assignment = Assignment {
                spec_hash: get.spec_hash,
                spec: &program.context("it asks for what is not there")?.spec,
                correlation_id: CorrelationId([9; 16]),
                envelope: &[],
            };
            send(stream, &GatewayMessage::Assignment(assignment))
        }
        DeviceMessage::ModuleGet(get) => {
            let program = programs.iter().find(|program| program.digest == get.digest);
            let module = &program.context("it asks for what is not there")?.bytes;
            let start = usize::try_from(get.offset)?;
            let range = module.get(start..start + usize::from(get.length)).context("beyond the module")?;
            let mut offset = get.offset;
            for bytes in range.chunks(limits::CHUNK_BYTES_MAX) {
                let chunk = ModuleChunk { digest: get.digest, offset, bytes };
                send(stream, &GatewayMessage::ModuleChunk(chunk))?;
                offset += u32::try_from(bytes.len())?;
            }
            Ok(())
        }
        DeviceMessage::Log(_)
        | DeviceMessage::Trap(_)
        | DeviceMessage::Publish(_)
        | DeviceMessage::SettingsAnswer(_)
        | DeviceMessage::DeliverAck(_)
        | DeviceMessage::Join(_)
        | DeviceMessage::Decommissioned(_)
        | DeviceMessage::Error(_) => Ok(()),
    }
}

fn send(stream: &mut impl Write, message: &GatewayMessage<'_>) -> Result<()> {
    let mut frame = vec![0; limits::FRAME_BYTES_MAX];
    let length = encode_gateway(message, &mut frame).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    stream.write_all(&frame[..length])?;
    Ok(stream.flush()?)
}
