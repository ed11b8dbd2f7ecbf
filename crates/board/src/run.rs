//! A board from its start on.

use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::{fmt, marker::PhantomData};

use rustls_pki_types::CertificateDer;
use wasmbed_flash::{FlashStorage, provision, provision::Provision};
use wasmbed_protocol::{Epoch, ResetReason};
use wasmbed_runtime::{Interpreter, RuntimeConfig, engine::interpreter};
use wasmbed_supervisor::{
    Config, Supervisor,
    platform::{Board, PeripheralFacts, PeripheralKind, Platform as _},
};
use wasmbed_tls::Time;

use crate::{
    Hardware,
    console::{Console, line},
    identity::{self, BoardIdentity, Clock},
    link::BoardLink,
    network::Network,
    platform::{BoardPlatform, BoardTimer, BoardWatchdog},
    random::{BoardEntropy, Random},
};

/// A sleep ends after this long at the latest, well within a watchdog's time.
const SLEEP_US_MAX: u64 = 500_000;
/// The same while something is awaited that makes no interrupt.
const LOOK_US: u64 = 20_000;
/// Between two lines on the console about the memory in use.
const MEMORY_INTERVAL_US: u64 = 60_000_000;
/// Between two lines on the console about why the board does nothing.
const COMPLAINT_INTERVAL_US: u64 = 10_000_000;

/// What a board starts with.
pub struct Start<H: Hardware> {
    /// The drivers.
    pub hardware: H,
    /// The network controller.
    pub network: H::Network,
    /// The data flash.
    pub flash: H::Flash,
    /// Pins and sensors.
    pub peripherals: H::Peripherals,
    /// Memory for all applications together, apart from the system's heap.
    pub arena: &'static mut [u8],
    /// Why the board started.
    pub reset_reason: ResetReason,
    /// Detail of the last reset, for example a panic's message.
    pub reset_detail: String,
}

/// Why a board can't do anything before a person has done something.
enum Unusable {
    Flash(wasmbed_flash::OpenError),
    Identity(provision::ProvisionError),
    Board(String),
    /// It was one, and was erased.
    Decommissioned,
    Seed(wasmbed_supervisor::platform::StorageError),
    Credentials(identity::Unusable),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flash(error) => error.fmt(f),
            Self::Identity(error) => error.fmt(f),
            Self::Board(board) => {
                write!(f, "the identity in flash is for the board {board}: provision again")
            }
            Self::Decommissioned => {
                f.write_str("it was decommissioned and its identity is erased: provision it again to use it")
            }
            Self::Seed(error) => write!(f, "the flash does not keep the random seed: {error:?}"),
            Self::Credentials(error) => error.fmt(f),
        }
    }
}

/// Runs the board: its applications from flash at once, and what a gateway has for it. What starts the drivers arms the watchdog.
pub fn run<H: Hardware>(start: impl FnOnce() -> Start<H>) -> ! {
    // By reference: each of these is kilobytes, and a stack would hold what is moved twice.
    match &mut ready(start) {
        Ok(running) => running.serve(),
        Err(idle) => idle.complain(),
    }
}

/// A board that works.
struct Running<H: Hardware> {
    hardware: H,
    supervisor: Supervisor<Interpreter, BoardPlatform<H>>,
}

/// A board that can't.
struct Idle<H: Hardware> {
    hardware: H,
    network: H::Network,
    problem: Unusable,
}

/// These three are functions of their own, so that what they need of the stack is free when the board works.
#[inline(never)]
fn ready<H: Hardware>(start: impl FnOnce() -> Start<H>) -> Result<Running<H>, Idle<H>> {
    let Start { mut hardware, network, flash, peripherals, arena, reset_reason, reset_detail } = start();
    line!(
        H,
        Info,
        "board {} firmware {} started reset_reason={reset_reason:?} reset_detail=\"{reset_detail}\"",
        H::BOARD.name,
        env!("CARGO_PKG_VERSION"),
    );
    let opened = match open::<H>(&mut hardware, flash) {
        Ok(opened) => opened,
        Err(problem) => return Err(Idle { hardware, network, problem }),
    };
    let runtime =
        RuntimeConfig { arena_bytes: arena.len(), heap_bytes_max: arena.len(), ..RuntimeConfig::default() };
    let config = Config { board: board::<H>(reset_reason, reset_detail), runtime };
    let platform = platform(opened, network, peripherals);
    let arena = interpreter::Arena::within(arena);
    Ok(Running { hardware, supervisor: Supervisor::with_arena(arena, config, platform, H::now_us() / 1_000) })
}

#[inline(never)]
fn platform<H: Hardware>(
    opened: Opened<H>,
    network: H::Network,
    peripherals: H::Peripherals,
) -> BoardPlatform<H> {
    let Opened { storage, identity, gateways, network: configured, random } = opened;
    line!(
        H,
        Info,
        "provisioned {identity} trust_domain={} gateways={}",
        identity.trust_domain(),
        gateways.len(),
    );
    let address = H::address(&network);
    let network = Network::new(network, address, &configured, random.next_u64(), H::now_us());
    BoardPlatform {
        link: BoardLink::<H>::new(network, identity, gateways),
        storage,
        watchdog: BoardWatchdog(PhantomData),
        entropy: BoardEntropy(random),
        peripherals,
        log: Console::new(),
        timer: BoardTimer(PhantomData),
    }
}

struct Opened<H: Hardware> {
    storage: FlashStorage<H::Flash>,
    identity: BoardIdentity,
    gateways: Vec<String>,
    network: provision::Network,
    random: &'static Random,
}

#[inline(never)]
fn open<H: Hardware>(hardware: &mut H, flash: H::Flash) -> Result<Opened<H>, Unusable> {
    let mut storage = FlashStorage::open(flash, H::BOARD.geometry).map_err(Unusable::Flash)?;
    let provision = match provision::decode(storage.identity()) {
        Ok(provision) => provision,
        // A cut may have been in the way of erasing all of it.
        Err(_) if storage.is_decommissioned() => {
            if let Err(error) = storage.erase_identity() {
                line!(H, Error, "the rest of the identity was not erased: {error:?}");
            }
            return Err(Unusable::Decommissioned);
        }
        Err(error) => return Err(Unusable::Identity(error)),
    };
    if provision.board != H::BOARD.name {
        return Err(Unusable::Board(provision.board));
    }
    let mut extra = [0; 32];
    // Without a source of its own the board has the provisioned seed and the number of its starts.
    hardware.entropy(&mut extra);
    let seed = storage.next_random_seed(&provision.seed, &extra).map_err(Unusable::Seed)?;
    let random = Random::start(seed);
    if let Err(error) = storage.bind_identity(provision.identity.digest()) {
        // It is not used: but its key stays in flash.
        line!(H, Warn, "the record of a former identity was not removed: {error:?}");
    }
    let Provision { identity, services_roots, gateways, network, .. } = provision;
    let roots: Vec<_> = services_roots.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let time = Time::new(storage.time_floor_s().unwrap_or(0));
    let clock = Clock { now_us: H::now_us, unix_s: H::unix_s };
    let identity =
        BoardIdentity::open(identity, &roots, time, random, clock).map_err(Unusable::Credentials)?;
    Ok(Opened { storage, identity, gateways, network, random })
}

fn board<H: Hardware>(reset_reason: ResetReason, reset_detail: String) -> Board {
    Board {
        board: H::BOARD.name.into(),
        firmware: env!("CARGO_PKG_VERSION").into(),
        flash_bytes: u64::from(H::BOARD.geometry.storage_bytes()),
        module_bytes_max: H::BOARD.geometry.module_bytes_max,
        applications_max: u8::try_from(RuntimeConfig::default().applications_max).unwrap_or(u8::MAX),
        capabilities: [&["key-value", "messages"], H::BOARD.capabilities]
            .concat()
            .into_iter()
            .map(ToOwned::to_owned)
            .collect(),
        peripherals: peripherals(H::BOARD),
        reset_reason,
        reset_detail,
    }
}

/// By name.
fn peripherals(board: &wasmbed_board_data::Board) -> Vec<PeripheralFacts> {
    let pins = board.pin_names.iter().map(|name| (*name, PeripheralKind::Gpio));
    let buses = board.i2c.iter().map(|bus| (bus.name, PeripheralKind::I2c));
    let chips = board.spi.iter().map(|chip| (chip.name, PeripheralKind::Spi));
    let uarts = board.uart.iter().map(|uart| (uart.name, PeripheralKind::Uart));
    let facts = |(name, kind): (&str, _)| PeripheralFacts { name: name.into(), kind, is_simulated: false };
    pins.chain(buses).chain(chips).chain(uarts).map(facts).collect()
}

impl<H: Hardware> Running<H> {
    fn serve(&mut self) -> ! {
        let Self { hardware, supervisor } = self;
        let mut reported = Reported::default();
        loop {
            let more = supervisor.platform().link.poll_network();
            let deadline_ms = supervisor.poll(H::now_us() / 1_000);
            learn_time(supervisor, &mut reported.time);
            reported.memory(supervisor);
            let busy = more || supervisor.platform().storage().is_busy();
            let link = &mut supervisor.platform().link;
            let limit_us = if link.is_on_its_way() { LOOK_US } else { SLEEP_US_MAX };
            let delay_us = link.flush(limit_us);
            let until_us = H::now_us().saturating_add(delay_us).min(deadline_ms.saturating_mul(1_000));
            let idle_us = H::now_us();
            if !busy && until_us > idle_us {
                hardware.idle(link.device(), until_us);
                reported.asleep_us += H::now_us().saturating_sub(idle_us);
            }
        }
    }
}

impl<H: Hardware> Idle<H> {
    fn complain(&mut self) -> ! {
        loop {
            line!(H, Error, "this board can't work: {}", self.problem);
            let until_us = H::now_us().saturating_add(COMPLAINT_INTERVAL_US);
            while H::now_us() < until_us {
                H::feed_watchdog();
                let nap_us = H::now_us().saturating_add(SLEEP_US_MAX);
                self.hardware.idle(&mut self.network, nap_us.min(until_us));
            }
        }
    }
}

/// Passes the gateway's time on to the verifier of certificates, and stores the floor that follows from it.
fn learn_time<H: Hardware>(
    supervisor: &mut Supervisor<Interpreter, BoardPlatform<H>>,
    last: &mut Option<(Epoch, u64)>,
) {
    let now_ms = H::now_us() / 1_000;
    let heard = supervisor.session().zip(supervisor.agent().and_then(|agent| agent.unix_ms(now_ms)));
    let platform = supervisor.platform();
    if let Some((epoch, unix_ms)) = heard {
        // The same answer differs by a millisecond at another time.
        let offset = (epoch, unix_ms.saturating_sub(now_ms));
        if *last != Some(offset) {
            *last = Some(offset);
            platform.link.handle_gateway_time(unix_ms, now_ms);
        }
    }
    if !platform.storage.is_busy()
        && let Some(floor_s) = platform.link.take_floor_s()
        && let Err(error) = platform.storage.raise_time_floor(floor_s)
    {
        line!(H, Warn, "floor of the time not stored: {error:?}");
    }
}

/// What was reported on the console last.
#[derive(Default)]
struct Reported {
    time: Option<(Epoch, u64)>,
    loaded: usize,
    memory_at_us: u64,
    frames_lost: u32,
    /// How long the board slept since the start.
    asleep_us: u64,
}

impl Reported {
    /// Reports the memory in use when the number of applications changed, and now and then.
    fn memory<H: Hardware>(&mut self, supervisor: &mut Supervisor<Interpreter, BoardPlatform<H>>) {
        if supervisor.is_at_rest() {
            return;
        }
        let now_us = H::now_us();
        let loaded = supervisor.loaded();
        if loaded == self.loaded && now_us < self.memory_at_us {
            return;
        }
        self.loaded = loaded;
        self.memory_at_us = now_us.saturating_add(MEMORY_INTERVAL_US);
        let memory = H::memory();
        line!(
            H,
            Info,
            "memory applications={loaded} arena_used={} arena={} heap_peak={} heap={} stack_peak={} stack={} awake_us={}",
            supervisor.arena_used_bytes(),
            supervisor.arena_bytes(),
            memory.heap_peak_bytes,
            memory.heap_bytes,
            memory.stack_peak_bytes,
            memory.stack_bytes,
            now_us.saturating_sub(self.asleep_us),
        );
        if let Some(frames) = H::frames_lost(supervisor.platform().link.device())
            && frames != self.frames_lost
        {
            self.frames_lost = frames;
            line!(H, Warn, "frames lost since the start frames={frames}");
        }
    }
}
