//! Lines out of what a program writes, and a bound on how fast.

use crate::host::{AppId, Host, LOG_LINE_BYTES_MAX};

/// Which of a program's streams; each has a line of its own under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Error,
}

/// What each line costs in addition to its bytes: a program that writes empty lines floods too.
const LINE_COST: u64 = 16;

/// A line that has no end yet.
#[derive(Debug)]
struct Partial {
    bytes: [u8; LOG_LINE_BYTES_MAX],
    length: usize,
}

impl Partial {
    const fn new() -> Partial {
        Partial { bytes: [0; LOG_LINE_BYTES_MAX], length: 0 }
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = byte;
            self.length += 1;
        }
    }

    fn is_full(&self) -> bool {
        self.length == self.bytes.len()
    }

    fn text(&self) -> &[u8] {
        let text = self.bytes.get(..self.length).unwrap_or(&self.bytes);
        text.strip_suffix(b"\r").unwrap_or(text)
    }
}

/// Assembles lines (AssemblyScript writes one in two calls, C one in a thousand) and passes on as many as the budget
/// allows; the others are counted, and the count goes with the next line that passes.
#[derive(Debug)]
pub(crate) struct LogLines {
    out: Partial,
    error: Partial,
    bytes_per_second: u64,
    /// Millionths of a byte that may be written now.
    budget: u64,
    budget_at_us: u64,
    lines_lost: u32,
}

const MILLION: u64 = 1_000_000;

impl LogLines {
    pub(crate) fn new(bytes_per_second: u32) -> LogLines {
        let bytes_per_second = u64::from(bytes_per_second);
        LogLines {
            out: Partial::new(),
            error: Partial::new(),
            bytes_per_second,
            budget: bytes_per_second * 2 * MILLION,
            budget_at_us: 0,
            lines_lost: 0,
        }
    }

    /// Takes bytes of a stream; every line feed ends a line.
    pub(crate) fn write<H: Host + ?Sized>(
        &mut self,
        id: AppId,
        now_us: u64,
        stream: Stream,
        bytes: &[u8],
        host: &mut H,
    ) {
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line(id, now_us, stream, host);
                continue;
            }
            if self.partial(stream).is_full() {
                self.end_line(id, now_us, stream, host);
            }
            self.partial(stream).push(*byte);
        }
    }

    /// Takes a whole text, as the function `log` hands it over: it ends a line whether or not it has a line feed.
    pub(crate) fn line<H: Host + ?Sized>(&mut self, id: AppId, now_us: u64, text: &[u8], host: &mut H) {
        for line in text.strip_suffix(b"\n").unwrap_or(text).split(|byte| *byte == b'\n') {
            if line.is_empty() {
                self.pass(id, now_us, line, host);
            }
            for piece in line.chunks(LOG_LINE_BYTES_MAX) {
                self.pass(id, now_us, piece, host);
            }
        }
    }

    /// Passes on what has no line feed yet; the program writes no more. The budget doesn't hold it back: a program's
    /// last lines are the ones worth having, and there are two of them.
    pub(crate) fn flush<H: Host + ?Sized>(&mut self, id: AppId, host: &mut H) {
        for stream in [Stream::Out, Stream::Error] {
            if self.partial(stream).length > 0 {
                let lost = core::mem::take(&mut self.lines_lost);
                host.log(id, self.partial(stream).text(), lost);
                self.partial(stream).length = 0;
            }
        }
    }

    fn partial(&mut self, stream: Stream) -> &mut Partial {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Error => &mut self.error,
        }
    }

    fn end_line<H: Host + ?Sized>(&mut self, id: AppId, now_us: u64, stream: Stream, host: &mut H) {
        let mut line = Partial::new();
        core::mem::swap(&mut line, self.partial(stream));
        self.pass(id, now_us, line.text(), host);
    }

    fn pass<H: Host + ?Sized>(&mut self, id: AppId, now_us: u64, text: &[u8], host: &mut H) {
        let elapsed_us = now_us.saturating_sub(self.budget_at_us);
        let earned = elapsed_us.saturating_mul(self.bytes_per_second);
        self.budget = self.budget.saturating_add(earned).min(self.bytes_per_second * 2 * MILLION);
        self.budget_at_us = now_us;
        let cost = (text.len() as u64 + LINE_COST) * MILLION;
        match self.budget.checked_sub(cost) {
            Some(rest) => {
                self.budget = rest;
                let lost = core::mem::take(&mut self.lines_lost);
                host.log(id, text, lost);
            }
            None => self.lines_lost = self.lines_lost.saturating_add(1),
        }
    }
}
