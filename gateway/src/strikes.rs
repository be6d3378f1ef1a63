//! Misbehaviour in requests becomes a block: where the two layers meet.
//!
//! Owns the count of strikes for each client and the decision to block. The clock is passed in. Safety rule: only the
//! address of a socket is ever ordered into the kernel, never one that a header names, never a trusted proxy's;
//! a client known only through a trusted proxy is blocked here, at layer 7.

mod ledger;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gateway_common::tables::{Origin, observe};
use ipnet::IpNet;

use crate::config::model::{Config, Strikes as Policy};
use crate::config::units::show_duration;
use crate::dataplane::engine::BlockOrder;
use crate::http::client::{Client, ForwardedAddr};
use crate::http::reject::Reject;
use ledger::Ledger;

/// Forwarded clients blocked at layer 7 at one time. Past it, the one that ends first makes room.
const FORWARDED_BLOCKS: usize = 65_536;

/// A verdict of the strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sentence {
    /// Block this socket address in the kernel.
    Kernel(BlockOrder),
    /// Refuse this forwarded address at layer 7.
    Layer7 { addr: ForwardedAddr, lasts: Duration },
}

/// The counts of all clients.
#[derive(Debug)]
pub struct Strikes {
    rules: Mutex<Rules>,
    ledger: Mutex<Ledger>,
    forwarded: Mutex<HashMap<ForwardedAddr, Instant>>,
}

#[derive(Debug)]
struct Rules {
    policy: Policy,
    proxies: Vec<IpNet>,
    /// Whether blocks are only observed.
    observe: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each critical section leaves the data whole, so a panic elsewhere does not make it unusable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Strikes {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            rules: Mutex::new(Rules::of(config)),
            ledger: Mutex::new(Ledger::default()),
            forwarded: Mutex::new(HashMap::new()),
        }
    }

    /// Takes over a new policy; counts go on.
    pub fn reconfigure(&self, config: &Config) {
        *lock(&self.rules) = Rules::of(config);
    }

    /// Counts a reject; `Some` when it was one too many.
    pub fn record(&self, client: Client, reject: Reject, now: Instant) -> Option<Sentence> {
        let rules = lock(&self.rules);
        let score = rules
            .policy
            .scores
            .get(reject.code())
            .copied()
            .unwrap_or(reject.default_strikes());
        let block = rules.policy.block?;
        if score == 0 || (client.forwarded.is_none() && rules.trusts(client.socket.ip())) {
            return None;
        }
        drop(rules);
        let addr = client.effective();
        let lasts = lock(&self.ledger).strike(addr, score, &block, now)?;
        Some(match client.forwarded {
            Some(addr) => {
                self.block_forwarded(addr, now + lasts, now);
                Sentence::Layer7 { addr, lasts }
            }
            None => Sentence::Kernel(BlockOrder {
                addr,
                lasts,
                origin: Origin::Strike,
                detail: reject.number(),
                reason: format!(
                    "{} strikes within {}, the last for {}",
                    block.after,
                    show_duration(block.within),
                    reject.code()
                ),
            }),
        })
    }

    /// Strikes that count against `addr` now, and how many lead to a block.
    #[must_use]
    pub fn standing(&self, addr: IpAddr, now: Instant) -> Option<(u32, u32)> {
        let block = lock(&self.rules).policy.block?;
        Some((
            lock(&self.ledger).count(addr.to_canonical(), block.within, now),
            block.after.get(),
        ))
    }

    /// Whether blocks are only observed: ordered and counted, and nothing is done to the client.
    #[must_use]
    pub fn observes(&self) -> bool {
        lock(&self.rules).observe
    }

    /// Whether a forwarded client is to be refused at layer 7: blocked there, and that not only observed.
    #[must_use]
    pub fn refuses_forwarded(&self, addr: ForwardedAddr, now: Instant) -> bool {
        self.blocks_forwarded(addr, now) && !self.observes()
    }

    /// Whether a forwarded client is blocked at layer 7.
    #[must_use]
    pub fn blocks_forwarded(&self, addr: ForwardedAddr, now: Instant) -> bool {
        lock(&self.forwarded).get(&addr).is_some_and(|until| now < *until)
    }

    /// Forgets a client: its block was lifted by command, so it starts from nothing.
    pub fn pardon(&self, addr: IpAddr) {
        let addr = addr.to_canonical();
        lock(&self.ledger).forget(addr);
        lock(&self.forwarded).remove(&ForwardedAddr::of_header(addr));
    }

    /// Forwarded clients blocked at layer 7, with the time each has left.
    #[must_use]
    pub fn forwarded_blocks(&self, now: Instant) -> Vec<(ForwardedAddr, Duration)> {
        let blocks = lock(&self.forwarded);
        let live = blocks.iter().filter(|(_, until)| now < **until);
        live.map(|(addr, until)| (*addr, until.duration_since(now)))
            .collect()
    }

    fn block_forwarded(&self, addr: ForwardedAddr, until: Instant, now: Instant) {
        let mut blocks = lock(&self.forwarded);
        if blocks.len() >= FORWARDED_BLOCKS {
            blocks.retain(|_, until| now < *until);
        }
        if blocks.len() >= FORWARDED_BLOCKS
            && let Some(first) = blocks
                .iter()
                .min_by_key(|(_, until)| **until)
                .map(|(addr, _)| *addr)
        {
            blocks.remove(&first);
        }
        blocks.insert(addr, until);
    }
}

impl Rules {
    fn of(config: &Config) -> Self {
        Self {
            policy: config.strikes.clone(),
            proxies: config.trusted_proxies.clone(),
            observe: config.xdp.observe & observe::BLOCK != 0,
        }
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.proxies.iter().any(|net| net.contains(&ip))
    }
}

#[cfg(test)]
mod tests;
