//! The board's network: an address, names, and one TCP connection at a time.

use alloc::{vec, vec::Vec};
use core::fmt;

use smoltcp::{
    iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet},
    phy,
    socket::{dhcpv4, dns, tcp},
    time::{Duration, Instant},
    wire::{DnsQueryType, EthernetAddress, IpAddress, IpCidr, Ipv4Address, Ipv4Cidr},
};
use wasmbed_flash::provision;

/// What waits to be read: two records of TLS.
const RECEIVE_BYTES: usize = 8_192;
/// What waits to be acknowledged: a record of TLS and what follows it.
const SEND_BYTES: usize = 6_144;
/// Frames taken in one round, so that a flood of them leaves time for the rest.
const FRAMES_PER_ROUND: usize = 16;
/// Rounds of sending at once; each sends what every socket has for one frame.
const SENDS_PER_ROUND: usize = 16;
/// Sockets: TCP, DNS, DHCP.
const SOCKETS: usize = 3;
/// A peer that acknowledges nothing for so long is gone.
const TCP_TIMEOUT: Duration = Duration::from_secs(30);
/// Local ports that are given out in turn: RFC 6335's dynamic ones.
const PORTS: core::ops::RangeInclusive<u16> = 49_152..=65_535;

/// Why a gateway can't be looked up or connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkError {
    /// Bug: another query is under way.
    Resolving,
    /// Configuration: the gateway's name.
    Name,
    /// Configuration: the gateway's name.
    NameLength,
    /// Network, or configuration: the name is known and has no IPv4 address.
    NoAddress,
    /// Network, or configuration.
    NotFound,
    /// Network: there is no route.
    Unreachable,
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolving => "another name is being looked up",
            Self::Name => "it is not a valid name",
            Self::NameLength => "the name is too long",
            Self::NoAddress => "the name has no address",
            Self::NotFound => "the name was not found",
            Self::Unreachable => "there is no route to its address",
        })
    }
}

/// What changed about the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Address(Ipv4Cidr),
    NoAddress,
}

/// The stack above one controller.
pub(crate) struct Network<D: phy::Device> {
    device: D,
    interface: Interface,
    sockets: SocketSet<'static>,
    tcp: SocketHandle,
    dns: SocketHandle,
    dhcp: Option<SocketHandle>,
    port: u16,
}

impl<D: phy::Device> Network<D> {
    pub(crate) fn new(
        mut device: D,
        address: EthernetAddress,
        network: &provision::Network,
        random: u64,
        now_us: u64,
    ) -> Self {
        let mut config = Config::new(address.into());
        config.random_seed = random;
        let interface = Interface::new(config, &mut device, at(now_us));
        let mut sockets = SocketSet::new(Vec::with_capacity(SOCKETS));
        let buffer = |bytes| tcp::SocketBuffer::new(vec![0; bytes]);
        let mut socket = tcp::Socket::new(buffer(RECEIVE_BYTES), buffer(SEND_BYTES));
        // Frames are small and somebody waits for each.
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(TCP_TIMEOUT));
        let tcp = sockets.add(socket);
        let dns = sockets.add(dns::Socket::new(&[], vec![None]));
        let port = PORTS.start() | (random >> 32) as u16;
        let mut this = Self { device, interface, sockets, tcp, dns, dhcp: None, port };
        match network {
            provision::Network::Dhcp => this.dhcp = Some(this.sockets.add(dhcpv4::Socket::new())),
            provision::Network::Static { address, prefix, router, dns } => {
                let servers: Vec<_> = dns.iter().map(|server| Ipv4Address::from(*server)).collect();
                let address = Ipv4Cidr::new(Ipv4Address::from(*address), (*prefix).min(32));
                this.configure(Some((address, router.map(Ipv4Address::from))), &servers);
            }
        }
        this
    }

    /// Takes frames and sends what is due. Answers what changed, and whether more waits already.
    pub(crate) fn poll(&mut self, now_us: u64) -> (Option<News>, bool) {
        let now = at(now_us);
        self.interface.poll_maintenance(now);
        let (device, sockets) = (&mut self.device, &mut self.sockets);
        let mut more = (0..FRAMES_PER_ROUND).all(|_| {
            self.interface.poll_ingress_single(now, device, sockets) != PollIngressSingleResult::None
        });
        more |= (0..SENDS_PER_ROUND)
            .all(|_| self.interface.poll_egress(now, device, sockets) == PollResult::SocketStateChanged);
        (self.poll_address(), more)
    }

    /// Sends what is due.
    pub(crate) fn flush(&mut self, now_us: u64) {
        for _ in 0..SENDS_PER_ROUND {
            let sent = self.interface.poll_egress(at(now_us), &mut self.device, &mut self.sockets);
            if sent == PollResult::None {
                return;
            }
        }
    }

    fn poll_address(&mut self) -> Option<News> {
        let event = self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.dhcp?).poll()?;
        let dhcpv4::Event::Configured(config) = event else {
            // It says so at the start, too.
            let had_one = self.has_address();
            self.configure(None, &[]);
            return had_one.then_some(News::NoAddress);
        };
        let (address, router) = (config.address, config.router);
        let servers: Vec<_> = config.dns_servers.iter().copied().collect();
        let known = self.interface.ip_addrs().contains(&IpCidr::Ipv4(address));
        self.configure(Some((address, router)), &servers);
        // A lease that was only renewed is no news.
        (!known).then_some(News::Address(address))
    }

    fn configure(&mut self, address: Option<(Ipv4Cidr, Option<Ipv4Address>)>, servers: &[Ipv4Address]) {
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // There is room for two, and it was emptied.
            let _ = address.map(|(address, _)| addresses.push(IpCidr::Ipv4(address)));
        });
        self.interface.routes_mut().remove_default_ipv4_route();
        if let Some((_, Some(router))) = address {
            // There is room for two, and the one before was removed.
            let _ = self.interface.routes_mut().add_default_ipv4_route(router);
        }
        let servers: Vec<_> =
            servers.iter().take(provision::DNS_MAX).map(|ip| IpAddress::Ipv4(*ip)).collect();
        self.sockets.get_mut::<dns::Socket<'_>>(self.dns).update_servers(&servers);
    }

    /// The controller, for whoever waits for it.
    pub(crate) fn device(&mut self) -> &mut D {
        &mut self.device
    }

    /// Microseconds until the stack has something to do by itself, if ever.
    pub(crate) fn delay_us(&mut self, now_us: u64) -> Option<u64> {
        self.interface.poll_delay(at(now_us), &self.sockets).map(|delay| delay.total_micros())
    }

    pub(crate) fn has_address(&self) -> bool {
        self.interface.ipv4_addr().is_some()
    }

    /// Begins to look a name up.
    pub(crate) fn resolve(&mut self, name: &str) -> Result<dns::QueryHandle, NetworkError> {
        let socket = self.sockets.get_mut::<dns::Socket<'_>>(self.dns);
        let query = socket.start_query(self.interface.context(), name, DnsQueryType::A);
        query.map_err(|error| match error {
            dns::StartQueryError::NoFreeSlot => NetworkError::Resolving,
            dns::StartQueryError::InvalidName => NetworkError::Name,
            dns::StartQueryError::NameTooLong => NetworkError::NameLength,
        })
    }

    /// The answer, if there is one; the query is over then.
    pub(crate) fn resolved(&mut self, query: dns::QueryHandle) -> Option<Result<IpAddress, NetworkError>> {
        let socket = self.sockets.get_mut::<dns::Socket<'_>>(self.dns);
        match socket.get_query_result(query) {
            Ok(addresses) => Some(addresses.first().copied().ok_or(NetworkError::NoAddress)),
            Err(dns::GetQueryResultError::Pending) => None,
            Err(dns::GetQueryResultError::Failed) => Some(Err(NetworkError::NotFound)),
        }
    }

    pub(crate) fn forget(&mut self, query: dns::QueryHandle) {
        self.sockets.get_mut::<dns::Socket<'_>>(self.dns).cancel_query(query);
    }

    /// Begins a connection; an earlier one is aborted.
    pub(crate) fn connect(&mut self, address: IpAddress, port: u16) -> Result<(), NetworkError> {
        self.port = if self.port == *PORTS.end() { *PORTS.start() } else { self.port + 1 };
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.tcp);
        socket.abort();
        let connected = socket.connect(self.interface.context(), (address, port), self.port);
        connected.map_err(|_| NetworkError::Unreachable)
    }

    pub(crate) fn tcp(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.tcp)
    }
}

fn at(now_us: u64) -> Instant {
    Instant::from_micros(i64::try_from(now_us).unwrap_or(i64::MAX))
}
