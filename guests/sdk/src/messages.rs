//! Messages to whoever listens, brokers and people, and from them. Needs the capability `messages`, and topics that the Application declares.
//!
//! A message that was taken is sent until the gateway has it on its disk. It arrives at least once, and those of an application
//! in their order; a restart of the device loses what had not arrived.

use core::fmt;

use crate::{Error, imports};

/// Bytes of the longest payload.
pub const PAYLOAD_BYTES_MAX: usize = 1_024;

/// Publishes a message. [`Error::Again`] if there is no room for it, or its topic's rate is used up.
pub fn publish(topic: &str, payload: &[u8]) -> Result<(), Error> {
    publish_with(topic, payload, 0)
}

/// Publishes a message, for which the oldest ones that have not arrived make room: what is measured now is worth more than what was.
pub fn publish_newest(topic: &str, payload: &[u8]) -> Result<(), Error> {
    const DROP_OLDEST: u32 = 1;
    publish_with(topic, payload, DROP_OLDEST)
}

/// A payload that is written as text.
///
/// ```ignore
/// let mut text = Text::new();
/// write!(text, "{} m°C", 21_500)?;
/// messages::publish("temperature", text.as_bytes())?;
/// ```
pub struct Text {
    bytes: [u8; Text::BYTES_MAX],
    length: usize,
}

impl Text {
    /// More can't be written.
    pub const BYTES_MAX: usize = 128;

    /// An empty one.
    pub const fn new() -> Text {
        Text { bytes: [0; Text::BYTES_MAX], length: 0 }
    }

    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Default for Text {
    fn default() -> Text {
        Text::new()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// Where a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Somebody whom the Kubernetes API lets publish to the device.
    Operator,
    /// A broker.
    Broker,
    /// One of a later version.
    Other,
}

/// Room for one message that came in: have one, since a program's stack is small.
pub struct Inbox {
    bytes: [u8; Inbox::BYTES_MAX],
}

impl Inbox {
    /// Source, length of the topic, topic and payload.
    const BYTES_MAX: usize = 2 + 64 + PAYLOAD_BYTES_MAX;

    /// An empty one.
    pub const fn new() -> Inbox {
        Inbox { bytes: [0; Inbox::BYTES_MAX] }
    }

    /// The oldest message that came in, if there is one. From the first call on, [`wait`](crate::wait) ends when one comes in:
    ///
    /// ```ignore
    /// let mut inbox = Inbox::new();
    /// loop {
    ///     while let Some(message) = inbox.receive() {
    ///         obey(message.topic(), message.payload());
    ///     }
    ///     wait(Duration::from_secs(60));
    /// }
    /// ```
    pub fn receive(&mut self) -> Option<Received<'_>> {
        // SAFETY: the pointer comes with the length of its slice, and the host writes no more.
        let result = unsafe { imports::receive(self.bytes.as_mut_ptr(), self.bytes.len()) };
        let bytes = self.bytes.get(..usize::try_from(result).ok()?)?;
        let (head, rest) = bytes.split_first_chunk::<2>()?;
        let (topic, payload) = rest.split_at_checked(usize::from(head[1]))?;
        let source = match head[0] {
            0 => Source::Operator,
            1 => Source::Broker,
            _ => Source::Other,
        };
        Some(Received { source, topic, payload })
    }
}

impl Default for Inbox {
    fn default() -> Inbox {
        Inbox::new()
    }
}

/// A message that came in.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    source: Source,
    topic: &'a [u8],
    payload: &'a [u8],
}

impl Received<'_> {
    /// Where it comes from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The topic, as the Application declares it.
    pub fn topic(&self) -> &str {
        core::str::from_utf8(self.topic).unwrap_or_default()
    }

    /// What it carries.
    pub fn payload(&self) -> &[u8] {
        self.payload
    }
}

fn publish_with(topic: &str, payload: &[u8], flags: u32) -> Result<(), Error> {
    // SAFETY: both pointers come with the length of their slice, which the host only reads.
    let result =
        unsafe { imports::publish(topic.as_ptr(), topic.len(), payload.as_ptr(), payload.len(), flags) };
    Error::check(result).map(drop)
}
