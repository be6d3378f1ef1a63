//! Tables in memory that the writer and the proxy share, for `mode: none`: no kernel program drops a denied source,
//! so the proxy asks the same policy when it accepts a connection.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gateway_common::outcome::Verdict;
use gateway_common::tables::Rule;
use gateway_ebpf::packet::{Content, Packet};
use gateway_ebpf::policy::decide;
use ipnet::IpNet;

use super::{Backend, Change, Counters, Error, Found, Image, List, Memory};

/// A shared [`Memory`]. Clones are the same tables.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Mutex<Memory>>);

impl Shared {
    /// Empty tables with this key for the limiter's hash.
    #[must_use]
    pub fn new(hash_key: [u64; 2]) -> Self {
        Self(Arc::new(Mutex::new(Memory::new(hash_key))))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides about a new connection from `client` as the kernel program would about its SYN, and counts it.
    #[must_use]
    pub fn admits(&self, client: IpAddr, now_ns: u64) -> bool {
        let packet = Packet {
            source: client.to_canonical().into(),
            content: Content::Syn,
            port: 0,
        };
        let mut memory = self.memory();
        memory.now_ns = now_ns;
        let decision = decide(&packet, &*memory);
        matches!(memory.leave(decision, 0), Verdict::Pass(_))
    }
}

impl Backend for Shared {
    fn enforced(&mut self) -> Result<Image, Error> {
        self.memory().enforced()
    }

    fn settings(&mut self) -> Result<gateway_common::tables::Settings, Error> {
        self.memory().settings()
    }

    fn apply(&mut self, changes: &[Change]) -> Vec<(usize, Error)> {
        self.memory().apply(changes)
    }

    fn rules(&mut self, list: List, nets: &[IpNet]) -> Result<Vec<Option<Rule>>, Error> {
        self.memory().rules(list, nets)
    }

    fn lookup(&mut self, addr: IpAddr) -> Result<Found, Error> {
        self.memory().lookup(addr)
    }

    fn counters(&mut self) -> Result<Counters, Error> {
        self.memory().counters()
    }
}
