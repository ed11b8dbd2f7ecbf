//! What a gateway sends, in every way that a session takes it. Shared by the fuzz target, the test that replays its corpus,
//! and the example that writes it.

use std::sync::OnceLock;

use wasmbed_tls::{Client, Credentials, P256Key, PLAIN_BYTES_MAX, RandomSource, SessionState, Time};

/// The same keys each time, so that a gateway's answer that was recorded once is an answer again.
pub struct Repeating;

impl RandomSource for Repeating {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(0x42);
    }
}

/// A device of the trust domain `example.org`.
pub fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let chain = vec![
            include_bytes!("device.der").as_slice().into(),
            include_bytes!("devices-issuing.der").as_slice().into(),
        ];
        let key = P256Key::from_pkcs8(include_bytes!("device.key.der")).expect("the file is a key");
        let credentials = Credentials::device(chain, &key).expect("the files beside this one fit together");
        let root = include_bytes!("services-root.der").as_slice().into();
        let mut client = Client::new("example.org", &[root], &Repeating).expect("the file is a certificate");
        client.present(credentials).expect("of the same trust domain");
        client
    })
}

/// The first byte says in what pieces the others arrive.
pub fn accept(bytes: &[u8]) -> SessionState {
    let mut session = client().connect(&Time::new(0), 0).expect("a session begins");
    let Some((&piece, bytes)) = bytes.split_first() else { return session.state() };
    for piece in bytes.chunks(1 + usize::from(piece) * 16) {
        let mut rest = piece;
        while !rest.is_empty() {
            session.transmit(&mut |bytes| bytes.len());
            let Ok(taken) = session.receive(rest) else { break };
            rest = &rest[taken..];
            session.send(b"from the device");
            let mut buffer = [0; PLAIN_BYTES_MAX];
            let read = session.recv(&mut buffer);
            assert!(session.state() != SessionState::Handshaking || read == 0, "nobody was verified yet");
            assert!(taken > 0 || read > 0, "it neither moves nor ends");
        }
    }
    assert!(session.failure().is_none() || session.state() == SessionState::Closed);
    let state = session.state();
    session.close();
    session.transmit(&mut |bytes| bytes.len());
    state
}
