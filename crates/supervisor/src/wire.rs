//! Bytes of the link: whole frames out of what came, and what is still to be sent.

use alloc::{vec, vec::Vec};

use wasmbed_protocol::{FrameError, Frames, limits::FRAME_BYTES_MAX};

use crate::platform::Link;

/// One frame comes together in one buffer and one goes out of another: the least that works.
#[derive(Debug)]
pub(crate) struct Wire {
    inbound: Vec<u8>,
    held: usize,
    outbound: Vec<u8>,
    to_send: core::ops::Range<usize>,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self { inbound: vec![0; FRAME_BYTES_MAX], held: 0, outbound: vec![0; FRAME_BYTES_MAX], to_send: 0..0 }
    }

    /// Another connection begins.
    pub(crate) fn clear(&mut self) {
        self.held = 0;
        self.to_send = 0..0;
    }

    /// Reads once and hands every whole frame's body to `handle`. Answers how many bytes came.
    pub(crate) fn receive<L: Link>(
        &mut self,
        link: &mut L,
        mut handle: impl FnMut(&[u8]),
    ) -> Result<usize, FrameError> {
        let Some(room) = self.inbound.get_mut(self.held..) else {
            debug_assert!(false, "no more is held than the buffer takes");
            return Ok(0);
        };
        let came = link.recv(room);
        self.held = (self.held + came).min(self.inbound.len());
        let mut frames = Frames::new(self.inbound.get(..self.held).unwrap_or(&[]));
        for body in frames.by_ref() {
            handle(body?);
        }
        let done = frames.consumed();
        self.inbound.copy_within(done..self.held, 0);
        self.held -= done;
        Ok(came)
    }

    /// Sends what waits, then what `next` writes, until the link is full or there is nothing, or `frames_max` frames were
    /// begun. True if everything is sent.
    pub(crate) fn send<L: Link>(
        &mut self,
        link: &mut L,
        frames_max: usize,
        mut next: impl FnMut(&mut [u8]) -> Option<usize>,
    ) -> Sent {
        let mut frames = 0;
        loop {
            while !self.to_send.is_empty() {
                let taken = link.send(self.outbound.get(self.to_send.clone()).unwrap_or(&[]));
                if taken == 0 {
                    return Sent::Blocked;
                }
                self.to_send.start = (self.to_send.start + taken).min(self.to_send.end);
            }
            if frames == frames_max {
                return Sent::More;
            }
            match next(&mut self.outbound) {
                None => return Sent::All,
                Some(length) => self.to_send = 0..length.min(self.outbound.len()),
            }
            frames += 1;
        }
    }
}

/// How far sending came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// There is nothing left.
    All,
    /// There may be more.
    More,
    /// The link takes no more now.
    Blocked,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::LinkState;

    /// Takes and gives so many bytes at a time.
    struct Pipe {
        bytes: Vec<u8>,
        step: usize,
    }

    impl Link for Pipe {
        fn state(&mut self) -> LinkState {
            LinkState::Up
        }
        fn connect(&mut self) {}
        fn close(&mut self) {}
        fn send(&mut self, bytes: &[u8]) -> usize {
            let taken = bytes.len().min(self.step);
            self.bytes.extend_from_slice(&bytes[..taken]);
            self.step -= taken;
            taken
        }
        fn recv(&mut self, buffer: &mut [u8]) -> usize {
            let given = self.bytes.len().min(self.step).min(buffer.len());
            buffer[..given].copy_from_slice(&self.bytes[..given]);
            self.bytes.drain(..given);
            given
        }
    }

    #[test]
    fn frames_come_together_from_single_bytes() {
        let mut pipe = Pipe { bytes: vec![0, 1, 7, 0, 2, 8, 9], step: 1 };
        let (mut wire, mut bodies) = (Wire::new(), Vec::new());
        while wire.receive(&mut pipe, |body| bodies.push(body.to_vec())).unwrap() > 0 {}
        assert_eq!(bodies, [vec![7], vec![8, 9]]);
    }

    #[test]
    fn frames_of_the_largest_size_pass_one_after_the_other() {
        let mut frame = vec![0x0f, 0xfe];
        frame.resize(FRAME_BYTES_MAX, 5);
        let mut pipe = Pipe { bytes: frame.repeat(3), step: usize::MAX };
        let (mut wire, mut count) = (Wire::new(), 0);
        while wire.receive(&mut pipe, |body| count += usize::from(body.len() == FRAME_BYTES_MAX - 2)).unwrap()
            > 0
        {}
        assert_eq!(count, 3);
    }

    #[test]
    fn a_longer_frame_is_refused_from_its_length() {
        let mut pipe = Pipe { bytes: vec![0xff, 0xff], step: usize::MAX };
        assert!(matches!(Wire::new().receive(&mut pipe, |_| {}), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn a_full_link_takes_the_rest_later() {
        let mut pipe = Pipe { bytes: vec![], step: 3 };
        let mut wire = Wire::new();
        let mut frames = [vec![1; 5], vec![2; 2]].into_iter();
        let mut next = |buffer: &mut [u8]| {
            frames.next().map(|frame| {
                buffer[..frame.len()].copy_from_slice(&frame);
                frame.len()
            })
        };
        assert_eq!(wire.send(&mut pipe, 8, &mut next), Sent::Blocked);
        pipe.step = 100;
        assert_eq!(wire.send(&mut pipe, 8, &mut next), Sent::All);
        assert_eq!(pipe.bytes, [1, 1, 1, 1, 1, 2, 2]);
    }
}
