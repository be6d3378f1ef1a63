//! What is told to the outside: metrics, logs.

pub mod access_log;
pub mod metrics;

pub use metrics::Metrics;
