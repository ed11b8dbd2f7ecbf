//! What an invariant promises.

/// The value of an `Option` that is `Some` by an invariant, which the text names. Should the invariant be broken, debug
/// builds fail here; release builds leave the function, with the value after `=>` if it has one, and change nothing.
macro_rules! present {
    ($value:expr, $invariant:literal) => {
        match $value {
            Some(value) => value,
            None => {
                debug_assert!(false, $invariant);
                return;
            }
        }
    };
    ($value:expr, $invariant:literal => $otherwise:expr) => {
        match $value {
            Some(value) => value,
            None => {
                debug_assert!(false, $invariant);
                return $otherwise;
            }
        }
    };
}
