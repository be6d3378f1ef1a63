//! The user-space half: configuration, proxy, and the keeper of the kernel's tables.
//!
//! A library so that the tests can drive the same code as the binary. See `ARCHITECTURE.md` for who may import whom.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod dataplane;
pub mod http;
pub mod net;
pub mod runtime;
pub mod strikes;
pub mod telemetry;
pub mod upstream;
