//! Attacks by enrolled devices.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_rustls::client::TlsStream;
use wasmbed_bench::peer::{Peer, frame};
use wasmbed_protocol::{
    ApplicationReport, ApplicationState, ApplicationUid, CorrelationId, DesiredApplication, DeviceMessage,
    ErrorCode, ErrorNotice, GatewayMessage, List, Log, ReportReason, Reported, Revision, Sequence,
};

use super::stage::{FAILING, FLAPPING, LOGGERS, NOTIFIER, Stage, logger};

/// Lines of one session.
const LINES: u64 = 256;
/// Errors of one burst, and how often one comes: 47,000 a second.
const ERRORS: usize = 470;
const BURST: Duration = Duration::from_millis(10);

type Halves = (ReadHalf<TlsStream<tokio::net::TcpStream>>, WriteHalf<TlsStream<tokio::net::TcpStream>>);

/// Reads and forgets, so that the other side can go on.
async fn forget(mut read: ReadHalf<TlsStream<tokio::net::TcpStream>>) -> Result<()> {
    let mut buffer = vec![0; 16_384];
    while read.read(&mut buffer).await? > 0 {}
    bail!("the session ended")
}

pub(super) async fn logs(stage: Stage) -> Result<()> {
    let loggers = (0..LOGGERS).map(|index| {
        let stage = stage.clone();
        async move {
            let tls = stage.device(&logger(index))?;
            let mut fresh = (index as u64) << 56;
            stage
                .again("sessions of lines that failed", async || {
                    let mut peer = Peer::start(stage.target.gateway, &tls).await?;
                    let mut frames = Vec::new();
                    for line in 1..=LINES {
                        fresh += 1;
                        let mut uid = [0xa5; 16];
                        uid[..8].copy_from_slice(&fresh.to_be_bytes());
                        frames.extend(frame(&DeviceMessage::Log(Log {
                            uid: ApplicationUid(uid),
                            sequence: Sequence(line),
                            lines_lost: 0,
                            text: "a line of nobody",
                        }))?);
                    }
                    peer.stream.write_all(&frames).await?;
                    peer.stream.shutdown().await?;
                    stage.count("lines of unknown applications", LINES);
                    Ok(())
                })
                .await;
            anyhow::Ok(())
        }
    });
    futures::future::try_join_all(loggers).await.map(drop)
}

pub(super) async fn errors(stage: Stage) -> Result<()> {
    let tls = stage.device(NOTIFIER)?;
    let notice = ErrorNotice {
        code: ErrorCode::Unexpected,
        tag: Some(1),
        detail: "this device complains of everything, all the time, and in many words: so it goes on and on",
    };
    let burst = frame(&DeviceMessage::Error(notice))?.repeat(ERRORS);
    stage
        .again("sessions of errors that ended", async || {
            let (read, mut write): Halves =
                tokio::io::split(Peer::start(stage.target.gateway, &tls).await?.stream);
            let sent = async {
                let mut ticks = tokio::time::interval(BURST);
                loop {
                    ticks.tick().await;
                    write.write_all(&burst).await?;
                    stage.count("errors", ERRORS as u64);
                }
            };
            tokio::select! { ended = forget(read) => ended, ended = sent => ended }
        })
        .await;
    Ok(())
}

/// Reports that say Running and CrashLoop by turns.
pub(super) async fn states(stage: Stage) -> Result<()> {
    report(stage, FLAPPING[0], "reports of another state", Duration::ZERO, |turn| match turn % 2 {
        0 => (ApplicationState::Running, ReportReason::None, String::new()),
        _ => (ApplicationState::CrashLoop, ReportReason::Trapped, "unreachable".to_owned()),
    })
    .await
}

/// Failures, each with another reason and message.
pub(super) async fn failures(stage: Stage) -> Result<()> {
    let reasons =
        [ReportReason::Trapped, ReportReason::CpuLimit, ReportReason::MemoryLimit, ReportReason::StackLimit];
    let say = |turn: u64| {
        let reason = reasons[(turn % reasons.len() as u64) as usize];
        (ApplicationState::Failed, reason, format!("failure number {turn}"))
    };
    let devices = FAILING.map(|device| {
        report(stage.clone(), device, "reports of fresh failures", Duration::from_millis(1), say)
    });
    futures::future::try_join_all(devices).await.map(drop)
}

async fn report(
    stage: Stage,
    (name, applications): (&str, usize),
    counted: &'static str,
    pause: Duration,
    say: impl Fn(u64) -> (ApplicationState, ReportReason, String),
) -> Result<()> {
    let tls = stage.device(name)?;
    let mut turn = 0;
    stage
        .again("sessions of reports that ended", async || {
            let mut peer = Peer::start(stage.target.gateway, &tls).await?;
            stage.count("sessions of reports", 1);
            let (revision, desired) = peer
                .receive("Desired", |message| match message {
                    GatewayMessage::Desired(desired) if desired.applications.len() >= applications => {
                        Some((desired.revision, desired.applications.iter().collect::<Vec<_>>()))
                    }
                    _ => None,
                })
                .await?;
            let (read, mut write): Halves = tokio::io::split(peer.stream);
            let mut sequence = Sequence(0);
            let sent = async {
                loop {
                    sequence = sequence.next();
                    turn += 1;
                    let (state, reason, message) = say(turn);
                    let bytes = reported(sequence, revision, &desired, (state, reason, &message))?;
                    write.write_all(&bytes).await?;
                    stage.count(counted, 1);
                    if pause.is_zero() {
                        tokio::task::yield_now().await;
                    } else {
                        tokio::time::sleep(pause).await;
                    }
                }
            };
            tokio::select! { ended = forget(read) => ended, ended = sent => ended }
        })
        .await;
    Ok(())
}

fn reported(
    sequence: Sequence,
    revision: Revision,
    desired: &[DesiredApplication],
    (state, reason, message): (ApplicationState, ReportReason, &str),
) -> Result<Vec<u8>> {
    let reports: Vec<ApplicationReport<'_>> = desired
        .iter()
        .map(|desired| ApplicationReport {
            uid: desired.uid,
            spec_hash: desired.spec_hash,
            digest: None,
            state,
            reason,
            message,
            restarts: 0,
            memory_bytes: 0,
            cpu_ms: 0,
            correlation_id: CorrelationId([0; 16]),
        })
        .collect();
    frame(&DeviceMessage::Reported(Reported { sequence, revision, applications: List::new(&reports) }))
}
