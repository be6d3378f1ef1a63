//! The packet half's numbers for collectors: a snapshot of the kernel's counters, refreshed for each scrape.

use std::sync::{Arc, Mutex, PoisonError};

use gateway_common::outcome::{AnswerReason, DropReason, PassReason};
use gateway_common::tables::observe;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::config::model::observed;

/// Packets and bytes of one slot, as `dataplane` reads them.
pub type Pair = (u64, u64);

/// What was read last.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By slot.
    pub counters: Vec<Pair>,
    /// List name, desired and enforced entries.
    pub lists: Vec<(&'static str, u64, u64)>,
    /// Denies that are skipped since they would cut off someone protected.
    pub skipped: u64,
    /// Changes that the tables did not take.
    pub failures: u64,
    /// Block orders lost as the queue was full.
    pub dropped_orders: u64,
    /// Differences between kernel and intent that were repaired.
    pub drift_repaired: u64,
    /// Seconds that everything passes for; 0 if it does not.
    pub bypass_left_s: u64,
    pub interfaces: Vec<Interface>,
    /// What is counted and drops nothing, by the configuration's names.
    pub observing: Vec<&'static str>,
}

/// How one interface is filtered.
#[derive(Clone, Debug)]
pub struct Interface {
    pub name: String,
    pub mode: String,
    pub attached: bool,
}

/// Shows the latest snapshot.
#[derive(Clone, Debug, Default)]
pub struct Packets(Arc<Mutex<Snapshot>>);

impl Packets {
    /// Replaces the snapshot.
    pub fn set(&self, snapshot: Snapshot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}

impl Collector for Packets {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let snapshot = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reasons = PassReason::ALL
            .iter()
            .map(|reason| ("pass", reason.name(), reason.slot()))
            .chain(
                DropReason::ALL
                    .iter()
                    .map(|reason| ("drop", reason.name(), reason.slot())),
            )
            .chain(
                DropReason::ALL
                    .iter()
                    .map(|reason| ("observed", reason.name(), reason.observed_slot())),
            )
            .chain(
                AnswerReason::ALL
                    .iter()
                    .map(|reason| ("answer", reason.name(), reason.slot())),
            )
            .collect::<Vec<_>>();
        type Pick = fn(Pair) -> u64;
        let families: [(&str, &str, Pick); 2] = [
            (
                "packets",
                "Packets seen by the kernel program, by verdict and reason; those observed are counted as passed besides",
                |pair| pair.0,
            ),
            (
                "packet_bytes",
                "Bytes of frames seen by the kernel program, by verdict and reason; those observed are counted as passed besides",
                |pair| pair.1,
            ),
        ];
        for (name, help, pick) in families {
            let counter = ConstCounter::new(0_u64);
            let mut family = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            for (verdict, reason, slot) in &reasons {
                let pair = snapshot.counters.get(*slot as usize).copied().unwrap_or_default();
                let labels = [("verdict", *verdict), ("reason", *reason)];
                ConstCounter::new(pick(pair)).encode(family.encode_family(&labels)?)?;
            }
        }
        type Count = fn(&(&'static str, u64, u64)) -> u64;
        let lists: [(&str, &str, Count); 2] = [
            (
                "list_desired",
                "Entries that should be in force, by list",
                |list| list.1,
            ),
            ("list_enforced", "Entries that the tables hold, by list", |list| {
                list.2
            }),
        ];
        for (name, help, pick) in lists {
            let gauge = ConstGauge::new(0_i64);
            let mut family = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            for list in &snapshot.lists {
                let value = i64::try_from(pick(list)).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(family.encode_family(&[("list", list.0)])?)?;
            }
        }
        let gauge = ConstGauge::new(0_i64);
        let help = "Whether this is counted and drops nothing";
        let mut family = encoder.encode_descriptor("observing", help, None, gauge.metric_type())?;
        for what in observed(observe::ALL) {
            let on = i64::from(snapshot.observing.contains(&what));
            ConstGauge::new(on).encode(family.encode_family(&[("what", what)])?)?;
        }
        let gauge = ConstGauge::new(i64::try_from(snapshot.skipped).unwrap_or(i64::MAX));
        let help = "Denies that are not enforced since they would cut off someone protected";
        gauge.encode(encoder.encode_descriptor("denies_skipped", help, None, gauge.metric_type())?)?;
        let gauge = ConstGauge::new(i64::try_from(snapshot.failures).unwrap_or(i64::MAX));
        let help = "Changes that the tables did not take when last tried";
        gauge.encode(encoder.encode_descriptor("change_failures", help, None, gauge.metric_type())?)?;
        let counter = ConstCounter::new(snapshot.dropped_orders);
        let help = "Block orders lost as the queue was full";
        counter.encode(encoder.encode_descriptor(
            "block_orders_lost",
            help,
            None,
            counter.metric_type(),
        )?)?;
        let counter = ConstCounter::new(snapshot.drift_repaired);
        let help =
            "Differences between the kernel's tables and what should be in them that were found and repaired";
        counter.encode(encoder.encode_descriptor("drift_repaired", help, None, counter.metric_type())?)?;
        let gauge = ConstGauge::new(i64::try_from(snapshot.bypass_left_s).unwrap_or(i64::MAX));
        let help = "Seconds for which every packet passes by command; 0 if none does";
        gauge.encode(encoder.encode_descriptor("bypass_left_seconds", help, None, gauge.metric_type())?)?;
        let gauge = ConstGauge::new(1_i64);
        let help = "Whether the program filters the interface, and in which mode";
        let mut family = encoder.encode_descriptor("interface_attached", help, None, gauge.metric_type())?;
        for Interface { name, mode, attached } in &snapshot.interfaces {
            let labels = [("interface", name.as_str()), ("mode", mode.as_str())];
            ConstGauge::new(i64::from(*attached)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
