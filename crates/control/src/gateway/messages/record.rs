//! Messages as they are on the disk: batches, each one record, and places.
//!
//! ```text
//! record  = version (one byte), message*      message = CBOR array, see Stored
//! place   = version (one byte), CBOR array of [application uid, [[boot, its id, sequence], ...]], after the Device's UID
//! ```
//!
//! A record of another version, or one that is spoilt, is left out whole: nothing of it is guessed.

use minicbor::{Decoder, Encoder, encode::write::Cursor};
use wasmbed_protocol::ApplicationUid;

use super::places::{Places, Start};

/// First byte of records and places.
const VERSION: u8 = 1;
/// Bytes of a message beside its texts and its payload, at most: heads and numbers.
const HEAD_BYTES_MAX: usize = 128;

/// A message as it is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored<'a> {
    /// Namespace and name of the Device.
    pub device: (&'a str, &'a str),
    /// `metadata.uid` of the Device; empty if it was not known.
    pub device_uid: &'a str,
    /// `namespace/name` of the Application.
    pub application: &'a str,
    /// Its UID.
    pub uid: ApplicationUid,
    /// Start of the device in which it was published.
    pub start: Start,
    /// Of that start.
    pub sequence: u64,
    /// When the gateway received it, milliseconds since 1970.
    pub unix_ms: u64,
    /// Messages of the application that the device dropped just before it.
    pub lost: u32,
    /// Where it belongs.
    pub topic: &'a str,
    /// What it says.
    pub payload: &'a [u8],
}

/// The record is of another version or spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// Messages that become one record.
#[derive(Debug)]
pub(super) struct Record(Vec<u8>);

impl Default for Record {
    fn default() -> Self {
        Self(vec![VERSION])
    }
}

impl Record {
    /// Appends a message; gives its bytes.
    pub(super) fn push(&mut self, message: &Stored<'_>) -> usize {
        let texts = [message.device.0, message.device.1, message.device_uid, message.application];
        let texts = texts.iter().map(|text| text.len()).sum::<usize>() + message.topic.len();
        let before = self.0.len();
        self.0.resize(before + HEAD_BYTES_MAX + texts + message.payload.len(), 0);
        let mut encoder = Encoder::new(Cursor::new(&mut self.0[before..]));
        let encoded = encode(&mut encoder, message);
        // It has room for everything, so nothing but a bug fails here; then nothing is appended.
        let bytes = if encoded.is_ok() { encoder.writer().position() } else { 0 };
        debug_assert!(bytes > 0, "a message has more bytes than were counted");
        self.0.truncate(before + bytes);
        bytes
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A record that was on its way to the disk.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Forgets what it has, and keeps its room.
    pub(super) fn clear(&mut self) {
        self.0.truncate(1);
    }
}

fn encode<W: minicbor::encode::Write>(
    encoder: &mut Encoder<W>,
    message: &Stored<'_>,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    encoder.array(12)?.str(message.device.0)?.str(message.device.1)?.str(message.device_uid)?;
    encoder.str(message.application)?.bytes(&message.uid.0)?;
    encoder.u64(message.start.boot)?.u64(message.start.id)?.u64(message.sequence)?;
    encoder.u64(message.unix_ms)?.u32(message.lost)?.str(message.topic)?.bytes(message.payload)?;
    Ok(())
}

/// The messages of a record, in the order in which they came.
pub(super) fn read(record: &[u8]) -> impl Iterator<Item = Result<Stored<'_>, Unreadable>> {
    let (known, body) = match record.split_first() {
        Some((&VERSION, body)) => (true, body),
        _ => (false, &[][..]),
    };
    let mut decoder = Decoder::new(body);
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended || (known && decoder.position() >= decoder.input().len()) {
            return None;
        }
        let message = if known { decode(&mut decoder) } else { Err(Unreadable) };
        ended = message.is_err();
        Some(message)
    })
}

fn decode<'a>(decoder: &mut Decoder<'a>) -> Result<Stored<'a>, Unreadable> {
    let mut read = || {
        if decoder.array()? != Some(12) {
            return Err(minicbor::decode::Error::message("another number of fields"));
        }
        let device = (decoder.str()?, decoder.str()?);
        let (device_uid, application) = (decoder.str()?, decoder.str()?);
        let uid = read_uid(decoder)?;
        Ok(Stored {
            device,
            device_uid,
            application,
            uid,
            start: Start { boot: decoder.u64()?, id: decoder.u64()? },
            sequence: decoder.u64()?,
            unix_ms: decoder.u64()?,
            lost: decoder.u32()?,
            topic: decoder.str()?,
            payload: decoder.bytes()?,
        })
    };
    read().map_err(|_: minicbor::decode::Error| Unreadable)
}

fn read_uid(decoder: &mut Decoder<'_>) -> Result<ApplicationUid, minicbor::decode::Error> {
    let bytes = decoder.bytes()?.try_into();
    bytes.map(ApplicationUid).map_err(|_| minicbor::decode::Error::message("no UID"))
}

/// The places of a device, for the disk.
pub(super) fn write_places(device_uid: &str, places: &Places) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    let mut encoder = Encoder::new(&mut bytes);
    let written = (|| {
        encoder.str(device_uid)?.array(places.len() as u64)?;
        for (uid, starts) in places.iter() {
            encoder.array(2)?.bytes(&uid.0)?.array(starts.len() as u64)?;
            for (start, sequence) in starts {
                encoder.array(3)?.u64(start.boot)?.u64(start.id)?.u64(*sequence)?;
            }
        }
        Ok::<(), minicbor::encode::Error<std::convert::Infallible>>(())
    })();
    debug_assert!(written.is_ok(), "writing to a Vec can't fail");
    bytes
}

/// The Device's UID and its places.
pub(super) fn read_places(bytes: &[u8]) -> Result<(&str, Places), Unreadable> {
    let Some((&VERSION, body)) = bytes.split_first() else { return Err(Unreadable) };
    let mut decoder = Decoder::new(body);
    let mut read = || {
        let device_uid = decoder.str()?;
        let mut places = Places::default();
        for _ in 0..decoder.array()?.unwrap_or(0) {
            decoder.array()?;
            let uid = read_uid(&mut decoder)?;
            for _ in 0..decoder.array()?.unwrap_or(0) {
                decoder.array()?;
                let start = Start { boot: decoder.u64()?, id: decoder.u64()? };
                places.note(uid, start, decoder.u64()?);
            }
        }
        Ok((device_uid, places))
    };
    read().map_err(|_: minicbor::decode::Error| Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sequence: u64, payload: &[u8]) -> Stored<'_> {
        Stored {
            device: ("lab", "sensor-1"),
            device_uid: "5e0f7a1c-0000-4000-8000-000000000001",
            application: "lab/thermometer",
            uid: ApplicationUid([7; 16]),
            start: Start { boot: u64::MAX, id: u64::MAX },
            sequence,
            unix_ms: u64::MAX,
            lost: u32::MAX,
            topic: "temperature",
            payload,
        }
    }

    #[test]
    fn what_was_written_is_read_in_its_order() {
        let long = [0xa5; 1_024];
        let messages = [message(1, b""), message(u64::MAX, &long), message(3, b"21.5")];
        let mut record = Record::default();
        let bytes: usize = messages.iter().map(|message| record.push(message)).sum();
        let record = record.into_bytes();
        assert_eq!(record.len(), 1 + bytes);
        assert_eq!(read(&record).collect::<Result<Vec<_>, _>>(), Ok(messages.to_vec()));
        // A part of it is no shorter record, unless it ends with a message.
        for end in 0..record.len() {
            if let Ok(read) = read(&record[..end]).collect::<Result<Vec<_>, _>>() {
                assert_eq!(read, messages[..read.len()]);
            }
        }
        let mut newer = record.clone();
        newer[0] = 2;
        assert_eq!(read(&newer).collect::<Vec<_>>(), [Err(Unreadable)]);
        assert_eq!(read(&[]).collect::<Vec<_>>(), [Err(Unreadable)]);
    }

    #[test]
    fn places_are_read_as_they_were_written() {
        let mut places = Places::default();
        for (uid, boot, sequence) in [(1, 4, 10), (1, 5, 2), (2, 5, 7)] {
            places.note(ApplicationUid([uid; 16]), Start { boot, id: 9 }, sequence);
        }
        let bytes = write_places("uid", &places);
        assert_eq!(read_places(&bytes), Ok(("uid", places)));
        assert_eq!(read_places(&bytes[..bytes.len() - 1]), Err(Unreadable));
        assert_eq!(read_places(&[9]), Err(Unreadable));
    }
}
