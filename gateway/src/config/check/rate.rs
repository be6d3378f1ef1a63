//! `rate_limits` and `quotas`; `rate_limit`, `concurrency` and `quota` of a route.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::{headers, label, quota};
use crate::config::decode::{Field, Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, nearest, quote};
use crate::config::model::{
    Concurrency, KeyPart, LimitKey, Quota, Rate, RateLimit, Redis, Shared, Throttle, WhenAway,
};
use crate::config::raw::Value;
use crate::config::scalar::{choice, number, truth, within};
use crate::config::units;

/// More often than this nothing can be limited sensibly, and an interval would be shorter than the clock is exact.
const MOST_PER_SECOND: u128 = 1_000_000;
const BY_HINT: &str =
    "client_ip, identity, route, host, header:X-Tenant, cookie:session or claim:sub; or a list of these";

/// Limits that routes may share.
#[derive(Debug, Default)]
pub(super) struct Named<'t> {
    rates: Kind<'t, RateLimit>,
    quotas: Kind<'t, Quota>,
    /// For limits that gateways share.
    server: Option<Arc<Redis>>,
}

/// Those of one kind, each with whether a route has asked for it. `None` stands for one with a fault.
type Kind<'t, T> = BTreeMap<&'t str, (Option<Arc<T>>, bool)>;

/// `rate_limits` and `quotas`: each by its name.
pub(super) fn named<'t>(walk: &mut Walk, top: &mut Table<'t>, server: Option<&Arc<Redis>>) -> Named<'t> {
    let rates = kind(walk, top, "rate_limits", |walk, field, name| {
        rate(walk, field, Some(name), server)
    });
    let quotas = kind(walk, top, "quotas", |walk, field, name| {
        quota::quota(walk, field, Some(name))
    });
    let server = server.cloned();
    Named {
        rates,
        quotas,
        server,
    }
}

fn kind<'t, T>(
    walk: &mut Walk,
    top: &mut Table<'t>,
    key: &'static str,
    read: impl Fn(&mut Walk, &Field<'t>, &str) -> Option<T>,
) -> Kind<'t, T> {
    let Some(field) = top.get(walk, key) else {
        return Kind::new();
    };
    let mut kind = Kind::new();
    for (key, field) in walk.entries(&field) {
        if let Err(wrong) = label(128)(key.text) {
            walk.fault_key(&field, &key, wrong);
        }
        let limit = read(walk, &field, key.text).map(Arc::new);
        kind.insert(key.text, (limit, false));
    }
    kind
}

fn find<T>(walk: &mut Walk, kind: &mut Kind<'_, T>, key: &str, field: &Field<'_>) -> Option<Arc<T>> {
    let name = walk.text(field)?;
    if let Some((limit, used)) = kind.get_mut(name) {
        *used = true;
        return limit.clone();
    }
    let wrong = Wrong::new(format!("there is none named {}", quote(name)));
    let hint = match nearest(name, kind.keys().copied()) {
        Some(known) => format!("did you mean {}?", quote(known)),
        None => format!("{key} at the top has those with names; or write the limit in place, in braces"),
    };
    walk.fault(field, wrong.hint(hint));
    None
}

impl Named<'_> {
    /// Tells of those that no route uses.
    pub(super) fn finish(self, walk: &mut Walk, top: &Field<'_>) {
        let unused = |used: &bool| !used;
        let rates = self.rates.iter().filter(|(_, (_, used))| unused(used));
        let quotas = self.quotas.iter().filter(|(_, (_, used))| unused(used));
        let all = rates
            .map(|(name, _)| ("rate_limits", name))
            .chain(quotas.map(|(name, _)| ("quotas", name)));
        for (key, name) in all {
            let wrong = Wrong::new(format!("no route uses {} of {key}", quote(name)));
            walk.warn(top, wrong.hint("name it in a route, or take it out"));
        }
    }
}

/// What bounds the callers of a route.
pub(super) fn throttle(walk: &mut Walk, route: &mut Table<'_>, named: &mut Named<'_>) -> Throttle {
    let known = route.has("auth");
    let mut throttle = Throttle::default();
    for field in one_or_more(walk, route, "rate_limit") {
        let limit = match field.node.value {
            Value::Text(_) => find(walk, &mut named.rates, "rate_limits", &field),
            _ => rate(walk, &field, None, named.server.as_ref()).map(Arc::new),
        };
        if let Some(limit) = limit {
            fits(walk, &field, &limit.by, known);
            throttle.rates.push(limit);
        }
    }
    for field in one_or_more(walk, route, "concurrency") {
        if let Some(limit) = concurrency(walk, &field) {
            fits(walk, &field, &limit.by, known);
            throttle.at_once.push(Arc::new(limit));
        }
    }
    for field in one_or_more(walk, route, "quota") {
        let limit = match field.node.value {
            Value::Text(_) => find(walk, &mut named.quotas, "quotas", &field),
            _ => quota::quota(walk, &field, None).map(Arc::new),
        };
        if let Some(limit) = limit {
            fits(walk, &field, &limit.by, known);
            throttle.quotas.push(limit);
        }
    }
    throttle
}

/// One setting, or a list of several.
fn one_or_more<'t>(walk: &mut Walk, table: &mut Table<'t>, key: &'static str) -> Vec<Field<'t>> {
    match table.get(walk, key) {
        None => Vec::new(),
        Some(field) if matches!(field.node.value, Value::List(_)) => {
            let items = walk.list(&field);
            if items.is_empty() {
                let wrong = Wrong::new("an empty list limits nothing");
                walk.fault(&field, wrong.hint("leave the key out"));
            }
            items
        }
        Some(field) => vec![field],
    }
}

/// A caller who is never known can not be told apart.
fn fits(walk: &mut Walk, field: &Field<'_>, by: &LimitKey, known: bool) {
    if by.needs_identity() && !known {
        let wrong = Wrong::new("the route has no auth, so nobody is known and all callers count as one");
        walk.warn(field, wrong.hint("add auth to the route, or limit by client_ip"));
    }
}

fn rate(
    walk: &mut Walk,
    field: &Field<'_>,
    name: Option<&str>,
    server: Option<&Arc<Redis>>,
) -> Option<RateLimit> {
    walk.table(field, |walk, table| {
        let rate = table.require(walk, "rate", "such as rate: 100/s");
        let rate = rate.and_then(|field| walk.value(&field, slow_enough));
        let burst = table
            .value(walk, "burst", number(1..=1_000_000))
            .and_then(NonZeroU32::new);
        let by = by(walk, table);
        let shared = shared(walk, table, server);
        let headers = table.value_or(walk, "headers", true, truth);
        let observe = table.value_or(walk, "observe", false, truth);
        let rate = rate?;
        Some(RateLimit {
            name: name.map(str::to_owned),
            rate,
            burst: burst.unwrap_or(rate.count).min(defaults::MOST_BURST),
            by,
            shared,
            headers,
            observe,
        })
    })?
}

const AWAY: [(&str, WhenAway); 3] = [
    ("local", WhenAway::Local),
    ("open", WhenAway::Open),
    ("closed", WhenAway::Closed),
];

fn shared(walk: &mut Walk, table: &mut Table<'_>, server: Option<&Arc<Redis>>) -> Option<Shared> {
    let field = table.get(walk, "shared");
    let shared = field.as_ref().and_then(|field| walk.value(field, truth));
    let away = table.get(walk, "when_away");
    let when_away = away.as_ref().and_then(|field| walk.value(field, choice(&AWAY)));
    if shared != Some(true) {
        if let Some(away) = away {
            let wrong = Wrong::new("the limit is not shared, so nobody is asked who could be away");
            walk.fault(&away, wrong.hint("add shared: true"));
        }
        return None;
    }
    match (server, field) {
        (Some(server), _) => Some(Shared {
            server: Arc::clone(server),
            when_away: when_away.unwrap_or(WhenAway::Local),
        }),
        (None, Some(field)) => {
            let wrong = Wrong::new("there is no server to share it through");
            walk.fault(
                &field,
                wrong.hint("add redis at the top: {url: redis://10.0.0.7:6379}"),
            );
            None
        }
        _ => None,
    }
}

fn slow_enough(text: &str) -> Result<Rate, Wrong> {
    let rate = units::rate(text)?;
    let most = MOST_PER_SECOND * rate.per.as_nanos() / Duration::from_secs(1).as_nanos();
    if u128::from(rate.count.get()) <= most {
        return Ok(rate);
    }
    Err(Wrong::new(format!("{} is out of range", quote(text))).hint("at most 1000000/s"))
}

fn concurrency(walk: &mut Walk, field: &Field<'_>) -> Option<Concurrency> {
    walk.table(field, |walk, table| {
        let most = table.require(walk, "at_once", "such as at_once: 10");
        let most = most.and_then(|field| walk.value(&field, number(1..=1_000_000)));
        let by = by(walk, table);
        let observe = table.value_or(walk, "observe", false, truth);
        Some(Concurrency {
            most: most.and_then(NonZeroU32::new)?,
            by,
            observe,
        })
    })?
}

pub(super) fn by(walk: &mut Walk, table: &mut Table<'_>) -> LimitKey {
    let mut parts: Vec<KeyPart> = Vec::new();
    for field in one_or_more(walk, table, "by") {
        let Some(part) = walk.value(&field, part) else {
            continue;
        };
        if parts.contains(&part) {
            walk.fault(&field, Wrong::new("it is given twice"));
        }
        parts.push(part);
    }
    if parts.is_empty() {
        parts.push(KeyPart::ClientIp);
    }
    let (ipv4, ipv6) = defaults::LIMIT_PREFIXES;
    let prefix = |range| within(range, digits, |n: u8| n.to_string());
    LimitKey {
        parts,
        ipv4_prefix: table.value_or(walk, "ipv4_prefix", ipv4, prefix(8..=32)),
        ipv6_prefix: table.value_or(walk, "ipv6_prefix", ipv6, prefix(16..=128)),
    }
}

fn digits(text: &str) -> Result<u8, Wrong> {
    let number = number(0..=128)(text)?;
    Ok(u8::try_from(number).unwrap_or(u8::MAX))
}

fn part(text: &str) -> Result<KeyPart, Wrong> {
    const PLAIN: [(&str, KeyPart); 4] = [
        ("client_ip", KeyPart::ClientIp),
        ("identity", KeyPart::Identity),
        ("route", KeyPart::Route),
        ("host", KeyPart::Host),
    ];
    if let Some((_, part)) = PLAIN.iter().find(|(name, _)| *name == text) {
        return Ok(part.clone());
    }
    match text.split_once(':') {
        Some(("header", name)) => headers::name(name).map(KeyPart::Header),
        Some(("cookie", name)) => super::upstreams::cookie(name).map(KeyPart::Cookie),
        Some(("claim", path)) => label(256)(path).map(KeyPart::Claim),
        _ => {
            let wrong = Wrong::new(format!("{} makes no caller", quote(text)));
            Err(match nearest(text, PLAIN.iter().map(|(name, _)| *name)) {
                Some(name) => wrong.hint(format!("did you mean {}?", quote(name))),
                None => wrong.hint(BY_HINT),
            })
        }
    }
}
