//! What a device's TLS may do, and what it may not: the other end is rustls with buffers of its own.

use std::io::{Read as _, Write as _};

use rustls::{AlertDescription, ClientConnection};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use wasmbed_pki::{
    Authorities,
    tls::{ClientParams, Profile, client_config, roots, server_config, server_name},
};

use super::*;

struct Client {
    socket: TcpStream,
    tls: ClientConnection,
}

impl Client {
    /// What it wants to send.
    fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    fn say(&mut self, plain: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(plain).unwrap();
        self.bytes()
    }

    async fn send(&mut self, piece: usize) {
        for part in self.bytes().chunks(piece) {
            self.socket.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
    }

    /// What came next.
    async fn hear(&mut self) -> Result<Vec<u8>, Error> {
        let mut bytes = [0; 4096];
        let read = self.socket.read(&mut bytes).await.unwrap();
        assert_ne!(read, 0, "the gateway has closed the connection");
        let mut rest = &bytes[..read];
        let mut plain = Vec::new();
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest).unwrap();
            self.tls.process_new_packets()?;
            // It ends with WouldBlock: the connection is still open.
            let _ = self.tls.reader().read_to_end(&mut plain);
        }
        Ok(plain)
    }

    async fn alert(&mut self) -> AlertDescription {
        loop {
            match self.hear().await {
                Err(Error::AlertReceived(alert)) => return alert,
                Err(error) => panic!("{error}"),
                Ok(_) => {}
            }
        }
    }
}

/// Both ends after a handshake in which the client's records have at most `fragment` bytes and its writes `piece`.
async fn pair(fragment: Option<usize>, piece: usize) -> (Box<DeviceTls>, Client) {
    let folder = tempfile::tempdir().unwrap();
    let authorities = Authorities::create_or_open(folder.path(), "test.example").unwrap();
    let gateway = authorities.issue_gateway("wasmbed-system", "gw", &[]).unwrap();
    let device_roots = roots([authorities.devices_root().clone()]).unwrap();
    let server = server_config(Profile::Device, &gateway, device_roots).unwrap();
    let params = ClientParams {
        profile: Profile::Device,
        identity: &authorities.issue_device("default", "board").unwrap(),
        roots: roots([authorities.services_root().clone()]).unwrap(),
        trust_domain: "test.example",
        gateway: None,
        time: None,
    };
    let mut config = Arc::unwrap_or_clone(client_config(params).unwrap());
    config.max_fragment_size = fragment.or(config.max_fragment_size);
    let tls = ClientConnection::new(Arc::new(config), server_name()).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let mut client = Client { socket, tls };
    let shake = async {
        loop {
            client.send(piece).await;
            if !client.tls.is_handshaking() {
                return;
            }
            client.hear().await.unwrap();
        }
    };
    let (stream, ()) = tokio::join!(DeviceTls::accept(accepted, server, &mut []), shake);
    (stream.unwrap(), client)
}

/// Lets bytes arrive in pieces; what they said, and how it ended.
fn arrive(stream: &mut DeviceTls, bytes: &[u8], piece: usize) -> (Vec<u8>, io::Result<()>) {
    let mut said = Vec::new();
    for part in bytes.chunks(piece) {
        let mut incoming = [stream.received.as_slice(), part].concat();
        let result = stream.take(&mut incoming, |plain| said.extend_from_slice(plain));
        assert!(stream.received.len() <= RECEIVED_BYTES_MAX);
        if result.is_err() {
            return (said, result);
        }
    }
    (said, Ok(()))
}

#[tokio::test]
async fn a_handshake_may_come_byte_by_byte_and_in_many_records() {
    for (fragment, piece) in [(None, usize::MAX), (None, 1), (Some(64), usize::MAX), (Some(64), 1)] {
        let (mut stream, mut client) = pair(fragment, piece).await;
        assert_eq!(stream.state().alpn_protocol(), Some(b"wasmbed/1".as_slice()));
        let bytes = client.say(b"hello");
        assert_eq!(arrive(&mut stream, &bytes, piece).0, b"hello");
        stream.write(b"welcome").unwrap();
        assert_eq!(client.hear().await.unwrap(), b"welcome");
        assert!(stream.received.is_empty() && stream.received.capacity() == 0);
    }
}

#[tokio::test]
async fn records_arrive_together_and_in_single_bytes() {
    let (mut stream, mut client) = pair(None, usize::MAX).await;
    for piece in [usize::MAX, 1, 7] {
        let bytes = [client.say(b"one "), client.say(&[b'2'; 4_096]), client.say(b" three")].concat();
        let (said, result) = arrive(&mut stream, &bytes, piece);
        result.unwrap();
        assert_eq!(said, [b"one ".as_slice(), &[b'2'; 4_096], b" three"].concat());
    }
    assert_eq!(stream.received.capacity(), 0, "an idle connection keeps nothing");
}

#[tokio::test]
async fn keys_are_updated_as_often_as_a_device_that_speaks_likes() {
    let (mut stream, mut client) = pair(None, usize::MAX).await;
    for round in 0..100 {
        client.tls.refresh_traffic_keys().unwrap();
        let bytes = client.say(b"up");
        let (said, result) = arrive(&mut stream, &bytes, if round % 2 == 0 { 1 } else { usize::MAX });
        result.unwrap();
        assert_eq!(said, b"up");
        stream.write(b"down").unwrap();
        let mut heard = Vec::new();
        while heard.is_empty() {
            heard = client.hear().await.unwrap();
        }
        assert_eq!(heard, b"down");
    }
}

#[tokio::test]
async fn a_flood_of_key_updates_is_ended_and_answered_once() {
    let (mut stream, mut client) = pair(None, usize::MAX).await;
    let mut bytes = Vec::new();
    for _ in 0..100 {
        client.tls.refresh_traffic_keys().unwrap();
        bytes.extend(client.bytes());
    }
    let (said, result) = arrive(&mut stream, &bytes, usize::MAX);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(said.is_empty() && stream.unsent.is_empty());
    // An answer may be on its way; more than one would not fit.
    let mut answers = [0; 4096];
    let read = client.socket.try_read(&mut answers).unwrap_or(0);
    assert!(read < 128, "{read} bytes answer the flood");
}

#[tokio::test]
async fn a_flood_of_compatibility_records_is_ended() {
    let (mut stream, _client) = pair(None, usize::MAX).await;
    let (_, result) = arrive(&mut stream, &[20, 3, 3, 0, 1, 1].repeat(1_000), usize::MAX);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_device_that_does_not_read_costs_one_write() {
    let (mut stream, mut client) = pair(None, usize::MAX).await;
    let plain = vec![7; 32 * 1024];
    let mut written = 0;
    while stream.is_flushed() {
        stream.write(&plain).unwrap();
        written += plain.len();
    }
    assert!(stream.unsent.len() < 33 * 1024, "{} bytes wait", stream.unsent.len());
    let reading = async {
        let mut read = 0;
        while read < written {
            let heard = client.hear().await.unwrap();
            assert!(heard.iter().all(|byte| *byte == 7));
            read += heard.len();
        }
    };
    let (flushed, ()) = tokio::join!(stream.flush(), reading);
    flushed.unwrap();
    assert_eq!(stream.unsent.capacity(), 0);
}

#[tokio::test]
async fn last_words_end_a_connection_and_what_follows_them_is_not_heard() {
    let (mut stream, mut client) = pair(None, usize::MAX).await;
    let mut bytes = client.say(b"last");
    client.tls.send_close_notify();
    bytes.extend(client.bytes());
    bytes.extend([23, 3, 3, 0, 20]);
    client.socket.write_all(&bytes).await.unwrap();
    let mut said = Vec::new();
    while stream.read(|plain| said.extend_from_slice(plain)).await.unwrap() == Heard::Some {}
    assert_eq!(said, b"last");

    let (mut stream, mut client) = pair(None, usize::MAX).await;
    stream.close().unwrap();
    client.hear().await.unwrap();
    assert_eq!(client.tls.reader().read(&mut [0]).unwrap(), 0, "told, not cut");
}

#[tokio::test]
async fn half_a_record_says_nothing_and_its_end_is_told_from_last_words() {
    let (mut stream, mut client) = pair(None, usize::MAX).await;
    let bytes = client.say(b"never");
    client.socket.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
    client.socket.shutdown().await.unwrap();
    let error = loop {
        match stream.read(|plain| panic!("{plain:?} was heard")).await {
            Ok(heard) => assert_eq!(heard, Heard::Some),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_record_that_is_too_long_or_damaged_is_refused_and_the_device_told() {
    let (mut stream, mut client) = pair(None, usize::MAX).await;
    let (_, result) = arrive(&mut stream, &[23, 3, 3, 0x48, 0x01], 1);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
    client.alert().await;

    let (mut stream, mut client) = pair(None, usize::MAX).await;
    let mut bytes = client.say(b"damaged");
    *bytes.last_mut().unwrap() ^= 1;
    let (said, result) = arrive(&mut stream, &bytes, usize::MAX);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(said.is_empty());
    assert_eq!(client.alert().await, AlertDescription::BadRecordMac);
}
