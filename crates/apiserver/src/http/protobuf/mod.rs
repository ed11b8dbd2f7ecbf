//! Kubernetes' protobuf form of the built-in kinds, translated from and to their JSON form.
//!
//! Typed clients of Go send and ask for it by default. Custom kinds have no protobuf form, here as in Kubernetes.

mod answer;
mod codec;
mod messages;
mod wire;

pub(crate) use answer::{Events, answer};
pub(crate) use codec::{DecodeError, MEDIA_TYPE, decode, encode, has_form};
