//! The deployment: generated files, permissions, the chart, its pods and its guides.

#![cfg(test)]

mod access;
mod chart;
mod generated;
mod guide;
mod krew;
mod pods;
mod roles;
