//! Every test against both control planes.

use anyhow::{Context, Result};

use crate::Turn;

/// Makes two tests of each function that takes a [`ControlPlane`](crate::ControlPlane): `embedded::NAME` and
/// `kubernetes::NAME`.
#[macro_export]
macro_rules! both {
    ($($name:ident),+ $(,)?) => {
        mod embedded {
            $(
                #[test]
                fn $name() -> ::anyhow::Result<()> {
                    $crate::run(super::$name($crate::ControlPlane::Embedded))
                }
            )+
        }

        mod kubernetes {
            $(
                #[test]
                fn $name() -> ::anyhow::Result<()> {
                    $crate::run(super::$name($crate::ControlPlane::Kubernetes))
                }
            )+
        }
    };
}

/// Runs a test; if it fails, what its processes printed last is printed with it.
///
/// # Errors
/// The test's own.
pub fn run(test: impl Future<Output = Result<()>>) -> Result<()> {
    let _turn = Turn::if_devices_are_boards();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.context("can't make a runtime")?.block_on(test);
    let words = wasmbed_testbed::last_words();
    if result.is_err() {
        words.iter().for_each(|words| eprintln!("{words}"));
    }
    result
}
