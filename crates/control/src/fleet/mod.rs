//! A controller's decisions.
