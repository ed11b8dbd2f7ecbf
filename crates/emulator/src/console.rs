//! A board's console: lines from bytes, kept for one reader who may be slow.

use std::{
    collections::VecDeque,
    io::Read,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Bytes of one line; the rest of a longer one is left out.
pub const LINE_BYTES_MAX: usize = 1_024;
/// Lines that wait for the reader; the oldest make room, since a board does not wait for whoever reads.
pub const LINES_MAX: usize = 4_096;
/// Last lines kept for errors, whether read or not.
pub const TAIL_LINES_MAX: usize = 20;

/// Lines of one stream.
#[derive(Debug, Default)]
pub(crate) struct Console {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    unread: VecDeque<String>,
    tail: VecDeque<String>,
    dropped: u64,
    closed: bool,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Line(String),
    Closed,
    Late,
}

impl Console {
    /// Reads until the end of the stream; `at_end` runs before readers hear of it.
    pub(crate) fn drain(&self, mut stream: impl Read, at_end: impl FnOnce()) {
        let mut line = Vec::with_capacity(LINE_BYTES_MAX);
        let mut chunk = [0; 4_096];
        loop {
            let read = match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            for byte in chunk.iter().take(read) {
                match byte {
                    b'\n' => {
                        self.push(&line);
                        line.clear();
                    }
                    _ if line.len() < LINE_BYTES_MAX => line.push(*byte),
                    _ => {}
                }
            }
        }
        if !line.is_empty() {
            self.push(&line);
        }
        at_end();
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn push(&self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        // What a board prints must not steer the terminal of who reads it.
        let line: String = text
            .trim_end_matches('\r')
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect();
        let mut state = self.lock();
        if state.unread.len() == LINES_MAX {
            state.unread.pop_front();
            state.dropped += 1;
        }
        if state.tail.len() == TAIL_LINES_MAX {
            state.tail.pop_front();
        }
        state.tail.push_back(line.clone());
        state.unread.push_back(line);
        drop(state);
        self.changed.notify_all();
    }

    /// The next line; waits until `deadline`, or as long as it takes.
    pub(crate) fn next(&self, deadline: Option<Instant>) -> Next {
        let mut state = self.lock();
        loop {
            if let Some(line) = state.unread.pop_front() {
                return Next::Line(line);
            }
            if state.closed {
                return Next::Closed;
            }
            let wait = match deadline {
                None => Duration::from_secs(3_600),
                Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                    Some(wait) if !wait.is_zero() => wait,
                    _ => return Next::Late,
                },
            };
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The last lines, oldest first.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.lock().tail.iter().cloned().collect()
    }

    /// Lines that nobody read in time.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_cannot_steer_a_terminal() {
        let console = Console::default();
        let long = "x".repeat(LINE_BYTES_MAX + 10);
        console.drain(format!("one\r\n\u{1b}[2J\n{long}\nhalf").as_bytes(), || {});
        assert_eq!(console.next(None), Next::Line("one".into()));
        assert_eq!(console.next(None), Next::Line("\u{fffd}[2J".into()));
        assert_eq!(console.next(None), Next::Line("x".repeat(LINE_BYTES_MAX)));
        assert_eq!(console.next(None), Next::Line("half".into()));
        assert_eq!(console.next(None), Next::Closed);
    }

    #[test]
    fn a_reader_who_never_reads_holds_nothing_up() {
        let console = Console::default();
        let text: String = (0..LINES_MAX + 5).map(|number| format!("{number}\n")).collect();
        console.drain(text.as_bytes(), || {});
        assert_eq!(console.dropped(), 5);
        assert_eq!(console.next(None), Next::Line("5".into()));
        assert_eq!(console.tail().len(), TAIL_LINES_MAX);
        assert_eq!(console.tail().last(), Some(&(LINES_MAX + 4).to_string()));
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        assert_eq!(Console::default().next(Some(Instant::now())), Next::Late);
    }
}
