//! Frames: two length bytes, big-endian, then that many bytes of CBOR.

use crate::{
    error::FrameError,
    limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX},
};

/// Length of the length.
pub const FRAME_HEAD_BYTES: usize = 2;

/// Whole length of the frame at the start of `buffer`, its two length bytes included; `None` while fewer than two
/// bytes are there. A receiver learns this way that a frame is too long before it has received the body.
///
/// # Errors
/// The declared length is 0 or too large.
pub fn frame_length(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(&[high, low]) = buffer.first_chunk::<FRAME_HEAD_BYTES>() else {
        return Ok(None);
    };
    match usize::from(u16::from_be_bytes([high, low])) {
        0 => Err(FrameError::Empty),
        body if body > BODY_BYTES_MAX => Err(FrameError::TooLong { declared: body + FRAME_HEAD_BYTES }),
        body => Ok(Some(body + FRAME_HEAD_BYTES)),
    }
}

/// Splits received bytes into the bodies of whole frames. After the last body, [`Frames::consumed`] says how many
/// bytes are done with; the rest is the start of a frame that has not arrived in full, at most
/// [`FRAME_BYTES_MAX`] - 1 bytes.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    buffer: &'a [u8],
    consumed: usize,
}

impl<'a> Frames<'a> {
    /// Splits `buffer`, which begins with a frame.
    #[must_use]
    pub const fn new(buffer: &'a [u8]) -> Self {
        Self { buffer, consumed: 0 }
    }

    /// Bytes of the frames that were handed out.
    #[must_use]
    pub const fn consumed(&self) -> usize {
        self.consumed
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<&'a [u8], FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.buffer.get(self.consumed..)?;
        let length = match frame_length(rest) {
            Ok(length) => length?,
            Err(error) => return Some(Err(error)),
        };
        debug_assert!(length <= FRAME_BYTES_MAX, "frame_length refuses more");
        let body = rest.get(FRAME_HEAD_BYTES..length)?;
        self.consumed += length;
        Some(Ok(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_come_out_whole_and_the_rest_stays() {
        let bytes = [0, 1, 0xa0, 0, 2, 0xa0, 0xa1, 0, 3, 0xa2];
        let mut frames = Frames::new(&bytes);
        assert_eq!(frames.next(), Some(Ok(&[0xa0][..])));
        assert_eq!(frames.next(), Some(Ok(&[0xa0, 0xa1][..])));
        assert_eq!(frames.next(), None);
        assert_eq!(frames.consumed(), 7);
    }

    #[test]
    fn a_byte_at_a_time_gives_the_same() {
        let bytes = [0, 2, 0xa0, 0xa1];
        for end in 0..bytes.len() {
            assert_eq!(Frames::new(&bytes[..end]).next(), None);
        }
        assert_eq!(Frames::new(&bytes).next(), Some(Ok(&[0xa0, 0xa1][..])));
    }

    #[test]
    fn a_length_is_refused_before_its_body_arrives() {
        assert_eq!(frame_length(&[0x0f]), Ok(None));
        assert_eq!(frame_length(&[0x0f, 0xfe]), Ok(Some(FRAME_BYTES_MAX)));
        assert_eq!(frame_length(&[0x0f, 0xff]), Err(FrameError::TooLong { declared: 4_097 }));
        assert_eq!(frame_length(&[0, 0, 1]), Err(FrameError::Empty));
    }
}
