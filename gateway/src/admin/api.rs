//! The contract of server and command line. Owns the wire types; knows nothing of how they are answered.
//!
//! One JSON document a line in each direction, one answer to each request. Fields are only ever added. A document that
//! tells of a list's `bytes` is followed by these: a million lines are no JSON string.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use crate::dataplane::cookies::CookieRow;
pub use crate::dataplane::engine::{
    AddRules, Added, By, Bypass, Bypassed, Confirmed, CounterRow, Difference, EntryRow, Explanation,
    ImportRules, InterfaceRow, ListRow, Removed, Status, Unblocked, Verified,
};
pub use crate::dataplane::events::Sighting;
pub use crate::dataplane::store::RuleList;

/// Longest request or answer, in bytes: a list of 1,000,000 networks fits.
pub const LONGEST: usize = 256 << 20;

/// What an operator can ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    AddRules(AddRules),
    /// With text behind it.
    ImportRules(ImportRules),
    /// Answered with text behind the answer.
    ExportRules {
        list: RuleList,
    },
    RemoveRules {
        list: RuleList,
        nets: Vec<IpNet>,
        #[serde(default)]
        by: By,
    },
    FlushRules {
        list: RuleList,
        #[serde(default)]
        by: By,
    },
    /// Answered by one [`Answer::Page`]; the next one begins behind the last network of it.
    ListRules {
        list: RuleList,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        after: Option<IpNet>,
    },
    ListBlocks,
    Unblock {
        addrs: Vec<IpAddr>,
    },
    Explain {
        addr: IpAddr,
        operators: Vec<IpAddr>,
    },
    Status,
    Reload {
        #[serde(default)]
        by: By,
    },
    /// Adds denies that end after `within` unless [`Request::Confirm`] comes before.
    AddUnconfirmed {
        order: AddRules,
        within: Duration,
    },
    /// All that wait, if `nets` is empty.
    Confirm {
        nets: Vec<IpNet>,
    },
    BypassOn {
        lasts: Duration,
        reason: String,
    },
    BypassOff,
    BypassStatus,
    Verify,
    /// Answered by [`Answer::Watching`], then by [`Answer::Seen`] and [`Answer::Lost`] until the asker goes away.
    Watch(WatchOrder),
}

/// Which drops to tell of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchOrder {
    /// Those for this reason only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Those from this network only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<IpNet>,
}

impl WatchOrder {
    /// Whether this one is to be told of.
    #[must_use]
    pub fn wants(&self, sighting: &Sighting) -> bool {
        let reason = self.reason.as_ref();
        reason.is_none_or(|reason| *reason == sighting.reason)
            && self
                .source
                .is_none_or(|net| sighting.source.is_some_and(|source| net.contains(&source)))
    }
}

/// From now on drops are told of: samples of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {
    /// At most one in so many nanoseconds on each processor, and in a tick of the kernel's timer.
    pub every_ns: u64,
}

impl Request {
    /// Where the text goes that follows this request, and its length.
    pub fn text(&mut self) -> Option<(&mut Vec<u8>, u64)> {
        match self {
            Self::ImportRules(order) => Some((&mut order.text, order.bytes)),
            _ => None,
        }
    }
}

impl Answer {
    /// Where the text goes that follows this answer, and its length.
    pub fn text(&mut self) -> Option<(&mut Vec<u8>, u64)> {
        match self {
            Self::Exported { text, bytes, .. } | Self::Page { text, bytes, .. } => Some((text, *bytes)),
            _ => None,
        }
    }
}

/// What comes back when it could be answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    Added(Added),
    Removed(Removed),
    /// Commanded rules as lines: see `dataplane::lines`.
    Exported {
        rules: usize,
        /// Length of the text, which follows this answer on the wire.
        bytes: u64,
        #[serde(skip)]
        text: Vec<u8>,
    },
    /// A part of a list: an [`EntryRow`] a line.
    Page {
        /// The network of the last one, if others come behind it.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        more_after: Option<IpNet>,
        /// `eth0: reason` for each configured interface that is not filtered.
        #[serde(default)]
        unfiltered: Vec<String>,
        /// Length of the text, which follows this answer on the wire.
        bytes: u64,
        #[serde(skip)]
        text: Vec<u8>,
    },
    /// All of a list that is never long.
    Entries {
        entries: Vec<EntryRow>,
        forwarded: Vec<ForwardedBlock>,
        /// `eth0: reason` for each configured interface that is not filtered.
        #[serde(default)]
        unfiltered: Vec<String>,
    },
    Unblocked(Unblocked),
    Explained(Explained),
    Status(FullStatus),
    Confirmed(Confirmed),
    Bypassed(Bypassed),
    Verified(Verified),
    Reloaded {
        changed: bool,
        /// What is worth a second look: in the configuration, and denies that are skipped.
        #[serde(default)]
        warnings: Vec<String>,
        /// Whether an interface is filtered, so that any of it has an effect.
        #[serde(default = "yes")]
        enforced: bool,
        /// `eth0: reason` for each configured interface that is not filtered.
        #[serde(default)]
        unfiltered: Vec<String>,
    },
    Watching(Watching),
    Seen(Sighting),
    /// So many were not told of, as they came faster than they were taken.
    Lost {
        events: u64,
    },
}

/// What is taken of an older gateway, which does not say.
const fn yes() -> bool {
    true
}

/// A client known through a trusted proxy's header, refused at layer 7.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedBlock {
    pub addr: IpAddr,
    pub left_ms: u64,
}

/// One address explained: the packet half, and what only a running gateway knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explained {
    #[serde(flatten)]
    pub packets: Explanation,
    /// Strikes that count now, and how many lead to a block. Absent without a running gateway, and for an address that
    /// strikes never block, since it is allowed or protected.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub strikes: Option<Standing>,
    /// Whether this address, named by a trusted proxy, is refused at layer 7.
    #[serde(default)]
    pub refused_when_forwarded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub strikes: u32,
    pub block_after: u32,
}

/// The gateway at a glance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FullStatus {
    pub version: String,
    #[serde(flatten)]
    pub packets: Status,
    /// What of the state on disk can not be read; what was commanded is then known from the tables alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fault: Option<String>,
    /// Absent without a running gateway.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proxy: Option<Box<ProxyStatus>>,
}

/// The request half at a glance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProxyStatus {
    pub pid: u32,
    pub uptime_s: u64,
    pub config: String,
    pub listeners: Vec<String>,
    #[serde(default)]
    pub certificates: Vec<Certificate>,
    pub routes: usize,
    pub connections: usize,
    pub draining: bool,
    #[serde(default)]
    pub upstreams: Vec<UpstreamRow>,
    /// Routes with policies that only observe.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub observing: Vec<ObservingRow>,
    /// Why list files that have changed were not taken over.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub stale_lists: Vec<String>,
    /// Why files of callers (keys, passwords) that have changed were not taken over.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub stale_callers: Vec<String>,
    /// Why the last reload left the configuration of before in force.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stale_config: Option<String>,
    /// Why certificates that have changed are not in use.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stale_certificates: Option<String>,
}

/// A route with policies that only count and log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservingRow {
    pub route: String,
    /// By the names of their settings, such as `auth` and `rate_limit NAME`.
    pub policies: Vec<String>,
    /// Requests and answers that would have been refused since the gateway started, by code.
    pub would_refuse: BTreeMap<String, u64>,
}

/// One upstream and how its endpoints stand.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpstreamRow {
    pub name: String,
    /// Too few are well, so all are used.
    pub panics: bool,
    pub endpoints: Vec<EndpointRow>,
}

/// One address of an upstream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndpointRow {
    pub address: String,
    /// `up`, `starting`, `down` or `ejected`.
    pub state: String,
    pub requests: u32,
    pub connections: u32,
}

/// A server certificate in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Where it was read from; there may be another by now.
    pub file: String,
    /// End of its life, in seconds since 1970.
    pub not_after: i64,
}

/// Why it could not be answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
    /// Whom the order would have cut off, as far as told.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub protected: Vec<ProtectedRow>,
    /// How many there are in all.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub protected_in_all: usize,
}

/// A network that was not denied, since someone protected is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectedRow {
    pub net: IpNet,
    /// Who is protected.
    pub shield: IpNet,
    pub why: String,
}

impl Failure {
    /// One that is told by its message alone.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            protected: Vec::new(),
            protected_in_all: 0,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// It was tried and did not work.
    Failed,
    /// The order was refused to keep someone from being locked out.
    Refused,
    /// The order itself is wrong.
    BadInput,
}

/// One line on the wire.
pub type Outcome = Result<Answer, Failure>;
