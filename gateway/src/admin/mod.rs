//! The way in for operators: one set of requests and answers, over a unix socket or in the command's own process.

pub mod answer;
pub mod api;
pub mod client;
pub mod metrics;
pub mod reserve;
pub mod server;
