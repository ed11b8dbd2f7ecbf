//! No client starves another: anonymous clients, a greedy user, unread watches, a small limit on open files.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use wasmbed_apiserver::Limits;

use crate::protocol::{DEVICES, admin, connect, connect_to, device, get, request, send, sender};
use crate::support::Running;

/// Timeout for what is immediate unless the server is at fault.
const SOON: Duration = Duration::from_secs(30);

type Http2 = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

/// An HTTP/2 connection without a certificate, which answers pings for as long as it is held.
async fn stranger(address: SocketAddr, authority: &str) -> Http2 {
    let stream = connect_to(address, authority, None, &[b"h2"]).await.unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A connection of a user with a watch that has sent its head.
async fn watching(server: &Running, user: &str) -> TlsStream<TcpStream> {
    let identity = server.authority.client(user, "system:masters");
    let stream = connect(server, Some(identity)).await.unwrap();
    watch_on(stream).await
}

async fn watch_on(mut stream: TlsStream<TcpStream>) -> TlsStream<TcpStream> {
    let get = format!("GET {DEVICES}?watch=true HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(get.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&head));
    stream
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what} in time"))
}

#[tokio::test]
async fn idle_strangers_keep_nobody_out() {
    let limits = Limits { unauthenticated_max: 4, ..Limits::default() };
    let server = Running::start_with(limits).await;
    let mut strangers = Vec::new();
    for _ in 0..4 {
        strangers.push(stranger(server.address, &server.authority.pem()).await);
    }
    let version = async { get(&mut admin(&server).await, "/version").await.0 };
    assert_eq!(soon("an identified client is served", version).await, 200);
    // A probe takes the place of the anonymous connection that has been idle for longest.
    let probe = async { get(&mut sender(&server, None).await, "/livez").await.0 };
    assert_eq!(soon("a probe is served", probe).await, 200);
    let gone = async {
        while !strangers[0].is_closed() {
            tokio::task::yield_now().await;
        }
    };
    soon("the first stranger is gone", gone).await;
    assert!(!strangers[3].is_closed());
    drop(strangers);
    server.stop().await;
}

#[tokio::test]
async fn a_stranger_without_a_request_is_not_kept() {
    let limits = Limits { unauthenticated_idle: Duration::from_millis(50), ..Limits::default() };
    let server = Running::start_with(limits).await;
    let mut silent = connect(&server, None).await.unwrap();
    soon("it is closed", silent.read(&mut [0; 16])).await.unwrap_or(0);
    server.stop().await;
}

#[tokio::test]
async fn stalled_handshakes_give_way() {
    let limits = Limits { handshakes_max: 4, unauthenticated_max: 4, ..Limits::default() };
    let server = Running::start_with(limits).await;
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    let version = async { get(&mut admin(&server).await, "/version").await.0 };
    assert_eq!(soon("an identified client is served", version).await, 200);
    soon("the oldest is closed", silent[0].read(&mut [0; 16])).await.unwrap_or(0);
    drop(silent);
    server.stop().await;
}

#[tokio::test]
async fn one_user_has_a_share_of_connections() {
    let limits = Limits { connections_per_user_max: 2, ..Limits::default() };
    let server = Running::start_with(limits).await;
    let held = (watching(&server, "greedy").await, watching(&server, "greedy").await);
    let greedy = Some(server.authority.client("greedy", "system:masters"));
    let mut third = sender(&server, greedy.clone()).await;
    third.ready().await.unwrap();
    let refused = third.send_request(request(Method::GET, "/version", "", "")).await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"1".parse().unwrap()));
    let status = refused.into_body().collect().await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["message"], "too many connections of user \"greedy\": one user may have 2 at once");
    assert_eq!(get(&mut admin(&server).await, "/version").await.0, 200);
    // An idle connection of the user's own gives way instead.
    drop(held);
    let again = async { while get(&mut sender(&server, greedy.clone()).await, "/version").await.0 != 200 {} };
    soon("the user is served again", again).await;
    let (_idle, _other) = (sender(&server, greedy.clone()).await, sender(&server, greedy.clone()).await);
    assert_eq!(get(&mut sender(&server, greedy).await, "/version").await.0, 200);
    server.stop().await;
}

#[tokio::test]
async fn one_user_has_a_share_of_watches_and_requests() {
    let limits = Limits { watches_per_user_max: 2, requests_per_user_max: 1, ..Limits::default() };
    let server = Running::start_with(limits).await;
    let greedy = Some(server.authority.client("greedy", "system:masters"));
    let held = (watching(&server, "greedy").await, watching(&server, "greedy").await);
    let watch = format!("{DEVICES}?watch=true");
    let (code, status) = get(&mut sender(&server, greedy.clone()).await, &watch).await;
    assert_eq!(code, 429);
    assert_eq!(status["message"], "too many watches of user \"greedy\": one user may have 2 at once");
    assert_eq!(status["details"]["retryAfterSeconds"], 1);
    drop(held);
    let other = watching(&server, "modest").await;
    // A request stays in progress until its body arrives.
    let mut slow = connect(&server, greedy.clone()).await.unwrap();
    let post = format!(
        "POST {DEVICES} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\ncontent-type: application/json\r\n\r\n"
    );
    slow.write_all(post.as_bytes()).await.unwrap();
    let mut second = sender(&server, greedy).await;
    let refused = async {
        loop {
            let (code, status) = get(&mut second, DEVICES).await;
            if code != 200 {
                return status["message"].clone();
            }
        }
    };
    assert_eq!(
        soon("the user gets an answer", refused).await,
        "too many requests of user \"greedy\": one user may have 1 at once"
    );
    assert_eq!(get(&mut admin(&server).await, DEVICES).await.0, 200);
    drop((slow, other));
    server.stop().await;
}

/// Devices with `bytes` of additional data each.
async fn fill(server: &Running, prefix: &str, devices: usize, bytes: usize) {
    let mut sender = admin(server).await;
    for index in 0..devices {
        let mut object: Value =
            serde_json::from_str(&device(&format!("{prefix}-{index:04}"), json!({}))).unwrap();
        object["metadata"]["annotations"] = json!({"filling": "x".repeat(bytes)});
        let posted = request(Method::POST, DEVICES, "application/json", object.to_string());
        assert_eq!(send(&mut sender, posted).await.0, 201);
    }
}

#[tokio::test]
async fn one_user_does_not_end_the_lists_of_others() {
    let server = Running::start().await;
    fill(&server, "d", 3, 10).await;
    let mut reader = admin(&server).await;
    let (_, page) = get(&mut reader, &format!("{DEVICES}?limit=1")).await;
    let identity = server.authority.client("greedy", "system:masters");
    let mut greedy = sender(&server, Some(identity)).await;
    for index in 0..16 {
        let object = device(&format!("e-{index}"), json!({}));
        assert_eq!(
            send(&mut greedy, request(Method::POST, DEVICES, "application/json", object)).await.0,
            201
        );
        assert_eq!(get(&mut greedy, &format!("{DEVICES}?limit=1")).await.0, 200);
    }
    let next = page["metadata"]["continue"].as_str().unwrap();
    let (code, rest) = get(&mut reader, &format!("{DEVICES}?continue={next}")).await;
    assert_eq!((code, rest["items"].as_array().map(Vec::len)), (200, Some(2)), "{rest}");
    drop((reader, greedy));
    server.stop().await;
}

#[tokio::test]
async fn a_watch_sends_initial_objects_in_pages_and_misses_no_change() {
    let server = Running::start().await;
    // Beyond what lies in buffers on the way, one of them larger than a page.
    fill(&server, "d", 40, 100_000).await;
    fill(&server, "e", 300, 100).await;
    let mut stream = watching(&server, "reader").await;
    let mut writer = admin(&server).await;
    let patched = request(
        Method::PATCH,
        &format!("{DEVICES}/e-0299"),
        "application/merge-patch+json",
        r#"{"spec":{"revoked":true}}"#,
    );
    assert_eq!(send(&mut writer, patched).await.0, 200);
    let deleted = request(Method::DELETE, &format!("{DEVICES}/e-0298"), "application/json", "");
    assert_eq!(send(&mut writer, deleted).await.0, 200);
    let mut text = Vec::new();
    let read = async {
        let mut piece = vec![0; 65_536];
        while !text.windows(9).any(|window| window == b"\"DELETED\"") {
            let read = stream.read(&mut piece).await.unwrap();
            assert!(read > 0, "the watch ended");
            text.extend_from_slice(&piece[..read]);
        }
    };
    soon("all is read", read).await;
    let events: Vec<(String, String, bool)> = lines(&text)
        .map(|event| {
            let object = &event["object"];
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            (event["type"].as_str().unwrap().to_owned(), name, object["spec"]["revoked"] == true)
        })
        .collect();
    let mut expected: Vec<(String, String, bool)> = Vec::new();
    expected.extend((0..40).map(|index| ("ADDED".into(), format!("d-{index:04}"), false)));
    expected.extend((0..300).map(|index| ("ADDED".into(), format!("e-{index:04}"), false)));
    expected.push(("MODIFIED".into(), "e-0299".into(), true));
    expected.push(("DELETED".into(), "e-0298".into(), false));
    assert_eq!(events, expected);
    drop((stream, writer));
    server.stop().await;
}

/// The documents in what is left of a chunked answer.
fn lines(text: &[u8]) -> impl Iterator<Item = Value> {
    let start = text.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let (mut rest, mut plain) = (&text[start..], Vec::new());
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        let chunk = &rest[end + 2..];
        plain.extend_from_slice(&chunk[..size.min(chunk.len())]);
        rest = chunk.get(size + 2..).unwrap_or_default();
    }
    let lines: Vec<Vec<u8>> = plain.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines.into_iter().filter_map(|line| serde_json::from_slice(&line).ok())
}

#[tokio::test]
async fn a_watch_that_nobody_reads_ends() {
    let limits = Limits { unread_timeout: Duration::from_millis(100), ..Limits::default() };
    let server = Running::start_with(limits).await;
    let read = watching(&server, "reader").await;
    fill(&server, "d", 40, 200_000).await;
    let unread = watching(&server, "sleeper").await;
    let mut sender = admin(&server).await;
    let ended = async {
        loop {
            sender.ready().await.unwrap();
            let response = sender.send_request(request(Method::GET, "/metrics", "", "")).await.unwrap();
            let text = response.into_body().collect().await.unwrap().to_bytes();
            if String::from_utf8_lossy(&text).contains("wasmbed_apiserver_watches{resource=\"devices\"} 0") {
                return;
            }
        }
    };
    soon("both unread watches are ended", ended).await;
    drop((read, unread));
    server.stop().await;
}

/// A server in a process of its own: this test program again.
struct Apart {
    process: Child,
    address: SocketAddr,
    authority: String,
    users: Vec<(String, String)>,
}

const APART: &str = "WASMBED_TEST_SERVER_APART";

impl Apart {
    /// `test` is the caller's own name; there it calls [`Apart::serve`] first.
    fn start(test: &str, files: &str) -> Apart {
        let mut process = Command::new("sh")
            .args(["-c", "ulimit -n \"$1\" && exec \"$0\" --exact \"$2\" --nocapture"])
            .arg(std::env::current_exe().unwrap())
            .args([files, test])
            .env(APART, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let announced = lines.find(|line| line.starts_with('{')).unwrap();
        let announced: Value = serde_json::from_str(&announced).unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        Apart {
            process,
            address: announced["address"].as_str().unwrap().parse().unwrap(),
            authority: announced["authority"].as_str().unwrap().to_owned(),
            users: serde_json::from_value(announced["users"].clone()).unwrap(),
        }
    }

    /// Serves until standard input ends, if this is the process for it.
    async fn serve(devices: usize, bytes: usize) -> bool {
        if std::env::var_os(APART).is_none() {
            return false;
        }
        let server = Running::start().await;
        fill(&server, "d", devices, bytes).await;
        let users: Vec<_> =
            (0..4).map(|user| server.authority.client(&format!("user-{user}"), "system:masters")).collect();
        let announced =
            json!({"address": server.address, "authority": server.authority.pem(), "users": users});
        let mut out = std::io::stdout();
        writeln!(out, "\n{announced}").unwrap();
        tokio::task::spawn_blocking(|| std::io::stdin().lines().for_each(drop)).await.unwrap();
        server.stop().await;
        true
    }

    async fn connect(&self, user: Option<usize>) -> std::io::Result<TlsStream<TcpStream>> {
        let identity = user.map(|user| self.users[user].clone());
        connect_to(self.address, &self.authority, identity, &[]).await
    }

    /// The status line's code of one request.
    async fn code(&self, user: Option<usize>, path: &str) -> std::io::Result<String> {
        let mut stream = self.connect(user).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        Ok(String::from_utf8_lossy(&head[9..]).into_owned())
    }

    fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1_024
    }

    fn stop(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_follow_the_limit_on_open_files() {
    if Apart::serve(0, 0).await {
        return;
    }
    let server = Apart::start("shares::bounds_follow_the_limit_on_open_files", "128");
    let (mut silent, mut strangers, mut users) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..200 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
        // Connections may give way immediately.
        strangers.extend(server.connect(None).await);
        users.extend(server.connect(Some(0)).await);
    }
    assert_eq!(soon("another user is served", server.code(Some(1), "/version")).await.unwrap(), "200");
    assert_eq!(soon("a probe is served", server.code(None, "/livez")).await.unwrap(), "200");
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.process.id())).unwrap().count();
    assert!(open < 128, "{open}");
    drop((silent, strangers, users));
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_watches_hold_little_memory() {
    const WATCHES: usize = 60;
    const OBJECTS_BYTES: usize = 200 * 20_000;
    if Apart::serve(200, 20_000).await {
        return;
    }
    let server = Apart::start("shares::unread_watches_hold_little_memory", "512");
    let before = server.resident_bytes();
    let mut watches = Vec::new();
    for watch in 0..WATCHES {
        watches.push(watch_on(server.connect(Some(watch % 4)).await.unwrap()).await);
    }
    let grown = server.resident_bytes().saturating_sub(before);
    // A page, a buffer of the connection and the connection's own state for each; not a copy of all objects.
    assert!(
        grown < WATCHES * OBJECTS_BYTES / 8,
        "{grown} bytes for {WATCHES} watches of {OBJECTS_BYTES} bytes"
    );
    drop(watches);
    server.stop();
}
