//! Asking for certificates, joining and renewing: what the board and the gateway answer, and what comes of it.

use alloc::{string::String, vec::Vec};

use wasmbed_protocol::{
    Certificate, DeviceMessage, ErrorCode, Join, JoinAnswer, KeyHash, MessageGroups, encode_device, tag,
};

use super::Agent;
use crate::{
    effect::Effect,
    event::Event,
    identity::{
        ChainFacts, IdentityError, Presented,
        credentials::KeyAsk,
        exchange::{Answered, Ask, Exchange, Purpose},
        pause::RenewalPause,
    },
};

impl Agent {
    /// What the next [`Effect::Connect`] presents.
    #[must_use]
    pub fn presented(&self) -> Presented<'_> {
        self.credentials.presented()
    }

    /// The key that [`Effect::UseKey`] is about, PKCS #8; empty at other times.
    #[must_use]
    pub fn operational_key(&self) -> &[u8] {
        self.credentials.key()
    }

    /// The chain that [`Effect::CheckChain`] is about; empty at other times.
    #[must_use]
    pub fn received_chain(&self) -> &[u8] {
        self.exchange.as_ref().map_or(&[], Exchange::chain)
    }

    /// The board made a key, or could not.
    pub fn handle_key(&mut self, now_ms: u64, made: Result<Vec<u8>, IdentityError>) {
        self.clock.advance(now_ms);
        self.credentials.handle_key(made, self.clock.now_ms(), &mut self.events);
    }

    /// The board took the key into use, or could not.
    pub fn handle_key_used(&mut self, now_ms: u64, used: Result<KeyHash, IdentityError>) {
        self.clock.advance(now_ms);
        self.credentials.handle_key_used(used, self.clock.now_ms(), &mut self.events);
    }

    /// The board made a request, or could not.
    pub fn handle_request(&mut self, now_ms: u64, made: Result<Vec<u8>, IdentityError>) {
        self.clock.advance(now_ms);
        let Some(exchange) = &mut self.exchange else { return };
        let taken = made.and_then(|request| exchange.handle_request(request));
        if let Err(error) = taken {
            self.give_up(error);
        }
    }

    /// The board made a proof, or could not.
    pub fn handle_proof(&mut self, now_ms: u64, made: Result<Vec<u8>, IdentityError>) {
        self.clock.advance(now_ms);
        let Some(exchange) = &mut self.exchange else { return };
        let taken = made.and_then(|proof| exchange.handle_proof(proof));
        if let Err(error) = taken {
            self.give_up(error);
        }
    }

    /// The board judged the chain.
    pub fn handle_chain(&mut self, now_ms: u64, judged: Result<ChainFacts, IdentityError>) {
        self.clock.advance(now_ms);
        let Some(exchange) = self.exchange.take_if(|exchange| exchange.is_checking()) else { return };
        let judged = judged.and_then(|facts| self.check_facts(facts));
        match judged {
            Ok(facts) => {
                match exchange.purpose() {
                    Purpose::Joining => self.renewal = RenewalPause::default(),
                    Purpose::Renewing => {
                        let left_s = self.clock.unix_s().map(|now_s| facts.not_after_s.saturating_sub(now_s));
                        self.renewal.handle_renewed(left_s, self.clock.now_ms());
                    }
                }
                self.credentials.keep(self.clock.now_ms(), exchange.into_chain(), facts);
                self.events.push(Event::Issued { not_after_s: facts.not_after_s });
            }
            Err(error) => self.give_up(error),
        }
        self.settle();
    }

    /// A chain that is over, or of no length, is none to use, and asking for the next one at once would be endless.
    fn check_facts(&self, facts: ChainFacts) -> Result<ChainFacts, IdentityError> {
        let over = self.clock.unix_s().is_some_and(|now_s| now_s > facts.not_after_s);
        if over || facts.not_after_s <= facts.not_before_s {
            return Err(IdentityError::Chain("its time is over".into()));
        }
        Ok(facts)
    }

    /// What was to be presented can't be: the attempt is over before it began. `random` as in `handle_disconnected`.
    pub fn handle_unpresented(&mut self, now_ms: u64, random: u32, error: IdentityError) {
        self.clock.advance(now_ms);
        self.events.push(Event::IdentityFailed { error });
        if self.credentials.handle_turned_away(false) {
            self.renewal.handle_turned_away(self.clock.now_ms());
        }
        self.take_down(random);
        self.settle();
    }

    /// The board's part failed: the connection, or the renewal, is tried again later.
    fn give_up(&mut self, error: IdentityError) {
        self.events.push(Event::IdentityFailed { error });
        self.end_exchange(0);
    }

    /// The exchange came to nothing. Joining ends with it; a session goes on.
    fn end_exchange(&mut self, retry_after_ms: u32) {
        self.exchange = None;
        if self.connection.is_joining() {
            self.connection.handle_refused(retry_after_ms);
            self.close();
        } else {
            self.renewal.handle_failed(retry_after_ms, self.clock.now_ms());
        }
    }

    /// The board's part, if there is one to do.
    pub(super) fn poll_identity(&mut self) -> Option<Effect> {
        if let Some(ask) = self.credentials.poll_ask() {
            return Some(match ask {
                KeyAsk::Make => Effect::MakeKey,
                KeyAsk::Use => Effect::UseKey,
            });
        }
        Some(match self.exchange.as_mut()?.poll_ask()? {
            Ask::Request => Effect::Request,
            Ask::Prove(device) => Effect::Prove(device),
            Ask::Check => Effect::CheckChain,
        })
    }

    pub(super) fn handle_join_answer(&mut self, answer: &JoinAnswer<'_>) {
        let Some(exchange) = &mut self.exchange else { return self.complain_of_join(tag::JOIN_ANSWER) };
        match exchange.handle_answer(answer) {
            Answered::Going => {}
            Answered::Pending => {
                self.events.push(Event::Waiting {
                    namespace: String::from(answer.namespace),
                    name: String::from(answer.name),
                    detail: String::from(answer.detail),
                });
            }
            Answered::Refused => {
                let (detail, retry_after_ms) = (String::from(answer.detail), answer.retry_after_ms);
                self.events.push(Event::JoinRefused { detail, retry_after_ms });
                self.end_exchange(retry_after_ms);
            }
            Answered::Unexpected => self.complain_of_join(tag::JOIN_ANSWER),
            Answered::Broken(detail) => self.break_off(detail),
        }
    }

    pub(super) fn handle_certificate(&mut self, piece: &Certificate<'_>) {
        let Some(exchange) = &mut self.exchange else { return self.complain_of_join(tag::CERTIFICATE) };
        match exchange.handle_piece(piece) {
            Answered::Going | Answered::Pending | Answered::Refused => {}
            Answered::Unexpected => self.complain_of_join(tag::CERTIFICATE),
            Answered::Broken(detail) => self.break_off(detail),
        }
    }

    fn complain_of_join(&mut self, tag: u32) {
        self.connection.complain(ErrorCode::Unexpected, Some(tag), "no Join was sent");
    }

    /// A message that breaks the protocol ends the connection.
    fn break_off(&mut self, detail: &'static str) {
        self.events.push(Event::BadFrame { detail: detail.into() });
        self.close();
    }

    /// Sends Join, if one is to be sent.
    pub(super) fn transmit_join(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let exchange = self.exchange.as_mut()?;
        let renews = exchange.purpose() == Purpose::Renewing;
        let (request, proof) = exchange.to_send()?;
        let join = Join {
            request,
            proof,
            pairing_id: self.credentials.pairing_id().filter(|_| !renews),
            board: &self.config.facts.board,
            firmware: &self.config.facts.firmware,
        };
        let first = proof.is_none();
        let length = encode_device(&DeviceMessage::Join(join), buffer).ok();
        exchange.note_sent(self.clock.now_ms());
        if first {
            self.events.push(Event::Asked { renews });
        }
        length
    }

    /// Begins what is due: a renewal, or the end of a connection that brought a chain.
    pub(super) fn settle_identity(&mut self) {
        if self.connection.is_joining() && self.exchange.is_none() && self.credentials.is_settled() {
            // It came to what it was made for: the next connection is another one.
            self.connection.note_progress();
            self.end_connection();
        }
        let due = self.renewal_timeout().is_some_and(|at_ms| at_ms <= self.clock.now_ms());
        if due {
            self.exchange = Some(Exchange::new(Purpose::Renewing, self.clock.now_ms()));
        }
    }

    /// When a certificate is to be renewed in this session, by the gateway's clock or by the device's own, whichever says so first;
    /// none without a gateway that does.
    fn renewal_timeout(&self) -> Option<u64> {
        let takes = self.connection.established()?.takes(MessageGroups::RENEWAL);
        if !takes || self.exchange.is_some() || self.is_decommissioned() {
            return None;
        }
        let (at_s, now_s) = (self.credentials.renew_at_s()?, self.clock.unix_s()?);
        let wait_ms = at_s.saturating_sub(now_s).saturating_mul(1_000);
        let at_ms = self.clock.after(wait_ms).min(self.credentials.renew_by_ms()?);
        Some(at_ms.max(self.renewal.until_ms()))
    }

    /// When something about the identity is to be done.
    pub(super) fn identity_timeout(&self) -> Option<u64> {
        let exchange = self.exchange.as_ref().map(Exchange::timeout);
        [self.credentials.timeout(), exchange, self.renewal_timeout()].into_iter().flatten().min()
    }

    pub(super) fn handle_identity_timeout(&mut self) {
        let now_ms = self.clock.now_ms();
        self.credentials.handle_timeout(now_ms);
        if self.exchange.as_ref().is_some_and(|exchange| exchange.is_late(now_ms)) {
            if self.connection.is_joining() {
                self.events.push(Event::Silent);
            }
            self.end_exchange(0);
        }
    }

    /// Whether what is asked for is asked for by somebody.
    pub(super) fn is_identity_consistent(&self) -> bool {
        let exchange = match self.exchange.as_ref().map(Exchange::purpose) {
            None => true,
            Some(Purpose::Joining) => self.connection.is_joining(),
            Some(Purpose::Renewing) => self.connection.established().is_some(),
        };
        exchange
            && self.credentials.is_consistent()
            && (self.credentials.is_ready() || self.credentials.is_retired() || self.connection.is_down())
    }
}
