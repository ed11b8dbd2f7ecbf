//! A gateway for one session after the other, as far as a device needs one: it knows one set and one module.

#![cfg(test)]

use sha2::{Digest as _, Sha256};
use wasmbed_protocol::{
    ApplicationState, ApplicationUid, Assignment, AssignmentGet, CloseReason, Closing, CorrelationId,
    Decommission, Desired, DesiredApplication, DeviceMessage, Epoch, Frames, GatewayMessage, HeartbeatAck,
    List, MessageGroups, ModuleChunk, ModuleDigest, ModuleGone, RestartPolicy, Revision, Spec, SpecHash,
    UartGrant, Welcome, decode_device, encode_gateway, encode_spec,
    limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX, SPEC_BYTES_MAX},
};

/// What is to run.
pub(crate) struct Wanted {
    pub(crate) uid: ApplicationUid,
    spec: Vec<u8>,
    pub(crate) spec_hash: SpecHash,
    pub(crate) digest: ModuleDigest,
    module: Vec<u8>,
}

impl Wanted {
    pub(crate) fn new(module: Vec<u8>, capabilities: &[&str]) -> Self {
        Self::granted(module, capabilities, &[])
    }

    /// An application that has UARTs.
    pub(crate) fn granted(module: Vec<u8>, capabilities: &[&str], uart: &[UartGrant<'_>]) -> Self {
        let (uid, digest) = (ApplicationUid([7; 16]), ModuleDigest(Sha256::digest(&module).into()));
        let spec = Spec {
            uid,
            name: "default/tested",
            digest,
            module_bytes: module.len() as u32,
            memory_limit_bytes: 65_536,
            cpu_limit_ms: 1_000,
            restart_policy: RestartPolicy::Always,
            args: List::empty(),
            env: List::empty(),
            capabilities: List::new(capabilities),
            values_mac: None,
            i2c: List::empty(),
            uart: List::new(uart),
            gpio: List::empty(),
            spi: List::empty(),
            topics: List::empty(),
        };
        let mut bytes = [0; SPEC_BYTES_MAX];
        let length = encode_spec(&spec, &mut bytes).unwrap();
        let spec = bytes[..length].to_vec();
        Self { uid, spec_hash: SpecHash(Sha256::digest(&spec).into()), spec, digest, module }
    }
}

/// What a device last reported of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) revision: Revision,
    pub(crate) state: Option<ApplicationState>,
    pub(crate) digest: Option<ModuleDigest>,
    pub(crate) message: String,
}

/// The gateway's side of a session.
pub(crate) struct ScriptedGateway<'a> {
    wanted: &'a Wanted,
    revision: Revision,
    epoch: Epoch,
    received: Vec<u8>,
    pub(crate) seen: Option<Seen>,
    pub(crate) module_gets: usize,
    pub(crate) lines: Vec<String>,
    /// An order, which is sent once the application runs and at each session's start after that.
    pub(crate) order: Option<&'a [u8]>,
    has_ordered: bool,
    /// The proof that came last. With it the session ends.
    pub(crate) proof: Option<Vec<u8>>,
    /// Why the order was refused.
    pub(crate) refusal: Option<String>,
}

impl<'a> ScriptedGateway<'a> {
    pub(crate) fn new(wanted: &'a Wanted, revision: u64, epoch: u64) -> Self {
        Self {
            wanted,
            revision: Revision(revision),
            epoch: Epoch(epoch),
            received: Vec::new(),
            seen: None,
            module_gets: 0,
            lines: Vec::new(),
            order: None,
            has_ordered: false,
            proof: None,
            refusal: None,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| {
            seen.state == Some(ApplicationState::Running) && seen.digest == Some(self.wanted.digest)
        })
    }

    /// Takes bytes from the device and gives those for it.
    pub(crate) fn handle(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut received = std::mem::take(&mut self.received);
        received.extend_from_slice(bytes);
        let mut frames = Frames::new(&received);
        for body in frames.by_ref() {
            self.answer(decode_device(body.unwrap()).unwrap(), &mut out);
        }
        self.received = received.split_off(frames.consumed());
        if let Some(order) = self.order.filter(|_| !self.has_ordered && self.is_running()) {
            self.has_ordered = true;
            send(&mut out, &GatewayMessage::Decommission(Decommission { order }));
        }
        out
    }

    fn answer(&mut self, message: DeviceMessage<'_>, out: &mut Vec<u8>) {
        let wanted = self.wanted;
        match message {
            DeviceMessage::Hello(hello) => {
                assert!(hello.last_epoch < self.epoch, "the device has seen {}", hello.last_epoch);
                let welcome = Welcome {
                    epoch: self.epoch,
                    unix_ms: 1_780_000_000_000,
                    heartbeat_interval_ms: 10_000,
                    heartbeat_timeout_ms: 30_000,
                    log_bytes_per_second: 4_096,
                    desired_known: true,
                    groups: self.order.map(|_| MessageGroups::DECOMMISSION),
                };
                send(out, &GatewayMessage::Welcome(welcome));
                let applications = [DesiredApplication { uid: wanted.uid, spec_hash: wanted.spec_hash }];
                let desired = Desired { revision: self.revision, applications: List::new(&applications) };
                send(out, &GatewayMessage::Desired(desired));
            }
            DeviceMessage::Heartbeat(heartbeat) => {
                let ack = HeartbeatAck { sequence: heartbeat.sequence, unix_ms: 1_780_000_000_000 };
                send(out, &GatewayMessage::HeartbeatAck(ack));
            }
            DeviceMessage::Reported(reported) => {
                let application = reported.applications.iter().find(|report| report.uid == wanted.uid);
                self.seen = Some(Seen {
                    revision: reported.revision,
                    state: application.map(|report| report.state),
                    digest: application.and_then(|report| report.digest),
                    message: application.map(|report| report.message.to_owned()).unwrap_or_default(),
                });
            }
            DeviceMessage::AssignmentGet(get) if get.spec_hash == wanted.spec_hash => {
                let (spec_hash, spec) = (get.spec_hash, wanted.spec.as_slice());
                let correlation_id = CorrelationId([9; 16]);
                let assignment = Assignment { spec_hash, spec, correlation_id, envelope: &[] };
                send(out, &GatewayMessage::Assignment(assignment));
            }
            DeviceMessage::AssignmentGet(AssignmentGet { spec_hash }) => {
                send(out, &GatewayMessage::AssignmentGone(AssignmentGet { spec_hash }));
            }
            DeviceMessage::ModuleGet(get) if get.digest == wanted.digest => {
                self.module_gets += 1;
                let start = get.offset as usize;
                let range = &wanted.module[start..start + usize::from(get.length)];
                let mut offset = get.offset;
                for bytes in range.chunks(CHUNK_BYTES_MAX) {
                    send(
                        out,
                        &GatewayMessage::ModuleChunk(ModuleChunk { digest: get.digest, offset, bytes }),
                    );
                    offset += bytes.len() as u32;
                }
            }
            DeviceMessage::ModuleGet(get) => {
                send(out, &GatewayMessage::ModuleGone(ModuleGone { digest: get.digest }));
            }
            DeviceMessage::Log(log) => self.lines.push(log.text.to_owned()),
            DeviceMessage::Trap(trap) => panic!("the device tells a trap unasked: {trap}"),
            DeviceMessage::DeliverAck(_) | DeviceMessage::SettingsAnswer(_) => {
                panic!("the device answers what was not sent")
            }
            DeviceMessage::Publish(_) => panic!("the device publishes to a gateway that takes no messages"),
            DeviceMessage::Join(_) => panic!("the device asks for a certificate unasked"),
            DeviceMessage::Decommissioned(decommissioned) => {
                assert!(self.order.is_some(), "the device proves what nobody ordered");
                self.proof = Some(decommissioned.proof.to_vec());
                let closing = Closing { reason: CloseReason::Decommissioned, retry_after_ms: 0, detail: "" };
                send(out, &GatewayMessage::Goodbye(closing));
            }
            DeviceMessage::Error(error) if self.order.is_some() => {
                self.refusal = Some(error.detail.to_owned())
            }
            DeviceMessage::Error(error) => panic!("the device complains: {error:?}"),
        }
    }
}

fn send(out: &mut Vec<u8>, message: &GatewayMessage<'_>) {
    let mut frame = [0; FRAME_BYTES_MAX];
    let length = encode_gateway(message, &mut frame).unwrap();
    out.extend_from_slice(&frame[..length]);
}
