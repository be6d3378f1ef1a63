//! Blocks: one source denied until a time.

use std::net::IpAddr;
use std::time::Duration;

use gateway_common::tables::{Origin, Rule};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Applied, Change, Engine, List, Protection, Refusal, told};
use crate::dataplane::clock::Now;
use crate::dataplane::desired::Entry;

/// An order to block the address of a socket whose handshake was completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockOrder {
    pub addr: IpAddr,
    pub lasts: Duration,
    pub origin: Origin,
    /// Number of the reject that tipped the scale.
    pub detail: u32,
    pub reason: String,
}

/// What came of lifting blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unblocked {
    pub lifted: Vec<IpAddr>,
    pub missing: Vec<IpAddr>,
    pub failures: Vec<String>,
}

impl Engine {
    /// Blocks one source, unless that would lock out someone protected or go against an allow rule.
    ///
    /// Costs the same however long the lists are: it happens while someone misbehaves.
    pub fn block(&mut self, order: BlockOrder) -> Result<Applied, Refusal> {
        let outcome = self.try_block(&order);
        match &outcome {
            Ok(applied) if applied.failures.is_empty() && self.observes(List::Block) => {
                self.world.events.observed(order.addr);
            }
            Ok(applied) if applied.failures.is_empty() => self.world.events.blocked(order.addr),
            Ok(_) => {}
            Err(refusal) => self.world.events.refused(order.addr, refusal),
        }
        outcome
    }

    fn try_block(&mut self, order: &BlockOrder) -> Result<Applied, Refusal> {
        let now = (self.world.clock)();
        let addr = order.addr.to_canonical();
        let net = IpNet::from(addr);
        if let Some((shield, why)) = self.protected(&[]).all_cut_off(&net, |_| false).next() {
            let (shield, why) = (*shield, why.clone());
            return Err(Refusal::Protected(vec![Protection { net, shield, why }], 1));
        }
        if let Some((rule, _)) = self.desired.covering(List::Allow, addr, now.boot_ns).first() {
            return Err(Refusal::Allowed { addr, rule: *rule });
        }
        let entry = Entry {
            origin: order.origin,
            deadline_ns: now.after(order.lasts),
            reason: Some(order.reason.as_str().into()),
            detail: order.detail,
            forced: false,
        };
        let hits = self.enforced.block.get(&net).map_or(0, |rule| rule.hits);
        let rule = Rule {
            deadline_ns: entry.deadline_ns,
            hits,
            origin: entry.origin as u32,
            detail: entry.detail,
        };
        self.desired.put(List::Block, net, entry);
        Ok(self.apply(vec![Change::Put {
            list: List::Block,
            net,
            rule,
        }]))
    }

    /// Lifts blocks by command.
    pub fn unblock(&mut self, addrs: &[IpAddr]) -> Unblocked {
        let now = (self.world.clock)();
        let mut outcome = Unblocked::default();
        for addr in addrs {
            let addr = addr.to_canonical();
            let held = self.desired.remove(List::Block, &IpNet::from(addr)).is_some();
            if held {
                self.world.events.unblocked(addr);
            }
            if held {
                outcome.lifted.push(addr)
            } else {
                outcome.missing.push(addr)
            }
        }
        let nets: Vec<IpNet> = addrs.iter().map(|addr| addr.to_canonical().into()).collect();
        outcome.failures = self.enforce_only(List::Block, &nets, now).failures;
        outcome
    }

    /// An allow rule ends the blocks under it: they would have no effect, and must not come back when it goes.
    pub(super) fn lift_blocks_under_allows(&mut self, now: Now) -> Vec<String> {
        let blocks = self.desired.entries(List::Block).keys();
        let over = |block: &IpNet| self.desired.around(List::Allow, block, now.boot_ns).is_some();
        let under: Vec<IpNet> = blocks.filter(|block| over(block)).copied().collect();
        for block in &under {
            self.desired.remove(List::Block, block);
            self.world.events.unblocked(block.addr());
        }
        if under.is_empty() {
            return Vec::new();
        }
        let lifted = under.iter();
        let lifted = lifted.map(|block| format!("the block of {} is lifted", block.addr()));
        let mut notes = told(under.len(), lifted);
        notes.extend(self.enforce(now).failures);
        notes
    }

    /// Counts an order that never arrived since the queue was full.
    pub fn count_dropped_order(&mut self) {
        self.dropped_orders += 1;
    }
}
