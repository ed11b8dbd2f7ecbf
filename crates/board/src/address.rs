//! A gateway's address, as the identity has it.

use smoltcp::wire::Ipv4Address;

/// The two kinds of host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host<'a> {
    Address(Ipv4Address),
    Name(&'a str),
}

/// Takes `host:port` apart; none if it is something else, or an IPv6 address, which boards don't speak.
pub(crate) fn parse(gateway: &str) -> Option<(Host<'_>, u16)> {
    let (host, port) = gateway.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    if host.is_empty() || host.contains([':', '[']) {
        return None;
    }
    Some((host.parse().map_or(Host::Name(host), Host::Address), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_told_apart() {
        let address = Host::Address(Ipv4Address::new(10, 0, 2, 2));
        assert_eq!(parse("10.0.2.2:7443"), Some((address, 7_443)));
        assert_eq!(parse("gateway.example:1"), Some((Host::Name("gateway.example"), 1)));
        for wrong in ["gateway", "gateway:0", ":1", "gateway:https", "[::1]:1", "::1:1", "gateway:65536"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
