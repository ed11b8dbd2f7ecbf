//! QEMU's machine protocol: JSON objects, one a line, over a socket.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::EmulatorError;

/// How long QEMU may take for a command; it answers within milliseconds unless the machine is overloaded.
pub(crate) const ANSWER_SECONDS: u64 = 20;
/// Bytes of one answer; the longest that is asked for has some hundred.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;

#[derive(Debug)]
pub(crate) struct Qmp {
    stream: UnixStream,
    received: Vec<u8>,
    last_id: u64,
}

impl Qmp {
    /// Takes the greeting, and leaves the negotiation of capabilities behind.
    pub(crate) fn open(stream: UnixStream) -> Result<Self, EmulatorError> {
        let mut qmp = Self { stream, received: Vec::new(), last_id: 0 };
        // What is sent before the greeting may be lost: QEMU connects before it listens.
        let failed = |source| EmulatorError::Control { command: "connect", source };
        let deadline = Instant::now() + Duration::from_secs(ANSWER_SECONDS);
        while qmp.receive(deadline).map_err(failed)?.get("QMP").is_none() {}
        qmp.execute("qmp_capabilities", None, ANSWER_SECONDS)?;
        Ok(qmp)
    }

    /// One command, and what it returns within that many seconds.
    pub(crate) fn execute(
        &mut self,
        command: &'static str,
        arguments: Option<Value>,
        seconds_max: u64,
    ) -> Result<Value, EmulatorError> {
        let failed = |source| EmulatorError::Control { command, source };
        self.last_id += 1;
        let mut request = json!({ "execute": command, "id": self.last_id });
        if let Some(arguments) = arguments {
            request["arguments"] = arguments;
        }
        let deadline = Instant::now() + Duration::from_secs(seconds_max);
        self.stream.set_write_timeout(Some(Duration::from_secs(ANSWER_SECONDS))).map_err(failed)?;
        self.stream.write_all(format!("{request}\n").as_bytes()).map_err(failed)?;
        loop {
            let mut answer = self.receive(deadline).map_err(failed)?;
            // Events and late answers to earlier commands have no or another id.
            if answer["id"].as_u64() != Some(self.last_id) {
                continue;
            }
            if let Some(problem) = answer["error"]["desc"].as_str() {
                return Err(EmulatorError::Refused { command, problem: problem.to_owned() });
            }
            return Ok(answer["return"].take());
        }
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<Value> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            if self.received.len() > ANSWER_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer without an end"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 4_096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.received.extend(chunk.iter().take(read)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn events_and_answers_to_others_are_passed_over_and_refusals_told()
    -> Result<(), Box<dyn std::error::Error>> {
        let (ours, mut theirs) = UnixStream::pair()?;
        let peer = std::thread::spawn(move || -> io::Result<()> {
            theirs.write_all(b"{\"QMP\": {}}\n")?;
            let mut requests = BufReader::new(theirs.try_clone()?).lines();
            requests.next().transpose()?;
            theirs.write_all(b"{\"event\": \"RESET\"}\n{\"return\": {}, \"id\": 1}\n")?;
            requests.next().transpose()?;
            theirs.write_all(b"{\"return\": 7, \"id\": 1}\n{\"error\": {\"desc\": \"no\"}, \"id\": 2}\n")
        });
        let mut qmp = Qmp::open(ours)?;
        let error = qmp.execute("stop", None, 20).expect_err("refused");
        assert!(matches!(error, EmulatorError::Refused { command: "stop", .. }), "{error}");
        peer.join().map_err(|_| "panicked")??;
        let error = qmp.execute("cont", None, 20).expect_err("the peer is gone");
        assert!(matches!(error, EmulatorError::Control { .. }), "{error}");
        Ok(())
    }
}
