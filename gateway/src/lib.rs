//! The user-space half: configuration, proxy, and the keeper of the kernel's tables.
//!
//! A library so that the tests can drive the same code as the binary. See `ARCHITECTURE.md` for who may import whom.

// Both panic where the output is closed or full; what must be said goes through `tracing`, or a writer whose error is seen.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod dataplane;
pub mod http;
pub mod http1;
pub mod net;
pub mod runtime;
pub mod strikes;
pub mod telemetry;
pub mod upstream;
