//! Arguments and environment of a program.

use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of arguments and environment of one application, terminators included.
pub const ARGUMENT_BYTES_MAX: usize = 4_096;

/// Arguments and environment, each terminated by a zero byte as WASI hands them out.
#[derive(Debug)]
pub(crate) struct Strings {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
}

impl Strings {
    /// Copies them; the error is how many bytes they have, when that is more than [`ARGUMENT_BYTES_MAX`].
    pub(crate) fn new(name: &str, args: &[&str], env: &[(&str, &str)]) -> Result<Strings, usize> {
        let args = core::iter::once(name).chain(args.iter().copied());
        let bytes = args.clone().map(|arg| arg.len() + 1).sum::<usize>()
            + env.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
        if bytes > ARGUMENT_BYTES_MAX {
            return Err(bytes);
        }
        let terminated =
            |parts: [&str; 3]| parts.iter().flat_map(|part| part.chars()).chain(['\0']).collect();
        Ok(Strings {
            args: args.map(|arg| terminated([arg, "", ""])).collect(),
            env: env.iter().map(|(name, value)| terminated([name, "=", value])).collect(),
        })
    }
}
