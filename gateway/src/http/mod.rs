//! The request path: from an accepted socket to an answer.
//!
//! [`listeners`] keeps the sockets, [`server`] accepts from them, [`connection`] speaks the protocol, [`service`] walks one request through the policy of its
//! route, and [`reject`] holds every reason not to serve it.

mod accept;
pub mod body;
mod budget;
pub mod client;
mod connection;
pub mod connections;
mod date;
pub mod door;
pub mod filter;
mod forward;
pub mod headers;
pub mod host;
pub mod listeners;
pub mod path;
mod prepare;
mod record;
mod redirect;
pub mod reject;
pub mod router;
pub mod server;
mod service;
pub mod site;
pub mod tls;
mod tunnel;
mod turns;
mod wire;
mod worker;

pub use connections::Connections;
pub use listeners::{Bound, Listeners};
pub use server::Server;
pub use site::{Site, SiteHandle};
