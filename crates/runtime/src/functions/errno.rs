//! Error numbers of WASI preview 1, the ones in use here. The `wasmbed` functions answer them negated.

pub(crate) const SUCCESS: i32 = 0;
pub(crate) const AGAIN: i32 = 6;
pub(crate) const BADF: i32 = 8;
pub(crate) const BUSY: i32 = 10;
pub(crate) const FAULT: i32 = 21;
pub(crate) const INVAL: i32 = 28;
pub(crate) const IO: i32 = 29;
pub(crate) const NOENT: i32 = 44;
pub(crate) const NOSPC: i32 = 51;
pub(crate) const NOSYS: i32 = 52;
pub(crate) const NOTSUP: i32 = 58;
pub(crate) const NXIO: i32 = 60;
pub(crate) const OVERFLOW: i32 = 61;
pub(crate) const PROTO: i32 = 65;
pub(crate) const SPIPE: i32 = 70;
pub(crate) const TIMEDOUT: i32 = 73;
pub(crate) const NOTCAPABLE: i32 = 76;
