//! Several controllers, several gateways, and a Kubernetes API that goes away or answers badly: one leader, no device lost, nothing
//! taken for dead that lives.

mod faults;
mod fleet;
mod gateways;
mod leaders;
mod outage;
mod support;
