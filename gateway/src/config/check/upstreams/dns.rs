//! `dns`: how the names of upstreams are looked up.

use std::net::{IpAddr, SocketAddr};

use super::super::limits::time;
use crate::config::decode::{Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, quote};
use crate::config::model::Dns;

const PORT: u16 = 53;
/// More are not asked in any time that a look-up may take.
const MOST_SERVERS: usize = 8;

pub(super) fn dns(walk: &mut Walk, top: &mut Table<'_>) -> Dns {
    let standard = defaults::dns();
    let read = top.get(walk, "dns").and_then(|field| {
        walk.table(&field, |walk, table| {
            let items = table.list(walk, "servers");
            if let Some(item) = items.get(MOST_SERVERS) {
                walk.fault(
                    item,
                    Wrong::new(format!("at most {MOST_SERVERS} servers are asked")),
                );
            }
            Dns {
                servers: items.iter().filter_map(|item| walk.value(item, server)).collect(),
                refresh: table.value_or(walk, "refresh", standard.refresh, time),
                stale: table.value_or(walk, "stale", standard.stale, time),
                timeout: table.value_or(walk, "timeout", standard.timeout, time),
            }
        })
    });
    read.unwrap_or(standard)
}

/// An address, with or without a port.
fn server(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, PORT));
    }
    let wrong = || {
        Wrong::new(format!("{} is not the address of a DNS server", quote(text)))
            .hint("write 10.0.0.53, 10.0.0.53:5353 or \"[2001:db8::53]:53\"")
    };
    let address: SocketAddr = text.parse().map_err(|_| wrong())?;
    if address.port() == 0 {
        Err(wrong())
    } else {
        Ok(address)
    }
}
