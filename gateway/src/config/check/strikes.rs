//! `strikes`: when misbehaviour becomes a block.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::decode::{Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, nearest, quote};
use crate::config::model::{BlockPolicy, Strikes};
use crate::config::scalar::{number, within};
use crate::config::units;

/// Reject codes that are a client's doing, and so can cost strikes. The codes belong to the request path, which this
/// module must not know; `gateway/tests/config.rs` compares.
pub const STRIKE_CODES: &[&str] = &[
    "malformed",
    "bad_path",
    "bad_host",
    "header_timeout",
    "header_too_large",
    "uri_too_long",
    "body_too_large",
    "body_timeout",
    "bad_body",
    "unsupported_coding",
    "unsupported_media_type",
    "request_invalid",
    "tls_handshake",
    "http2_abuse",
    "not_supported",
    "proxy_protocol",
    "no_route",
    "method_not_allowed",
    "misdirected",
    "credentials_missing",
    "credentials_invalid",
    "forbidden",
    "login_failed",
    "blocked",
    "too_many_connections",
    "rate_limited",
    "concurrency_limited",
    "quota_exceeded",
];

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

pub(in crate::config) fn strikes(walk: &mut Walk, top: &mut Table<'_>) -> Strikes {
    let off = Strikes {
        block: None,
        scores: BTreeMap::new(),
    };
    let Some(field) = top.get(walk, "strikes") else {
        return off;
    };
    let read = walk.table(&field, |walk, table| Strikes {
        block: table
            .get(walk, "block")
            .and_then(|field| walk.table(&field, block)),
        scores: scores(walk, table),
    });
    read.unwrap_or(off)
}

fn block(walk: &mut Walk, table: &mut Table<'_>) -> BlockPolicy {
    let standard = defaults::block();
    let time = |low, high| within(low..=high, units::duration, units::show_duration);
    let after = table
        .value(walk, "after", number(1..=1000))
        .and_then(NonZeroU32::new);
    let in_time = table.value_or(walk, "within", standard.within, time(SECOND, DAY));
    let lasts = table.value_or(walk, "for", standard.lasts, time(SECOND, YEAR));
    let factor = within(100..=10_000, units::factor, |n| format!("{}x", n / 100));
    let escalate_percent = table.value_or(walk, "escalate", standard.escalate_percent, factor);
    let at_most = match table.get(walk, "at_most") {
        None => standard.at_most.max(lasts),
        Some(field) => {
            let at_most = walk.value(&field, time(SECOND, YEAR));
            if at_most.is_some_and(|at_most| at_most < lasts) {
                let first = units::show_duration(lasts);
                walk.fault(
                    &field,
                    Wrong::new(format!(
                        "the longest block is shorter than the first one, {first}"
                    )),
                );
            }
            at_most.unwrap_or(standard.at_most)
        }
    };
    let after = after.unwrap_or(standard.after);
    BlockPolicy {
        after,
        within: in_time,
        lasts,
        escalate_percent,
        at_most,
    }
}

fn scores(walk: &mut Walk, table: &mut Table<'_>) -> BTreeMap<String, u32> {
    let Some(field) = table.get(walk, "scores") else {
        return BTreeMap::new();
    };
    let mut scores = BTreeMap::new();
    for (code, field) in walk.entries(&field) {
        if !STRIKE_CODES.contains(&code.text) {
            let wrong = Wrong::new(format!(
                "{} is not something a client can be struck for",
                quote(code.text)
            ));
            let hint = match nearest(code.text, STRIKE_CODES.iter().copied()) {
                Some(known) => format!("did you mean {}?", quote(known)),
                None => format!("one of {}", STRIKE_CODES.join(", ")),
            };
            walk.fault_key(&field, &code, wrong.hint(hint));
        }
        if let Some(score) = walk.value(&field, number(0..=1000)) {
            scores.insert(code.text.to_owned(), score);
        }
    }
    scores
}
