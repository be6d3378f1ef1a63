//! What a listener does with a connection: TLS, the PROXY protocol, a redirect. Owns how a listener is told from the others.

use std::net::SocketAddr;
use std::sync::Arc;

use super::tls::{self, ServerTls};
use crate::config::model::{Listener, Paths};

/// Tells a listener from all others, across reloads: its address as configured, and which of those with this address it is,
/// as any number may ask for port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub address: SocketAddr,
    ordinal: u16,
}

/// The keys of listeners, in their order.
#[must_use]
pub fn keys(listeners: &[Listener]) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::with_capacity(listeners.len());
    for listener in listeners {
        let address = listener.address;
        let before = keys.iter().filter(|key| key.address == address).count();
        keys.push(Key {
            address,
            ordinal: u16::try_from(before).unwrap_or(u16::MAX),
        });
    }
    keys
}

/// A listener, compiled. A connection keeps the one it came by.
#[derive(Debug)]
pub struct Door {
    pub key: Key,
    pub tls: Option<Arc<ServerTls>>,
    /// Connections begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Requests are sent to HTTPS at this port.
    pub redirect_to_https: Option<u16>,
    /// Instead of the site's.
    pub paths: Option<Paths>,
}

impl Door {
    /// Compiles all listeners. What has not changed since `previous` keeps its TLS sessions.
    ///
    /// # Errors
    /// The first that can not be used, with its address.
    pub fn compile(
        listeners: &[Listener],
        previous: &[Arc<Self>],
    ) -> Result<Vec<Arc<Self>>, (SocketAddr, Box<tls::Error>)> {
        let compile = |(key, listener): (Key, &Listener)| {
            let before = previous.iter().find(|door| door.key == key);
            let before = before.and_then(|door| door.tls.as_ref());
            let tls = listener.tls.as_ref().map(|tls| ServerTls::compile(tls, before));
            Ok(Arc::new(Self {
                key,
                tls: tls
                    .transpose()
                    .map_err(|error| (listener.address, Box::new(error)))?,
                proxy_protocol: listener.proxy_protocol,
                redirect_to_https: listener.redirect_to_https,
                paths: listener.paths,
            }))
        };
        keys(listeners).into_iter().zip(listeners).map(compile).collect()
    }
}
