//! From the name of an upstream to addresses. Owns the way a name is looked up; knows nothing of endpoints.
//!
//! A client of our own, over the smallest part of the protocol that answers the question. A resolver library would bring
//! some forty crates along, for a cache that the endpoints already are. Without servers in the configuration, A and
//! AAAA are the system's to answer, as files and search domains are its matter; SRV, for which the system has no call, goes
//! to the servers of `resolv.conf`.

mod message;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::config::model::{Address, Dns};
use message::{Kind, Record, Reply};

/// Most addresses that one name stands for; more would make every pick slow.
const MOST_ADDRESSES: usize = 256;
/// Most hosts of a service that are looked up.
const MOST_TARGETS: usize = 64;
/// Times that all servers are asked.
const ROUNDS: usize = 2;
const RESOLV_CONF: &str = "/etc/resolv.conf";
const PORT: u16 = 53;

/// One address that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) address: SocketAddr,
    /// As an SRV record says.
    pub(super) weight: Option<u32>,
    /// The host that an SRV record named.
    pub(super) host: Option<String>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// In order, and at least one.
    pub(super) found: Vec<Found>,
    /// How long it holds, where that is known.
    pub(super) ttl: Option<Duration>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the name has no address")]
    Nothing,
    #[error("no server answered: {0}")]
    Unanswered(io::Error),
    #[error("no DNS server is known")]
    NoServer,
}

/// Looks up one member of an upstream.
pub(super) async fn look_up(address: &Address, dns: &Dns) -> Result<Answer, Error> {
    match address {
        Address::Name { host, port } => {
            let (ips, ttl) = addresses(host, dns).await?;
            let found = ips.into_iter().map(|ip| Found {
                address: SocketAddr::new(ip, *port),
                weight: None,
                host: None,
            });
            Answer::of(found.collect(), ttl)
        }
        Address::Service(name) => service(name, dns).await,
        Address::Ip(address) => Answer::of(
            vec![Found {
                address: *address,
                weight: None,
                host: None,
            }],
            None,
        ),
        Address::Unix(_) => Err(Error::Nothing),
    }
}

impl Answer {
    /// In one order, whatever the order of the records, so that the same answer is no change.
    fn of(mut found: Vec<Found>, ttl: Option<Duration>) -> Result<Self, Error> {
        found.sort_by(|a, b| (a.address, &a.host).cmp(&(b.address, &b.host)));
        found.dedup_by(|a, b| a.address == b.address);
        found.truncate(MOST_ADDRESSES);
        if found.is_empty() {
            return Err(Error::Nothing);
        }
        Ok(Self { found, ttl })
    }
}

/// Records of the best priority; the others are for when these can not be reached, which health checks are better at.
async fn service(name: &str, dns: &Dns) -> Result<Answer, Error> {
    let servers = if dns.servers.is_empty() {
        system_servers().await
    } else {
        dns.servers.clone()
    };
    let reply = ask_all(name, Kind::Srv, &servers, dns.timeout).await?;
    let mut ttl = reply.ttl;
    let records = reply.records.into_iter().filter_map(|record| match record {
        // A target of "." says that the service is decidedly not there (RFC 2782).
        Record::Srv(srv) if !srv.target.is_empty() => Some(srv),
        _ => None,
    });
    let mut records: Vec<_> = records.collect();
    let best = records.iter().map(|srv| srv.priority).min();
    records.retain(|srv| Some(srv.priority) == best);
    let mut found = Vec::new();
    let mut failure = Error::Nothing;
    for srv in records.into_iter().take(MOST_TARGETS) {
        match addresses(&srv.target, dns).await {
            Ok((ips, own)) => {
                ttl = shorter(ttl, own);
                found.extend(ips.into_iter().map(|ip| Found {
                    address: SocketAddr::new(ip, srv.port),
                    weight: Some(u32::from(srv.weight).max(1)),
                    host: Some(srv.target.clone()),
                }));
            }
            // A service is not given up for a host of it.
            Err(error) => failure = error,
        }
    }
    if found.is_empty() {
        return Err(failure);
    }
    Answer::of(found, ttl)
}

/// Addresses of both families. One family that can not be looked up does not take the other away.
async fn addresses(host: &str, dns: &Dns) -> Result<(Vec<IpAddr>, Option<Duration>), Error> {
    if dns.servers.is_empty() {
        let looked = timeout(dns.timeout * 2, tokio::net::lookup_host((host, 0))).await;
        let found = match looked {
            Ok(Ok(found)) => found.map(|address| address.ip()).collect::<Vec<_>>(),
            Ok(Err(error)) => return Err(Error::Unanswered(error)),
            Err(_) => return Err(Error::Unanswered(io::ErrorKind::TimedOut.into())),
        };
        return if found.is_empty() {
            Err(Error::Nothing)
        } else {
            Ok((found, None))
        };
    }
    let (v4, v6) = tokio::join!(
        ask_all(host, Kind::A, &dns.servers, dns.timeout),
        ask_all(host, Kind::Aaaa, &dns.servers, dns.timeout)
    );
    let mut ips = Vec::new();
    let mut ttl = None;
    let mut failure = None;
    for reply in [v4, v6] {
        match reply {
            Ok(reply) => {
                let before = ips.len();
                ips.extend(reply.records.iter().filter_map(|record| match record {
                    Record::Ip(ip) => Some(*ip),
                    Record::Srv(_) => None,
                }));
                if ips.len() > before {
                    ttl = shorter(ttl, reply.ttl);
                }
            }
            Err(error) => failure = Some(error),
        }
    }
    if ips.is_empty() {
        return Err(failure.unwrap_or(Error::Nothing));
    }
    Ok((ips, ttl))
}

fn shorter(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Asks each server in turn, until one knows. That there is no such name is an answer, without records.
async fn ask_all(name: &str, kind: Kind, servers: &[SocketAddr], limit: Duration) -> Result<Reply, Error> {
    let mut last = Error::NoServer;
    for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
        match timeout(limit, ask(name, kind, *server)).await {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(error)) => last = Error::Unanswered(error),
            Err(_) => last = Error::Unanswered(io::ErrorKind::TimedOut.into()),
        }
    }
    Err(last)
}

async fn ask(name: &str, kind: Kind, server: SocketAddr) -> io::Result<Reply> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let id = u16::from_ne_bytes(id);
    let question = message::question(id, name, kind).ok_or(io::ErrorKind::InvalidInput)?;
    // A socket, and so a port, for each question; connected, so that only the server is heard.
    let any: SocketAddr = if server.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut bytes = [0; message::MOST_UDP];
    let reply = loop {
        let length = socket.recv(&mut bytes).await?;
        // What does not answer this question may be forged: the answer may still come.
        if let Some(reply) = bytes
            .get(..length)
            .and_then(|bytes| message::reply(bytes, id, name, kind))
        {
            break reply;
        }
    };
    let reply = if reply.truncated {
        ask_by_tcp(&question, id, name, kind, server).await?
    } else {
        reply
    };
    if reply.refused {
        return Err(io::Error::other("the server could not say"));
    }
    Ok(reply)
}

async fn ask_by_tcp(
    question: &[u8],
    id: u16,
    name: &str,
    kind: Kind,
    server: SocketAddr,
) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(question).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    let reply = message::reply(&bytes, id, name, kind);
    reply.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "what came is no answer"))
}

/// Those of `resolv.conf`.
async fn system_servers() -> Vec<SocketAddr> {
    let text = tokio::fs::read_to_string(RESOLV_CONF).await.unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("nameserver")?
                .trim()
                .parse::<IpAddr>()
                .ok()
        })
        .map(|ip| SocketAddr::new(ip, PORT))
        .take(3)
        .collect()
}
