//! QEMU's debugger port: packets of the GDB remote serial protocol
//! (<https://sourceware.org/gdb/current/onlinedocs/gdb.html/Remote-Protocol.html>), as many as a test needs to send a board off
//! its way.
//!
//! ```text
//! running ── break_at ──► halted ── resume ──► running ── peek ──► running
//! ```

use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use crate::{EmulatorError, qmp::ANSWER_SECONDS};

/// Bytes of one packet; the longest answer that comes is a stop reply of some ten.
const PACKET_BYTES_MAX: usize = 4_096;
/// Sends a running machine into the debugger.
const INTERRUPT: u8 = 3;

/// A connection to QEMU's debugger port.
#[derive(Debug)]
pub struct Debugger {
    stream: UnixStream,
}

impl Debugger {
    /// QEMU halts a machine to which a debugger connects, and says so; this lets it go on.
    pub(crate) fn open(stream: UnixStream) -> Result<Self, EmulatorError> {
        stream.set_read_timeout(Some(Duration::from_secs(ANSWER_SECONDS))).map_err(failed)?;
        let mut debugger = Self { stream };
        debugger.receive().map_err(failed)?;
        // QEMU lets only those who have read which registers there are set one.
        debugger.send("qXfer:features:read:target.xml:0,10").map_err(failed)?;
        debugger.receive().map_err(failed)?;
        debugger.resume()?;
        Ok(debugger)
    }

    /// Runs the board to an instruction and halts it there.
    ///
    /// # Errors
    /// The board does not come there, or QEMU does not answer.
    pub fn break_at(&mut self, address: u32) -> Result<(), EmulatorError> {
        self.halt()?;
        // A breakpoint of the hardware, which changes no memory; the length is that of the shortest instruction.
        self.command(&format!("Z1,{address:x},2"))?;
        self.resume()?;
        self.receive().map_err(failed)?;
        self.command(&format!("z1,{address:x},2"))
    }

    /// Sets a register by its number: of RISC-V 0 to 31 and 32 for the program counter, of Arm 0 to 15.
    ///
    /// # Errors
    /// QEMU refuses it.
    pub fn set_register(&mut self, number: u8, value: u32) -> Result<(), EmulatorError> {
        self.command(&format!("P{number:x}={}", hex(&value.to_le_bytes())))
    }

    /// Writes memory, whatever the processor itself might do there.
    ///
    /// # Errors
    /// There is no memory, or QEMU refuses it.
    pub fn write_memory(&mut self, address: u32, bytes: &[u8]) -> Result<(), EmulatorError> {
        self.command(&format!("M{address:x},{:x}:{}", bytes.len(), hex(bytes)))
    }

    /// Halts the board wherever it is, reads a word of memory or of a device, and lets it go on.
    ///
    /// # Errors
    /// There is nothing, or QEMU does not answer.
    pub fn peek(&mut self, address: u32) -> Result<u32, EmulatorError> {
        self.halt()?;
        self.send(&format!("m{address:x},4")).map_err(failed)?;
        let answer = self.receive().map_err(failed)?;
        self.resume()?;
        let word = u32::from_str_radix(&answer, 16).ok().filter(|_| answer.len() == 8);
        let problem = || format!("no memory at {address:#010x}: {answer:?}");
        word.map(u32::swap_bytes)
            .ok_or_else(|| EmulatorError::Refused { command: "debugger", problem: problem() })
    }

    fn halt(&mut self) -> Result<(), EmulatorError> {
        self.stream.write_all(&[INTERRUPT]).map_err(failed)?;
        self.receive().map_err(failed).map(drop)
    }

    /// Lets the board go on.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn resume(&mut self) -> Result<(), EmulatorError> {
        self.send("c").map_err(failed)
    }

    fn command(&mut self, packet: &str) -> Result<(), EmulatorError> {
        self.send(packet).map_err(failed)?;
        match self.receive().map_err(failed)?.as_str() {
            "OK" => Ok(()),
            answer => {
                Err(EmulatorError::Refused { command: "debugger", problem: format!("{packet}: {answer:?}") })
            }
        }
    }

    /// Sends a packet; that it came whole is acknowledged.
    fn send(&mut self, packet: &str) -> io::Result<()> {
        let packet = format!("${packet}#{:02x}", checksum(packet.as_bytes()));
        self.stream.write_all(packet.as_bytes())?;
        match self.byte()? {
            b'+' => Ok(()),
            other => Err(io::Error::other(format!("no acknowledgement but {other:#04x}"))),
        }
    }

    fn receive(&mut self) -> io::Result<String> {
        while self.byte()? != b'$' {}
        let mut packet = Vec::new();
        loop {
            match self.byte()? {
                b'#' => break,
                _ if packet.len() == PACKET_BYTES_MAX => {
                    return Err(io::Error::other("a packet without an end"));
                }
                byte => packet.push(byte),
            }
        }
        let check = [self.byte()?, self.byte()?];
        if check != format!("{:02x}", checksum(&packet)).as_bytes() {
            return Err(io::Error::other("a damaged packet"));
        }
        self.stream.write_all(b"+")?;
        String::from_utf8(packet).map_err(io::Error::other)
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }
}

fn failed(source: io::Error) -> EmulatorError {
    EmulatorError::Control { command: "debugger", source }
}

fn checksum(packet: &[u8]) -> u8 {
    packet.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Says that the machine halted, answers each of our packets in turn as QEMU would, and returns what it was sent.
    fn answering(answers: &'static [&'static str]) -> (UnixStream, thread::JoinHandle<(String, UnixStream)>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let qemu = thread::spawn(move || {
            theirs.write_all(b"$T02thread:01;#04").unwrap();
            let mut heard = String::new();
            for answer in answers {
                let begun = heard.len();
                while heard[begun..].rsplit_once('#').is_none_or(|(_, check)| check.len() != 2) {
                    let mut byte = [0];
                    theirs.read_exact(&mut byte).unwrap();
                    heard.push(char::from(byte[0]));
                }
                theirs.write_all(answer.as_bytes()).unwrap();
            }
            (heard, theirs)
        });
        (ours, qemu)
    }

    #[test]
    fn packets_carry_checksums_and_are_acknowledged() {
        let (stream, qemu) = answering(&["+$m<#a9", "+", "+$OK#9a"]);
        let mut debugger = Debugger::open(stream).unwrap();
        debugger.write_memory(0x2000_0000, &[0xfe, 0xe7]).unwrap();
        assert_eq!(
            qemu.join().unwrap().0,
            "+$qXfer:features:read:target.xml:0,10#ac+$c#63$M20000000,2:fee7#ce"
        );
    }

    #[test]
    fn a_refusal_and_nonsense_are_errors() {
        let (stream, _qemu) = answering(&["+$m<#a9", "+", "+$E22#a9"]);
        let error = Debugger::open(stream).unwrap().set_register(99, 0).unwrap_err().to_string();
        assert!(error.contains("E22"), "{error}");
        let (stream, _qemu) = answering(&["+$m<#a9", "+", "+$OK#00"]);
        assert!(Debugger::open(stream).unwrap().set_register(1, 0).is_err());
        let (stream, _qemu) = answering(&["-"]);
        assert!(Debugger::open(stream).is_err());
    }
}
