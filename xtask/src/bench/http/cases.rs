//! What is measured: who takes part, with what configuration and load, and the ratios that are aimed at.

use super::h2load::{Load, Path};
use super::peers::{ALL, Program, Routes, Setup};

/// One table of the report.
#[derive(Debug)]
pub struct Case {
    pub id: &'static str,
    pub title: &'static str,
    pub what: &'static str,
    pub kind: Kind,
    pub entries: Vec<Entry>,
    pub targets: Vec<Target>,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub name: &'static str,
    pub program: Program,
    pub setup: Setup,
    pub path: Path,
}

/// How it is measured.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Closed(Load),
    HalfLoad,
    WebSockets(u32),
    Resident,
    Routes,
    IdleConnections(u32),
    Reload(u32),
}

/// The most that the gateway's value in a column should be.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub column: usize,
    /// Times another row's, or by itself.
    pub than: Option<&'static str>,
    pub at_most: f64,
}

impl Kind {
    /// Names and digits of what it measures; the first is what programs are compared by.
    pub const fn columns(self) -> &'static [(&'static str, usize)] {
        match self {
            Self::Closed(Load { close: true, .. }) => &[
                ("µs a handshake", 1),
                ("handshakes/s", 0),
                ("MiB resident", 1),
                ("µs of the whole core", 1),
            ],
            Self::Closed(_) => &[
                ("µs a request", 2),
                ("requests/s", 0),
                ("MiB resident", 1),
                ("µs of the whole core", 2),
            ],
            Self::HalfLoad => &[
                ("p99 µs", 0),
                ("p50 µs", 0),
                ("p99.9 µs", 0),
                ("requests/s", 0),
                ("µs a request", 2),
                ("load core busy %", 0),
            ],
            Self::WebSockets(_) => &[("KiB a WebSocket", 1), ("processor ms/s idle", 2)],
            Self::Resident => &[("MiB idle", 1), ("MiB after load", 1)],
            Self::Routes => &[("MiB", 1), ("ms to start", 0)],
            Self::IdleConnections(_) => &[("KiB a connection", 2), ("MiB in all", 1)],
            Self::Reload(_) => &[
                ("ms until live", 1),
                ("p99 ms", 1),
                ("slowest ms", 1),
                ("errors", 0),
                ("MiB before", 1),
                ("most MiB, first quarter", 1),
                ("most MiB, last quarter", 1),
                ("MiB grown", 1),
            ],
        }
    }

    /// Whether more rounds make it steadier: memory is the same each time.
    pub const fn takes_rounds(self) -> bool {
        matches!(self, Self::Closed(_) | Self::HalfLoad)
    }
}

fn everyone(setup: Setup, path: Path) -> Vec<Entry> {
    let entry = |program: &Program| Entry {
        name: program.name(),
        program: *program,
        setup,
        path,
    };
    ALL.iter().map(entry).collect()
}

const fn times(than: &'static str, at_most: f64) -> Target {
    Target {
        column: 0,
        than: Some(than),
        at_most,
    }
}

/// Of what the core did for a request in all: where much is moved, the kernel's own threads do a part of it.
const fn of_the_core(than: &'static str, at_most: f64) -> Target {
    Target {
        column: 3,
        than: Some(than),
        at_most,
    }
}

const fn plain(column: usize, at_most: f64) -> Target {
    Target {
        column,
        than: None,
        at_most,
    }
}

const ROOT: Path = Path::One("/");
/// A path of the routes with `/svcN/`.
const SERVICE: Path = Path::One("/svc7/items/1");
const ROUTES: u32 = 5_000;
const CHAIN: u32 = 500;

const PLAIN_GATEWAY: Entry = Entry {
    name: "gateway, plain",
    program: Program::Gateway,
    setup: Setup::PLAIN,
    path: ROOT,
};

const WIDE: Setup = Setup {
    connections: 25_000,
    ..Setup::PLAIN
};

fn body(id: &'static str, title: &'static str, what: &'static str, load: Load, targets: Vec<Target>) -> Case {
    Case {
        id,
        title,
        what,
        kind: Kind::Closed(Load {
            connections: 16,
            ..load
        }),
        entries: everyone(Setup::PLAIN, load.path),
        targets,
    }
}

/// All of them, in the order in which they run.
pub fn all() -> Vec<Case> {
    let mut cases = closed();
    cases.extend(others());
    cases
}

/// Authentication beside nothing of the kind.
fn auth(id: &'static str, title: &'static str, what: &'static str, routes: Routes, at_most: f64) -> Case {
    Case {
        id,
        title,
        what,
        kind: Kind::Closed(Load::PLAIN),
        entries: vec![
            Entry {
                setup: Setup::routes(routes),
                name: Program::Gateway.name(),
                ..PLAIN_GATEWAY
            },
            PLAIN_GATEWAY,
        ],
        targets: vec![times(PLAIN_GATEWAY.name, at_most)],
    }
}

fn closed() -> Vec<Case> {
    let mut chain = everyone(Setup::routes(Routes::Chain(CHAIN)), Path::Services(CHAIN));
    chain.push(PLAIN_GATEWAY);
    let mut plain = everyone(Setup::PLAIN, ROOT);
    let untold = [
        ("nginx, nothing told", Program::Nginx),
        ("haproxy, nothing told", Program::Haproxy),
    ];
    plain.extend(untold.map(|(name, program)| Entry {
        name,
        program,
        setup: Setup::UNTOLD,
        path: ROOT,
    }));
    vec![
        Case {
            id: "plain",
            title: "Plain, kept connections",
            what: "HTTP/1.1, 64 connections, a 128-byte JSON answer. Everyone tells the upstream who asks, as the gateway always does: \
                   X-Forwarded-For, -Proto and -Host, X-Real-IP, Via, and an id of the request, which the client gets too. \
                   `nothing told` is without these.",
            kind: Kind::Closed(Load::PLAIN),
            entries: plain,
            targets: vec![times("nginx", 1.0), times("haproxy", 0.95)],
        },
        Case {
            id: "tls",
            title: "TLS, kept connections",
            what: "The same over TLS 1.3 (AES-128-GCM, X25519).",
            kind: Kind::Closed(Load::PLAIN),
            entries: everyone(Setup::TLS, ROOT),
            targets: vec![times("nginx", 1.0)],
        },
        Case {
            id: "tls-new",
            title: "New TLS connections",
            what: "A full TLS 1.3 handshake (ECDSA P-256, X25519), one request and its answer, and the end, 16 at a time. The \
                   client never resumes a session; every program issues tickets as it does by default. The client's side \
                   costs more than the server's, so that the rate is the load generator's.",
            kind: Kind::Closed(Load {
                close: true,
                connections: 16,
                ..Load::PLAIN
            }),
            entries: everyone(Setup::TLS, ROOT),
            targets: vec![times("nginx", 1.0)],
        },
        Case {
            id: "h2",
            title: "HTTP/2 in, HTTP/1.1 out",
            what: "TLS, 10 connections with 100 streams each, a 128-byte answer.",
            kind: Kind::Closed(Load {
                http2: true,
                connections: 10,
                streams: 100,
                ..Load::PLAIN
            }),
            entries: everyone(Setup::TLS, ROOT),
            targets: vec![times("nginx", 0.8)],
        },
        body(
            "64k-down",
            "64 KiB down",
            "Plain HTTP/1.1, 16 connections.",
            Load {
                path: Path::One("/files/64k"),
                length: 64 << 10,
                ..Load::PLAIN
            },
            Vec::new(),
        ),
        body(
            "1m-down",
            "1 MiB down",
            "Plain HTTP/1.1, 16 connections.",
            Load {
                path: Path::One("/files/1m"),
                length: 1 << 20,
                ..Load::PLAIN
            },
            vec![times("nginx", 1.1), of_the_core("nginx", 1.1)],
        ),
        body(
            "1m-up",
            "1 MiB up",
            "POST over plain HTTP/1.1, 16 connections, bodies streamed by all; the upstream answers when it has all of it.",
            Load {
                path: Path::One("/up"),
                send: Some("files/1m"),
                ..Load::PLAIN
            },
            vec![times("nginx", 1.1), of_the_core("nginx", 1.1)],
        ),
        Case {
            id: "chain",
            title: "Full chain",
            what: "500 routes called in turn, an API key, a limit of rate by client that is never reached, headers removed, set \
                   and added both ways. nginx: map, limit_req, locations; HAProxy: maps and a stick table; Caddy: no limit.",
            kind: Kind::Closed(Load {
                path: Path::Services(CHAIN),
                ..Load::PLAIN
            }),
            entries: chain,
            targets: vec![times(PLAIN_GATEWAY.name, 1.2)],
        },
        auth(
            "token",
            "Token, rate limit, header",
            "A JWT (ES256), verified once and then remembered until it expires; a limit of rate by its subject that is never \
             reached; a header set.",
            Routes::Token,
            1.2,
        ),
        auth(
            "key",
            "API key among 100,000",
            "Kept as hashes in a file.",
            Routes::Keys(100_000),
            1.05,
        ),
    ]
}

fn others() -> Vec<Case> {
    let ours = |routes| {
        vec![Entry {
            name: Program::Gateway.name(),
            program: Program::Gateway,
            setup: Setup::routes(routes),
            path: SERVICE,
        }]
    };
    vec![
        Case {
            id: "half-load",
            title: "Latency at half load",
            what: "Plain HTTP/1.1, 64 connections, requests at a fixed rate: half of what the slower of gateway and nginx can \
                   do. A request's time counts from when it was due, so that waiting is not left out. Where the load's own \
                   core is busy, part of the slowest is the load's.",
            kind: Kind::HalfLoad,
            entries: everyone(Setup::PLAIN, ROOT),
            targets: vec![times("nginx", 1.0)],
        },
        Case {
            id: "websockets",
            title: "1,000 idle WebSockets",
            what: "Opened, one message there and back on each, then left alone; one more on each at the end. Resident memory \
                   that each added; processor time a second while all are idle.",
            kind: Kind::WebSockets(1_000),
            entries: everyone(
                Setup {
                    websocket: true,
                    ..Setup::PLAIN
                },
                ROOT,
            ),
            targets: Vec::new(),
        },
        Case {
            id: "memory",
            title: "Resident memory",
            what: "After the first answer, and after a second of load on 64 connections.",
            kind: Kind::Resident,
            entries: everyone(Setup::PLAIN, ROOT),
            targets: vec![plain(0, 15.0)],
        },
        Case {
            id: "memory-routes",
            title: "Resident memory with 5,000 routes",
            what: "After the first answer; and the time from the start to a listening socket.",
            kind: Kind::Routes,
            entries: everyone(Setup::routes(Routes::Many(ROUTES)), SERVICE),
            targets: vec![plain(0, 40.0)],
        },
        Case {
            id: "idle-plain",
            title: "Idle connections, plain",
            what: "What each adds to resident memory once it has had one answer.",
            kind: Kind::IdleConnections(10_000),
            entries: everyone(WIDE, ROOT),
            targets: vec![plain(0, 10.0)],
        },
        Case {
            id: "idle-tls",
            title: "Idle connections, TLS",
            what: "The same over TLS, opened by h2load; what is counted is the connections that stay open.",
            kind: Kind::IdleConnections(10_000),
            entries: everyone(Setup { tls: true, ..WIDE }, ROOT),
            targets: vec![plain(0, 25.0)],
        },
        Case {
            id: "reload",
            title: "Reload of 5,000 routes under load",
            what: "The file is written anew with every route changed, SIGHUP, and an answer of the new configuration is waited \
                   for, again and again; 2,000 requests a second go on meanwhile on 32 kept connections.",
            kind: Kind::Reload(1_000),
            entries: ours(Routes::Many(ROUTES)),
            targets: vec![plain(1, 50.0), plain(3, 0.0), plain(7, 2.0)],
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_aim_has_its_column_and_its_row() {
        let cases = all();
        for case in &cases {
            assert!(
                case.entries.iter().any(|entry| entry.name == "gateway"),
                "{}",
                case.id
            );
            for target in &case.targets {
                assert!(target.column < case.kind.columns().len(), "{}", case.id);
                let there = |than| case.entries.iter().any(|entry| entry.name == than);
                assert!(target.than.is_none_or(there), "{}", case.id);
            }
        }
        let mut ids: Vec<&str> = cases.iter().map(|case| case.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), cases.len(), "two cases of one name");
    }
}
