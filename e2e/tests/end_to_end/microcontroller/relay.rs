//! A stretch of wire between a board and its gateway, which stops in the middle of a download and counts bytes.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};

/// A wire. What is on it ends when it is dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Bytes towards the board, of each connection so far.
    counts: Vec<u64>,
    /// Connections before this one pass no more bytes.
    cut_before: usize,
    /// The connection that is there now passes so many, then stands still.
    hold_at: Option<u64>,
    hold_from: u64,
    ends: Vec<TcpStream>,
    over: bool,
}

impl Relay {
    pub(crate) fn start(gateway: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let kept = Arc::clone(&shared);
        thread::spawn(move || {
            while let Ok((board, _)) = listener.accept() {
                if kept.state().over {
                    return;
                }
                // A gateway that is not there closes the board's connection, as without a relay.
                if let Ok(gateway) = TcpStream::connect(gateway) {
                    join(board, gateway, &kept);
                }
            }
        });
        Ok(Self { address, shared })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The present connection passes `bytes` more towards the board and then stands still.
    pub(crate) fn hold_after(&self, bytes: u64) {
        let mut state = self.shared.state();
        state.hold_from = state.counts.last().copied().unwrap_or(0);
        state.hold_at = Some(state.hold_from + bytes);
    }

    /// Waits until it stands still, and says how many bytes passed since it was asked to.
    pub(crate) fn held(&self) -> Result<u64> {
        let state = self.shared.state();
        let moves = |state: &mut State| state.counts.last() < state.hold_at.as_ref();
        let waited = self.shared.changed.wait_timeout_while(state, wasmbed_e2e::TIMEOUT, moves);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        ensure!(!timeout.timed_out(), "the download never came so far");
        Ok(state.counts.last().copied().unwrap_or(0).saturating_sub(state.hold_from))
    }

    /// Cuts the present connections; those that come pass everything.
    pub(crate) fn cut(&self) {
        let mut state = self.shared.state();
        state.cut_before = state.counts.len();
        state.hold_at = None;
        for end in state.ends.drain(..) {
            // It may have ended by itself.
            let _ = end.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
    }

    /// Bytes towards the board on connections since the last cut.
    pub(crate) fn since_cut(&self) -> u64 {
        let state = self.shared.state();
        state.counts.iter().skip(state.cut_before).sum()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.cut();
        // Wakes the one that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of `bytes` bytes connection `index` may pass now; waits while that is none. `None` once it is cut.
    fn allow(&self, index: usize, bytes: usize) -> Option<usize> {
        let held = |state: &mut State| index >= state.cut_before && state.room(index) == 0;
        let waited = self.changed.wait_while(self.state(), held);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if index < state.cut_before {
            return None;
        }
        let allowed = state.room(index).min(bytes as u64);
        if let Some(count) = state.counts.get_mut(index) {
            *count += allowed;
        }
        self.changed.notify_all();
        usize::try_from(allowed).ok()
    }
}

impl State {
    fn room(&self, index: usize) -> u64 {
        let count = self.counts.get(index).copied().unwrap_or(0);
        self.hold_at.map_or(u64::MAX, |hold_at| hold_at.saturating_sub(count))
    }
}

fn join(board: TcpStream, gateway: TcpStream, shared: &Arc<Shared>) {
    let mut state = shared.state();
    let index = state.counts.len();
    state.counts.push(0);
    let (Ok(board_end), Ok(gateway_end)) = (board.try_clone(), gateway.try_clone()) else { return };
    let (Ok(from_board), Ok(to_gateway)) = (board.try_clone(), gateway.try_clone()) else { return };
    state.ends.extend([board_end, gateway_end]);
    drop(state);
    thread::spawn(move || copy(from_board, to_gateway, Some));
    let shared = Arc::clone(shared);
    thread::spawn(move || copy(gateway, board, |bytes| shared.allow(index, bytes)));
}

/// Passes bytes on until one end closes or no more may pass.
fn copy(mut from: TcpStream, mut to: TcpStream, allow: impl Fn(usize) -> Option<usize>) {
    let mut buffer = [0; 4_096];
    'open: while let Ok(read @ 1..) = from.read(&mut buffer) {
        let mut rest = buffer.get(..read).unwrap_or_default();
        while !rest.is_empty() {
            let Some(allowed) = allow(rest.len()) else { break 'open };
            let (now, later) = rest.split_at(allowed);
            if to.write_all(now).is_err() {
                break 'open;
            }
            rest = later;
        }
    }
    // Either may be closed already.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
