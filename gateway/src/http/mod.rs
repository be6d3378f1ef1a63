//! The request path: from an accepted socket to an answer.
//!
//! [`listeners`] keeps the sockets, [`server`] accepts from them, [`connection`] speaks the protocol, [`service`] walks one request through the policy of its
//! route, and [`reject`] holds every reason not to serve it.

mod accept;
pub mod answer;
pub mod body;
mod budget;
pub mod client;
pub mod coding;
mod connection;
pub mod connections;
pub mod cors;
mod date;
mod digest;
pub mod door;
pub mod facts;
pub mod filter;
mod forward;
pub mod forwarded;
pub mod headers;
mod held;
pub mod host;
pub mod listeners;
mod meter;
mod mirror;
pub mod path;
mod prepare;
mod query;
mod record;
mod redirect;
pub mod reject;
mod reply;
pub mod rewrite;
pub mod router;
mod seldom;
pub mod server;
mod service;
pub mod shape;
pub mod site;
mod surplus;
pub mod template;
pub mod tls;
mod tunnel;
mod turns;
mod websocket;
mod wire;
mod worker;

pub use connections::Connections;
pub use listeners::{Bound, Listeners};
pub use server::Server;
pub use site::{Site, SiteHandle};
