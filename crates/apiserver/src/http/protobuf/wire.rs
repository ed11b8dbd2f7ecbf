//! The wire format of protocol buffers (<https://protobuf.dev/programming-guides/encoding/>).

/// Longest varint, bytes.
const VARINT_BYTES_MAX: u32 = 10;
/// Wire type of numbers as varints.
const VARINT: u64 = 0;
/// Wire type of bytes, text and messages: a length, then that many bytes.
const LENGTH_DELIMITED: u64 = 2;

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data<'a> {
    /// Bytes, text or a message.
    Bytes(&'a [u8]),
    /// A varint.
    Number(u64),
    /// A fixed-width number; no field that is read here has one.
    Fixed,
}

/// The body ends inside a field, or is not in the wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the protobuf body is truncated or malformed")]
pub(crate) struct Malformed;

/// The fields of one message: number and value.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Data<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or(Malformed);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Data<'a>)> {
        let tag = self.varint()?;
        let data = match tag & 7 {
            VARINT => Data::Number(self.varint()?),
            1 => self.take(8).map(|_| Data::Fixed)?,
            LENGTH_DELIMITED => {
                let length = usize::try_from(self.varint()?).ok()?;
                Data::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Data::Fixed)?,
            _ => return None,
        };
        Some((tag >> 3, data))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for index in 0..VARINT_BYTES_MAX {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Appends a field with a varint.
pub(super) fn put_number(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3 | VARINT);
    put_varint(out, value);
}

/// Appends a field with bytes, text or a message.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    put_varint(out, field << 3 | LENGTH_DELIMITED);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_fields_decode_to_themselves() {
        let mut out = Vec::new();
        put_number(&mut out, 1, 0);
        put_number(&mut out, 1000, u64::MAX);
        put_bytes(&mut out, 2, b"text");
        let read: Result<Vec<_>, _> = Fields(&out).collect();
        assert_eq!(
            read,
            Ok(vec![(1, Data::Number(0)), (1000, Data::Number(u64::MAX)), (2, Data::Bytes(b"text"))])
        );
    }

    #[test]
    fn a_length_beyond_the_body_is_malformed() {
        let body = [2 << 3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(Fields(&body).collect::<Vec<_>>(), [Err(Malformed)]);
    }
}
