//! Many devices that join in the same moment, with the bounds that gateways have: how long it takes until all are in.

use std::net::IpAddr;

use wasmbed_protocol::{Join, JoinState};

use super::{
    joining::{config as joining_config, factory, issued, join, token},
    *,
};

/// A production line, behind one address.
const LINE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
/// Somebody else.
const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));
/// From a key that is pinned to the certificate beside it: the signer's second write.
const SIGNER_WRITES_MS: u64 = 20;
/// A call to the API of a busy machine.
const CALL_MS: u64 = 250;
/// What a crowd takes beyond its number over the rate: the longest that who was sent away waits, and what it adds itself.
const CONSTANT_MS: u64 = 120_000;

/// How one behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It says what it has to, waits, and comes back when it was told to, with the agent's own back-off.
    Honest,
    /// It takes a place and says nothing; it comes back at once, with another key.
    Mute,
    /// It makes up the proof of a token that it knows the id of; it comes back at once, with another key.
    Forger,
}

/// A device, or what passes for one, as far as it joins.
struct Board {
    manner: Manner,
    client: JoiningClient,
    key: String,
    pairing_id: Option<String>,
    id: Option<SessionId>,
    comes_ms: u64,
    begun_ms: u64,
    failures: u32,
    has_waited: bool,
    joined_ms: Option<u64>,
}

impl Board {
    fn new(client: JoiningClient, key: String) -> Self {
        Self {
            manner: Manner::Honest,
            client,
            key,
            pairing_id: None,
            id: None,
            comes_ms: 0,
            begun_ms: 0,
            failures: 0,
            has_waited: false,
            joined_ms: None,
        }
    }

    fn waits(&self) -> bool {
        self.joined_ms.is_none()
    }
}

/// What boards draw.
struct Noise(u64);

impl Noise {
    /// Anything from nothing to `max`.
    fn draw(&mut self, max: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % (max + 1)
    }
}

struct Crowd {
    world: World,
    boards: Vec<Board>,
    noise: Noise,
    /// Between two certificates.
    signer_ms: u64,
    signer_at_ms: u64,
    /// Requests in the order in which they came.
    queue: VecDeque<String>,
    known: BTreeSet<String>,
    /// Pinned, and issued a moment later.
    pinned: VecDeque<(u64, String)>,
    connections: usize,
    renewed: usize,
}

impl Crowd {
    fn new(certificates_per_s: u64) -> Self {
        // Nobody here says that it lives.
        let mut world = World::with(Config { heartbeat_timeout_ms: 3_600_000, ..joining_config() });
        world.list();
        world.slow_calls = Some(VecDeque::new());
        Self {
            world,
            boards: Vec::new(),
            noise: Noise(1),
            signer_ms: 1_000 / certificates_per_s,
            signer_at_ms: 0,
            queue: VecDeque::new(),
            known: BTreeSet::new(),
            pinned: VecDeque::new(),
            connections: 0,
            renewed: 0,
        }
    }

    /// Boards of a factory whose Devices a person registered, or did not.
    fn factory(&mut self, names: &str, count: usize, approved: bool, source: IpAddr) {
        for number in 0..count {
            let serial = format!("{names}-{number}");
            if approved {
                let spec =
                    DeviceSpec { serial: Some(serial.clone()), approved: true, ..DeviceSpec::default() };
                let device = self.world.api.create(&key(&serial), spec);
                self.world.gateway.handle_device(self.world.now, &device);
            }
            let client = JoiningClient { source, ..factory(&serial) };
            self.boards.push(Board::new(client, format!("key {serial}")));
        }
        self.world.settle();
    }

    /// Boards that were paired.
    fn paired(&mut self, names: &str, count: usize, source: IpAddr) {
        for number in 0..count {
            let (name, pairing_id) = (format!("{names}-{number}"), format!("{number:08x}"));
            let spec =
                DeviceSpec { pairing_id: Some(pairing_id.clone()), approved: true, ..DeviceSpec::default() };
            let device = self.world.api.create(&key(&name), spec);
            self.world.gateway.handle_device(self.world.now, &device);
            let client = JoiningClient { source, ..token(&format!("key {name}")) };
            let board = Board::new(client, format!("key {name}"));
            self.boards.push(Board { pairing_id: Some(pairing_id), ..board });
        }
        self.world.settle();
    }

    /// Established sessions that ask for their next certificates.
    fn renewing(&mut self, count: usize) {
        for number in 0..count {
            let device = key(&format!("renewing-{number}"));
            let own = format!("key {}", device.name);
            let public_key = base64::engine::general_purpose::STANDARD.encode(&own);
            let spec =
                DeviceSpec { approved: true, public_key: Some(public_key.clone()), ..DeviceSpec::default() };
            let object = self.world.api.create(&device, spec);
            self.world.gateway.handle_device(self.world.now, &object);
            let id = self.world.connect(&Identity { device, public_key });
            self.world.send(id, &DeviceMessage::Hello(hello(0, 0)));
            self.world.send(id, &DeviceMessage::Join(join(&own, None)));
        }
    }

    /// Who is up to no good, each with the id of a paired board's token.
    fn hostile(&mut self, manner: Manner, count: usize) {
        for number in 0..count {
            let (key, pairing_id) = (format!("key hostile-{number}"), Some(format!("{number:08x}")));
            let client = JoiningClient { source: ELSEWHERE, ..token(&key) };
            self.boards.push(Board { manner, pairing_id, ..Board::new(client, key) });
        }
    }

    /// Goes on until `done`, or for so long.
    fn run(&mut self, for_ms: u64, done: impl Fn(&Self) -> bool) {
        let end_ms = self.world.now.ms + for_ms;
        while self.world.now.ms < end_ms && !done(self) {
            let boards = self.boards.iter().filter(|board| board.waits() && board.id.is_none());
            let next = boards.map(|board| board.comes_ms).min().unwrap_or(u64::MAX);
            let signs = if self.queue.is_empty() { u64::MAX } else { self.signer_at_ms };
            let writes = self.pinned.front().map_or(u64::MAX, |(at_ms, _)| *at_ms);
            let answered = self.calls().front().map_or(u64::MAX, |(asked_ms, _)| asked_ms + CALL_MS);
            let gateway = self.world.gateway.poll_timeout();
            let due_ms = next.min(signs).min(writes).min(answered).min(gateway);
            let at_ms = due_ms.clamp(self.world.now.ms + 1, end_ms);
            self.world.advance(at_ms - self.world.now.ms);
            while let Some((_, call)) =
                self.calls().pop_front_if(|(asked_ms, _)| *asked_ms + CALL_MS <= at_ms)
            {
                self.world.answer_call(call);
                self.world.settle();
            }
            self.sign();
            for number in 0..self.boards.len() {
                self.step(number);
            }
            let renewed =
                |notice: &Notice| matches!(notice, Notice::JoinEnded { outcome: JoinOutcome::Renewed, .. });
            self.renewed += self.world.notices.drain(..).filter(renewed).count();
        }
        self.world.gateway.check().unwrap();
    }

    fn calls(&mut self) -> &mut VecDeque<(u64, CertificateCall)> {
        self.world.slow_calls.as_mut().unwrap()
    }

    fn sign(&mut self) {
        let now_ms = self.world.now.ms;
        if self.known.len() < self.world.api.requests.len() {
            let (known, queue) = (&mut self.known, &mut self.queue);
            let new = self.world.api.requests.keys().filter(|name| known.insert((*name).clone()));
            queue.extend(new.cloned());
        }
        while let Some((_, name)) = self.pinned.pop_front_if(|(at_ms, _)| *at_ms <= now_ms) {
            let (request, seen) = self.world.api.requests.get_mut(&name).unwrap();
            let key = String::from_utf8(request.request.to_vec()).unwrap();
            *seen = RequestSeen { approved: true, end: Some(issued(&key, &request.device)) };
        }
        if now_ms < self.signer_at_ms {
            return;
        }
        let is_ready = |name: &String| {
            let request = &self.world.api.requests[name].0;
            self.world.api.devices[&request.device].spec.approved
        };
        let Some(at) = self.queue.iter().position(is_ready) else { return };
        let name = self.queue.remove(at).unwrap();
        self.signer_at_ms = now_ms + self.signer_ms;
        let request = self.world.api.requests[&name].0.clone();
        let forged = match &request.evidence {
            Evidence::Token { mac, .. } => **mac == *b"forged",
            _ => false,
        };
        if forged {
            let end =
                RequestEnd::Failed { reason: "ProofRefused".into(), message: "the MAC is wrong".into() };
            self.world.api.requests.get_mut(&name).unwrap().1 =
                RequestSeen { approved: true, end: Some(end) };
            return;
        }
        let pinned = base64::engine::general_purpose::STANDARD.encode(&request.request);
        self.world.edit(&request.device, |device| {
            device.status.get_or_insert_default().public_key = Some(pinned);
        });
        self.pinned.push_back((now_ms + SIGNER_WRITES_MS, name));
    }

    fn step(&mut self, number: usize) {
        let now_ms = self.world.now.ms;
        let board = &mut self.boards[number];
        match board.id {
            None if board.waits() && board.comes_ms <= now_ms => {
                self.connections += 1;
                board.begun_ms = now_ms;
                let client = board.client.clone();
                match self.world.arrive(client) {
                    None => self.leave(number, 0),
                    Some(id) => {
                        self.boards[number].id = Some(id);
                        if !self.world.ended.contains(&id) && self.boards[number].manner != Manner::Mute {
                            self.say(number, id, None);
                        }
                        self.hear(number, id);
                    }
                }
            }
            Some(id) if self.world.raw.contains_key(&id) || self.world.ended.contains(&id) => {
                self.hear(number, id);
            }
            None | Some(_) => {}
        }
    }

    fn say(&mut self, number: usize, id: SessionId, proof: Option<&str>) {
        let board = &self.boards[number];
        let (key, pairing_id) = (board.key.clone(), board.pairing_id.clone());
        let said = Join { pairing_id: pairing_id.as_deref(), ..join(&key, proof) };
        self.world.send(id, &DeviceMessage::Join(said));
    }

    /// What the gateway said to a board, until it says no more.
    fn hear(&mut self, number: usize, id: SessionId) {
        let mut retry_after_ms = 0;
        while let Some(frames) = self.world.raw.remove(&id) {
            for frame in frames {
                match decode_gateway(&frame).unwrap() {
                    GatewayMessage::JoinAnswer(answer) => match answer.state {
                        JoinState::ProofNeeded => {
                            let forges = self.boards[number].manner == Manner::Forger;
                            self.say(number, id, Some(if forges { "forged" } else { "proof" }));
                        }
                        JoinState::Pending => self.boards[number].has_waited = true,
                        _ => retry_after_ms = answer.retry_after_ms,
                    },
                    GatewayMessage::Certificate(piece) => {
                        if piece.offset as usize + piece.bytes.len() == piece.chain_bytes as usize {
                            self.boards[number].joined_ms = Some(self.world.now.ms);
                            self.world.gateway.handle_closed(self.world.now, id, "has its certificate");
                            self.world.settle();
                            self.boards[number].id = None;
                        }
                    }
                    GatewayMessage::Reject(closing) => retry_after_ms = closing.retry_after_ms,
                    other => panic!("{other:?}"),
                }
            }
        }
        self.world.received.remove(&id);
        if self.world.ended.contains(&id) && self.boards[number].joined_ms.is_none() {
            self.leave(number, retry_after_ms);
        }
    }

    fn leave(&mut self, number: usize, retry_after_ms: u32) {
        let now_ms = self.world.now.ms;
        let (noise, connections) = (&mut self.noise, self.connections);
        let board = &mut self.boards[number];
        (board.id, board.comes_ms) = (None, now_ms + 1_000);
        if board.manner != Manner::Honest {
            board.key = format!("key hostile-{number} {connections}");
            board.client = JoiningClient { source: ELSEWHERE, ..token(&board.key) };
            return;
        }
        if board.has_waited && now_ms - board.begun_ms >= 30_000 {
            board.failures = 0;
        }
        board.failures += 1;
        let longest_ms = (500_u64 << board.failures.min(10)).min(60_000);
        board.comes_ms = now_ms + u64::from(retry_after_ms) + noise.draw(longest_ms).max(100);
        board.has_waited = false;
    }

    fn joined(&self, names: &str) -> usize {
        let of = |board: &&Board| board.joined_ms.is_some() && board.key[4..].starts_with(names);
        self.boards.iter().filter(of).count()
    }

    /// Runs until all of these have joined.
    fn join_all(&mut self, names: &str, count: usize, rate_per_s: u64) {
        let begun_ms = self.world.now.ms;
        let longest_ms = count as u64 * 1_000 / rate_per_s + CONSTANT_MS;
        self.run(longest_ms, |crowd| crowd.joined(names) == count);
        assert_eq!(
            self.joined(names),
            count,
            "{names}: in {longest_ms} ms, with {} connections",
            self.connections
        );
        let took_ms = self.world.now.ms - begun_ms;
        println!("{count} {names} joined in {took_ms} ms, with {} connections", self.connections);
    }
}

#[test]
fn a_thousand_join_as_fast_as_the_signer_issues() {
    for certificates_per_s in [2, 4, 20] {
        let mut crowd = Crowd::new(certificates_per_s);
        crowd.factory("line", 1_000, true, LINE);
        // Each takes two to four of the 20 calls a second.
        crowd.join_all("line", 1_000, certificates_per_s.min(6));
        assert!(crowd.connections < 4_000, "{} connections of 1,000 devices", crowd.connections);
    }
}

#[test]
fn half_of_a_crowd_that_nobody_approves_keeps_the_others_out_no_longer() {
    for source in [LINE, ELSEWHERE] {
        let mut crowd = Crowd::new(20);
        crowd.factory("stranger", 500, false, source);
        crowd.factory("line", 500, true, LINE);
        crowd.join_all("line", 500, 4);
        // A person approves them in the end, and they are in as soon.
        let begun_ms = crowd.world.now.ms;
        for number in 0..500 {
            crowd.world.edit(&key(&format!("stranger-{number}")), |device| device.spec.approved = true);
        }
        crowd.join_all("stranger", 500, 4);
        assert!(crowd.world.now.ms > begun_ms);
    }
}

#[test]
fn a_fleet_renews_while_a_crowd_joins_that_nobody_approves() {
    let mut crowd = Crowd::new(20);
    crowd.factory("stranger", 500, false, LINE);
    crowd.run(5_000, |_| false);
    crowd.renewing(1_000);
    let begun_ms = crowd.world.now.ms;
    crowd.run(250_000 + CONSTANT_MS, |crowd| crowd.renewed == 1_000);
    assert_eq!(crowd.renewed, 1_000);
    println!("1000 renewed in {} ms", crowd.world.now.ms - begun_ms);
}

#[test]
fn who_takes_places_with_many_keys_keeps_nobody_out() {
    let mut crowd = Crowd::new(20);
    crowd.hostile(Manner::Mute, 1_000);
    crowd.run(5_000, |_| false);
    assert!(crowd.world.gateway.levels(crowd.world.now).joining >= config::JOINERS_GIVE_WAY);
    crowd.paired("paired", 50, LINE);
    crowd.factory("line", 300, true, LINE);
    crowd.join_all("line", 300, 4);
    crowd.join_all("paired", 50, 4);
}

#[test]
fn who_makes_up_proofs_of_tokens_keeps_no_factory_s_boards_out() {
    let mut crowd = Crowd::new(20);
    crowd.paired("known", 500, ELSEWHERE);
    crowd.boards.clear();
    crowd.hostile(Manner::Forger, 500);
    crowd.run(5_000, |_| false);
    crowd.factory("line", 300, true, LINE);
    crowd.join_all("line", 300, 4);
}

#[test]
fn what_may_be_the_proof_of_a_token_keeps_half_of_the_places_at_most() {
    let mut crowd = Crowd::new(20);
    crowd.signer_at_ms = u64::MAX;
    crowd.paired("known", 500, ELSEWHERE);
    crowd.boards.clear();
    crowd.hostile(Manner::Forger, 500);
    crowd.run(2_000, |_| false);
    crowd.boards.clear();
    let before = crowd.connections;
    let count = config::JOINERS_GIVE_WAY - config::JOINERS_BY_TOKEN;
    crowd.factory("line", count, true, LINE);
    crowd.run(2_000, |_| false);
    let have_places = crowd.boards.iter().filter(|board| board.id.is_some()).count();
    assert_eq!((have_places, crowd.connections - before), (count, count));
}

#[test]
fn a_certificate_that_is_there_is_fetched_at_once_and_asked_for_once() {
    let mut crowd = Crowd::new(20);
    crowd.factory("early", 1, true, LINE);
    crowd.run(250, |_| false);
    // It goes away before it was told.
    let id = crowd.boards[0].id.take().unwrap();
    crowd.boards[0].comes_ms = u64::MAX;
    crowd.world.gateway.handle_closed(crowd.world.now, id, "the connection broke");
    crowd.run(5_000, |_| false);
    assert!(crowd.world.api.requests.values().all(|(_, seen)| seen.end.is_some()));
    // The places are full, and the signer issues nothing any more.
    crowd.signer_ms = 1_000_000_000;
    crowd.signer_at_ms = u64::MAX;
    crowd.factory("line", 600, true, LINE);
    crowd.run(2_000, |_| false);
    assert!(crowd.world.gateway.levels(crowd.world.now).joining >= config::JOINERS_GIVE_WAY);
    let begun_ms = crowd.world.now.ms;
    crowd.boards[0].comes_ms = begun_ms;
    crowd.run(30_000, |crowd| crowd.joined("early") == 1);
    let took_ms = crowd.world.now.ms - begun_ms;
    assert!(took_ms < 3_000, "{took_ms} ms, behind those that are ahead");
    let device = key("early-0");
    let of_it = crowd.world.api.requests.values().filter(|(request, _)| request.device == device).count();
    assert_eq!(of_it, 1, "one request");
}
