//! The request path: from an accepted socket to an answer.
//!
//! [`server`] accepts, [`connection`] speaks the protocol, [`service`] walks one request through the policy of its
//! route, and [`reject`] holds every reason not to serve it.

pub mod answer;
pub mod body;
mod budget;
pub mod client;
pub mod coding;
mod connection;
pub mod connections;
pub mod cors;
mod date;
pub mod filter;
mod forward;
pub mod forwarded;
pub mod headers;
pub mod host;
mod mirror;
pub mod path;
mod prepare;
mod query;
mod record;
pub mod reject;
pub mod router;
pub mod server;
mod service;
pub mod site;
pub mod template;
pub mod tls;
mod tunnel;
mod turns;
mod wire;
mod worker;

pub use connections::Connections;
pub use server::{Bound, Server};
pub use site::{Site, SiteHandle};
