//! Asking a gateway for a certificate: before there is a session, which is joining, or within one, which is renewing.
//!
//! ```text
//!  Begin --Effect::Request--> Signing --handle_request--> Ready --Join--> Waiting --Certificate, all pieces--> Received
//!                                                           ^              |    ^                                 |
//!                                 handle_proof              |     ProofNeeded   | Pending                 Effect::CheckChain
//!                            Proving <--Effect::Prove-- Asked <---(joining)-----+                                 v
//!                                                                          |                                  Checking
//!                                                                       Refused                                   |
//!                                                                          v                               handle_chain
//!                                                                        over                                     v
//!                                                                                                               over
//! ```
//! Each effect is answered before the next one is asked for. A piece out of order, of another chain or beyond its bound is a
//! bad frame; the chain that comes together is judged by the board, which has the key.

use alloc::{string::String, vec::Vec};

use wasmbed_protocol::{
    Certificate, JoinAnswer, JoinState,
    limits::{CHAIN_BYTES_MAX, JOIN_PROOF_BYTES_MAX, REQUEST_BYTES_MAX},
};

use crate::backoff::RECONNECT_RESET_MS;

use super::{IdentityError, JOIN_ANSWER_TIMEOUT_MS, JOINING_MS_MAX, JoinDevice, PROOFS_MAX};

/// What for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Joining,
    Renewing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Begin,
    Signing,
    Ready { proof: Option<Vec<u8>> },
    Waiting,
    Asked(JoinDevice),
    Proving,
    Received,
    Checking,
}

/// What the board is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Request,
    Prove(JoinDevice),
    Check,
}

/// What an answer of the gateway came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// Go on.
    Going,
    /// Something is waited for; said once for each change.
    Pending,
    /// The exchange is over, to be tried again.
    Refused,
    /// The answer belongs to nothing that was sent.
    Unexpected,
    /// It breaks the protocol: what is wrong.
    Broken(&'static str),
}

/// One exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exchange {
    purpose: Purpose,
    step: Step,
    request: Vec<u8>,
    chain: Vec<u8>,
    chain_bytes: usize,
    proofs: u32,
    /// What the gateway waits for, in its words.
    waits_for: Option<String>,
    begun_ms: u64,
    last_ms: u64,
    deadline_ms: u64,
}

impl Exchange {
    pub(crate) fn new(purpose: Purpose, now_ms: u64) -> Self {
        Self {
            purpose,
            step: Step::Begin,
            request: Vec::new(),
            chain: Vec::new(),
            chain_bytes: 0,
            proofs: 0,
            waits_for: None,
            begun_ms: now_ms,
            last_ms: now_ms.saturating_add(JOINING_MS_MAX),
            deadline_ms: now_ms.saturating_add(JOIN_ANSWER_TIMEOUT_MS),
        }
    }

    pub(crate) fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Whether the gateway took the request up and the device waited: to be asked to come again is no failure then.
    pub(crate) fn has_waited(&self, now_ms: u64) -> bool {
        self.waits_for.is_some() && now_ms.saturating_sub(self.begun_ms) >= RECONNECT_RESET_MS
    }

    pub(crate) fn timeout(&self) -> u64 {
        self.deadline_ms
    }

    pub(crate) fn is_late(&self, now_ms: u64) -> bool {
        self.deadline_ms <= now_ms
    }

    pub(crate) fn poll_ask(&mut self) -> Option<Ask> {
        match &mut self.step {
            Step::Begin => {
                self.step = Step::Signing;
                Some(Ask::Request)
            }
            Step::Asked(device) => {
                let device = JoinDevice {
                    namespace: core::mem::take(&mut device.namespace),
                    name: core::mem::take(&mut device.name),
                    device_uid: device.device_uid,
                };
                self.step = Step::Proving;
                Some(Ask::Prove(device))
            }
            Step::Received => {
                self.step = Step::Checking;
                Some(Ask::Check)
            }
            Step::Signing | Step::Ready { .. } | Step::Waiting | Step::Proving | Step::Checking => None,
        }
    }

    /// The board made a request.
    ///
    /// # Errors
    /// It is none that can be sent.
    pub(crate) fn handle_request(&mut self, request: Vec<u8>) -> Result<(), IdentityError> {
        if self.step == Step::Signing {
            check_length(&request, REQUEST_BYTES_MAX)?;
            self.request = request;
            self.step = Step::Ready { proof: None };
        }
        Ok(())
    }

    /// The board made a proof.
    ///
    /// # Errors
    /// It is none that can be sent.
    pub(crate) fn handle_proof(&mut self, proof: Vec<u8>) -> Result<(), IdentityError> {
        if self.step == Step::Proving {
            check_length(&proof, JOIN_PROOF_BYTES_MAX)?;
            self.step = Step::Ready { proof: Some(proof) };
        }
        Ok(())
    }

    /// Whether the board is to be heard about a chain.
    pub(crate) fn is_checking(&self) -> bool {
        self.step == Step::Checking
    }

    /// Request and proof, if they are to be sent now.
    pub(crate) fn to_send(&self) -> Option<(&[u8], Option<&[u8]>)> {
        match &self.step {
            Step::Ready { proof } => Some((&self.request, proof.as_deref())),
            Step::Begin
            | Step::Signing
            | Step::Waiting
            | Step::Asked(_)
            | Step::Proving
            | Step::Received
            | Step::Checking => None,
        }
    }

    pub(crate) fn note_sent(&mut self, now_ms: u64) {
        self.step = Step::Waiting;
        self.deadline_ms = now_ms.saturating_add(JOIN_ANSWER_TIMEOUT_MS).min(self.last_ms);
    }

    pub(crate) fn handle_answer(&mut self, answer: &JoinAnswer<'_>) -> Answered {
        if self.step != Step::Waiting {
            return Answered::Unexpected;
        }
        match (answer.state, answer.device_uid) {
            (JoinState::ProofNeeded, Some(device_uid)) if self.purpose == Purpose::Joining => {
                self.proofs += 1;
                if self.proofs > PROOFS_MAX {
                    return Answered::Broken("no proof is ever enough for it");
                }
                self.step = Step::Asked(JoinDevice {
                    namespace: String::from(answer.namespace),
                    name: String::from(answer.name),
                    device_uid,
                });
                Answered::Going
            }
            (JoinState::ProofNeeded, None) => {
                Answered::Broken("a proof is asked for, and no Device is named")
            }
            (JoinState::ProofNeeded, Some(_)) => Answered::Broken("a proof is asked for within a session"),
            (JoinState::Pending, _) => {
                self.deadline_ms = self.last_ms;
                if self.waits_for.as_deref() == Some(answer.detail) {
                    return Answered::Going;
                }
                self.waits_for = Some(String::from(answer.detail));
                Answered::Pending
            }
            (JoinState::Refused, _) => Answered::Refused,
            // A later gateway's: whatever it means, something is still to come.
            (JoinState::Unknown(_), _) => Answered::Going,
        }
    }

    pub(crate) fn handle_piece(&mut self, piece: &Certificate<'_>) -> Answered {
        if self.step != Step::Waiting {
            return Answered::Unexpected;
        }
        let total = piece.chain_bytes as usize;
        if self.chain.is_empty() {
            if total == 0 || piece.chain_bytes > CHAIN_BYTES_MAX {
                return Answered::Broken("a chain of another length than there can be");
            }
            if self.chain.try_reserve_exact(total).is_err() {
                return Answered::Broken("there is no memory for the chain");
            }
            self.chain_bytes = total;
        }
        let end = self.chain.len() + piece.bytes.len();
        if total != self.chain_bytes || piece.offset as usize != self.chain.len() || end > total {
            return Answered::Broken("a piece of a chain that is not the next one");
        }
        if piece.bytes.is_empty() {
            return Answered::Broken("a piece of a chain without bytes");
        }
        self.chain.extend_from_slice(piece.bytes);
        self.deadline_ms = self.last_ms;
        if end == total {
            self.step = Step::Received;
        }
        Answered::Going
    }

    /// The chain that came together; empty before.
    pub(crate) fn chain(&self) -> &[u8] {
        if self.is_checking() { &self.chain } else { &[] }
    }

    /// The chain, once it was judged.
    pub(crate) fn into_chain(self) -> Vec<u8> {
        self.chain
    }
}

fn check_length(made: &[u8], bytes_max: usize) -> Result<(), IdentityError> {
    if (1..=bytes_max).contains(&made.len()) {
        return Ok(());
    }
    let problem = alloc::format!("the board made {} bytes, and 1 to {bytes_max} can be sent", made.len());
    Err(IdentityError::Failed(problem))
}
