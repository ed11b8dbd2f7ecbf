//! A device: the real supervisor, agent and engine on a board of memory.

use std::{collections::VecDeque, net::IpAddr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use wasmbed_agent::failover::Failover;
use wasmbed_control::{
    ObjectKey,
    gateway::{CertificateHash, Identity, JoiningClient, JoiningIdentity},
};
use wasmbed_protocol::{ApplicationUid, KeyHash, ResetReason};
use wasmbed_runtime::{Interpreter, Metering, RuntimeConfig};
use wasmbed_supervisor::{
    Config, Supervisor,
    memory::{Cut, Disk, Faults, FaultyStorage, MemoryBoard, MemoryLink},
    platform::{Board, ChainFacts, Provisioned},
};

use crate::{
    api::NAMESPACE,
    certificates::{Certificate, factory_certificate, factory_key},
    identities::{id_of, key_of, public_key_info},
    random::Random,
    transition::Joins,
};

/// Power that went at a write is away for this long at most.
const OFF_MS: u64 = 20_000;

/// The highest epoch and revision that gateways once believed.
pub(crate) const HUGE: u64 = (1 << 53) - 1;

/// A state record, an array that begins with its version, epoch and revision, with the highest numbers in their places.
fn drive_up(record: &[u8]) -> Option<Vec<u8>> {
    let head = 1 + uint_bytes(record.get(1..)?)?;
    let epoch = uint_bytes(record.get(head..)?)?;
    let revision = uint_bytes(record.get(head + epoch..)?)?;
    let number =
        |bytes: &[u8]| bytes.iter().skip(1).fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    if number(record.get(head + epoch..head + epoch + revision)?) >= HUGE {
        return None;
    }
    let mut driven = record.get(..head)?.to_vec();
    for _ in 0..2 {
        driven.push(0x1b);
        driven.extend(HUGE.to_be_bytes());
    }
    driven.extend(record.get(head + epoch + revision..)?);
    Some(driven)
}

/// Length of the unsigned number (RFC 8949 section 3.1) at the start.
fn uint_bytes(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        0..24 => Some(1),
        head @ 24..28 => Some(1 + (1 << (head - 24))),
        _ => None,
    }
}

/// Fuel that counts as a millisecond of CPU.
const FUEL_PER_MS: u32 = 20_000;

pub(crate) struct Device {
    pub(crate) name: String,
    random: Random,
    pub(crate) supervisor: Supervisor<Interpreter, MemoryBoard>,
    pub(crate) link: MemoryLink,
    /// Without power until then.
    pub(crate) off_until_ms: Option<u64>,
    pub(crate) boots: u32,
    pub(crate) joins: Joins,
    /// Pairing tokens that it was given so far.
    tokens: u32,
    /// Of the key that it made and uses.
    public_key: Option<Vec<u8>>,
    /// Its gateways, in the order in which it tries them.
    pub(crate) gateways: Vec<usize>,
    failover: Failover,
    connected_ms: Option<u64>,
    hardware: Hardware,
    wake_ms: u64,
}

/// What a board has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hardware {
    /// Arena of the applications.
    pub(crate) arena_bytes: usize,
    /// Applications at once.
    pub(crate) applications_max: u8,
}

impl Device {
    pub(crate) fn new(
        name: &str,
        (hardware, joins): (Hardware, Joins),
        gateways: Vec<usize>,
        noise: u64,
    ) -> Self {
        let mut random = Random::of(noise, name);
        let who = (name, provisioned(name, joins, 1));
        let (supervisor, link) =
            boot(who, FaultyStorage::default(), hardware, random.next(), 0, ResetReason::PowerOn);
        Self {
            name: name.to_owned(),
            random,
            supervisor,
            link,
            off_until_ms: None,
            boots: 1,
            joins,
            tokens: 1,
            public_key: None,
            failover: Failover::new(gateways.len()),
            gateways,
            connected_ms: None,
            hardware,
            wake_ms: 0,
        }
    }

    /// One round; answers when the next is wanted.
    pub(crate) fn poll(&mut self, now_ms: u64) -> u64 {
        if let Some(until_ms) = self.off_until_ms {
            if now_ms < until_ms {
                return until_ms;
            }
            self.restart(now_ms);
        }
        self.supervisor.platform().timer.now_us = now_ms * 1_000;
        self.storage().at(now_ms);
        if self.joins != Joins::Never {
            let device_uid = self.certificate().map(|certificate| certificate.device_uid);
            self.supervisor.platform().identity.device_uid = device_uid;
        }
        self.wake_ms = self.supervisor.poll(now_ms);
        if self.joins != Joins::Never {
            self.public_key = self.supervisor.platform().identity.public_key().map(<[u8]>::to_vec);
        }
        if self.storage().has_lost_power() {
            let for_ms = self.random.below(OFF_MS);
            self.lose_power(now_ms + for_ms);
        }
        self.wake_ms
    }

    /// Lines of applications since the last call.
    pub(crate) fn take_lines(&mut self) -> VecDeque<(ApplicationUid, String)> {
        std::mem::take(&mut self.supervisor.platform().log.lines)
    }

    /// The gateway that the device wants a connection to now, by its number.
    pub(crate) fn wants(&mut self, now_ms: u64) -> Option<usize> {
        let (wanted, up) = self.link.with(|channel| (channel.wanted, channel.up));
        if !up && let Some(since_ms) = self.connected_ms.take() {
            self.failover.handle_ended(now_ms - since_ms);
        }
        wanted.then(|| self.gateways.get(self.failover.current()).copied()).flatten()
    }

    pub(crate) fn reached(&mut self, now_ms: u64) {
        self.connected_ms = Some(now_ms);
    }

    pub(crate) fn unreached(&mut self) {
        self.link.cut();
        self.failover.handle_unreached();
    }

    /// The certificate that it presents, if it has joined.
    pub(crate) fn certificate(&self) -> Option<Certificate> {
        self.link.with(|channel| Certificate::read(channel.presented.as_deref()?))
    }

    /// What stands for its public key: of the key that it made, if it joins.
    pub(crate) fn public_key(&self) -> Option<Vec<u8>> {
        match self.joins {
            Joins::Never => Some(public_key_info(&self.name)),
            Joins::Factory | Joins::Token => self.public_key.clone(),
        }
    }

    /// Who it is to a gateway, by what it presents; none before it has a key.
    pub(crate) fn client(&self, index: usize) -> Option<Client> {
        let identity = |name: &str, public_key: &[u8]| Identity {
            device: ObjectKey::new(NAMESPACE, name),
            public_key: BASE64_STANDARD.encode(public_key),
        };
        if self.joins == Joins::Never {
            return Some(Client::Device(identity(&self.name, &public_key_info(&self.name)), Vec::new()));
        }
        if let Some(certificate) = self.certificate() {
            let identity = identity(&certificate.name, &certificate.public_key);
            return Some(Client::Device(identity, certificate.to_bytes()));
        }
        let public_key = self.public_key()?;
        let (presented, identity) = match self.joins {
            Joins::Token => (public_key.clone(), JoiningIdentity::Token { key: KeyHash::of(&public_key) }),
            Joins::Factory | Joins::Never => {
                let presented = factory_certificate(&self.name);
                let identity = JoiningIdentity::Factory {
                    serial: self.name.clone(),
                    device_name: self.name.clone(),
                    key: factory_key(&self.name),
                    chain: [presented.clone()].into(),
                };
                (presented, identity)
            }
        };
        let source = IpAddr::from([10, 0, 0, index as u8]);
        let certificate = CertificateHash::of(&presented);
        Some(Client::Joining(JoiningClient { certificate, source, identity }))
    }

    /// Id of the pairing token that it has.
    pub(crate) fn token(&self) -> String {
        token(&self.name, self.tokens)
    }

    /// It is given another pairing token, and starts anew.
    pub(crate) fn pair(&mut self, now_ms: u64) {
        self.tokens += 1;
        self.lose_power(now_ms);
    }

    /// What is on its flash.
    pub(crate) fn disk(&mut self) -> &Disk {
        self.storage().disk()
    }

    fn storage(&mut self) -> &mut FaultyStorage {
        &mut self.supervisor.platform().storage
    }

    /// Power goes after so many writes, in the middle of one.
    pub(crate) fn cut_at_write(&mut self, writes: u32, permille: u16) {
        self.storage().faults.cut = Some(Cut { writes, permille });
    }

    /// Its disk takes nothing more until then.
    pub(crate) fn fill_disk(&mut self, until_ms: u64) {
        self.storage().faults.full_until_ms = until_ms;
    }

    /// Nothing more goes wrong with its disk.
    pub(crate) fn mend_disk(&mut self) {
        self.storage().faults = Faults::default();
    }

    pub(crate) fn lose_power(&mut self, until_ms: u64) {
        self.link.cut();
        self.off_until_ms = Some(until_ms);
    }

    /// Its record says that it had an epoch and a revision as high as numbers go, as a device does whose gateway once believed
    /// whoever has its name. False if there is no record, or its numbers are as high already.
    pub(crate) fn drive_up_counters(&mut self) -> bool {
        let state = &mut self.storage().disk().state;
        let Some(driven) = state.as_deref().and_then(drive_up) else { return false };
        *state = Some(driven);
        true
    }

    fn restart(&mut self, now_ms: u64) {
        let storage = std::mem::take(self.storage()).after_power_loss();
        // The link object stays, so that the gateways' ends of older connections see their end.
        self.link.cut();
        let who = (self.name.as_str(), provisioned(&self.name, self.joins, self.tokens));
        (self.supervisor, self.link) =
            boot(who, storage, self.hardware, self.random.next(), now_ms, ResetReason::Watchdog);
        self.failover = Failover::new(self.gateways.len());
        self.connected_ms = None;
        self.off_until_ms = None;
        self.boots += 1;
    }
}

/// A connection's client, by what it presents.
pub(crate) enum Client {
    /// With a certificate that the signer issued, or was provisioned with: then there is no chain.
    Device(Identity, Vec<u8>),
    Joining(JoiningClient),
}

fn token(name: &str, number: u32) -> String {
    let hash = KeyHash::of(format!("token {number} of {name}").as_bytes()).to_string();
    hash.chars().take(8).collect()
}

fn provisioned(name: &str, joins: Joins, tokens: u32) -> Provisioned {
    match joins {
        Joins::Never => {
            let facts = ChainFacts { not_before_s: 0, not_after_s: u64::MAX };
            Provisioned::Operational { key: key_of(name), facts }
        }
        Joins::Factory => Provisioned::Factory { key: factory_key(name) },
        Joins::Token => Provisioned::Pairing { id: token(name, tokens) },
    }
}

fn boot(
    (name, provisioned): (&str, Provisioned),
    mut storage: FaultyStorage,
    hardware: Hardware,
    seed: u64,
    now_ms: u64,
    reset_reason: ResetReason,
) -> (Supervisor<Interpreter, MemoryBoard>, MemoryLink) {
    let is_blank = storage.disk().is_blank;
    let mut memory = MemoryBoard::new(storage, seed);
    memory.identity.provisioned = provisioned;
    memory.identity.device = id_of(name);
    memory.identity.has_forgotten = is_blank;
    let link = memory.link.clone();
    let board = Board {
        board: "simulated".into(),
        firmware: "0.1.0".into(),
        flash_bytes: 4 << 20,
        module_bytes_max: 1 << 20,
        applications_max: hardware.applications_max,
        capabilities: vec!["messages".to_owned()],
        peripherals: Vec::new(),
        reset_reason,
        reset_detail: String::new(),
    };
    let runtime = RuntimeConfig {
        arena_bytes: hardware.arena_bytes,
        metering: Metering::Fixed { fuel_per_ms: FUEL_PER_MS },
        ..RuntimeConfig::default()
    };
    (Supervisor::new(Config { board, runtime }, memory, now_ms), link)
}
