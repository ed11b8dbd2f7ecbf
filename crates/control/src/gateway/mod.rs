//! A gateway's decisions.
