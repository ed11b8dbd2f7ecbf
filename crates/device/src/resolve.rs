//! Names of gateways become addresses on a thread of their own, because the host's resolver blocks.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::mpsc,
    thread,
};

use crate::mailbox::{Mail, Mailbox};

/// Looks names up, one after the other. Each device has at most one under way, which bounds the queue.
#[derive(Clone)]
pub(crate) struct Resolver(mpsc::Sender<(usize, String)>);

impl Resolver {
    /// Starts the thread; it ends when the last device that uses it is gone.
    pub(crate) fn start(mailbox: Mailbox) -> io::Result<Self> {
        let (sender, queue) = mpsc::channel::<(usize, String)>();
        thread::Builder::new().name("resolver".into()).spawn(move || {
            for (device, name) in queue {
                mailbox.put(device, Mail::Resolved(name.to_socket_addrs().map(Iterator::collect)));
            }
        })?;
        Ok(Self(sender))
    }

    /// The addresses of `host:port`, now if it needs no lookup, otherwise by mail.
    pub(crate) fn resolve(&self, device: usize, gateway: &str) -> io::Result<Option<Vec<SocketAddr>>> {
        if let Ok(address) = gateway.parse() {
            return Ok(Some(vec![address]));
        }
        match self.0.send((device, gateway.to_owned())) {
            Ok(()) => Ok(None),
            Err(_) => Err(io::Error::other("the resolver is gone")),
        }
    }
}
