//! Applications' key-value data: one record for each application, read, changed and replaced as a whole.
//!
//! An application that asked sleeps until storage answered, so what it was told is stored survives a cut, and no copy of its
//! data stays in memory. One request per application waits at most, because it sleeps.

use alloc::{collections::VecDeque, vec::Vec};

use minicbor::{Decoder, Encoder, decode};
use wasmbed_agent::storage::{Done, Operation, Outcome, StorageError};
use wasmbed_protocol::ApplicationUid;
use wasmbed_runtime::{AppId, Completion, KeyValueError};

/// One application's keys and values together: a sector of common flash.
pub const DATA_BYTES_MAX: usize = 4_096;

const VERSION: u32 = 1;

/// What an application asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Get { key: Vec<u8> },
    Put { key: Vec<u8>, value: Vec<u8> },
    Delete { key: Vec<u8> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Read,
    Commit(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Job {
    uid: ApplicationUid,
    request: Request,
    step: Step,
}

/// The answer for an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Value(Option<Vec<u8>>),
    Stored,
    Deleted(bool),
    Failed(KeyValueError),
}

impl Answered {
    pub(crate) fn completion(&self) -> Completion<'_> {
        match self {
            Self::Value(value) => Completion::Value(value.as_deref()),
            Self::Stored => Completion::Stored,
            Self::Deleted(was_there) => Completion::Deleted(*was_there),
            Self::Failed(error) => Completion::Failed(*error),
        }
    }
}

/// Requests that wait for storage.
#[derive(Debug, Default)]
pub(crate) struct KeyValue {
    waiting: VecDeque<Job>,
    /// The job whose operation storage works on; `None` within if the application was stopped meanwhile.
    working: Option<Option<Job>>,
}

impl KeyValue {
    pub(crate) fn push(&mut self, id: AppId, request: Request) {
        self.waiting.push_back(Job { uid: ApplicationUid(id.0), request, step: Step::Read });
    }

    /// The application is stopped: nobody waits for its answers.
    pub(crate) fn forget(&mut self, uid: ApplicationUid) {
        self.waiting.retain(|job| job.uid != uid);
        if let Some(job) = &mut self.working {
            job.take_if(|job| job.uid == uid);
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next operation; answered by [`KeyValue::handle_storage`].
    pub(crate) fn poll_storage(&mut self) -> Option<Operation> {
        let job = self.waiting.pop_front()?;
        let operation = match &job.step {
            Step::Read => Operation::ReadData(job.uid),
            Step::Commit(bytes) => Operation::CommitData { uid: job.uid, bytes: bytes.clone() },
        };
        self.working = Some(Some(job));
        Some(operation)
    }

    /// Storage is done: the answer, if the job is at its end.
    pub(crate) fn handle_storage(&mut self, outcome: Outcome) -> Option<(AppId, Answered)> {
        let mut job = self.working.take()??;
        let id = AppId(job.uid.0);
        let answered = match (&job.step, outcome) {
            (Step::Commit(_), Ok(_)) => match job.request {
                Request::Put { .. } => Answered::Stored,
                Request::Delete { .. } => Answered::Deleted(true),
                Request::Get { .. } => Answered::Failed(KeyValueError::Storage),
            },
            (Step::Read, Ok(Done::Record(record))) => match apply(record.as_deref(), &job.request) {
                Ok(bytes) => {
                    job.step = Step::Commit(bytes);
                    self.waiting.push_front(job);
                    return None;
                }
                Err(answered) => answered,
            },
            (_, Err(StorageError::Full)) => Answered::Failed(KeyValueError::NoSpace),
            (_, Err(StorageError::Missing | StorageError::Failed(_)) | Ok(_)) => {
                Answered::Failed(KeyValueError::Storage)
            }
        };
        Some((id, answered))
    }
}

/// The record after the request, or the answer if it needs no change of the record.
fn apply(record: Option<&[u8]>, request: &Request) -> Result<Vec<u8>, Answered> {
    let mut pairs = match record {
        None => Vec::new(),
        // A record that does not decode is not overwritten: it may still be repaired.
        Some(bytes) => decode_pairs(bytes).map_err(|_| Answered::Failed(KeyValueError::Storage))?,
    };
    match request {
        Request::Get { key } => {
            let value = pairs
                .into_iter()
                .find(|(known, _)| *known == key.as_slice())
                .map(|(_, value)| value.to_vec());
            return Err(Answered::Value(value));
        }
        Request::Put { key, value } => {
            pairs.retain(|(known, _)| *known != key.as_slice());
            pairs.push((key, value));
        }
        Request::Delete { key } => {
            let before = pairs.len();
            pairs.retain(|(known, _)| *known != key.as_slice());
            if pairs.len() == before {
                return Err(Answered::Deleted(false));
            }
        }
    }
    let bytes = encode_pairs(&pairs);
    if bytes.len() > DATA_BYTES_MAX { Err(Answered::Failed(KeyValueError::NoSpace)) } else { Ok(bytes) }
}

type Pair<'a> = (&'a [u8], &'a [u8]);

/// `[version: 1, key, value, key, value, ...]`
fn encode_pairs(pairs: &[Pair<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes);
    let mut write = || -> Result<(), minicbor::encode::Error<_>> {
        encoder.array(1 + 2 * pairs.len() as u64)?.u32(VERSION)?;
        pairs.iter().try_for_each(|(key, value)| encoder.bytes(key)?.bytes(value)?.ok())
    };
    // Writing to a vector can't fail: its error type has no values.
    let _ = write();
    bytes
}

fn decode_pairs(bytes: &[u8]) -> Result<Vec<Pair<'_>>, decode::Error> {
    let mut decoder = Decoder::new(bytes);
    let length = decoder.array()?.unwrap_or(0);
    if decoder.u32()? != VERSION {
        return Err(decode::Error::message("another version"));
    }
    (0..length.saturating_sub(1) / 2).map(|_| Ok((decoder.bytes()?, decoder.bytes()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const ID: AppId = AppId([1; 16]);

    /// Storage that answers at once.
    fn run(key_value: &mut KeyValue, record: &mut Option<Vec<u8>>, request: Request) -> Answered {
        key_value.push(ID, request);
        loop {
            let outcome = match key_value.poll_storage() {
                Some(Operation::ReadData(_)) => Ok(Done::Record(record.clone())),
                Some(Operation::CommitData { bytes, .. }) => {
                    *record = Some(bytes);
                    Ok(Done::Written)
                }
                other => panic!("unexpected {other:?}"),
            };
            if let Some((id, answered)) = key_value.handle_storage(outcome) {
                assert_eq!(id, ID);
                return answered;
            }
        }
    }

    fn put(key: &[u8], value: &[u8]) -> Request {
        Request::Put { key: key.to_vec(), value: value.to_vec() }
    }

    #[test]
    fn what_is_put_can_be_got_and_deleted() {
        let (mut kv, mut record) = (KeyValue::default(), None);
        let get = Request::Get { key: b"a".to_vec() };
        assert_eq!(run(&mut kv, &mut record, get.clone()), Answered::Value(None));
        assert_eq!(run(&mut kv, &mut record, put(b"a", b"1")), Answered::Stored);
        assert_eq!(run(&mut kv, &mut record, put(b"b", b"2")), Answered::Stored);
        assert_eq!(run(&mut kv, &mut record, put(b"a", b"3")), Answered::Stored);
        assert_eq!(run(&mut kv, &mut record, get.clone()), Answered::Value(Some(vec![b'3'])));
        let delete = Request::Delete { key: b"a".to_vec() };
        assert_eq!(run(&mut kv, &mut record, delete.clone()), Answered::Deleted(true));
        assert_eq!(run(&mut kv, &mut record, delete), Answered::Deleted(false));
        assert_eq!(run(&mut kv, &mut record, get), Answered::Value(None));
        assert_eq!(
            run(&mut kv, &mut record, Request::Get { key: b"b".to_vec() }),
            Answered::Value(Some(vec![b'2']))
        );
    }

    #[test]
    fn a_share_is_bounded() {
        let (mut kv, mut record) = (KeyValue::default(), None);
        for key in 0..4u8 {
            let answer = run(&mut kv, &mut record, put(&[key], &[0; 1_024]));
            let expected = if key < 3 { Answered::Stored } else { Answered::Failed(KeyValueError::NoSpace) };
            assert_eq!(answer, expected);
        }
    }

    #[test]
    fn a_stopped_application_gets_no_answer() {
        let mut kv = KeyValue::default();
        kv.push(ID, Request::Get { key: vec![1] });
        assert!(kv.poll_storage().is_some());
        kv.forget(ApplicationUid(ID.0));
        assert_eq!(kv.handle_storage(Ok(Done::Record(None))), None);
        kv.push(ID, Request::Get { key: vec![1] });
        kv.forget(ApplicationUid(ID.0));
        assert_eq!(kv.poll_storage(), None);
    }

    #[test]
    fn a_damaged_record_is_not_overwritten() {
        let (mut kv, mut record) = (KeyValue::default(), Some(vec![0xff, 0x00]));
        let answer = run(&mut kv, &mut record, put(b"a", b"1"));
        assert_eq!(answer, Answered::Failed(KeyValueError::Storage));
        assert_eq!(record, Some(vec![0xff, 0x00]));
    }
}
