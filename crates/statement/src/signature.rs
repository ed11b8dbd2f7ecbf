//! ECDSA signatures on P-256: r and s as COSE has them (RFC 9053, section 2.1), and in DER as certificates do (RFC 3279).

use alloc::vec::Vec;

/// Bytes of each of the two integers.
const INTEGER_BYTES: usize = 32;
/// Bytes of both.
pub(crate) const RAW_BYTES: usize = 2 * INTEGER_BYTES;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// `SEQUENCE { INTEGER r, INTEGER s }` of both integers.
pub(crate) fn to_der(raw: &[u8; RAW_BYTES]) -> Vec<u8> {
    let mut der = Vec::with_capacity(72);
    der.extend([SEQUENCE, 0]);
    for integer in raw.chunks_exact(INTEGER_BYTES) {
        // The last byte stays: zero is written as one.
        let zeros = integer.iter().take(INTEGER_BYTES - 1).take_while(|byte| **byte == 0).count();
        let (_, digits) = integer.split_at(zeros);
        let sign = digits.first().is_some_and(|byte| *byte >= 0x80);
        der.extend([INTEGER, (digits.len() + usize::from(sign)) as u8]);
        if sign {
            der.push(0);
        }
        der.extend_from_slice(digits);
    }
    // 70 at most.
    der[1] = (der.len() - 2) as u8;
    der
}

/// The other way; none if it is not that structure with integers of at most 32 bytes.
pub(crate) fn from_der(der: &[u8]) -> Option<[u8; RAW_BYTES]> {
    let (integers, rest) = value(der, SEQUENCE)?;
    let (r, s) = value(integers, INTEGER)?;
    let (s, end) = value(s, INTEGER)?;
    if !rest.is_empty() || !end.is_empty() {
        return None;
    }
    let mut raw = [0; RAW_BYTES];
    for (slot, integer) in raw.chunks_exact_mut(INTEGER_BYTES).zip([r, s]) {
        let digits = digits(integer)?;
        let (_, tail) = slot.split_at_mut(INTEGER_BYTES.checked_sub(digits.len())?);
        tail.copy_from_slice(digits);
    }
    Some(raw)
}

/// Of a positive integer in its shortest form.
fn digits(integer: &[u8]) -> Option<&[u8]> {
    match integer {
        [0] => Some(&[]),
        [0, digits @ ..] if digits.first().is_some_and(|byte| *byte >= 0x80) => Some(digits),
        [1..=0x7f, ..] => Some(integer),
        _ => None,
    }
}

/// The value of the element that comes first, which is short, and what follows it.
fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    match der {
        [found, length @ 0..0x80, rest @ ..] if *found == tag => rest.split_at_checked(usize::from(*length)),
        _ => None,
    }
}
