//! The little DER (ITU-T X.690) that webpki does not hand out: a certificate's validity, where one ends, a private key, and
//! writing.

use alloc::vec::Vec;

use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

/// ASN.1 tags.
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const CONTEXT_0: u8 = 0xa0;
const SET: u8 = 0x31;
const CONTEXT_1: u8 = 0xa1;

/// The attribute type `serialNumber`, 2.5.4.5.
const SERIAL_NUMBER: &[u8] = &[0x55, 0x04, 0x05];

/// `AlgorithmIdentifier` of id-ecPublicKey with the curve P-256, without its own header (RFC 5480).
const EC_P256: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07,
];

/// What stands before the scalar and before the point of a P-256 key in PKCS#8 v1 (RFC 5208, with RFC 5915 inside).
const PKCS8_HEADS: [&[u8]; 2] = [
    &[
        0x30, 0x81, 0x87, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
        0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01,
        0x04, 0x20,
    ],
    &[0xa1, 0x44, 0x03, 0x42, 0x00],
];
/// Bytes of such a key.
const PKCS8_BYTES: usize = 138;

/// From when to when a certificate is valid, both ends inclusive, seconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

impl Validity {
    /// Of a DER certificate (RFC 5280, section 4.1). Nothing else of it is checked.
    pub(crate) fn of(certificate: &[u8]) -> Option<Self> {
        let mut outer = Reader(certificate).enter(SEQUENCE)?;
        let mut body = outer.enter(SEQUENCE)?;
        body.skip_if(CONTEXT_0);
        body.value(INTEGER)?;
        body.value(SEQUENCE)?;
        body.value(SEQUENCE)?;
        let mut validity = body.enter(SEQUENCE)?;
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        validity.0.is_empty().then_some(Self { not_before, not_after })
    }
}

/// The subject's serial number (X.520, section 6.2.9) of a DER certificate, if it has one as text. Nothing else is checked.
pub(crate) fn subject_serial(certificate: &[u8]) -> Option<&str> {
    let mut outer = Reader(certificate).enter(SEQUENCE)?;
    let mut body = outer.enter(SEQUENCE)?;
    body.skip_if(CONTEXT_0);
    body.value(INTEGER)?;
    for _ in 0..3 {
        body.value(SEQUENCE)?;
    }
    let mut subject = body.enter(SEQUENCE)?;
    while !subject.0.is_empty() {
        // Several attributes in one set are a thing that no authority makes.
        let mut attribute = subject.enter(SET)?.enter(SEQUENCE)?;
        if attribute.value(OBJECT_IDENTIFIER)? == SERIAL_NUMBER {
            let text = attribute.value(UTF8_STRING).or_else(|| attribute.value(PRINTABLE_STRING))?;
            return core::str::from_utf8(text).ok();
        }
    }
    None
}

/// Certificates that stand one after the other, with nothing behind them; nothing but their lengths is checked.
pub(crate) fn certificates(bytes: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut certificates = Vec::new();
    let mut rest = Reader(bytes);
    while !rest.0.is_empty() {
        let before = rest.0;
        rest.value(SEQUENCE)?;
        let (certificate, _) = before.split_at_checked(before.len() - rest.0.len())?;
        certificates.push(CertificateDer::from(certificate.to_vec()));
    }
    Some(certificates)
}

/// The scalar of a P-256 key in PKCS#8 v1 (RFC 5208, with RFC 5915 inside).
pub(crate) fn p256_scalar(pkcs8: &[u8]) -> Option<&[u8; 32]> {
    let mut whole = Reader(pkcs8);
    let mut info = whole.enter(SEQUENCE)?;
    if !whole.0.is_empty() || info.value(INTEGER)? != [0] || info.value(SEQUENCE)? != EC_P256 {
        return None;
    }
    let mut private = Reader(info.value(OCTET_STRING)?);
    let mut key = private.enter(SEQUENCE)?;
    if !private.0.is_empty() || key.value(INTEGER)? != [1] {
        return None;
    }
    let scalar = key.value(OCTET_STRING)?.try_into().ok()?;
    key.skip_if(CONTEXT_0);
    key.skip_if(CONTEXT_1);
    key.0.is_empty().then_some(scalar)
}

/// A P-256 key in PKCS#8 v1, of its scalar and its public point, uncompressed. It overwrites itself, and is in one place only.
pub(crate) fn p256_pkcs8(scalar: &[u8], point: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(PKCS8_BYTES));
    for (head, part) in PKCS8_HEADS.into_iter().zip([scalar, point]) {
        key.extend_from_slice(head);
        key.extend_from_slice(part);
    }
    debug_assert_eq!(key.len(), PKCS8_BYTES, "the lengths stand in the heads");
    key
}

/// One element, of parts that stand one after the other in it; all together below 64 KiB.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    debug_assert!(u16::try_from(length).is_ok(), "two bytes hold the length");
    let mut element = Vec::with_capacity(4 + length);
    element.push(tag);
    match length {
        0..=0x7f => element.push(length as u8),
        0x80..=0xff => element.extend([0x81, length as u8]),
        _ => {
            element.push(0x82);
            element.extend((length as u16).to_be_bytes());
        }
    }
    parts.iter().for_each(|part| element.extend_from_slice(part));
    element
}

/// The point, uncompressed, of a P-256 `SubjectPublicKeyInfo`.
pub(crate) fn p256_point(spki: &[u8]) -> Option<&[u8]> {
    let mut info = Reader(spki).enter(SEQUENCE)?;
    if info.value(SEQUENCE)? != EC_P256 {
        return None;
    }
    match info.value(BIT_STRING)? {
        [0, point @ ..] => Some(point),
        _ => None,
    }
}

/// What is left of a run of elements.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn value(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&found, rest) = self.0.split_first()?;
        if found != tag {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            short @ 0..=0x7f => (usize::from(short), rest),
            0x81 => {
                let (&length, rest) = rest.split_first()?;
                (usize::from(length), rest)
            }
            0x82 => {
                let (length, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(*length)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }

    fn enter(&mut self, tag: u8) -> Option<Self> {
        self.value(tag).map(Reader)
    }

    fn skip_if(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            let _ = self.value(tag);
        }
    }

    fn time(&mut self) -> Option<u64> {
        if self.0.first() == Some(&GENERALIZED_TIME) {
            let (century, rest) = self.value(GENERALIZED_TIME)?.split_at_checked(2)?;
            return seconds(digits(century)?, rest);
        }
        let text = self.value(UTC_TIME)?;
        // RFC 5280, section 4.1.2.5.1.
        let century = if digits(text.get(..2)?)? >= 50 { 19 } else { 20 };
        seconds(century, text)
    }
}

/// Seconds since 1970 of `YYMMDDHHMMSSZ` in a century; earlier times count as 1970.
fn seconds(century: u64, text: &[u8]) -> Option<u64> {
    let (pairs, &[b'Z']) = text.split_last_chunk::<1>()? else { return None };
    if pairs.len() != 12 {
        return None;
    }
    let mut fields = [0; 6];
    for (field, pair) in fields.iter_mut().zip(pairs.chunks_exact(2)) {
        *field = digits(pair)?;
    }
    let [year, month, day, hour, minute, second] = fields;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days since 0000-03-01, from Howard Hinnant, "chrono-compatible low-level date algorithms".
    let year = century * 100 + year;
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    const DAYS_TO_1970: u64 = 719_468;
    Some(days.saturating_sub(DAYS_TO_1970) * 86_400 + hour * 3_600 + minute * 60 + second)
}

fn digits(pair: &[u8]) -> Option<u64> {
    pair.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_what_they_should_be() {
        // Values of `date -u -d … +%s`.
        for (text, expected) in [
            (&b"\x17\x0d700101000000Z"[..], 0),
            (b"\x17\x0d491231235959Z", 2_524_607_999),
            (b"\x18\x0f20500101000000Z", 2_524_608_000),
            (b"\x18\x0f20000229120000Z", 951_825_600),
            (b"\x18\x0f99991231235959Z", 253_402_300_799),
            (b"\x17\x0d500101000000Z", 0),
        ] {
            assert_eq!(Reader(text).time(), Some(expected), "{text:?}");
        }
        for text in [&b"\x17\x0d700101000000+"[..], b"\x17\x0d701301000000Z", b"\x17\x0b7001010000Z", b""] {
            assert_eq!(Reader(text).time(), None, "{text:?}");
        }
    }

    #[test]
    fn an_element_of_any_length_is_read_as_it_was_written() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x1234, 0xffff] {
            let content = alloc::vec![0x5a; length];
            let (front, back) = content.split_at(length / 3);
            let element = element(OCTET_STRING, &[front, back]);
            let mut reader = Reader(&element);
            assert_eq!(reader.value(OCTET_STRING), Some(&content[..]), "{length}");
            assert!(reader.0.is_empty());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Validity::of(&bytes);
            let _ = subject_serial(&bytes);
            let _ = p256_scalar(&bytes);
            let _ = p256_point(&bytes);
            let _ = certificates(&bytes);
            let _ = Reader(&bytes).time();
        }

        #[test]
        fn a_certificate_that_was_changed_does_not_make_it_panic(at in 0usize..400, value: u8, cut in 0usize..600) {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut der = rcgen::CertificateParams::default().self_signed(&key).unwrap().der().to_vec();
            if let Some(byte) = der.get_mut(at) {
                *byte = value;
            }
            der.truncate(cut);
            let _ = Validity::of(&der);
            let _ = subject_serial(&der);
        }

        #[test]
        fn a_subjects_serial_number_is_what_the_host_reads(name in "[a-z]{0,9}", serial in "[a-z0-9-]{0,40}", has_serial: bool) {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            if has_serial {
                params.distinguished_name.push(rcgen::DnType::CustomDnType(vec![2, 5, 4, 5]), serial.clone());
            }
            let der = params.self_signed(&key).unwrap();
            let facts = wasmbed_pki::CertificateFacts::parse(der.der()).unwrap();
            prop_assert_eq!(subject_serial(der.der()), facts.subject_serial.as_deref());
            prop_assert_eq!(subject_serial(der.der()), has_serial.then_some(serial.as_str()));
        }

        #[test]
        fn validity_is_what_the_host_reads(from in 0i64..3_000_000_000, seconds in 0i64..4_000_000_000) {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::default();
            let epoch = rcgen::date_time_ymd(1970, 1, 1);
            params.not_before = epoch + core::time::Duration::from_secs(from as u64);
            params.not_after = params.not_before + core::time::Duration::from_secs(seconds as u64);
            let der = params.self_signed(&key).unwrap();
            let facts = wasmbed_pki::CertificateFacts::parse(der.der()).unwrap();
            let validity = Validity::of(der.der()).unwrap();
            prop_assert_eq!(validity.not_before as i64, facts.not_before);
            prop_assert_eq!(validity.not_after as i64, facts.not_after);
            prop_assert_eq!(validity.not_before as i64, from);
        }
    }
}
