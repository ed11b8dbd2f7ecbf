//! What all measurements use: a board that counts and prints, and an engine that runs a kernel.

use core::{fmt::Write, marker::PhantomData};

/// A board that counts.
pub trait Board {
    /// Instructions since some moment.
    fn instructions() -> u64;
    /// Writes to the console.
    fn write(bytes: &[u8]);
}

/// How a step of a kernel ended.
pub(crate) enum Step {
    Done(u32),
    OutOfFuel,
}

/// What an engine must be able to do. Whatever fails is said by a text, which ends the measurement.
pub(crate) trait Engine {
    const NAME: &'static str;

    fn start(&mut self, kernel: &str, amount: u32) -> Result<(), &'static str>;

    fn step(&mut self, fuel: u32) -> Result<Step, &'static str>;
}

pub(crate) struct Console<B>(pub(crate) PhantomData<B>);

impl<B: Board> Write for Console<B> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        B::write(text.as_bytes());
        Ok(())
    }
}

macro_rules! say {
    ($board:ty, $($argument:tt)*) => {{
        use core::fmt::Write as _;
        // The console takes everything.
        let _ = writeln!($crate::common::Console::<$board>(core::marker::PhantomData), $($argument)*);
    }};
}
pub(crate) use say;

pub(crate) fn counted<B: Board, T>(work: impl FnOnce() -> T) -> (T, u64) {
    let begun = B::instructions();
    let made = work();
    (made, B::instructions() - begun)
}
