//! The request path under test: the real server on real sockets, a recording upstream, clients that speak in bytes.
//!
//! Threads and blocking calls on the test's side: a test reads from top to bottom, and the gateway's event loop is never
//! the test's.

/// What time it is for quotas: noon in Greenwich on the first day of 2027, in seconds since 1970.
pub const NOON: u64 = 1_798_804_800;

pub mod config;
pub mod dns;
pub mod gateway;
pub mod http2;
pub mod issuer;
pub mod peer;
pub mod provider;
pub mod raw;
pub mod redis;
pub mod upstream;

pub use config::Site;
pub use gateway::Gateway;
pub use issuer::Issuer;
pub use provider::{Browser, Provider};
pub use raw::{Client, Response};
pub use upstream::Upstream;
