//! Strikes of each client over time, and how often it was blocked. Knows no reject and no kernel.
//!
//! Exact: the times of the latest strikes are kept, as many as a block takes. Bounded: a fixed number of clients;
//! when it is reached, those whose last strike is oldest make room.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::config::model::BlockPolicy;

/// Clients remembered at one time.
const CLIENTS: usize = 65_536;
/// How many are forgotten at once when the ledger is full, so that the search is paid for seldom.
const ROOM: usize = CLIENTS / 8;

#[derive(Debug)]
struct Record {
    strikes: VecDeque<Instant>,
    last: Instant,
    /// Blocks so far; the next is longer by the policy's factor.
    blocks: u32,
    /// End of the latest block and of the time in which a further one counts as a repetition.
    remembered_until: Instant,
}

/// The strikes of all clients.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    records: HashMap<IpAddr, Record>,
}

impl Ledger {
    /// Counts `score` strikes; the length of the block if that made it one too many.
    pub(super) fn strike(
        &mut self,
        addr: IpAddr,
        score: u32,
        policy: &BlockPolicy,
        now: Instant,
    ) -> Option<Duration> {
        if self.records.len() >= CLIENTS && !self.records.contains_key(&addr) {
            self.make_room(policy, now);
        }
        let record = self.records.entry(addr).or_insert_with(|| Record {
            strikes: VecDeque::new(),
            last: now,
            blocks: 0,
            remembered_until: now,
        });
        record.last = now;
        if record.blocks > 0 && now >= record.remembered_until {
            record.blocks = 0;
        }
        let after = policy.after.get() as usize;
        for _ in 0..(score as usize).min(after) {
            if record.strikes.len() == after {
                record.strikes.pop_front();
            }
            record.strikes.push_back(now);
        }
        let oldest = record.strikes.front().copied()?;
        if record.strikes.len() < after || now.duration_since(oldest) > policy.within {
            return None;
        }
        record.strikes.clear();
        let lasts = length(policy, record.blocks);
        record.blocks = record.blocks.saturating_add(1);
        record.remembered_until = now + lasts + policy.at_most;
        Some(lasts)
    }

    /// Strikes that still count.
    pub(super) fn count(&self, addr: IpAddr, within: Duration, now: Instant) -> u32 {
        let strikes = self.records.get(&addr).map(|record| &record.strikes);
        let live = strikes
            .into_iter()
            .flatten()
            .filter(|at| now.duration_since(**at) <= within)
            .count();
        u32::try_from(live).unwrap_or(u32::MAX)
    }

    pub(super) fn forget(&mut self, addr: IpAddr) {
        self.records.remove(&addr);
    }

    fn make_room(&mut self, policy: &BlockPolicy, now: Instant) {
        self.records.retain(|_, record| {
            now.duration_since(record.last) <= policy.within || now < record.remembered_until
        });
        if self.records.len() < CLIENTS {
            return;
        }
        let mut last: Vec<(Instant, IpAddr)> = self
            .records
            .iter()
            .map(|(addr, record)| (record.last, *addr))
            .collect();
        last.select_nth_unstable(ROOM);
        for (_, addr) in &last[..ROOM] {
            self.records.remove(addr);
        }
    }
}

/// Length of the block after `before` earlier ones.
fn length(policy: &BlockPolicy, before: u32) -> Duration {
    let mut lasts = policy.lasts;
    for _ in 0..before.min(64) {
        lasts = lasts.saturating_mul(policy.escalate_percent) / 100;
        if lasts >= policy.at_most {
            return policy.at_most;
        }
    }
    lasts.min(policy.at_most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn policy() -> BlockPolicy {
        BlockPolicy {
            after: NonZeroU32::new(3).expect("not zero"),
            within: Duration::from_secs(60),
            lasts: Duration::from_secs(600),
            escalate_percent: 400,
            at_most: Duration::from_secs(3_600),
        }
    }

    fn addr(n: u32) -> IpAddr {
        IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n))
    }

    #[test]
    fn the_third_strike_within_the_window_blocks_and_not_one_earlier() {
        let (mut ledger, policy, start) = (Ledger::default(), policy(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        assert_eq!(ledger.strike(addr(1), 1, &policy, at(0)), None);
        assert_eq!(ledger.strike(addr(1), 1, &policy, at(50)), None);
        assert_eq!(
            ledger.strike(addr(1), 1, &policy, at(61)),
            None,
            "the first has aged out"
        );
        assert_eq!(ledger.count(addr(1), policy.within, at(61)), 2);
        assert_eq!(
            ledger.strike(addr(2), 1, &policy, at(61)),
            None,
            "clients do not share strikes"
        );
        assert_eq!(ledger.strike(addr(1), 1, &policy, at(110)), Some(policy.lasts));
        assert_eq!(ledger.count(addr(1), policy.within, at(110)), 0);
    }

    #[test]
    fn repeated_blocks_grow_up_to_the_longest_and_are_forgiven_in_time() {
        let (mut ledger, policy, start) = (Ledger::default(), policy(), Instant::now());
        let mut now = start;
        let mut lengths = Vec::new();
        for _ in 0..4 {
            let lasts = ledger
                .strike(addr(1), 3, &policy, now)
                .expect("three strikes at once");
            lengths.push(lasts.as_secs());
            now += lasts;
        }
        assert_eq!(lengths, [600, 2_400, 3_600, 3_600]);
        now += policy.at_most;
        assert_eq!(ledger.strike(addr(1), 3, &policy, now), Some(policy.lasts));
    }

    #[test]
    fn a_flood_of_clients_is_bounded_and_the_latest_are_kept() {
        let (mut ledger, policy, start) = (Ledger::default(), policy(), Instant::now());
        let clients = u32::try_from(CLIENTS * 2).expect("fits");
        for n in 0..clients {
            ledger.strike(addr(n), 1, &policy, start + Duration::from_nanos(u64::from(n)));
        }
        assert!(ledger.records.len() <= CLIENTS);
        assert_eq!(ledger.count(addr(clients - 1), policy.within, start), 1);
    }
}
