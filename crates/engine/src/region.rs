//! The memory of one instance: a block that its owner hands in, given out from both ends.
//!
//! What the instance keeps grows from the low end; what only the translator needs lies at the high end and is given back.
#![allow(unsafe_code)]

use core::marker::PhantomData;
use core::slice;

/// Where something lies in a region, bytes from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) u32);

/// A region has no room for what is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    /// Bytes that were asked for.
    pub(crate) needed: usize,
}

/// Plain numbers, of which every pattern of bits is one.
///
/// # Safety
/// As said, and aligned to at most eight bytes.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: they are integers.
unsafe impl Plain for u8 {}
// SAFETY: they are integers.
unsafe impl Plain for u16 {}
// SAFETY: they are integers.
unsafe impl Plain for u32 {}

/// A block of memory, with how much of it is taken.
pub(crate) struct Region<'m> {
    /// Its beginning. Not a reference: a machine has pointers into the block, and moving a reference that nothing else may
    /// share would end them.
    start: *mut u64,
    /// Numbers of 64 bits.
    words: usize,
    block: PhantomData<&'m mut [u64]>,
    /// Bytes taken at the low end.
    low: usize,
    /// Where what is taken at the high end begins.
    high: usize,
    /// Bytes that were taken at both ends at once, at most.
    most: usize,
    /// Numbers of the block behind those, which something else has until [`Self::reunite`].
    apart: usize,
}

// SAFETY: it borrows the block, and nothing else has it.
unsafe impl Send for Region<'_> {}

impl<'m> Region<'m> {
    /// A region of a block, but for so many numbers at its end, which are handed out beside it; `None` if it has less.
    pub(crate) fn split(block: &'m mut [u64], end: usize) -> Option<(Region<'m>, &'m mut [u64])> {
        let words = block.len().checked_sub(end)?;
        let start = block.as_mut_ptr();
        // Places have 32 bits.
        let high = (words * 8).min(u32::MAX as usize & !7);
        let region = Region { start, words, block: PhantomData, low: 0, high, most: 0, apart: end };
        // SAFETY: within the block, which is borrowed as long, and the region has nothing of it yet.
        Some((region, unsafe { slice::from_raw_parts_mut(start.add(words), end) }))
    }

    /// Bytes of the block with what was handed out beside the region.
    pub(crate) fn whole_bytes(&self) -> usize {
        ((self.words + self.apart) * 8).min(u32::MAX as usize & !7)
    }

    /// The region has its block's end as well from now on, and what was taken at the high end is given back.
    ///
    /// # Safety
    /// What was handed out beside the region is not used any more.
    pub(crate) unsafe fn reunite(&mut self) {
        self.high = self.whole_bytes();
        self.words += self.apart;
        self.apart = 0;
    }

    /// Bytes taken at the low end.
    pub(crate) fn low(&self) -> usize {
        self.low
    }

    /// Bytes that nobody has.
    pub(crate) fn free(&self) -> usize {
        self.high - self.low
    }

    /// Takes so many at the low end. They have whatever value was there.
    pub(crate) fn take<T: Plain>(&mut self, count: usize) -> Result<Place, Full> {
        self.align(align_of::<T>())?;
        let place = Place(self.low as u32);
        self.extend(count.checked_mul(size_of::<T>()).ok_or(Full { needed: usize::MAX })?)?;
        Ok(place)
    }

    /// Moves the low end up to a multiple of this, at most eight.
    pub(crate) fn align(&mut self, align: usize) -> Result<(), Full> {
        self.extend(self.low.next_multiple_of(align) - self.low)
    }

    /// Takes these bytes at the low end, behind what was taken last.
    pub(crate) fn extend(&mut self, bytes: usize) -> Result<(), Full> {
        if bytes > self.free() {
            return Err(Full { needed: bytes });
        }
        self.low += bytes;
        self.note(self.low);
        Ok(())
    }

    /// What is below this place is in use.
    pub(crate) fn note(&mut self, low: usize) {
        self.most = self.most.max(low + self.high_bytes());
    }

    /// Bytes that were in use at both ends at once, at most.
    pub(crate) fn most_bytes(&self) -> usize {
        self.most
    }

    /// Gives back what was taken at the low end from this place on.
    pub(crate) fn truncate(&mut self, low: usize) {
        debug_assert!(low <= self.low, "only what was taken is given back");
        self.low = low;
    }

    /// Takes up to this place at the low end: it was written already, as [`Self::free`] allowed.
    pub(crate) fn advance_to(&mut self, low: usize) {
        debug_assert!(self.low <= low && low <= self.high, "what was written was free");
        self.low = low;
        self.note(low);
    }

    /// Takes so many at the high end.
    pub(crate) fn take_high<T: Plain>(&mut self, count: usize) -> Result<Place, Full> {
        let bytes = count.checked_mul(size_of::<T>()).ok_or(Full { needed: usize::MAX })?;
        let high = self.high.checked_sub(bytes).map(|high| high & !7).filter(|high| *high >= self.low);
        self.high = high.ok_or(Full { needed: bytes })?;
        self.note(self.low);
        Ok(Place(self.high as u32))
    }

    /// Where what is taken at the high end begins.
    pub(crate) fn high(&self) -> usize {
        self.high
    }

    /// Gives back what was taken at the high end since it began here.
    pub(crate) fn give_back_high(&mut self, high: usize) {
        debug_assert!(high >= self.high, "only what was taken is given back");
        self.high = high;
    }

    /// Bytes taken at the high end.
    pub(crate) fn high_bytes(&self) -> usize {
        self.words * 8 - self.high
    }

    /// So many numbers at this place.
    pub(crate) fn slice<T: Plain>(&self, place: Place, count: usize) -> &[T] {
        self.check::<T>(place, count);
        // SAFETY: checked to lie within the block and to be aligned; every pattern of bits is a `T`.
        unsafe { slice::from_raw_parts(self.pointer(place).cast(), count) }
    }

    /// So many numbers at this place, to be written.
    pub(crate) fn slice_mut<T: Plain>(&mut self, place: Place, count: usize) -> &mut [T] {
        self.check::<T>(place, count);
        // SAFETY: checked to lie within the block and to be aligned; every pattern of bits is a `T`.
        unsafe { slice::from_raw_parts_mut(self.pointer_mut(place).cast(), count) }
    }

    fn check<T>(&self, place: Place, count: usize) {
        let end = count.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(place.0 as usize));
        assert!(
            end.is_some_and(|end| end <= self.words * 8)
                && (place.0 as usize).is_multiple_of(align_of::<T>()),
            "a place in the region"
        );
    }

    fn pointer(&self, place: Place) -> *const u8 {
        self.start.cast::<u8>().wrapping_add(place.0 as usize)
    }

    fn pointer_mut(&mut self, place: Place) -> *mut u8 {
        self.start.cast::<u8>().wrapping_add(place.0 as usize)
    }

    /// The address of a place.
    pub(crate) fn address(&self, place: Place) -> usize {
        self.pointer(place) as usize
    }

    /// Gives everything behind the low end back.
    pub(crate) fn give_back_rest(&mut self) {
        self.words = self.low.div_ceil(8).min(self.words);
        self.high = self.low;
    }

    /// Numbers of 64 bits of the block.
    pub(crate) fn words(&self) -> usize {
        self.words
    }

    /// The block's numbers are elsewhere now.
    ///
    /// # Safety
    /// From there on there are as many as in the block, they live as long, and nothing else has them.
    pub(crate) unsafe fn set_block(&mut self, block: *mut u64) {
        self.start = block;
    }

    /// Where it begins.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start.cast()
    }
}

impl Region<'_> {
    /// A word of code.
    #[inline(never)]
    pub(crate) fn word(&self, code: Place, position: u32) -> u16 {
        self.slice::<u16>(Place(code.0 + position * 2), 1)[0]
    }

    /// Writes a word of code.
    #[inline(never)]
    pub(crate) fn set_word(&mut self, code: Place, position: u32, word: u16) {
        self.slice_mut::<u16>(Place(code.0 + position * 2), 1)[0] = word;
    }

    /// A 32-bit number.
    #[inline(never)]
    pub(crate) fn number(&self, place: Place, index: usize) -> u32 {
        self.slice::<u32>(Place(place.0 + index as u32 * 4), 1)[0]
    }

    /// Writes a 32-bit number.
    #[inline(never)]
    pub(crate) fn set_number(&mut self, place: Place, index: usize, value: u32) {
        self.slice_mut::<u32>(Place(place.0 + index as u32 * 4), 1)[0] = value;
    }
}
