//! The request path: from an accepted socket to an answer.

pub mod client;
pub mod reject;
