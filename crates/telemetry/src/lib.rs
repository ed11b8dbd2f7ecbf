//! Logs, health and metrics, the same for every host process, and how its ports share what it may have open.
//!
//! It may not know what it measures: each process registers its own metrics and names its own components.
//!
//! Log fields that have one meaning everywhere: `correlation_id` (32 hex digits), `device` (`namespace/name`), `application`
//! (`namespace/name`), `gateway`, `epoch`, `revision`, `reason` (a CamelCase code), `error` (what went wrong, for people).

#![forbid(unsafe_code)]

mod causes;
mod files;
mod health;
mod logging;
mod metrics;
pub mod places;
mod server;

pub use causes::with_causes;
pub use files::OpenFiles;
pub use health::{Health, NotReady, Readiness};
pub use logging::{LogFormat, LoggingError, init_logging};
pub use metrics::{Description, ProcessMetrics, Registration};
pub use prometheus_client;
pub use server::{METRICS_CONTENT_TYPE, encode_metrics, listen, router, serve_health};
