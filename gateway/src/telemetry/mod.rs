//! What is told to the outside: metrics, logs.

pub mod access_log;
pub mod logs;
pub mod metrics;
pub mod packets;
mod series;

pub use metrics::Metrics;
