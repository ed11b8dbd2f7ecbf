//! A gateway process against a real embedded Kubernetes API, over real sockets and certificates.

mod api;
mod hostile;
mod lifecycle;
mod support;
