//! One thread that drives any number of devices: it waits for sockets, storage and deadlines, and gives whoever has
//! something to do a turn of its supervisor.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Registry, Token, Waker};
use rustls::crypto::CryptoProvider;
use wasmbed_protocol::ApplicationState;
use wasmbed_runtime::{Interpreter, RuntimeConfig};
use wasmbed_supervisor::{
    Config, Supervisor,
    platform::{Board, Link as _, Platform as _},
};

use crate::{
    config::DeviceError,
    counters::Counters,
    identity::HostIdentity,
    link::{LinkConfig, TlsLink},
    log::DeviceLog,
    mailbox::{Mail, Mailbox},
    peripherals::HostPeripherals,
    platform::{HostEntropy, LinuxPlatform, WallTimer},
    resolve::Resolver,
    storage::{DeviceStorage, StorageThread},
    uart::Wakes,
    watchdog::LoopWatchdog,
};

const WAKER: Token = Token(usize::MAX);
/// Sockets told of at once; the rest waits for the next round.
const EVENTS: usize = 1_024;

/// What is particular to one device.
pub(crate) struct Parts {
    pub(crate) identity: HostIdentity,
    pub(crate) gateways: Arc<[String]>,
    pub(crate) connect_timeout: Duration,
    pub(crate) board: Board,
    pub(crate) runtime: RuntimeConfig,
    /// Serial devices by their numbers.
    pub(crate) uarts: Vec<PathBuf>,
    pub(crate) storage: DeviceStorage,
}

/// Where a loop's devices come from, in the order of their starts.
pub(crate) trait DeviceSource {
    /// When the next device is to be switched on, milliseconds since the loop began; `None` if there is none left.
    fn next_ms(&self) -> Option<u64>;

    /// That device; `index` is its number in the loop.
    fn arrive(&mut self, index: usize, storage: &StorageThread) -> Result<Parts, DeviceError>;
}

struct Running {
    supervisor: Supervisor<Interpreter, LinuxPlatform>,
    /// The entry in the heap that counts; others are of the past.
    scheduled_ms: Option<u64>,
    counted: (bool, usize),
}

/// The loop.
pub(crate) struct Reactor {
    poll: Poll,
    registry: Rc<Registry>,
    mailbox: Mailbox,
    storage: StorageThread,
    resolver: Resolver,
    watchdog: LoopWatchdog,
    counters: Arc<Counters>,
    provider: Arc<CryptoProvider>,
    started: Instant,
    devices: Vec<Running>,
    deadlines: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Reactor {
    pub(crate) fn new(
        poll: Poll,
        mailbox: Mailbox,
        watchdog: LoopWatchdog,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        Ok(Self {
            registry: Rc::new(poll.registry().try_clone()?),
            storage: StorageThread::start(mailbox.clone())?,
            resolver: Resolver::start(mailbox.clone())?,
            poll,
            mailbox,
            watchdog,
            counters,
            provider: wasmbed_pki::tls::provider(),
            started: Instant::now(),
            devices: Vec::new(),
            deadlines: BinaryHeap::new(),
        })
    }

    /// Poll and mailbox, made before the thread so that the caller can stop it.
    pub(crate) fn poller() -> io::Result<(Poll, Mailbox)> {
        let poll = Poll::new()?;
        let mailbox = Mailbox::new(Waker::new(poll.registry(), WAKER)?);
        Ok((poll, mailbox))
    }

    /// Runs until it is stopped, or each of its devices was decommissioned and has nothing left to do.
    pub(crate) fn run(&mut self, mut source: impl DeviceSource) -> Result<(), DeviceError> {
        let mut events = Events::with_capacity(EVENTS);
        let mut due = Vec::new();
        while !self.mailbox.is_stopped() && !self.is_over(&source) {
            let now_ms = self.now_ms();
            while source.next_ms().is_some_and(|at_ms| at_ms <= now_ms) {
                let parts = source.arrive(self.devices.len(), &self.storage)?;
                self.switch_on(parts);
            }
            self.take_due(now_ms, &mut due);
            due.drain(..).for_each(|index| self.turn(index));

            let wait = self.wait(source.next_ms());
            self.watchdog.allow(wait.unwrap_or(Duration::MAX));
            match self.poll.poll(&mut events, wait) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(DeviceError::Host { what: "waiting for sockets", source }),
            }
            self.watchdog.allow(Duration::ZERO);
            self.deliver();
            for event in &events {
                if event.token() != WAKER {
                    self.turn(event.token().0);
                }
            }
        }
        self.switch_off();
        // It waits for the disk alone.
        self.watchdog.allow(Duration::MAX);
        self.storage.drain();
        Ok(())
    }

    fn is_over(&self, source: &impl DeviceSource) -> bool {
        source.next_ms().is_none()
            && !self.devices.is_empty()
            && self.devices.iter().all(|running| running.supervisor.is_at_rest())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn switch_on(&mut self, parts: Parts) {
        let index = self.devices.len();
        let link = TlsLink::new(LinkConfig {
            device: index,
            token: Token(index),
            registry: Rc::clone(&self.registry),
            resolver: self.resolver.clone(),
            presence: parts.identity.presence(),
            trust_domain: Arc::clone(parts.identity.trust_domain()),
            gateways: parts.gateways,
            connect_timeout: parts.connect_timeout,
            counters: Arc::clone(&self.counters),
        });
        let wakes = Wakes { registry: Rc::clone(&self.registry), token: Token(index) };
        let now = Instant::now();
        let platform = LinuxPlatform {
            link,
            storage: parts.storage,
            watchdog: self.watchdog.clone(),
            entropy: HostEntropy(Arc::clone(&self.provider)),
            peripherals: HostPeripherals::new(now).with_uarts(parts.uarts, &wakes),
            log: DeviceLog { device: parts.identity.presence() },
            identity: parts.identity,
            timer: WallTimer(now),
        };
        let config = Config { board: parts.board, runtime: parts.runtime };
        let now_ms = self.now_ms();
        let supervisor = Supervisor::new(config, platform, now_ms);
        self.devices.push(Running { supervisor, scheduled_ms: None, counted: (false, 0) });
        self.counters.started();
        self.schedule(index, now_ms);
    }

    /// Gives a device a turn.
    fn turn(&mut self, index: usize) {
        let now_ms = self.now_ms();
        let Some(running) = self.devices.get_mut(index) else {
            debug_assert!(false, "turns and mail are those of devices that were switched on: {index}");
            return;
        };
        let mut next_ms = running.supervisor.poll(now_ms);
        if let Some(deadline) = running.supervisor.platform().link.deadline() {
            let deadline = deadline.saturating_duration_since(self.started).as_millis();
            // One more, because the link compares with a finer clock.
            next_ms = next_ms.min(u64::try_from(deadline).unwrap_or(u64::MAX).saturating_add(1));
        }
        if running.supervisor.platform().link.has_news() {
            next_ms = now_ms;
        }
        let states = running.supervisor.applications();
        let runs = states.filter(|(_, state)| *state == ApplicationState::Running).count();
        let reached = (running.supervisor.session().is_some(), runs);
        if reached != running.counted {
            self.counters.changed(running.counted, reached);
            running.counted = reached;
        }
        self.schedule(index, next_ms);
    }

    fn schedule(&mut self, index: usize, at_ms: u64) {
        if let Some(running) = self.devices.get_mut(index)
            && running.scheduled_ms != Some(at_ms)
        {
            running.scheduled_ms = Some(at_ms);
            self.deadlines.push(Reverse((at_ms, index)));
        }
    }

    /// Collects the devices whose time has come.
    fn take_due(&mut self, now_ms: u64, due: &mut Vec<usize>) {
        while let Some(Reverse((at_ms, index))) =
            self.deadlines.peek().copied().filter(|next| next.0.0 <= now_ms)
        {
            self.deadlines.pop();
            if let Some(running) = self.devices.get_mut(index)
                && running.scheduled_ms == Some(at_ms)
            {
                running.scheduled_ms = None;
                due.push(index);
            }
        }
    }

    fn wait(&self, arrival_ms: Option<u64>) -> Option<Duration> {
        let deadline_ms = self.deadlines.peek().map(|next| next.0.0);
        let next_ms = [deadline_ms, arrival_ms].into_iter().flatten().min()?;
        Some(Duration::from_millis(next_ms.saturating_sub(self.now_ms())))
    }

    /// Hands out what other threads have for the devices.
    fn deliver(&mut self) {
        for (index, mail) in self.mailbox.take() {
            if let Some(running) = self.devices.get_mut(index) {
                let platform = running.supervisor.platform();
                match mail {
                    Mail::Stored(outcome) => platform.storage.complete(outcome),
                    Mail::Resolved(addresses) => platform.link.resolved(addresses),
                }
                self.turn(index);
            }
        }
    }

    /// Closes every connection, so that the gateway need not wait for a heartbeat to learn of it.
    fn switch_off(&mut self) {
        for running in &mut self.devices {
            running.supervisor.platform().link().close();
        }
    }
}
