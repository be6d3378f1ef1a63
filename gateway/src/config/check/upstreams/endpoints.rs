//! Where an upstream is: `http://host:port`, `https://host`, `unix:/path`, or the name of an SRV record.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;

use super::super::patterns;
use crate::config::decode::{Field, Walk};
use crate::config::fault::{Wrong, quote};
use crate::config::model::{Address, Endpoint};
use crate::config::raw::Value;
use crate::config::scalar::number;

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
/// Longest name of a Unix socket, in bytes (`sun_path` less its final zero).
const MOST_SOCKET_PATH: usize = 107;

pub(super) fn endpoints(walk: &mut Walk, list: &Field<'_>) -> Vec<Endpoint> {
    let items = walk.list(list);
    if items.is_empty() && matches!(list.node.value, Value::List(_)) {
        walk.fault(list, Wrong::new("an upstream needs at least one endpoint"));
    }
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for item in items {
        let read = walk.table(&item, |walk, table| {
            let weight = table
                .value(walk, "weight", number(1..=65_535))
                .and_then(NonZeroU32::new)
                .unwrap_or(NonZeroU32::MIN);
            let service = table.get(walk, "srv");
            let field = if table.has("srv") {
                table.get(walk, "url")
            } else {
                table.require(walk, "url", "such as url: http://10.0.0.1:8080")
            };
            let (field, (address, tls)) = match (service, field.map(without_password)) {
                (Some(service), None) => {
                    let read = walk.value(&service, srv)?;
                    (service, read)
                }
                (None, Some(field)) => {
                    let read = walk.value(&field, url)?;
                    (field, read)
                }
                (Some(_), Some(field)) => {
                    walk.fault(
                        &field,
                        Wrong::new("an endpoint has a url or an srv name, not both"),
                    );
                    return None;
                }
                (None, None) => return None,
            };
            if endpoints.iter().any(|other| other.address == address) {
                walk.fault(
                    &field,
                    Wrong::new("this endpoint is given twice").hint("raise its weight instead"),
                );
            }
            Some(Endpoint { address, tls, weight })
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

/// A name such as `_http._tcp.orders.internal`, whose records say host, port and weight.
fn srv(text: &str) -> Result<(Address, bool), Wrong> {
    let refuse = || Wrong::new(format!("{} is not the name of an SRV record", quote(text)));
    let (name, tls) = match text.strip_prefix("https://") {
        Some(name) => (name, true),
        None => (text, false),
    };
    let mut labels = name.splitn(3, '.');
    let underscored =
        |label: Option<&str>| label.is_some_and(|label| label.len() > 1 && label.starts_with('_'));
    if !underscored(labels.next()) || !underscored(labels.next()) {
        return Err(refuse().hint("such as _http._tcp.orders.internal"));
    }
    patterns::dns_name(labels.next().unwrap_or_default())?;
    Ok((Address::Service(name.to_ascii_lowercase()), tls))
}

/// `unix:/path`: an absolute one that fits a socket's address.
fn unix(text: &str, path: &str) -> Result<(Address, bool), Wrong> {
    let refuse = || Wrong::new(format!("{} is not the address of an upstream", quote(text)));
    if !path.starts_with('/') || path.contains('\0') {
        return Err(refuse().hint("write unix:/run/app.sock"));
    }
    if path.len() > MOST_SOCKET_PATH {
        return Err(refuse().hint(format!(
            "the path of a socket has at most {MOST_SOCKET_PATH} bytes"
        )));
    }
    Ok((Address::Unix(PathBuf::from(path)), false))
}

/// `http://host[:port]`, `https://host[:port]` or `unix:/path`, and nothing more: paths are the route's matter, and
/// credentials do not belong here. The second value is whether the endpoint speaks TLS.
fn url(text: &str) -> Result<(Address, bool), Wrong> {
    if text.contains('@') {
        return Err(Wrong::new(
            "the address of an upstream carries no user or password",
        ));
    }
    let refuse = || Wrong::new(format!("{} is not the address of an upstream", quote(text)));
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(text, path.strip_prefix("//").unwrap_or(path));
    }
    let Some((scheme, authority)) = text.split_once("://") else {
        return Err(refuse().hint("write http://host:port"));
    };
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        "h2c" => {
            let wrong = Wrong::new(format!(
                "{scheme}:// to upstreams is not supported yet by this version"
            ));
            return Err(wrong.hint("http:// and https:// are"));
        }
        _ => return Err(refuse().hint("it begins with http://, https:// or unix:/")),
    };
    if let Some(at) = authority.find(['/', '?', '#']) {
        let wrong = Wrong::new(format!("{} goes on after the port", quote(text)));
        return Err(wrong.hint(format!(
            "write {} alone",
            quote(&format!("{}://{}", scheme.to_ascii_lowercase(), &authority[..at]))
        )));
    }
    let (host, port) = split_port(authority).ok_or_else(|| refuse().hint("write http://host:port"))?;
    let port = match port {
        None if tls => HTTPS_PORT,
        None => HTTP_PORT,
        Some(port) => {
            let number = number(1..=65_535)(port)
                .ok()
                .and_then(|port| u16::try_from(port).ok());
            number.ok_or_else(|| refuse().hint("the port is a number from 1 to 65535"))?
        }
    };
    let address = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => {
            let ip = inner.parse::<Ipv6Addr>().map_err(|_| refuse())?;
            Address::Ip(SocketAddr::new(ip.into(), port))
        }
        None => match host.parse::<IpAddr>() {
            Ok(ip @ IpAddr::V4(_)) => Address::Ip(SocketAddr::new(ip, port)),
            Ok(IpAddr::V6(_)) => return Err(refuse().hint("an IPv6 address stands in brackets")),
            Err(_) => Address::Name {
                host: patterns::dns_name(host)?,
                port,
            },
        },
    };
    Ok((address, tls))
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
