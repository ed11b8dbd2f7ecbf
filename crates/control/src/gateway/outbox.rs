//! What is to be said about a certificate: the newest answer, then the chain in pieces.

use std::sync::Arc;

use wasmbed_protocol::{
    Certificate, DeviceUid, GatewayMessage, JoinAnswer, JoinState,
    limits::{CHUNK_BYTES_MAX, DETAIL_BYTES_MAX},
};

use crate::{ObjectKey, harmless};

/// The Device that an answer is about.
pub(super) type Subject = (DeviceUid, Arc<ObjectKey>);

/// An answer to a Join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    state: JoinState,
    device: Option<Subject>,
    retry_after_ms: u32,
    detail: String,
}

impl Answer {
    /// The device is to prove that it is this Device's.
    pub(super) fn proof_needed(device: Subject) -> Self {
        Self { state: JoinState::ProofNeeded, device: Some(device), retry_after_ms: 0, detail: String::new() }
    }

    /// What the Device's request waits for.
    pub(super) fn pending(device: Subject, detail: &str) -> Self {
        let detail = harmless(detail, DETAIL_BYTES_MAX).into_owned();
        Self { state: JoinState::Pending, device: Some(device), retry_after_ms: 0, detail }
    }

    /// Why there is no certificate, and when to ask again.
    pub(super) fn refused(device: Option<Subject>, retry_after_ms: u32, detail: &str) -> Self {
        let detail = harmless(detail, DETAIL_BYTES_MAX).into_owned();
        Self { state: JoinState::Refused, device, retry_after_ms, detail }
    }
}

/// A part of a chain, from `offset` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    chain: Arc<[u8]>,
    offset: usize,
}

/// The next message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Answer(Answer),
    Piece(Piece),
}

impl Said {
    /// As the device is sent it.
    pub(super) fn to_message(&self) -> GatewayMessage<'_> {
        match self {
            Self::Answer(Answer { state, device, retry_after_ms, detail }) => {
                let (namespace, name) =
                    device.as_ref().map_or(("", ""), |(_, key)| (&*key.namespace, &*key.name));
                GatewayMessage::JoinAnswer(JoinAnswer {
                    state: *state,
                    device_uid: device.as_ref().map(|(uid, _)| *uid),
                    namespace,
                    name,
                    retry_after_ms: *retry_after_ms,
                    detail,
                })
            }
            Self::Piece(Piece { chain, offset }) => {
                let rest = chain.get(*offset..).unwrap_or_default();
                GatewayMessage::Certificate(Certificate {
                    // Chains are bounded before they come here.
                    chain_bytes: chain.len() as u32,
                    offset: *offset as u32,
                    bytes: rest.get(..CHUNK_BYTES_MAX).unwrap_or(rest),
                })
            }
        }
    }
}

/// What waits to be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outbox {
    answer: Option<Answer>,
    chain: Option<Piece>,
}

impl Outbox {
    /// Replaces an answer that was not sent yet.
    pub(super) fn answer(&mut self, answer: Answer) {
        self.answer = Some(answer);
    }

    /// The chain is here: nothing else is to be said about it.
    pub(super) fn deliver(&mut self, chain: Arc<[u8]>) {
        debug_assert!(!chain.is_empty(), "a chain has a certificate");
        *self = Self { answer: None, chain: Some(Piece { chain, offset: 0 }) };
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answer.is_none() && self.chain.is_none()
    }

    /// Takes what is to be said next.
    pub(super) fn next(&mut self) -> Option<Said> {
        if let Some(answer) = self.answer.take() {
            return Some(Said::Answer(answer));
        }
        let piece = self.chain.take()?;
        let offset = piece.offset + CHUNK_BYTES_MAX;
        if offset < piece.chain.len() {
            self.chain = Some(Piece { chain: Arc::clone(&piece.chain), offset });
        }
        Some(Said::Piece(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_goes_out_in_order_and_whole() {
        for bytes in [1, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 8_192] {
            let chain: Vec<u8> = (0..bytes).map(|index| index as u8).collect();
            let mut outbox = Outbox::default();
            outbox.answer(Answer::refused(None, 0, "waits"));
            outbox.deliver(chain.as_slice().into());
            let mut joined = Vec::new();
            while let Some(said) = outbox.next() {
                let GatewayMessage::Certificate(piece) = said.to_message() else { panic!("{said:?}") };
                assert_eq!((piece.chain_bytes as usize, piece.offset as usize), (bytes, joined.len()));
                joined.extend_from_slice(piece.bytes);
            }
            assert_eq!(joined, chain);
            assert!(outbox.is_empty());
        }
    }
}
