//! Everything that may be said of one upstream.

use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::super::limits::time;
use super::super::{files, listen, patterns};
use super::endpoints::endpoints;
use super::shares::{cookie, hash_by, percent, show_percent};
use crate::config::decode::{Field, Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, quote};
use crate::config::model::{
    Balance, Caps, Ejection, Health, Probe, Protocol, ProxyVersion, Retries, Sticky, Upstream, UpstreamTls,
};
use crate::config::raw::Value;
use crate::config::scalar::{choice, number, truth, within};

const BALANCES: [(&str, Balance); 3] = [
    ("round_robin", Balance::RoundRobin),
    ("least_requests", Balance::LeastRequests),
    ("consistent_hash", Balance::ConsistentHash),
];
const PROTOCOLS: [(&str, Protocol); 2] = [("http1", Protocol::Http1), ("http2", Protocol::Http2)];
const VERSIONS: [(&str, ProxyVersion); 2] = [("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2)];
/// Bytes of a cookie's secret: fewer can be guessed, more add nothing.
const SECRET: std::ops::RangeInclusive<usize> = 16..=1024;

/// Longest file of issuers taken, in bytes.
const MOST_PEM: usize = 4 << 20;

/// Reads what is there into `upstream`.
pub(super) fn upstream(walk: &mut Walk, table: &mut Table<'_>, upstream: &mut Upstream) {
    upstream.protocol = table.value_or(walk, "protocol", Protocol::Http1, choice(&PROTOCOLS));
    upstream.balance = table.value_or(walk, "balance", Balance::RoundRobin, choice(&BALANCES));
    let list = table.require(
        walk,
        "endpoints",
        "such as endpoints: [{url: \"http://10.0.0.1:8080\"}]",
    );
    upstream.endpoints = list.map(|list| endpoints(walk, &list)).unwrap_or_default();
    let by = table.get(walk, "hash_by");
    match (&by, upstream.balance) {
        (Some(field), Balance::ConsistentHash) => upstream.hash_by = hash_by(walk, field),
        (Some(field), _) => {
            let wrong = Wrong::new("hash_by is without effect unless balance is consistent_hash");
            walk.fault(field, wrong);
        }
        (None, Balance::ConsistentHash) if !table.has("hash_by") => {
            let wrong = Wrong::new("consistent_hash needs to know what to hash");
            walk.fault(
                &table.field,
                wrong.hint("add hash_by: client_ip, {header: X-User} or {cookie: session}"),
            );
        }
        (None, _) => {}
    }
    upstream.sticky = table.get(walk, "sticky").and_then(|field| sticky(walk, &field));
    if let Some(field) = table.get(walk, "tls") {
        upstream.tls = tls(walk, &field, upstream);
    }
    upstream.health = table.get(walk, "health").and_then(|field| health(walk, &field));
    upstream.ejection = table
        .get(walk, "ejection")
        .and_then(|field| ejection(walk, &field));
    let share = table.value_or(
        walk,
        "panic_threshold",
        u32::from(upstream.panic_percent) * 100,
        within(0..=10_000, percent, show_percent),
    );
    upstream.panic_percent = whole(share);
    if let Some(field) = table.get(walk, "limits") {
        upstream.caps = caps(walk, &field);
    }
    upstream.retries = table.get(walk, "retries").and_then(|field| retries(walk, &field));
    let told = table.get(walk, "proxy_protocol");
    if let Some(field) = told.as_ref().filter(|_| upstream.protocol == Protocol::Http2) {
        let wrong =
            Wrong::new("proxy_protocol tells one client for a connection, and http2 shares each among many");
        walk.fault(field, wrong.hint("use protocol: http1, or X-Forwarded-For"));
    }
    upstream.proxy_protocol = told.and_then(|field| walk.value(&field, choice(&VERSIONS)));
}

/// Hundredths of a percent as whole percents, rounded up so that a little is not nothing.
fn whole(hundredths: u32) -> u8 {
    u8::try_from(hundredths.div_ceil(100)).unwrap_or(100)
}

fn sticky(walk: &mut Walk, field: &Field<'_>) -> Option<Sticky> {
    walk.table(field, |walk, table| {
        let name = table.require(walk, "cookie", "the name of the cookie that the gateway sets");
        let max_age = table.value(walk, "max_age", time);
        let secret = table
            .get(walk, "secret")
            .and_then(|field| secret(walk, &field.secret()));
        Some(Sticky {
            cookie: walk.value(&name?, cookie)?,
            max_age,
            secret,
        })
    })?
}

/// The contents of a file, without the line's end.
fn secret(walk: &mut Walk, field: &Field<'_>) -> Option<Vec<u8>> {
    walk.table(field, |walk, table| {
        let file = table.require(walk, "file", "a file with at least 16 random bytes")?;
        let path = files::named(walk, &file)?;
        if !walk.opens_secrets {
            return None;
        }
        let bytes = match files::read(&path, *SECRET.end()) {
            Ok(bytes) => bytes,
            Err(wrong) => {
                walk.fault(&file, wrong);
                return None;
            }
        };
        let bytes = bytes.trim_ascii_end().to_vec();
        if SECRET.contains(&bytes.len()) {
            return Some(bytes);
        }
        let wrong = Wrong::new(format!("the secret has {} bytes", bytes.len()));
        walk.fault(
            &file,
            wrong.hint("it has 16 to 1024; make one with: openssl rand -hex 32"),
        );
        None
    })?
}

fn tls(walk: &mut Walk, field: &Field<'_>, upstream: &Upstream) -> UpstreamTls {
    if !upstream.endpoints.is_empty() && !upstream.endpoints.iter().any(|endpoint| endpoint.tls) {
        let wrong = Wrong::new("tls is without effect, as no endpoint is https://");
        walk.fault(field, wrong.hint("write the endpoints as https://host:port"));
    }
    let read = walk.table(field, |walk, table| {
        let ca = table.get(walk, "ca").and_then(|field| authorities(walk, &field));
        let certificate = table
            .get(walk, "certificate")
            .and_then(|field| listen::certificate(walk, &field));
        let skip = table.get(walk, "insecure_skip_verify");
        let insecure = skip
            .as_ref()
            .and_then(|field| walk.value(field, truth))
            .unwrap_or(false);
        if let Some(field) = skip.filter(|_| insecure) {
            let wrong = Wrong::new(format!(
                "the upstream {} is not verified: whoever stands between can read and change everything",
                quote(&upstream.name)
            ));
            walk.warn(
                &field,
                wrong.hint("set tls.ca to the issuer of its certificate instead"),
            );
        }
        UpstreamTls {
            ca,
            server_name: table.value(walk, "server_name", patterns::dns_name),
            certificate,
            insecure_skip_verify: insecure,
        }
    });
    read.unwrap_or_default()
}

pub(in crate::config::check) fn authorities(
    walk: &mut Walk,
    field: &Field<'_>,
) -> Option<std::path::PathBuf> {
    let path = files::named(walk, field)?;
    if walk.opens_secrets
        && let Err(wrong) = issuers(&path)
    {
        walk.fault(field, wrong);
        return None;
    }
    Some(path)
}

fn issuers(path: &std::path::Path) -> Result<(), Wrong> {
    let pem = files::read(path, MOST_PEM)?;
    let shown = quote(&path.to_string_lossy());
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(issuers) if !issuers.is_empty() => Ok(()),
        Ok(_) => Err(Wrong::new(format!("{shown} holds no certificate"))),
        Err(_) => Err(Wrong::new(format!("{shown} is not PEM"))),
    }
}

fn health(walk: &mut Walk, field: &Field<'_>) -> Option<Health> {
    let standard = defaults::health();
    walk.table(field, |walk, table| {
        let kinds = ["http", "tcp", "grpc"];
        let http = table.get(walk, "http").and_then(|field| http_probe(walk, &field));
        let tcp = table.value(walk, "tcp", truth);
        let grpc = table.get(walk, "grpc").and_then(|field| grpc_probe(walk, &field));
        if kinds.iter().filter(|kind| table.has(kind)).count() != 1 || tcp == Some(false) {
            let wrong = Wrong::new("a health check is exactly one of http, tcp and grpc");
            walk.fault(
                field,
                wrong.hint("such as http: {path: /healthz}, tcp: true, or grpc: {}"),
            );
        }
        let health = Health {
            probe: http.or(grpc).unwrap_or(Probe::Tcp),
            interval: table.value_or(walk, "interval", standard.interval, time),
            timeout: table.value_or(walk, "timeout", standard.timeout, time),
            healthy: table.value_or(walk, "healthy", standard.healthy, number(1..=100)),
            unhealthy: table.value_or(walk, "unhealthy", standard.unhealthy, number(1..=100)),
            slow_start: table.value_or(walk, "slow_start", standard.slow_start, time),
        };
        if health.timeout > health.interval {
            walk.fault(
                field,
                Wrong::new("timeout is longer than interval").hint("raise interval or lower timeout"),
            );
        }
        health
    })
}

fn http_probe(walk: &mut Walk, field: &Field<'_>) -> Option<Probe> {
    walk.table(field, |walk, table| {
        let path = table.value_or(walk, "path", "/".to_owned(), target);
        Probe::Http {
            path,
            host: table.value(walk, "host", patterns::dns_name),
            status: table.value_or(walk, "status", (200, 299), statuses),
        }
    })
}

fn grpc_probe(walk: &mut Walk, field: &Field<'_>) -> Option<Probe> {
    walk.table(field, |walk, table| Probe::Grpc {
        service: table.value_or(walk, "service", String::new(), super::super::label(128)),
    })
}

/// A path, with or without a query, that goes onto the wire as it is.
fn target(text: &str) -> Result<String, Wrong> {
    if text.starts_with('/') && text.len() <= 1024 && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
    {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is not a path", quote(text))).hint("such as /healthz"))
}

/// `204` or `200-399`.
fn statuses(text: &str) -> Result<(u16, u16), Wrong> {
    let refuse = || Wrong::new(format!("{} is not a status or a range of them", quote(text)));
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| {
        let number = number(100..=599)(text).ok()?;
        u16::try_from(number).ok()
    };
    match (status(low), status(high)) {
        (Some(low), Some(high)) if low <= high => Ok((low, high)),
        _ => Err(refuse().hint("write 200 or 200-399")),
    }
}

fn ejection(walk: &mut Walk, field: &Field<'_>) -> Option<Ejection> {
    let standard = defaults::ejection();
    walk.table(field, |walk, table| {
        let share = within(100..=10_000, percent, show_percent);
        let lasts = table.value_or(walk, "for", standard.lasts, time);
        Ejection {
            failures: table.value_or(walk, "failures", standard.failures, number(1..=1_000)),
            lasts,
            at_most: table.value_or(walk, "at_most", standard.at_most.max(lasts), time),
            share_percent: whole(table.value_or(
                walk,
                "share",
                u32::from(standard.share_percent) * 100,
                share,
            )),
        }
    })
}

fn caps(walk: &mut Walk, field: &Field<'_>) -> Caps {
    let standard = defaults::caps();
    let read = walk.table(field, |walk, table| {
        let count = |walk: &mut Walk, table: &mut Table<'_>, key| {
            table
                .value(walk, key, number(1..=10_000_000))
                .and_then(NonZeroU32::new)
        };
        let connections = count(walk, table, "connections");
        for key in ["pending", "pending_timeout"] {
            if table.has(key) && !table.has("connections") {
                let wrong = Wrong::new(format!(
                    "{key} is without effect where connections is not limited"
                ));
                walk.fault(field, wrong);
            }
        }
        Caps {
            connections,
            pending: table.value_or(walk, "pending", standard.pending, number(0..=1_000_000)),
            pending_timeout: table.value_or(walk, "pending_timeout", standard.pending_timeout, time),
            requests: count(walk, table, "requests"),
            connection_requests: count(walk, table, "connection_requests"),
            connection_age: table.value(walk, "connection_age", time),
        }
    });
    read.unwrap_or(standard)
}

fn retries(walk: &mut Walk, field: &Field<'_>) -> Option<Retries> {
    let standard = defaults::retries();
    walk.table(field, |walk, table| {
        let mut retries = Retries {
            attempts: table.value_or(walk, "attempts", standard.attempts, number(1..=10)),
            per_try: table
                .value(walk, "per_try", time)
                .filter(|time| *time > Duration::ZERO),
            ..standard
        };
        let on = table.get(walk, "on");
        if let Some(on) = &on {
            (retries.connect, retries.reset, retries.timeout) = (false, false, false);
            for item in walk.list(on) {
                cause(walk, &item, &mut retries);
            }
            if retries.timeout && retries.per_try.is_none() && !table.has("per_try") {
                let wrong = Wrong::new("a retry on timeout needs per_try, the time that one try may take");
                walk.fault(on, wrong.hint("such as per_try: 2s"));
            }
        }
        if let Some(budget) = table.get(walk, "budget") {
            walk.table(&budget, |walk, table| {
                let share = table.value(walk, "share", within(0..=10_000, percent, show_percent));
                retries.budget_percent =
                    share.map_or(retries.budget_percent, |share| u32::from(whole(share)));
                retries.budget_per_second =
                    table.value_or(walk, "per_second", retries.budget_per_second, number(0..=100_000));
            });
        }
        retries
    })
}

/// One of `on`.
fn cause(walk: &mut Walk, item: &Field<'_>, retries: &mut Retries) {
    let Value::Text(text) = &item.node.value else {
        walk.text(item);
        return;
    };
    match text.as_str() {
        "connect" => retries.connect = true,
        "reset" => retries.reset = true,
        "timeout" => retries.timeout = true,
        "502" => retries.statuses.push(StatusCode::BAD_GATEWAY),
        "503" => retries.statuses.push(StatusCode::SERVICE_UNAVAILABLE),
        "504" => retries.statuses.push(StatusCode::GATEWAY_TIMEOUT),
        _ => {
            let wrong = Wrong::new(format!("{} is no reason to try again", quote(text)));
            walk.fault(item, wrong.hint("one of connect, reset, timeout, 502, 503, 504"));
        }
    }
}
