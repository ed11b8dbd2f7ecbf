//! The system's end-to-end tests: its own processes, Kubernetes, boards in QEMU, as people start them.
//!
//! One program, so that its tests share what takes long to link and to start: each of them alone, `cargo xtask e2e FILE`.

#![cfg(test)]

mod adjusting;
mod availability;
mod board;
mod brokers;
mod clients;
mod crashes;
mod enrollment;
mod full_disk;
mod hostile;
mod kubectl;
mod lifecycle;
mod login;
mod manifests;
mod microcontroller;
mod observability;
mod onboarding;
mod publishing;
mod retirement;
mod secrets;
mod signing;
mod up;
