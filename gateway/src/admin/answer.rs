//! Answers requests on an engine: the same code in the daemon and in a command that runs without one.

use ipnet::IpNet;

use super::api::{Answer, Explained, Failure, FailureKind, FullStatus, Outcome, ProtectedRow, Request};
use crate::dataplane::engine::{Protection, Refusal};
use crate::dataplane::{Engine, List};

/// Entries of a list in one answer: little memory on both sides, and blocks do not wait long for the engine.
const PAGE: usize = 1 << 13;

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        if let Refusal::Protected(first, of) = &refusal {
            let rows = first.iter().map(|Protection { net, shield, why }| ProtectedRow {
                net: *net,
                shield: *shield,
                why: why.to_string(),
            });
            return Self {
                protected: rows.collect(),
                protected_in_all: *of,
                ..Self::new(FailureKind::Refused, refusal.to_string())
            };
        }
        let kind = match refusal {
            Refusal::Protected(..) | Refusal::CutsOff { .. } | Refusal::Allowed { .. } => {
                FailureKind::Refused
            }
            Refusal::Invalid(_) | Refusal::Unreadable { .. } | Refusal::DoesNotFit { .. } => {
                FailureKind::BadInput
            }
            Refusal::Store(_)
            | Refusal::ReadOnly
            | Refusal::Tables(_)
            | Refusal::NothingFilters
            | Refusal::NotTaken(_) => FailureKind::Failed,
        };
        Self::new(kind, refusal.to_string())
    }
}

impl From<crate::dataplane::Error> for Failure {
    fn from(error: crate::dataplane::Error) -> Self {
        Self::new(FailureKind::Failed, error.to_string())
    }
}

/// Answers what the engine alone can answer. What only a running gateway knows is left empty.
pub fn answer(engine: &mut Engine, request: Request) -> Outcome {
    Ok(match request {
        Request::AddRules(order) => {
            let list = order.list;
            let added = engine.add_rules(order)?;
            Answer::Added(engine.noted(list, added))
        }
        Request::ImportRules(order) => {
            let list = order.list;
            let added = engine.import_rules(order)?;
            Answer::Added(engine.noted(list, added))
        }
        Request::ExportRules { list } => {
            let (rules, text) = engine.export_rules(list);
            let bytes = text.len() as u64;
            Answer::Exported { rules, bytes, text }
        }
        Request::RemoveRules { list, nets, by } => Answer::Removed(engine.remove_rules(list, &nets, &by)?),
        Request::FlushRules { list, by } => Answer::Removed(engine.flush_rules(list, &by)?),
        Request::ListRules { list, after } => page(engine, list.into(), after)?,
        Request::ListBlocks => blocks(engine)?,
        Request::Unblock { addrs } => Answer::Unblocked(engine.unblock(&addrs)),
        Request::Explain { addr, operators } => Answer::Explained(Explained {
            packets: engine.explain(addr, &operators)?,
            strikes: None,
            refused_when_forwarded: false,
        }),
        Request::Status => Answer::Status(FullStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            packets: engine.status()?,
            fault: None,
            proxy: None,
        }),
        Request::Watch(_) => {
            return Err(Failure::new(
                FailureKind::Failed,
                "drops are told of by a running gateway, one after the other".to_owned(),
            ));
        }
        Request::AddUnconfirmed { order, within } => Answer::Added(engine.add_unconfirmed(order, within)?),
        Request::Confirm { nets } => Answer::Confirmed(engine.confirm(&nets)?),
        Request::BypassOn { lasts, reason } => Answer::Bypassed(engine.bypass_on(lasts, reason)?),
        Request::BypassOff => Answer::Bypassed(engine.bypass_off()?),
        Request::BypassStatus => Answer::Bypassed(engine.bypass_status()?),
        Request::Verify => Answer::Verified(engine.verify()?),
        Request::Reload { .. } => {
            return Err(Failure::new(
                FailureKind::Failed,
                "no gateway is running: there is nothing to reload".to_owned(),
            ));
        }
    })
}

fn page(engine: &mut Engine, list: List, after: Option<IpNet>) -> Result<Answer, Failure> {
    let page = engine.page(list, after, PAGE)?;
    let mut text = Vec::with_capacity(page.rows.len() * 100);
    for row in &page.rows {
        serde_json::to_writer(&mut text, row)
            .map_err(|error| Failure::new(FailureKind::Failed, error.to_string()))?;
        text.push(b'\n');
    }
    let last = page.rows.last().map(|row| row.net);
    Ok(Answer::Page {
        more_after: last.filter(|_| page.more),
        unfiltered: page.unfiltered,
        bytes: text.len() as u64,
        text,
    })
}

fn blocks(engine: &mut Engine) -> Result<Answer, Failure> {
    let page = engine.page(List::Block, None, usize::MAX)?;
    Ok(Answer::Entries {
        entries: page.rows,
        forwarded: Vec::new(),
        unfiltered: page.unfiltered,
    })
}

impl Request {
    /// Whether answering may change something, and so needs the right to write.
    #[must_use]
    pub fn writes(&self) -> bool {
        !matches!(
            self,
            Self::ListRules { .. }
                | Self::ExportRules { .. }
                | Self::ListBlocks
                | Self::Explain { .. }
                | Self::Status
                | Self::BypassStatus
        )
    }
}
