//! What holds where the configuration is silent. The one home of these numbers; `config/gateway.yaml` shows them, and a
//! test compares the two.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use gateway_common::outcome::DropReason;
use gateway_common::tables::capacity;

use super::model::{
    Admin, BlockPolicy, Capacity, Caps, Config, Dns, Ejection, ErrorPages, ForwardingHeader, Health, Limits,
    ListSources, Log, LogFormat, Paths, Probe, Retries, Strikes, TlsVersion, Xdp, XdpMode,
};

/// Where `gateway` looks for its configuration unless told otherwise.
pub const CONFIG_FILE: &str = "/etc/gateway/gateway.yaml";
pub const ADMIN_SOCKET: &str = "/run/gateway/admin.sock";
/// Loopback: metrics name routes and upstreams, which is nobody else's business unless the operator says so.
pub const METRICS: &str = "127.0.0.1:9901";
pub const PIN_DIR: &str = "/sys/fs/bpf/gateway";
pub const STATE_DIR: &str = "/var/lib/gateway";
pub const API_KEY_HEADER: &str = "x-api-key";
/// How far the clocks of a token's issuer and of the gateway may be apart.
pub const LEEWAY: Duration = Duration::from_secs(30);
/// More would let tokens live for long after their end.
pub const MOST_LEEWAY: Duration = Duration::from_secs(600);
/// Between two looks at published keys.
pub const KEYS_REFRESH: Duration = Duration::from_secs(600);
/// Shortest time between two looks at published keys, whatever key tokens ask for.
pub const KEYS_FLOOR: Duration = Duration::from_secs(10);
/// How long one look at published keys may take.
pub const KEYS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a service that is asked about callers may take.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a good password need not be verified again.
pub const REMEMBER_PASSWORD: Duration = Duration::from_secs(300);
/// How long a token that a service has called good need not be looked up again.
pub const REMEMBER_TOKEN: Duration = Duration::from_secs(30);
/// How old a signature of a request may be.
pub const SIGNATURE_AGE: Duration = Duration::from_secs(60);
/// What a signature of a request must cover.
pub const COVERED: [&str; 4] = ["@method", "@authority", "@path", "@query"];
/// How long the provider of a log-in may take for one answer.
pub const OIDC_TIMEOUT: Duration = Duration::from_secs(5);
/// The path that a provider sends browsers back to.
pub const OIDC_CALLBACK: &str = "/oauth2/callback";
pub const OIDC_COOKIE: &str = "gateway-session";
/// A session of a browser ends after so long without a request.
pub const OIDC_IDLE: Duration = Duration::from_secs(3_600);
/// And after so long in any case: a working day.
pub const OIDC_LIFETIME: Duration = Duration::from_secs(12 * 3_600);
/// How long a browser may remember what a preflight told it, in seconds.
pub const CORS_MAX_AGE: u32 = 600;
/// Below this, in bytes, a compressed body saves no packet.
pub const COMPRESS_MIN_BYTES: u64 = 1024;
pub const LOG_LEVEL: &str = "info";
pub const TLS_VERSION: TlsVersion = TlsVersion::V1_2;
/// Where a redirecting listener sends its clients.
pub const HTTPS_PORT: u16 = 443;
/// Bits: one subscriber's line, or one rented machine.
pub const SYN_IPV6_PREFIX: u8 = 64;
/// Bits of an address that make one client to limits of requests: whole for IPv4, one subscriber's line for IPv6.
pub const LIMIT_PREFIXES: (u8, u8) = (32, 64);
/// Of a question to redis, which a request waits for.
pub const REDIS_TIMEOUT: Duration = Duration::from_millis(50);
pub const REDIS_PORT: u16 = 6379;
pub const REDIS_PREFIX: &str = "{gateway}:";
/// Largest burst of a rate limit of requests.
pub const MOST_BURST: NonZeroU32 = match NonZeroU32::new(1_000_000) {
    Some(most) => most,
    None => NonZeroU32::MIN,
};
/// Bits of an IPv4 and of an IPv6 address that make one network under `syn_limit.aggregate`.
pub const AGGREGATE_PREFIXES: (u8, u8) = (24, 48);
/// Between two looks at a list file: each costs a system call.
pub const LIST_EVERY: Duration = Duration::from_secs(10);
pub const LOG_DROPS_EVERY: Duration = Duration::from_secs(1);
pub const EVENTS_EVERY: Duration = Duration::from_millis(1);

/// Below this share of healthy endpoints, in percent, all are used.
pub const PANIC_PERCENT: u8 = 50;
/// Longest body that a mirror copies, in bytes.
pub const MIRROR_BODY: u32 = 64 << 10;

/// Longest file of revoked certificates, in bytes.
pub const CRL_BYTES: u32 = 16 << 20;

const MIB: u64 = 1 << 20;

/// The deadlines and sizes. Generous to a slow honest client, finite for everyone.
#[must_use]
pub fn limits() -> Limits {
    Limits {
        tls_handshake: Duration::from_secs(5),
        request_header: Duration::from_secs(10),
        body_progress: Duration::from_secs(30),
        connect: Duration::from_secs(3),
        response_header: Duration::from_secs(60),
        drain: Duration::from_secs(30),
        tunnel_idle: Duration::from_secs(3600),
        tunnel_life: None,
        // A load balancer in front is the operator's knowledge; without one a delay would only make stops slow.
        drain_delay: Duration::ZERO,
        upstream_idle: Duration::from_secs(60),
        header_bytes: 32 << 10,
        header_count: 100,
        uri_bytes: 8 << 10,
        body_bytes: Some(16 * MIB),
        streams: 100,
        connections: 10_000,
        connections_per_client: 1_000,
        upstream_idle_connections: 512,
    }
}

/// No cap on what an upstream takes. Whoever sets one on connections lets as many requests wait.
#[must_use]
pub fn caps() -> Caps {
    Caps {
        connections: None,
        pending: 1_024,
        pending_timeout: Duration::from_secs(1),
        requests: None,
        connection_requests: None,
        connection_age: None,
    }
}

/// What a `health:` mapping means where it leaves something out. Without it nobody is asked.
#[must_use]
pub fn health() -> Health {
    Health {
        probe: Probe::Tcp,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
        healthy: 2,
        unhealthy: 3,
        slow_start: Duration::ZERO,
    }
}

/// What an `ejection:` mapping means where it leaves something out. Without it nobody is set aside.
#[must_use]
pub fn ejection() -> Ejection {
    Ejection {
        failures: 5,
        lasts: Duration::from_secs(10),
        at_most: Duration::from_secs(300),
        share_percent: 50,
    }
}

/// What a `retries:` mapping means where it leaves something out. Without it, up to three endpoints are tried to
/// connect to, and what a kept connection lost before any byte of an answer is sent once more.
#[must_use]
pub fn retries() -> Retries {
    Retries {
        attempts: 3,
        connect: true,
        reset: true,
        timeout: false,
        statuses: Vec::new(),
        per_try: None,
        budget_percent: 20,
        budget_per_second: 3,
    }
}

/// Looking up names.
#[must_use]
pub fn dns() -> Dns {
    Dns {
        servers: Vec::new(),
        refresh: Duration::from_secs(5),
        stale: Duration::from_secs(3_600),
        timeout: Duration::from_secs(2),
    }
}

/// What a `block:` mapping means where it leaves something out. Without that mapping nothing is ever blocked.
#[must_use]
pub fn block() -> BlockPolicy {
    BlockPolicy {
        after: NonZeroU32::new(20).unwrap_or(NonZeroU32::MIN),
        within: Duration::from_secs(60),
        lasts: Duration::from_secs(600),
        escalate_percent: 200,
        at_most: Duration::from_secs(86_400),
    }
}

/// Every check for malformed packets.
pub fn malformed() -> u32 {
    let reasons = DropReason::ALL.iter();
    reasons.fold(0, |bits, reason| bits | reason.malformed_bit())
}

/// Sizes of the kernel tables, whose memory is taken when they are made: 147 MiB.
#[must_use]
pub fn capacity() -> Capacity {
    Capacity {
        deny_addresses: capacity::DENY_ADDRESSES,
        deny_prefixes: capacity::DENY_PREFIXES,
        allow_addresses: capacity::ALLOW_ADDRESSES,
        allow_prefixes: capacity::ALLOW_PREFIXES,
        blocks: capacity::BLOCKS,
    }
}

/// The packet half before anything is said about it: nothing to filter on, nobody listed.
#[must_use]
pub fn xdp() -> Xdp {
    Xdp {
        mode: XdpMode::Auto,
        interfaces: Vec::new(),
        allow: Vec::new(),
        deny: Vec::new(),
        allow_sources: ListSources::default(),
        deny_sources: ListSources::default(),
        syn_limit: None,
        syn_aggregate: None,
        syn_total: None,
        syn_cookies: None,
        icmp_limit: None,
        udp_limit: None,
        observe: 0,
        malformed: malformed(),
        capacity: capacity(),
        pin_dir: PIN_DIR.into(),
        log_drops_every: Some(LOG_DROPS_EVERY),
        events_every: EVENTS_EVERY,
    }
}

/// What an empty file would mean if it were good.
#[must_use]
pub fn config() -> Config {
    Config {
        listen: Vec::new(),
        admin: admin(),
        trusted_proxies: Vec::new(),
        forwarding_header: ForwardingHeader::default(),
        paths: Paths::default(),
        errors: ErrorPages::default(),
        redis: None,
        xdp: xdp(),
        strikes: Strikes {
            block: None,
            scores: BTreeMap::new(),
        },
        limits: limits(),
        upstreams: Vec::new(),
        routes: Vec::new(),
        log: log(),
        state_dir: STATE_DIR.into(),
        workers: workers(),
        watch_files: false,
        sources: Vec::new(),
    }
}

#[must_use]
pub fn admin() -> Admin {
    Admin {
        socket: ADMIN_SOCKET.into(),
        metrics: METRICS.parse().ok(),
    }
}

#[must_use]
pub fn log() -> Log {
    Log {
        level: LOG_LEVEL.to_owned(),
        format: LogFormat::Text,
        access: true,
    }
}

/// One for each processor that this process may use.
#[must_use]
pub fn workers() -> NonZeroU32 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(processors)
        .ok()
        .and_then(NonZeroU32::new)
        .unwrap_or(NonZeroU32::MIN)
}

/// Longest body that is held in memory to be changed or looked at, in bytes.
pub const BODY_EDIT_BYTES: u64 = 1 << 20;

/// Deepest nesting of JSON in such a body.
pub const JSON_DEPTH: u32 = 64;
