//! Applications at UARTs: who has which, what each waits for, and how much it may send and receive.
//!
//! A stream of bytes has one reader, so a UART belongs to the first application that was granted it and uses it, until that
//! runs no more. An application that asked sleeps until it has bytes, its own are taken, or its time is over, so it waits for
//! one thing at most. What comes meanwhile is in the port's buffer.

use alloc::{borrow::ToOwned, vec::Vec};

use wasmbed_protocol::{
    ApplicationUid, UartGrant,
    rate::{Rate, TokenBucket},
};
use wasmbed_runtime::{
    AppId, Peripherals,
    peripherals::uart::{BYTES_MAX, Error},
};

use crate::{granted::Granted, instance::number_of};

/// What stands before the number in the name of a UART.
const KIND: &str = "uart";
/// Between two lines that tell of lost bytes.
const TELL_INTERVAL_US: u64 = 10_000_000;

/// What an application may do at one UART.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    port: u8,
    baud: u32,
    rate: Rate,
    bucket: TokenBucket,
    /// Times that bytes were lost, and were not told yet.
    overruns: u32,
    tell_at_us: u64,
}

impl Grant {
    /// The grant of an assignment, if its name is one of a UART.
    pub(crate) fn new(grant: &UartGrant<'_>) -> Option<Self> {
        Some(Self {
            port: number_of(KIND, grant.name).and_then(|number| u8::try_from(number).ok())?,
            baud: grant.baud,
            // What a second allows may be had at once.
            rate: Rate::per_second(grant.bytes_per_second.into(), grant.bytes_per_second.into()),
            bucket: TokenBucket::default(),
            overruns: 0,
            tell_at_us: 0,
        })
    }
}

/// What an application wants of a UART.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// At least one byte, and so many at most.
    Read { room: usize },
    /// These to be taken; without any, that those taken before are out.
    Write { bytes: Vec<u8>, sent: usize },
}

impl Wanted {
    pub(crate) fn write(bytes: &[u8]) -> Self {
        Self::Write { bytes: bytes.to_owned(), sent: 0 }
    }
}

#[derive(Debug)]
struct Job {
    uid: ApplicationUid,
    port: u8,
    wanted: Wanted,
    /// When what came before is paid for.
    paid_us: u64,
    until_us: u64,
    /// When there is something to do though nothing wakes the loop.
    due_us: u64,
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Received(Result<Vec<u8>, Error>),
    Sent(Result<usize, Error>),
}

/// Bytes that an application lost since it was told last.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) uid: ApplicationUid,
    pub(crate) port: u8,
    pub(crate) times: u32,
}

/// All UARTs of a device.
#[derive(Debug, Default)]
pub(crate) struct Uart {
    granted: Granted<Grant>,
    /// Which application has which port.
    owners: Vec<(u8, ApplicationUid)>,
    /// Ports whose owner runs no more, still open.
    closing: Vec<u8>,
    /// One of each application at most.
    jobs: Vec<Job>,
}

impl Uart {
    /// An application runs, and may do this.
    pub(crate) fn grant(&mut self, uid: ApplicationUid, grants: Vec<Grant>) {
        self.forget(uid);
        self.granted.set(uid, grants);
    }

    /// The application runs no more.
    pub(crate) fn forget(&mut self, uid: ApplicationUid) {
        self.granted.forget(uid);
        self.jobs.retain(|job| job.uid != uid);
        let closing = &mut self.closing;
        self.owners.retain(|(port, owner)| {
            if *owner == uid {
                closing.push(*port);
            }
            *owner != uid
        });
    }

    /// Takes a request if the application may make it.
    pub(crate) fn push(
        &mut self,
        id: AppId,
        port: u32,
        wanted: Wanted,
        until_us: u64,
        now_us: u64,
        peripherals: &mut impl Peripherals,
    ) -> Result<(), Error> {
        let uid = ApplicationUid(id.0);
        let grant = self.granted.of_mut(uid).find(|grant| u32::from(grant.port) == port);
        let Grant { port, baud, rate, bucket, .. } = grant.ok_or(Error::NoPort)?;
        match self.owners.iter().find(|(owned, _)| owned == port) {
            Some((_, owner)) if *owner == uid => {}
            Some(_) => return Err(Error::Busy),
            None => {
                peripherals.uart(*port).ok_or(Error::NoPort)?.open(*baud)?;
                self.closing.retain(|closing| closing != port);
                self.owners.push((*port, uid));
            }
        }
        // It may begin when what came before is paid for, and is paid for afterwards itself.
        bucket.refill(now_us / 1_000, *rate);
        let paid_us = bucket.available_at_ms(*rate, 0).saturating_mul(1_000);
        self.jobs.push(Job { uid, port: *port, wanted, paid_us, until_us, due_us: 0 });
        Ok(())
    }

    /// Gives each request what there is for it; the first that is answered by that.
    pub(crate) fn step(
        &mut self,
        peripherals: &mut impl Peripherals,
        now_us: u64,
    ) -> Option<(AppId, Answered)> {
        for port in self.closing.drain(..) {
            if let Some(port) = peripherals.uart(port) {
                port.close();
            }
        }
        let answered = self.jobs.iter_mut().enumerate().find_map(|(index, job)| {
            let answered = job.step(peripherals, now_us)?;
            Some((index, answered))
        });
        let (index, answered) = answered?;
        let job = self.jobs.remove(index);
        for grant in self.granted.of_mut(job.uid).filter(|grant| grant.port == job.port) {
            match &answered {
                Answered::Received(Ok(bytes)) => grant.bucket.spend(bytes.len() as u64),
                Answered::Sent(Ok(count)) => grant.bucket.spend(*count as u64),
                Answered::Received(Err(Error::Overrun)) => {
                    grant.overruns = grant.overruns.saturating_add(1);
                    // So that reading where bytes are lost without end has its price too.
                    grant.bucket.spend(1);
                }
                Answered::Received(Err(Error::Timeout)) | Answered::Sent(Err(Error::Timeout)) => {}
                Answered::Received(Err(_)) | Answered::Sent(Err(_)) => grant.bucket.spend(1),
            }
        }
        Some((AppId(job.uid.0), answered))
    }

    /// Bytes that were lost and that a person is to hear of now.
    pub(crate) fn poll_lost(&mut self, now_us: u64) -> Option<Lost> {
        let mut all = self.granted.iter_mut();
        let (uid, grant) = all.find(|(_, grant)| grant.overruns > 0 && now_us >= grant.tell_at_us)?;
        grant.tell_at_us = now_us.saturating_add(TELL_INTERVAL_US);
        Some(Lost { uid: *uid, port: grant.port, times: core::mem::take(&mut grant.overruns) })
    }

    /// When there is something to do, on the clock of [`Uart::step`], if no port wakes the loop before.
    pub(crate) fn due_us(&self) -> Option<u64> {
        if !self.closing.is_empty() {
            return Some(0);
        }
        let told = self.granted.iter().filter(|(_, grant)| grant.overruns > 0);
        let told = told.map(|(_, grant)| grant.tell_at_us);
        self.jobs.iter().map(|job| job.due_us).chain(told).min()
    }
}

impl Job {
    fn step(&mut self, peripherals: &mut impl Peripherals, now_us: u64) -> Option<Answered> {
        let is_late = now_us >= self.until_us;
        self.due_us = self.until_us;
        if now_us < self.paid_us && !is_late {
            self.due_us = self.due_us.min(self.paid_us);
            return None;
        }
        let port = peripherals.uart(self.port).filter(|_| now_us >= self.paid_us);
        match &mut self.wanted {
            Wanted::Read { room } => {
                let mut buffer = [0; BYTES_MAX];
                let room = buffer.get_mut(..*room).unwrap_or_default();
                match port.map_or(Ok(0), |port| port.receive(room)) {
                    Ok(0) if is_late => Some(Answered::Received(Err(Error::Timeout))),
                    Ok(0) => None,
                    Ok(count) => {
                        Some(Answered::Received(Ok(room.get(..count).unwrap_or_default().to_owned())))
                    }
                    Err(error) => Some(Answered::Received(Err(error))),
                }
            }
            Wanted::Write { bytes, sent } => {
                let rest = bytes.get(*sent..).unwrap_or_default();
                let gone = port.map_or(Ok((0, false)), |port| {
                    let count = port.send(rest)?;
                    let is_done = if bytes.is_empty() { port.is_sent()? } else { count == rest.len() };
                    Ok((count, is_done))
                });
                match gone {
                    // What went before went.
                    Err(_) if *sent > 0 => Some(Answered::Sent(Ok(*sent))),
                    Err(error) => Some(Answered::Sent(Err(error))),
                    Ok((count, is_done)) => {
                        *sent += count;
                        match is_done {
                            true => Some(Answered::Sent(Ok(*sent))),
                            false if is_late && *sent > 0 => Some(Answered::Sent(Ok(*sent))),
                            false if is_late => Some(Answered::Sent(Err(Error::Timeout))),
                            false => None,
                        }
                    }
                }
            }
        }
    }
}
