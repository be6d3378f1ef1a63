//! `upstreams`: the services behind the gateway, by name or inline in a route.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;

use super::{label, patterns};
use crate::config::decode::{Field, Key, Table, Walk};
use crate::config::fault::{Wrong, nearest, quote};
use crate::config::model::{Balance, Endpoint, Upstream, UpstreamId};
use crate::config::raw::Value;
use crate::config::scalar::{choice, number};

const BALANCES: [(&str, Balance); 2] = [
    ("round_robin", Balance::RoundRobin),
    ("least_requests", Balance::LeastRequests),
];
const HTTP_PORT: u16 = 80;

/// The upstreams read so far.
#[derive(Default)]
pub(super) struct Upstreams<'t> {
    list: Vec<Upstream>,
    /// The named ones. An inline upstream is its route's alone and can not be asked for by name.
    named: BTreeMap<String, UpstreamId>,
    /// The named ones that no route has asked for yet.
    unused: BTreeMap<UpstreamId, (Key<'t>, Field<'t>)>,
}

/// The mapping at the top: those that several routes share.
pub(super) fn named<'t>(walk: &mut Walk, top: &mut Table<'t>) -> Upstreams<'t> {
    let mut upstreams = Upstreams::default();
    let Some(field) = top.get(walk, "upstreams") else {
        return upstreams;
    };
    for (key, field) in walk.entries(&field) {
        if let Err(wrong) = label(64)(key.text) {
            walk.fault_key(&field, &key, wrong);
        }
        let read = walk.table(&field, |walk, table| {
            let balance = table.value_or(walk, "balance", Balance::RoundRobin, choice(&BALANCES));
            let list = table.require(
                walk,
                "endpoints",
                "such as endpoints: [{url: \"http://10.0.0.1:8080\"}]",
            );
            let endpoints = list.map(|list| endpoints(walk, &list)).unwrap_or_default();
            (balance, endpoints)
        });
        // Kept even if it is bad, so that routes which name it are not told that it does not exist.
        let (balance, endpoints) = read.unwrap_or((Balance::RoundRobin, Vec::new()));
        let id = upstreams.add(Upstream {
            name: key.text.to_owned(),
            balance,
            endpoints,
        });
        upstreams.named.insert(key.text.to_owned(), id);
        upstreams.unused.insert(id, (key, field));
    }
    upstreams
}

impl<'t> Upstreams<'t> {
    /// The `upstream` of a route: a name, or a list of endpoints.
    pub fn of_route(&mut self, walk: &mut Walk, field: &Field<'_>, route: &str) -> Option<UpstreamId> {
        match &field.node.value {
            Value::Text(name) => self.find(walk, field, name),
            Value::List(_) => {
                let endpoints = endpoints(walk, field);
                if self.named.contains_key(route) {
                    let wrong = Wrong::new(format!(
                        "this upstream would be called {} like the one in upstreams",
                        quote(route)
                    ));
                    walk.fault(field, wrong.hint("give the route another name"));
                }
                let upstream = Upstream {
                    name: route.to_owned(),
                    balance: Balance::RoundRobin,
                    endpoints,
                };
                Some(self.add(upstream))
            }
            other => {
                let wrong = Wrong::new(format!(
                    "expected a name or a list of endpoints, found {}",
                    other.kind()
                ));
                walk.fault(
                    field,
                    wrong.hint("write a name of upstreams, or [{url: \"http://127.0.0.1:9000\"}]"),
                );
                None
            }
        }
    }

    /// The list, after a warning about what nobody uses.
    pub fn finish(self, walk: &mut Walk) -> Vec<Upstream> {
        for (key, field) in self.unused.values() {
            let wrong = Wrong::new(format!("no route uses the upstream {}", quote(key.text)));
            walk.warn_key(field, key, wrong);
        }
        self.list
    }

    fn add(&mut self, upstream: Upstream) -> UpstreamId {
        let id = UpstreamId(self.list.len());
        self.list.push(upstream);
        id
    }

    fn find(&mut self, walk: &mut Walk, field: &Field<'_>, name: &str) -> Option<UpstreamId> {
        if let Some(id) = self.named.get(name) {
            self.unused.remove(id);
            return Some(*id);
        }
        let wrong = Wrong::new(format!("there is no upstream {}", quote(name)));
        let hint = match nearest(name, self.named.keys().map(String::as_str)) {
            Some(known) => format!("did you mean {}?", quote(known)),
            None if name.contains("://") => format!("to name an address, write [{{url: {}}}]", quote(name)),
            None => "upstreams at the top names the shared ones".to_owned(),
        };
        walk.fault(field, wrong.hint(hint));
        None
    }
}

fn endpoints(walk: &mut Walk, list: &Field<'_>) -> Vec<Endpoint> {
    let items = walk.list(list);
    if items.is_empty() && matches!(list.node.value, Value::List(_)) {
        walk.fault(list, Wrong::new("an upstream needs at least one endpoint"));
    }
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for item in items {
        let read = walk.table(&item, |walk, table| {
            let field = table.require(walk, "url", "such as url: http://10.0.0.1:8080");
            let weight = table
                .value(walk, "weight", number(1..=65_535))
                .and_then(NonZeroU32::new);
            let field = field.map(without_password)?;
            let (host, port) = walk.value(&field, url)?;
            if endpoints
                .iter()
                .any(|other| other.host == host && other.port == port)
            {
                walk.fault(
                    &field,
                    Wrong::new("this endpoint is given twice").hint("raise its weight instead"),
                );
            }
            Some(Endpoint {
                host,
                port,
                tls: false,
                weight: weight.unwrap_or(NonZeroU32::MIN),
            })
        });
        endpoints.extend(read.flatten());
    }
    endpoints
}

/// An address with a password in it is refused like others, and not shown.
fn without_password(field: Field<'_>) -> Field<'_> {
    match &field.node.value {
        Value::Text(text) if text.contains('@') => field.secret(),
        _ => field,
    }
}

/// `http://host[:port]` and nothing more: paths are the route's matter, and credentials do not belong here.
fn url(text: &str) -> Result<(String, u16), Wrong> {
    if text.contains('@') {
        return Err(Wrong::new(
            "the address of an upstream carries no user or password",
        ));
    }
    let refuse = || Wrong::new(format!("{} is not the address of an upstream", quote(text)));
    let Some((scheme, authority)) = text.split_once("://") else {
        return Err(refuse().hint("write http://host:port"));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "http" => {}
        "https" | "unix" | "h2c" => {
            let wrong = Wrong::new(format!(
                "{scheme}:// to upstreams is not supported yet by this version"
            ));
            return Err(wrong.hint("http:// is"));
        }
        _ => return Err(refuse().hint("it begins with http://")),
    }
    if authority.contains('@') {
        return Err(Wrong::new(
            "the address of an upstream carries no user or password",
        ));
    }
    if let Some(at) = authority.find(['/', '?', '#']) {
        let wrong = Wrong::new(format!("{} goes on after the port", quote(text)));
        return Err(wrong.hint(format!(
            "write {} alone",
            quote(&format!("http://{}", &authority[..at]))
        )));
    }
    let (host, port) = split_port(authority).ok_or_else(|| refuse().hint("write http://host:port"))?;
    let port = match port {
        None => HTTP_PORT,
        Some(port) => {
            let number = number(1..=65_535)(port)
                .ok()
                .and_then(|port| u16::try_from(port).ok());
            number.ok_or_else(|| refuse().hint("the port is a number from 1 to 65535"))?
        }
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner
            .parse::<Ipv6Addr>()
            .map(|ip| ip.to_string())
            .map_err(|_| refuse())?,
        None => match host.parse::<IpAddr>() {
            Ok(ip @ IpAddr::V4(_)) => ip.to_string(),
            Ok(IpAddr::V6(_)) => return Err(refuse().hint("an IPv6 address stands in brackets")),
            Err(_) => patterns::dns_name(host)?,
        },
    };
    Ok((host, port))
}

/// Host and port of an authority, the colons inside brackets left alone.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let end = authority.find(']').map_or(0, |at| at + 1);
    match authority[end..].find(':') {
        None => Some((authority, None)),
        Some(at) => {
            let (host, port) = authority.split_at(end + at);
            let port = port.get(1..)?;
            if port.contains(':') {
                Some((authority, None))
            } else {
                Some((host, Some(port)))
            }
        }
    }
}
