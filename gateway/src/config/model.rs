//! The validated configuration. Owns the meaning of every setting; knows nothing of YAML or of what is built from it.
//!
//! Every value here has been checked: names resolve, numbers are in range, files were readable. Two models that
//! are equal configure the same gateway, so a reload can leave alone whatever did not change.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::tables::observe;
use ipnet::IpNet;

mod auth;
mod bodies;
mod errors;
mod keys;
mod limits;
mod oidc;
mod passwords;
mod rare;
mod routing;
mod shape;
mod upstreams;

pub use auth::*;
pub use bodies::*;
pub use errors::*;
pub use keys::*;
pub use limits::*;
pub use oidc::*;
pub use passwords::*;
pub use rare::{Rare, Unsaid};
pub(in crate::config) use routing::anchored;
pub use routing::*;
pub use shape::*;
pub use upstreams::*;

/// A whole, valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub listen: Vec<Listener>,
    pub admin: Admin,
    /// Networks whose forwarding headers are believed, and which are never blocked. Empty by default.
    pub trusted_proxies: Vec<IpNet>,
    pub forwarding_header: ForwardingHeader,
    pub paths: Paths,
    pub errors: ErrorPages,
    pub xdp: Xdp,
    pub strikes: Strikes,
    pub limits: Limits,
    /// The server of shared limits.
    pub redis: Option<Arc<Redis>>,
    /// Shared with what is made of them.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Shared likewise.
    pub routes: Vec<Arc<Route>>,
    pub log: Log,
    /// Where commands are remembered across restarts.
    pub state_dir: PathBuf,
    /// Request-serving threads; each has its own sockets, pools and event loop.
    pub workers: NonZeroU32,
    /// Whether a change of a file in `sources` is taken up as by a reload.
    pub watch_files: bool,
    /// The configuration file, then every text file that it names, as they were opened.
    pub sources: Vec<PathBuf>,
}

/// One address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    pub tls: Option<Tls>,
    /// Connections begin with a PROXY header, and come from [`Config::trusted_proxies`] only.
    pub proxy_protocol: bool,
    /// Every request is sent to HTTPS at this port; never with `tls`.
    pub redirect_to_https: Option<u16>,
    /// Instead of [`Config::paths`].
    pub paths: Option<Paths>,
}

impl Listener {
    /// In cleartext, with nothing in front.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            proxy_protocol: false,
            redirect_to_https: None,
            paths: None,
        }
    }
}

/// TLS of a listener: certificates chosen by server name; the first is the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub certificates: Vec<Certificate>,
    pub min_version: TlsVersion,
    /// `None` asks clients for no certificate.
    pub client_auth: Option<ClientAuth>,
}

impl Tls {
    /// With these certificates, and defaults for the rest.
    #[must_use]
    pub fn with(certificates: Vec<Certificate>) -> Self {
        Self {
            certificates,
            min_version: super::defaults::TLS_VERSION,
            client_auth: None,
        }
    }

    /// Every file that it is read from.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = self.certificates.iter();
        let pairs = pairs.flat_map(|certificate| [&certificate.cert, &certificate.key]);
        let auth = self.client_auth.iter();
        pairs.chain(auth.flat_map(|auth| std::iter::once(&auth.ca).chain(&auth.crl)))
    }
}

/// A version of TLS. Older ones are not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// Certificates of clients, verified up to those in `ca`, a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    pub ca: PathBuf,
    /// Lists of what has been revoked, one of each issuer, in one PEM file.
    pub crl: Option<PathBuf>,
    /// Whether a handshake without a certificate fails. One with a bad certificate always does.
    pub required: bool,
}

/// A certificate chain and its key, as files in PEM form. `check` has seen that they parse and belong together. The
/// model holds the names, not the contents: who loads them again looks for changes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Where operators and collectors reach the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Unix socket of the command line.
    pub socket: PathBuf,
    /// Address of `/metrics`, `/healthz` and `/readyz`; `None` turns them off.
    pub metrics: Option<SocketAddr>,
}

/// How the program is attached to interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// Native where the driver can, else generic; which one it got is reported.
    Auto,
    Native,
    Generic,
    /// No kernel program: rules and blocks are kept by the proxy alone.
    None,
}

/// The packet half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xdp {
    pub mode: XdpMode,
    /// Interface names, without duplicates. Empty only with [`XdpMode::None`].
    pub interfaces: Vec<String>,
    /// Inline entries and the contents of list files, in the order given, without duplicates and within
    /// [`Capacity`]. Never an IPv4-mapped network: that is held as the IPv4 network it means.
    pub allow: Vec<IpNet>,
    /// As `allow`. Addresses under an allow entry may be among them; they have no effect.
    pub deny: Vec<IpNet>,
    /// What `allow` is made from.
    pub allow_sources: ListSources,
    /// What `deny` is made from.
    pub deny_sources: ListSources,
    /// New TCP connections of one source.
    pub syn_limit: Option<PacketLimit>,
    /// New TCP connections of one network; only with `syn_limit`.
    pub syn_aggregate: Option<PacketLimit>,
    /// New TCP connections of all sources together, whose prefixes do not matter; only with `syn_limit`.
    pub syn_total: Option<PacketLimit>,
    /// SYNs answered without the network stack once there are too many.
    pub syn_cookies: Option<SynCookies>,
    pub icmp_limit: Option<PacketLimit>,
    pub udp_limit: Option<PacketLimit>,
    /// Bits of `gateway_common::tables::observe`: what is counted and told of, but drops nothing.
    pub observe: u32,
    /// Checks for malformed packets that are on, by `DropReason::malformed_bit`.
    pub malformed: u32,
    pub capacity: Capacity,
    /// Directory on bpffs under which everything is pinned, below a directory named for the ABI version.
    pub pin_dir: PathBuf,
    /// One log line of a drop in this time on each processor; `None` for no lines.
    pub log_drops_every: Option<Duration>,
    /// One event of a drop in this time on each processor, while somebody watches.
    pub events_every: Duration,
}

/// Where a list comes from, so that its files can be read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListSources {
    /// Entries of the configuration itself.
    pub inline: Vec<IpNet>,
    pub files: Vec<ListFile>,
}

/// A file that a list names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFile {
    pub path: PathBuf,
    /// How often to look whether it has changed; `None` for never.
    pub every: Option<Duration>,
    /// As it was read.
    pub stamp: FileStamp,
    /// Networks in it, those that others repeat included.
    pub entries: usize,
}

/// What tells one state of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    /// Seconds since 1970 and nanoseconds of the last write.
    pub modified: (i64, i64),
}

impl From<&std::fs::Metadata> for FileStamp {
    fn from(data: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
        }
    }
}

/// What can be observed, by the name that the configuration has for it: bits of [`Xdp::observe`].
pub const OBSERVABLE: [(&str, u32); 9] = [
    ("all", observe::ALL),
    ("deny", observe::DENY),
    ("blocks", observe::BLOCK),
    ("malformed", observe::MALFORMED),
    ("syn_limit", observe::SYN_LIMIT),
    ("syn_limit.aggregate", observe::SYN_AGGREGATE_LIMIT),
    ("syn_limit.total", observe::SYN_GLOBAL_LIMIT),
    ("icmp_limit", observe::ICMP_LIMIT),
    ("udp_limit", observe::UDP_LIMIT),
];

/// The names of what these bits observe, each for itself.
#[must_use]
pub fn observed(bits: u32) -> Vec<&'static str> {
    let single = OBSERVABLE.iter().filter(|(_, bit)| bit.is_power_of_two());
    single
        .filter(|(_, bit)| bits & bit != 0)
        .map(|(name, _)| *name)
        .collect()
}

/// Rate of packets of one kind for all sources that share the first bits of their address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketLimit {
    pub rate: Rate,
    pub burst: NonZeroU32,
    /// Bits of an IPv4 address that make one source, 8 to 32.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that make one source, 16 to 128.
    pub ipv6_prefix: u8,
}

/// When SYNs to the gateway's listeners are answered by cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynCookies {
    /// SYNs to one port, of all sources together, that still go to the network stack.
    pub above: Rate,
    pub burst: NonZeroU32,
    /// Whether the gateway sets the sysctls that cookies need, or only asks for them.
    pub set_sysctls: bool,
}

/// So many in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: NonZeroU32,
    pub per: Duration,
}

/// Sizes of the kernel tables, in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub deny_addresses: u32,
    /// For each family.
    pub deny_prefixes: u32,
    pub allow_addresses: u32,
    /// For each family.
    pub allow_prefixes: u32,
    pub blocks: u32,
}

/// When misbehaviour becomes a block. `block: None` counts strikes and never blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strikes {
    pub block: Option<BlockPolicy>,
    /// Strikes that a reject costs, by reject code; codes not named cost their default (`Reject::default_strikes`).
    pub scores: BTreeMap<String, u32>,
}

/// Strikes to block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPolicy {
    /// Strikes that lead to a block, 1 to 1,000.
    pub after: NonZeroU32,
    /// Time in which they must fall.
    pub within: Duration,
    /// Length of the first block.
    pub lasts: Duration,
    /// Factor on the length of each further block of the same source, in hundredths (`4x` is 400).
    pub escalate_percent: u32,
    /// Longest block.
    pub at_most: Duration,
}

/// Deadlines and sizes that hold for every request. All are on by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From accept to the end of the TLS handshake.
    pub tls_handshake: Duration,
    /// From the first byte waited for to the end of the request's header; also how long a connection may idle.
    pub request_header: Duration,
    /// Longest pause between two pieces of a body, in either direction.
    pub body_progress: Duration,
    /// From picking an endpoint to a usable connection.
    pub connect: Duration,
    /// From the request sent, the first time if there are several, to the response's header.
    pub response_header: Duration,
    /// From SIGTERM, or what `drain_delay` makes of it, to the end of the last request.
    pub drain: Duration,
    /// Longest silence of a WebSocket, an event stream or a gRPC call.
    pub tunnel_idle: Duration,
    /// Longest life of a WebSocket, from its 101; `None` for as long as its sides like.
    pub tunnel_life: Option<Duration>,
    /// How long the gateway still takes connections after SIGTERM, while `/readyz` already fails. May be zero.
    pub drain_delay: Duration,
    /// How long an idle upstream connection is kept.
    pub upstream_idle: Duration,
    /// Bytes of a request's header, all lines together.
    pub header_bytes: u32,
    /// Number of header lines.
    pub header_count: u32,
    /// Bytes of the request target.
    pub uri_bytes: u32,
    /// Bytes of a request's body; `None` for no cap.
    pub body_bytes: Option<u64>,
    /// Streams at once on one HTTP/2 connection.
    pub streams: u32,
    /// Client connections at once.
    pub connections: u32,
    /// Client connections at once from one address.
    pub connections_per_client: u32,
    /// Idle connections kept for one endpoint by one worker.
    pub upstream_idle_connections: u32,
}

/// Log output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A filter as `tracing_subscriber::EnvFilter` reads it.
    pub level: String,
    pub format: LogFormat,
    /// One line for each request.
    pub access: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Index into [`Config::upstreams`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(pub usize);

/// One way a request can go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Metric label and log field: the `name` given, else host and path as written.
    pub name: String,
    pub host: HostMatch,
    pub path: PathMatch,
    pub when: Conditions,
    pub cors: Option<Box<Cors>>,
    /// Shared by routes that name it.
    pub auth: Option<Arc<Auth>>,
    pub request: Rare<HeaderEdit>,
    pub response: Rare<HeaderEdit>,
    /// What the upstream is asked for, if it is something else.
    pub rewrite: Rare<Rewrite>,
    pub query: Rare<QueryEdit>,
    pub status: StatusMap,
    /// What the gateway's own errors look like here, before those of all routes.
    pub errors: Rare<ErrorPages>,
    pub request_body: Option<Box<BodyEdit>>,
    pub response_body: Option<Box<BodyEdit>>,
    /// What describes its requests and answers.
    pub validate: Option<Box<Validate>>,
    pub action: Action,
    /// Shares of other upstreams in the route's requests; the one of the action is the first of them.
    pub split: Option<Box<Split>>,
    /// Where copies of the route's requests go.
    pub mirror: Option<Mirror>,
    pub compress: Option<Compress>,
    /// Cap on a request's body after decoding, in bytes; without one, coded bodies go on as they are.
    pub decompress: Option<u64>,
    pub throttle: Rare<Throttle>,
    /// Overrides of [`Limits::body_bytes`] and [`Limits::response_header`] for this route; `u64::MAX` is no cap.
    pub body_bytes: Option<u64>,
    pub response_header: Option<Duration>,
    /// From the request's header to the last byte of the answer, or to the 101 of a WebSocket; `None` for no deadline.
    pub total: Option<Duration>,
    /// Overrides of [`Limits::tunnel_idle`] and [`Limits::tunnel_life`].
    pub tunnel_idle: Option<Duration>,
    pub tunnel_life: Option<Option<Duration>>,
    /// Where the route stands, for messages: `file:line`.
    pub source: String,
}

impl Route {
    /// Whether facts of the request are needed after its header was edited.
    #[must_use]
    pub fn keeps_facts(&self) -> bool {
        let bodies = self.request_body.is_some() || self.response_body.is_some() || self.validate.is_some();
        bodies || !self.response.made.is_empty() || !self.query.is_empty()
    }

    /// Policies that only count and log, by the names of their settings.
    #[must_use]
    pub fn observing(&self) -> Vec<String> {
        let named = |setting: &str, name: &Option<String>| match name {
            Some(name) => format!("{setting} {name}"),
            None => setting.to_owned(),
        };
        let throttle = &self.throttle;
        let mut all = Vec::new();
        if self.auth.as_ref().is_some_and(|auth| auth.observe) {
            all.push("auth".to_owned());
        }
        let rates = throttle.rates.iter().filter(|limit| limit.observe);
        all.extend(rates.map(|limit| named("rate_limit", &limit.name)));
        let quotas = throttle.quotas.iter().filter(|limit| limit.observe);
        all.extend(quotas.map(|limit| named("quota", &limit.name)));
        let at_once = throttle.at_once.iter().filter(|limit| limit.observe);
        all.extend(at_once.map(|_| "concurrency".to_owned()));
        if let Some(rule) = &self.validate {
            all.extend(rule.observe.then(|| "validate".to_owned()));
            all.extend((rule.response == ResponseCheck::Observe).then(|| "validate.response".to_owned()));
        }
        all
    }
}

impl Config {
    /// Whether the forwarding headers of a connection from `ip` are believed.
    #[must_use]
    pub fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&ip))
    }
}
