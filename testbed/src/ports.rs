//! Ports that stay one test's own for as long as it runs, also while the server that listens there is down.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context, Result, bail};

/// Below the ports from which the kernel takes those of outgoing connections (`net.ipv4.ip_local_port_range` begins at 32768),
/// so that no client can have the port of a server that is about to start again.
const FIRST: u16 = 18_000;
const COUNT: u16 = 14_000;

/// A TCP port on the loopback interface, held by a lock on a file, so that no other test takes it. The lock ends with the value
/// or with the process.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes a port that nobody holds and nobody listens at.
    ///
    /// # Errors
    /// When there is none, or no file can be made.
    pub fn reserve() -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let locks = std::env::temp_dir().join("wasmbed-ports");
        std::fs::create_dir_all(&locks).with_context(|| format!("can't create {}", locks.display()))?;
        // Programs that run at the same time begin at different ports, which spares most of the search.
        let begin = (std::process::id() % u32::from(COUNT)) as u16;
        for _ in 0..COUNT {
            let offset = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(begin) % COUNT;
            let number = FIRST + offset;
            let path = locks.join(number.to_string());
            let lock = File::create(&path).with_context(|| format!("can't create {}", path.display()))?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("no free port from {FIRST} to {}", FIRST + COUNT - 1)
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The loopback address with it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_and_a_taken_one_is_passed_over() -> Result<()> {
        let held: Vec<Port> = (0..50).map(|_| Port::reserve()).collect::<Result<_>>()?;
        let mut numbers: Vec<u16> = held.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
        for port in &held {
            TcpListener::bind(port.address())?;
        }
        Ok(())
    }
}
