//! Connects the request path with the strikes and the dataplane: the loop of the product.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use super::heap;
use crate::dataplane::engine::{Bypass, Events, Refusal};
use crate::dataplane::shared::Shared;
use crate::dataplane::{Handle, clock::Now};
use crate::http::client::{Client, ClientAddr, ForwardedAddr, Watch};
use crate::http::connections::Connections;
use crate::http::reject::Reject;
use crate::strikes::{Sentence, Strikes};

/// What the request path reports to.
pub struct Guard {
    pub strikes: Arc<Strikes>,
    pub dataplane: Handle,
    /// The tables, when the proxy keeps them itself: then nothing else drops a denied source.
    pub memory: Option<Shared>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guard")
    }
}

impl Watch for Guard {
    fn admits_connection(&self, client: ClientAddr) -> bool {
        self.memory
            .as_ref()
            .is_none_or(|memory| memory.admits(client.ip(), Now::read().boot_ns))
    }

    fn admits_forwarded(&self, client: ForwardedAddr) -> bool {
        !self.strikes.refuses_forwarded(client, Instant::now())
    }

    fn quiet(&self) {
        // What a crowd needed would else be kept until the next one comes.
        heap::give_back();
    }

    fn rejected(&self, client: Client, reject: Reject) {
        match self.strikes.record(client, reject, Instant::now()) {
            None => {}
            Some(Sentence::Kernel(order)) => {
                let addr = order.addr;
                if !self.dataplane.block(order) {
                    tracing::warn!(%addr, "a block was lost as the queue is full");
                }
            }
            Some(Sentence::Layer7 { addr, lasts }) if self.strikes.observes() => tracing::warn!(
                client = %addr.ip(),
                proxy = %client.socket.ip(),
                lasts_s = lasts.as_secs(),
                "a forwarded client would be refused at layer 7, but blocks are only observed: nothing is done"
            ),
            Some(Sentence::Layer7 { addr, lasts }) => tracing::warn!(
                client = %addr.ip(),
                proxy = %client.socket.ip(),
                lasts_s = lasts.as_secs(),
                "a forwarded client is refused at layer 7; its packets are its proxy's and are not dropped"
            ),
        }
    }
}

/// What the dataplane reports to.
#[derive(Debug)]
pub struct Aftermath {
    pub strikes: Arc<Strikes>,
    pub connections: Arc<Connections>,
    /// Interfaces that are not filtered, each with the reason.
    pub unfiltered: Arc<ArcSwap<Vec<String>>>,
    /// The bypass that is on.
    pub bypass: Arc<ArcSwap<Option<Bypass>>>,
}

impl Events for Aftermath {
    fn blocked(&mut self, addr: IpAddr) {
        let closed = self.connections.close(addr);
        tracing::warn!(client = %addr, connections_closed = closed, "blocked");
    }

    fn observed(&mut self, addr: IpAddr) {
        tracing::warn!(client = %addr, "would be blocked, but blocks are only observed: nothing is done");
    }

    fn unblocked(&mut self, addr: IpAddr) {
        self.strikes.pardon(addr);
        tracing::info!(client = %addr, "the block was lifted");
    }

    fn refused(&mut self, addr: IpAddr, why: &Refusal) {
        tracing::warn!(client = %addr, %why, "a block was refused");
    }

    fn unfiltered(&mut self, interfaces: Vec<String>) {
        self.unfiltered.store(Arc::new(interfaces));
    }

    fn bypass(&mut self, bypass: Option<Bypass>) {
        self.bypass.store(Arc::new(bypass));
    }
}
