//! Which of its gateways a device goes to. It stays with one as long as that takes it, and goes to the next when it can't be
//! reached or turns the device away; the pause before each attempt has full jitter, so that a fleet that lost its gateway does
//! not arrive at the next one as one.

/// A session that ended sooner was turned away: another gateway may have room.
pub const TURNED_AWAY_MS: u64 = 5_000;

/// The place in a list of gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    gateways: usize,
    current: usize,
}

impl Failover {
    /// Begins with the first of so many gateways.
    #[must_use]
    pub const fn new(gateways: usize) -> Self {
        Self { gateways, current: 0 }
    }

    /// The gateway that the next attempt goes to, from 0.
    #[must_use]
    pub const fn current(&self) -> usize {
        self.current
    }

    /// The attempt did not lead to a connection.
    pub const fn handle_unreached(&mut self) {
        self.current += 1;
        if self.current >= self.gateways {
            self.current = 0;
        }
    }

    /// A connection ended that lasted for so long.
    pub const fn handle_ended(&mut self, stood_ms: u64) {
        if stood_ms < TURNED_AWAY_MS {
            self.handle_unreached();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_is_tried_in_order_and_the_one_that_takes_it_is_kept() {
        let mut failover = Failover::new(3);
        failover.handle_unreached();
        assert_eq!(failover.current(), 1);
        failover.handle_ended(TURNED_AWAY_MS);
        assert_eq!(failover.current(), 1, "it took the device: it is tried again first");
        failover.handle_ended(TURNED_AWAY_MS - 1);
        failover.handle_unreached();
        assert_eq!(failover.current(), 0);
    }

    #[test]
    fn a_list_of_one_is_always_the_same() {
        let mut failover = Failover::new(1);
        failover.handle_unreached();
        assert_eq!(failover.current(), 0);
    }
}
