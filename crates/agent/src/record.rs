//! The state record: what the device must know after a reset, as one CBOR array that is replaced as a whole.
//!
//! ```text
//! record      = [version: 1, last_epoch, revision, set_known: bool, [* application], boot_counter, ? settings, * later]
//! application = [uid, accepted: bool, current / null, next / null]
//! current     = [spec_hash, spec, correlation_id, restarts, failures, ended / null]
//! next        = [spec_hash, [spec, correlation_id] / null]
//! ended       = [reason, message]
//! settings    = [* [uid, values, values before]]      absent if there are none
//! ```
//! Records of firmware that counted no starts end after the applications and open with a counter of 0. What later firmware
//! appends is skipped, and lost with the next write. A record of another version, or one that does not decode, counts as none: the device then knows no set, which is not an
//! empty one. Specs are checked against their hashes when they are read; one that differs is pulled again.

use alloc::{string::String, vec::Vec};

use minicbor::{Decoder, Encoder, decode, encode::Write};
use wasmbed_protocol::{
    ApplicationUid, BootCounter, CorrelationId, Epoch, ReportReason, Revision, SpecHash,
    limits::{DESIRED_MAX, REPORT_MESSAGE_BYTES_MAX, SETTINGS_BYTES_MAX, SPEC_BYTES_MAX},
};

use crate::{settings::StoredSettings, text::clip};

const VERSION: u32 = 1;

/// A record at its largest: sixteen members, each with two assignments, and their heads. A device with the usual specs of a
/// few hundred bytes writes a few kilobytes.
pub const STATE_BYTES_MAX: usize =
    DESIRED_MAX * (2 * SPEC_BYTES_MAX + 320 + 2 * SETTINGS_BYTES_MAX + 32) + 64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub last_epoch: Epoch,
    pub revision: Revision,
    pub set_known: bool,
    pub applications: Vec<StoredApplication>,
    pub boot_counter: BootCounter,
    pub settings: Vec<(ApplicationUid, StoredSettings)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredApplication {
    pub uid: ApplicationUid,
    pub accepted: bool,
    pub current: Option<StoredCurrent>,
    pub next: Option<StoredNext>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredCurrent {
    pub spec_hash: SpecHash,
    pub spec: Vec<u8>,
    pub correlation_id: CorrelationId,
    pub restarts: u32,
    pub failures: u32,
    pub ended: Option<(ReportReason, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredNext {
    pub spec_hash: SpecHash,
    pub spec: Option<(Vec<u8>, CorrelationId)>,
}

type Encoded<W> = Result<(), minicbor::encode::Error<<W as Write>::Error>>;

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing to a vector can't fail: its error type has no values.
        let _ = self.write(&mut Encoder::new(&mut bytes));
        bytes
    }

    fn write<W: Write>(&self, e: &mut Encoder<W>) -> Encoded<W> {
        // Without settings it is what it was before there were any.
        let fields = if self.settings.is_empty() { 6 } else { 7 };
        e.array(fields)?.u32(VERSION)?.u64(self.last_epoch.0)?.u64(self.revision.0)?.bool(self.set_known)?;
        e.array(self.applications.len() as u64)?;
        self.applications.iter().try_for_each(|application| application.write(e))?;
        e.u64(self.boot_counter.0)?;
        if self.settings.is_empty() {
            return Ok(());
        }
        e.array(self.settings.len() as u64)?;
        for (uid, settings) in &self.settings {
            e.array(3)?.bytes(&uid.0)?.bytes(&settings.given)?.bytes(&settings.before)?;
        }
        Ok(())
    }

    /// `None` for anything that is not a record of this version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut d = Decoder::new(bytes);
        let record = Self::read(&mut d).ok()?;
        (d.position() == bytes.len()).then_some(record)
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, decode::Error> {
        let length = d.array()?.filter(|length| *length >= 5);
        let length = length.ok_or_else(|| decode::Error::message("another shape"))?;
        if d.u32()? != VERSION {
            return Err(decode::Error::message("another version"));
        }
        let (last_epoch, revision, set_known) = (Epoch(d.u64()?), Revision(d.u64()?), d.bool()?);
        let count = d.array()?.filter(|count| *count <= DESIRED_MAX as u64);
        let count = count.ok_or_else(|| decode::Error::message("too many applications"))?;
        let applications = (0..count).map(|_| StoredApplication::read(d)).collect::<Result<_, _>>()?;
        let boot_counter = BootCounter(if length > 5 { d.u64()? } else { 0 });
        let settings = if length > 6 { read_settings(d)? } else { Vec::new() };
        for _ in 7..length {
            d.skip()?;
        }
        Ok(Self { last_epoch, revision, set_known, applications, boot_counter, settings })
    }
}

impl StoredApplication {
    fn write<W: Write>(&self, e: &mut Encoder<W>) -> Encoded<W> {
        e.array(4)?.bytes(&self.uid.0)?.bool(self.accepted)?;
        match &self.current {
            None => e.null()?.ok(),
            Some(current) => current.write(e),
        }?;
        match &self.next {
            None => e.null()?.ok(),
            Some(next) => next.write(e),
        }
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, decode::Error> {
        expect_array(d, 4)?;
        Ok(Self {
            uid: ApplicationUid(fixed(d)?),
            accepted: d.bool()?,
            current: optional(d, StoredCurrent::read)?,
            next: optional(d, StoredNext::read)?,
        })
    }
}

impl StoredCurrent {
    fn write<W: Write>(&self, e: &mut Encoder<W>) -> Encoded<W> {
        e.array(6)?.bytes(&self.spec_hash.0)?.bytes(&self.spec)?.bytes(&self.correlation_id.0)?;
        e.u32(self.restarts)?.u32(self.failures)?;
        match &self.ended {
            None => e.null()?.ok(),
            Some((reason, message)) => e.array(2)?.u32(reason.code())?.str(message)?.ok(),
        }
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, decode::Error> {
        expect_array(d, 6)?;
        Ok(Self {
            spec_hash: SpecHash(fixed(d)?),
            spec: spec(d)?,
            correlation_id: CorrelationId(fixed(d)?),
            restarts: d.u32()?,
            failures: d.u32()?,
            ended: optional(d, |d| {
                expect_array(d, 2)?;
                Ok((ReportReason::from(d.u32()?), String::from(clip(d.str()?, REPORT_MESSAGE_BYTES_MAX))))
            })?,
        })
    }
}

impl StoredNext {
    fn write<W: Write>(&self, e: &mut Encoder<W>) -> Encoded<W> {
        e.array(2)?.bytes(&self.spec_hash.0)?;
        match &self.spec {
            None => e.null()?.ok(),
            Some((spec, correlation_id)) => e.array(2)?.bytes(spec)?.bytes(&correlation_id.0)?.ok(),
        }
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, decode::Error> {
        expect_array(d, 2)?;
        Ok(Self {
            spec_hash: SpecHash(fixed(d)?),
            spec: optional(d, |d| {
                expect_array(d, 2)?;
                Ok((spec(d)?, CorrelationId(fixed(d)?)))
            })?,
        })
    }
}

fn read_settings(d: &mut Decoder<'_>) -> Result<Vec<(ApplicationUid, StoredSettings)>, decode::Error> {
    let count = d.array()?.filter(|count| *count <= DESIRED_MAX as u64);
    let count = count.ok_or_else(|| decode::Error::message("too many applications"))?;
    let read = |_| {
        expect_array(d, 3)?;
        let (uid, given, before) = (ApplicationUid(fixed(d)?), d.bytes()?, d.bytes()?);
        if given.len() > SETTINGS_BYTES_MAX || before.len() > SETTINGS_BYTES_MAX {
            return Err(decode::Error::message("settings too long"));
        }
        Ok((uid, StoredSettings { given: given.to_vec(), before: before.to_vec() }))
    };
    (0..count).map(read).collect()
}

fn expect_array(d: &mut Decoder<'_>, length: u64) -> Result<(), decode::Error> {
    if d.array()? == Some(length) { Ok(()) } else { Err(decode::Error::message("another shape")) }
}

fn fixed<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], decode::Error> {
    d.bytes()?.try_into().map_err(|_| decode::Error::message("another length"))
}

fn spec(d: &mut Decoder<'_>) -> Result<Vec<u8>, decode::Error> {
    let bytes = d.bytes()?;
    if bytes.len() > SPEC_BYTES_MAX {
        Err(decode::Error::message("spec too long"))
    } else {
        Ok(bytes.to_vec())
    }
}

fn optional<'b, T>(
    d: &mut Decoder<'b>,
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, decode::Error>,
) -> Result<Option<T>, decode::Error> {
    if d.datatype()? == minicbor::data::Type::Null {
        d.null()?;
        return Ok(None);
    }
    read(d).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::{collection, option, prelude::*};

    fn stored() -> impl Strategy<Value = StoredApplication> {
        let ended = (any::<u32>().prop_map(ReportReason::from), "[a-z]{0,96}");
        let spec = || collection::vec(any::<u8>(), 0..64);
        let current =
            (any::<[u8; 32]>(), spec(), any::<[u8; 16]>(), any::<u32>(), any::<u32>(), option::of(ended))
                .prop_map(|(hash, spec, correlation, restarts, failures, ended)| StoredCurrent {
                    spec_hash: SpecHash(hash),
                    spec,
                    correlation_id: CorrelationId(correlation),
                    restarts,
                    failures,
                    ended,
                });
        let next = (any::<[u8; 32]>(), option::of((spec(), any::<[u8; 16]>().prop_map(CorrelationId))))
            .prop_map(|(hash, spec)| StoredNext { spec_hash: SpecHash(hash), spec });
        (any::<[u8; 16]>(), any::<bool>(), option::of(current), option::of(next)).prop_map(
            |(uid, accepted, current, next)| StoredApplication {
                uid: ApplicationUid(uid),
                accepted,
                current,
                next,
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was(
            epoch: u64,
            revision: u64,
            set_known: bool,
            boot_counter: u64,
            applications in collection::vec(stored(), 0..=DESIRED_MAX),
            values in collection::vec(any::<u8>(), 0..=SETTINGS_BYTES_MAX),
        ) {
            let of = |stored: &StoredApplication| {
                let settings = StoredSettings { given: values.clone(), before: values.clone() };
                (stored.uid, settings)
            };
            let settings = applications.iter().filter(|_| !values.is_empty()).map(of).collect();
            let record = Record {
                last_epoch: Epoch(epoch),
                revision: Revision(revision),
                set_known,
                applications,
                boot_counter: BootCounter(boot_counter),
                settings,
            };
            let bytes = record.encode();
            prop_assert!(bytes.len() <= STATE_BYTES_MAX);
            prop_assert_eq!(Record::decode(&bytes), Some(record));
            for cut in 0..bytes.len() {
                prop_assert_eq!(Record::decode(bytes.get(..cut).unwrap()), None);
            }
        }

        #[test]
        fn other_bytes_are_no_record_and_no_panic(bytes in collection::vec(any::<u8>(), 0..512)) {
            let _ = Record::decode(&bytes);
        }
    }

    #[test]
    fn the_largest_record_keeps_its_bound() {
        let largest = StoredApplication {
            uid: ApplicationUid([255; 16]),
            accepted: true,
            current: Some(StoredCurrent {
                spec_hash: SpecHash([255; 32]),
                spec: vec![0; SPEC_BYTES_MAX],
                correlation_id: CorrelationId([255; 16]),
                restarts: u32::MAX,
                failures: u32::MAX,
                ended: Some((ReportReason::Unknown(u32::MAX), "x".repeat(REPORT_MESSAGE_BYTES_MAX))),
            }),
            next: Some(StoredNext {
                spec_hash: SpecHash([255; 32]),
                spec: Some((vec![0; SPEC_BYTES_MAX], CorrelationId([255; 16]))),
            }),
        };
        let values = vec![0; SETTINGS_BYTES_MAX];
        let settings = StoredSettings { given: values.clone(), before: values };
        let record = Record {
            last_epoch: Epoch(u64::MAX),
            revision: Revision(u64::MAX),
            set_known: true,
            applications: vec![largest; DESIRED_MAX],
            boot_counter: BootCounter(u64::MAX),
            settings: vec![(ApplicationUid([255; 16]), settings); DESIRED_MAX],
        };
        assert!(record.encode().len() <= STATE_BYTES_MAX);
    }

    #[test]
    fn the_first_bytes_of_a_record_never_change() {
        let record = Record {
            last_epoch: Epoch(3),
            revision: Revision(7),
            set_known: true,
            applications: vec![],
            boot_counter: BootCounter(9),
            settings: vec![],
        };
        assert_eq!(record.encode(), [0x86, 0x01, 0x03, 0x07, 0xf5, 0x80, 0x09]);
        let settings = StoredSettings { given: vec![0xaa], before: vec![] };
        let with = Record { settings: vec![(ApplicationUid([5; 16]), settings)], ..record };
        let head = [0x87, 0x01, 0x03, 0x07, 0xf5, 0x80, 0x09, 0x81, 0x83, 0x50];
        assert_eq!(with.encode(), [&head[..], &[5; 16], &[0x41, 0xaa, 0x40]].concat());
    }

    #[test]
    fn records_of_older_and_of_later_firmware_open() {
        let record = |boot_counter| Record {
            last_epoch: Epoch(3),
            revision: Revision(7),
            set_known: true,
            applications: vec![],
            boot_counter: BootCounter(boot_counter),
            settings: vec![],
        };
        assert_eq!(Record::decode(&[0x85, 0x01, 0x03, 0x07, 0xf5, 0x80]), Some(record(0)));
        let later =
            [0x89, 0x01, 0x03, 0x07, 0xf5, 0x80, 0x09, 0x80, 0x61, b'x', 0x82, 0x01, 0xa1, 0x01, 0x02];
        assert_eq!(Record::decode(&later), Some(record(9)));
        assert_eq!(Record::decode(&later[..later.len() - 1]), None);
    }
}
