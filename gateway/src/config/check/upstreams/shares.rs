//! What decides where a request of a route goes: shares of several upstreams, copies, and keys for hashes.

use super::Upstreams;
use crate::config::decode::{Field, Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, quote};
use crate::config::model::{HashBy, Mirror, Split, UpstreamId};
use crate::config::raw::Value;
use crate::config::scalar::{number, within};
use crate::config::units;

/// More would only be a mistake.
const MOST_PARTS: usize = 32;
/// Largest body that may be copied, in bytes: each lies in memory until the copy is sent.
const MOST_COPY: u64 = 1 << 20;

impl Upstreams<'_> {
    /// `upstreams` of a route: shares of named ones.
    pub(in crate::config::check) fn split(
        &mut self,
        walk: &mut Walk,
        table: &mut Table<'_>,
    ) -> Option<Split> {
        let list = table.get(walk, "upstreams");
        let by = table.get(walk, "split_by");
        if let (None, Some(by)) = (&list, &by) {
            let wrong =
                Wrong::new("split_by is without effect where there are no upstreams to split between");
            walk.fault(by, wrong);
        }
        let list = list?;
        let by = by.and_then(|field| hash_by(walk, &field));
        let items = walk.list(&list);
        if items.len() > MOST_PARTS {
            walk.fault(
                &list,
                Wrong::new(format!("a route is split between at most {MOST_PARTS} upstreams")),
            );
        }
        let mut parts: Vec<(UpstreamId, u32)> = Vec::new();
        for item in &items {
            let read = walk.table(item, |walk, table| {
                let name = table.require(walk, "name", "the name of one of upstreams");
                let weight = table.value_or(walk, "weight", 1, number(0..=65_535));
                let field = name?;
                let name = walk.text(&field)?;
                let id = self.find(walk, &field, name)?;
                if parts.iter().any(|(known, _)| *known == id) {
                    let wrong = Wrong::new(format!("{} is given twice", quote(name)));
                    walk.fault(&field, wrong.hint("add its weights up"));
                }
                Some((id, weight))
            });
            parts.extend(read.flatten());
        }
        if parts.iter().all(|(_, weight)| *weight == 0) && parts.len() == items.len() {
            let wrong = Wrong::new("no upstream has a weight, so none would be asked");
            walk.fault(
                &list,
                wrong.hint("such as upstreams: [{name: a, weight: 95}, {name: b, weight: 5}]"),
            );
        }
        (!parts.is_empty()).then_some(Split { parts, by })
    }

    /// `mirror` of a route.
    pub(in crate::config::check) fn mirror(
        &mut self,
        walk: &mut Walk,
        table: &mut Table<'_>,
    ) -> Option<Mirror> {
        let field = table.get(walk, "mirror")?;
        walk.table(&field, |walk, table| {
            let upstream = table.require(walk, "upstream", "the name of one of upstreams");
            let share = table.value_or(walk, "percent", 10_000, within(1..=10_000, percent, show_percent));
            let sizes = within(0..=MOST_COPY, units::size, units::show_size);
            let body = table.value(walk, "body_bytes", sizes);
            let field = upstream?;
            let name = walk.text(&field)?;
            Some(Mirror {
                upstream: self.find(walk, &field, name)?,
                share,
                body_bytes: body
                    .and_then(|bytes| u32::try_from(bytes).ok())
                    .unwrap_or(defaults::MIRROR_BODY),
            })
        })?
    }
}

/// `client_ip`, `{header: name}` or `{cookie: name}`.
pub(super) fn hash_by(walk: &mut Walk, field: &Field<'_>) -> Option<HashBy> {
    if let Value::Text(text) = &field.node.value {
        if text == "client_ip" {
            return Some(HashBy::ClientIp);
        }
        let wrong = Wrong::new(format!("{} is not something to hash", quote(text)));
        walk.fault(
            field,
            wrong.hint("write client_ip, {header: X-User} or {cookie: session}"),
        );
        return None;
    }
    walk.table(field, |walk, table| {
        let header = table.value(walk, "header", |text| {
            http::HeaderName::try_from(text)
                .map_err(|_| Wrong::new(format!("{} is not a header name", quote(text))))
        });
        let cookie = table.value(walk, "cookie", cookie);
        match (table.has("header"), table.has("cookie")) {
            (true, false) => header.map(HashBy::Header),
            (false, true) => cookie.map(HashBy::Cookie),
            _ => {
                let wrong = Wrong::new("exactly one thing is hashed");
                walk.fault(
                    field,
                    wrong.hint("write client_ip, {header: X-User} or {cookie: session}"),
                );
                None
            }
        }
    })?
}

/// Name of a cookie (RFC 6265, 4.1.1: a token).
pub(in crate::config::check) fn cookie(text: &str) -> Result<String, Wrong> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if (1..=64).contains(&text.len()) && text.bytes().all(token) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is not the name of a cookie", quote(text)))
        .hint("1 to 64 letters, digits and signs without blanks, commas, semicolons and ="))
}

/// `20%`, `0.5%`: in hundredths of a percent. A bare number counts as percent.
pub(super) fn percent(text: &str) -> Result<u32, Wrong> {
    let refuse =
        || Wrong::new(format!("{} is not a percentage", quote(text))).hint("write it as 10% or 0.5%");
    let number = text.strip_suffix('%').unwrap_or(text);
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| {
        let plain = (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u32>().ok().filter(|_| plain)
    };
    let scale = match part.len() {
        1 => 10,
        2 => 1,
        _ => return Err(refuse()),
    };
    let (whole, part) = (
        digits(whole).ok_or_else(refuse)?,
        digits(part).ok_or_else(refuse)?,
    );
    Ok(whole * 100 + part * scale)
}

/// The inverse of [`percent`].
pub(super) fn show_percent(hundredths: u32) -> String {
    match (hundredths / 100, hundredths % 100) {
        (whole, 0) => format!("{whole}%"),
        (whole, part) => format!("{whole}.{part:02}%"),
    }
}
