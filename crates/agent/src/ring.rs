//! Records that wait, one after the other in bounded memory, [`RING_BYTES`] unless its owner says less. It takes what memory it needs as it fills, and
//! gives it back once it is empty; where the system has none left, the ring is full.

use alloc::vec::Vec;

/// Memory of what waits in one ring.
pub(crate) const RING_BYTES: usize = 2_048;
/// Before each record: its length.
const LENGTH_BYTES: usize = 2;
/// The least memory that is taken, so that a record in a while does not take it again and again.
const RESERVED_MIN: usize = 128;

/// Records, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ring(Vec<u8>);

impl Ring {
    /// Bytes of the records, with their lengths. A record that is pushed now begins here.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a record of so many bytes can be pushed into an empty ring.
    pub(crate) fn ever_holds(bytes: usize) -> bool {
        LENGTH_BYTES + bytes <= RING_BYTES
    }

    /// Appends a record that is these parts; false if there is no room for it.
    pub(crate) fn push(&mut self, parts: &[&[u8]]) -> bool {
        self.push_within(parts, RING_BYTES)
    }

    /// As [`push`](Self::push), into a ring of `bytes_max`.
    pub(crate) fn push_within(&mut self, parts: &[&[u8]], bytes_max: usize) -> bool {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let Ok(length) = u16::try_from(bytes) else { return false };
        let needed = self.len() + LENGTH_BYTES + bytes;
        if needed > bytes_max || !self.reserve(needed, bytes_max) {
            return false;
        }
        self.0.extend(length.to_le_bytes());
        parts.iter().for_each(|part| self.0.extend(*part));
        true
    }

    fn reserve(&mut self, needed: usize, bytes_max: usize) -> bool {
        if needed <= self.0.capacity() {
            return true;
        }
        let wanted = needed.next_power_of_two().clamp(RESERVED_MIN.min(bytes_max), bytes_max);
        self.0.try_reserve_exact(wanted - self.len()).is_ok()
    }

    /// The record that begins at this place.
    pub(crate) fn at(&self, place: usize) -> Option<&[u8]> {
        let (length, rest) = self.0.get(place..)?.split_first_chunk::<LENGTH_BYTES>()?;
        rest.get(..usize::from(u16::from_le_bytes(*length)))
    }

    /// The first record, to be changed.
    pub(crate) fn first_mut(&mut self) -> Option<&mut [u8]> {
        let length = self.at(0)?.len();
        self.0.get_mut(LENGTH_BYTES..LENGTH_BYTES + length)
    }

    /// The place after the record that begins at this one.
    pub(crate) fn after(&self, place: usize) -> usize {
        self.at(place).map_or(place, |record| place + LENGTH_BYTES + record.len())
    }

    /// Removes the records before this place.
    pub(crate) fn drop_to(&mut self, place: usize) {
        if place >= self.len() {
            self.0 = Vec::new();
        } else {
            self.0.drain(..place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were_pushed_and_memory_is_bounded_and_given_back() {
        let mut ring = Ring::default();
        let mut pushed = 0;
        while ring.push(&[b"head", &[pushed as u8; 30]]) {
            pushed += 1;
            assert!(ring.0.capacity() <= RING_BYTES);
        }
        assert_eq!(pushed, RING_BYTES / (2 + 34));
        let second = ring.after(0);
        assert_eq!(ring.at(second).map(|record| record[4]), Some(1));
        ring.drop_to(second);
        assert_eq!(ring.at(0).map(|record| record[33]), Some(1));
        ring.first_mut().unwrap()[0] = b'H';
        assert_eq!(ring.at(0).map(|record| &record[..4]), Some(&b"Head"[..]));
        ring.drop_to(ring.len());
        assert_eq!((ring.len(), ring.0.capacity(), ring.at(0)), (0, 0, None));
    }

    #[test]
    fn what_is_larger_than_the_ring_is_never_taken() {
        let mut ring = Ring::default();
        assert!(Ring::ever_holds(RING_BYTES - 2) && !Ring::ever_holds(RING_BYTES - 1));
        assert!(!ring.push(&[&[0; RING_BYTES - 1]]));
        assert!(ring.push(&[&[0; RING_BYTES - 2]]) && !ring.push(&[]));
    }
}
