//! How much of the stack was ever used: what nobody wrote to still holds a pattern.

unsafe extern "C" {
    static _stack_start: u32;
    static _stack_end: u32;
}

const PATTERN: u32 = 0x5a5a_a5a5;
/// What the function that paints may use itself.
const MARGIN_BYTES: usize = 512;

/// Bytes of the stack.
pub fn bytes() -> usize {
    (&raw const _stack_start as usize).saturating_sub(&raw const _stack_end as usize)
}

/// Fills what is not in use.
///
/// # Safety
/// Nothing that interrupts it leaves anything below its caller's frame that it comes back to.
// In a frame of its own, which is far smaller than the margin: the caller's could be larger.
#[inline(never)]
pub unsafe fn paint() {
    let here = 0u32;
    let end = (&raw const here as usize).saturating_sub(MARGIN_BYTES);
    let mut word = &raw const _stack_end as usize;
    while word < end {
        // SAFETY: it lies within the stack, below everything that is in use.
        unsafe { (word as *mut u32).write_volatile(PATTERN) };
        word += size_of::<u32>();
    }
}

/// The most bytes that were in use at once, as far as anything was written there.
pub fn peak_bytes() -> usize {
    let start = &raw const _stack_start as usize;
    let mut word = &raw const _stack_end as usize;
    // SAFETY: every address is within the stack; reading it changes nothing.
    while word < start && unsafe { (word as *const u32).read_volatile() } == PATTERN {
        word += size_of::<u32>();
    }
    start.saturating_sub(word)
}

/// Bytes of the stack that `work` uses, its own frames included.
pub fn used_by(work: impl FnOnce()) -> usize {
    // SAFETY: it paints below everything that is in use; what would interrupt it leaves nothing there that it comes back to.
    unsafe { paint() };
    let above = below_the_margin(work);
    let mut word = &raw const _stack_end as usize;
    // SAFETY: every address is within the stack; reading it changes nothing.
    while word < above && unsafe { (word as *const u32).read_volatile() } == PATTERN {
        word += size_of::<u32>();
    }
    above - word
}

/// Runs `work` with nothing but what was painted below it, and answers where that begins.
#[inline(never)]
fn below_the_margin(work: impl FnOnce()) -> usize {
    let room = [0u32; 2 * MARGIN_BYTES / size_of::<u32>()];
    let above = core::hint::black_box(&room).as_ptr() as usize;
    work();
    above
}
