//! The Kubernetes resources of Wasmbed (`wasmbed.github.io/v1alpha1`): types, defaults, bounds, reason codes and the
//! generated CustomResourceDefinitions.
//!
//! It may not do I/O and may not decide anything about devices.

#![forbid(unsafe_code)]

mod application;
mod broker;
mod crd;
mod device;
mod gateway;
mod module;
mod names;
mod peripherals;
mod reason;
mod schema;

pub use application::*;
pub use broker::*;
pub use crd::{crd_yaml, crds, reasons_markdown};
pub use device::*;
pub use gateway::*;
pub use module::*;
pub use names::*;
pub use peripherals::*;
pub use reason::*;

/// API group of all resources.
pub const GROUP: &str = "wasmbed.github.io";
/// API version of all resources.
pub const VERSION: &str = "v1alpha1";
/// Holds an Application until the devices that run it have let go of it.
pub const APPLICATION_FINALIZER: &str = "wasmbed.github.io/undeploy";
/// Finalizer of Devices with assignments: removed once the device has let go of them, or can't be asked to.
pub const DEVICE_FINALIZER: &str = "wasmbed.github.io/undeploy";
