//! `limits`: deadlines and sizes for every request.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::decode::{Table, Walk};
use crate::config::defaults;
use crate::config::fault::Wrong;
use crate::config::model::Limits;
use crate::config::scalar::{number, or_off, within};
use crate::config::units;

/// Shorter than this no honest exchange can be; longer is as good as never.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(86_400);
/// The lower end is the smallest buffer that the HTTP/1 parser works with.
const HEADER_BYTES: RangeInclusive<u64> = (8 << 10)..=(1 << 20);
/// The upper end is the longest target that the HTTP library holds.
const URI_BYTES: RangeInclusive<u64> = 256..=(63 << 10);

/// A deadline.
pub(super) fn time(text: &str) -> Result<Duration, Wrong> {
    within(TIMES, units::duration, units::show_duration)(text)
}

/// A time that may be none at all.
fn delay(text: &str) -> Result<Duration, Wrong> {
    within(
        Duration::ZERO..=*TIMES.end(),
        units::duration,
        units::show_duration,
    )(text)
}

/// A cap on a body: a size, or `off`.
pub(super) fn body(text: &str) -> Result<Option<u64>, Wrong> {
    or_off(within(0..=1 << 50, units::size, units::show_size))(text)
}

pub(super) fn limits(walk: &mut Walk, top: &mut Table<'_>) -> Limits {
    let standard = defaults::limits();
    let read = top
        .get(walk, "limits")
        .and_then(|field| walk.table(&field, |walk, table| given(walk, table, standard)));
    read.unwrap_or(standard)
}

fn given(walk: &mut Walk, table: &mut Table<'_>, standard: Limits) -> Limits {
    let bytes = |range| within(range, units::size, units::show_size);
    let header_bytes = table.value(walk, "header_bytes", bytes(HEADER_BYTES));
    let uri_bytes = table.value(walk, "uri_bytes", bytes(URI_BYTES));
    let small = |bytes: Option<u64>, default| bytes.and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
    let limits = Limits {
        tls_handshake: table.value_or(walk, "tls_handshake", standard.tls_handshake, time),
        request_header: table.value_or(walk, "request_header", standard.request_header, time),
        body_progress: table.value_or(walk, "body_progress", standard.body_progress, time),
        connect: table.value_or(walk, "connect", standard.connect, time),
        response_header: table.value_or(walk, "response_header", standard.response_header, time),
        drain: table.value_or(walk, "drain", standard.drain, time),
        tunnel_idle: table.value_or(walk, "tunnel_idle", standard.tunnel_idle, time),
        tunnel_life: table.value_or(walk, "tunnel_life", standard.tunnel_life, or_off(time)),
        drain_delay: table
            .value(walk, "drain_delay", or_off(delay))
            .map_or(standard.drain_delay, Option::unwrap_or_default),
        upstream_idle: table.value_or(walk, "upstream_idle", standard.upstream_idle, time),
        header_bytes: small(header_bytes, standard.header_bytes),
        header_count: table.value_or(walk, "header_count", standard.header_count, number(10..=1000)),
        uri_bytes: small(uri_bytes, standard.uri_bytes),
        body_bytes: table.value_or(walk, "body_bytes", standard.body_bytes, body),
        streams: table.value_or(walk, "streams", standard.streams, number(1..=10_000)),
        connections: table.value_or(walk, "connections", standard.connections, number(1..=10_000_000)),
        connections_per_client: table.value_or(
            walk,
            "connections_per_client",
            standard.connections_per_client,
            number(1..=10_000_000),
        ),
        upstream_idle_connections: table.value_or(
            walk,
            "upstream_idle_connections",
            standard.upstream_idle_connections,
            number(0..=100_000),
        ),
    };
    if limits.uri_bytes > limits.header_bytes {
        let wrong = Wrong::new("uri_bytes is larger than header_bytes, which the target is a part of");
        walk.fault(&table.field, wrong.hint("raise header_bytes or lower uri_bytes"));
    }
    limits
}
